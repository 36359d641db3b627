"""A database is checked when it is sealed here, not again before its restore; one from elsewhere is then."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import CHECKSUM_FILE, METADATA_FILE, BackupRequest
from backupkit.model.errors import Damaged
from backupkit.repository import verification
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.sqlite import database
from refusals import run_here
from small_app import SmallApp


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that SQLite has checked, in order."""
    found: list[str] = []
    real = database._problems

    def noting(connection: sqlite3.Connection, *given: object) -> list[str]:
        found.append(connection.execute("SELECT file FROM pragma_database_list").fetchone()[0])
        return real(connection, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "_problems", noting)
    return found


def sealed(app: SmallApp, name: str = "good") -> Path:
    return app.backups / name / "pats.db"


def test_a_backup_made_here_is_not_checked_again_before_it_is_restored(app: SmallApp, checked: list[str]) -> None:
    create_backup(app.settings, BackupRequest("good"))
    good = app.contents()
    app.add_rows(2)
    checked.clear()
    plan = plan_restore(app.settings, "good")
    assert checked == []
    assert plan.rows_after == {name: len(rows) for name, rows in good.rows.items()}
    restore_backup(app.settings, plan)
    assert app.contents() == good
    assert str(sealed(app)) not in checked and str(app.database) not in checked


@pytest.mark.parametrize("way", ["import", "by hand", "state lost"])
def test_a_backup_from_elsewhere_is_checked_before_it_is_restored(
    app: SmallApp, checked: list[str], way: str, tmp_path: Path
) -> None:
    create_backup(app.settings, BackupRequest("good"))
    name = "good"
    if way == "import":
        run_here(app, "export", "good", str(tmp_path / "good.tar"), check=0)
        run_here(app, "import", str(tmp_path / "good.tar"), "--name", "again", check=0)
        name = "again"
    elif way == "by hand":
        (app.backups / "good" / CHECKSUM_FILE).unlink()
        said = json.loads((app.backups / "good" / METADATA_FILE).read_text())
        (app.backups / "good" / METADATA_FILE).write_text(json.dumps({**said, "tool_version": None}))
    else:
        shutil.rmtree(app.backups / ".state")
    checked.clear()
    plan_restore(app.settings, name)
    assert checked == [str(sealed(app, name))]


def test_damage_with_a_checksum_made_to_fit_is_found(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    before, content = hashlib.sha256(sealed(app).read_bytes()).hexdigest(), bytearray(sealed(app).read_bytes())
    content[5000] ^= 0xFF
    sealed(app).write_bytes(content)
    sums = app.backups / "good" / CHECKSUM_FILE
    sums.write_text(sums.read_text().replace(before, hashlib.sha256(content).hexdigest()))
    with pytest.raises(Damaged, match="same checksum"):
        plan_restore(app.settings, "good")


def test_a_new_backup_of_a_name_inherits_nothing(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    run_here(app, "delete", "good", "--yes", check=0)
    assert not (app.backups / ".state" / "sound" / "good").exists()
    create_backup(app.settings, BackupRequest("good"))
    checksum = hashlib.sha256(sealed(app).read_bytes()).hexdigest()
    assert verification.is_known_sound(app.backups, "good", checksum)
    assert not verification.is_known_sound(app.backups, "good", "0" * 64)


def test_a_database_kept_raw_is_never_called_sound(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.database.write_bytes(b"noise " * 1000)
    for path in database.sidecars(app.database):
        path.unlink(missing_ok=True)
    restore_backup(app.settings, plan_restore(app.settings, "good"))
    raw = [path.parent.name for path in app.backups.glob("pre_restore*/pats.db")]
    assert raw and not any((app.backups / ".state" / "sound" / name).exists() for name in raw)
    with closing(app.connect()) as live:
        assert live.execute("PRAGMA integrity_check").fetchone() == ("ok",)
