"""`verify` finds and names every change in a backup. Its result is stored beside it; no other backup inherits it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import chance
from backupkit import create_backup_now
from backupkit.backup.create import create_backup
from backupkit.model.backup import Backup, BackupRequest, Flaw
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, Refused
from backupkit.model.events import Event, Progress, Warned
from backupkit.repository import flags, lock, store, verification
from backupkit.repository.integrity import Shared
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.verify.verify import MOST_FLAWS, Verified, choose_for_test, verify_backups, verify_file
from refusals import as_user, run_here
from small_app import DOCUMENTS, HEAD, NOON, SmallApp, tree

LATER = NOON + timedelta(days=3)


def make(app: SmallApp, name: str = "one", hours: int = 0, **order: Any) -> Path:
    wanted = BackupRequest(name, **order)
    return create_backup(app.settings, wanted, clock=lambda: NOON + timedelta(hours=hours)).backup.path


def check(app: SmallApp, name: str = "one", **options: Any) -> Verified:
    (verified,) = verify_backups(app.settings, [store.read(app.settings, name)], clock=lambda: LATER, **options)
    return verified


def texts(verified: Verified) -> list[str]:
    return [flaw.text for flaw in verified.flaws]


def files(backup: Path) -> list[Path]:
    return sorted(path for path in backup.rglob("*") if path.is_file() and not path.is_symlink())


# Changes to a sealed backup


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[SmallApp]:
    """An app with one backup, which each test leaves as it was."""
    app = SmallApp.create(tmp_path_factory.mktemp("sealed") / "app", templates)
    app.write_upload("same/one", b"first")
    app.write_upload("same/two", b"other")
    app.write_upload("odd\nname", b"x")
    app.write_upload("empty file", b"")
    make(app)
    yield app


@contextlib.contextmanager
def kept(backup: Path) -> Iterator[None]:
    """Put the backup back as it was at the end of the block."""
    copy = backup.parent.parent / "kept"
    shutil.copytree(backup, copy, symlinks=True)
    try:
        yield
    finally:
        shutil.rmtree(backup)
        copy.rename(backup)


FLIPS = {"pats.db": 400, "backup_metadata.json": 1500, "SHA256SUMS": 2500, "RESTORE.md": 300}


@pytest.mark.parametrize("name", [*FLIPS, "uploads"])
def test_any_flipped_bit_is_found_and_the_file_is_named(sealed: SmallApp, name: str) -> None:
    backup = sealed.backups / "one"
    flipped = 0
    for path in [backup / name] if name in FLIPS else files(backup / "uploads"):
        content = path.read_bytes()
        for bit in chosen_bits(len(content) * 8, FLIPS.get(name, 200)):
            write(path, flip(content, bit))
            found = check(sealed)
            assert found.flaws, f"bit {bit} of {path.name}"
            if name != "SHA256SUMS":  # a flip there makes another file look altered, lost or added
                assert str(path.relative_to(backup)) in [flaw.path for flaw in found.flaws]
            flipped += 1
        write(path, content)
    assert not check(sealed).flaws
    assert flipped >= 30


def chosen_bits(bits: int, wanted: int) -> list[int]:
    """Return bits spread over the file and over the places in a byte, and all of the first and the last byte."""
    wanted = wanted if chance.is_thorough() else chance.share(wanted) // 4
    stride = max(1, bits // wanted) | 1
    return sorted({*range(0, bits, stride), *range(min(8, bits)), *range(max(0, bits - 8), bits)})


def flip(content: bytes, bit: int) -> bytes:
    altered = bytearray(content)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def write(path: Path, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(content)


@pytest.mark.parametrize(
    "path", ["pats.db", "backup_metadata.json", "SHA256SUMS", "RESTORE.md", "uploads/1/letter.txt", "uploads/same/one"]
)
@pytest.mark.parametrize("change", ["one byte less", "half", "nothing left", "one byte more", "gone", "renamed"])
def test_a_file_that_is_truncated_lengthened_lost_or_renamed_is_found(sealed: SmallApp, path: str, change: str) -> None:
    backup = sealed.backups / "one"
    with kept(backup):
        altered(backup / path, change)
        found = check(sealed)
        assert found.flaws
        assert any(path in text for text in texts(found)) or path == "SHA256SUMS"
    assert not check(sealed).flaws


def altered(path: Path, change: str) -> None:
    size = path.stat().st_size
    if change == "gone":
        path.unlink()
    elif change == "renamed":
        path.rename(path.with_name(f"{path.name}2"))
    elif change == "one byte more":
        with open(path, "ab") as file:
            file.write(b"\n")
    else:
        os.truncate(path, {"one byte less": size - 1, "half": size // 2, "nothing left": 0}[change])


def swap(backup: Path) -> None:
    one, two, aside = (backup / "uploads" / "same" / name for name in ("one", "two", "three"))
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def move_a_link(backup: Path) -> None:
    (backup / "uploads" / "latest").unlink()
    (backup / "uploads" / "latest").symlink_to("1/letter.txt")


def become_a_link(backup: Path) -> None:
    file = backup / "uploads" / "1" / "letter.txt"
    file.rename(backup.parent / "letter.txt")
    file.symlink_to(backup.parent / "letter.txt")


def become_a_folder(backup: Path) -> None:
    (backup / "uploads" / "latest").unlink()
    (backup / "uploads" / "latest").mkdir()


def link_to_all_uploads(backup: Path) -> None:
    (backup / "uploads").rename(backup.parent / ".elsewhere")
    (backup / "uploads").symlink_to("../.elsewhere")


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "two files of one size are swapped": (swap, "uploads/same/one is not as it was written"),
    "an extra file": (lambda backup: (backup / "uploads" / "new").write_text(""), "uploads/new was added"),
    "an extra file at the top": (lambda backup: (backup / "pats.db-wal").write_text(""), "pats.db-wal was added"),
    "an extra empty folder": (lambda backup: (backup / "uploads" / "new").mkdir(), "folder or a link below uploads"),
    "an extra folder at the top": (lambda backup: (backup / "new").mkdir(), "new was added"),
    "a lost empty folder": (lambda backup: (backup / "uploads" / "empty").rmdir(), "folder or a link below uploads"),
    "a lost folder with a file": (lambda backup: shutil.rmtree(backup / "uploads" / "1"), "1/letter.txt is missing"),
    "all uploads lost": (lambda backup: shutil.rmtree(backup / "uploads"), "uploads is missing"),
    "a lost link": (lambda backup: (backup / "uploads" / "latest").unlink(), "a folder or a link below uploads"),
    "a link that leads elsewhere": (move_a_link, "a folder or a link below uploads"),
    "a link at the top": (lambda backup: (backup / "link").symlink_to("pats.db"), "link was added"),
    "a file that became a link": (become_a_link, "uploads/1/letter.txt is missing"),
    "a link that became a folder": (become_a_folder, "a folder or a link below uploads"),
    "a fifo": (lambda backup: os.mkfifo(backup / "uploads" / "pipe"), "a folder or a link below uploads"),
    "uploads that became a link": (link_to_all_uploads, "uploads is not a folder"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_swapped_added_lost_or_became_something_else_is_found(sealed: SmallApp, change: str) -> None:
    act, told = CHANGES[change]
    backup = sealed.backups / "one"
    with kept(backup):
        act(backup)
        found = check(sealed)
        assert any(told in text for text in texts(found)), texts(found)
        with pytest.raises(Damaged):  # a restore makes the same check
            plan_restore(sealed.settings, "one")
    for stray in ("letter.txt", ".elsewhere"):
        if (sealed.backups / stray).is_dir():
            shutil.rmtree(sealed.backups / stray)
        (sealed.backups / stray).unlink(missing_ok=True)
    assert not check(sealed).flaws


def lines_changed(change: str, lines: list[bytes]) -> bytes:
    if change == "a line less":
        del lines[1]
    elif change == "a line twice":
        lines.append(lines[0])
    elif change == "a line of nothing that is there":
        lines.append(b"0" * 64 + b"  nothing\n")
    elif change == "an empty line":
        lines.append(b"\n")
    elif change == "no end":
        lines[-1] = lines[-1].rstrip(b"\n")
    elif change == "capitals":
        lines[0] = lines[0][:64].upper() + lines[0][64:]
    elif change == "other line ends":
        lines = [line.replace(b"\n", b"\r\n") for line in lines]
    elif change == "an escape that is none":
        lines[0] = b"\\" + lines[0]
    return b"".join(lines)


@pytest.mark.parametrize(
    "change",
    [
        "a line less",
        "a line twice",
        "a line of nothing that is there",
        "an empty line",
        "no end",
        "capitals",
        "other line ends",
        "an escape that is none",
    ],
)
def test_a_list_of_checksums_that_is_not_as_it_was_written_is_found(sealed: SmallApp, change: str) -> None:
    listed = sealed.backups / "one" / "SHA256SUMS"
    with kept(sealed.backups / "one"):
        listed.write_bytes(lines_changed(change, listed.read_bytes().splitlines(keepends=True)))
        assert check(sealed).flaws


def test_everything_that_is_wrong_is_listed(app: SmallApp) -> None:
    backup = make(app)
    (backup / "uploads" / "1" / "letter.txt").write_text("altered")
    (backup / "uploads" / "2" / "letter.txt").unlink()
    (backup / "new").write_text("")
    (backup / "uploads" / "latest").unlink()
    result = app.command("verify", "one", check=12)
    for told in ("1/letter.txt is not as", "2/letter.txt is missing", "new was added", "a folder or a link"):
        assert told in result.out
    assert "(and 3 more)" in result.err and "Traceback" not in result.err


def test_a_thousand_findings_are_counted_and_a_hundred_told(app: SmallApp) -> None:
    backup = make(app)
    for number in range(1000):
        (backup / "uploads" / f"{number:04}").touch()
    found = check(app)
    assert (len(found.flaws), found.more) == (MOST_FLAWS, 1000 - MOST_FLAWS)
    assert "and 900 more" in run_here(app, "verify", check=12).out


def test_a_database_that_is_sound_and_another_one_is_found_with_checksums_that_fit(app: SmallApp) -> None:
    backup = make(app)
    with contextlib.closing(sqlite3.connect(backup / "pats.db")) as other, other:
        other.execute("DELETE FROM documents WHERE id = 1")
        other.execute("CREATE TABLE stranger (id)")
        other.execute("PRAGMA user_version = 7")
        other.execute(f"UPDATE alembic_version SET version_num = '{DOCUMENTS}'")
    reseal(backup)
    found = texts(check(app))
    assert any("table documents has 1 rows, and the metadata say 2" in text for text in found), found
    for told in ("its revision is", "not built as", "user_version is 7", "do not have the same checksum"):
        assert any(told in text for text in found), (told, found)


def reseal(backup: Path) -> None:
    """Write checksums of the present content, as an attacker would, or as if a disk had altered it before the seal."""
    from backupkit.repository.manifest import ChecksumWriter

    (backup / "SHA256SUMS").unlink()
    writer = ChecksumWriter(backup)
    for path in files(backup):
        if path.name != "SHA256SUMS":
            writer.record_file(str(path.relative_to(backup)))
    writer.close()


def test_an_index_that_does_not_fit_its_table_is_found_though_every_checksum_fits(app: SmallApp) -> None:
    with contextlib.closing(app.connect()) as live, live:
        live.execute("CREATE TABLE pairs (a, b)")
        live.execute("CREATE INDEX by_a ON pairs (a)")
        live.executemany("INSERT INTO pairs VALUES (?, ?)", [(n, n) for n in range(50)])
    with contextlib.closing(app.connect()) as live, live:
        live.execute("PRAGMA writable_schema = 1")
        live.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX by_a ON pairs (b + 1)' WHERE name = 'by_a'")
    make(app)
    verified = check(app)
    assert not verified.flaws and any("does not match its table" in text for text in verified.warnings)
    assert store.read(app.settings, "one").state == "checked"  # it is as it was written, with every row


@pytest.mark.parametrize("name", ["", "pats.db", "backup_metadata.json", "SHA256SUMS", "RESTORE.md"])
def test_what_others_may_write_to_is_warned_of_and_is_no_damage(app: SmallApp, name: str) -> None:
    path = make(app) / name
    path.chmod(path.stat().st_mode | 0o022)
    found = check(app)
    assert not found.flaws and str(path) in found.warnings[0]
    assert run_here(app, "verify", "one", check=3).err.startswith("Warning: ")
    run_here(app, "restore", "one", "--force", check=0)


# Stored results


def test_damage_stays_in_the_list_until_a_verify_finds_none(app: SmallApp) -> None:
    letter = make(app) / "uploads" / "1" / "letter.txt"
    content = letter.read_bytes()
    letter.write_bytes(b"altered")
    app.command("verify", check=12)
    listed = app.command("list", "--json", check=0).json[0]
    assert listed["state"] == "damaged" and "1/letter.txt" in listed["flaws"][0]["text"]
    assert "letter.txt is not as it was written" in app.command("list", check=0).out
    letter.write_bytes(content)
    assert store.read(app.settings, "one").state == "damaged"
    assert "letter.txt" in app.command("restore", "one", "--force", check=0).err  # the restore checks for itself
    app.command("verify", "one", check=0)
    assert store.read(app.settings, "one").state == "checked"


def test_the_day_of_a_check_is_kept_beside_the_backup_which_stays_as_it_was(app: SmallApp) -> None:
    before = tree(make(app))
    assert store.read(app.settings, "one").checked_at == NOON
    check(app)
    assert store.read(app.settings, "one").checked_at == LATER
    assert tree(app.backups / "one") == before
    assert "checked 2026-06-18" in run_here(app, "list", check=0).out
    shutil.rmtree(app.backups / ".state")
    assert store.read(app.settings, "one").checked_at == NOON
    assert tree(app.backups / "one") == before


def test_another_backup_of_that_name_inherits_nothing(app: SmallApp) -> None:
    make(app)
    check(app, test_restore=True)
    assert store.read(app.settings, "one").state == "proven"
    run_here(app, "delete", "one", "--yes", check=0)
    make(app)  # with the same time of creation
    assert store.read(app.settings, "one").state == "checked"
    check(app, test_restore=True)
    shutil.rmtree(app.backups / "one")
    shutil.copytree(make(app, "two", 1), app.backups / "one")  # copied by hand, without the toolkit
    assert store.read(app.settings, "one").proven_at is None


BROKEN = {
    "no JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "bytes": b"\xff\x00",
    "a time without its offset": json.dumps({"made_at": "2026-06-15T12:00:00"}).encode(),
    "deep": b"[" * 5000,
    "a time that is none": json.dumps({"made_at": NOON.isoformat(), "proven_at": "soon"}).encode(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_record_that_cannot_be_read_loses_nothing_and_is_written_anew(app: SmallApp, content: bytes) -> None:
    make(app)
    check(app)
    (app.backups / ".state" / "proofs" / "one").write_bytes(content)
    assert run_here(app, "list", "--json", check=0).json[0]["state"] == "checked"
    said = run_here(app, "verify", "one", check=0).err
    assert "a new one is written" in said
    assert run_here(app, "verify", "one", check=0).err == ""


def test_a_folder_where_a_record_should_be_is_said_and_the_check_counts(app: SmallApp) -> None:
    make(app)
    (app.backups / ".state" / "proofs" / "one").mkdir(parents=True)
    result = run_here(app, "verify", "one", check=3)
    assert "could not be saved" in result.err and "one: sound" in result.out


def test_two_who_write_a_record_at_once_leave_a_whole_one(app: SmallApp) -> None:
    from concurrent.futures import ThreadPoolExecutor

    metadata = store.require_metadata(store.read(app.settings, make(app).name))

    def keep(number: int) -> None:
        flaws = tuple(Flaw(str(number), "x" * number) for _ in range(number))
        verification.write(app.backups, "one", verification.Record(metadata.created_at, LATER, flaws=flaws))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, range(1, 60)))
    found = verification.read(app.backups, "one", metadata)
    assert found.checked_at == LATER
    assert len(found.flaws) == int(found.flaws[0].path)


# Other kinds of backups, and plain files


def by_hand(app: SmallApp, **changes: Any) -> Path:
    """Make a backup as the user's documents describe it: copies, and seven fields."""
    one = make(app)
    folder = app.backups / "by_hand"
    shutil.copytree(one / "uploads", folder / "uploads", symlinks=True)
    shutil.copy(one / "pats.db", folder)
    seven = {
        "backup_name": "by_hand",
        "timestamp": "20241201_120000",
        "created_at": "2024-12-01T12:00:00",
        "alembic_revision": HEAD,
        "database_file": "pats.db",
        "uploads_included": True,
        "backup_version": "1.0",
    }
    (folder / "backup_metadata.json").write_text(json.dumps(seven | changes))
    return folder


