"""A restore brings back everything or nothing, into a running app, and can be undone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.model.errors import Damaged, SchemaMismatch, SourceUnreadable
from backupkit.model.events import Event
from backupkit.repository import store
from backupkit.restore import journal
from backupkit.restore.recovery import recover
from backupkit.restore.restore import Restored, RestorePlan, plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from small_app import BACKEND, DOCUMENTS, HEAD, MERGED, REMINDERS, SALARY, Contents, SmallApp, tree


def back_up(app: SmallApp, name: str = "good") -> Contents:
    create_backup(app.settings, BackupRequest(name))
    return app.contents()


def restore(app: SmallApp, name: str = "good", **options: object) -> Restored:
    heard: list[Event] = []
    plan = plan_restore(app.settings, name, emit=heard.append, **options)  # type: ignore[arg-type]
    return restore_backup(app.settings, plan, heard.append)


def undo(app: SmallApp) -> Restored:
    return restore_backup(app.settings, plan_undo(app.settings))


def ruin(app: SmallApp) -> None:
    """Damage database and uploads in every way that leaves the database readable."""
    app.execute("DROP TABLE reminders")
    app.execute("DELETE FROM documents")
    app.execute("INSERT INTO companies (name) VALUES ('after')")
    (app.uploads / "1" / "letter.txt").write_bytes(b"overwritten")
    shutil.rmtree(app.uploads / "2")
    (app.uploads / "latest").unlink()
    (app.uploads / "latest").mkdir()
    (app.uploads / "latest" / "inside").write_text("a folder where a link was")
    (app.uploads / "empty").rmdir()
    (app.uploads / "empty").write_text("a file where a folder was")
    app.write_upload("new/deep/file", b"came later")


def assert_nothing_is_left(app: SmallApp) -> None:
    assert not (app.uploads / STAGING).exists()
    assert not (app.database.parent / STAGING).exists()
    assert not journal.exists(app.backups)
    assert [path for path in app.backups.iterdir() if path.name.startswith(".draft")] == []


def test_everything_is_as_it_was(app: SmallApp) -> None:
    before = back_up(app)
    ruin(app)
    restore(app)
    assert app.contents() == before
    assert_nothing_is_left(app)


def test_a_restore_can_be_undone_and_the_undo_too(app: SmallApp) -> None:
    before = back_up(app)
    ruin(app)
    ruined = app.contents()
    restore(app)
    undo(app)
    assert app.contents() == ruined
    undo(app)
    assert app.contents() == before


def test_undo_goes_by_what_was_done_last_not_by_dates(app: SmallApp) -> None:
    back_up(app)
    ruin(app)
    ruined = app.contents()
    plan = plan_restore(app.settings, "good")
    later = store.find(app.settings, restore_backup(app.settings, plan).safety).metadata
    assert later
    # A second restore, with the clock set back a year.
    undo(app)
    long_ago = later.created_at.replace(year=later.created_at.year - 1)
    restore_backup(app.settings, plan_restore(app.settings, "good"), clock=lambda: long_ago)
    undo(app)
    assert app.contents() == ruined


def test_the_safety_copy_of_a_restore_can_be_restored_by_name(app: SmallApp) -> None:
    back_up(app)
    ruin(app)
    ruined = app.contents()
    safety = restore(app).safety
    restore(app, safety)
    assert app.contents() == ruined


def test_latest_is_the_newest_backup_that_is_no_safety_copy(app: SmallApp) -> None:
    before = back_up(app)
    ruin(app)
    restore(app)
    ruin_again = app.write_upload("again", b"x")
    restore(app, "latest")
    assert not ruin_again.exists()
    assert app.contents() == before


def test_open_connections_go_on_and_see_the_restored_rows(app: SmallApp) -> None:
    back_up(app)
    inode = app.database.stat().st_ino
    with closing(app.connect()) as open_before:
        assert open_before.execute("SELECT count(*) FROM companies").fetchone()
        app.execute("DELETE FROM documents")
        restore(app)
        assert open_before.execute("SELECT count(*) FROM documents").fetchone()[0] > 0
        assert open_before.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        with open_before:
            open_before.execute("INSERT INTO companies (name) VALUES ('written after the restore')")
    assert app.database.stat().st_ino == inode


def test_an_app_that_writes_all_the_time_sees_no_error(app: SmallApp) -> None:
    back_up(app)
    documents = app.rows("documents")
    with app.writer() as writer:
        for _ in range(3):
            app.execute("DELETE FROM documents")
            restore(app)
    assert writer.errors == ()
    assert app.rows("documents") == documents


def test_a_reader_in_a_long_transaction_keeps_its_own_view(app: SmallApp) -> None:
    back_up(app)
    with closing(app.connect()) as reader:
        app.execute("DELETE FROM documents")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM documents").fetchone()[0] == 0
        restore(app)
        assert reader.execute("SELECT count(*) FROM documents").fetchone()[0] == 0
        reader.execute("ROLLBACK")
        assert reader.execute("SELECT count(*) FROM documents").fetchone()[0] > 0


@contextmanager
def holding(app: SmallApp, statement: str) -> Iterator[int]:
    """Keep a transaction that began with the statement open in another process; yield its process id."""
    script = (
        "import sqlite3, sys, time\nlive = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "live.execute(sys.argv[2])\nlive.execute('SELECT count(*) FROM companies').fetchone()\n"
        "print(flush=True)\ntime.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(app.database), statement]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline()
        try:
            yield child.pid
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("mode", "lock"), [("WAL", "BEGIN IMMEDIATE"), ("DELETE", "BEGIN"), ("DELETE", "BEGIN EXCLUSIVE")]
)
def test_a_database_locked_for_ever_ends_the_restore_with_who_holds_it(app: SmallApp, mode: str, lock: str) -> None:
    app.execute(f"PRAGMA journal_mode={mode}")
    back_up(app)
    ruin(app)
    ruined = app.contents()
    with holding(app, lock) as pid:
        result = app.command("restore", "good", "--force", env={"BACKUP_BUSY_TIMEOUT": "1"})
    assert result.code == 13
    assert "stayed locked for 1 s" in result.err
    if sys.platform == "linux":
        assert f"pid {pid}" in result.err
    assert app.contents() == ruined
    assert_nothing_is_left(app)


@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE", "PERSIST"])
def test_the_live_journal_mode_stays(app: SmallApp, mode: str) -> None:
    app.execute(f"PRAGMA journal_mode={mode}")
    before = back_up(app)
    ruin(app)
    restore(app)
    assert app.contents() == before
    with closing(app.connect()) as live:
        kept = live.execute("PRAGMA journal_mode").fetchone()[0]
    assert kept == ("wal" if mode == "WAL" else "delete")


@pytest.mark.parametrize("is_gone", [True, False])
def test_the_plan_says_what_is_kept_of_a_database_only_where_some_of_it_is_there(app: SmallApp, is_gone: bool) -> None:
    back_up(app)
    (lose if is_gone else empty)(app)
    said = app.command("restore", "latest", "--dry-run", check=0).out
    assert ("Nothing of it is there to be kept" in said, "is kept in the safety copy" in said) == (is_gone, not is_gone)
    told = app.command("restore", "good", "--only", "uploads", "--force", check=0).err
    assert ("The safety copy is without it." in told, "Its files are kept" in told) == (is_gone, not is_gone)


@pytest.mark.parametrize("journal_mode", ["WAL", "DELETE"])
@pytest.mark.parametrize("pragma", ["page_size=1024", "page_size=65536", "encoding='UTF-16le'", "auto_vacuum=FULL"])
def test_a_live_database_of_another_make_takes_the_backup(app: SmallApp, pragma: str, journal_mode: str) -> None:
    before = back_up(app)
    for leftover in app.database.parent.glob("pats.db*"):
        leftover.unlink()
    app.execute(f"PRAGMA {pragma}")
    with closing(app.connect()) as other:
        other.execute(f"PRAGMA {pragma}")
        other.execute(f"PRAGMA journal_mode={journal_mode}")
        other.execute("CREATE TABLE other (x)")
        other.execute("INSERT INTO other VALUES ('x')")
        other.commit()
        restore(app)
        if "encoding" not in pragma:  # SQLite fixes the encoding for the life of a connection
            assert other.execute("SELECT count(*) FROM companies").fetchone()[0] == len(before.rows["companies"])
    assert app.contents() == before


def test_rows_keep_their_rowids_when_the_page_size_changes(app: SmallApp) -> None:
    app.execute("CREATE TABLE loose (x)")
    app.execute("INSERT INTO loose (rowid, x) VALUES (5, 'five'), (99, 'ninety-nine')")
    back_up(app)
    for leftover in app.database.parent.glob("pats.db*"):
        leftover.unlink()
    with closing(app.connect()) as other:
        other.execute("PRAGMA page_size=8192")
        other.execute("CREATE TABLE other (x)")
        other.commit()
    restore(app)
    with closing(app.connect()) as live:
        assert live.execute("SELECT rowid, x FROM loose").fetchall() == [(5, "five"), (99, "ninety-nine")]


def lose(app: SmallApp) -> None:
    for path in app.database.parent.glob("pats.db*"):
        path.unlink()


def lose_but_for_the_wal(app: SmallApp) -> None:
    app.use_and_crash()
    app.database.unlink()


def empty(app: SmallApp) -> None:
    lose(app)
    app.database.touch()


def scramble(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    app.database.write_bytes(os.urandom(50_000))


def scramble_the_middle(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(app.database.read_bytes())
    content[4096:40960] = os.urandom(36864)
    app.database.write_bytes(content)


def truncate(app: SmallApp) -> None:
    app.execute("PRAGMA journal_mode=DELETE")
    os.truncate(app.database, 5000)


def scramble_under_a_hot_wal(app: SmallApp) -> None:
    app.use_and_crash()
    app.database.write_bytes(os.urandom(50_000))


def leave_a_stale_wal(app: SmallApp) -> None:
    app.use_and_crash()
    wal = app.database.with_name("pats.db-wal").read_bytes()
    app.execute("PRAGMA journal_mode=DELETE")
    app.database.with_name("pats.db-wal").write_bytes(wal)


def leave_a_hot_journal(app: SmallApp) -> None:
    """Kill a writer in rollback mode in the middle of its transaction, with some of its pages in the file already."""
    app.execute("PRAGMA journal_mode=DELETE")
    script = (
        "import os, sqlite3, sys\nlive = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "live.execute('PRAGMA cache_size=2')\nlive.execute('BEGIN')\n"
        "live.executemany('INSERT INTO companies (name) VALUES (?)', ((f'{n} ' + 'x' * 500,) for n in range(2000)))\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(app.database)], check=False)
    assert app.database.with_name("pats.db-journal").stat().st_size > 0


BROKEN = [lose, lose_but_for_the_wal, empty, scramble, scramble_the_middle, truncate, scramble_under_a_hot_wal]


@pytest.mark.parametrize("break_it", [*BROKEN, leave_a_stale_wal, leave_a_hot_journal], ids=lambda one: one.__name__)
def test_whatever_happened_to_the_live_database_the_backup_comes_back(app: SmallApp, break_it: object) -> None:
    before = back_up(app)
    break_it(app)  # type: ignore[operator]
    restored = restore(app)
    assert app.contents() == before
    assert_nothing_is_left(app)
    assert (app.backups / restored.safety).is_dir()
    with closing(app.connect()) as live:
        assert live.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert live.execute("PRAGMA journal_mode").fetchone()[0] in ("wal", "delete")


@pytest.mark.parametrize("break_it", [scramble, truncate, scramble_under_a_hot_wal], ids=lambda one: one.__name__)
def test_a_broken_database_is_kept_as_it_is(app: SmallApp, break_it: object) -> None:
    back_up(app)
    break_it(app)  # type: ignore[operator]
    broken = {path.name: path.read_bytes() for path in app.database.parent.glob("pats.db*")}
    safety = app.backups / restore(app).safety
    kept = {path.name: path.read_bytes() for path in safety.glob("pats.db*")}
    assert kept["pats.db"] == broken["pats.db"]
    assert kept.get("pats.db-wal") == broken.get("pats.db-wal")
    with pytest.raises(Damaged, match="cannot be taken back"):
        undo(app)


def test_a_missing_uploads_folder_comes_back(app: SmallApp) -> None:
    before = back_up(app)
    shutil.rmtree(app.uploads)
    restore(app)
    assert app.contents() == before


def test_only_the_database(app: SmallApp) -> None:
    before = back_up(app)
    ruin(app)
    uploads = app.contents().uploads
    restore(app, only="database")
    after = app.contents()
    assert (after.rows, after.uploads) == (before.rows, uploads)


def test_only_the_uploads(app: SmallApp) -> None:
    before = back_up(app)
    ruin(app)
    rows = app.contents().rows
    restore(app, only="uploads")
    after = app.contents()
    assert (after.rows, after.uploads) == (rows, before.uploads)


@pytest.mark.parametrize(("part", "other"), [("database", "uploads"), ("uploads", "database")])
def test_damage_in_the_other_part_keeps_nobody_from_restoring_one(app: SmallApp, part: str, other: str) -> None:
    before = back_up(app)
    uploads = app.backups / "good" / "uploads"
    victim = next(path for path in sorted(uploads.rglob("*")) if path.is_file())
    victim = victim if other == "uploads" else app.backups / "good" / app.database.name
    victim.write_bytes(b"rotten")
    ruin(app)
    ruined = app.contents()
    for only in (None, other):
        with pytest.raises(Damaged) as refusal:
            restore(app, only=only)
        assert app.contents() == ruined
        assert ("--only database" in refusal.value.hint) == (only is None and other == "uploads")
    restore(app, only=part)
    after = app.contents()
    restored, kept = ("rows", "uploads") if part == "database" else ("uploads", "rows")
    assert getattr(after, restored) == getattr(before, restored)
    assert getattr(after, kept) == getattr(ruined, kept)


@pytest.mark.parametrize("name", ["uploads", "database"])
def test_of_one_part_what_was_lost_or_added_is_found_too(app: SmallApp, name: str) -> None:
    back_up(app)
    (app.backups / "good" / ("uploads/added" if name == "uploads" else "added")).write_bytes(b"x")
    with pytest.raises(Damaged, match="added after the backup was made"):
        restore(app, only=name)


def test_a_backup_without_uploads_leaves_the_live_ones(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good", uploads=False))
    kept = app.write_upload("kept", b"x")
    restore(app)
    assert kept.exists()
    for to in ((), ("--to", str(app.folder / "new"))):
        refusal = app.command("restore", "good", "--force", "--only", "uploads", *to, check=10).err
        assert f"There are no uploads in {app.backups / 'good'}." in refusal and "show good" in refusal


def test_the_plan_says_what_the_restore_then_does(app: SmallApp) -> None:
    before = back_up(app)
    ruin(app)
    plan = plan_restore(app.settings, "good")
    assert plan.live.rows["documents"] == 0
    assert plan.source.facts and plan.source.facts.rows["documents"] == 2
    assert "reminders" not in plan.live.rows and "reminders" in plan.source.facts.rows
    assert plan.uploads and (plan.uploads.added, plan.uploads.changed, plan.uploads.removed) == (1, 2, 2)
    restore_backup(app.settings, plan)
    again = plan_restore(app.settings, "good").uploads
    assert again and (again.added, again.changed, again.removed) == (0, 0, 0)
    assert app.contents() == before


def test_planning_writes_nothing(app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # or Python caches the bytecode of the migrations
    back_up(app)
    ruin(app)
    with closing(app.connect()) as live:  # the app stays connected, or SQLite removes its sidecars
        live.execute("SELECT count(*) FROM companies").fetchone()
        before = tree(tmp_path / "app")
        plan_restore(app.settings, "good")
        assert {**tree(tmp_path / "app"), **dict.fromkeys(SIDECARS)} == {**before, **dict.fromkeys(SIDECARS)}


SIDECARS = ("data/pats.db-shm",)


def test_content_changed_under_a_kept_size_and_time_comes_back(app: SmallApp) -> None:
    path = app.write_upload("photo", b"the right bytes")
    back_up(app)
    facts = path.stat()
    path.write_bytes(b"the wrong bytes")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    restore(app)
    assert path.read_bytes() == b"the right bytes"


def test_equal_files_stay_the_same_files(app: SmallApp) -> None:
    path = app.write_upload("same", b"same")
    back_up(app)
    inode = path.stat().st_ino
    os.utime(path, (1, 1))
    restore(app)
    assert path.stat().st_ino == inode
    assert path.stat().st_mtime != 1


def test_a_link_put_in_the_place_of_a_folder_leads_nothing_outside(app: SmallApp, tmp_path: Path) -> None:
    before = back_up(app)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(app.uploads / "1")
    (app.uploads / "1").symlink_to(outside)
    restore(app)
    assert list(outside.iterdir()) == []
    assert app.contents() == before


def test_a_name_as_long_as_a_name_can_be_goes_and_comes_back(app: SmallApp) -> None:
    before, name = back_up(app), "x" * 255
    app.write_upload(name, b"came later")
    restore(app)
    assert app.contents() == before
    undo(app)
    assert (app.uploads / name).read_bytes() == b"came later"


def test_what_no_backup_can_hold_is_left_alone(app: SmallApp) -> None:
    back_up(app)
    os.mkfifo(app.uploads / "fifo")
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(os.path.relpath(app.uploads / "socket"))
        result = app.command("restore", "good", "--force")
    assert (app.uploads / "fifo").exists() and (app.uploads / "socket").exists()
    assert result.code == 3


def test_an_upload_that_comes_during_the_restore_stays(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    back_up(app)
    ruin(app)
    real = journal.write

    def write_and_use(backups: Path, found: journal.Journal) -> None:
        if not (app.uploads / "just now").exists():
            app.write_upload("just now", b"must not be lost")
            app.write_upload("1/letter.txt", b"written by the app meanwhile")
        real(backups, found)

    monkeypatch.setattr(journal, "write", write_and_use)
    done = restore(app)
    assert (app.uploads / "just now").read_bytes() == b"must not be lost"
    assert (app.uploads / "1" / "letter.txt").read_bytes() == b"written by the app meanwhile"
    assert any("letter.txt" in warning for warning in done.warnings)


def test_the_result_counts_what_was_changed_and_not_what_was_planned(app: SmallApp) -> None:
    app.write_upload("a.txt", b"as in the backup")
    app.write_upload("b.txt", b"as in the backup")
    create_backup(app.settings, BackupRequest("good"))
    app.write_upload("a.txt", b"changed")
    plan = plan_restore(app.settings, "good")
    app.write_upload("b.txt", b"changed after the plan was made")
    (app.uploads / "a.txt").unlink()
    app.write_upload("c.txt", b"came after the plan was made")
    done = restore_backup(app.settings, plan)
    assert plan.uploads and done.uploads
    assert (plan.uploads.added, plan.uploads.changed, plan.uploads.removed, plan.uploads.bytes) == (0, 1, 0, 16)
    assert (done.uploads.added, done.uploads.changed, done.uploads.removed, done.uploads.bytes) == (1, 1, 1, 32)


def test_an_error_in_the_middle_goes_back_by_itself(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    from backupkit.fs import descriptors

    back_up(app)
    ruin(app)
    ruined = app.contents()
    real, calls = descriptors.rename_to_free, []

    def fail_once(*arguments: Any) -> bool:
        calls.append(arguments)
        if len(calls) == 1:
            raise PermissionError(13, "Permission denied", "somewhere")
        return real(*arguments)

    monkeypatch.setattr(descriptors, "rename_to_free", fail_once)
    with pytest.raises(PermissionError):
        restore(app)
    assert app.contents() == ruined
    assert_nothing_is_left(app)


def test_a_journal_is_finished_by_the_next_command_that_writes(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    from backupkit.restore import restore as verb

    before = back_up(app)
    ruin(app)
    monkeypatch.setattr(verb, "_apply", lambda _, found, *__: ({}, found))  # like a kill right after the journal
    restore(app)
    assert journal.exists(app.backups)
    monkeypatch.undo()
    result = app.command("backup", "next", check=0)
    assert "Finishing the restore of good" in result.err
    assert app.contents() == before
    assert_nothing_is_left(app)
    undo(app)
    assert app.contents() != before


def test_what_the_app_wrote_after_its_database_was_restored_survives_the_recovery(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backupkit.restore import recovery as recovering

    before = back_up(app)
    ruin(app)
    monkeypatch.setattr(recovering, "finish_uploads", lambda *_: {})
    restore(app)
    monkeypatch.undo()
    app.execute("INSERT INTO companies (name) VALUES ('since then')")
    app.execute("UPDATE alembic_version SET version_num = 'upgraded'")
    recover(app.settings)
    assert len(app.rows("companies")) == len(before.rows["companies"]) + 1
    assert app.contents().uploads == before.uploads


def test_a_damaged_backup_is_refused_before_anything_is_touched(app: SmallApp) -> None:
    back_up(app)
    ruin(app)
    before = app.contents()
    (app.backups / "good" / "uploads" / "1" / "letter.txt").write_bytes(b"bit rot")
    result = app.command("restore", "good", "--force")
    assert result.code == 12
    assert "letter.txt" in result.err
    assert app.contents() == before
    assert "; nothing was changed" in result.err
    assert sorted(one.kind for one in store.all_backups(app.settings)) == ["manual", "pre_restore"], "of what is live"


def plan_from(app: SmallApp, *revisions: str) -> RestorePlan:
    """Plan to restore a backup at these revisions into the app at head."""
    app.at_revision(*revisions)
    create_backup(app.settings, BackupRequest("old"))
    app.at_revision(HEAD)
    return plan_restore(app.settings, "old")


def test_a_backup_at_this_codes_revision_is_the_same(app: SmallApp) -> None:
    verdict = plan_from(app, HEAD).verdict
    assert verdict and verdict.relation == "same" and verdict.pending == ()


@pytest.mark.parametrize(
    ("revisions", "pending"),
    [
        ((MERGED,), [HEAD]),
        ((SALARY, REMINDERS), [MERGED, HEAD]),
        ((SALARY,), [REMINDERS, MERGED, HEAD]),
        ((DOCUMENTS,), None),
    ],
)
def test_a_backup_behind_this_code_names_what_is_pending(
    app: SmallApp, revisions: tuple[str, ...], pending: list[str] | None
) -> None:
    verdict = plan_from(app, *revisions).verdict
    assert verdict and verdict.relation == "behind"
    found = [migration.revision for migration in verdict.pending]
    if pending is None:
        assert found[-2:] == [MERGED, HEAD] and set(found[:2]) == {SALARY, REMINDERS}
    else:
        assert found == pending
    assert all(migration.title for migration in verdict.pending)


def test_the_commands_printed_for_a_backup_behind_bring_it_to_this_code(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    create_backup(app.settings, BackupRequest("old"))
    app.at_revision(HEAD)
    here = {"BACKUP_RUNNER_IN_USE": "local", "BACKUP_APP_DIR": str(app.folder), "PYTHONPATH": str(BACKEND)}
    result = app.command("restore", "old", "--force", env=here)
    assert result.code == 0
    assert "Schema mismatch: the database is 4 migrations behind" in result.out
    assert app.revisions() == {DOCUMENTS}
    assert result.out.index("correct it first") < result.out.index("Bring it to this code")
    lines = [line.strip() for line in result.out.splitlines() if line.startswith("    cd ")]
    assert [line.rpartition("alembic ")[2] for line in lines] == [f"stamp {DOCUMENTS}", "upgrade head"]
    for line in lines:
        subprocess.run(line, shell=True, check=True, capture_output=True, env={**os.environ, **here})
    assert app.revisions() == {HEAD}


def test_in_a_container_the_service_and_folder_in_use_are_named(app: SmallApp) -> None:
    app.at_revision(MERGED)
    create_backup(app.settings, BackupRequest("old"))
    environment = {"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker-compose", "BACKUP_SERVICE": "web"}
    result = app.command("restore", "old", "--force", env=environment)
    assert f'docker-compose exec web bash -c "cd {app.folder} && alembic stamp {MERGED}"' in result.out
    assert f'docker-compose exec web bash -c "cd {app.folder} && alembic upgrade head"' in result.out
    steps = [line.strip() for line in result.out.splitlines() if line.startswith("    ")]
    here = [number for number, line in enumerate(steps) if line == "./backup.sh migrate"]
    assert len(here) == 1 and "stamp" in steps[here[0] + 1] and "upgrade head" in steps[here[0] + 2]


def test_the_plan_of_a_restore_that_migrates_shows_the_revision_after_it(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    create_backup(app.settings, BackupRequest("old"))
    app.at_revision(HEAD)
    assert f"revision {HEAD} -> {DOCUMENTS}:" in app.command("restore", "old", "--dry-run", check=0).out
    looked = app.command("restore", "old", "--dry-run", "--migrate", check=0).out
    assert f"revision {HEAD} -> {HEAD}:" in looked and f"-> {DOCUMENTS}" not in looked
    document = app.command("restore", "old", "--dry-run", "--migrate", "--json", check=0).json
    assert document["revisions_after"] == [HEAD]


def test_one_command_brings_a_backup_behind_to_this_code(app: SmallApp) -> None:
    app.at_revision(DOCUMENTS)
    create_backup(app.settings, BackupRequest("old"))
    app.at_revision(HEAD)
    result = app.command("restore", "old", "--yes", env={"BACKUP_RUNNER_IN_USE": "local"}, check=0)
    assert "\n    python backup_restore.py migrate\n" in result.out
    assert ".backup-venv" not in result.out
    app.command("migrate", check=0)
    assert app.revisions() == {HEAD}


def test_an_unknown_revision_is_refused_and_the_commit_named(app: SmallApp) -> None:
    app.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    git = {"BACKUP_GIT_COMMIT": "0123456789abcdef", "BACKUP_GIT_SHORT": "0123456", "BACKUP_GIT_BRANCH": "feature/x"}
    assert app.command("auto-backup", env=git).code == 0
    (name,) = [backup["backup_name"] for backup in app.command("list", "--json").json]
    app.at_revision(HEAD)
    before = app.contents()
    for arguments in (("--dry-run",), ("--only", "database", "--dry-run")):
        result = app.command("restore", name, *arguments)
        assert result.code == 14
        assert "feedfacecafe" in result.err and "git checkout 0123456789abcdef" in result.err
    assert app.contents() == before
    with pytest.raises(SchemaMismatch):
        plan_restore(app.settings, name)
    assert app.command("restore", name, "--force").code == 0
    assert app.revisions() == {"feedfacecafe"}


def test_uploads_alone_need_no_known_revision(app: SmallApp) -> None:
    app.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    before = back_up(app)
    app.at_revision(HEAD)
    shutil.rmtree(app.uploads / "1")
    restore(app, only="uploads")
    assert app.contents().uploads == before.uploads
    assert app.revisions() == {HEAD}


def test_an_unversioned_backup_restores_and_leaves_stamping_to_the_user(app: SmallApp) -> None:
    app.forget_revision()
    back_up(app)
    app.at_revision(HEAD)
    result = app.command("restore", "good", "--force")
    assert result.code == 0
    assert "stamp THAT_REVISION" in result.out and "stamp head" not in result.out


def test_two_restores_at_once_do_not_mix(app: SmallApp) -> None:
    before = back_up(app)
    ruin(app)
    create_backup(app.settings, BackupRequest("ruined"))
    ruined = app.contents()
    for _ in range(4):
        commands = [
            subprocess.Popen(
                [sys.executable, "-c", RESTORE, str(app.folder), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for name in ("good", "ruined")
        ]
        ends = [command.communicate()[0] or command.returncode for command in commands]
        assert ends
        assert app.contents() in (before, ruined)
        assert_nothing_is_left(app)


RESTORE = """
import sys
from pathlib import Path
sys.path.insert(0, {backend!r})
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.config.settings import Settings
folder = Path(sys.argv[1])
settings = Settings(app_dir=folder, lock_timeout=30)
restore_backup(settings, plan_restore(settings, sys.argv[2]))
""".format(backend=str(Path(__file__).parents[2] / "backend"))


def test_a_live_database_in_this_very_process_keeps_its_locks(app: SmallApp) -> None:
    back_up(app)
    app.add_rows(1)
    with closing(app.connect()) as ours:
        ours.isolation_level = None
        ours.execute("BEGIN IMMEDIATE")
        ours.execute("INSERT INTO companies (name) VALUES ('uncommitted')")
        with pytest.raises(SourceUnreadable):
            restore(app.quick())
        script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run([sys.executable, "-c", script, str(app.database)], capture_output=True)
        assert b"database is locked" in other.stderr
        ours.execute("COMMIT")
    assert ("uncommitted",) in [row[1:2] for row in app.rows("companies")]


def test_the_restored_file_is_sound_to_the_sqlite_of_another_process(app: SmallApp) -> None:
    back_up(app)
    ruin(app)
    restore(app)
    with closing(sqlite3.connect(app.database)) as live:
        assert live.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Journal mode


def mode_of(app: SmallApp) -> str:
    with closing(app.connect()) as live:
        return str(live.execute("PRAGMA journal_mode").fetchone()[0])


def made_by_hand(app: SmallApp, journal_mode: str) -> None:
    """Make the backup `by_hand` in the documented form: seven fields, no checksums, and a file copied by a person."""
    app.execute(f"PRAGMA journal_mode={journal_mode}")
    folder = app.backups / "by_hand"
    folder.mkdir()
    shutil.copyfile(app.database, folder / "pats.db")
    assert (folder / "pats.db").read_bytes()[18] == (2 if journal_mode == "wal" else 1)
    fields = {
        "backup_name": "by_hand",
        "timestamp": "20241201_120000",
        "created_at": "2024-12-01T12:00:00+00:00",
        "alembic_revision": HEAD,
        "database_file": "pats.db",
        "uploads_included": False,
        "backup_version": "1.0",
    }
    (folder / "backup_metadata.json").write_text(json.dumps(fields))


@pytest.mark.parametrize("made", ["wal", "delete"])
@pytest.mark.parametrize("live", ["wal", "delete"])
def test_a_live_database_keeps_its_journal_mode_whatever_the_backup_says(app: SmallApp, live: str, made: str) -> None:
    made_by_hand(app, made)
    before = app.rows("companies")
    app.add_rows(1)
    app.execute(f"PRAGMA journal_mode={live}")
    restore(app, "by_hand")
    assert app.rows("companies") == before
    assert mode_of(app) == live


@pytest.mark.parametrize("made", ["wal", "delete"])
def test_where_no_live_database_is_left_the_mode_is_the_backups(app: SmallApp, made: str) -> None:
    made_by_hand(app, made)
    before = app.rows("companies")
    for path in app.database.parent.iterdir():
        path.unlink()
    restore(app, "by_hand")
    assert app.rows("companies") == before
    assert mode_of(app) == made


# When undo can work, and when it cannot


def breaking(app: SmallApp, how: str) -> None:
    for path in app.database.parent.glob("pats.db*"):
        path.unlink()
    if how != "missing":
        app.database.write_bytes(b"" if how == "empty" else b"noise " * 1000)


@pytest.mark.parametrize("how", ["broken", "empty", "missing"])
def test_undo_is_not_promised_over_a_database_that_is_broken_or_missing(app: SmallApp, how: str) -> None:
    before = back_up(app)
    breaking(app, how)
    planned = app.command("restore", "good", "--dry-run", check=0).out
    assert "cannot be undone" in planned and "undo` takes" not in planned
    assert app.command("restore", "good", "--dry-run", "--json").json["can_undo"] is False
    done = app.command("restore", "good", "--force", "--json", check=0).json
    assert done["can_undo"] is False
    kept = app.backups / done["safety"] / "pats.db"
    assert done["kept"] == ([str(kept)] if how != "missing" else [])
    assert app.contents() == before
    refusal = app.command("undo", "--force", check=12)
    assert done["safety"] in refusal.err and "cannot be taken back" in refusal.err
    assert app.contents() == before


def test_the_result_names_the_raw_files_in_place_of_undo(app: SmallApp) -> None:
    back_up(app)
    breaking(app, "broken")
    said = app.command("restore", "good", "--force", check=0)
    (safety,) = app.backups.glob("pre_restore_*")
    assert f"the broken database, as files: {safety / 'pats.db'}; this restore cannot be undone" in said.out
    assert "take the restore back" not in said.out


@pytest.mark.parametrize("part", ["uploads", "database"])
def test_undo_takes_back_the_half_that_was_restored(app: SmallApp, part: str) -> None:
    back_up(app)
    ruin(app)
    ruined = app.contents()
    app.command("restore", "good", "--force", "--only", part, check=0)
    app.execute("INSERT INTO companies (name) VALUES ('since')")
    app.write_upload("since", b"x")
    since = app.contents()
    app.command("undo", "--force", check=0)
    after = app.contents()
    if part == "uploads":
        assert after.rows == since.rows and after.uploads == ruined.uploads
    else:
        assert after.rows == ruined.rows and after.uploads == since.uploads


def test_a_restore_of_the_uploads_alone_can_be_undone_beside_a_broken_database(app: SmallApp) -> None:
    back_up(app)
    app.write_upload("1/letter.txt", b"later")
    breaking(app, "broken")
    done = app.command("restore", "good", "--force", "--only", "uploads", "--json", check=0).json
    assert done["can_undo"] is True
    app.command("undo", "--force", check=0)
    assert (app.uploads / "1" / "letter.txt").read_bytes() == b"later"
    assert app.database.read_bytes().startswith(b"noise")
