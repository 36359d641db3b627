"""The kinds of remotes that there are, and the remote of a name."""

from __future__ import annotations

from backupkit.config.remotes import FolderTable, GitTable
from backupkit.config.settings import Settings
from backupkit.model.errors import Refused
from backupkit.remotes.base import Remote


def open_remote(settings: Settings, name: str) -> Remote:
    """The remote of that name in the settings; `Refused` where there is none. Nothing is touched yet."""
    table = settings.remotes.get(name)
    if table is None:
        known = f"There are: {', '.join(settings.remotes)}." if settings.remotes else "Set one up in backup.toml."
        raise Refused(f"There is no remote named {name!r}.", hint=known)
    if isinstance(table, FolderTable):
        from backupkit.remotes.folder import FolderRemote

        return FolderRemote(settings, name, table)
    if isinstance(table, GitTable):
        from backupkit.remotes.git.remote import GitRemote

        return GitRemote(settings, name, table)
    from backupkit.remotes.restic import ResticRemote

    return ResticRemote(settings, name, table)