def test_one_made_by_hand_is_looked_into_and_stays_unchecked(app: SmallApp) -> None:
    by_hand(app)
    assert "unchecked" in run_here(app, "verify", "by_hand", check=0).out
    assert store.read(app.settings, "by_hand").state == "unchecked"


@pytest.mark.parametrize("change", ["torn", "gone", "empty", "another revision", "no uploads"])
def test_what_is_wrong_with_one_made_by_hand_is_found(app: SmallApp, change: str) -> None:
    folder = by_hand(app, **({"alembic_revision": DOCUMENTS} if change == "another revision" else {}))
    if change == "torn":
        os.truncate(folder / "pats.db", 8192)
    elif change == "gone":
        (folder / "pats.db").unlink()
    elif change == "empty":
        os.truncate(folder / "pats.db", 0)
    elif change == "no uploads":
        shutil.rmtree(folder / "uploads")
    app.command("verify", "by_hand", check=12)
    assert store.read(app.settings, "by_hand").state == "damaged"


def test_one_made_by_hand_can_be_proven_and_its_owners_still_mean_nothing(app: SmallApp) -> None:
    by_hand(app)
    check(app, "by_hand", test_restore=True)
    assert store.read(app.settings, "by_hand").state == "proven"
    assert not plan_restore(app.settings, "by_hand").source.traits.owners


