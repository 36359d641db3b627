"""What a file system cannot hold: exFAT, NTFS and shares refuse some names, and links, each with its own error."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backupkit.fs.tree import Form
from backupkit.model.errors import Refused
from backupkit.model.names import printable

ON_ANOTHER_DISK = (
    "Set BACKUP_DIR to a folder on a disk with ext4 or XFS; what is in the present one can be copied there."
)
ELSEWHERE = "Put the uploads on a disk with ext4 or XFS. Or name it in BACKUP_EXCLUDE: a restore then leaves it out."
_NO_NAME = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.EEXIST)
_NO_LINK = (*_NO_NAME, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def is_refused(error: OSError, form: Form, folder: Path) -> bool:
    """Return whether the file system of the folder refused a new entry because of its name, or because it is a link."""
    is_name = error.errno == errno.ENOENT and folder.is_dir()  # so says exFAT
    return is_name or error.errno in (_NO_LINK if form == "link" else _NO_NAME)


def not_held(disk: Path, path: str, form: Form, why: str | None, hint: str) -> Refused:
    """Return the error for the path of an entry that the disk of that folder cannot hold."""
    what = f"the link {printable(path)}" if form == "link" else printable(path)
    return Refused(f"The disk of {disk} cannot hold {what} ({why}).", hint=hint)


@contextmanager
def making(disk: Path, draft: Path, path: str, form: Form, hint: str = ON_ANOTHER_DISK) -> Iterator[None]:
    """Raise `Refused` if that disk cannot hold the entry that the block makes at the path in the draft."""
    try:
        yield
    except OSError as error:
        if not is_refused(error, form, draft / path.rpartition("/")[0]):
            raise
        raise not_held(disk, path, form, error.strerror, hint) from error
