"""An unprivileged user swaps links and folders while root backs up, verifies, prunes and copies, and gains nothing.

If only the uploads belong to that user, root stays root. If that user can change the backups, root does nothing. If
that user owns the data too, the program works with that user's rights.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import chance
from backupkit.archive.export import export_backup, import_backup
from backupkit.backup.create import create_backup
from backupkit.backup.sql_dump import dump, plan_dump
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import BackupError, Refused
from backupkit.monitoring.status import status
from backupkit.remotes.pull import pull_backup
from backupkit.remotes.push import push_backups
from backupkit.remotes.registry import prepare_remote
from backupkit.repository import store
from backupkit.retention.delete import delete_backup, set_pin
from backupkit.retention.prune import plan_prune, prune_backups
from backupkit.verify.verify import verify_backups
from crash.hostile import SECRET, given_away, pictured, swapping
from others import USER, as_root, give
from small_app import SmallApp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who has rights to lose: run the tests as root"),
]
PLACES = {
    "uploads/a": ("file", 6),
    "uploads/sub": ("", 6),
    "uploads/sub/b": ("file", 6),
    "uploads/deep/er": ("inner", 6),
    "data/pats.db": ("pats.db", 6),  # only the owner of that folder can swap this
    "backups/good": ("good", 2),
    "backups/good/pats.db": ("pats.db", 4),
    "backups/good/uploads": ("", 4),
    "backups/good/uploads/a": ("file", 4),
    "backups/good/uploads/sub": ("", 4),
    "backups/good/uploads/sub/b": ("file", 4),
    "backups/good/uploads/deep/er": ("inner", 4),
    "backups/good/backup_metadata.json": ("good/backup_metadata.json", 2),
    "backups/good/SHA256SUMS": ("good/SHA256SUMS", 2),
    "backups/.draft-new": ("good", 4),
    "backups/.draft-new/uploads": ("", 4),
    "backups/.draft-new/uploads/sub": ("", 4),
    "backups/.draft-new/pats.db": ("pats.db", 4),
    "backups/.draft-*-*": ("", 4),  # drafts of databases that are not backups
    "backups/.draft-*-*/data": ("", 4),
    "backups/.draft-*-*/pats.db": ("pats.db", 4),
    "backups/.draft-*-*/data/pats.db": ("pats.db", 4),
    "backups/.draft-x.sql": ("file", 4),
    "backups/.draft-x.tar": ("file", 4),
    "backups/x.sql": ("file", 2),
    "backups/x.tar": ("file", 2),
    "backups/in.tar": ("file", 2),
    "backups/.lock": ("file", 1),
    "backups/.state": ("", 2),
    "backups/.state/history.jsonl": ("file", 1),
    "backups/.state/index": ("", 2),
    "backups/.state/pinned": ("", 2),
    "backups/.state/proofs": ("", 2),
}
LOOSE = ("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "min_keep")


@pytest.fixture
def app(templates: Path) -> Iterator[SmallApp]:
    """An app in a folder that any user can reach, with a backup `good`."""
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        app = SmallApp.create(Path(open_to_all, "app"), templates)
        for path in ("a", "sub/b", "deep/er/c"):
            app.write_upload(path, b"as it was").chmod(0o666)
        create_backup(app.settings, BackupRequest("good"))
        yield app


@pytest.fixture
def secret(app: SmallApp) -> Path:
    """A folder of root with the same file names as the app's, a database and a backup."""
    folder = app.folder.parent / "roots"
    (folder / "inner").mkdir(parents=True)
    for name in ("file", "a", "b", "c", "inner/c", "history.jsonl"):
        (folder / name).write_text(SECRET)
    with closing(sqlite3.connect(folder / "pats.db")) as database, database:
        database.execute("CREATE TABLE salaries (name)")
        database.execute("INSERT INTO salaries VALUES (?)", (SECRET,))
    shutil.copytree(app.backups / "good", folder / "good", symlinks=True)
    shutil.copy(folder / "pats.db", folder / "good" / "pats.db")
    (folder / "good" / "uploads" / "sub" / "b").write_text(SECRET)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o711 if path.is_dir() else 0o600)
    folder.chmod(0o711)
    return folder


@pytest.fixture
def settings(app: SmallApp) -> Settings:
    """The app's settings; its remote, a folder of root, holds `good` and `new`, and `in.tar` is an archive of `new`."""
    nas = app.folder.parent / "nas"
    nas.mkdir(mode=0o700)
    told = {"there": {"type": "folder", "path": str(nas), "retry_for": 0}}
    settings = Settings(
        app_dir=app.folder, database=app.database, uploads=app.uploads, dir=app.backups, lock_timeout=1, remotes=told
    ).replaced(**dict.fromkeys(LOOSE, 1))
    create_backup(settings, BackupRequest("new"))
    prepare_remote(settings, "there")
    push_backups(settings)
    export_backup(settings, "new", app.backups / "in.tar")
    dump(settings, app.folder.parent / "roots.sql")
    (app.backups / "in.tar").chmod(0o644)
    shutil.rmtree(app.backups / "new")
    return settings