def test_a_backup_without_its_checksums_or_of_a_later_format_is_damaged(app: SmallApp) -> None:
    (make(app) / "SHA256SUMS").unlink()
    assert "SHA256SUMS is missing" in app.command("verify", "one", check=12).err
    metadata = make(app, "two", 1) / "backup_metadata.json"
    metadata.write_text(metadata.read_text().replace('"backup_version": "1.0"', '"backup_version": "2.0"'))
    assert "later than this toolkit's" in app.command("verify", "two", check=12).out
    assert app.command("list", check=0).out.count("damaged") == 2


def raw_safety_copy(app: SmallApp) -> str:
    """Return the name of the safety copy of a restore over an unreadable database."""
    create_backup(app.settings, BackupRequest("good"))
    app.database.write_bytes(b"no database" * 1000)
    return restore_backup(app.settings, plan_restore(app.settings, "good")).safety


def test_the_raw_files_of_a_broken_database_are_never_called_sound_checked_or_proven(app: SmallApp) -> None:
    safety = raw_safety_copy(app)
    told = run_here(app, "verify", safety, check=3)
    assert f"{safety}: raw: the database could not be read" in told.out and "sound" not in told.out + told.err
    assert "keeps a database that could not be read, as raw files" in told.err
    for command in (("list", "--json"), ("show", safety, "--json"), ("verify", safety, "--json")):
        found = run_here(app, *command).json
        one = next(each for each in found if each["backup_name"] == safety) if isinstance(found, list) else found
        assert one["state"] == "raw" and one["proven_at"] is None
    (line,) = (each for each in run_here(app, "list").out.splitlines() if each.startswith(safety))
    assert "raw" in line and "checked" not in line
    assert "state      raw: the database could not be read" in run_here(app, "show", safety).out


