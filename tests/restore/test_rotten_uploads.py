"""An upload whose content rotted on the disk, with all times as before, comes back by `extract`, which reads it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from disk_images import until_unmounted
from refusals import run_here
from small_app import SmallApp
from upload_files.test_unreadable import settled, with_failing_reads

GOOD = os.urandom(9_000)


@contextmanager
def on_disk(image: Path, app: SmallApp) -> Iterator[Path]:
    """Mount the image as the uploads; yield the path of the upload that rots."""
    with until_unmounted("ext4", ["mount", "-o", "loop", image, app.uploads]):
        yield app.uploads / "bad.pdf"


def rot(image: Path) -> None:
    """Change some bytes of the upload where they lie on the disk."""
    place = image.read_bytes().index(GOOD[:4096])
    with open(image, "r+b") as file:
        file.seek(place + 100)
        file.write(bytes(100))


@pytest.mark.needs("mkfs.ext4")
def test_a_rotten_upload_is_put_back_where_it_is_named_and_a_restore_goes_by_the_times(app: SmallApp) -> None:
    image = app.folder / "image"
    with open(image, "wb") as file:
        file.truncate(30_000_000)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with on_disk(image, app) as bad:
        bad.write_bytes(GOOD)
        settled(app)
        run_here(app, "backup", "whole", check=0)
    rot(image)
    with on_disk(image, app) as bad:
        assert bad.read_bytes() != GOOD
        assert "the same as in the backup" in run_here(app, "restore", "whole", "--yes", check=0).out
        run_here(app, "extract", "whole", "other.pdf", "--yes", check=10)
        assert bad.read_bytes() != GOOD
        done = run_here(app, "extract", "whole", "bad.pdf", "--yes", check=0)
        assert "Put back from whole: 1 changed" in done.out and bad.read_bytes() == GOOD
        again = run_here(app, "extract", "whole", "bad.pdf", "--yes", check=0)
        assert "the same as in the backup" in again.out
        run_here(app, "undo", "--yes")
        assert bad.read_bytes() == GOOD


@pytest.mark.needs("strace")
def test_an_upload_that_cannot_be_read_is_put_back_where_a_backup_has_it_as_it_is_now(app: SmallApp) -> None:
    bad = app.write_upload("1/bad.bin", GOOD)
    os.utime(bad, ns=(1, 1))
    settled(app)
    app.command("backup", "whole", check=0)
    inode = bad.stat().st_ino
    planned = with_failing_reads(app, bad, "extract", "whole", "1/bad.bin", "--dry-run")
    assert planned.code == 0 and "1 changed" in planned.out, planned.out + planned.err
    done = with_failing_reads(app, bad, "extract", "whole", "1/bad.bin", "--yes")
    assert done.code == 0 and "Put back from whole: 1 changed" in done.out, done.out + done.err
    assert bad.read_bytes() == GOOD and bad.stat().st_ino != inode


@pytest.mark.needs("strace")
def test_an_upload_that_cannot_be_read_and_is_in_no_backup_as_it_is_now_stays(app: SmallApp) -> None:
    bad = app.write_upload("1/bad.bin", GOOD)
    app.command("backup", "whole", check=0)
    bad.write_bytes(GOOD[::-1])
    done = with_failing_reads(app, bad, "extract", "whole", "1/bad.bin", "--yes")
    assert done.code == 3 and "1/bad.bin cannot be read (Input/output error), and stays as it is" in done.err
    assert bad.read_bytes() == GOOD[::-1]
