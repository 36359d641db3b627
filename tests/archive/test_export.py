"""One backup as one file: exported and imported between apps, and between this toolkit and tar, zstd, gzip and age."""

from __future__ import annotations

import io
import os
import pty
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from test_encryption import PUBLIC, SECRET

from backupkit.archive import age_keys, encryption
from backupkit.archive.encryption import Recipients
from backupkit.archive.export import export_backup, export_to, import_backup
from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Damaged
from refusals import assert_refusal, picture
from small_app import COMMAND, Result, SmallApp, clean_environment, tree

FORMS = ["x.tar", "x.tar.gz", "x.tar.zst", "x.tar.zst.age", "x.tar.age"]
TO_KEY = {"BACKUP_EXPORT_RECIPIENTS": PUBLIC}
WITH_KEY = {"BACKUP_EXPORT_IDENTITY": SECRET}
PHRASE = {"BACKUP_EXPORT_PASSPHRASE": "open sesame"}


@pytest.fixture
def other(tmp_path: Path, templates: Path) -> SmallApp:
    """Another app of the same kind, as on a new machine: its uploads are empty."""
    app = SmallApp.create(tmp_path / "other", templates)
    shutil.rmtree(app.uploads)
    app.uploads.mkdir()
    return app


@pytest.fixture
def full(app: SmallApp) -> SmallApp:
    """An app with everything that uploads can hold, and a backup `one` of it."""
    app.write_upload(os.fsdecode(b"odd/\xff\xfe\nname \\ here"), b"x")
    app.write_upload(f"{'n' * 120}/{'m' * 120}", b"a path beyond what a tar header holds")
    app.write_upload("Ünïcode/é", b"").chmod(0o400)
    with app.write_upload("sparse", b"").open("wb") as sparse:
        sparse.seek(8 << 20)
        sparse.write(b"in the middle")
        sparse.truncate(16 << 20)
    (app.uploads / "empty").chmod(0o2750)
    (app.uploads / "odd").chmod(0o500)
    os.utime(app.uploads / "1", ns=(0, 987_654_321))
    os.utime(app.uploads / "latest", ns=(0, 5), follow_symlinks=False)
    app.command("backup", "one", check=0)
    return app


def environment(form: str, encrypted: dict[str, str]) -> dict[str, str]:
    return encrypted if form.endswith(".age") else {}


def move(app: SmallApp, other: SmallApp, form: str = "x.tar.zst") -> Path:
    app.command("export", "one", form, env=environment(form, TO_KEY), check=0)
    other.command("import", str(app.backups / form), env=environment(form, WITH_KEY), check=0)
    return other.backups / "one"


@pytest.mark.parametrize("form", FORMS)
def test_a_backup_comes_through_whole_and_restores_in_another_app(full: SmallApp, other: SmallApp, form: str) -> None:
    there = move(full, other, form)
    assert tree(there) == tree(full.backups / "one")
    other.command("restore", "one", "--force", check=0)
    assert other.contents() == full.contents()
    assert (there / "uploads/sparse").stat().st_blocks * 512 < 4 << 20
    assert stat.S_IMODE((full.backups / form).stat().st_mode) == 0o600


def test_a_backup_comes_through_stdout_and_stdin(full: SmallApp, other: SmallApp) -> None:
    script = (
        f"set -o pipefail; {sys.executable} {COMMAND} export one - | {sys.executable} {COMMAND} import - --name two"
    )
    ours = {"BACKUP_APP_DIR": str(full.folder), **PHRASE}
    theirs = script.replace(f"| {sys.executable}", f"| BACKUP_APP_DIR={other.folder} {sys.executable}")
    subprocess.run(["bash", "-c", theirs], env={**clean_environment(), **ours}, check=True)
    assert tree(other.backups / "two") == tree(full.backups / "one")


