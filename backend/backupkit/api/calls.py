"""The calls for programs: five that never raise, for an app folder or for a plain database; errors go to the log.

They may be made from any thread of the process that has the database open, at start-up too: the database is accessed
through SQLite alone.
"""

from __future__ import annotations

import logging
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack
from zoneinfo import ZoneInfo

from backupkit.backup import single_file as single_files
from backupkit.backup.create import create_backup
from backupkit.backup.create import create_backup_if_needed as create_if_needed
from backupkit.backup.make import Created
from backupkit.backup.single_file import MAX_BACKUPS, SingleFileConfig
from backupkit.config.settings import SETTINGS_FILE, Settings, load_settings
from backupkit.model.backup import Backup, BackupRequest
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import BackupError, NoSuchBackup, Refused
from backupkit.model.events import Event, Notice, Waiting, Warned
from backupkit.monitoring import status
from backupkit.monitoring.notify.run_report import RunReport, reported
from backupkit.repository import store
from backupkit.restore import recovery, unfinished
from backupkit.restore.copy_beside import restore_with_copy_beside
from backupkit.restore.restore import plan_restore

Place = str | os.PathLike[str]
T = TypeVar("T")

NEVER = "—"
_DISPLAY = "%d/%m/%Y %H:%M"
_log = logging.getLogger("backupkit.api")


