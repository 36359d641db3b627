"""The scenarios: which command is hit, and in which world. Those whose command does not exist are left out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable

from lab import STAGING, TWO_THREADS, Event, Ran, Scenario, World, run

import backup_restore
from backupkit.rewind.take import Rewinder
from several import change_all, extend
from small_app import HEAD, INITIAL, SmallApp


def _two_backups_and_changes(app: SmallApp) -> None:
    """Make backups `first` and `second`; then add, change and remove rows and uploads, and leave a hot WAL."""
    for path in ("lost/one.txt", "lost/in/here.txt"):
        app.write_upload(path, b"is lost")
    _say(app, "backup", "first")
    app.add_rows(1)
    app.write_upload("deep/er/kept.bin", bytes(range(256)))
    _say(app, "backup", "second")
    _use(app)
    app.use_and_crash(3)


def _use(app: SmallApp) -> None:
    """Make each kind of change: add, alter, remove, change a mode, replace a folder by a file, retarget a link."""
    app.execute("CREATE TABLE extra (id INTEGER PRIMARY KEY, body BLOB)")
    app.execute("DELETE FROM companies WHERE id = 1")
    app.write_upload("1/letter.txt", b"altered")
    app.write_upload("new/one.txt", b"new")
    shutil.rmtree(app.uploads / "2")
    app.write_upload("2", b"a file where a folder was")
    (app.uploads / "deep").chmod(0o750)
    (app.uploads / "latest").unlink()
    (app.uploads / "latest").symlink_to("1/letter.txt")
    (app.uploads / "empty").rmdir()
    shutil.rmtree(app.uploads / "lost", ignore_errors=True)


def _say(app: SmallApp, *argv: str) -> Ran:
    """Run a command that prepares the world; it must succeed."""
    ran = run(World(app.folder.parent), argv)
    assert ran.code == 0, f"{argv} ended with {ran.code}: {ran.err}"
    return ran


def _a_dump(app: SmallApp) -> None:
    _say(app, "dump", "earlier.sql")
    _two_backups_and_changes(app)


def _an_archive(app: SmallApp) -> None:
    """Export a backup and delete it, so that only its archive is left."""
    _say(app, "backup", "gone")
    _say(app, "export", "gone", "earlier.tar.zst")
    _say(app, "delete", "gone", "--yes")
    _two_backups_and_changes(app)


def _restored(app: SmallApp) -> None:
    _two_backups_and_changes(app)
    _say(app, "restore", "second", "--force")


def _rollback_journal(app: SmallApp) -> None:
    _two_backups_and_changes(app)
    app.execute("PRAGMA journal_mode=DELETE")


def _changes_at_the_top(app: SmallApp) -> None:
    """Alter a file at the top too: an extraction changes the mtime of its folder, which is not compared for the top."""
    app.write_upload("top.txt", b"as it was")
    _two_backups_and_changes(app)
    app.write_upload("top.txt", b"altered")


def _excluded(app: SmallApp) -> None:
    """Exclude by pattern, by a marked folder, and by one marked only for the backups: none of it may be touched."""
    (app.folder / "backup.toml").write_text('exclude = ["*.tmp"]\nexclude_marked = [".nobackup"]\n')
    for path in ("cache/.nobackup", "cache/inner.cached/one.cached", "was/.nobackup", "was/marked.bin", "1/draft.tmp"):
        app.write_upload(path, b"as it was")
    _two_backups_and_changes(app)
    (app.uploads / "was" / ".nobackup").unlink()
    for path in ("cache/inner.cached/one.cached", "cache/two.cached", "was/marked.bin", "1/draft.tmp", "1/other.tmp"):
        app.write_upload(path, b"altered")


def _rows_and_their_uploads_lost(app: SmallApp) -> None:
    """Lose a document and its file, which is at the top for the reason given in `_changes_at_the_top`."""
    (app.folder / "backup.toml").write_text('[references]\n"documents.path" = "uploads/{value}"\n')
    app.add_document(1, app.write_upload("top.txt", b"as it was"))
    _two_backups_and_changes(app)
    app.execute("DELETE FROM documents WHERE path = 'top.txt'")
    (app.uploads / "top.txt").unlink()


def _missing(app: SmallApp) -> None:
    _two_backups_and_changes(app)
    for path in app.database.parent.iterdir():
        path.unlink()


def _corrupt(app: SmallApp) -> None:
    """Overwrite the live database with noise, and leave its WAL beside it."""
    _two_backups_and_changes(app)
    app.database.write_bytes(b"noise " * 4000)


def _one_page_lost(app: SmallApp) -> None:
    """Fill a page in the middle of the live database with zeros."""
    _two_backups_and_changes(app)
    app.add_rows(200)
    with contextlib.closing(app.connect()) as live:
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = live.execute("SELECT rootpage FROM sqlite_master WHERE name = 'companies'").fetchone()[0]
    with app.database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(4096))


def _interrupted(app: SmallApp) -> None:
    """Kill a restore in the middle of the uploads."""
    _two_backups_and_changes(app)
    seen = _second_out_of_staging()

    def at(_count: int, event: Event) -> None:
        if seen(event):
            os.kill(os.getpid(), signal.SIGKILL)

    ran = run(World(app.folder.parent), ("restore", "first", "--force"), at=at)
    assert ran.code == -signal.SIGKILL, ran.err


def _second_out_of_staging() -> Callable[[Event], bool]:
    """Return a predicate that is true at the second upload that is renamed into its place."""
    count = 0

    def is_it(event: Event) -> bool:
        nonlocal count
        name, arguments = event
        count += name == "os.rename" and _is_staging(arguments[2])
        return count == 2

    return is_it


def _is_staging(handle: int) -> bool:
    """Return whether the open folder is that of the staged uploads."""
    return handle >= 0 and os.readlink(f"/proc/self/fd/{handle}").endswith(f"uploads/{STAGING}/uploads")


def _behind(app: SmallApp) -> None:
    """Make the live database two years old: this code's migrations have not run on it."""
    _two_backups_and_changes(app)
    app.at_revision(INITIAL)
    app.use_and_crash(3)