def test_the_result_is_told_as_json_too(full: SmallApp, other: SmallApp) -> None:
    told = full.command("export", "latest", "x.tar.zst", "--json", check=0).json
    file = full.backups / "x.tar.zst"
    expected = {"path": str(file), "size_bytes": file.stat().st_size, "encrypted": False, "backup_name": "one"}
    assert told == {"schema_version": 1, **expected, "warnings": []}
    told = other.command("import", str(file), "--json", check=0).json
    assert (told["backup_name"], told["state"], told["warnings"]) == ("one", "checked", [])


# Tar, zstd, gzip and age


def unpacked(command: str, folder: Path) -> dict[str, tuple[str, int, int, bytes]]:
    folder.mkdir()
    subprocess.run(["bash", "-o", "pipefail", "-c", f"{command} -C '{folder}' -xpf -"], check=True)
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder / "one", check=True)
    return tree(folder / "one")


@pytest.mark.parametrize("tool", [pytest.param(one, marks=pytest.mark.needs(one)) for one in ("tar", "bsdtar")])
@pytest.mark.needs("zstd", "age", "sha256sum")
def test_tar_reads_what_is_written_here(full: SmallApp, tmp_path: Path, tool: str) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    for form in FORMS:
        full.command("export", "one", form, env=environment(form, TO_KEY), check=0)
    readers = ["cat", "gzip -dc", "zstd -dcq", f"age -d -i '{key}' '%s' | zstd -dcq", f"age -d -i '{key}'"]
    for form, reader in zip(FORMS, readers, strict=True):
        file = full.backups / form
        reader = reader % file if "%s" in reader else f"{reader} '{file}'"
        assert unpacked(f"{reader} | {tool}", tmp_path / form) == tree(full.backups / "one")


THEIRS = {
    "tar": "tar -C '{folder}' -cf - one",
    "tar, POSIX": "tar -C '{folder}' --format=posix -cf - one",
    "tar, with a dot": "tar -C '{folder}' --format=gnu -cf - ./one",
    "tar, gzip": "tar -C '{folder}' --format=posix -cf - one | gzip",
    "tar, zstd": "tar -C '{folder}' --format=posix -cf - one | zstd -q --long=27 -12",
    "tar, zstd, age": "tar -C '{folder}' --format=posix -cf - one | zstd -q | age -r " + PUBLIC,
}


@pytest.mark.needs("tar", "zstd", "age")
@pytest.mark.parametrize("name", THEIRS)
def test_what_tar_wrote_is_read_here(full: SmallApp, other: SmallApp, tmp_path: Path, name: str) -> None:
    read_what_was_written(
        full, other, tmp_path, THEIRS[name], whole_seconds="POSIX" not in name and "posix" not in THEIRS[name]
    )


@pytest.mark.needs("bsdtar")
@pytest.mark.parametrize("form", ["pax", "gnutar"])
def test_what_bsdtar_wrote_is_read_here(full: SmallApp, other: SmallApp, tmp_path: Path, form: str) -> None:
    write = f"bsdtar -C '{{folder}}' --no-read-sparse --format={form} -cf - one"
    read_what_was_written(full, other, tmp_path, write, whole_seconds=form == "gnutar")


