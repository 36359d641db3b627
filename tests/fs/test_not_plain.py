"""The toolkit reads its own files only if they are plain files of a size that it writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

import chance
from backupkit.backup.create import create_backup
from backupkit.fs import disk
from backupkit.model.backup import BackupRequest
from refusals import run_here
from small_app import NOON, SmallApp

GIGABYTE = 1 << 30


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, GIGABYTE)


def make_folder(path: Path) -> None:
    path.mkdir()


KINDS = [make_fifo, make_device, make_huge, make_folder]
STATE_FILES = ["proofs/strange", "sizes.json", "last_restore", "history.jsonl", "schedule/seed", "index/strange"]
READING = [
    ("list",),
    ("show", "strange"),
    ("verify", "strange"),
    ("verify", "--all"),
    ("restore", "strange", "--dry-run"),
    ("prune", "--dry-run"),
    ("status",),
    ("history",),
    ("doctor",),
]


@pytest.fixture
def backed_up(app: SmallApp) -> SmallApp:
    """An app with two backups; the tests change `strange`."""
    for name in ("good", "strange"):
        create_backup(app.settings, BackupRequest(name), clock=lambda: NOON)
    run_here(app, "verify", "--all", check=0)
    return app


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["backup_metadata.json", "SHA256SUMS"])
def test_no_file_is_waited_for_nor_swallowed_and_the_other_backups_are_judged(
    backed_up: SmallApp, name: str, kind: Callable[[Path], None]
) -> None:
    strange = backed_up.backups / "strange" / name
    strange.unlink()
    kind(strange)
    for command in READING:
        result = run_here(backed_up, *command)
        assert "Traceback" not in result.err, result.err
    assert run_here(backed_up, "verify", "strange").code == 12
    judged = run_here(backed_up, "verify", "--all", "--json")
    assert judged.code == 12
    assert {one["backup_name"]: one["state"] for one in judged.json} == {"good": "checked", "strange": "damaged"}
    assert str(strange) in run_here(backed_up, "restore", "strange", "--force").err
    run_here(backed_up, "export", "strange", "strange.tar")
    assert run_here(backed_up, "backup", "next").code in (0, 3)


@pytest.mark.parametrize(
    ("name", "kind"), chance.cases(list(product(STATE_FILES, KINDS)), "what is no file beside the backups")
)
def test_what_is_kept_beside_the_backups_is_passed_over(
    backed_up: SmallApp, name: str, kind: Callable[[Path], None]
) -> None:
    path = backed_up.backups / ".state" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    kind(path)
    for command in (*READING, ("backup", "next"), ("restore", "strange", "--force"), ("undo", "--force")):
        result = run_here(backed_up, *command)
        assert "Traceback" not in result.err, result.err
        assert result.code in (0, 1, 2, 3), result.err
    assert run_here(backed_up, "verify", "--all", "--json").json[0]["state"] == "checked"


def test_a_device_is_never_opened(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may make a device")
    device = tmp_path / "device"
    os.mknod(device, 0o020600, os.makedev(10, 130))  # a watchdog: to open it would restart the machine
    with pytest.raises(OSError, match="not a plain file"):
        disk.open_plain(device, GIGABYTE)


def test_what_is_small_and_plain_is_read_whole(tmp_path: Path) -> None:
    shutil.copyfile(__file__, tmp_path / "file")
    content = Path(__file__).read_bytes()
    assert disk.read_plain(tmp_path / "file", len(content)) == content
    with pytest.raises(OSError, match=f"{len(content)} bytes"):
        disk.read_plain(tmp_path / "file", len(content) - 1)
