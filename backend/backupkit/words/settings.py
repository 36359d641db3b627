"""The settings in force: environment over `backup.toml` in the app folder over defaults.

Every setting is `BACKUP_NAME` in the environment and `name` in the file. Relative paths are relative to the
app folder, not to the caller's folder. A value that cannot be right raises `Refused` (2) and names the setting.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from backupkit.words.errors import Refused
from backupkit.words.model import CHECKSUM_FILE, GUIDE_FILE, METADATA_FILE, UPLOADS_FOLDER
from backupkit.words.names import shown
from backupkit.words.reach import Reach, reach_from

SETTINGS_FILE = "backup.toml"
PREFIX = "BACKUP_"
# Handed over by the wrapper, or read by it and by the tests: not settings of the toolkit itself.
_PLUMBING = ("GIT_", "HOST_", "COMPOSE", "RUNNER_IN_USE", "TEST", "VENV", "REQUIREMENTS", "PYTHON", "REHEARSAL")
LogFormat = Literal["plain", "json"]
_RESERVED = {UPLOADS_FOLDER, METADATA_FILE, CHECKSUM_FILE, GUIDE_FILE}


class _Given(PydanticBaseSettingsSource):
    """Values that neither environment nor file can override."""

    def __init__(self, settings_cls: type[BaseSettings], **values: object) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


class Settings(BaseSettings):
    """Where the data is, where the backups go, how long to wait. Paths are absolute."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, validate_default=True)

    app_dir: Path = Field(description="The app folder, to which all other paths are relative.")
    database: Path = Field(default=Path("data/pats.db"), description="The live database: a path or a sqlite:/// URL.")
    uploads: Path | None = Field(default=Path("uploads"), description="The live uploads folder; empty means none.")
    dir: Path = Field(default=Path(), description="The backups folder.")
    alembic_ini: Path = Field(default=Path("alembic.ini"), description="Alembic's configuration file.")
    timezone: str = Field(default="UTC", description="Names, days and schedules are in this IANA time zone.")
    log_file: Path | None = Field(default=None, description="The backup log, apart from the app's; empty means none.")
    log_format: LogFormat = Field(default="plain", description="The backup log's lines: plain or json.")
    app_id: str = Field(default="", description="Whose backups these are; the database's name where empty.")
    busy_timeout: float = Field(default=30, ge=0, le=3600, description="Seconds to wait for a locked database.")
    lock_timeout: float = Field(default=10, ge=0, le=86400, description="Seconds to wait for another run to finish.")
    expected_interval: float = Field(
        default=24, ge=0, le=87600, description="Hours from one backup to the next; 0: none is expected."
    )
    warning_age: float | None = Field(
        default=None, gt=0, le=87600, description="Hours: an older last backup is a warning in status."
    )
    critical_age: float | None = Field(
        default=None, gt=0, le=87600, description="Hours: an older last backup is critical in status."
    )
    warning_free_days: float = Field(
        default=14, ge=0, le=3650, description="Fewer days until the disk is full: a warning."
    )
    critical_free_days: float = Field(
        default=3, ge=0, le=3650, description="Fewer days until the disk is full: critical."
    )
    service: str = Field(default="backend", description="The Compose service that holds the data.")
    runner: Literal["auto", "docker", "local"] = Field(default="auto", description="How backup.sh runs the commands.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The app folder is settled by then, and the variable may be empty or relative.
        return _Given(settings_cls, app_dir=init_settings()["app_dir"]), env_settings, init_settings

    @field_validator("database", mode="before")
    @classmethod
    def _from_url(cls, value: object) -> object:
        text = str(value)
        scheme, mark, rest = text.partition("://")
        if not mark:
            return value or _fail("is empty")
        if scheme.split("+")[0] != "sqlite":
            return _fail(f"is a {scheme} URL, and only sqlite:/// can be backed up")
        path = rest.partition("?")[0].removeprefix("/")
        return path if path and path != ":memory:" else _fail("names no file")

    @field_validator("uploads", "log_file", "warning_age", "critical_age", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            _fail("is not a time zone; use a name like Europe/Berlin or UTC")
        return value

    @field_validator("database", "uploads", "alembic_ini", "log_file")
    @classmethod
    def _absolute(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return value and _below(info.data["app_dir"], value)

    @field_validator("database")
    @classmethod
    def _the_file_itself(cls, value: Path) -> Path:
        # SQLite keeps its -wal beside the file that a link leads to.
        value = Path(os.path.realpath(value))
        if value.name in _RESERVED:
            _fail("has a name that a part of each backup bears")
        return value

    @field_validator("dir")
    @classmethod
    def _backups_folder(cls, value: Path, info: ValidationInfo) -> Path:
        folder: Path = info.data["app_dir"]
        return _below(folder, value) if value.parts else _beside(folder)

    @field_validator("critical_age")
    @classmethod
    def _not_before_warning(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and value < (info.data.get("warning_age") or 0):
            _fail("is below BACKUP_WARNING_AGE")
        return value

    @field_validator("critical_free_days")
    @classmethod
    def _not_above_warning(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("warning_free_days", value):
            _fail("is above BACKUP_WARNING_FREE_DAYS")
        return value

    @field_validator("app_id")
    @classmethod
    def _named_after_database(cls, value: str, info: ValidationInfo) -> str:
        return value or info.data.get("database", Path("app")).stem

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @cached_property
    def reach(self) -> Reach:
        """The commands a person can type to come here."""
        return reach_from(os.environ, self.service, self.app_dir)

    def local(self, moment: datetime) -> datetime:
        """The moment in the configured zone, to the second."""
        return moment.astimezone(self.zone).replace(microsecond=0)


def load_settings(app_dir: Path, **overrides: object) -> Settings:
    """The settings of the app in `app_dir`; `Refused` names the setting, where it came from, and what is wrong."""
    folder = Path(os.environ.get("BACKUP_APP_DIR") or app_dir).absolute()
    if not folder.is_dir():
        raise Refused(f"The app folder {folder} is not there.", hint="Set BACKUP_APP_DIR, or unset it.")
    check_environment(os.environ)
    try:
        return Settings(**{**read_file(folder), "app_dir": folder, **overrides})
    except ValidationError as error:
        raise _refusal(error, folder) from error


def read_file(folder: Path) -> dict[str, Any]:
    """What `backup.toml` says; nothing where there is none."""
    path = folder / SETTINGS_FILE
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not valid TOML: {error}.", hint="Mend that line.") from error
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.", hint=f"Try: chmod a+r {path}") from error


def origin(settings: Settings, name: str) -> str:
    """Where a setting's value comes from: the variable, the file, or the default."""
    if PREFIX + name.upper() in os.environ:
        return f"environment {PREFIX}{name.upper()}"
    return SETTINGS_FILE if name in read_file(settings.app_dir) else "default"


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that begin like a setting and are none: another tool's, or a slip of the pen."""
    ours = (name for name in environment if name.startswith(PREFIX))
    return sorted(
        name for name in ours if not name.removeprefix(PREFIX).startswith(_PLUMBING) and not _is_setting(name)
    )


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuses a variable one slip away from a setting: the wrong database would be backed up, silently."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in unknown_variables(environment):
        if close := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            raise Refused(f"{name} is not a setting.", hint=f"Did you mean {close[0]}?")


def _is_setting(variable: str) -> bool:
    return variable.removeprefix(PREFIX).lower() in Settings.model_fields


def _below(folder: Path, path: Path) -> Path:
    if "\0" in str(path):
        _fail("is no path")
    try:
        return Path(os.path.abspath(folder / path.expanduser()))
    except RuntimeError:
        raise ValueError("begins with a user that is not there") from None


def _beside(folder: Path) -> Path:
    inside = folder / "backups"
    return inside if inside.is_dir() else folder.parent / "backups"


def _fail(reason: str) -> object:
    raise ValueError(reason)


def _refusal(error: ValidationError, folder: Path) -> Refused:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "database"
    in_file = PREFIX + name.upper() not in os.environ
    where = f"{shown(name)} in {folder / SETTINGS_FILE}" if in_file else PREFIX + name.upper()
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        return Refused(f"{where} is not a setting.", hint=f"Did you mean {close[0]}?" if close else "See `config`.")
    reason = first["msg"].removeprefix("Value error, ")
    given = "" if first["input"] is None or not first["loc"] else f" {_without_password(first['input'])}"
    return Refused(
        f"{where}{given}: {reason[0].lower()}{reason[1:]}.", hint="`config` shows every setting and its origin."
    )


def _without_password(value: object) -> str:
    return re.sub(r"//[^/@]*@", "//***@", repr(value))