def prepare(settings: Settings, *theirs: str) -> None:
    """Put everything back as in the pristine copy, which the first call makes, and undo what the swapper did.

    This also removes what the verbs made, so that they can make it again, and brings `old` back for `delete`.
    """
    app, pristine = settings.dir.parent, settings.dir.parent.parent / "pristine"
    if not pristine.exists():
        pristine.mkdir(mode=0o700)
        shutil.copytree(settings.dir / "good", settings.dir / "old", symlinks=True)
        for name in ("uploads", "backups"):
            shutil.copytree(app / name, pristine / name, symlinks=True)
    for name in ("uploads", "backups"):
        for path in (app / name).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(pristine / name, app / name, symlinks=True, dirs_exist_ok=True)
        if name in theirs:
            give(USER, app / name)
    for away in settings.database.parent.glob("*.away"):
        os.replace(away, away.with_name(away.name.removesuffix(".away")))


def prune(settings: Settings) -> None:
    prune_backups(settings, plan_prune(settings), force=True)


def push(settings: Settings) -> None:
    shutil.rmtree(settings.dir.parent.parent / "nas" / "good", ignore_errors=True)
    push_backups(settings, "good")


def pin(settings: Settings) -> None:
    set_pin(settings, "good", True)
    set_pin(settings, "good", False)


VERBS: dict[str, tuple[int, Callable[[Settings], object]]] = {
    "backup": (90, lambda settings: create_backup(settings, BackupRequest("new"))),
    "verify": (110, lambda settings: verify_backups(settings, [store.find(settings, "good")])),
    "test-restore": (40, lambda settings: verify_backups(settings, [store.find(settings, "good")], test_restore=True)),
    "prune": (70, prune),
    "delete": (90, lambda settings: delete_backup(settings, "old")),
    "pin": (60, pin),
    "push": (90, push),
    "pull": (60, lambda settings: pull_backup(settings, "new", "there")),
    "export": (90, lambda settings: export_backup(settings, "good", settings.dir / "x.tar")),
    "import": (60, lambda settings: import_backup(settings, settings.dir / "in.tar")),
    "dump": (60, lambda settings: dump(settings, settings.dir / "x.sql")),
    "restore-dump": (60, lambda settings: plan_dump(settings, settings.dir.parent.parent / "roots.sql")),
    "status": (80, status),
    "list": (110, store.all_backups),
}


@pytest.mark.parametrize("verb", chance.cases(list(VERBS), "commands of root over hostile uploads"))
def test_root_who_stays_root_gives_nothing_away(app: SmallApp, secret: Path, settings: Settings, verb: str) -> None:
    tries, act = VERBS[verb]
    tries, nas = max(3, chance.share(tries)), app.folder.parent / "nas"
    give(USER, app.uploads)
    before, came_to_its_end = pictured(secret), 0
    prepare(settings, "uploads")
    places = {place: how for place, how in PLACES.items() if place.startswith("uploads/")}
    with swapping(app, secret, chance.seed(), places) as swapper:
        for number in range(tries):
            with contextlib.suppress(BackupError, OSError, sqlite3.Error):
                act(settings)
                came_to_its_end += 1
            with swapper.resting():
                assert pictured(secret) == before, f"try {number}"
                assert given_away(app.folder, nas) == [], f"try {number}"
                prepare(settings, "uploads")
    print(f"{came_to_its_end} of {tries} came to their end")
    assert came_to_its_end > tries // 20, "hardly anything was tried"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("list", "status")])
@pytest.mark.parametrize(
    "owned", chance.cases(("backups", "a folder above", "for all to write"), "backups that others can change")
)
def test_root_does_nothing_in_backups_that_another_user_can_change(
    app: SmallApp, settings: Settings, verb: str, owned: str
) -> None:
    prepare(settings)
    if owned == "backups":
        give(USER, app.backups)
    elif owned == "a folder above":
        os.chown(app.folder, USER, USER)
    else:
        app.backups.chmod(0o777)
    before = pictured(app.folder)
    with pytest.raises(Refused, match="Root does not work in"):
        VERBS[verb][1](settings)
    assert pictured(app.folder) == before


COMMANDS = (
    ("backup", "new"),
    ("verify", "good"),
    ("verify", "good", "--test-restore"),
    ("prune", "--force"),
    ("delete", "old", "--yes"),
    ("pin", "good"),
    ("push", "good"),
    ("pull", "new"),
    ("export", "good", "x.tar"),
    ("import", "in.tar"),
    ("dump", "x.sql"),
    ("status",),
    ("list",),
)


def test_through_the_program_nothing_is_given_away_where_the_data_is_the_users(
    app: SmallApp, secret: Path, settings: Settings
) -> None:
    """Root then works as that user, so even a database that is replaced by a link to root's gives nothing away."""
    nas = app.folder.parent / "nas"
    told = f'[remotes.there]\ntype = "folder"\npath = "{nas}"\nretry_for = 0\n'
    (app.folder / "backup.toml").write_text(told)
    give(USER, app.database.parent, app.uploads, app.backups, nas)
    before, codes = pictured(secret), set[int]()
    prepare(settings, "uploads", "backups")
    with swapping(app, secret, chance.seed(), PLACES) as swapper:
        for command in COMMANDS * max(1, chance.share(1)):
            ran = as_root(app, *command)
            codes.add(ran.code)
            assert "Traceback" not in ran.err, ran.err
            with swapper.resting():
                assert pictured(secret) == before, command
                assert given_away(app.folder, nas) == [], command
                prepare(settings, "uploads", "backups")
    assert 0 in codes
