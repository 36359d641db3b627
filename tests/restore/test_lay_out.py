"""`restore --to` lays a backup out in a separate folder, whole or not at all; live data is neither read nor changed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backupkit.fs import disk
from others import USER, as_root, give, owners
from refusals import as_user, picture, refused, run_here
from small_app import DOCUMENTS, HEAD, SmallApp, tree


@pytest.fixture
def target(app: SmallApp) -> Path:
    return app.folder.parent / "look"


def back_up(app: SmallApp, name: str = "good", *options: str) -> None:
    app.use_and_crash(3)
    run_here(app, "backup", name, *options, check=0)


def rows(database: Path, table: str = "companies") -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as found:
        return sorted(found.execute(f"SELECT * FROM {table}"))


def beside(target: Path) -> list[str]:
    """Return the names in the target's parent that begin with the target's name, and every draft."""
    return sorted(name for name in os.listdir(target.parent) if name.startswith((target.name, ".draft")))


def test_an_empty_draft_that_a_kill_left_beside_a_finished_folder_is_cleared_when_it_is_typed_again(
    app: SmallApp,
) -> None:
    """A run removes its draft last, after the folder has got its name."""
    run_here(app, "backup", "good", check=0)
    target = app.folder.parent / "look"
    run_here(app, "restore", "good", "--to", str(target), check=0)
    draft = target.with_name(".draft-look")
    draft.mkdir()
    (draft / ".lock").touch()
    run_here(app, "restore", "good", "--to", str(target), "--dry-run", check=2)
    assert draft.exists()
    run_here(app, "restore", "good", "--to", str(target), check=2)
    assert not draft.exists() and (target / "data" / "pats.db").exists()


def test_database_and_uploads_lie_where_the_app_has_them(app: SmallApp, target: Path) -> None:
    back_up(app)
    wanted, uploads = app.rows("companies"), tree(app.uploads)
    done = app.command("restore", "good", "--to", str(target), check=0)
    assert rows(target / "data" / "pats.db") == wanted
    assert tree(target / "uploads") == uploads
    assert set(tree(target)) - {f"uploads/{path}" for path in uploads} <= {
        "data", "data/pats.db", "data/pats.db-wal", "data/pats.db-shm", "uploads"
    }  # fmt: skip
    assert (target.stat().st_mode & 0o777, beside(target)) == (0o700, ["look"])
    assert f"sqlite3 {target}/data/pats.db" in done.out
    assert f"BACKUP_DATABASE={target}/data/pats.db BACKUP_UPLOADS={target}/uploads" in done.out.splitlines()[-1]


def test_the_reference_app_and_this_toolkit_can_work_on_what_was_laid_out(app: SmallApp, target: Path) -> None:
    back_up(app)
    run_here(app, "restore", "good", "--to", str(target), check=0)
    places = {"BACKUP_DATABASE": str(target / "data" / "pats.db"), "BACKUP_UPLOADS": str(target / "uploads")}
    done = run_here(app, "restore", "good", "--dry-run", "--json", env=places, check=0)
    assert done.json["uploads"]["added"] == done.json["uploads"]["changed"] == done.json["uploads"]["removed"] == 0
    assert all(not any(one.values()) for one in done.json["live"]["changes"].values())


def test_nothing_live_is_looked_at_locked_or_changed(app: SmallApp, target: Path) -> None:
    back_up(app)
    wanted = app.rows("companies")
    app.database.write_bytes(b"noise " * 1000)
    shutil.rmtree(app.uploads)
    with contextlib.closing(sqlite3.connect(app.folder / "other.db")):
        before = picture(app)
        run_here(app, "restore", "good", "--to", str(target), check=0)
    assert rows(target / "data" / "pats.db") == wanted
    assert picture(app) == before


def test_it_waits_for_no_lock_of_the_database_and_of_the_backups(app: SmallApp, target: Path) -> None:
    from backupkit.repository import lock

    back_up(app)
    with contextlib.closing(app.connect()) as live, lock.held(app.backups, "a test", 0):
        live.execute("PRAGMA locking_mode=EXCLUSIVE")
        live.execute("BEGIN EXCLUSIVE")
        app.command("restore", "good", "--to", str(target), check=0)
    assert (target / "uploads").is_dir()


def test_it_makes_no_safety_copy_and_is_in_the_history(app: SmallApp, target: Path) -> None:
    back_up(app)
    run_here(app, "restore", "good", "--to", str(target), check=0)
    assert [path.name for path in app.backups.iterdir() if path.name[0] != "."] == ["good"]
    newest = run_here(app, "history", "--json", check=0).json[0]
    assert (newest["command"], newest["backups"], newest["note"]) == ("restore", ["good"], f"laid out in {target}")
    assert "no restore left a safety copy" in run_here(app, "undo", "--yes", check=10).err.lower()


def test_an_empty_folder_is_filled_and_keeps_its_mode(app: SmallApp, target: Path) -> None:
    back_up(app)
    target.mkdir()
    target.chmod(0o750)
    run_here(app, "restore", "good", "--to", str(target), check=0)
    assert target.stat().st_mode & 0o777 == 0o750
    assert (target / "data" / "pats.db").exists()


@pytest.mark.parametrize(("only", "there"), [("database", ["data"]), ("uploads", ["uploads"])])
def test_one_half_is_laid_out_alone(app: SmallApp, target: Path, only: str, there: list[str]) -> None:
    back_up(app)
    found = run_here(app, "restore", "good", "--only", only, "--to", str(target), "--json", check=0).json
    assert [path.name for path in target.iterdir()] == there
    assert [name for name in ("database", "uploads") if found[name]] == [only]


def test_a_dry_run_says_where_and_writes_nothing(app: SmallApp, target: Path) -> None:
    back_up(app)
    before = picture(app)
    found = run_here(app, "restore", "good", "--to", str(target), "--dry-run", "--json", check=0).json
    assert (found["database"], found["uploads"]) == (str(target / "data" / "pats.db"), str(target / "uploads"))
    assert str(target) in run_here(app, "restore", "good", "--to", str(target), "--dry-run", check=0).out
    assert (picture(app), beside(target)) == (before, [])


def test_data_outside_of_the_app_folder_get_usual_places(app: SmallApp, target: Path) -> None:
    elsewhere = app.folder.parent / "elsewhere"
    shutil.move(app.database.parent, elsewhere)
    shutil.move(app.uploads, app.folder.parent / "files")
    env = {"BACKUP_DATABASE": str(elsewhere / "pats.db"), "BACKUP_UPLOADS": str(app.folder.parent / "files")}
    run_here(app, "backup", "good", env=env, check=0)
    run_here(app, "restore", "good", "--to", str(target), env=env, check=0)
    assert (target / "data" / "pats.db").is_file() and (target / "uploads" / "1" / "letter.txt").is_file()


def test_a_backup_of_another_schema_is_laid_out_as_it_is(app: SmallApp, target: Path) -> None:
    app.at_revision(DOCUMENTS)
    back_up(app, "old")
    app.at_revision(HEAD)
    done = run_here(app, "restore", "old", "--to", str(target), "--json", check=0)
    assert rows(target / "data" / "pats.db", "alembic_version") == [(DOCUMENTS,)]
    assert done.json["verdict"]["relation"] == "behind"


# Choice of the backup


def test_latest_is_the_newest_that_was_made_until_that_time(app: SmallApp, target: Path) -> None:
    for name, day in (("first", "2026-01-01"), ("second", "2026-02-01"), ("third", "2026-03-01")):
        run_here(app, "backup", name, check=0)
        file = app.backups / name / "backup_metadata.json"
        facts = json.loads(file.read_text())
        file.write_text(json.dumps(facts | {"created_at": f"{day}T12:00:00+00:00"}))
    for at, name in (("2026-02-01T12:00", "second"), ("2026-02-01 11:59", "first"), ("2026-04-01", "third")):
        plan = ("restore", "latest", "--at", at, "--to", str(target), "--dry-run", "--json")
        assert run_here(app, *plan, check=0).json["source"] == name
    refused(app, "restore", "latest", "--at", "2025-01-01", "--yes", code=10, names="made until", hint="`list`")
    refused(app, "restore", "first", "--at", "2d", "--yes", code=2, names="--at", hint="restore --at TIME")
    refused(app, "restore", "latest", "--at", "soon", "--yes", code=2, names="soon", hint="2026")


# Bad input: nothing is written or left behind


def _not_empty(app: SmallApp, target: Path) -> Path:
    target.mkdir()
    (target / "something").touch()
    return target


def _a_file(app: SmallApp, target: Path) -> Path:
    target.touch()
    return target


def _a_link(app: SmallApp, target: Path) -> Path:
    target.with_name("real").mkdir()
    target.symlink_to("real")
    return target


def _a_link_to_nothing(app: SmallApp, target: Path) -> Path:
    target.symlink_to("nothing")
    return target


def _below_nothing(app: SmallApp, target: Path) -> Path:
    return target / "deeper"


def _in_the_uploads(app: SmallApp, target: Path) -> Path:
    return app.uploads / "look"


def _beside_the_database(app: SmallApp, target: Path) -> Path:
    return app.database.parent / "look"


def _in_the_backups(app: SmallApp, target: Path) -> Path:
    return app.backups / "look"


def _in_a_backup(app: SmallApp, target: Path) -> Path:
    return app.backups / "good" / "uploads" / "look"


def _in_the_uploads_through_a_link(app: SmallApp, target: Path) -> Path:
    target.symlink_to(app.uploads)
    return target / "look"


def _open_to_all(app: SmallApp, target: Path) -> Path:
    target.mkdir()
    target.chmod(0o777)
    return target / "look"


BAD = (
    (_not_empty, "is not empty"),
    (_a_file, "is not a folder"),
    (_a_link, "is a link"),
    (_a_link_to_nothing, "is a link"),
    (_below_nothing, "There is no folder"),
    (_in_the_uploads, "in live data or in a backup"),
    (_beside_the_database, "in live data or in a backup"),
    (_in_the_backups, "in the backups folder"),
    (_in_a_backup, "in live data or in a backup"),
    (_in_the_uploads_through_a_link, "in live data or in a backup"),
    (_open_to_all, "can change"),
)


@pytest.mark.parametrize(("place", "names"), BAD, ids=[place.__name__ for place, _ in BAD])
def test_a_bad_target_is_refused_and_nothing_is_written(app: SmallApp, target: Path, place: Any, names: str) -> None:
    back_up(app)
    bad = place(app, target)
    before = tree(app.folder.parent)
    refused(app, "restore", "good", "--to", str(bad), code=2, names=names, hint="[Ff]older|mkdir")
    changed = {path for path, facts in tree(app.folder.parent).items() if before.get(path, ("",))[0] != facts[0]}
    assert {path for path in changed if not path.startswith("app/backups/.state")} <= {"app/backups/.lock"}


def test_a_migration_and_a_stop_go_with_a_restore_into_the_app_only(app: SmallApp, target: Path) -> None:
    back_up(app)
    for option in ("--migrate", "--stop"):
        refused(app, "restore", "good", "--to", str(target), option, code=2, names=option, hint=option)


def test_a_damaged_backup_leaves_no_target(app: SmallApp, target: Path) -> None:
    back_up(app)
    (app.backups / "good" / "uploads" / "1" / "letter.txt").write_bytes(b"Dear company 2\n")
    refused(app, "restore", "good", "--to", str(target), code=12, names="letter.txt", hint="`")
    assert beside(target) == []


def test_a_database_without_a_checksum_is_checked_by_sqlite_before_it_is_laid_out(app: SmallApp, target: Path) -> None:
    back_up(app)
    for name in ("SHA256SUMS", "RESTORE.md"):
        (app.backups / "good" / name).unlink()
    facts = json.loads((app.backups / "good" / "backup_metadata.json").read_text())
    seven = ("timestamp", "database_file", "uploads_included", "alembic_revision", "backup_name", "created_at")
    (app.backups / "good" / "backup_metadata.json").write_text(json.dumps({key: facts[key] for key in seven}))
    done = run_here(app, "restore", "good", "--to", str(target), check=0)
    assert "unchecked" in done.out
    shutil.rmtree(target)
    with (app.backups / "good" / "pats.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\0" * 8192)
    assert run_here(app, "restore", "good", "--to", str(target)).code == 12
    assert beside(target) == []


def test_too_little_room_is_said_before_anything_is_written(
    app: SmallApp, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(app)
    monkeypatch.setattr(disk, "free_space", lambda _folder: 1000)
    refused(app, "restore", "good", "--to", str(target), code=15, names=str(target.parent), hint="room")
    assert beside(target) == []


def test_a_folder_that_this_user_cannot_write_to_is_refused(app: SmallApp, target: Path) -> None:
    back_up(app)
    target.mkdir()
    target.chmod(0o555)
    done = as_user(app, "restore", "good", "--to", str(target / "look"))
    assert (done.code, "cannot write to" in done.err, os.listdir(target)) == (2, True, [])


def test_paths_are_said_as_they_are_on_the_host(app: SmallApp, target: Path) -> None:
    """In a container, the target is in a folder that the wrapper has mounted."""
    from backupkit.config.deployment import on_host

    mounted = {"BACKUP_RUNNER_IN_USE": "run", "BACKUP_HOST_MOUNT": "/srv/my data"}
    assert on_host("There is /mnt/backup-target/look.", mounted) == "There is /srv/my data/look."
    assert on_host("/mnt/backup-target/look", {**mounted, "BACKUP_HOST_MOUNT": "/"}) == "/look"
    assert on_host("/mnt/backup-target/look", {}) == "/mnt/backup-target/look"


# Ownership


@pytest.fixture
def others_app(templates: Path) -> Iterator[SmallApp]:
    """An app owned by root whose data, uploads and backups belong to another user."""
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        app = SmallApp.create(Path(open_to_all, "app"), templates)
        give(USER, app.database.parent, app.uploads, app.backups)
        yield app


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who has rights to lose: run the tests as root")
def test_root_lays_out_as_the_owner_of_the_data_where_that_user_may_write(others_app: SmallApp) -> None:
    app = others_app
    as_root(app, "backup", "good")
    mine, roots = app.folder.parent / "mine", app.folder.parent / "roots"
    for folder in (mine, roots):
        folder.mkdir()
    give(USER, mine)
    assert as_root(app, "restore", "good", "--to", str(roots / "look")).code == 2
    done = as_root(app, "restore", "good", "--to", str(mine / "look"))
    assert (done.code, owners(mine / "look"), os.listdir(roots)) == (0, {USER}, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whom others could lead astray: run the tests as root")
def test_root_does_not_lay_out_where_another_user_could_swap_a_folder(others_app: SmallApp) -> None:
    app = others_app
    give(0, app.database.parent, app.uploads, app.backups)
    as_root(app, "backup", "good")
    theirs = app.folder.parent / "theirs"
    (theirs / "below").mkdir(parents=True)
    os.chown(theirs, USER, USER)
    done = as_root(app, "restore", "good", "--to", str(theirs / "below" / "look"))
    assert (done.code, f"user {USER} owns" in done.err) == (2, True)
