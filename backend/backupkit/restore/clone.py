"""Clone a backup into another folder for a colleague or a test system, with its personal data masked.

It is built and masked in a draft that only this user can enter, and is renamed once it is complete. A mask cannot
change uploads, so with a mask they are left out, unless it contains `-- uploads: keep`.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.model.errors import Damaged, NoSuchBackup, Refused
from backupkit.model.names import few
from backupkit.repository import store
from backupkit.restore.lay_out import Layout, plan_layout
from backupkit.sqlite import mask as masks
from backupkit.sqlite.engine import folded
from backupkit.sqlite.mask import Mask

_LONGEST = 1_000_000  # bytes; a longer file is not a mask, but named by mistake
_BEHIND = "The uploads are left out: a mask cannot change them. To include them, add to the mask: -- uploads: keep"


def plan_clone(
    settings: Settings, name: str, target: Path, mask: Path | None = None, with_uploads: bool = True
) -> Layout:
    """Return where the clone would be laid out; `lay_out` carries the plan out.

    Raise what `plan_layout` raises, `NoSuchBackup` if there is no such mask, and `Damaged` if it is not SQL or if the
    backup has no database to mask.
    """
    read = read_mask(settings, mask) if mask else None
    goes_along = with_uploads and (read is None or read.keeps_uploads)
    layout = plan_layout(settings, name, target, None if goes_along else "database")
    if read and layout.database is None:
        raise Damaged(f"{layout.backup.path} holds no database to mask.", hint="Choose another backup: `list`")
    if read:
        revisions = f"{folded(store.require_metadata(layout.backup).version_table)}.*"  # holds no personal data
        read = replace(read, allowed=read.allowed | {revisions})
        behind = tuple(layout.others) or _further_databases(layout)  # the mask is for the main database only
        left_out = (f"The mask is for the main database only; left out: {few(behind)}.",) if behind else ()
        layout = replace(layout, others={}, notes=(*layout.notes, *left_out))
    notes = (_BEHIND,) if with_uploads and not goes_along else ()
    return replace(layout, mask=read, notes=(*layout.notes, *notes))


def _further_databases(layout: Layout) -> tuple[str, ...]:
    metadata = store.require_metadata(layout.backup)
    alone = ((name, metadata.at(name)) for name in metadata.others if "/" not in name)
    return tuple(name for name, one in alone if one and one.database_file)


def read_mask(settings: Settings, file: Path) -> Mask:
    """Read and parse the mask in the file; a relative path starts in the app's folder, as in the settings.

    Raise `NoSuchBackup` if there is no such file, `Refused` for a folder, and `Damaged` if it is too long or no mask.
    """
    path = settings.app_dir / file.expanduser()
    try:
        with open(path, "rb") as opened:
            content = opened.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise Damaged(f"The mask {path} is longer than a megabyte.", hint="Name the mask itself.")
        return masks.parse(content.decode(), str(path))
    except FileNotFoundError as error:
        hint = "A relative path starts in the app's folder; a container sees no other folder of this machine."
        raise NoSuchBackup(f"There is no mask at {path}.", hint) from error
    except IsADirectoryError as error:
        raise Refused(f"{path} is a folder, not a mask.", hint="Name a file with SQL.") from error
    except UnicodeDecodeError as error:
        raise Damaged(f"The mask {path} is not UTF-8 text.", hint="Save it as UTF-8 text.") from error
