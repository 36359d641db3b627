"""ACLs, extended attributes and file capabilities: what a copy needs beside content, owner, mode and times.

Linux has them; elsewhere nothing here is found, and nothing is lost. What belongs to a system and not to a file
(labels of SELinux, marks of overlay file systems) is left alone.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backupkit.fs import disk, tree
from backupkit.model.names import printable

Attributes = Mapping[str, bytes]
"""The values by their names, as the kernel has them."""

CAPABILITY = "security.capability"
NOTHING: Attributes = {}
_ACCESS, _DEFAULT, _USER = "system.posix_acl_access", "system.posix_acl_default", "user."
_HAS_ANY = hasattr(os, "listxattr")
_NONE_HERE = (errno.EOPNOTSUPP, errno.ENOSYS)
# The file system has no such thing, we may not set it, or it does not fit.
_NOT_KEPT = (*_NONE_HERE, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG, errno.ERANGE)


def of_open(where: int | str) -> Attributes:
    """What the open file or folder has of them (`descriptors.place_of`); `OSError` where it cannot be read."""
    if not _HAS_ANY:
        return NOTHING
    try:
        names = os.listxattr(where)
        return {name: os.getxattr(where, name) for name in names if is_kept(name)} if names else NOTHING
    except OSError as error:
        return _nothing_or(error)


def of_name(name: str, folder: int) -> Attributes:
    """The same for a name in an open folder; a link has none, and is not followed."""
    if not _HAS_ANY:
        return NOTHING
    where = f"/proc/self/fd/{folder}/{name}"
    try:
        names = os.listxattr(where, follow_symlinks=False)
        return {one: os.getxattr(where, one, follow_symlinks=False) for one in names if is_kept(one)}
    except OSError as error:
        return _nothing_or(error)


def names(root: Path, path: str, parents: tree.Parents) -> list[str]:
    """The names of those of a file or folder below the root, which the parents are of too."""
    if not _HAS_ANY:
        return []
    try:
        found = os.listxattr(f"{root}/{path}", follow_symlinks=False)
        return [name for name in found if is_kept(name)] if found else found
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return list(_nothing_or(error))
    with parents.of(path) as (folder, name):
        return list(of_name(name, folder))


def _nothing_or(error: OSError) -> Attributes:
    if error.errno in _NONE_HERE:
        return NOTHING
    raise error


def is_kept(name: str) -> bool:
    """Whether an attribute of that name belongs to the file, and is to be kept."""
    return name.startswith(_USER) or name in (_ACCESS, _DEFAULT, CAPABILITY)


def kind_of(name: str) -> str:
    """What people call it."""
    if name == CAPABILITY:
        return "file capabilities"
    return "ACLs" if name in (_ACCESS, _DEFAULT) else "extended attributes"


def missing_kinds(folder: Path) -> list[str]:
    """The kinds that no file in that folder can have, as far as that can be told without setting one."""
    return [kind_of(name) for name in (_ACCESS, f"{_USER}backupkit") if not _is_possible(str(folder), name)]


def _is_possible(folder: str, name: str) -> bool:
    try:
        return _HAS_ANY and os.getxattr(folder, name) is not None
    except OSError as error:
        return error.errno not in _NONE_HERE


def has_hard_links(folder: Path) -> bool:
    """Whether a file in that folder can have two names: tried there, and nothing is left of it."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=disk.DRAFT_PREFIX) as file:
            os.link(file.name, f"{file.name}-2")
            os.unlink(f"{file.name}-2")
            return True
    except OSError:
        return False


@dataclass
class Keeper:
    """Gives copies their attributes, as far as their file system can keep them, and counts what it cannot.

    `kept` and `lost` are numbers of attributes, `first` is the path of the first that was not kept.
    """

    kept: int = 0
    lost: int = 0
    first: str = ""
    _unable: set[str] = field(default_factory=set)

    def set(self, where: int | str, wanted: Attributes, path: str) -> None:
        """The open copy has these attributes and no other, not even what a new file takes from the folder it is in.

        It has its owner and its mode already: a change of owner takes capabilities away. The mode stays.
        """
        if (there := of_open(where)) == wanted:  # mostly there are none
            return self.count(wanted, wanted, path)
        mode = stat.S_IMODE(os.stat(where).st_mode)
        os.chmod(where, mode | 0o600)  # only what may be written to can be given any
        for name in there.keys() - wanted.keys():
            os.removexattr(where, name)
        kept = [name for name in wanted if self._set(where, name, wanted[name], there)]
        os.chmod(where, mode)  # an ACL has a say in it too, and says the same
        self.count(wanted, kept, path)

    def can_keep(self, wanted: Attributes) -> Attributes:
        """Of these, the ones of a kind that was not refused yet."""
        return {name: value for name, value in wanted.items() if kind_of(name) not in self._unable}

    def count(self, wanted: Attributes, kept: Collection[str], path: str) -> None:
        """The copy of the file at that path has these of the wanted ones."""
        held = len(kept)
        self.kept += held
        self.lost += len(wanted) - held
        if held < len(wanted) and not self.first:
            self.first = path

    def sentence(self, where: str) -> str:
        """What could not be kept where `where` (the backups, the uploads) are; for a person."""
        return (
            f"{self.lost} ACLs, extended attributes or file capabilities of uploads cannot be kept where {where} are; "
            f"the first is one of {printable(self.first)}."
        )

    def _set(self, where: int | str, name: str, value: bytes, there: Attributes) -> bool:
        if there.get(name) == value:
            return True
        if kind_of(name) in self._unable:
            return False
        try:
            os.setxattr(where, name, value)
        except OSError as error:
            if error.errno not in _NOT_KEPT:
                raise
            if error.errno in (*_NONE_HERE, errno.EPERM):
                self._unable.add(kind_of(name))
            return False
        return True
