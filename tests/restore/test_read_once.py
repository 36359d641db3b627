"""A restore reads each byte of a backup once, and only of what comes back.

Damage of that is found before anything changes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import CHECKSUM_FILE, STAGING, UPLOADS_FOLDER, BackupRequest
from backupkit.model.errors import Damaged
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.verify.verify import verify_backups
from refusals import run_here
from small_app import COMMAND, Contents, SmallApp, clean_environment

READS = "read,readv,pread64,preadv,preadv2,copy_file_range,sendfile,mmap"
MANY = 60


@pytest.fixture
def backed_up(app: SmallApp) -> SmallApp:
    """An app with uploads in a few folders, and a backup of it, `good`."""
    for number in range(MANY):
        app.write_upload(f"many/{number % 4}/{number}.bin", f"{number} ".encode() * (number + 1))
    create_backup(app.settings, BackupRequest("good"))
    return app


def bytes_read(app: SmallApp, trace: Path, *argv: str) -> Counter[str]:
    """How many bytes the command read of each upload in the backup `good`, by its path there."""
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder)}
    traced = ["strace", "-f", "-y", "-qq", "-e", f"trace={READS}", "-e", "signal=none", "-o", str(trace)]
    subprocess.run([*traced, sys.executable, str(COMMAND), *argv], env=environment, check=True, capture_output=True)
    root = re.escape(f"{app.backups}/good/{UPLOADS_FOLDER}/")
    found: Counter[str] = Counter()
    for line in trace.read_text(errors="replace").splitlines():
        if read := re.search(rf"(?:read\w*|copy_file_range|sendfile)\(\d+<{root}([^>]+)>.* = (\d+)$", line):
            found[read[1]] += int(read[2])
        elif re.search(rf"mmap\(.*<{root}", line):
            raise AssertionError(line)
    return found


def sizes(app: SmallApp) -> dict[str, int]:
    root = app.backups / "good" / UPLOADS_FOLDER
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if is_file(path)}


def is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def assert_untouched(app: SmallApp, before: Contents, backups: int) -> None:
    """Live data, the backups folder and the staging are as if the restore had never been asked for."""
    assert app.contents() == before
    assert len(store.all_backups(app.settings)) == backups
    assert not list(app.folder.rglob(STAGING)) and not list(app.backups.glob(".draft-*"))
    assert not (app.backups / ".journal").exists()


@pytest.mark.needs("strace")
def test_a_full_restore_reads_each_byte_of_the_uploads_once(backed_up: SmallApp, tmp_path: Path) -> None:
    shutil.rmtree(backed_up.uploads)
    backed_up.uploads.mkdir()
    assert bytes_read(backed_up, tmp_path / "trace", "restore", "good", "--force") == sizes(backed_up)


@pytest.mark.needs("strace")
@pytest.mark.parametrize("index", ["known", "lost"])
def test_of_a_few_damaged_uploads_no_other_is_read_in_the_backup(
    backed_up: SmallApp, tmp_path: Path, index: str
) -> None:
    before = backed_up.contents()
    (backed_up.uploads / "many/1/5.bin").write_bytes(b"scribbled over")
    (backed_up.uploads / "many/2/6.bin").unlink()
    if index == "lost":
        shutil.rmtree(backed_up.backups / ".state")
    read = bytes_read(backed_up, tmp_path / "trace", "restore", "good", "--force", "--only", "uploads")
    assert read == {path: sizes(backed_up)[path] for path in ("many/1/5.bin", "many/2/6.bin")}
    assert backed_up.contents().uploads == before.uploads


@pytest.mark.needs("strace")
def test_an_upload_that_was_written_anew_with_the_same_content_is_not_read_in_the_backup(
    backed_up: SmallApp, tmp_path: Path
) -> None:
    path = backed_up.uploads / "many/1/5.bin"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert not bytes_read(backed_up, tmp_path / "trace", "restore", "good", "--force")


@pytest.mark.parametrize("index", ["known", "lost"])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer"])
def test_damage_of_an_upload_that_comes_back_is_found_before_anything_changes(
    backed_up: SmallApp, damage: str, index: str
) -> None:
    (backed_up.uploads / "many/1/5.bin").write_bytes(b"scribbled over")
    spoil(backed_up.backups / "good" / UPLOADS_FOLDER / "many/1/5.bin", damage)
    if index == "lost":
        shutil.rmtree(backed_up.backups / ".state")
    before = backed_up.contents()
    refused = run_here(backed_up, "restore", "good", "--force", check=12)
    said = "is damaged: uploads/many/1/5.bin is not as it was written; nothing was changed."
    assert f"The backup {backed_up.backups / 'good'} {said}" in refused.err
    assert "restore good --only database" in refused.err
    assert_untouched(backed_up, before, 1)


def spoil(path: Path, damage: str) -> None:
    content = path.read_bytes()
    changed = {"flipped": bytes([content[0] ^ 1]) + content[1:], "shorter": content[:-1], "longer": content + b"x"}
    facts = path.stat()
    path.write_bytes(changed[damage])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_damage_of_an_upload_that_is_live_already_stops_no_restore(backed_up: SmallApp) -> None:
    before = backed_up.contents()
    backed_up.add_rows(2)
    (backed_up.uploads / "many/2/6.bin").write_bytes(b"scribbled over")
    sealed = backed_up.backups / "good" / UPLOADS_FOLDER / "many/1/5.bin"
    spoil(sealed, "flipped")
    restore_backup(backed_up.settings, plan_restore(backed_up.settings, "good"))
    assert backed_up.contents() == before
    assert [flaw.path for flaw in found_by_verify(backed_up)] == [f"{UPLOADS_FOLDER}/many/1/5.bin"]


def found_by_verify(app: SmallApp) -> list[object]:
    done = verify_backups(app.settings, [store.find(app.settings, "good")])
    return [flaw for one in done for flaw in one.flaws]


@pytest.mark.parametrize("index", ["known", "lost"])
def test_a_change_that_kept_size_and_time_is_taken_back(backed_up: SmallApp, index: str) -> None:
    before = backed_up.contents()
    spoil(backed_up.uploads / "many/1/5.bin", "flipped")
    if index == "lost":
        shutil.rmtree(backed_up.backups / ".state")
    restore_backup(backed_up.settings, plan_restore(backed_up.settings, "good"))
    assert backed_up.contents() == before


@pytest.mark.parametrize("what", ["list gone", "line gone", "list of another backup"])
def test_without_the_checksums_that_were_there_for_the_plan_nothing_changes(backed_up: SmallApp, what: str) -> None:
    create_backup(backed_up.settings, BackupRequest("other"))
    (backed_up.uploads / "many/1/5.bin").write_bytes(b"scribbled over")
    plan, before = plan_restore(backed_up.settings, "good"), backed_up.contents()
    listed = backed_up.backups / "good" / CHECKSUM_FILE
    lines = listed.read_text().splitlines(keepends=True)
    listed.unlink()
    if what == "line gone":
        listed.write_text("".join(line for line in lines if "many/1/5.bin" not in line))
    elif what == "list of another backup":
        listed.write_text("".join(lines).replace(lines[3][:64], "0" * 64).replace(lines[20][:64], "1" * 64))
        spoil(backed_up.uploads / lines[20].split("  ")[1].strip().removeprefix("uploads/"), "flipped")
        before = backed_up.contents()
    with pytest.raises(Damaged):
        restore_backup(backed_up.settings, plan)
    assert_untouched(backed_up, before, 2)


def test_two_names_of_one_file_with_two_checksums_are_damage(app: SmallApp) -> None:
    path = app.write_upload("one", b"content")
    os.link(path, app.uploads / "two")
    create_backup(app.settings, BackupRequest("good"))
    sums = app.backups / "good" / CHECKSUM_FILE
    sums.write_text(re.sub(r"[0-9a-f]{64}  uploads/two", f"{'0' * 64}  uploads/two", sums.read_text()))
    path.unlink()
    (app.uploads / "two").unlink()
    before = app.contents()
    with pytest.raises(Damaged, match=r"uploads/two is not as it was written"):
        restore_backup(app.settings, plan_restore(app.settings, "good"))
    assert_untouched(app, before, 1)


def test_a_live_file_that_is_the_very_file_of_the_backup_hides_no_damage(backed_up: SmallApp) -> None:
    live, sealed = backed_up.uploads / "many/1/5.bin", backed_up.backups / "good" / UPLOADS_FOLDER / "many/1/5.bin"
    live.unlink()
    os.link(sealed, live)
    live.write_bytes(b"written through the link that somebody made")
    before = backed_up.contents()
    with pytest.raises(Damaged, match=r"5\.bin is not as it was written"):
        restore_backup(backed_up.settings, plan_restore(backed_up.settings, "good"))
    assert_untouched(backed_up, before, 1)


def test_plan_and_result_say_how_much_was_verified(backed_up: SmallApp) -> None:
    (backed_up.uploads / "many/1/5.bin").write_bytes(b"scribbled over")
    plan = plan_restore(backed_up.settings, "good")
    assert plan.source.facts and plan.verified_bytes == plan.source.facts.size
    size = sizes(backed_up)["many/1/5.bin"]
    done = restore_backup(backed_up.settings, plan)
    assert done.verified_bytes == plan.source.facts.size + size
    (backed_up.uploads / "many/1/5.bin").write_bytes(b"scribbled over")
    shown = run_here(backed_up, "restore", "good", "--dry-run", check=0)
    assert re.search(rf"verified   database, .*; {size} bytes of uploads while they are copied", shown.out)
