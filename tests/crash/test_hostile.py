"""An unprivileged user swaps links while root restores, recovers and undoes in that user's folders, and gains nothing.

The program itself gives up root there. These tests call the functions below it as root: they stay in the folders that
they opened, even if somebody replaces a name on the path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import chance
from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import BackupError
from backupkit.restore import journal, restore
from backupkit.restore.recovery import recover
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from crash.hostile import SECRET, given_away, pictured, swapping
from others import USER, give
from small_app import SmallApp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who has rights to lose: run the tests as root"),
]
TRIES = chance.share(40)
PLACES = {
    "uploads/a": ("file", 20),
    "uploads/sub": ("", 20),
    "uploads/sub/b": ("file", 20),
    "uploads/deep/er": ("inner", 20),
    "uploads/.backupkit-staging": ("", 4),
    "data/.backupkit-staging": ("", 4),
}


@pytest.fixture
def app(templates: Path) -> Iterator[SmallApp]:
    """An app whose data and uploads belong to another user, with a backup `good` that belongs to root."""
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        app = SmallApp.create(Path(open_to_all, "app"), templates)
        for path in ("a", "sub/b", "deep/er/c", *(f"many/{number}" for number in range(120))):
            app.write_upload(path, b"as it was").chmod(0o666)
        create_backup(app.settings, BackupRequest("good"))
        give(USER, app.database.parent, app.uploads)
        yield app


@pytest.fixture
def secret(app: SmallApp) -> Path:
    """A folder of root with the same file names as the app's."""
    folder = app.folder.parent / "roots"
    (folder / "inner").mkdir(parents=True)
    for name in ("file", "a", "b", "c", "inner/c", "operations", "restore.json"):
        (folder / name).write_text(SECRET)
        (folder / name).chmod(0o600)
    folder.chmod(0o711)
    return folder


def begin(app: SmallApp) -> None:
    """Start a restore, and leave it as a kill right after writing its journal would."""

    class Killed(BaseException):
        pass

    def be_killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(restore, "_apply", be_killed)
        restore_backup(app.settings, plan_restore(app.settings, "good"))
    assert journal.exists(app.backups)


def try_once(app: SmallApp, verb: str) -> bool:
    """Run the verb; return whether it completed. An error on the way gains the user nothing."""
    settings = app.settings
    try:
        if verb == "recover":
            return recover(settings) is not None
        plan = plan_restore(settings, "good", force=True) if verb == "restore" else plan_undo(settings, force=True)
        restore_backup(settings, plan)
    except (BackupError, OSError, sqlite3.Error):
        return False
    return True


def tidy(app: SmallApp) -> None:
    """Put right what the swapper left, as its user would: otherwise no later restore would succeed."""
    for away in sorted(app.folder.rglob("*.away"), reverse=True):
        place = away.with_name(away.name.removesuffix(".away"))
        if place.is_symlink():
            place.unlink()
        if os.path.lexists(place):
            shutil.rmtree(away) if away.is_dir() else away.unlink()
        else:
            away.rename(place)
    for safety in app.backups.glob("pre_restore_*"):
        shutil.rmtree(safety)
    for folder in (app.uploads, app.database.parent):
        shutil.rmtree(folder / ".backupkit-staging", ignore_errors=True)
    (app.backups / journal.JOURNAL_FILE).unlink(missing_ok=True)
    for path in ("uploads/sub", "uploads/deep", "uploads/deep/er"):
        if (app.folder / path).is_symlink():
            (app.folder / path).unlink()
        (app.folder / path).mkdir(exist_ok=True)
    for path in ("a", "sub/b", "deep/er/c"):
        (app.uploads / path).unlink(missing_ok=True)
        app.write_upload(path, b"later")
    for number in range(120):  # only the mode differs
        (app.uploads / "many" / str(number)).unlink(missing_ok=True)
        file = app.write_upload(f"many/{number}", b"as it was")
        file.chmod(0o600)
        os.utime(file, (1, 1))
    give(USER, app.uploads)


@pytest.mark.parametrize("verb", ["restore", "undo", "recover"])
def test_links_swapped_in_by_the_apps_user_gain_nothing(app: SmallApp, secret: Path, verb: str) -> None:
    before, came_to_its_end = pictured(secret), 0
    for number in range(TRIES):
        tidy(app)
        if verb == "recover":
            begin(app)
        elif verb == "undo":
            restore_backup(app.settings, plan_restore(app.settings, "good"))
        with swapping(app, secret, chance.seed() + number, PLACES, many=60):
            came_to_its_end += try_once(app, verb)
        assert pictured(secret) == before, f"try {number}"
        assert given_away(app.folder) == [], f"try {number}"
    print(f"{came_to_its_end} of {TRIES} came to their end")
    assert came_to_its_end > TRIES // 20, "hardly anything was tried"
