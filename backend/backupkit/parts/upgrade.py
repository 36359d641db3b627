"""Alembic's upgrade on one database file, in a process of its own: `python -m backupkit.parts.upgrade …`.

The app's `env.py` decides what it connects to, so it is told in every usual way which file is meant, and while a
copy is migrated the process refuses to open the live database at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

from backupkit.words.errors import BackupError

# Set while the toolkit migrates: the guard in an app's env.py then makes no backup of its own.
REHEARSAL = "BACKUP_REHEARSAL"
_MARK = "backupkit-error: "


class MigrationFailed(BackupError):
    """A migration raised; its own error is in the message."""


def upgrade(ini: Path, database: Path, revision: str, forbidden: Path | None = None, lock: int | None = None) -> None:
    """The database is at that revision, or `MigrationFailed`; what is `forbidden` was not opened.

    `lock` is handed on, so that the lock lasts as long as the migration does even where this process is killed.
    """
    package_root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "backupkit.parts.upgrade", str(ini), str(database), revision, str(forbidden or "")]
    done = subprocess.run(
        command,
        cwd=ini.parent,
        env=_environment(database, package_root),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        pass_fds=() if lock is None else (lock,),
        check=False,
    )
    if done.returncode:
        raise MigrationFailed(
            f"The migration to {revision} failed: {_own_error(done.stdout, done.stderr)}",
            hint="Mend that migration, then try again.",
        )


def _environment(database: Path, package_root: str) -> dict[str, str]:
    search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    told = {"BACKUP_DATABASE": str(database), "DATABASE_URL": f"sqlite:///{database}", REHEARSAL: "1"}
    return {**os.environ, **told, "PYTHONPATH": search}


def _own_error(out: str, err: str) -> str:
    marked = [line.removeprefix(_MARK) for line in out.splitlines() if line.startswith(_MARK)]
    lines = marked or [line for line in err.splitlines() if line.strip()] or ["it ended without a word"]
    return lines[-1]


def _refuse_to_open(forbidden: Path) -> None:
    """From here on this process cannot open that SQLite file."""

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "sqlite3.connect" and _names(arguments[0], forbidden):
            raise PermissionError(
                f"env.py opened the live database {forbidden} while a copy was to be migrated; "
                "let it take its URL from sqlalchemy.url, BACKUP_DATABASE or DATABASE_URL"
            )

    sys.addaudithook(watch)


def _names(database: object, forbidden: Path) -> bool:
    path = os.fsdecode(database) if isinstance(database, str | bytes | os.PathLike) else ""
    if path.startswith("file:"):
        path = unquote(path.removeprefix("file:").partition("?")[0])
        path = "/" + path.lstrip("/") if path.startswith("/") else path
    try:
        return os.path.samefile(path, forbidden)
    except OSError:
        return os.path.realpath(path) == os.path.realpath(forbidden)


def _main(ini: str, database: str, revision: str, forbidden: str) -> None:
    from alembic import command
    from alembic.config import Config

    if forbidden:
        _refuse_to_open(Path(forbidden))
    config = Config(ini)
    config.set_main_option("sqlalchemy.url", f"sqlite:///{database}".replace("%", "%%"))
    sys.path.insert(0, os.getcwd())
    try:
        command.upgrade(config, revision)
    except Exception as error:
        print(_MARK + f"{type(error).__name__}: {error}".replace("\n", " "))
        raise


if __name__ == "__main__":
    _main(*sys.argv[1:])
