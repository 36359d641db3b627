"""The settings of remotes: a table each, of one of the types below. A key that its type does not have is refused.

A secret of a remote may also be in the environment: `BACKUP_REMOTE_NAME_PASSWORD`, or `…_PASSWORD_FILE`, which names
the file that holds it. That file is read only when the remote is used, so that backups work without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from backupkit.config.secrets import IN_FILE, Secret, scrubbed
from backupkit.config.table import MANY, CheckedTable, Earlier, Invalid, count, fields, parsed, setting
from backupkit.model.durations import parse_span
from backupkit.model.names import printable

PREFIX = "BACKUP_REMOTE_"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,29}")
_BRANCH = re.compile(r"(?!.*(\.\.|//|/\.|\.lock(/|$)|[./]$))[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_CODE_BRANCHES = {"main", "master", "trunk", "develop"}
_ACCESS_NEEDS = {
    "sftp": "an ssh key that the server accepts, and known_hosts",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "b2": "B2_ACCOUNT_ID and B2_ACCOUNT_KEY",
    "azure": "AZURE_ACCOUNT_NAME and AZURE_ACCOUNT_KEY",
    "gs": "GOOGLE_PROJECT_ID and GOOGLE_APPLICATION_CREDENTIALS",
    "swift": "the OS_… variables of OpenStack",
    "rclone": "rclone, and its configuration file",
}
Part = Literal["dump", "metadata", "database", "uploads"]


class Place(Secret):
    """The address of a remote, shown without the user and password that may be in it."""

    def __str__(self) -> str:
        return scrubbed(self.get_secret_value())


def length_of_time(value: str, _: Earlier) -> str:
    return str(parse_span(value))


def _only_password(value: str | None, earlier: Earlier) -> str | None:
    if value and earlier["password"]:
        raise ValueError("and password are both set; keep one of them")
    return value


def _require_address(url: Place, _: Earlier) -> Place:
    text = url.get_secret_value()
    if not text or text.startswith("-") or not text.isprintable():
        raise ValueError("is not an address")
    return url


def _require_name(text: str, _: Earlier) -> str:
    if not text.strip() or not text.isprintable() or set(text) & set("<>"):
        raise ValueError("is empty, or contains a character that git does not allow in it")
    return text


def _require_own_branch(branch: str, _: Earlier) -> str:
    if not _BRANCH.fullmatch(branch):
        raise ValueError("is not a name for a branch")
    if branch in _CODE_BRANCHES:
        raise ValueError("is a usual branch for code; backups need a branch of their own")
    return branch


def _require_restorable(include: tuple[Part, ...], _: Earlier) -> tuple[Part, ...]:
    if "metadata" not in include or not {"dump", "database"} & set(include):
        raise ValueError("must contain metadata, and dump or database")
    return include


class RemoteTable(CheckedTable):
    """The keys that every remote has. Without a `keep_…` rule nothing is ever deleted there."""

    offsite: bool | None = setting(
        "Whether it is in another place, for 3-2-1. Not set: its type decides.", default=None
    )
    retry_for: float = setting("Seconds to keep trying.", default=300, ge=0, le=86400)
    keep_last: int = count("Keep this many of the newest backups there.", default=0)
    keep_daily: int = count("Keep the newest backup of each of this many days.", default=0)
    keep_weekly: int = count("Keep the newest backup of each of this many weeks.", default=0)
    keep_monthly: int = count("Keep the newest backup of each of this many months.", default=0)
    keep_yearly: int = count("Keep the newest backup of each of this many years.", default=0)
    keep_within: str = setting(
        "Keep all made within this time before the newest: 7d.", default="", check=length_of_time
    )
    keep_pre_migration: int = count("Keep this many backups made before migrations.", default=5)
    min_keep: int = count("Keep this many good backups, whatever their age.", default=3, least=1)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is in another place: as the table says, or as its type suggests."""
        return self._is_elsewhere_by_type() if self.offsite is None else self.offsite

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What no message and no log may show; an address only if it holds more than is shown."""
        values = (getattr(self, name) for name in fields(type(self)))
        return tuple(one for one in values if isinstance(one, Secret) and str(one) != one.get_secret_value())

    @property
    def place(self) -> str:
        """The address of the remote, for messages; without a password."""
        raise NotImplementedError

    @property
    def way_in(self) -> str:
        """What access needs beside these settings, for messages; empty if nothing."""
        return ""

    @property
    def newest_only(self) -> int:
        """The number of newest backups that the remote takes; 0: any number."""
        return 0

    @property
    def holds_uploads(self) -> bool:
        """Whether the remote gets the uploads too."""
        return True

    def limited_to(self, seconds: float) -> Self:
        """Return a copy of the table, with the remote's program ended after `seconds` at the latest."""
        return self

    def local_folder(self, app_dir: Path) -> Path | None:
        """Return the folder of this machine that holds the copies; None if it may be anywhere."""
        return None

    def _is_elsewhere_by_type(self) -> bool:
        return True


class FolderTable(RemoteTable):
    """Another disk, a NAS, a mounted bucket."""

    type: Literal["folder"] = setting("")
    path: str = setting("The folder. One app each; a container must mount it.", min_length=1)

    @property
    def place(self) -> str:
        return self.path

    def local_folder(self, app_dir: Path) -> Path:
        return Path(os.path.abspath(app_dir / os.path.expanduser(self.path)))

    def _is_elsewhere_by_type(self) -> bool:
        return False


