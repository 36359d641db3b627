"""A backup holds one moment of the database and every upload that this moment refers to, complete and checked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from backupkit.backup.create import backup_of_today, create_backup, create_backup_if_needed
from backupkit.config.settings import Settings
from backupkit.fs import attributes
from backupkit.model.backup import BackupRequest, Metadata
from backupkit.model.errors import Refused, SourceBroken
from backupkit.model.events import Event, Progress, Step, Warned
from backupkit.repository import manifest, store
from backupkit.restore.restore import plan_restore, restore_backup
from small_app import HEAD, MERGED, NOON, REMINDERS, SALARY, SmallApp, tree


def back_up(app: SmallApp, name: str = "first", **order: object) -> Metadata:
    created = create_backup(app.settings, BackupRequest(name, **order), clock=lambda: NOON)  # type: ignore[arg-type]
    assert created.backup.metadata
    return created.backup.metadata


def read(database: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)) as sealed:
        return sealed.execute(statement).fetchall()


def test_a_backup_holds_what_the_app_holds(app: SmallApp) -> None:
    before = app.contents()
    back_up(app)
    folder = app.backups / "first"
    assert tree(folder / "uploads") == before.uploads
    assert sorted(read(folder / "pats.db", "SELECT * FROM companies"), key=repr) == before.rows["companies"]


def test_committed_rows_that_are_only_in_the_wal_are_in_the_backup(app: SmallApp) -> None:
    app.use_and_crash(rows=7)
    before = len(app.rows("companies"))
    metadata = back_up(app)
    assert metadata.database
    assert metadata.database.rows["companies"] == before
    assert read(app.backups / "first" / "pats.db", "SELECT count(*) FROM companies") == [(before,)]


def test_what_another_process_has_not_committed_is_not_in_the_backup(app: SmallApp) -> None:
    before = len(app.rows("companies"))
    with closing(app.connect()) as live:
        live.execute("INSERT INTO companies (name) VALUES ('not yet')")
        metadata = back_up(app)
    assert metadata.database and metadata.database.rows["companies"] == before


def test_a_writing_app_sees_no_error_and_the_backup_is_of_one_moment(app: SmallApp) -> None:
    with app.writer() as writer:
        for number in range(5):
            back_up(app, f"b{number}")
    assert writer.errors == ()
    assert writer.count > 0
    for number in range(5):
        assert read(app.backups / f"b{number}" / "pats.db", "PRAGMA integrity_check") == [("ok",)]


def test_the_sealed_database_is_one_file_that_leaves_nothing_beside_it_when_it_is_opened(app: SmallApp) -> None:
    app.use_and_crash()
    back_up(app)
    sealed = app.backups / "first" / "pats.db"
    assert sealed.read_bytes()[18:20] == b"\x01\x01"  # the header of a database with a rollback journal
    with closing(sqlite3.connect(f"{sealed.as_uri()}?mode=ro", uri=True)) as opened:
        assert opened.execute("SELECT count(*) FROM companies").fetchone()[0] > 0
    assert sorted(path.name for path in sealed.parent.iterdir()) == [
        "RESTORE.md",
        "SHA256SUMS",
        "backup_metadata.json",
        "pats.db",
        "uploads",
    ]


def test_the_metadata_are_read_from_the_copy(app: SmallApp) -> None:
    app.at_revision(SALARY, REMINDERS)
    app.execute("PRAGMA user_version = 77")
    metadata = back_up(app, note="two heads")
    assert metadata.alembic_revisions == tuple(sorted((SALARY, REMINDERS)))
    assert metadata.alembic_revision in (SALARY, REMINDERS)
    assert metadata.database and metadata.database.user_version == 77
    assert metadata.timestamp == "20260615_120000"
    assert metadata.note == "two heads"


def test_a_schema_changed_under_the_same_revision_has_another_fingerprint(app: SmallApp) -> None:
    one = back_up(app, "one")
    app.execute("CREATE INDEX half_applied ON companies (name)")
    two = back_up(app, "two")
    assert one.alembic_revision == two.alembic_revision == HEAD
    assert one.schema_fingerprint != two.schema_fingerprint


def test_an_unversioned_database_has_no_revision(app: SmallApp) -> None:
    app.forget_revision()
    metadata = back_up(app)
    assert (metadata.alembic_revision, metadata.alembic_revisions) == (None, ())


def test_rows_that_break_a_foreign_key_are_told_of_and_backed_up(app: SmallApp) -> None:
    app.execute("INSERT INTO applications (company_id, position) VALUES (99999, 'nowhere')")
    metadata = back_up(app)
    assert metadata.database and metadata.database.foreign_key_violations == 1


def test_a_damaged_database_makes_no_backup(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(app.database.read_bytes())
    content[4096 * 2 : 4096 * 3] = os.urandom(4096)
    app.database.write_bytes(content)
    with pytest.raises(SourceBroken):
        back_up(app)
    assert store.all_backups(app.settings) == []
    assert {path.name for path in app.backups.iterdir()} <= {".lock", ".state"}
    assert not list(app.backups.rglob(".draft-*"))


def test_every_kind_of_upload_is_kept_as_it_is(app: SmallApp) -> None:
    strange = os.fsencode(app.uploads)
    for name in (b"not-utf8-\xff\xfe", b"new\nline", b"back\\slash", b" lead", b"\r", b"x" * 255):
        Path(os.fsdecode(strange + b"/" + name)).write_bytes(name)
    app.write_upload("empty file", b"").chmod(0o640)
    app.write_upload("secret", b"s").chmod(0o400)
    (app.uploads / "closed").mkdir(mode=0o700)
    (app.uploads / "dangling").symlink_to("/nowhere/at/all")
    (app.uploads / "to a folder").symlink_to("1")
    with open(app.uploads / "sparse", "wb") as sparse:
        sparse.seek(50_000_000)
        sparse.write(b"end")
    before = tree(app.uploads)
    back_up(app)
    copied = app.backups / "first" / "uploads"
    assert tree(copied) == before
    assert (copied / "sparse").stat().st_blocks * 512 < 1_000_000
    listed = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=copied.parent, capture_output=True)
    assert listed.returncode == 0, listed.stderr


def test_owners_and_times_of_links_are_kept(app: SmallApp) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: run the tests as root to check owners")
    path = app.write_upload("mine", b"x")
    os.chown(path, 1234, 2345)
    os.chown(app.uploads / "latest", 1234, 2345, follow_symlinks=False)
    back_up(app)
    copied = app.backups / "first" / "uploads"
    assert (copied / "mine").stat().st_uid == 1234 and (copied / "mine").stat().st_gid == 2345
    assert (copied / "latest").lstat().st_uid == 1234


def test_what_cannot_be_copied_is_warned_of(app: SmallApp) -> None:
    os.mkfifo(app.uploads / "fifo")
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(os.path.relpath(app.uploads / "socket"))
    result = app.command("backup", "first")
    assert result.code == 3
    assert "fifo is a socket, a fifo or a device" in result.err
    assert "socket is a socket, a fifo or a device" in result.err
    (listed,) = app.command("list", "--json").json
    assert len(listed["uploads"]["warnings"]) == 2


def test_a_symlink_is_never_followed(app: SmallApp, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (app.uploads / "way out").symlink_to(outside)
    back_up(app)
    assert os.readlink(app.backups / "first" / "uploads" / "way out") == str(outside)
    assert not any(b"secret" in path.read_bytes() for path in (app.backups / "first").rglob("*") if path.is_file())


def test_links_that_lead_out_are_counted_and_named(app: SmallApp, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (app.uploads / "1" / "way out").symlink_to(outside)
    (app.uploads / "up").symlink_to("../alembic.ini")
    (app.uploads / "1" / "inside").symlink_to(app.uploads / "2")
    (app.uploads / "1" / "up and in").symlink_to("../2/letter.txt")
    (app.uploads / "nowhere").symlink_to(tmp_path / "not there")
    made = app.command("backup", "first", check=0)
    assert "2 links lead out of the uploads: what is there is in no backup" in made.out
    shown = app.command("show", "first")
    assert "2 links lead out of the uploads" in shown.out
    assert app.command("show", "first", "--json").json["uploads"]["links_out"] == 2
    doctor = app.command("doctor").out
    assert "Links lead out of the uploads; their targets are in no backup: 1/way out, up." in doctor


def test_an_uploads_folder_that_is_itself_a_link_is_backed_up(app: SmallApp, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    app.uploads.rename(elsewhere)
    app.uploads.symlink_to(elsewhere)
    back_up(app)
    assert tree(app.backups / "first" / "uploads") == tree(elsewhere)


@pytest.mark.parametrize("size", [3, 300_000], ids=["small", "large"])
def test_a_file_that_changes_while_it_is_copied_is_taken_again(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = app.write_upload("growing", b"o" * size)
    real = attributes.of_open
    calls: list[Path] = []

    def ask_and_disturb(where: int | str) -> attributes.Attributes:
        """The attributes are read after the content."""
        if not calls and os.readlink(f"/proc/self/fd/{where}") == str(path):
            calls.append(path)
            path.write_bytes(b"new content")
        return real(where)

    monkeypatch.setattr(attributes, "of_open", ask_and_disturb)
    metadata = back_up(app)
    assert calls
    assert (app.backups / "first" / "uploads" / "growing").read_bytes() == b"new content"
    assert metadata.uploads and metadata.uploads.warnings == ()
    assert list(manifest.verify_checksums(app.backups / "first")) == []


def test_a_file_that_will_not_hold_still_is_reported(app: SmallApp) -> None:
    path = app.write_upload("restless", b"0" * 20_000_000)  # so large that it is written to while it is copied
    heard: list[Event] = []
    with disturbing("file = open(path, 'r+b', buffering=0)\nwhile True: file.write(b'1'); file.seek(0)", path):
        created = create_backup(app.settings, BackupRequest("first"), heard.append)
    assert [event for event in heard if isinstance(event, Warned)]
    assert "restless" in created.warnings[0]
    assert list(manifest.verify_checksums(app.backups / "first")) == []


def test_files_that_come_and_go_meanwhile_do_no_harm(app: SmallApp) -> None:
    with disturbing("while True: open(path, 'w').close(); os.unlink(path)", app.uploads / "comes-and-goes"):
        for number in range(20):
            back_up(app, f"b{number}")
            assert list(manifest.verify_checksums(app.backups / f"b{number}")) == []


@contextmanager
def disturbing(code: str, path: Path) -> Iterator[None]:
    """Run the code on the path in another process during the whole block."""
    script = f"import os, sys\npath = sys.argv[1]\nprint(flush=True)\n{code}"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline()
        try:
            yield
        finally:
            child.kill()


def test_backups_share_nothing_with_the_live_files_or_with_each_other(app: SmallApp) -> None:
    back_up(app, "one")
    back_up(app, "two")
    app.write_upload("1/letter.txt", b"overwritten in place")
    shutil.rmtree(app.backups / "one")
    assert list(manifest.verify_checksums(app.backups / "two")) == []


def test_without_uploads_the_metadata_say_so(app: SmallApp) -> None:
    metadata = back_up(app, uploads=False)
    assert metadata.uploads_included is False
    assert not (app.backups / "first" / "uploads").exists()
    bare = replace_settings(app.settings, uploads=None)
    assert create_backup(bare, BackupRequest("second")).backup.metadata.uploads_included is False  # type: ignore[union-attr]


def test_a_read_only_uploads_folder_and_files_can_be_backed_up_and_removed(app: SmallApp) -> None:
    app.write_upload("locked/file", b"x")
    (app.uploads / "locked").chmod(0o500)
    back_up(app)
    assert (app.backups / "first" / "uploads" / "locked").stat().st_mode & 0o777 == 0o500


def test_a_killed_runs_draft_is_cleared_and_told_of(app: SmallApp) -> None:
    draft = app.backups / ".draft-old"
    (draft / "uploads" / "closed").mkdir(parents=True)
    (draft / "uploads" / "closed").chmod(0)
    result = app.command("backup", "first")
    assert result.code == 0
    assert "had not finished" in result.err
    assert not draft.exists()


def test_the_backup_of_today_is_found_in_the_configured_zone(app: SmallApp) -> None:
    back_up(app)
    east = replace_settings(app.settings, timezone="Pacific/Kiritimati")  # 14 hours ahead: tomorrow there
    assert backup_of_today(app.settings, lambda: NOON.replace(hour=23)) is not None
    assert backup_of_today(east, lambda: NOON.replace(hour=9)) is None
    assert backup_of_today(east, lambda: NOON.replace(hour=23)) is not None


def test_a_backup_can_be_read_with_nothing_but_the_standard_library(app: SmallApp) -> None:
    back_up(app)
    script = (
        "import json, sqlite3, pathlib; m = json.load(open('backup_metadata.json'));"
        "d = sqlite3.connect('file:' + m['database_file'] + '?mode=ro&immutable=1', uri=True);"
        "print(d.execute('select version_num from alembic_version').fetchone()[0] == m['alembic_revision'])"
    )
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=app.backups / "first", capture_output=True)
    assert ran.stdout == b"True\n", ran.stderr


def test_the_metadata_file_is_what_the_contract_says(app: SmallApp) -> None:
    back_up(app)
    values = json.loads((app.backups / "first" / "backup_metadata.json").read_text())
    assert values["backup_name"] == "first"
    assert values["created_at"] == "2026-06-15T12:00:00+00:00"
    assert values["alembic_revision"] == HEAD
    assert values["database_file"] == "pats.db"
    assert values["uploads_included"] is True
    assert values["backup_version"] == "1.0"


def test_no_other_revision_is_taken_for_the_head(app: SmallApp) -> None:
    app.at_revision(MERGED)
    assert back_up(app).alembic_revision == MERGED


def replace_settings(settings: Settings, **changes: object) -> Settings:
    return settings.replaced(**changes)


def test_an_apps_own_collation_does_not_keep_it_from_being_backed_up(app: SmallApp) -> None:
    with closing(app.connect()) as live, live:
        live.create_collation("own", lambda one, two: (one > two) - (one < two))
        live.execute("CREATE TABLE named (name TEXT COLLATE own PRIMARY KEY) WITHOUT ROWID")
        live.execute("INSERT INTO named VALUES ('a'), ('b')")
        live.execute("CREATE TABLE indexed (name TEXT COLLATE own UNIQUE)")
        live.execute("INSERT INTO indexed VALUES ('c')")
    metadata = back_up(app)
    assert metadata.database and metadata.database.rows["companies"] == 3
    assert read(app.backups / "first" / "pats.db", "SELECT name FROM indexed NOT INDEXED") == [("c",)]


def test_a_database_behind_a_link_is_backed_up_with_its_wal(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = app.database.rename(tmp_path / "real" / "file.db")
    app.database.symlink_to(real)
    app.database = real
    app.use_and_crash(5)
    app.database = app.folder / "data" / "pats.db"
    metadata = back_up(app)
    assert metadata.database_file == "file.db"
    assert metadata.database and metadata.database.rows["companies"] == 3 + 5


def test_sidecars_that_root_makes_belong_to_the_databases_owner(app: SmallApp) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: run the tests as root to check owners")
    for path in (app.database.parent, app.database):
        os.chown(path, 1234, 1234)
    with closing(app.connect()) as live:
        live.execute("SELECT count(*) FROM companies").fetchone()
        for suffix in ("-wal", "-shm"):
            app.database.with_name(f"pats.db{suffix}").unlink()
    with closing(app.connect()):
        back_up(app)
    assert {path.stat().st_uid for path in app.database.parent.iterdir()} == {1234}


def test_a_large_upload_advances_the_progress_while_it_is_copied_and_restored(app: SmallApp) -> None:
    path = app.write_upload("film", b"x" * 5_000_000)
    heard: list[Event] = []
    create_backup(app.settings, BackupRequest("one"), heard.append)
    assert len(_amounts(heard, "Backing up")) >= 4
    path.unlink()
    heard.clear()
    restore_backup(app.settings, plan_restore(app.settings, "one"), heard.append)
    amounts = _amounts(heard, "Staging the uploads")
    assert len(amounts) >= 4 and amounts == sorted(amounts)


def _amounts(heard: list[Event], step: str) -> list[int]:
    """Return the progress that was told after the step of this name, until the next step."""
    first = next(number for number, event in enumerate(heard) if isinstance(event, Step) and event.name == step)
    after = takewhile(lambda event: not isinstance(event, Step), heard[first + 1 :])
    return [event.done for event in after if isinstance(event, Progress)]


@pytest.mark.parametrize("call", [create_backup, create_backup_if_needed])
def test_a_name_that_no_command_could_find_again_is_refused(
    app: SmallApp, call: Callable[[Settings, BackupRequest], object]
) -> None:
    with pytest.raises(Refused, match="is not a name for a backup"):
        call(app.settings, BackupRequest(".hidden"))
    assert not os.path.lexists(app.backups / ".hidden")
