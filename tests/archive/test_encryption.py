"""The `age` command reads what is encrypted here, and the other way round; altered files are refused."""

from __future__ import annotations

import io
import os
import pty
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from backupkit.archive import age_keys, encryption
from backupkit.archive.encryption import Identities, Recipients
from backupkit.model.errors import Damaged, Refused
from small_app import SmallApp

PIECE = 1 << 16
SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 200_000]
# A key pair from age-keygen.
SECRET = "AGE-SECRET-KEY-1GU9AY80U55S5S6VGLUJ9WEHNY282LXCJGL554MUE5DJNRQ75T0WQY8NGFQ"
PUBLIC = "age16z8wjryqm65fq6m4ueactlnjepts06ne7glmpxna9vlq75kfwfmq3fd0kx"


def closed(content: bytes, lock: Recipients, step: int = 10_000) -> bytes:
    out = io.BytesIO()
    with encryption.encrypting(out, lock) as plain:
        for start in range(0, len(content), step):
            plain.write(content[start : start + step])
    return out.getvalue()


def opened(file: bytes, keys: Identities) -> bytes:
    return encryption.decrypting(io.BytesIO(file), keys, "the file").read()


TO_KEY = Recipients(recipients=(age_keys.recipient(PUBLIC),))
WITH_KEY = Identities(identities=tuple(age_keys.identities(SECRET, "here")))


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make passphrases cheap: at a second and 256 MB each, these tests would take minutes."""
    monkeypatch.setattr(encryption, "_WORK", 10)


def age(*arguments: str, content: bytes) -> bytes:
    return subprocess.run(["age", *arguments], input=content, capture_output=True, check=True).stdout


def age_at_a_terminal(*arguments: str, typed: str) -> None:
    """Run `age` at a terminal and type the passphrase, as it asks for one nowhere else."""
    child, terminal = pty.fork()
    if not child:
        os.execvp("age", ["age", *arguments])
    said = b""
    while True:
        try:
            said += os.read(terminal, 1000)
        except OSError:
            break  # age has ended
        if b"assphrase" in said and said.rstrip(b" ").endswith(b":"):
            said = b""
            os.write(terminal, typed.encode() + b"\n")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said
    os.close(terminal)


@pytest.mark.needs("age")
@pytest.mark.parametrize("size", SIZES)
def test_age_reads_what_is_encrypted_here_and_the_other_way_round(tmp_path: Path, size: int) -> None:
    content, key_file = os.urandom(size), tmp_path / "key.txt"
    key_file.write_text(f"# a comment\n{SECRET}\n")
    assert age("-d", "-i", str(key_file), content=closed(content, TO_KEY)) == content
    assert opened(age("-r", PUBLIC, content=content), WITH_KEY) == content


@pytest.mark.needs("age")
def test_age_reads_what_a_passphrase_closed_here_and_the_other_way_round(tmp_path: Path) -> None:
    content, ours, theirs, out = os.urandom(PIECE + 7), tmp_path / "ours", tmp_path / "theirs", tmp_path / "out"
    ours.write_bytes(closed(content, Recipients(passphrase="pass wörd")))
    age_at_a_terminal("-d", "-o", str(out), str(ours), typed="pass wörd")
    assert out.read_bytes() == content
    age_at_a_terminal("-p", "-o", str(theirs), str(out), typed="pass wörd")
    assert opened(theirs.read_bytes(), Identities(passphrase=lambda: "pass wörd")) == content


@pytest.mark.needs("age", "age-keygen")
def test_any_of_several_recipients_can_read_it(tmp_path: Path) -> None:
    other = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    public = next(line.split()[-1] for line in other.splitlines() if "public key" in line)
    lock = Recipients(recipients=tuple(age_keys.recipients(f"{PUBLIC}, {public} # the second\n")))
    for secret in (SECRET, other):
        assert opened(closed(b"for both", lock), Identities(tuple(age_keys.identities(secret, "here")))) == b"for both"


def test_every_cut_and_every_altered_byte_is_noticed() -> None:
    file = closed(b"x" * 100, TO_KEY)
    for end in range(len(file)):
        with pytest.raises(Damaged):
            opened(file[:end], WITH_KEY)
    for place in range(len(file)):
        altered = bytearray(file)
        altered[place] ^= 1
        with pytest.raises((Damaged, Refused)):  # refused if the altered byte makes it a file for another key
            opened(bytes(altered), WITH_KEY)


@pytest.mark.parametrize("ending", [b"\0", b"more"], ids=repr)
def test_what_was_added_or_cut_at_a_pieces_end_is_noticed(ending: bytes) -> None:
    file = closed(b"x" * 3 * PIECE, TO_KEY)
    for altered in (file + ending, file[: -PIECE - 16], file[: -2 * (PIECE + 16)]):
        with pytest.raises(Damaged):
            opened(altered, WITH_KEY)


@given(some.binary(max_size=400))
def test_no_header_from_outside_does_more_than_fail(rest: bytes) -> None:
    for start in (b"", encryption.MAGIC, encryption.MAGIC + b"-> X25519 "):
        with pytest.raises((Damaged, Refused)):
            opened(start + rest, WITH_KEY)


def test_a_passphrase_that_would_cost_all_memory_is_not_tried() -> None:
    file = closed(b"x", Recipients(passphrase="x")).replace(b" 10\n", b" 30\n", 1)
    with pytest.raises(Damaged):
        opened(file, Identities(passphrase=lambda: "x"))


def test_without_the_right_key_the_refusal_says_what_is_needed() -> None:
    with pytest.raises(Refused, match="a secret key is needed"):
        opened(closed(b"x", TO_KEY), Identities())
    with pytest.raises(Refused, match="does not open"):
        opened(closed(b"x", Recipients(passphrase="right")), Identities(passphrase=lambda: "wrong"))


def test_an_error_while_writing_leaves_no_file_that_looks_whole() -> None:
    out = io.BytesIO()
    with pytest.raises(RuntimeError), encryption.encrypting(out, TO_KEY) as plain:
        plain.write(b"half")
        raise RuntimeError
    with pytest.raises(Damaged):
        opened(out.getvalue(), WITH_KEY)


@pytest.mark.parametrize("text", ["", PUBLIC[:-1], PUBLIC[:-1] + "q", SECRET, "age1", "age1pq" + "q" * 60, PUBLIC[1:]])
def test_what_is_no_recipient_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is not a recipient of age") as refusal:
        age_keys.recipient(text)
    assert "AGE-SECRET" not in refusal.value.message


def test_a_secret_key_in_the_place_of_the_public_one_is_shown_nowhere(app: SmallApp) -> None:
    for command in (["config"], ["export", "x", "y.age"], ["recovery-kit", "-"]):
        done = app.command(*command, env={"BACKUP_EXPORT_RECIPIENTS": SECRET}, check=2)
        assert "holds a secret key of age" in done.err and SECRET[15:] not in done.out + done.err
    done = app.command("config", "set", "export_recipients", SECRET, check=2)
    assert "holds a secret key of age" in done.err and SECRET[15:] not in done.out + done.err
    assert not any(SECRET[15:] in path.read_text() for path in app.folder.glob("*.toml"))


@pytest.mark.parametrize("text", ["", PUBLIC, SECRET[:-1], "age-encryption.org/v1\n"])
def test_what_is_no_secret_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        age_keys.identities(text, "key.txt")
    assert refusal.value.message.startswith("key.txt holds something that is not a secret key")
    assert not text or text not in refusal.value.message