class ResticTable(RemoteTable):
    """A repository of restic."""

    type: Literal["restic"] = setting("")
    repository: Place = setting(
        "As restic writes it: s3:HOST/BUCKET, sftp:USER@HOST:PATH, rest:URL, b2:…, rclone:…, a path."
    )
    password: Secret | None = setting("The password of the repository.", default=None)
    password_file: str | None = setting("The file that holds the password.", default=None, check=_only_password)
    stall: float = setting("Seconds without progress that end restic.", default=300, gt=0, le=86400)

    @property
    def place(self) -> str:
        return str(self.repository)

    @property
    def way_in(self) -> str:
        return _ACCESS_NEEDS.get(self.repository.get_secret_value().partition(":")[0], "")

    def limited_to(self, seconds: float) -> Self:
        return self.replaced(stall=min(self.stall, seconds))

    def _is_elsewhere_by_type(self) -> bool:
        return bool(re.match("[a-z0-9]{2,}:", self.repository.get_secret_value()))


class GitTable(RemoteTable):
    """A branch of a git repository."""

    type: Literal["git"] = setting("")
    url: Place = setting(
        "An address, a folder, or the name of a remote of the app's repository.", check=_require_address
    )
    user_name: str = setting("The author of the commits.", check=_require_name)
    user_email: str = setting("The author's address.", check=_require_name)
    branch: str = setting(
        "A branch that nothing else uses, one for each app.", default="backup", check=_require_own_branch
    )
    include: tuple[Part, ...] = setting(
        "What is pushed: dump, metadata, database, uploads.", default=("dump", "metadata"), check=_require_restorable
    )
    file_limit_mb: float = setting("The largest file that the host takes.", default=100, gt=0, le=MANY)
    keep: int = count("The fewest backups of this machine that stay on the branch. 0: all.", default=100)
    timeout: float = setting("Seconds that one git command may take.", default=600, gt=0, le=86400)

    @property
    def place(self) -> str:
        return f"{self.url}, branch {self.branch}"

    @property
    def way_in(self) -> str:
        return "an ssh key, or other credentials that git uses" if self._is_elsewhere_by_type() else ""

    @property
    def newest_only(self) -> int:
        return self.keep

    @property
    def holds_uploads(self) -> bool:
        return "uploads" in self.include

    def limited_to(self, seconds: float) -> Self:
        return self.replaced(timeout=min(self.timeout, seconds))

    def _is_elsewhere_by_type(self) -> bool:
        return not re.match(r"[./~]|file:", self.url.get_secret_value())


Table = FolderTable | ResticTable | GitTable
TABLE_TYPES: dict[str, type[Table]] = {get_args(fields(kind)["type"].type)[0]: kind for kind in get_args(Table)}


def remote_tables(value: object, _: Earlier) -> dict[str, Table]:
    """Return the tables by name, with the secrets that the environment has.

    Raise `ValueError`, which names the remote and the key, and shows no value but a wrong type.
    """
    value = parsed(value)
    if not isinstance(value, dict):
        raise ValueError("is not a table of remotes")
    return {name: _table(name, one) for name, one in value.items()}


def unknown_secret(tables: Mapping[str, RemoteTable]) -> str | None:
    """Return the first variable that begins like a remote's secret and belongs to no remote, or None."""
    secrets = ((name, field) for name, table in tables.items() for field in _secret_fields(type(table)))
    known = {one for secret in secrets for one in _forms(*secret).values()}
    return next((one for one in sorted(os.environ) if one.startswith(PREFIX) and one not in known), None)


def secret_origins(tables: Mapping[str, RemoteTable]) -> Iterator[tuple[str, str]]:
    """Yield the secrets that are set, as `remotes.NAME.password`, each with the variable or the file it comes from."""
    for name, table in tables.items():
        for field in _secret_fields(type(table)):
            if getattr(table, field) or getattr(table, field + IN_FILE):
                raw = next((one for one in _forms(name, field).values() if os.environ.get(one)), "")
                yield f"remotes.{name}.{field}", f"environment {raw}" if raw else "backup.toml"


def variable(name: str, field: str) -> str:
    """Return the name of the variable that holds this secret of the remote."""
    return f"{PREFIX}{re.sub('[^A-Z0-9]', '_', name.upper())}_{field.upper()}"


def _table(name: object, raw: object) -> Table:
    if isinstance(raw, Table):
        return raw
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{printable(str(name))} is not a name of a remote; use small letters, digits, _ and -")
    if not isinstance(raw, dict):
        raise ValueError(f"{name} must be a table")
    given = str(raw.get("type", ""))
    if (kind := TABLE_TYPES.get(given)) is None:
        wrong = f"has the type {printable(given)!r}, which there is not" if given else "has no type"
        raise ValueError(f"{name} {wrong}; set it to one of: {', '.join(TABLE_TYPES)}")
    if unknown := [printable(str(key)) for key in raw if key not in fields(kind)]:
        raise ValueError(f"{name}.{unknown[0]} is not a setting; there are: {', '.join(fields(kind))}")
    try:
        return kind(**_with_secrets(name, raw, kind))
    except Invalid as error:
        raise ValueError(f"{name}.{error.name} {error.reason}") from None


def _with_secrets(name: str, raw: dict[str, Any], kind: type[RemoteTable]) -> dict[str, Any]:
    """Return the table with secrets from the environment: they replace a secret and its file alike."""
    for field in _secret_fields(kind):
        forms = _forms(name, field)
        given = {key: os.environ[one] for key, one in forms.items() if os.environ.get(one)}
        if given:
            raw = {key: one for key, one in raw.items() if key not in forms} | given
    return raw


def _forms(name: str, field: str) -> dict[str, str]:
    """Return the two keys of a secret, for itself and for the file that holds it, each with its variable."""
    return {key: variable(name, key) for key in (field, field + IN_FILE)}


def _secret_fields(kind: type[RemoteTable]) -> list[str]:
    return [name for name in fields(kind) if name + IN_FILE in fields(kind)]
