"""What a plan found is used again only if the safety copy finds the same live files; else they are compared again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.fs import stamps
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Damaged
from backupkit.restore import staging
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.retention.delete import delete_backup
from backupkit.upload_files import diff
from small_app import SmallApp, tree

Change = Callable[[Path], None]


def overwrite_unseen(uploads: Path) -> None:
    """Write other content of the same length, and put the times back."""
    file = uploads / "many" / "1.txt"
    before = file.stat()
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Change] = {
    "other content": overwrite_unseen,
    "new file": lambda uploads: (uploads / "many" / "new.txt").write_bytes(b"new") and None,
    "file removed": lambda uploads: (uploads / "many" / "2.txt").unlink(),
    "file replaced": lambda uploads: shutil.copy2(uploads / "many" / "1.txt", uploads / "many" / "2.txt") and None,
    "other mode": lambda uploads: (uploads / "many" / "2.txt").chmod(0o604),
    "new folder": lambda uploads: (uploads / "many" / "empty").mkdir(),
    "new link": lambda uploads: (uploads / "many" / "link").symlink_to("1.txt"),
    "other link": lambda uploads: os.replace(uploads / "other", uploads / "latest"),
}


@pytest.fixture
def planned(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> SmallApp:
    """An app with a backup, of which one upload is lost since."""
    monkeypatch.setattr(stamps, "_TICK", 10_000_000)  # instead of a wait until the change of a file shows
    for number in range(5):
        app.write_upload(f"many/{number}.txt", b"content")
    (app.uploads / "other").symlink_to("many")
    create_backup(app.settings, BackupRequest("good"))
    (app.uploads / "many" / "0.txt").unlink()
    return app


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the backups that the live uploads were compared with."""
    found, real = list[str](), staging.differences

    def counting(settings: object, source: staging.Source, *rest: object) -> object:
        found.append(source.name)
        return real(settings, source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(staging, "differences", counting)
    return found


def test_unchanged_uploads_are_compared_once(planned: SmallApp, compared: list[str]) -> None:
    wanted = tree(planned.settings.dir / "good" / "uploads")
    restored = restore_backup(planned.settings, plan_restore(planned.settings, "good"))
    assert tree(planned.uploads) == wanted
    assert restored.uploads and (restored.uploads.added, restored.uploads.changed) == (1, 0)
    assert compared == ["good"]


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_after_the_plan_comes_back_too(planned: SmallApp, compared: list[str], what: str) -> None:
    wanted = tree(planned.settings.dir / "good" / "uploads")
    plan = plan_restore(planned.settings, "good")
    CHANGES[what](planned.uploads)
    restore_backup(planned.settings, plan)
    assert tree(planned.uploads) == wanted
    assert compared == ["good", "good"]


def test_many_differences_are_not_kept_in_memory(
    planned: SmallApp, compared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff, "MOST_PLANNED", 2)
    wanted = tree(planned.settings.dir / "good" / "uploads")
    plan = plan_restore(planned.settings, "good")
    assert plan.source.planned is None
    restore_backup(planned.settings, plan)
    assert tree(planned.uploads) == wanted
    assert compared == ["good", "good"]


@pytest.mark.parametrize("what", ["rows", "uploads"])
def test_a_backup_that_was_made_anew_since_the_plan_is_not_taken_for_the_planned_one(
    app: SmallApp, tmp_path: Path, what: str
) -> None:
    shutil.copytree(app.folder, tmp_path / "then", symlinks=True)
    create_backup(app.settings, BackupRequest("good"))
    plan, before = plan_restore(app.settings, "good"), app.contents()
    delete_backup(app.settings, "good")
    if what == "rows":
        app.add_rows(5)
    else:
        app.write_upload("1/later.txt", b"later")
    create_backup(app.settings, BackupRequest("good"))
    for place in (app.database.parent, app.uploads):  # what is live is what it was when the plan was made
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "then" / place.name, place, symlinks=True)
    with pytest.raises(Damaged, match="changed since it was verified"):
        restore_backup(app.settings, plan)
    assert app.contents() == before