def read_what_was_written(app: SmallApp, other: SmallApp, tmp_path: Path, write: str, whole_seconds: bool) -> None:
    for path in [app.backups / "one", *(app.backups / "one").rglob("*")]:
        if whole_seconds:  # the tar format would lose the fractions
            os.utime(path, ns=(0, path.lstat().st_mtime_ns // 10**9 * 10**9), follow_symlinks=False)
    file = tmp_path / "theirs"
    command = write.format(folder=app.backups)
    subprocess.run(["bash", "-o", "pipefail", "-c", f"{command} > '{file}'"], check=True)
    other.command("import", str(file), env=WITH_KEY, check=0)
    assert tree(other.backups / "one") == tree(app.backups / "one")


# Refusals


@pytest.mark.parametrize(
    ("words", "env", "code", "names", "hint"),
    [
        (("export", "none", "x.tar.zst"), {}, 10, "none", "list"),
        (("export", "one", "x.zip"), {}, 2, "x.zip", "tar.zst"),
        (("export", "one", "none/x.tar"), {}, 2, "none", "bare"),
        (("export", "one", "there.tar"), {}, 2, "there.tar", "another"),
        (("export", "one", "x.tar.age"), {}, 2, "there is no terminal", "PASSPHRASE_FILE"),
        (("export", "one", "x.tar"), TO_KEY, 2, "x.tar", "x.tar.age"),
        (("export", "one", "x.tar"), PHRASE, 2, "x.tar", "x.tar.age"),
        (("export", "one", "x.tar.age", "-r", "age1abc"), {}, 2, "age1abc", "age-keygen"),
        (("export", "one", "x.tar.age", "--recipients-file", "/none"), {}, 2, "/none", "age-keygen"),
        (("export", "one", "x.tar", "-r", ""), {}, 2, "--recipient holds no key", "leave the option out"),
        (("export", "one", "x.tar.age", "-r", PUBLIC, "-r", ""), {}, 2, "--recipient holds no key", "age1"),
        (("export", "one", "x.tar", "--recipients-file", "/dev/null"), {}, 2, "/dev/null holds no key", "age1"),
        (("export", "one", "x.tar"), {"BACKUP_EXPORT_RECIPIENTS": "# none"}, 2, "EXPORT_RECIPIENTS holds no", "age1"),
        (("export", "one", "-", "-r", " "), {}, 2, "--recipient holds no key", "age1"),
        (("export", "one", "-", "--json"), {}, 2, "-", "json"),
        (("import", "none.tar"), {}, 10, "none.tar", "there.tar"),
        (("import", "there.tar"), {}, 12, "archive", "Copy"),
        (("import", "one"), {}, 2, "one", "`restore one`"),
        (("import", "good.tar"), {}, 2, "one", "--name"),
        (("import", "good.tar", "--name", "../x"), {}, 2, "../x", "letters"),
        (("import", "good.tar", "--name", "latest"), {}, 2, "latest", "--name"),
        (("import", "key.tar.age"), {}, 2, "secret key is needed", "--identity"),
        (("import", "key.tar.age", "-i", "/none"), {}, 2, "/none", "age-keygen"),
        (("import", "phrase.tar.age", "--name", "two"), {}, 2, "there is no terminal", "PASSPHRASE"),
        (("import", "phrase.tar.age"), {"BACKUP_EXPORT_PASSPHRASE": "no"}, 2, "phrase.tar.age", "capitals"),
        (("import", "fake.tar.age"), {}, 12, "fake.tar.age", "Copy"),
        (("import", "armored.age"), {}, 2, "armored.age", "age -d"),
        (
            ("import", "key.tar.age"),
            {"BACKUP_EXPORT_IDENTITY_FILE": "none"},
            2,
            "BACKUP_EXPORT_IDENTITY_FILE",
            "Correct it",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_and_nothing_is_changed(
    app: SmallApp, words: tuple[str, ...], env: dict[str, str], code: int, names: str, hint: str
) -> None:
    create_backup(app.settings, BackupRequest("one"))
    prepare(app, words[1 if words[0] == "import" else 2])
    (app.backups / "there.tar").write_text("there")
    before = picture(app)
    assert_refusal(in_no_terminal(app, words, env), code, names, hint)
    assert picture(app) == before


def prepare(app: SmallApp, name: str) -> None:
    """Make the archive with that name."""
    locks = {
        "good.tar": Recipients(),
        "key.tar.age": Recipients(recipients=(age_keys.recipient(PUBLIC),)),
        "phrase.tar.age": Recipients(passphrase="open sesame"),
    }
    if name in locks:
        export_backup(app.settings, "one", app.backups / name, locks[name])
    if name == "fake.tar.age":
        export_backup(app.settings, "one", app.backups / "good.tar")
        (app.backups / "good.tar").rename(app.backups / name)
    if name == "armored.age":
        (app.backups / name).write_bytes(encryption.ARMOR + b"\n")


def in_no_terminal(app: SmallApp, words: tuple[str, ...], env: dict[str, str]) -> Result:
    done = subprocess.run(
        [sys.executable, COMMAND, *words],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def alter(path: Path) -> None:
    path.write_bytes(b"?" + path.read_bytes()[1:])


DAMAGE = {
    "altered": lambda backup: alter(backup / "uploads/1/letter.txt"),
    "the database": lambda backup: alter(backup / "pats.db"),
    "longer": lambda backup: (backup / "uploads/1/letter.txt").open("a").write("more"),
    "missing": lambda backup: (backup / "uploads/1/letter.txt").unlink(),
    "added": lambda backup: (backup / "uploads/more").write_text("more"),
    "a folder less": lambda backup: (backup / "uploads/empty").rmdir(),
    "a link elsewhere": lambda backup: (
        (backup / "uploads/latest").unlink(),
        (backup / "uploads/latest").symlink_to("/"),
    ),
    "a fifo": lambda backup: os.mkfifo(backup / "pipe"),
    "no checksums": lambda backup: (backup / "SHA256SUMS").unlink(),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_backup_is_not_exported_and_leaves_no_file(app: SmallApp, name: str) -> None:
    create_backup(app.settings, BackupRequest("one"))
    DAMAGE[name](app.backups / "one")
    before = sorted(os.listdir(app.backups))
    with pytest.raises(Damaged):
        export_backup(app.settings, "one", app.backups / "x.tar.zst")
    assert sorted(os.listdir(app.backups)) == before
    out = io.BytesIO()
    with pytest.raises(Damaged):
        export_to(app.settings, "one", out, ".tar", Recipients())
    with pytest.raises(Damaged):
        import_backup(app.settings, io.BytesIO(out.getvalue()), name="two")


def test_what_a_person_has_to_vouch_for_is_said_when_it_goes_out_and_asked_when_it_comes_in(
    app: SmallApp, other: SmallApp
) -> None:
    (app.uploads / "out").symlink_to("/etc/hostname")
    app.write_upload("runs", b"").chmod(0o4755)
    app.command("backup", "one", check=0)
    said = app.command("export", "one", "x.tar.zst", check=0).err
    assert "uploads/out is a link that leads out of the uploads: import this archive with --trust." in said
    assert "uploads/runs is a setuid or setgid file" in said
    file = str(app.backups / "x.tar.zst")
    assert_refusal(other.command("import", file), 12, "uploads/out", "--trust")
    other.command("import", file, "--trust", check=0)
    assert tree(other.backups / "one") == tree(app.backups / "one")


def test_a_backup_made_by_hand_goes_out_and_in_with_a_warning(app: SmallApp, other: SmallApp) -> None:
    app.command("backup", "one", check=0)
    (app.backups / "one" / "SHA256SUMS").unlink()
    metadata = app.backups / "one" / "backup_metadata.json"
    metadata.write_text(metadata.read_text().replace('"tool_version": "', '"tool": "'))
    assert "has no checksums" in app.command("export", "one", "x.tar.zst", check=3).err
    assert "could not be checked" in other.command("import", str(app.backups / "x.tar.zst"), check=3).err
    assert other.command("show", "one", "--json", check=0).json["state"] == "unchecked"


def test_a_pin_of_an_earlier_backup_of_that_name_does_not_come_back(app: SmallApp) -> None:
    app.command("backup", "one", "--pin", check=0)
    app.command("export", "one", "x.tar.zst", check=0)
    shutil.rmtree(app.backups / "one")
    app.command("import", "x.tar.zst", check=0)
    assert not app.command("show", "one", "--json", check=0).json["pinned"]


# Passphrases and secrets


def test_a_passphrase_is_asked_at_the_terminal_twice_and_never_shown(app: SmallApp) -> None:
    app.command("backup", "one", check=0)
    said = at_a_terminal(app, ["export", "one", "x.tar.zst.age"], ["open sesame", "open sesame"])
    assert "sesame" not in said
    assert "Once more" in said
    shutil.rmtree(app.backups / "one")
    assert "sesame" not in at_a_terminal(app, ["import", "x.tar.zst.age"], ["open sesame"])
    app.command("restore", "one", "--dry-run", check=0)


def at_a_terminal(app: SmallApp, words: list[str], typed: list[str]) -> str:
    """Run the command at a terminal and type these lines, each when asked; return what it printed."""
    child, terminal = pty.fork()
    if not child:
        os.environ["BACKUP_APP_DIR"] = str(app.folder)
        os.execv(sys.executable, [sys.executable, str(COMMAND), *words])
    said, asked = b"", 0
    while True:
        try:
            said += os.read(terminal, 1000)
        except OSError:
            break
        if said.rstrip().endswith(b":") and said.count(b": ") > asked and typed:
            asked = said.count(b": ")
            os.write(terminal, typed.pop(0).encode() + b"\n")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, said.decode()
    return said.decode()


def test_secrets_come_from_files_and_are_not_shown(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text("open sesame\n")
    (tmp_path / "key").write_text(SECRET)
    files = {
        "BACKUP_EXPORT_PASSPHRASE_FILE": str(tmp_path / "phrase"),
        "BACKUP_EXPORT_IDENTITY_FILE": str(tmp_path / "key"),
    }
    app.command("backup", "one", check=0)
    app.command("export", "one", "a.tar.age", env=files, check=0)
    app.command("import", "a.tar.age", "--name", "a", env=PHRASE, check=0)
    app.command("export", "one", "b.tar.age", "--recipient", PUBLIC, env=files, check=0)
    app.command("import", "b.tar.age", "--name", "b", env=files, check=0)
    for words in (["config"], ["config", "--json"]):
        said = app.command(*words, env={**PHRASE, **WITH_KEY}, check=0)
        assert "sesame" not in said.out + said.err
        assert SECRET not in said.out + said.err


# Interruption and size


def test_an_import_that_is_killed_leaves_a_draft_that_the_next_command_clears(full: SmallApp, other: SmallApp) -> None:
    full.command("export", "one", "x.tar", check=0)
    content = (full.backups / "x.tar").read_bytes()
    child = subprocess.Popen(
        [sys.executable, COMMAND, "import", "-"],
        env={**clean_environment(), "BACKUP_APP_DIR": str(other.folder)},
        stdin=subprocess.PIPE,
    )
    assert child.stdin
    child.stdin.write(content[: len(content) // 2])
    child.stdin.flush()
    while not (other.backups / ".draft-one" / "pats.db").exists():
        assert child.poll() is None
    child.kill()
    child.wait()
    child.stdin.close()
    other.command("list", check=0)
    assert (other.backups / ".draft-one").exists(), "what only reads clears nothing away"
    said = other.command("recover", check=0)
    assert "Cleared away" in said.err
    assert sorted(os.listdir(other.backups)) == [".lock", ".state"]


def test_it_needs_no_more_memory_for_more_content(app: SmallApp, other: SmallApp) -> None:
    with app.write_upload("large", b"").open("wb") as large:
        for number in range(300):
            large.write(os.urandom(1 << 10) * (1 << 10) if number % 2 else bytes(1 << 20))
    app.command("backup", "one", check=0)
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_DATA, (230 << 20, 230 << 20)); "
    limit += f"sys.argv = sys.argv[1:]; sys.path.insert(0, {str(COMMAND.parent)!r}); "
    limit += "runpy.run_path(sys.argv[0], run_name='__main__')"
    file = str(app.backups / "x.tar.zst.age")
    for one, words in ((app, ["export", "one", file]), (other, ["import", file])):
        done = subprocess.run(
            [sys.executable, "-c", limit, str(COMMAND), *words],
            env={**clean_environment(), "BACKUP_APP_DIR": str(one.folder), **TO_KEY, **WITH_KEY},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (other.backups / "one/uploads/large").stat().st_size == 300 << 20


def test_an_archive_cut_anywhere_is_refused_whatever_it_is_wrapped_in(app: SmallApp) -> None:
    app.command("backup", "one", check=0)
    app.command("export", "one", "x.tar.zst", check=0)
    whole = (app.backups / "x.tar.zst").read_bytes()
    before = picture(app)
    for end in range(0, len(whole), 50):
        with pytest.raises(Damaged):
            import_backup(app.settings, io.BytesIO(whole[:end]), name="two")
    assert picture(app) == before