def _backup_is_behind(app: SmallApp) -> None:
    app.at_revision(INITIAL)
    _say(app, "backup", "old")
    app.at_revision(HEAD)
    app.write_upload("new/one.txt", b"new")
    app.use_and_crash(3)


def _several(app: SmallApp) -> None:
    """Make a backup of three databases and two trees, then change all of them."""
    several = extend(app)
    app.write_upload("deep/er/kept.bin", bytes(range(256)))
    _say(app, "backup", "first")
    change_all(several)
    _use(app)
    app.use_and_crash(3)


def _with_points(app: SmallApp) -> None:
    """Take two rewind points after a backup, then make changes that no point has."""
    _say(app, "backup", "first")
    rewinder = Rewinder(app.settings.replaced(rewind="7d", rewind_interval=3600))
    for number in range(2):
        app.add_rows(1)
        app.write_upload(f"deep/er/kept{number}.bin", bytes(range(256)))
        assert rewinder.look() == "taken"
    _use(app)
    app.use_and_crash(3)


def _second_database_begins() -> Callable[[Event], bool]:
    """Return a predicate that is true when the journal is written that says that the second database is done."""
    count = 0

    def is_it(event: Event) -> bool:
        nonlocal count
        name, arguments = event
        count += name == "os.rename" and str(arguments[1]).endswith(".journal")
        return count == 3

    return is_it


def _nothing_yet(app: SmallApp) -> None:
    app.use_and_crash(3)


def _many_backups(app: SmallApp) -> None:
    """Make six backups on one day, one of them pinned, and marks of a backup that is gone."""
    for number in range(6):
        _say(app, "auto-backup", *(["--pin"] if number == 2 else []))
        app.add_rows(1)
    for mark in ("pinned", "accepted"):
        (app.backups / ".state" / mark).mkdir(exist_ok=True)
        (app.backups / ".state" / mark / "gone").touch()


def _small(app: SmallApp) -> None:
    """Make a database of a few pages without migrations, six uploads, a backup, later changes, and a hot WAL."""
    _tiny(app)
    app.use_and_crash(2)


def _small_rollback(app: SmallApp) -> None:
    _tiny(app)
    app.execute("PRAGMA journal_mode=DELETE")
    app.execute("INSERT INTO companies (name) VALUES ('later')")


def _tiny(app: SmallApp) -> None:
    for path in (*app.database.parent.iterdir(), app.folder / "alembic.ini"):
        path.unlink()
    shutil.rmtree(app.folder / "alembic")
    app.execute("PRAGMA journal_mode=WAL")
    app.execute("CREATE TABLE companies (id INTEGER PRIMARY KEY, name TEXT)")
    app.execute("INSERT INTO companies (name) VALUES ('first')")
    app.write_upload("old.txt", b"goes away")
    app.write_upload("2/more.txt", b"stays")
    app.write_upload("lost/one.txt", b"is lost")
    _say(app, "backup", "first")
    app.execute("INSERT INTO companies (name) VALUES ('second')")
    app.write_upload("1/letter.txt", b"altered")
    app.write_upload("new/one.txt", b"new")
    (app.uploads / "old.txt").unlink()
    shutil.rmtree(app.uploads / "lost")
    (app.uploads / "2" / "more.txt").chmod(0o600)


