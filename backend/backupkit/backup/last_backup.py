"""`last_backup_at` in a program's own `settings.json`. The other keys belong to the program and are kept."""

from __future__ import annotations

import json
import os
import stat
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from backupkit.fs import disk
from backupkit.model.errors import BackupError

KEY = "last_backup_at"


def read(file: Path, zone: tzinfo | None) -> datetime | None:
    """Return when the last backup was made, or None if the file does not say. A time without an offset is in `zone`."""
    try:
        at = datetime.fromisoformat(_content(file)[KEY])
    except (BackupError, KeyError, TypeError, ValueError):
        return None
    if at.tzinfo:
        return at
    return at.replace(tzinfo=zone) if zone else at.astimezone()


def write(file: Path, at: datetime) -> None:
    """Write the time into the file, and keep its other keys, its mode and its owner.

    Raise `BackupError` if the file cannot be read, since writing it would lose the other keys.
    """
    file = Path(os.path.realpath(file))
    content = {**_content(file), KEY: at.isoformat(timespec="seconds")}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    facts = os.stat(file) if file.exists() else None
    disk.make_folder(file.parent)
    disk.write_file(file, text.encode("utf-8", "surrogatepass"), stat.S_IMODE(facts.st_mode) if facts else 0o644)
    if facts:
        disk.chown_if_root(file, (facts.st_uid, facts.st_gid))


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BackupError(f"{file} cannot be read, and stays as it is: {error}.", hint="Mend it.") from error
    if not isinstance(content, dict):
        raise BackupError(f"{file} holds no JSON object, and stays as it is.", hint="Mend it.")
    return content
