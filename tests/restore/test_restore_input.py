"""Journal, staging area and list of operations are untrusted input: foreign or malformed ones are not carried out."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import others
from backupkit.backup.create import create_backup
from backupkit.fs import staging_area
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.model.errors import BackupError
from backupkit.model.events import Event, Warned
from backupkit.restore import journal
from backupkit.upload_files import apply
from killed import AMONG_THE_UPLOADS, BEFORE_THE_DATABASE, kill
from refusals import run_here
from small_app import Contents, SmallApp, entry

RESTORE = ("restore", "good", "--force")
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files may have any owner")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    """A restore killed before its database went live, and the contents it restores; made once for this module."""
    folder = tmp_path_factory.mktemp("killed")
    app = SmallApp.create(folder / "app", folder)
    create_backup(app.settings, BackupRequest("good"))
    good = app.contents()
    app.add_rows(2)
    app.write_upload("1/letter.txt", b"altered")
    app.write_upload("new/file", b"new")
    kill(app, BEFORE_THE_DATABASE, *RESTORE)
    return app.folder, good


@pytest.fixture
def unfinished(killed: tuple[Path, Contents], tmp_path: Path) -> tuple[SmallApp, Contents]:
    """A copy of the killed app with the times of its files, and the contents to restore."""
    folder, good = killed
    shutil.copytree(folder, tmp_path / "app", symlinks=True)
    return SmallApp(tmp_path / "app", tmp_path), good


def pictured(folder: Path) -> dict[str, Any]:
    """Return files (with owner) and folders below the folder, but not SQLite's sidecars and the toolkit's state."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.name.endswith(("-wal", "-shm")) and ".state" not in path.parts and path.name != ".lock":
            found[str(path)] = (*entry(path), path.lstat().st_uid) if path.is_file() or path.is_symlink() else ()
    return found


def assert_refused(app: SmallApp, names: Path, code: int = 1) -> None:
    """Assert that commands that write name the path and change nothing, and that one that reads warns."""
    before = pictured(app.folder)
    for command in (("recover",), ("backup", "new")):
        result = run_here(app, *command, check=code)
        assert str(names) in result.err and "Next: " in result.err, result.err
        assert pictured(app.folder) == before
    result = run_here(app, "list", check=0)
    assert "Warning: " in result.err and "recover" in result.err
    assert pictured(app.folder) == before


# Journal


def journal_file(app: SmallApp) -> Path:
    return app.backups / journal.JOURNAL_FILE


@as_root
def test_a_journal_of_another_user_is_refused(unfinished: tuple[SmallApp, Contents]) -> None:
    app, good = unfinished
    os.chown(journal_file(app), NOBODY, NOBODY)
    assert_refused(app, journal_file(app))
    os.chown(journal_file(app), 0, 0)
    run_here(app, "recover", check=0)
    assert app.contents() == good


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_journal_that_others_may_write_is_refused(unfinished: tuple[SmallApp, Contents], mode: int) -> None:
    app, _ = unfinished
    journal_file(app).chmod(mode)
    assert_refused(app, journal_file(app))


@pytest.mark.parametrize("what", ["link", "fifo", "folder", "dangling"])
def test_what_is_no_file_is_no_journal(unfinished: tuple[SmallApp, Contents], tmp_path: Path, what: str) -> None:
    app, _ = unfinished
    file = journal_file(app)
    file.rename(tmp_path / "journal")
    if what == "fifo":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    else:
        file.symlink_to(tmp_path / ("journal" if what == "link" else "nowhere"))
    assert_refused(app, file)


FORGED: list[dict[str, Any]] = [
    {"unknown": 1},
    {"safety": "../../etc"},
    {"safety": "/etc"},
    {"copies": ["../good"]},
    {"kept": ["a/b"]},
    {"id": "../x"},
    {"id": "0" * 31},
    {"database": "maybe"},
    {"facts": {"size": -1, "sha256": ""}},
]


@pytest.mark.parametrize("change", FORGED, ids=str)
def test_a_journal_of_another_form_is_refused(unfinished: tuple[SmallApp, Contents], change: dict[str, Any]) -> None:
    app, _ = unfinished
    file = journal_file(app)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert_refused(app, file)


def test_a_journal_of_another_restore_is_refused(unfinished: tuple[SmallApp, Contents]) -> None:
    app, _ = unfinished
    file = journal_file(app)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"id": "0" * 32}))
    assert_refused(app, app.database.parent / STAGING)