class Protectable(ABC):
    """An app or a database to back up. The five calls return None, False, [] or "—" if they fail, and log why."""

    def create_backup_now(self) -> Path | None:
        """Make a backup, and return its path, whole and on disk; None if that fails, and then nothing is left of it."""
        return self._or_logged("create_backup_now", self.back_up, None)

    def create_backup_if_needed(self) -> Path | None:
        """Make a backup, and return its path; None if there is one of today already, or if that fails.

        If several threads and processes ask at once, one of them makes it.
        """
        return self._or_logged("create_backup_if_needed", self.back_up_if_needed, None)

    def list_backups(self) -> list[dict[str, Any]]:
        """Return the backups, newest first: `path`, `name`, `display` (`dd/mm/yyyy hh:mm`), and `size` in bytes."""
        return self._or_logged("list_backups", self.listed, [])

    def restore_backup(self, path: Place) -> bool:
        """Restore that backup, all of it or nothing; return whether that worked.

        The live database is first copied beside itself.
        """

        def restore() -> bool:
            self.put_back(Path(path))
            return True

        return self._or_logged("restore_backup", restore, False)

    def get_last_backup_display(self) -> str:
        """Return when the last backup was made, as `04/03/2026 09:30`; "—" if there is none.

        In an app folder it is the one that `status` names: of this app, usable, not dated in the future.
        """
        return self._or_logged("get_last_backup_display", lambda: _shown(self.last_moment()), NEVER)

    def _or_logged(self, call: str, action: Callable[[], T], otherwise: T) -> T:
        try:
            return action()
        except BackupError as error:
            _log.error("%s failed: %s", call, " ".join(filter(None, (error.message, self._hint_of(error)))))
        except (OSError, subprocess.SubprocessError) as error:
            _log.error("%s failed: %s", call, error)
        except Exception:  # a bug of ours must not end the program that only wanted a backup
            _log.exception("%s failed", call)
        return otherwise

    def _hint_of(self, error: BackupError) -> str:
        """Return what to do about the error, as far as that can be done here."""
        return error.hint

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The backups folder."""

    @abstractmethod
    def back_up(self, note: str = "") -> Path:
        """Make a backup, and return its path; raise `BackupError` or `OSError`. `note` says what it was made for."""

    @abstractmethod
    def back_up_if_needed(self) -> Path | None:
        """Make a backup if there is none of today, and return its path, else None; raise as `back_up` does."""

    @abstractmethod
    def listed(self) -> list[dict[str, Any]]:
        """Do what `list_backups` does, but raise if that fails."""

    @abstractmethod
    def put_back(self, path: Path, force: bool = False) -> None:
        """Do what `restore_backup` does, but raise; with `force`, restore also what it would refuse, if that is sound.

        That is a backup of a revision that this code does not know, or of a plain database with other tables.
        """

    @abstractmethod
    def last_moment(self) -> datetime | None:
        """Return when the last backup was made, in the time zone; None if there is none."""


@dataclass(frozen=True)
class PlainDatabase(Protectable):
    """One SQLite file, and its backups as single files `backup_YYYYMMDD_HHMMSS.db`.

    `backups` is their folder (by default `backups` beside the database); the newest `max_backups` stay. The time of the
    last one is written into `settings_file` (by default `settings.json` beside the database), whose other keys stay.
    Days and names are in `timezone`, an IANA name (by default the machine's own). `timeout` is how many seconds a call
    waits for a locked database, and for another call that is still running.
    """

    path: Place
    backups: Place | None = None
    settings_file: Place | None = None
    max_backups: int = MAX_BACKUPS
    timezone: str | None = None
    timeout: float = 10
    clock: Clock = utc_now

    def _hint_of(self, error: BackupError) -> str:
        return "" if "`" in error.hint or "BACKUP_" in error.hint else error.hint  # an app folder has those, not a file

    @property
    def folder(self) -> Path:
        return self._plain.backups

    def back_up(self, note: str = "") -> Path:
        return single_files.create_single(self._plain, _log_event, self.clock)

    def back_up_if_needed(self) -> Path | None:
        return single_files.create_single_if_needed(self._plain, _log_event, self.clock)

    def listed(self) -> list[dict[str, Any]]:
        return [_entry(one.path, one.at, one.size) for one in single_files.own_backups(self._plain)]

    def put_back(self, path: Path, force: bool = False) -> None:
        single_files.restore_single(self._plain, path, _log_event, self.clock, force)

    def last_moment(self) -> datetime | None:
        at = single_files.last_backup_moment(self._plain)
        return at and self._plain.local(at)

    @property
    def _plain(self) -> SingleFileConfig:
        if self.max_backups < 1:
            raise Refused(f"{self.max_backups} is not a number of backups to keep.", hint="max_backups is 1 or more.")
        database = Path(os.path.realpath(Path(self.path).expanduser()))
        return SingleFileConfig(
            database=database,
            backups=_absolute(self.backups or database.parent / "backups"),
            settings_file=_absolute(self.settings_file or database.parent / "settings.json"),
            max_backups=self.max_backups,
            zone=_zone(self.timezone),
            timeout=self.timeout,
        )


@dataclass(frozen=True)
class AppFolder(Protectable):
    """An app with its settings: its database and uploads, one folder for each backup, as the commands make them.

    `app_dir` is the folder with `backup.toml` or `alembic.ini`; by default the current folder if it has one of them,
    else the one that the toolkit was copied into. `settings`, if given, are used, and `app_dir` is ignored.
    """

    app_dir: Place | None = None
    settings: Settings | None = None
    clock: Clock = utc_now

    @property
    def folder(self) -> Path:
        return self._settings.dir

    def back_up(self, note: str = "") -> Path:
        # A backup that a person asks for is kept for good; one that an operation asks for may be deleted later.
        request = BackupRequest(kind="auto", note=note, pin_until_next=True) if note else BackupRequest()
        with self._reported("backup") as report:
            return _path_of(create_backup(self._settings, request, report.emit, self.clock), report)

    def back_up_if_needed(self) -> Path | None:
        with self._reported("backup") as report:
            made = create_if_needed(self._settings, BackupRequest(kind="scheduled"), report.emit, self.clock)
            report.is_idle = made is None
            return _path_of(made, report) if made else None

    def listed(self) -> list[dict[str, Any]]:
        settings = self._settings
        if what := unfinished.describe(settings):
            _log.warning("%s", what)
        return [_entry(one.path, self._made(one), one.size_bytes) for one in store.all_backups(settings)]

    def put_back(self, path: Path, force: bool = False) -> None:
        settings = self._settings
        name = _name_in(settings.dir, path)
        with self._reported("restore") as report:
            recovery.recover(settings, report.emit)
            plan = plan_restore(settings, name, force=force, emit=report.emit, verify_while_staging=True)
            restore_with_copy_beside(settings, plan, report.emit, self.clock)
            report.lines.append(f"{name} is restored.")

    def last_moment(self) -> datetime | None:
        last = status.last_backup(self._settings, self.clock)
        return self._made(last) if last else None

    @contextmanager
    def _reported(self, command: str) -> Iterator[RunReport]:
        """Send the notifications and the ping of the settings, as for a command that nobody watches."""
        with reported(self._settings, command, _log_event) as report:
            try:
                yield report
            except BackupError:
                import backupkit.cli.commands  # noqa: F401 - registers the commands, to complete a hint that names one

                raise

    def _made(self, backup: Backup) -> datetime | None:
        return self._settings.local(backup.metadata.created_at) if backup.metadata else None

    @cached_property
    def _settings(self) -> Settings:
        return self.settings or load_settings(_absolute(self.app_dir) if self.app_dir else _default_app_dir())


class Options(TypedDict, total=False):
    """The options of the five functions: the fields of `PlainDatabase`, or without a database those of `AppFolder`."""

    app_dir: Place
    backups: Place | None
    settings_file: Place | None
    max_backups: int
    timezone: str | None
    timeout: float
    clock: Clock


def place(database: Place | None = None, **options: Unpack[Options]) -> Protectable:
    """Return the plain database if one is named, else the app folder; raise `TypeError` for an option of the other."""
    given: Any = options
    return AppFolder(**given) if database is None else PlainDatabase(database, **given)


def create_backup_now(database: Place | None = None, **options: Unpack[Options]) -> Path | None:
    """Make a backup of the plain database, or without one of the app, and return its path; None if that fails.

    The log says why. `options` are fields of `PlainDatabase`, or of `AppFolder`. Raise `TypeError` for any other
    option.
    """
    return place(database, **options).create_backup_now()


def create_backup_if_needed(database: Place | None = None, **options: Unpack[Options]) -> Path | None:
    """Make a backup unless there is one of today, and return its path; None if there is, or if that fails.

    Arguments and errors are as in `create_backup_now`.
    """
    return place(database, **options).create_backup_if_needed()


def list_backups(database: Place | None = None, **options: Unpack[Options]) -> list[dict[str, Any]]:
    """Return the backups, newest first: `path`, `name`, `display` (`dd/mm/yyyy hh:mm`), and `size` in bytes.

    The list is empty if that fails. Arguments and errors are as in `create_backup_now`.
    """
    return place(database, **options).list_backups()


def restore_backup(path: Place, database: Place | None = None, **options: Unpack[Options]) -> bool:
    """Restore that backup, a path or a name, and return True; return False if that fails: then everything is as it was.

    The live database is first copied beside itself. Other arguments and errors are as in `create_backup_now`.
    """
    return place(database, **options).restore_backup(path)


def get_last_backup_display(database: Place | None = None, **options: Unpack[Options]) -> str:
    """Return when the last backup was made, as `04/03/2026 09:30`; "—" if there is none, or if that fails.

    Arguments and errors are as in `create_backup_now`.
    """
    return place(database, **options).get_last_backup_display()


def _log_event(event: Event) -> None:
    if isinstance(event, Warned):
        _log.warning("%s", event.text)
    elif isinstance(event, Notice):
        _log.info("%s", event.text)
    elif isinstance(event, Waiting):
        _log.info("%s", event.what)


def _path_of(made: Created, report: RunReport) -> Path:
    report.lines.append(f"The backup is {made.backup.path}.")
    return made.backup.path


def _entry(path: Path, at: datetime | None, size: int) -> dict[str, Any]:
    return {"path": path, "name": path.name, "display": _shown(at), "size": size}


def _shown(at: datetime | None) -> str:
    return at.strftime(_DISPLAY) if at else NEVER


def _name_in(backups: Path, path: Path) -> str:
    """Return the name of the backup at that path, or of that name; raise `NoSuchBackup` if it lies elsewhere."""
    if len(path.parts) > 1 and os.path.realpath(path.expanduser().parent) != os.path.realpath(backups):
        raise NoSuchBackup(f"{path} is not in {backups}.", hint="list_backups() tells which backups there are.")
    return path.name


def _absolute(path: Place) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError) as error:
        raise Refused(f"{name!r} is not a time zone.", hint="Use a name like Europe/Berlin or UTC.") from error


def _default_app_dir() -> Path:
    here, beside = Path.cwd(), Path(__file__).resolve().parents[2]
    is_app = any((here / name).exists() for name in (SETTINGS_FILE, "alembic.ini"))
    return here if is_app or not (beside / "backup_restore.py").exists() or _is_installed(beside) else beside


def _is_installed(folder: Path) -> bool:
    return folder.name in ("site-packages", "dist-packages")
