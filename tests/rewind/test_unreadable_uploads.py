"""A point is taken although an upload cannot be read: that one is left as it was in the last point, and is named."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import warm
from backupkit.fs.tree import Entry, Skip, Unreadable
from backupkit.model.errors import SourceUnreadable
from backupkit.rewind import moments
from backupkit.rewind import uploads as live_uploads
from rewind.a_day import assert_restores, rewinding, true_copy
from small_app import SmallApp, clean_environment, tree

TAKE = """
import sys
from datetime import datetime
from pathlib import Path
from backupkit.config.settings import load_settings
from backupkit.rewind import take
app, at = Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2])
rewinder = take.Rewinder(load_settings(app, rewind="30d"), lambda: at)
print(rewinder.look(), *rewinder.unreadable)
"""
FAULTS = {"a bad sector": "read:error=EIO", "an inode that is not sound": "openat:error=EUCLEAN"}


@pytest.mark.needs("strace")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_file_that_cannot_be_read_is_left_as_it_was_and_all_else_is_in_the_point(app: SmallApp, fault: str) -> None:
    bad, new = app.write_upload("1/bad.bin", os.urandom(9_000)), app.write_upload("1/new.bin", b"x")
    _, clock = rewinding(app)
    before = tree(app.uploads)
    for path in (bad, new):
        path.write_bytes(os.urandom(9_000))
    app.add_rows(2)
    call = fault.partition(":")[0]
    failing = ("-P", bad.name, "-P", str(bad), "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}")
    done = warm.run([str(app.folder), clock.now.isoformat()], clean_environment(), program=TAKE, strace=failing)
    assert done.stdout == "taken 1/bad.bin\n", done.stderr
    assert_restores(app, clock.now, true_copy(app), tree(app.uploads) | {"1/bad.bin": before["1/bad.bin"]})
    clock.forward(seconds=60)
    done = warm.run([str(app.folder), clock.now.isoformat()], clean_environment(), program=TAKE)
    assert done.stdout == "taken\n", done.stderr
    assert_restores(app, clock.now, true_copy(app), tree(app.uploads))


def meanwhile(monkeypatch: pytest.MonkeyPatch, path: str, do: Callable[[], None], error: OSError | None = None) -> None:
    """Let something happen when the walk of the uploads comes to that path, which it may find unreadable then."""
    walk = live_uploads.tree.walk

    def walking(root: Path, skip: Skip | None = None, unreadable: Unreadable | None = None) -> Iterator[Entry]:
        for entry in walk(root, skip=skip, unreadable=unreadable):
            if unreadable and entry.path == path:
                do()
                if error:
                    return unreadable(path, error)
            yield entry

    monkeypatch.setattr(live_uploads.tree, "walk", walking)


def test_a_file_that_is_a_link_by_the_time_it_is_opened_is_left_as_it_was(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewinder, clock = rewinding(app)
    before, letter = tree(app.uploads), app.uploads / "1" / "letter.txt"
    letter.write_bytes(b"changed")
    app.add_rows(1)

    def exchange() -> None:
        letter.unlink()
        letter.symlink_to("/etc/passwd")

    with monkeypatch.context() as patched:
        meanwhile(patched, "1/letter.txt", exchange)
        assert rewinder.look() == "taken"
    assert rewinder.unreadable == ("1/letter.txt",)
    found = moments.timeline(app.settings).moments[-1]
    with moments.built(app.settings, found) as backup:
        assert tree(backup.path / "uploads")["1/letter.txt"] == before["1/letter.txt"]
    clock.forward(seconds=60)
    assert rewinder.look() == "taken" and not rewinder.unreadable
    assert_restores(app, clock.now, true_copy(app), tree(app.uploads))


def test_an_uploads_folder_that_goes_away_meanwhile_is_in_no_point(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a disk fails: then it is not about single files."""
    rewinder, clock = rewinding(app)
    assert rewinder.look() == "taken"
    app.add_rows(1)
    clock.forward(seconds=60)
    failed = OSError(errno.EIO, os.strerror(errno.EIO))
    meanwhile(monkeypatch, "1/letter.txt", lambda: os.rename(app.uploads, app.folder / "away"), failed)
    with pytest.raises(SourceUnreadable, match="no uploads folder"):
        rewinder.look()
    assert len(moments.timeline(app.settings).moments) == 2