def test_raw_files_are_no_backup_to_rely_on(app: SmallApp) -> None:
    safety = raw_safety_copy(app)
    shutil.rmtree(app.backups / "good")
    run_here(app, "status", check=2)
    values = run_here(app, "status", "--prometheus", "-").out
    assert 'backups_by_state{app="pats",state="raw"} 1' in values and 'state="checked"' not in values
    assert safety in run_here(app, "report", "--output", "-").out


def test_the_raw_files_of_a_broken_database_are_compared_and_cannot_be_proven(app: SmallApp) -> None:
    safety = raw_safety_copy(app)
    assert run_here(app, "verify", safety, "--test-restore").code == 2
    (app.backups / safety / "pats.db").write_bytes(b"altered")
    run_here(app, "verify", safety, check=12)


def test_a_backup_without_uploads_is_sound_and_an_empty_folder_in_it_is_not(app: SmallApp) -> None:
    backup = make(app, uploads=False)
    check(app, test_restore=True)
    assert store.read(app.settings, "one").state == "proven"
    (backup / "uploads").mkdir()
    assert texts(check(app)) == ["uploads was added after the backup was made"]


def test_a_plain_database_file_is_checked(app: SmallApp, tmp_path: Path) -> None:
    file = shutil.copy(make(app) / "pats.db", tmp_path / "a file.db")
    result = run_here(app, "verify", str(file), check=0)
    assert "sound" in result.out and HEAD in result.out
    found = run_here(app, "verify", str(file), "--json", check=0).json
    assert found["rows"]["documents"] == 2 and found["verdict"]["relation"] == "same"
    assert sorted(path.name for path in tmp_path.iterdir() if "file" in path.name) == ["a file.db"]


