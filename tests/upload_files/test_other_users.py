"""Uploads of other users: whose they are afterwards, what a program of theirs may do, and what cannot be touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

import chance
from backupkit.rewind.state import entry_of
from others import USER, as_other, as_root, give
from small_app import SmallApp

APP = 4711  # the app's own user, who writes the uploads
RUNS_AS = {"owner": 0o4755, "group": 0o2755, "both": 0o6755}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")


@pytest.fixture(params=chance.cases(list(RUNS_AS), "programs of others"))
def mode(request: pytest.FixtureRequest) -> int:
    return RUNS_AS[request.param]


@pytest.fixture
def shared(app: SmallApp, tmp_path: Path) -> SmallApp:
    """An app whose database and backups belong to USER; the app's user may write the uploads too."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)  # so that USER gets there
    app.backups.mkdir(exist_ok=True)
    give(USER, app.database.parent, app.uploads, app.backups)
    return app


def program(app: SmallApp, owner: int, mode: int) -> Path:
    path = app.write_upload("programs/tool", b"#!/bin/sh\nid\n")
    give(USER, path.parent)
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def run_as_others(*folders: Path) -> list[Path]:
    """Return the files that run with the rights of USER or of USER's group."""
    files = [path for folder in folders for path in folder.rglob("*") if stat.S_ISREG(path.lstat().st_mode)]
    return [
        path
        for path in files
        if (path.stat().st_mode & stat.S_ISUID and path.stat().st_uid == USER)
        or (path.stat().st_mode & stat.S_ISGID and path.stat().st_gid == USER)
    ]


@pytest.mark.parametrize(
    "back",
    [
        ("restore", "one", "--yes"),
        ("extract", "one", "programs/tool", "--yes"),
        ("extract", "one", "programs/tool", "--to", "{out}/in"),
        ("restore", "one", "--to", "{out}/new"),
        ("clone", "{out}/new"),
    ],
    ids=lambda back: f"{back[0]} {back[-1]}",
)
def test_a_program_of_the_apps_user_does_not_become_one_of_the_toolkits(
    shared: SmallApp, mode: int, back: tuple[str, ...], tmp_path: Path
) -> None:
    path = program(shared, APP, mode)
    assert as_root(shared, "backup", "one").code == 0
    assert run_as_others(shared.backups) == []
    out = tmp_path / "out"
    (out / "in").mkdir(parents=True)
    give(USER, out)
    path.unlink()
    done = as_root(shared, *(one.format(out=out) for one in back))
    assert done.code == 0, done.err
    found = [one for folder in (shared.uploads, out) for one in folder.rglob("tool") if one.is_file()]
    assert [one.stat().st_uid for one in found] == [USER], "it came back, and is USER's now"
    assert run_as_others(shared.uploads, shared.backups, out) == []
    assert found[0].stat().st_mode & 0o777 == 0o755


def test_a_point_of_rewind_records_no_program_of_another_user(shared: SmallApp, mode: int) -> None:
    """The toolkit's user alone is no root, and records no owner: what comes back is that user's."""
    path = program(shared, APP, mode)

    def record() -> None:
        assert entry_of(path.lstat(), {}).mode == 0o755

    as_other(record)
    assert entry_of(path.lstat(), {}).mode == mode


def test_its_copy_is_shared_by_backups_and_is_no_difference(shared: SmallApp, mode: int) -> None:
    path = program(shared, APP, mode)
    for name in ("one", "two"):
        assert as_root(shared, "backup", name).code == 0
    copies = [shared.backups / name / "uploads" / "programs" / "tool" for name in ("one", "two")]
    assert copies[0].samefile(copies[1])
    done = as_root(shared, "restore", "two", "--yes")
    assert (done.code, "Warning" in done.out + done.err) == (0, False)
    assert (path.stat().st_mode & 0o7777, path.stat().st_uid) == (mode, APP)


def test_ones_own_program_comes_back_as_it_was(shared: SmallApp, mode: int) -> None:
    path = program(shared, USER, mode)
    assert as_root(shared, "backup", "one").code == 0
    path.unlink()
    assert as_root(shared, "restore", "one", "--yes").code == 0
    assert (path.stat().st_mode & 0o7777, path.stat().st_uid) == (mode, USER)


def test_root_brings_back_owner_and_mode(app: SmallApp, mode: int) -> None:
    path = program(app, APP, mode)
    app.command("backup", "one", check=0)
    path.unlink()
    app.command("restore", "one", "--yes", check=0)
    assert (path.stat().st_mode & 0o7777, path.stat().st_uid) == (mode, APP)


