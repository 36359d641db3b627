"""`salvage` makes an ordinary backup of what is left of a broken database, and says what to restore."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.repository import store
from backupkit.sqlite import database
from backupkit.sqlite.page_file import TABLE_LEAF
from small_app import HEAD, NOON, SmallApp

ROWS = 300
LATER = 50


@pytest.fixture
def broken(app: SmallApp) -> SmallApp:
    """A live database with rows that no backup has, and one page of companies overwritten by zeros."""
    app.add_rows(ROWS)
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    app.add_rows(LATER)
    app.write_upload("new.txt", b"of today")
    damage(app, page_with(app, b"Company 2"))
    return app


def page_with(app: SmallApp, text: bytes) -> int:
    """Return the offset of the first leaf page of a table that contains the text."""
    with contextlib.closing(app.connect()) as live:
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = app.database.read_bytes()
    size = int.from_bytes(data[16:18], "big")
    return next(at for at in range(size, len(data), size) if data[at] == TABLE_LEAF and text in data[at : at + size])


def damage(app: SmallApp, place: int, size: int = 4096) -> None:
    data = bytearray(app.database.read_bytes())
    data[place : place + size] = bytes(size)
    app.database.write_bytes(data)


def rows_of(database: Path, table: str) -> set[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?immutable=1", uri=True)) as connection:
        return set(connection.execute(f"SELECT * FROM {table}"))


def files_of(app: SmallApp) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in app.database.parent.iterdir()}


def test_rows_since_the_last_backup_come_back_by_the_ordinary_restore(broken: SmallApp) -> None:
    assert broken.command("backup", "impossible").code == 13
    before = files_of(broken)
    done = broken.command("salvage", "--json", check=3).json
    assert files_of(broken) == before  # the live database is only read
    companies = next(one for one in done["tables"] if one["name"] == "companies")
    assert companies["new"] == LATER and companies["missing"] > 0 and companies["lost_pages"] == 1
    assert companies["found"] == ROWS + 3 + LATER - companies["missing"]
    assert done["compared_with"] == "good" and done["backup"]["kind"] == "salvaged"
    name = done["backup"]["backup_name"]
    broken.command("verify", name, check=0)
    broken.command("restore", name, "--force")
    assert len(broken.rows("companies")) == companies["found"]
    assert (broken.uploads / "new.txt").read_bytes() == b"of today"
    assert {path.name for path in broken.backups.iterdir() if path.name.startswith(".draft")} == set()


def test_fewer_rows_than_the_last_backup_has_are_never_recommended(broken: SmallApp) -> None:
    damage(broken, 4096, broken.database.stat().st_size - 8192)
    done = broken.command("salvage", "--json", check=3).json
    assert done["recommended"] == "good" and done["advice"].startswith("Fewer rows came back than good holds")
    shown = broken.command("salvage", check=3)
    assert "restore good" in shown.out and "cannot be read" in shown.err


def test_more_rows_than_the_last_backup_has_are_recommended(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    app.add_rows(ROWS)
    damage(app, page_with(app, b"Company 2"))
    done = app.command("salvage", "--json", check=3).json
    assert done["recommended"] == done["backup"]["backup_name"] and "came since good" in done["advice"]


def test_a_table_that_lost_its_rows_is_not_outweighed_by_one_that_grew(app: SmallApp) -> None:
    app.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT)")
    app.add_rows(300)
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    with contextlib.closing(app.connect()) as live, live:
        live.executemany("INSERT INTO log (text) VALUES (?)", ((f"line {number}",) for number in range(3000)))
    damage(app, page_with(app, b"Company 2"))
    done = app.command("salvage", "--json", check=3).json
    assert done["recommended"] == "good" and "companies" in done["advice"]
    assert f"Only {done['backup']['backup_name']} has the " in done["advice"]


def test_rows_of_a_table_that_no_backup_has_count_as_new(broken: SmallApp) -> None:
    broken.execute("CREATE TABLE fresh (id INTEGER PRIMARY KEY, text TEXT)")
    with contextlib.closing(broken.connect()) as live, live:
        live.executemany("INSERT INTO fresh (text) VALUES (?)", ((f"line {number}",) for number in range(500)))
    done = broken.command("salvage", "--json", check=3).json
    fresh = next(one for one in done["tables"] if one["name"] == "fresh")
    assert (fresh["found"], fresh["in_backup"], fresh["new"]) == (500, None, 500)
    applications = next(one["new"] for one in done["tables"] if one["name"] == "applications")
    assert f"the {500 + applications + LATER} newer rows" in done["advice"]


def test_rows_that_have_mostly_other_values_are_warned_of(app: SmallApp) -> None:
    app.add_rows(ROWS)
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    app.execute("UPDATE companies SET name = 'xxxx ' || id")
    done = app.command("salvage", check=3)
    assert "companies: " in done.err and "rows differ from the backup" in done.err and "No damage" not in done.err


def test_a_dry_run_keeps_nothing(broken: SmallApp) -> None:
    before = sorted(path.name for path in broken.backups.iterdir())
    done = broken.command("salvage", "--dry-run", "--json", check=3).json
    assert done["backup"] is None and sum(one["found"] for one in done["tables"]) > ROWS
    assert sorted(path.name for path in broken.backups.iterdir()) == before


def test_a_dry_run_warns_as_the_real_run_does(broken: SmallApp) -> None:
    plan, done = broken.command("salvage", "--dry-run", check=3), broken.command("salvage", check=3)
    warnings = [line for line in done.err.splitlines() if "cannot be read" in line]
    assert warnings and [line for line in plan.err.splitlines() if "cannot be read" in line] == warnings


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_sidecar_that_is_no_file_is_not_read(broken: SmallApp, kind: str) -> None:
    with contextlib.closing(broken.connect()) as live, contextlib.suppress(sqlite3.DatabaseError):
        live.execute("PRAGMA journal_mode=DELETE")
    wal = broken.database.with_name(broken.database.name + "-wal")
    secret = broken.database.parent / "secret"
    secret.write_bytes(b"secret")
    wal.unlink(missing_ok=True)
    os.mkfifo(wal) if kind == "pipe" else wal.symlink_to(secret)
    folder = broken.backups / "kept"
    folder.mkdir()
    assert database.keep_raw(broken.database, folder) == [broken.database.name]
    assert [path.name for path in folder.iterdir()] == [broken.database.name]
    folder.joinpath(broken.database.name).unlink()
    folder.rmdir()
    done = broken.command("salvage", check=3)
    assert f"{wal} is a link, or no file: it is left out." in " ".join(done.err.split())


def test_the_raw_files_in_a_safety_copy_can_be_salvaged_later(broken: SmallApp) -> None:
    broken.command("restore", "good", "--force")
    (safety,) = broken.backups.glob("pre_restore_*")
    assert not (broken.uploads / "new.txt").exists()
    done = broken.command("salvage", safety.name, "--json", check=3).json
    assert next(one for one in done["tables"] if one["name"] == "companies")["new"] == LATER
    broken.command("restore", done["backup"]["backup_name"], "--force")
    assert (broken.uploads / "new.txt").read_bytes() == b"of today"  # the uploads of the safety copy


def test_a_file_anywhere_is_read_without_its_uploads(broken: SmallApp, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.sqlite"
    file.write_bytes(broken.database.read_bytes())
    done = broken.command("salvage", str(file), "--json", check=3).json
    assert done["source"] == str(file) and done["backup"]["uploads_included"] is False


@pytest.mark.parametrize("place", ["data/pats.db", "link.db"])
def test_the_live_database_is_read_with_its_uploads_however_it_is_named(broken: SmallApp, place: str) -> None:
    named = broken.folder / place
    if place == "link.db":
        named.symlink_to(broken.database)
    done = broken.command("salvage", str(named), "--json", check=3).json
    assert done["source"] == str(broken.database) and done["backup"]["uploads_included"] is True
    assert not any("uploads" in warning for warning in done["warnings"])


@pytest.mark.parametrize("named", ["elsewhere.sqlite", None], ids=["a file", "live"])
def test_a_database_of_which_only_the_wal_is_left_is_read(app: SmallApp, tmp_path: Path, named: str | None) -> None:
    file = tmp_path / named if named else app.database
    app.add_rows(ROWS)
    with contextlib.closing(app.connect()) as live:
        live.execute("PRAGMA wal_autocheckpoint=0")
        live.execute("VACUUM")  # every page is in the WAL then
        wal = app.database.with_name("pats.db-wal").read_bytes()
    app.database.unlink()
    file.with_name(f"{file.name}-wal").write_bytes(wal)
    done = app.command("salvage", *([str(file)] if named else []), "--json", check=None).json
    assert done["source"] == str(file)
    assert next(one["found"] for one in done["tables"] if one["name"] == "companies") == ROWS + 3


def test_a_table_that_the_app_itself_calls_lost_and_found_is_an_ordinary_one(app: SmallApp, tmp_path: Path) -> None:
    file = tmp_path / "office.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as office, office:
        office.execute("CREATE TABLE lost_and_found (id INTEGER PRIMARY KEY, thing TEXT)")
        office.executemany("INSERT INTO lost_and_found (thing) VALUES (?)", (("umbrella " * 9,) for _ in range(ROWS)))
    file.write_bytes(file.read_bytes()[:-4096])
    done = app.command("salvage", str(file), "--json", check=3).json
    assert done["recommended"] == done["backup"]["backup_name"] and "definitions" not in done["advice"]


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + bytes(5000), b"no database" * 999], ids=len)
def test_nothing_to_read_is_an_error_and_leaves_nothing(app: SmallApp, content: bytes) -> None:
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    for path in app.database.parent.iterdir():
        path.unlink()
    app.database.write_bytes(content)
    done = app.command("salvage", "--json", check=13).json
    assert str(app.database) in done["error"]["message"] and done["error"]["next"]
    assert [path.name for path in app.backups.iterdir() if not path.name.startswith(".")] == ["good"]


@pytest.mark.parametrize(("file", "code"), [("missing.db", 10), ("../x/missing.db", 10), ("/proc", 2), ("", 2)])
def test_a_file_that_is_none_is_refused(app: SmallApp, file: str, code: int) -> None:
    app.command("salvage", file, check=code)


def test_without_a_backup_the_rows_come_back_all_the_same(app: SmallApp) -> None:
    app.add_rows(ROWS)
    damage(app, page_with(app, b"Company 2"))
    done = app.command("salvage", "--json", check=3).json
    assert done["compared_with"] is None and done["recommended"] == done["backup"]["backup_name"]
    assert app.command("salvage", check=3).out.count("Salvaged") == 1


def test_a_sound_database_is_said_to_be_one(app: SmallApp) -> None:
    done = app.command("salvage", check=0)
    assert "No damage was found" in done.err
    assert "nothing needs to be restored" in done.out and " restore " not in done.out
    (made,) = app.backups.glob("salvaged_*")
    assert rows_of(made / "pats.db", "companies") == set(app.rows("companies"))


def test_rows_that_were_deleted_are_no_reason_to_restore_over_a_sound_database(app: SmallApp) -> None:
    app.add_rows(20)
    create_backup(app.settings, BackupRequest("good"), clock=lambda: NOON)
    app.execute("DELETE FROM companies WHERE id > 5")
    done = app.command("salvage", "--json", check=0).json
    assert (done["recommended"], done["compared_with"]) == (None, "good")
    assert "nothing needs to be restored" in done["advice"]


def test_an_index_that_lost_an_entry_is_damage_though_no_row_is_lost(app: SmallApp) -> None:
    app.add_rows(5)
    with contextlib.closing(app.connect()) as live:
        live.execute("CREATE INDEX by_name ON companies (name)")
        live.commit()
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = live.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_name'").fetchone()
    data = bytearray(app.database.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    place = data.index(b"Company 3", (root - 1) * size)
    data[place : place + 9] = b"Xompany 3"
    app.database.write_bytes(data)
    done = app.command("salvage", check=3)
    assert "SQLite's own check finds damage that cost no row: row " in done.err
    assert "No damage" not in done.err
    (made,) = app.backups.glob("salvaged_*")
    assert rows_of(made / "pats.db", "companies") == set(app.rows("companies"))


def test_what_was_salvaged_is_kept_and_stands_in_for_no_backup(broken: SmallApp) -> None:
    broken.command("salvage", check=3)
    settings = broken.settings
    assert store.latest(settings).backup.name == "good"
    assert "made by salvage" in store.latest(settings).passed_over
    made = store.all_backups(settings)[0]
    assert made.kind == "salvaged" and made.unusual == ()
    assert broken.command("backup", "--if-needed").code == 13  # it does not count as today's backup
    verdicts = broken.command("prune", "--dry-run", "--json").json["verdicts"]
    assert "salvaged" in verdicts[0]["reasons"] and verdicts[0]["keep"]


def test_it_reads_while_the_app_has_the_database_open(broken: SmallApp) -> None:
    """The app's transaction goes on, and its uncommitted changes are not salvaged."""
    with contextlib.closing(broken.connect()) as live:
        live.execute("BEGIN IMMEDIATE")
        live.execute("UPDATE alembic_version SET version_num = 'under way'")
        done = broken.command("salvage", "--json", check=3).json
        live.execute("COMMIT")
    assert done["backup"]["alembic_revision"] == HEAD and broken.revisions() == {"under way"}
