"""The commands in a backup's `RESTORE.md` work as typed, with any names, and stop before they do harm."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.restore.restore import plan_restore, restore_backup
from documents import blocks, text
from small_app import SmallApp


@pytest.fixture(autouse=True)
def without_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_RUNNER_IN_USE", "local")


ODD_NAMES = ["two words", "it's", "$HOME", '"quoted"', "größe", "[x]", "-rf", "`id`", "a;b", "back\\slash", "*"]


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_a_backups_own_page_works_as_typed_whatever_the_names(templates: Path, tmp_path: Path, odd: str) -> None:
    app = SmallApp.create(tmp_path / odd / "app", templates)
    app.database.parent.rename(app.folder / odd)
    app.uploads.rename(app.folder / f"{odd} up")
    (app.folder / odd / "pats.db").rename(app.folder / odd / f"{odd}.db")
    app.database, app.uploads = app.folder / odd / f"{odd}.db", app.folder / f"{odd} up"
    create_backup(app.settings, BackupRequest("good"))
    page = text(app.backups / "good" / "RESTORE.md")
    before = app.contents()
    app.execute("DELETE FROM documents")
    (app.uploads / "2" / "letter.txt").write_text("scribbled over")
    steps = [*re.findall(r"^    (cd .*|sha256sum .*)$", page.split("## 2.")[0], re.M), *blocks(page)]
    done = subprocess.run(["sh", "-c", "\n".join(steps)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert app.contents() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [odd]


@pytest.mark.parametrize("wrong", ["missing", "empty", "damaged", "no tables", "cannot be copied"])
def test_a_backups_own_page_stops_before_it_touches_what_is_live(app: SmallApp, tmp_path: Path, wrong: str) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.use_and_crash(20)
    sealed, before = app.backups / "good" / "pats.db", app.contents()
    if wrong == "missing":
        sealed.unlink()
    elif wrong == "empty":
        os.truncate(sealed, 0)
    elif wrong == "damaged":
        sealed.write_bytes(sealed.read_bytes()[:8192] + os.urandom(4096) + sealed.read_bytes()[12288:])
    elif wrong == "no tables":
        sealed.unlink()
        with contextlib.closing(sqlite3.connect(sealed)) as empty:
            empty.execute("PRAGMA user_version = 1")
    else:
        (app.database.parent / "pats.db.restored").mkdir()
        (app.database.parent / "pats.db.restored" / "pats.db").mkdir()
    page = text(app.backups / "good" / "RESTORE.md")
    (step,) = (block for block in blocks(page) if "LIVE=" in block)
    done = subprocess.run(["sh", "-c", step], cwd=sealed.parent, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stderr
    assert app.contents() == before
    assert app.database.with_name("pats.db-wal").stat().st_size > 0


def test_a_backups_own_page_writes_through_no_link_that_lies_among_the_uploads(app: SmallApp, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("good"))
    victim = tmp_path / "victim"
    victim.write_text("not ours")
    (app.uploads / "2" / "letter.txt").unlink()
    (app.uploads / "2" / "letter.txt").symlink_to(victim)
    (step,) = (block for block in blocks(text(app.backups / "good" / "RESTORE.md")) if "UPLOADS=" in block)
    subprocess.run(["sh", "-c", step], cwd=app.backups / "good", check=True)
    assert victim.read_text() == "not ours"
    assert (app.uploads / "2" / "letter.txt").read_text() == "Dear company 2\n"


def test_a_backups_own_page_names_no_private_environment_and_quotes_what_a_database_says(app: SmallApp) -> None:
    app.execute("UPDATE alembic_version SET version_num = 'x; touch stolen'")
    create_backup(app.settings, BackupRequest("good"))
    page = text(app.backups / "good" / "RESTORE.md")
    assert sys.prefix not in page and "backup-venv" not in page
    assert "alembic stamp 'x; touch stolen'" in page


def test_the_page_of_raw_files_tells_nobody_to_put_them_back(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.database.write_bytes(b"no database" * 1000)
    safety = restore_backup(app.settings, plan_restore(app.settings, "good")).safety
    page = text(app.backups / safety / "RESTORE.md")
    assert "could not be read" in page and "LIVE=" not in page and "UPLOADS=" in page