@pytest.mark.parametrize("change", ["torn", "no database", "empty", "no tables"])
def test_what_is_wrong_with_a_plain_database_file_is_found(app: SmallApp, tmp_path: Path, change: str) -> None:
    file = tmp_path / "x.db"
    shutil.copy(make(app) / "pats.db", file)
    if change == "torn":
        os.truncate(file, 12288)
    elif change == "no tables":
        file.unlink()
        with contextlib.closing(sqlite3.connect(file)) as bare, bare:
            bare.execute("PRAGMA user_version = 1")
    else:
        file.write_bytes(b"SELECT 1;" * 1000 if change == "no database" else b"")
    result = app.command("verify", str(file), check=12)
    assert "x.db" in result.err and "damaged" in result.out


@pytest.mark.parametrize("kind", ["of the Python API", "in a backup's folder"])
def test_a_flipped_bit_of_a_plain_file_is_found_where_its_checksum_is_known(
    app: SmallApp, tmp_path: Path, kind: str
) -> None:
    if kind == "of the Python API":
        made = create_backup_now(app.database, backups=tmp_path / "plain")
        assert made
        file = made
    else:
        file = make(app) / "pats.db"
    app.command("verify", str(file), check=0)
    content = file.read_bytes()
    place = content.index(b"letter.txt")
    file.chmod(0o600)
    file.write_bytes(content[:place] + b"m" + content[place + 1 :])
    assert "is not as it was written" in app.command("verify", str(file), check=12).err
    moved = shutil.copy(file, tmp_path / "a copy.db")
    app.command("verify", str(moved), check=0)  # nothing tells how that was written


