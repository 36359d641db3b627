"""A restore without a question reads each byte of a backup once, and only what comes back.

It finds damage in that before anything changes. A question is asked only after the whole backup was read.
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
from backupkit.cli.tasks import RestoreRequest
from backupkit.model.backup import CHECKSUM_FILE, STAGING, UPLOADS_FOLDER, BackupRequest
from backupkit.model.errors import Damaged
from backupkit.model.events import silence
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.verify.verify import verify_backups
from refusals import run_here
from several import extend
from small_app import COMMAND, Contents, SmallApp, clean_environment
from terminal import at_a_terminal

READS = "read,readv,pread64,preadv,preadv2,copy_file_range,sendfile,mmap"
MANY = 60


@pytest.fixture
def backed_up(app: SmallApp) -> SmallApp:
    """An app with uploads in a few folders, and its backup `good`."""
    for number in range(MANY):
        app.write_upload(f"many/{number % 4}/{number}.bin", f"{number} ".encode() * (number + 1))
    create_backup(app.settings, BackupRequest("good"))
    return app


def bytes_read(app: SmallApp, trace: Path, *argv: str) -> Counter[str]:
    """Return how many bytes the command read of each upload in the backup `good`, by its path there."""
    environment = {**clean_environment(), "BACKUP_APP_DIR": str(app.folder)}
    traced = [
        "strace",
        "-f",
        "-y",
        "-qq",
        "--seccomp-bpf",
        "-e",
        f"trace={READS}",
        "-e",
        "signal=none",
        "-o",
        str(trace),
    ]
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
    """Assert that live data and backups are as before and nothing is staged; a safety copy may have been made."""
    assert app.contents() == before
    assert len([one for one in store.all_backups(app.settings) if one.kind != "pre_restore"]) == backups
    assert not list(app.folder.rglob(STAGING)) and not list(app.backups.glob(".draft-*"))
    assert not (app.backups / ".journal").exists()


@pytest.mark.needs("strace")
def test_what_comes_back_is_read_once_and_nothing_else(backed_up: SmallApp, tmp_path: Path) -> None:
    before, restore = backed_up.contents(), ("restore", "good", "--force", "--only", "uploads")
    shutil.rmtree(backed_up.uploads)
    backed_up.uploads.mkdir()
    assert bytes_read(backed_up, tmp_path / "trace", *restore) == sizes(backed_up)

    (backed_up.uploads / "many/1/5.bin").write_bytes(b"scribbled over")
    (backed_up.uploads / "many/2/6.bin").unlink()
    anew = backed_up.uploads / "many/3/7.bin"
    content = anew.read_bytes()
    anew.unlink()
    anew.write_bytes(content)
    shutil.rmtree(backed_up.backups / ".state")
    read = bytes_read(backed_up, tmp_path / "trace", *restore)
    # The live 7.bin is right but for its time. A file that somebody wrote to in the backup has another time too: it is
    # therefore read for the plan, before a safety copy is made, and again.
    size = sizes(backed_up)
    again = {"many/3/7.bin": 2 * size["many/3/7.bin"]}
    assert read == again | {path: size[path] for path in ("many/1/5.bin", "many/2/6.bin")}
    assert backed_up.contents() == before


@pytest.mark.parametrize(
    ("damage", "index"), [("flipped", "known"), ("flipped", "lost"), ("shorter", "known"), ("longer", "lost")]
)
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


def test_what_was_written_to_in_the_backup_is_refused_though_it_is_live_already(backed_up: SmallApp) -> None:
    (backed_up.backups / "good" / UPLOADS_FOLDER / "many/1/5.bin").write_bytes(b"scribbled over")
    before = backed_up.contents()
    refused = run_here(backed_up, "restore", "good", "--force", check=12)
    assert "many/1/5.bin is not as it was written" in refused.err
    assert backed_up.contents() == before


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
    restore_backup(backed_up.settings, plan_restore(backed_up.settings, "good", verify_while_staging=True))
    assert backed_up.contents() == before
    assert [flaw.path for flaw in found_by_verify(backed_up)] == [f"{UPLOADS_FOLDER}/many/1/5.bin"]


def found_by_verify(app: SmallApp) -> list[object]:
    done = verify_backups(app.settings, [store.find(app.settings, "good")])
    return [flaw for one in done for flaw in one.flaws]


@pytest.mark.parametrize("is_short", [True, False])
@pytest.mark.parametrize("index", ["known", "lost"])
def test_a_change_that_kept_size_and_time_is_taken_back(backed_up: SmallApp, index: str, is_short: bool) -> None:
    before = backed_up.contents()
    spoil(backed_up.uploads / "many/1/5.bin", "flipped")
    if index == "lost":
        shutil.rmtree(backed_up.backups / ".state")
    restore_backup(backed_up.settings, plan_restore(backed_up.settings, "good", verify_while_staging=is_short))
    assert backed_up.contents() == before


@pytest.mark.parametrize("is_short", [True, False])
@pytest.mark.parametrize("what", ["list gone", "line gone", "list of another backup"])
def test_without_the_checksums_that_were_there_for_the_plan_nothing_changes(
    backed_up: SmallApp, what: str, is_short: bool
) -> None:
    create_backup(backed_up.settings, BackupRequest("other"))
    (backed_up.uploads / "many/1/5.bin").write_bytes(b"scribbled over")
    plan = plan_restore(backed_up.settings, "good", verify_while_staging=is_short)
    before = backed_up.contents()
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
        restore_backup(app.settings, plan_restore(app.settings, "good", verify_while_staging=True))
    assert_untouched(app, before, 1)


def test_a_live_file_that_is_the_very_file_of_the_backup_hides_no_damage(backed_up: SmallApp) -> None:
    live, sealed = backed_up.uploads / "many/1/5.bin", backed_up.backups / "good" / UPLOADS_FOLDER / "many/1/5.bin"
    live.unlink()
    os.link(sealed, live)
    live.write_bytes(b"written through the link that somebody made")
    before = backed_up.contents()
    with pytest.raises(Damaged, match=r"5\.bin is not as it was written"):
        restore_backup(backed_up.settings, plan_restore(backed_up.settings, "good", verify_while_staging=True))
    assert_untouched(backed_up, before, 1)


def test_the_plan_says_what_is_verified_and_when(backed_up: SmallApp) -> None:
    (backed_up.uploads / "many/1/5.bin").write_bytes(b"scribbled over")
    shown = run_here(backed_up, "restore", "good", "--dry-run", check=0)
    assert "  verified   all of it\n" in shown.out
    shown = run_here(backed_up, "restore", "good", "--yes", check=0)
    size = sizes(backed_up)["many/1/5.bin"]
    assert f"  verified   all that is used; {size} bytes of uploads while they are copied" in shown.err


@pytest.mark.parametrize(
    "asking",
    [
        ("restore", "good"),
        ("restore", "good", "--yes"),
        ("restore", "good", "--force"),
        ("restore", "good", "--only", "uploads"),
        ("extract", "good", "many/2/6.bin"),
        ("extract", "good", "many/2/6.bin", "--yes"),
        ("undo",),
        ("undo", "--yes"),
    ],
)
def test_who_only_asks_is_told_of_damage_anywhere(backed_up: SmallApp, asking: tuple[str, ...]) -> None:
    damage_what_is_live_already(backed_up, asking)
    asked = run_here(backed_up, *asking, "--dry-run", check=12)
    assert "uploads/many/1/5.bin is not as it was written; nothing was changed." in asked.err and not asked.out


def damage_what_is_live_already(app: SmallApp, asking: tuple[str, ...]) -> None:
    """Damage one upload of the backup that `asking` names but the restore does not need: it is live already."""
    name = "good"
    if asking[0] == "undo":
        app.add_rows(1)
        run_here(app, "restore", "good", "--force", check=0)
        (name,) = (one.name for one in store.all_backups(app.settings) if one.kind == "pre_restore")
    (app.uploads / "many/2/6.bin").write_bytes(b"scribbled over")
    spoil(app.backups / name / UPLOADS_FOLDER / "many/1/5.bin", "flipped")


@pytest.mark.parametrize(
    "asking",
    [("restore", "good"), ("restore", "good", "--only", "uploads"), ("extract", "good", "many/2/6.bin"), ("undo",)],
)
def test_nobody_is_asked_about_bytes_that_were_not_looked_at(backed_up: SmallApp, asking: tuple[str, ...]) -> None:
    damage_what_is_live_already(backed_up, asking)
    before, kept = backed_up.contents(), len(store.all_backups(backed_up.settings))
    seen = at_a_terminal(backed_up, *asking, answer=b"y\n")
    assert seen.code == 12 and "[y/N]" not in seen.text and "many/1/5.bin is not as it was written" in seen.text
    assert backed_up.contents() == before and len(store.all_backups(backed_up.settings)) == kept
    run_here(backed_up, *asking, "--yes", check=0)  # no damage in what it needs


@pytest.mark.parametrize("force", [True, False])
def test_what_the_pages_and_the_terminal_interface_show_was_verified(backed_up: SmallApp, force: bool) -> None:
    damage_what_is_live_already(backed_up, ("restore",))
    with pytest.raises(Damaged, match=r"many/1/5\.bin is not as it was written"):
        RestoreRequest("good", force=force).plan(backed_up.settings, silence)


def test_who_agrees_at_a_terminal_gets_the_backup(backed_up: SmallApp) -> None:
    before = backed_up.contents()
    (backed_up.uploads / "many/2/6.bin").write_bytes(b"scribbled over")
    seen = at_a_terminal(backed_up, "restore", "good", answer=b"y\n")
    assert (
        seen.code == 0
        and "verified   all of it" in seen.text
        and seen.text.index("verified") < seen.text.index("[y/N]")
    )
    assert backed_up.contents() == before


def test_damage_in_a_further_tree_is_found_before_anything_changes(app: SmallApp) -> None:
    several = extend(app)
    upload = several.media / "picture.jpg"
    upload.write_bytes(b"before")
    create_backup(several.settings, BackupRequest("good"))
    upload.write_bytes(b"after")
    several.add_rows(2)
    before = several.everything()
    spoil(several.backups / "good" / "media" / "picture.jpg", "flipped")
    with pytest.raises(Damaged, match=r"media/picture\.jpg is not as it was written; nothing was changed"):
        restore_backup(several.settings, plan_restore(several.settings, "good", verify_while_staging=True))
    assert several.everything() == before
    assert not list(several.folder.rglob(STAGING))