KEEP = ("BACKUP_KEEP_LAST", "BACKUP_KEEP_DAILY", "BACKUP_KEEP_WEEKLY", "BACKUP_KEEP_MONTHLY", "BACKUP_MIN_KEEP")
RESTORE = ("restore", "first", "--force")
EXTRACT = ("extract", "second", "top.txt", "/2/", "latest", "empty/", "--yes")
ALL = (
    Scenario("backup", ("backup", "one"), _nothing_yet),
    Scenario("backup-over-earlier", ("backup", "third", "--pin"), _two_backups_and_changes),
    Scenario("backup-two-threads", ("backup", "third"), _two_backups_and_changes, environment={TWO_THREADS: "1"}),
    Scenario("restore", RESTORE, _two_backups_and_changes, safety=True),
    Scenario("restore-two-threads", RESTORE, _two_backups_and_changes, safety=True, environment={TWO_THREADS: "1"}),
    Scenario("restore-rollback-journal", RESTORE, _rollback_journal, safety=True),
    Scenario("restore-database", (*RESTORE, "--only", "database"), _two_backups_and_changes, safety=True),
    Scenario("restore-uploads", (*RESTORE, "--only", "uploads"), _two_backups_and_changes, safety=True),
    Scenario("restore-excluded", RESTORE, _excluded, safety=True, left_out=(".tmp", "cache", ".nobackup", ".cached")),
    Scenario("restore-at", ("restore", "--at", "0 seconds ago", "--force"), _with_points, safety=True),
    Scenario("extract", EXTRACT, _changes_at_the_top, safety=True),
    Scenario("backup-several", ("backup", "third"), _several),
    Scenario("restore-several", RESTORE, _several, safety=True),
    Scenario("restore-several-going-back", RESTORE, _several, fails_at=_second_database_begins),
    Scenario("restore-missing", RESTORE, _missing, safety=True),
    Scenario("restore-corrupt", RESTORE, _corrupt, safety=True),
    Scenario("restore-going-back", RESTORE, _two_backups_and_changes, fails_at=_second_out_of_staging),
    Scenario("restore-dump", ("restore-dump", "earlier.sql", "--force"), _a_dump, safety=True),
    Scenario("rescue", ("rescue", "first", "companies", "--missing", "--force"), _two_backups_and_changes, safety=True),
    Scenario(
        "rescue-uploads",
        ("rescue", "first", "documents", "--missing", "--force"),
        _rows_and_their_uploads_lost,
        safety=True,
        uploads_first=True,
    ),
    Scenario("undo", ("undo", "--force"), _restored, safety=True),
    Scenario("dump", ("dump", "x.sql"), _two_backups_and_changes),
    Scenario("dump-compressed", ("dump", "x.sql.gz"), _two_backups_and_changes),
    Scenario("salvage", ("salvage",), _one_page_lost),
    Scenario("recover", ("recover",), _interrupted, only_new=True),
    Scenario("migrate", ("migrate",), _behind, safety=True),
    Scenario("restore-migrate", ("restore", "old", "--force", "--migrate"), _backup_is_behind, safety=True),
    Scenario("delete", ("delete", "first", "--yes"), _two_backups_and_changes, removes=1),
    Scenario("verify", ("verify", "--all"), _two_backups_and_changes),
    Scenario("verify-test-restore", ("verify", "old", "--test-restore"), _backup_is_behind),
    Scenario("export", ("export", "first", "x.tar.zst"), _two_backups_and_changes),
    Scenario("import", ("import", "earlier.tar.zst"), _an_archive),
    Scenario("prune", ("prune",), _many_backups, environment=dict.fromkeys(KEEP, "1"), removes=4),
)

SMALL = (
    Scenario("small-backup", ("backup", "one"), _small),
    Scenario("small-backup-rollback", ("backup", "one"), _small_rollback),
    Scenario("small-restore", RESTORE, _small, safety=True),
    Scenario("small-restore-rollback", RESTORE, _small_rollback, safety=True),
)
DISKS = ("app/data", "app/uploads", "app/backups", "app/uploads/1")
MOUNTED = (
    Scenario("mounted-backup", ("backup", "one"), _two_backups_and_changes, disks=DISKS),
    Scenario("mounted-restore", RESTORE, _two_backups_and_changes, safety=True, disks=DISKS),
    Scenario("mounted-undo", ("undo", "--force"), _restored, safety=True, disks=DISKS),
)
AVAILABLE = {
    command.name or getattr(command.callback, "__name__", "") for command in backup_restore.app.registered_commands
}
SCENARIOS = tuple(one for one in ALL if one.command in AVAILABLE)
FURTHER = tuple(one for one in SCENARIOS if one.name in ("restore-several", "extract", "rescue"))