def test_a_database_that_is_in_use_is_no_plain_file(app: SmallApp, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is the live database"):
        verify_file(app.settings, app.database)
    app.use_and_crash()
    for name in ("pats.db", "pats.db-wal"):
        shutil.copy(app.database.with_name(name), tmp_path / name)
    with pytest.raises(Refused, match=r"pats\.db-wal is there"):
        verify_file(app.settings, tmp_path / "pats.db")
    assert run_here(app, "verify", str(tmp_path / "pats.db")).code == 2


def test_a_backup_elsewhere_is_checked_where_it_lies_and_nothing_is_written(app: SmallApp, tmp_path: Path) -> None:
    copy = shutil.copytree(make(app), tmp_path / "stick" / "one", symlinks=True)
    shutil.rmtree(app.backups / ".state", ignore_errors=True)
    assert "one: sound" in run_here(app, "verify", str(copy), check=0).out
    (copy / "RESTORE.md").write_text("")
    assert "RESTORE.md" in run_here(app, "verify", str(copy), check=12).out
    assert [path.name for path in copy.parent.iterdir()] == ["one"]
    assert not (app.backups / ".state" / "proofs").exists()


# Changes during a check, and unreadable files


def removing(backup: Path, when: type[Event]) -> Callable[[Event], None]:  # type: ignore[valid-type]
    def listen(event: Event) -> None:
        if isinstance(event, when):
            shutil.rmtree(backup, ignore_errors=True)

    return listen


def test_a_backup_that_goes_away_while_it_is_verified_is_not_called_damaged(app: SmallApp) -> None:
    make(app)
    with pytest.raises(NoSuchBackup, match="was removed while it was verified"):
        check(app, emit=removing(app.backups / "one", Progress))
    assert not (app.backups / ".state" / "proofs" / "one").exists()


def test_the_others_are_verified_where_one_goes_away(app: SmallApp) -> None:
    for hours, name in enumerate(("one", "two", "three")):
        make(app, name, hours)
    said: list[Event] = []
    away = removing(app.backups / "two", Progress)

    def listen(event: Event) -> None:
        said.append(event)
        away(event)

    done = verify_backups(app.settings, store.all_backups(app.settings), emit=listen)
    assert [one.backup.name for one in done] == ["three", "one"]
    assert any("two was removed" in getattr(event, "text", "") for event in said)


@pytest.mark.parametrize("closed", ["", "pats.db", "uploads/1/letter.txt", "uploads/1", "backup_metadata.json"])
def test_what_may_not_be_read_is_not_called_damaged(app: SmallApp, closed: str) -> None:
    make(app)
    (app.backups / "one" / closed).chmod(0)
    result = as_user(app, "verify", "one")
    assert result.code == 1, result.err
    assert "cannot be read, and so the backup was not checked" in result.err and "Next: " in result.err
    (app.backups / "one" / closed).chmod(0o700)
    assert store.read(app.settings, "one").state == "checked"


def test_a_run_that_holds_the_lock_is_not_waited_for(app: SmallApp) -> None:
    make(app)
    with lock.held(app.backups, "a test", 0):
        run_here(app, "verify", "one", "--test-restore", check=0)
    assert store.read(app.settings, "one").state == "proven"


def test_a_backups_folder_that_cannot_be_written_to_is_no_hindrance(app: SmallApp) -> None:
    make(app)
    shutil.rmtree(app.backups / ".state")
    app.backups.chmod(0o500)
    try:
        result = as_user(app, "verify", "one")
    finally:
        app.backups.chmod(0o755)
    assert result.code == 3, result.err
    assert "one: sound" in result.out and "could not be saved" in result.err


def test_an_interrupt_ends_it_at_once_and_leaves_no_record(app: SmallApp) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.done:
            raise KeyboardInterrupt

    make(app)
    with pytest.raises(KeyboardInterrupt):
        check(app, emit=interrupt)
    assert not (app.backups / ".state" / "proofs").exists()


# Files that backups share

_opened: list[str] | None = None


def _count_reads(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event in ("open", "sqlite3.connect") and isinstance(arguments[0], str | os.PathLike):
        _opened.append(os.fspath(arguments[0]))


@pytest.fixture(scope="module")
def _audited() -> None:
    sys.addaudithook(_count_reads)


@contextlib.contextmanager
def reads() -> Iterator[list[str]]:
    """Record every path that Python or SQLite opens within the block."""
    global _opened
    _opened = found = []
    try:
        yield found
    finally:
        _opened = None


def share(app: SmallApp, names: list[str]) -> None:
    """Make the backups share the database and the uploads of the first one."""
    first = app.backups / names[0]
    for name in names[1:]:
        for path in [first / "pats.db", *files(first / "uploads")]:
            twin = app.backups / name / path.relative_to(first)
            twin.unlink()
            os.link(path, twin)


@pytest.mark.usefixtures("_audited")
def test_a_file_that_backups_share_is_read_once(app: SmallApp) -> None:
    for hours, name in enumerate(("one", "two", "three")):
        make(app, name, hours)
        shutil.rmtree(app.backups / ".state")  # so that they share nothing yet
    with reads() as apart:
        verify_backups(app.settings, store.all_backups(app.settings))
    share(app, ["one", "two", "three"])
    with reads() as shared:
        done = verify_backups(app.settings, store.all_backups(app.settings))
    assert not any(one.flaws or one.failure for one in done)
    for name, times in (("letter.txt", 6), ("pats.db", 6)):  # the header of the database is read too
        assert sum(path.endswith(name) for path in apart) == times
        assert sum(path.endswith(name) for path in shared) == times // 3
    assert sum("pats.db?" in path for path in shared) == sum("pats.db?" in path for path in apart) // 3 == 1


def test_a_shared_file_that_is_damaged_is_found_in_every_backup_that_has_it(app: SmallApp) -> None:
    for hours, name in enumerate(("one", "two", "three")):
        make(app, name, hours)
        shutil.rmtree(app.backups / ".state")
    share(app, ["one", "three"])
    write(app.backups / "one" / "uploads" / "1" / "letter.txt", b"X")
    write(app.backups / "one" / "pats.db", b"X")
    done = verify_backups(app.settings, store.all_backups(app.settings))
    assert {one.backup.name: len(one.flaws) >= 2 for one in done} == {"one": True, "two": False, "three": True}
    assert [one.flaws for one in done if one.backup.name == "two"] == [()]


def test_what_is_remembered_of_shared_files_is_bounded_and_never_of_another_file(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}").touch()
        os.link(tmp_path / f"{number}", tmp_path / f"{number} again")
    shared: Shared[int] = Shared(2)
    found = [0, 0]
    for turn in range(2):
        for number in range(5):
            facts = (tmp_path / f"{number}").stat()
            found[turn] += shared.of(facts, lambda: 1) if turn == 0 else 0 if shared.of(facts, lambda: 0) else 1
    assert found == [5, 3]
    os.utime(tmp_path / "0")
    assert shared.of((tmp_path / "0").stat(), lambda: 7) == 7


# Which backup is checked, and the exit codes


def test_the_latest_is_meant_where_none_is_named(app: SmallApp) -> None:
    for hours, name in enumerate(("one", "two")):
        make(app, name, hours)
    make(app, "safety", 5, kind="pre_restore")
    for arguments in ((), ("latest",), ("--latest",)):
        assert run_here(app, "verify", *arguments, check=0).out.startswith("two: sound")
    every = run_here(app, "verify", "--all", "--json", check=0).json
    assert [one["backup_name"] for one in every] == ["safety", "two", "one"]
    assert every[0]["flaws"] == [] and every[0]["failure"] is None and every[0]["state"] == "checked"


@pytest.mark.parametrize("arguments", [("one", "--all"), ("--all", "--random"), ("--latest", "--random")])
def test_two_ways_to_say_which_are_refused(app: SmallApp, arguments: tuple[str, ...]) -> None:
    assert run_here(app, "verify", *arguments).code == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("nope",), 10), (("../one",), 10), (("./nope.db",), 10), ((), 10), (("--random",), 10), (("-x",), 2), (("",), 2)],
)
def test_what_is_not_there_or_not_named_is_refused(app: SmallApp, arguments: tuple[str, ...], code: int) -> None:
    result = run_here(app, "verify", *arguments)
    assert result.code == code and result.out == ""


