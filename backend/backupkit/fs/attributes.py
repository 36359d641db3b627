"""ACLs, extended attributes and file capabilities: what a copy needs beside content, owner, mode and times.

Python reads them on Linux only; elsewhere none are found, and none count as lost. Attributes that belong to a system
and not to a file (SELinux labels, marks of overlay file systems) are left alone.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backupkit.fs import descriptors, disk, tree
from backupkit.model.names import printable

Attributes = Mapping[str, bytes]
"""Values by attribute name, in the kernel's form."""

CAPABILITY = "security.capability"
NOTHING: Attributes = {}
_ACCESS, _DEFAULT, _USER = "system.posix_acl_access", "system.posix_acl_default", "user."
_ANOTHER = (1, 1)  # user and group other than root
_HAS_ANY = hasattr(os, "listxattr")
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)
# The file system does not support the attribute, we may not set it, or it does not fit.
_CANNOT_SET = (*_UNSUPPORTED, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG, errno.ERANGE)


def of_open(where: int | str) -> Attributes:
    """Return the attributes of an open file or folder (`descriptors.place_of`); raise `OSError` if that fails."""
    if not _HAS_ANY:
        return NOTHING
    try:
        names = os.listxattr(where)
        return {name: os.getxattr(where, name) for name in names if is_kept(name)} if names else NOTHING
    except OSError as error:
        return _nothing_if_unsupported(error)


def of_name(name: str, folder: int) -> Attributes:
    """Do the same for a name in an open folder; a link is not followed, and has none."""
    if not _HAS_ANY:
        return NOTHING
    where = f"/proc/self/fd/{folder}/{name}"
    try:
        names = os.listxattr(where, follow_symlinks=False)
        return {one: os.getxattr(where, one, follow_symlinks=False) for one in names if is_kept(one)}
    except OSError as error:
        return _nothing_if_unsupported(error)


def names(root: Path, path: str, parents: tree.Parents) -> list[str]:
    """Return the attribute names of a file or folder below the root; `parents` has the same root."""
    if not _HAS_ANY:
        return []
    try:
        found = os.listxattr(f"{root}/{path}", follow_symlinks=False)
        return [name for name in found if is_kept(name)] if found else found
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return list(_nothing_if_unsupported(error))
    with parents.of(path) as (folder, name):
        return list(of_name(name, folder))


def _nothing_if_unsupported(error: OSError) -> Attributes:
    if error.errno in _UNSUPPORTED:
        return NOTHING
    raise error


def is_kept(name: str) -> bool:
    """Return whether an attribute of this name belongs to the file, and so is kept in copies."""
    return name.startswith(_USER) or name in (_ACCESS, _DEFAULT, CAPABILITY)


def kind_of(name: str) -> str:
    """Return the name of the attribute's kind, for messages."""
    if name == CAPABILITY:
        return "file capabilities"
    return "ACLs" if name in (_ACCESS, _DEFAULT) else "extended attributes"


def missing_kinds(folder: Path) -> list[str]:
    """Return the kinds that no file in the folder can have, as far as that can be told without setting one."""
    return [kind_of(name) for name in (_ACCESS, f"{_USER}backupkit") if not _is_possible(str(folder), name)]


def _is_possible(folder: str, name: str) -> bool:
    try:
        return _HAS_ANY and os.getxattr(folder, name) is not None
    except OSError as error:
        return error.errno not in _UNSUPPORTED


def has_hard_links(folder: Path) -> bool:
    """Return whether a file in the folder can have two names; this is tried with a temporary file."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=disk.DRAFT_PREFIX) as file:
            os.link(file.name, f"{file.name}-2")
            is_seen = os.path.samestat(os.stat(file.name), os.stat(f"{file.name}-2"))
            os.unlink(f"{file.name}-2")
            return is_seen
    except OSError:
        return False


def missing_rights(folder: Path) -> tuple[str, ...]:
    """Return which of modes and owners no file in the folder can keep; this is tried with a file without a name.

    Owners are tried as root only, who alone may set them. Where nothing can be written, nothing counts as missing.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=disk.DRAFT_PREFIX) as file:
            keeps = {"modes": _keeps_modes(file.fileno()), "owners": _keeps_owners(file.fileno())}
            return tuple(kind for kind, is_kept in keeps.items() if not is_kept)
    except OSError:
        return ()


def _keeps_modes(handle: int) -> bool:
    def keeps(mode: int) -> bool:
        with descriptors.keeping_what_it_can():
            os.fchmod(handle, mode)
        return stat.S_IMODE(os.fstat(handle).st_mode) == mode

    return keeps(0o640) and keeps(0o600)


def _keeps_owners(handle: int) -> bool:
    if os.geteuid() != 0:
        return True
    try:
        os.fchown(handle, *_ANOTHER)
    except OSError as error:
        has_one_user = error.errno == errno.EINVAL  # in this container
        return has_one_user or error.errno not in descriptors.NOT_KEPT
    facts = os.fstat(handle)
    return (facts.st_uid, facts.st_gid) == _ANOTHER


@dataclass
class Keeper:
    """A setter of attributes on copies, as far as their file system can keep them; it counts what it cannot.

    `kept` and `lost` are numbers of attributes, `first` is the path of the first file that lost one.
    """

    kept: int = 0
    lost: int = 0
    first: str = ""
    _unable: set[str] = field(default_factory=set)

    def set(self, where: int | str, wanted: Attributes, path: str) -> None:
        """Give the open copy exactly these attributes: those that it inherited from its folder are removed.

        It must have its owner and its mode already, because a change of owner clears capabilities. The mode stays.
        """
        if (there := of_open(where)) == wanted:  # the usual case: neither has any
            return self.count(wanted, wanted, path)
        mode = stat.S_IMODE(os.stat(where).st_mode)
        if mode | 0o600 != mode:
            os.chmod(where, mode | 0o600)  # setting an attribute needs write permission
        for name in there.keys() - wanted.keys():
            os.removexattr(where, name)
        kept = [name for name in wanted if self._set(where, name, wanted[name], there)]
        if stat.S_IMODE(os.stat(where).st_mode) != mode:
            os.chmod(where, mode)  # the ACL may have changed it, and agrees with this one
        self.count(wanted, kept, path)

    def can_keep(self, wanted: Attributes) -> Attributes:
        """Return the wanted attributes whose kind the file system has not refused yet."""
        return {name: value for name, value in wanted.items() if kind_of(name) not in self._unable}

    def count(self, wanted: Attributes, kept: Collection[str], path: str) -> None:
        """Count which of the wanted attributes the copy of the file at that path has."""
        held = len(kept)
        self.kept += held
        self.lost += len(wanted) - held
        if held < len(wanted) and not self.first:
            self.first = path

    def sentence(self, where: str) -> str:
        """Return a message on what was not kept; `where` names the copies' folder ("the backups", "the uploads")."""
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
            if error.errno not in _CANNOT_SET:
                raise
            if error.errno in (*_UNSUPPORTED, errno.EPERM):
                self._unable.add(kind_of(name))
            return False
        return True
