"""One wrong byte anywhere: every command ends with a result or one of our errors, and other backups are judged right.

The flips are a sample (see `chance`); `BACKUP_TESTS_SHARE=100` asks for 5,000 of each kind.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import chance
from backupkit.archive.encryption import Recipients
from backupkit.archive.export import export_to
from backupkit.backup.create import create_backup
from backupkit.backup.single_file import SingleFileConfig, create_single, restore_single
from backupkit.backup.sql_dump import dump_to
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import BackupError
from backupkit.monitoring.doctor import examine
from backupkit.monitoring.status import status
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.retention.prune import plan_prune
from backupkit.verify import browse
from backupkit.verify.verify import Verified, verify_backups, verify_file
from refusals import run_here
from small_app import NOON, SmallApp

FLIPS = chance.share(50)
TABLES = ("notes", "keyed", "companies")
LONGEST = 30  # seconds; an action that takes longer counts as hanging
HEADER = 100


def fill(app: SmallApp) -> None:
    """Fill the database with objects of every kind; small pages make the schema a good part of the file."""
    with contextlib.closing(app.connect()) as live, live:
        live.execute("PRAGMA journal_mode=DELETE")
        live.executescript(
            """
            CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);
            CREATE INDEX notes_body ON notes(body);
            CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
            CREATE VIEW bodies AS SELECT body FROM notes;
            CREATE TRIGGER kept AFTER DELETE ON notes BEGIN INSERT INTO keyed VALUES(OLD.id, OLD.body); END;
            CREATE VIRTUAL TABLE words USING fts5(body);
            """
        )
        live.executemany("INSERT INTO notes(body) VALUES(?)", [("n" * length,) for length in range(0, 400, 37)])
        live.executemany("INSERT INTO keyed VALUES(?, ?)", [(str(number), number * 1.5) for number in range(9)])
        live.execute("INSERT INTO words SELECT body FROM notes")
    with contextlib.closing(app.connect()) as live:
        live.execute("PRAGMA page_size=512")
        live.execute("VACUUM")


@dataclass(frozen=True)
class Flip:
    """A byte to put at one place of a file."""

    file: str
    place: int
    byte: int

    def of(self, content: bytes) -> bytes:
        return content[: self.place] + bytes([self.byte]) + content[self.place + 1 :]


def flips(file: str, content: bytes, count: int) -> Iterator[Flip]:
    """Yield random flips: one in ten in the first 100 bytes, half of them of one bit."""
    choice = chance.chance(file)
    for _ in range(count):
        place = choice.randrange(HEADER if choice.random() < 0.1 else len(content))
        bit = content[place] ^ (1 << choice.randrange(8))
        yield Flip(file, place, bit if choice.random() < 0.5 else choice.randrange(256))


@contextlib.contextmanager
def limited(what: object) -> Iterator[None]:
    """Fail the block if it takes too long, with the flip and the seed in the message."""

    def fail(_number: int, _frame: object) -> None:
        raise AssertionError(f"{what} took more than {LONGEST} s; {chance.SEED}={chance.seed()}")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer(flip: Flip, act: Callable[[], object]) -> int:
    """Return the exit code that a command would have; fail the test on an error that is not ours."""
    try:
        with limited(flip):
            act()
    except BackupError as error:
        return int(error.code)
    except Exception as error:
        raise AssertionError(f"{flip} gave {error!r}; {chance.SEED}={chance.seed()}") from error
    return 0


def judged(flip: Flip, settings: Settings) -> dict[str, bool]:
    """Return whether each of the two backups is damaged, as `verify --all` finds."""
    done: list[Verified] = []
    assert answer(flip, lambda: done.extend(verify_backups(settings, store.all_backups(settings)))) == 0
    assert len(done) == 2, flip
    return {one.backup.name: bool(one.flaws) for one in done}


@pytest.fixture
def backed_up(app: SmallApp) -> SmallApp:
    """An app with the backup `good`."""
    fill(app)
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    print(f"{chance.SEED}={chance.seed()}")
    return app


def make_by_hand(app: SmallApp) -> Path:
    """Make a backup without checksums: only SQLite can tell what is wrong with its database."""
    folder = app.backups / "hand"
    folder.mkdir()
    shutil.copy(app.database, folder)
    facts = {
        "backup_name": "hand",
        "timestamp": "20260615_120000",
        "alembic_revision": None,
        "database_file": app.database.name,
        "uploads_included": False,
        "backup_version": "1.0",
    }
    (folder / "backup_metadata.json").write_text(json.dumps(facts))
    return folder


def test_a_flip_in_the_database_of_a_backup_has_an_answer_and_the_others_are_judged(backed_up: SmallApp) -> None:
    settings, sealed = backed_up.settings, make_by_hand(backed_up) / backed_up.database.name
    good = sealed.read_bytes()
    for flip in flips("hand", good, FLIPS):
        sealed.write_bytes(flip.of(good))
        assert judged(flip, settings).items() >= {("good", False)}, flip
        for look in (
            lambda: plan_restore(settings, "hand"),
            lambda: browse.tables(settings, "hand"),
            lambda: [browse.read_page(settings, "hand", table, 5) for table in TABLES],
            lambda: [browse.compare_table(settings, "hand", table, seconds=5) for table in TABLES],
        ):
            # 1: a column's name is not UTF-8; 10: a table has another name; 14: another revision
            assert answer(flip, look) in (0, 1, 10, 12, 14), flip
        assert answer(flip, lambda: verify_file(settings, sealed)) == 0
        assert answer(flip, lambda: export_to(settings, "hand", io.BytesIO(), "hand.tar", Recipients())) in (0, 12), (
            flip
        )


@pytest.mark.parametrize("file", ["backup_metadata.json", "SHA256SUMS", "pats.db"])
def test_a_flip_in_a_sealed_backup_is_found_and_has_an_answer(backed_up: SmallApp, file: str) -> None:
    settings = backed_up.settings
    sealed = shutil.copytree(backed_up.backups / "good", backed_up.backups / "sealed", symlinks=True) / file
    content = sealed.read_bytes()
    for flip in flips(file, content, FLIPS // 3):
        sealed.write_bytes(flip.of(content))
        assert judged(flip, settings) == {"good": False, "sealed": flip.of(content) != content}, flip
        for look in (
            lambda: status(settings),
            lambda: plan_prune(settings),
            lambda: examine(settings),
        ):
            assert answer(flip, look) == 0, flip
        assert answer(flip, lambda: plan_restore(settings, "sealed")) in (0, 2, 12), flip  # 2: another app's metadata


def assert_told(settings: Settings) -> None:
    """Make a backup, and assert that it reports whatever a full check finds in it."""
    told: list[object] = []
    made = create_backup(settings, BackupRequest("flipped"), told.append)
    with contextlib.closing(sqlite3.connect(made.backup.path / settings.database.name)) as copied:
        copied.text_factory = bytes
        (found,) = copied.execute("PRAGMA integrity_check").fetchone()
    is_told = made.warnings or any("breaks a CHECK" in str(event) for event in told)
    assert is_told or found == b"ok"


def test_a_flip_in_the_live_database_has_an_answer_and_a_good_backup_is_restored_over_it(backed_up: SmallApp) -> None:
    settings, before = backed_up.quick().settings, backed_up.contents()
    good = backed_up.database.read_bytes()
    for number, flip in enumerate(flips("live", good, FLIPS)):
        for left in backed_up.database.parent.iterdir():
            left.unlink()
        backed_up.database.write_bytes(flip.of(good))
        for look in (lambda: examine(settings), lambda: status(settings), lambda: plan_restore(settings, "good")):
            assert answer(flip, look) == 0, flip
        for read in (
            lambda: dump_to(settings, io.BytesIO()),
            lambda: assert_told(settings),
            lambda: [browse.compare_table(settings, "good", table, seconds=5) for table in TABLES],
        ):
            assert answer(flip, read) in (0, 1, 10, 13), flip
        assert answer(flip, lambda: restore_backup(settings, plan_restore(settings, "good"))) == 0, flip
        assert backed_up.contents() == before, flip
        with contextlib.closing(sqlite3.connect(backed_up.database)) as live:
            assert live.execute("PRAGMA integrity_check").fetchone() == ("ok",), (number, flip)
        for left in backed_up.backups.iterdir():
            if left.name == "flipped" or left.name.startswith("pre_restore"):
                shutil.rmtree(left)


def test_a_flip_has_an_answer_for_a_plain_database_too(backed_up: SmallApp, tmp_path: Path) -> None:
    good, before = backed_up.database.read_bytes(), backed_up.rows("notes")
    folder = tmp_path / "program"
    folder.mkdir()
    plain = SingleFileConfig(folder / "app.db", folder / "backups", folder / "settings.json", 5, None, 0.5)
    plain.database.write_bytes(good)
    sound = create_single(plain)
    backup = folder / "flipped.db"
    for flip in flips("plain", good, FLIPS // 2):
        for left in folder.glob("app.db*"):
            left.unlink()
        plain.database.write_bytes(flip.of(good))
        backup.write_bytes(flip.of(good))
        assert answer(flip, lambda: create_single(plain, clock=lambda: NOON)) in (0, 13), flip
        assert answer(flip, lambda: restore_single(plain, sound)) == 0, flip
        with contextlib.closing(sqlite3.connect(plain.database)) as live:
            assert sorted(live.execute("SELECT * FROM notes"), key=repr) == before, flip
        assert answer(flip, lambda: restore_single(plain, backup)) in (0, 2, 12), flip  # 2: another program's


COMMANDS = [
    ("list",),
    ("show", "hand"),
    ("verify", "hand"),
    ("verify", "--all"),
    ("restore", "hand", "--dry-run"),
    ("restore", "good", "--dry-run"),
    ("export", "hand", "hand.tar"),
    ("prune", "--dry-run"),
    ("status",),
    ("doctor",),
    ("dump", "text.sql"),
    ("backup", "another"),
    ("migrate",),
    ("restore", "hand", "--force"),
    ("restore", "good", "--force"),
    ("undo", "--force"),
]


@pytest.mark.parametrize("where", ["backup", "live"])
def test_no_command_ends_in_a_traceback(backed_up: SmallApp, where: str) -> None:
    sealed = make_by_hand(backed_up) / backed_up.database.name
    good = sealed.read_bytes()
    for flip in flips(where, good, max(4, FLIPS // 20)):
        for left in backed_up.database.parent.iterdir():
            left.unlink()
        backed_up.database.write_bytes(flip.of(good) if where == "live" else good)
        sealed.write_bytes(flip.of(good) if where == "backup" else good)
        for command in COMMANDS:
            with limited((flip, command)):
                result = run_here(backed_up, *command, env={"BACKUP_BUSY_TIMEOUT": "0.5"})
            assert "Traceback" not in result.err, (flip, chance.seed(), result.err)
            assert result.code in (0, 1, 2, 3, 10, 12, 13, 14), (flip, chance.seed(), result.err)
        for left in [*backed_up.backups.glob("pre_*"), backed_up.backups / "another"]:
            shutil.rmtree(left, ignore_errors=True)
        for file in ("text.sql", "hand.tar"):
            (backed_up.backups / file).unlink(missing_ok=True)


def test_a_byte_that_is_no_utf8_in_the_schema_is_damage_like_any_other(backed_up: SmallApp) -> None:
    before = backed_up.contents()
    content = bytearray(backed_up.database.read_bytes())
    content[content.index(b"CREATE TABLE notes") + 8] = 255
    backed_up.database.write_bytes(content)
    for command in (("backup", "one"), ("dump", "text.sql"), ("migrate",)):
        assert run_here(backed_up, *command, check=13).err.startswith("Error: The database"), command
    assert "\\xff" in run_here(backed_up, "doctor", check=1).out
    result = run_here(backed_up, "restore", "good", "--force", check=0)
    assert "kept as they are" in result.err
    assert backed_up.contents() == before


def test_a_row_that_breaks_a_check_is_backed_up_and_comes_back(app: SmallApp) -> None:
    """The check after a restore may write. It once found such a database unsound, so no backup of it was restorable."""
    with contextlib.closing(app.connect()) as live, live:
        live.execute("CREATE TABLE checked (number INTEGER CHECK (number > 0))")
        live.execute("PRAGMA ignore_check_constraints=ON")
        live.execute("INSERT INTO checked VALUES (-1)")
    assert "A row of the table checked breaks a CHECK" in run_here(app, "backup", "one", check=0).err
    app.execute("DELETE FROM checked")
    run_here(app, "restore", "one", "--force", check=0)
    assert app.rows("checked") == [(-1,)]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_schema_that_only_a_reader_can_read_is_damage(app: SmallApp, mode: str) -> None:
    """SQLite reads no CHECK constraint if it may not write, and then finds nothing wrong."""
    app.execute("CREATE TABLE checked (number INTEGER CHECK (number > 0))")
    app.execute("PRAGMA journal_mode=DELETE")
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    before, content = app.contents(), app.database.read_bytes()
    broken = content.replace(b"CHECK (number > 0)", b"CHECK (numb.r > 0)")
    sealed = make_by_hand(app) / app.database.name
    sealed.write_bytes(broken)
    refused = run_here(app, "restore", "hand", "--force", check=12)
    assert "no such column" in refused.err and app.contents() == before
    if mode == "wal":
        app.use_and_crash()  # with a WAL, the live database is opened read-only
        with contextlib.closing(app.connect()) as live:
            live.execute("PRAGMA wal_checkpoint")
            content = app.database.read_bytes()
            app.database.write_bytes(content.replace(b"CHECK (number > 0)", b"CHECK (numb.r > 0)"))
            assert "no such column" in run_here(app, "backup", "bad", check=13).err
    else:
        app.database.write_bytes(broken)
        assert "no such column" in run_here(app, "backup", "bad", check=13).err
    run_here(app, "restore", "good", "--force", check=0)
    assert app.contents() == before