def test_what_a_journal_says_reaches_the_terminal_as_text(unfinished: tuple[SmallApp, Contents]) -> None:
    app, _ = unfinished
    file = journal_file(app)
    hostile = {"source": "\x1b[2Jgood", "started": "now\x1b]0;x\x07"}
    file.write_text(json.dumps(json.loads(file.read_text()) | hostile))
    for command in (("list",), ("status",), ("doctor",), ("recover",)):
        result = run_here(app, *command)
        assert "\x1b" not in result.err + result.out and "\x07" not in result.err + result.out


# Staging area


@pytest.mark.parametrize("part", ["data", "uploads"])
@pytest.mark.parametrize("what", ["link", "file", "open", "foreign"])
def test_a_staging_area_that_is_not_ours_is_refused(
    unfinished: tuple[SmallApp, Contents], tmp_path: Path, part: str, what: str
) -> None:
    app, _ = unfinished
    area = app.folder / part / STAGING
    if what == "link":
        area.rename(tmp_path / "area")
        area.symlink_to(tmp_path / "area")
    elif what == "file":
        shutil.rmtree(area)
        area.write_text("x")
    elif what == "open":
        area.chmod(0o770)
    elif os.geteuid() == 0:
        os.chown(area, NOBODY, NOBODY)
    else:
        pytest.skip("needs root, whose files may have any owner")
    assert_refused(app, area)


def test_a_link_in_the_place_of_the_area_is_not_followed_by_a_new_restore(app: SmallApp, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("good"))
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    for folder in (app.uploads, app.database.parent):
        (folder / STAGING).symlink_to(outside)
    app.add_rows(1)
    before = app.contents()
    assert run_here(app, *RESTORE).code == 1
    assert app.contents() == before
    assert list(outside.iterdir()) == [] and stat.S_IMODE(outside.stat().st_mode) == 0o755


# List of operations


def operations_file(app: SmallApp) -> Path:
    return staging_area.place_of(app.uploads, "uploads") / apply.OPERATIONS


def forge(app: SmallApp, **change: Any) -> None:
    """Add a line to the list: a valid one with this change."""
    line = {
        "action": "add",
        "path": "planted",
        "form": "file",
        "clash": False,
        "staged": "0",
        "seen": None,
        "mode": 0o644,
        "owner": [0, 0],
        "time": 0,
    }
    with operations_file(app).open("a") as lines:
        lines.write(json.dumps(list((line | change).values())) + "\n")


HOSTILE: list[dict[str, Any]] = [
    {"path": "../planted"},
    {"path": "1/../../planted"},
    {"path": "/etc/planted"},
    {"path": ""},
    {"path": "a//b"},
    {"path": f"{STAGING}/x"},
    {"path": 1},
    {"staged": "../../backups/.journal"},
    {"staged": "operations"},
    {"staged": 0},
    {"action": "execute"},
    {"form": "special"},
    {"mode": -1},
    {"mode": 0o100644},
    {"owner": [0]},
    {"owner": ["root", 0]},
    {"time": "now"},
    {"seen": [1, 2]},
    {"clash": "yes"},
    {"more": 1},
]


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_a_list_with_a_line_that_is_not_ours_is_not_carried_out(
    unfinished: tuple[SmallApp, Contents], change: dict[str, Any]
) -> None:
    app, _ = unfinished
    forge(app, **change)
    before = pictured(app.uploads)
    result = run_here(app, "recover", check=1)
    assert str(operations_file(app)) in result.err
    assert pictured(app.uploads) == before


@pytest.mark.parametrize("what", ["link", "open", "foreign"])
def test_a_list_that_is_not_ours_is_refused(unfinished: tuple[SmallApp, Contents], tmp_path: Path, what: str) -> None:
    app, _ = unfinished
    file = operations_file(app)
    if what == "link":
        file.rename(tmp_path / "operations")
        file.symlink_to(tmp_path / "operations")
    elif what == "open":
        file.chmod(0o666)
    elif os.geteuid() == 0:
        os.chown(file, NOBODY, NOBODY)
    else:
        pytest.skip("needs root, whose files may have any owner")
    before = pictured(app.uploads)
    result = run_here(app, "recover", check=1)
    assert str(file) in result.err
    assert pictured(app.uploads) == before


# Files that appeared after the list was made


Make = Callable[[Path, str], None]


def a_file(path: Path, text: str) -> None:
    path.write_text(text)


def a_link(path: Path, text: str) -> None:
    path.symlink_to(text)


def a_folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / "inside").write_text(text)


def an_empty_folder(path: Path, _text: str) -> None:
    path.mkdir()


def nothing(_path: Path, _text: str) -> None:
    pass


FORMS: tuple[Make, ...] = (a_file, a_link, a_folder)