def test_all_of_nothing_is_nothing(app: SmallApp) -> None:
    assert "nothing to verify" in run_here(app, "verify", "--all", check=0).out
    assert run_here(app, "verify", "--all", "--json", check=0).json == []


def test_one_damaged_backup_among_others_ends_with_12_and_all_are_told_of(app: SmallApp) -> None:
    for hours, name in enumerate(("one", "two", "three")):
        make(app, name, hours)
    (app.backups / "two" / "RESTORE.md").unlink()
    result = app.command("verify", "--all", check=12)
    assert [line.split(":")[0] for line in result.out.splitlines() if not line.startswith(" ")] == [
        "three",
        "two",
        "one",
    ]
    assert "Of 3 backups verified these are damaged: two." in result.err
    document = run_here(app, "verify", "two", "--json", check=12).json
    assert document["state"] == "damaged" and document["flaws"] == [
        {"path": "RESTORE.md", "text": "RESTORE.md is missing"}
    ]


def test_a_backup_is_accepted_where_it_is_sound(app: SmallApp) -> None:
    app.add_rows(50)
    backup = make(app)
    assert "one has nothing unusual to accept." in run_here(app, "verify", "one", "--accept", check=0).err
    app.execute("DELETE FROM companies WHERE id > 5")
    make(app, "few", 1)
    assert "few is accepted" in run_here(app, "verify", "few", "--accept", check=0).err
    assert "few" in flags.load(app.backups).accepted
    flags.clear(app.backups, flags.ACCEPTED, "one")
    (backup / "RESTORE.md").unlink()
    run_here(app, "verify", "one", "--accept", check=12)
    assert "one" not in flags.load(app.backups).accepted