def test_a_backup_that_does_not_know_its_owners_brings_back_no_program_of_another(app: SmallApp, mode: int) -> None:
    """A folder that was put together by hand has no checksums; its uploads get the owner of the live folder."""
    path = program(app, APP, mode)
    made = app.backups / "by_hand"
    made.mkdir()
    subprocess.run(["cp", "-a", app.database, app.uploads, made], check=True)
    facts = {"backup_name": "by_hand", "timestamp": "20241201_120000", "created_at": "2024-12-01T12:00:00"}
    facts |= {"database_file": app.database.name, "uploads_included": True, "alembic_revision": None}
    (made / "backup_metadata.json").write_text(json.dumps(facts))
    path.unlink()
    app.command("restore", "by_hand", "--force", check=0)
    assert path.stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("only", [(), ("--only", "uploads")], ids=["all", "uploads"])
def test_a_lost_uploads_folder_comes_back_with_its_mode_and_owner(app: SmallApp, only: tuple[str, ...]) -> None:
    os.chown(app.uploads, APP, APP)
    app.uploads.chmod(0o2770)
    app.command("backup", "one", check=0)
    shutil.rmtree(app.uploads)
    app.command("restore", "one", "--yes", *only, check=0)
    found = app.uploads.stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o2770, APP, APP)


def test_a_private_uploads_folder_is_private_wherever_it_is_laid_out(shared: SmallApp, tmp_path: Path) -> None:
    os.chown(shared.folder, USER, USER)
    shared.uploads.chmod(0o700)
    assert as_root(shared, "backup", "one").code == 0
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, USER, USER)
    for act in (("restore", "one", "--to", str(out / "laid")), ("clone", str(out / "clone"))):
        done = as_root(shared, *act)
        assert done.code == 0, done.err
    shutil.rmtree(shared.uploads)
    assert as_root(shared, "restore", "one", "--yes").code == 0
    folders = [shared.uploads, *(path for path in out.rglob("uploads") if path.is_dir())]
    assert [path.stat().st_mode & 0o777 for path in folders] == [0o700] * 3


def test_a_lost_uploads_folder_that_was_read_only_can_be_filled(shared: SmallApp) -> None:
    os.chown(shared.folder, USER, USER)
    shared.uploads.chmod(0o555)
    assert as_root(shared, "backup", "one").code == 0
    shutil.rmtree(shared.uploads)
    done = as_root(shared, "restore", "one", "--yes")
    assert (done.code, shared.uploads.stat().st_mode & 0o777) == (0, 0o755), done.err
    assert (shared.uploads / "2" / "letter.txt").exists()


# What the toolkit's user cannot read, write or give away


def planned(app: SmallApp) -> dict[str, Any]:
    done = as_root(app, "restore", "one", "--dry-run", "--json")
    assert done.code == 0, done.err
    return dict(done.json)


@pytest.mark.parametrize("was_there", [True, False])
def test_an_upload_that_cannot_be_read_is_not_planned_to_change(shared: SmallApp, was_there: bool) -> None:
    if was_there:
        os.chown(shared.write_upload("2/secret", b"then"), APP, APP)
    assert as_root(shared, "backup", "one").code == 0
    secret = shared.write_upload("2/secret", b"now, and longer")
    os.chown(secret, APP, APP)
    secret.chmod(0o600)
    plan = planned(shared)["uploads"]
    assert (plan["added"], plan["changed"], plan["removed"], plan["unreadable"]) == (0, 0, 0, ["2/secret"])
    done = as_root(shared, "restore", "one", "--yes")
    assert done.code == 3 and "2/secret cannot be read (Permission denied), and stays as it is." in done.err
    assert secret.read_bytes() == b"now, and longer"


def test_a_plan_says_that_an_upload_gets_another_owner(shared: SmallApp) -> None:
    path = shared.write_upload("2/theirs", b"then")
    os.chown(path, APP, APP)
    assert as_root(shared, "backup", "one").code == 0
    path.write_bytes(b"now, and longer")
    said = [note for note in planned(shared)["notes"] if "other users" in note]
    assert said == [
        f"Uploads of other users that come back as uid {USER}'s: 1. Only root can give files to their owners."
    ]


def test_where_a_folder_of_another_user_stops_a_restore_the_database_alone_is_named(shared: SmallApp) -> None:
    path = shared.write_upload("2/theirs/one", b"then")
    give(USER, path.parent)
    assert as_root(shared, "backup", "one").code == 0
    path.unlink()
    give(APP, path.parent)
    path.parent.chmod(0o555)
    done = as_root(shared, "restore", "one", "--yes")
    assert done.code == 13 and "restore one --only database" in done.err
    assert as_root(shared, "restore", "one", "--only", "database", "--yes").code == 0