def test_what_came_while_the_restore_was_prepared_stays(app: SmallApp) -> None:
    """Combine each wanted form with each live form and each form that appears in between."""
    cases = {
        f"{wanted.__name__} {live.__name__} {came.__name__}": (wanted, live, came)
        for wanted, live, came in product((nothing, *FORMS), (nothing, *FORMS), (*FORMS, an_empty_folder))
        if (live, came) != (a_folder, an_empty_folder)  # the folder that was seen, now empty
    }
    for name, (wanted, _, _) in cases.items():
        wanted(app.uploads / name, "wanted")
    create_backup(app.settings, BackupRequest("good"))
    for name, (_, live, _) in cases.items():
        remove(app.uploads / name)
        live(app.uploads / name, "live")
    kill(app, (*AMONG_THE_UPLOADS[:2], "before"), *RESTORE)
    for name, (_, _, came) in cases.items():
        remove(app.uploads / name)
        came(app.uploads / name, "came meanwhile")
    before = {name: held(app.uploads / name) for name in cases}
    run_here(app, "recover", check=3)
    lost = [name for name in cases if not before[name].items() <= held(app.uploads / name).items()]
    assert lost == []


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def held(place: Path) -> dict[str, tuple[str, bytes]]:
    """Return kind and content of the place and of everything in it, by path."""
    found = [place, *place.rglob("*")] if place.is_dir() and not place.is_symlink() else [place]
    return {str(path): entry(path)[::3] for path in found if os.path.lexists(path)}  # type: ignore[misc]


def test_a_file_that_takes_a_free_place_at_the_last_moment_stays(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backupkit.fs import descriptors
    from backupkit.restore.restore import plan_restore, restore_backup

    app.write_upload("place", b"wanted")
    create_backup(app.settings, BackupRequest("good"))
    (app.uploads / "place").unlink()
    real = descriptors.rename_to_free

    def come_first(*arguments: Any) -> bool:
        app.write_upload("place", b"came meanwhile")
        return real(*arguments)

    monkeypatch.setattr(descriptors, "rename_to_free", come_first)
    heard: list[Event] = []
    restore_backup(app.settings, plan_restore(app.settings, "good"), heard.append)
    assert (app.uploads / "place").read_bytes() == b"came meanwhile"
    assert any(isinstance(event, Warned) and "place came or changed" in event.text for event in heard)


def test_nothing_is_staged_for_a_restore_that_is_not_the_areas(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    one = staging_area.identify(app.backups, "good")
    two = staging_area.identify(app.backups, "good")
    staging_area.make(app.uploads, one)
    with pytest.raises(BackupError):
        staging_area.make(app.uploads, two)
    staging_area.remove(app.uploads, two.id)
    assert staging_area.owner_of_area(app.uploads) == one
    staging_area.remove(app.uploads, one.id)
    assert not (app.uploads / STAGING).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads everything, and another user is needed")
def test_the_record_of_a_restore_that_cannot_be_read_is_not_to_be_removed(app: SmallApp) -> None:
    """Whether a restore is unfinished is then unknown, and the staged files may be the only copy of its rows."""
    with tempfile.TemporaryDirectory() as folder:
        live = Path(folder)
        (app.backups / "good").mkdir(exist_ok=True)
        staging_area.make(live, staging_area.identify(app.backups, "good"))
        (live / ".backupkit-staging" / "restore.json").chmod(0)
        others.give(others.USER, live)

        def refuse() -> None:
            with pytest.raises(BackupError, match=r"cannot be read \(Permission denied\)") as refusal:
                staging_area.owner_of_area(live)
            assert "Do not remove it" in refusal.value.hint

        others.as_other(refuse)


@as_root
def test_a_database_that_takes_no_change_is_named_as_that(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(1)
    if subprocess.run(["chattr", "+a", app.database], capture_output=True).returncode:
        pytest.skip("this file system has no such attribute")
    try:
        result = run_here(app, "restore", "good", "--yes", check=13)
    finally:
        subprocess.run(["chattr", "-a", app.database], check=True)
    assert f"The database {app.database} cannot be written: " in result.err
    assert f"lsattr {app.database}" in result.err


@as_root
@pytest.mark.parametrize("place", ["uploads/1/letter.txt", "uploads/1", "uploads", "data/pats.db", "data", "backups"])
def test_root_whom_an_attribute_keeps_out_is_told_to_look_at_it(app: SmallApp, place: str) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.add_rows(1)
    app.write_upload("1/letter.txt", b"Dear all")
    path = app.folder / place
    if subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
        pytest.skip("this file system has no such attribute")
    try:
        result = run_here(
            app, "restore", "good", "--yes", check=1 if place in ("uploads/1/letter.txt", "backups") else 13
        )
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert f"Look at its owner, mode and attributes: ls -ld {path}; lsattr -d {path}" in result.err