def test_the_one_picked_was_never_tried_or_longest_not(app: SmallApp) -> None:
    names = ["a", "b", "c", "d"]
    for hours, name in enumerate(names):
        make(app, name, hours)

    def choices() -> list[str]:
        offered: list[str] = []

        def choose(among: Any) -> Backup:
            offered.extend(one.name for one in among)
            return among[0]  # type: ignore[no-any-return]

        choose_for_test(app.settings, choose)
        return sorted(offered)

    assert choices() == names
    for days, name in enumerate(("c", "a", "d", "b")):
        metadata = store.require_metadata(store.read(app.settings, name))
        verification.write(
            app.backups, name, verification.Record(metadata.created_at, tried_at=NOON + timedelta(days=days))
        )
        assert choices() == ([one for one in names if one not in "cadb"[: days + 1]] or ["a", "c"])


def test_the_one_picked_is_one_that_can_be_restored(app: SmallApp) -> None:
    (make(app, "torn", 1) / "backup_metadata.json").write_text("{")
    (make(app, "altered", 2) / "RESTORE.md").unlink()
    check(app, "altered")
    make(app, "good", 3)
    assert {choose_for_test(app.settings).name for _ in range(20)} == {"good"}
    assert run_here(app, "verify", "--random", check=0).out.startswith("good: sound")


def test_the_bar_is_one_over_all_of_it_and_never_runs_over(app: SmallApp) -> None:
    for hours, name in enumerate(("one", "two")):
        make(app, name, hours)
    said: list[Event] = []
    verify_backups(app.settings, store.all_backups(app.settings), emit=said.append)
    totals = {event.total for event in said if hasattr(event, "total")}
    counts = [event.done for event in said if isinstance(event, Progress)]
    assert len(totals) == 1 and not any(isinstance(event, Warned) for event in said)
    assert counts[-1] == max(counts) == totals.pop()


def test_an_error_of_the_library_has_its_code(app: SmallApp) -> None:
    from backupkit.verify.verify import refuse_bad

    make(app)
    bad = Verified(store.read(app.settings, "one"), failure=BackupError("x", "y"))
    with pytest.raises(BackupError):
        refuse_bad(app.settings, [bad])
    with pytest.raises(Damaged):
        refuse_bad(app.settings, [bad, Verified(bad.backup, (Flaw("a", "b"),))])
