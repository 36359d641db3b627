"""The settings in force: the environment overrides `backup.toml` in the app folder, which overrides the defaults.

Every setting is `BACKUP_NAME` in the environment and `name` in the file. Relative paths start in the app folder, not in
the caller's folder. An invalid value raises `Refused` (2), which names the setting. A secret may be in a file instead,
which `BACKUP_NAME_FILE` or `name_file` names; it is shown nowhere.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import date, datetime, time
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args
from zoneinfo import ZoneInfo

from backupkit.config import checks
from backupkit.config.alembic_setup import AlembicSetup, find_alembic
from backupkit.config.checks import absolute_path, path_of
from backupkit.config.deployment import Deployment, deployment_from
from backupkit.config.places import DatabaseTable, TreeTable
from backupkit.config.references import paths_by_column
from backupkit.config.remotes import Table, length_of_time, remote_tables, unknown_secret
from backupkit.config.secrets import IN_FILE, Secret, SecretUrl, place_of, scrubbed, secrets_from_files
from backupkit.config.table import CheckedTable, Invalid, Step, count, fields, setting
from backupkit.fs import disk
from backupkit.fs.trust import Untrusted, require_trusted
from backupkit.model.backup import UPLOADS_FOLDER
from backupkit.model.errors import Refused
from backupkit.model.names import printable

SETTINGS_FILE = "backup.toml"
PREFIX = "BACKUP_"
# Variables that the wrapper sets, or that it and the tests read: they are not settings of the toolkit itself.
_NOT_SETTINGS = (
    "GIT_",
    "HOST_",
    "COMPOSE",
    "RUNNER_IN_USE",
    "TESTS_",
    "TEST_DATABASE",
    "TEST_UPLOADS",
    "VENV",
    "REQUIREMENTS",
    "REHEARSAL",
    "REMOTE_",  # secrets of remotes, which are checked when the remotes are known
)
HOOKS = ("before_backup", "after_backup", "before_restore", "after_restore", "on_error")
WITHOUT_HOOKS = dict.fromkeys(HOOKS, ())
"""Settings for a scratch folder: no command of the user's runs for what is done there."""
# Variables that a hook gets. It may call this program, which then has them in its environment.
TOLD_TO_HOOKS = {f"{PREFIX}{one}" for one in ("HOOK", "COMMAND", "NAME", "PATH", "RESULT", "ERROR", "EXIT_CODE")}
_EVERY_SETTING = "`config init --stdout` shows every setting."  # where `config` would end with an error
_TABLES = ("remotes", "databases", "trees")  # settings that are tables of tables
_NOWHERE = Path(os.devnull)  # in place of an alembic.ini: no file
LogFormat = Literal["plain", "json"]


def _hours(description: str, check: Step | tuple[Step, ...] = ()) -> Any:
    """Declare a setting in hours that may be left out."""
    return setting(f"Hours. {description}", None, prepare=checks.empty_is_none, check=check, gt=0, le=87600)


def _hook(description: str) -> Any:
    """Declare a command of the user's, run without a shell."""
    text, prepare = f"{description} Not in the environment.", checks.command_without_shell
    return setting(text, (), prepare=prepare, check=checks.require_program)


class Settings(CheckedTable):
    """The settings of one app: where its data and its backups are, how long to wait, and so on. Paths are absolute.

    `load_settings` reads them. They are immutable.
    """

    reads_environment: ClassVar[bool] = True

    app_dir: Path = setting("The app folder, to which all other paths are relative. Not in backup.toml.")
    database: Path = setting(
        "The live database: a path, or a URL that begins with sqlite:///.",
        default=Path("data/pats.db"),
        prepare=checks.path_in_url,
        check=(checks.absolute, checks.file_itself),
    )
    uploads: Path | None = setting(
        "The live uploads folder. Empty: the app has none.",
        default=Path("uploads"),
        prepare=checks.empty_is_none,
        check=checks.absolute,
    )
    dir: Path = setting(
        "The backups folder. It cannot be inside the uploads folder, nor contain it.",
        default=Path(),
        prepare=checks.dot_is_app_folder,
        check=checks.backups_folder,
    )
    separate_disk: bool = setting(
        "The backups folder is on another disk than the database. While it is not, because that disk is "
        "not mounted, nothing is written.",
        default=False,
    )
    exclude: tuple[str, ...] = setting(
        "Uploads that are in no backup, and that no restore touches: patterns as in .gitignore, with a "
        "semicolon between two.",
        default=(),
        prepare=checks.expressions,
        check=checks.require_some_uploads,
    )
    exclude_marked: tuple[str, ...] = setting(
        "Names of files: a folder of uploads that holds one of them is in no backup either. For example "
        ".nobackup and CACHEDIR.TAG.",
        default=(),
        prepare=checks.expressions,
        check=checks.require_file_names,
    )
    references: dict[str, tuple[str, ...]] = setting(
        'How rows name uploads: a table [references] with lines like "documents.path" = "uploads/{value}", '
        "or a list of such paths; in the environment as JSON. backup, verify and status count what is missing.",
        default={},
        is_converted=True,
        prepare=paths_by_column,
    )
    alembic_ini: Path = setting(
        "Alembic's configuration: alembic.ini or pyproject.toml.", default=Path("alembic.ini"), check=checks.absolute
    )
    alembic_command: str = setting(
        "The command that calls Alembic, if it has another name: flask db, uv run alembic.",
        default="",
        check=checks.require_words,
    )
    alembic_x: tuple[str, ...] = setting(
        "What env.py gets with -x: url={url}. Also {path} and {folder} are replaced.",
        default=(),
        prepare=checks.shell_words,
    )
    python: str = setting(
        "The app's Python, if it is another than the toolkit's.", default="", check=checks.require_words
    )
    version_table: str = setting("The table with Alembic's revisions. Not set: the one that env.py names.", default="")
    migrate_command: str = setting(
        "A shell command that migrates instead of Alembic: python manage.py migrate.", default=""
    )
    migrate_environment: tuple[str, ...] = setting(
        "The variables that name the app's database: NAME, or NAME={url}, NAME={path}, NAME={folder}.",
        default=(),
        prepare=checks.shell_words,
        check=checks.require_variables,
    )
    migrate_timeout: float = setting("Seconds that a migration may take.", default=3600, ge=1, le=604800)
    timezone: str = setting(
        "The IANA time zone of names, days and schedules, such as Europe/Berlin.",
        default="UTC",
        check=checks.require_zone,
    )
    log_file: Path | None = setting(
        "The backup log, apart from the app's log. Empty: none. Rotated at 1 MB; five old files are kept.",
        default=None,
        prepare=checks.empty_is_none,
        check=checks.absolute,
    )
    log_format: LogFormat = setting("The format of the log's lines: plain or json.", default="plain")
    app_id: str = setting(
        "The app these backups belong to; it is written into each backup.",
        default="",
        check=checks.named_after_database,
    )
    busy_timeout: float = setting("Seconds to wait for a locked database.", default=30, ge=0, le=3600)
    lock_timeout: float = setting("Seconds to wait for another run of this toolkit.", default=10, ge=0, le=86400)
    compare_timeout: float = setting(
        "Seconds that the plan of a restore may spend on comparing rows.", default=2, ge=0, le=3600
    )
    backup_before_migrations: bool = setting(
        "Whether the guard in env.py makes a backup before a bare alembic upgrade.", default=True
    )
    keep_last: int = count("Keep this many of the newest backups.", default=0)
    keep_daily: int = count("Keep the newest backup of each of this many days.", default=30)
    keep_weekly: int = count("Keep the newest backup of each of this many weeks.", default=12)
    keep_monthly: int = count("Keep the newest backup of each of this many months.", default=12)
    keep_yearly: int = count("Keep the newest backup of each of this many years.", default=0)
    keep_within: str = setting(
        "Keep all backups made within this time before the newest: 36h, 7d, 2y5m7d3h. Empty: no such rule.",
        default="",
        check=length_of_time,
    )
    keep_pre_restore: int = count("Keep this many safety copies of restores.", default=5)
    keep_pre_migration: int = count("Keep this many backups made before migrations.", default=5)
    keep_safety_within: str = setting(
        "Keep all backups of those two kinds made within this time before the newest.",
        default="14d",
        check=length_of_time,
    )
    max_backups: int = count(
        "Keep at most this many backups of all kinds, manual ones included. 0: any number.", default=0
    )
    min_keep: int = count("Keep this many good backups, whatever their age.", default=3, least=1)
    prune_limit: int = count("The most backups that prune deletes at once without --force. 0: any number.", default=25)
    anomaly_drop: int = setting(
        "A backup with this many percent less than the ones before it is unusual. 100: never.", default=50, ge=1, le=100
    )
    test_command: str = setting("A shell command that must succeed on each test restore.", default="")
    test_timeout: float = setting("Seconds that the test command may take.", default=600, ge=1, le=86400)
    expected_interval: float = setting(
        "Hours from one backup to the next. Not set: taken from the schedule. 0: none is expected.",
        default=24,
        ge=0,
        le=87600,
    )
    warning_age: float | None = _hours("When the last backup is older, status warns.")
    critical_age: float | None = _hours(
        "When the last backup is older, status is critical.", check=checks.require_not_below_warning
    )
    proven_within: float | None = _hours("When the last successful test restore is longer ago, status warns.")
    carried_within: float | None = _hours(
        "When the newest copy on a remote is older and others wait to be pushed, status warns."
    )
    warning_free_days: float = setting(
        "When the disk of the backups will be full in fewer days, status warns.", default=14, ge=0, le=3650
    )
    critical_free_days: float = setting(
        "When the disk of the backups will be full in fewer days, status is critical.",
        default=3,
        ge=0,
        le=3650,
        check=checks.require_not_above_warning,
    )
    before_backup: tuple[str, ...] = _hook("A command that runs before a backup; if it fails, no backup is made.")
    after_backup: tuple[str, ...] = _hook("A command that runs after a backup.")
    before_restore: tuple[str, ...] = _hook(
        "A command that runs before live data is changed: by restore, undo, extract, rescue, restore-dump, "
        "migrate. If it fails, nothing is changed."
    )
    after_restore: tuple[str, ...] = _hook("A command that runs after those.")
    on_error: tuple[str, ...] = _hook("A command that runs when one of these operations failed.")
    hook_timeout: float = setting("Seconds that each of those five commands may take.", default=600, gt=0, le=86400)
    service: str = setting("The Compose service that commands run in.", default="backend")
    app_service: str = setting("The app's service, if it is another one; `--stop` stops it.", default="")
    runner: Literal["auto", "docker", "local"] = setting("How backup.sh runs the commands.", default="auto")
    notify_urls: tuple[SecretUrl, ...] = setting(
        "Where messages about unattended runs go: Apprise URLs.",
        default=(),
        prepare=checks.addresses,
        check=checks.require_urls,
    )
    notify_on: tuple[Literal["failure", "warning", "success"], ...] = setting(
        "The results that are sent as messages. Empty: none.", default=("failure", "warning"), prepare=checks.words
    )
    notify_timeout: float = setting("Seconds that sending messages may take.", default=20, gt=0, le=600)
    ping_url: SecretUrl | None = setting(
        "The address of a dead man's switch, pinged at the start and the end of a backup.",
        default=None,
        prepare=checks.empty_is_none,
        check=checks.require_web_page,
    )
    export_recipients: str = setting(
        "Public keys of age (age1…) that exports are encrypted to, with spaces between them.",
        default="",
        check=checks.require_public_keys,
    )
    web_password: Secret | None = setting(
        "The password of the pages of `web`. Or set one with `web --set-password`.", default=None
    )
    web_viewer_password: Secret | None = setting("The password of an account that can only view.", default=None)
    web_host: str = setting(
        "The name by which browsers come to the pages of `web` through a proxy. Empty: none.", default=""
    )
    export_passphrase: Secret | None = setting(
        "The passphrase of exports without recipients, and of imports.", default=None, prepare=checks.empty_is_none
    )
    export_identity: Secret | None = setting(
        "The secret key of age that imports are decrypted with.", default=None, prepare=checks.empty_is_none
    )
    remotes: dict[str, Table] = setting(
        "Where copies are pushed to: a table [remotes.NAME] each; in the environment as JSON.",
        default={},
        is_converted=True,
        prepare=remote_tables,
    )
    databases: dict[str, DatabaseTable] = setting(
        "Further databases of the app: a table [databases.NAME] each; in the environment as JSON.",
        default={},
        is_converted=True,
        prepare=checks.databases_by_name,
    )
    trees: dict[str, TreeTable] = setting(
        "Further folders of the app: a table [trees.NAME] each; in the environment as JSON.",
        default={},
        is_converted=True,
        prepare=checks.trees_by_name,
    )
    push_after_backup: bool = setting(
        "Whether backup and auto-backup push to the remotes. run always does.", default=False
    )
    enabled: bool = setting("Whether the scheduler does anything by itself.", default=True)
    automatic_daily: bool = setting("Whether the scheduler makes a backup every day.", default=True)
    backup_time: str = setting(
        "The time of the daily backup, in the time zone.", default="02:00", check=checks.time_of_day
    )
    schedule: tuple[str, ...] = setting(
        "Cron expressions instead of that time, with a semicolon between two.",
        default=(),
        prepare=checks.expressions,
        check=checks.cron_expressions,
    )
    test_schedule: str = setting(
        "When the scheduler performs a test restore: a cron expression. Empty: never.",
        default="30 4 * * sun",
        check=checks.cron_or_empty,
    )
    jitter: float = setting(
        "The most seconds that a scheduled run is delayed, so that not all machines start at once.",
        default=0,
        ge=0,
        le=21600,
    )
    backup_on_start: bool = setting(
        "Whether the scheduler makes a backup when it starts, unless there is one of the last hour.", default=False
    )
    backup_on_shutdown: bool = setting("Whether the scheduler makes a backup when SIGTERM stops it.", default=False)
    rewind: str = setting(
        "How far back every minute can be restored: 7d. The scheduler takes the points. Empty: off.",
        default="",
        check=length_of_time,
    )
    rewind_interval: float = setting("Seconds between two checks for changes, for rewind.", default=60, ge=5, le=3600)
    rewind_max_bytes: int = setting(
        "The most bytes of all points; beyond it the oldest go first. 0: any number.",
        default=10 << 30,
        ge=0,
        le=1 << 50,
    )
    shutdown_timeout: float = setting(
        "Seconds that the backup at shutdown may take. Docker kills after 10 s by default.", default=8, ge=1, le=86400
    )

    _whole: Settings | None = None
    _part: str = ""
    _tree: Path | None = None

    def __init__(self, /, **given: Any) -> None:
        super().__init__(**self._with_environment(given))

    @classmethod
    def _with_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Return the values, overridden by those of the environment."""
        if not cls.reads_environment:
            return given
        variables = _variables_upper_case()
        values = {name: variables[key] for name in fields(cls) if (key := _variable(name)) in variables}
        raw = {name: os.environ.get(_variable(name)) for one in secret_names() for name in (one, one + IN_FILE)}
        # The app folder is known already, and its variable may be empty or relative.
        folder = given["app_dir"]
        return {**given, **values, **secrets_from_files(secret_names(), raw, folder, _variable), "app_dir": folder}

    @property
    def whole(self) -> Settings:
        """The settings of the whole app, also if these are of a part of it."""
        return self._whole or self

    @property
    def part(self) -> str:
        """The part of the app that these settings are of; empty for the first database and the uploads."""
        return self._part

    @property
    def others(self) -> tuple[str, ...]:
        """The names of the app's further databases and trees."""
        return (*self.whole.databases, *self.whole.trees)

    @property
    def parts(self) -> tuple[Settings, ...]:
        """The settings of each part of the app, the first database and the uploads first."""
        return (self.whole, *filter(None, map(self.at, self.others)))

    @property
    def sealed_folder(self) -> str:
        """The name of this tree's folder in a backup."""
        return self._part or UPLOADS_FOLDER

    @property
    def sealed_database(self) -> str:
        """The path of this database's file in a backup."""
        return self._part if self._tree else self.database.name

    @property
    def staging_home(self) -> Path:
        """The live folder in which a restore of this database is staged: its own, or the tree that it lies in."""
        return self._tree or self.database.parent

    @property
    def is_optional(self) -> bool:
        """Whether this part may be missing."""
        table = self.whole.databases.get(self._part) or self.whole.trees.get(self._part)
        return bool(table and table.optional)

    @property
    def live_databases(self) -> tuple[Path, ...]:
        """Every database that the settings name."""
        return (self.whole.database, *(Path(one.path) for one in self.whole.databases.values()))

    def at(self, part: str) -> Settings | None:
        """Return the settings as if that database, or that tree, were all of the app; None if it has no such part.

        A database that lies in a tree is named by its path in a backup.
        """
        whole, folder, _, inside = self.whole, *part.partition("/")
        if not part:
            return whole
        if inside and (tree := whole.tree(folder)):
            return whole._view(part, tree, database=tree / inside, uploads=None, alembic_ini=_NOWHERE)
        if table := whole.databases.get(part):
            ini = Path(table.alembic_ini) if table.alembic_ini else _NOWHERE
            return whole._view(part, None, database=Path(table.path), uploads=None, alembic_ini=ini)
        if part in whole.trees:
            return whole._view(part, None, uploads=Path(whole.trees[part].path))
        return None

    def elsewhere(self, places: Mapping[str, object], parts: Mapping[str, Path]) -> Settings:
        """Return the settings for a copy of the app's data: the first ones at `places`, the further ones at `parts`.

        The copy has no other parts than those.
        """

        def moved(tables: Mapping[str, DatabaseTable | TreeTable]) -> dict[str, DatabaseTable | TreeTable]:
            there = {name: table for name, table in tables.items() if name in parts}
            return {name: table.replaced(path=str(parts[name])) for name, table in there.items()}

        return self.replaced(**places, databases=moved(self.databases), trees=moved(self.trees))

    def tree(self, folder: str) -> Path | None:
        """Return the live folder of the tree that has that name in a backup, or None if there is none."""
        if folder == UPLOADS_FOLDER:
            return self.whole.uploads
        table = self.whole.trees.get(folder)
        return Path(table.path) if table else None

    def _view(self, part: str, tree: Path | None, **places: Path | None) -> Settings:
        own = {"migrate_command": "", "version_table": ""} if "alembic_ini" in places else {}
        view = self.replaced(**places, **own)
        view.__dict__.update(_whole=self, _part=part, _tree=tree)
        return view

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def alembic(self) -> AlembicSetup | None:
        """How the app uses Alembic, or None if it does not."""
        live = {
            "{url}": f"sqlite:///{self.database}",
            "{path}": str(self.database),
            "{folder}": str(self.database.parent),
        }
        x = tuple(re.sub("|".join(live), lambda found: live[found[0]], one) for one in self.alembic_x)
        return find_alembic(self.app_dir, self.alembic_ini, self.python, self.alembic_command, x)

    @property
    def variables(self) -> tuple[tuple[str, str], ...]:
        """`migrate_environment`, each name with its text; a variable without text keeps the form of its value."""
        parts = (one.partition("=") for one in self.migrate_environment)
        return tuple((name, text) for name, _, text in parts)

    @cached_property
    def deployment(self) -> Deployment:
        """How users reach the app, for the commands that are printed for them."""
        own = bool(self.migrate_command)
        return deployment_from(os.environ, self.service, self.app_dir, self.alembic, self.app_service, own)

    @cached_property
    def secrets(self) -> tuple[Secret, ...]:
        """Every secret among the settings, which no message and no log may show."""
        values = (getattr(self, name) for name in secret_names())
        own = (one for value in values for one in (value if isinstance(value, tuple) else (value,)) if one)
        return (*own, *(secret for table in self.remotes.values() for secret in table.secrets))

    def local(self, at: datetime) -> datetime:
        """Return that time in the configured zone, to the second."""
        return at.astimezone(self.zone).replace(microsecond=0)


def load_settings(app_dir: Path, **overrides: object) -> Settings:
    """Return the settings of the app in `app_dir`, or in `BACKUP_APP_DIR` if that is set.

    The environment wins over `overrides`, and these over `backup.toml`. Raise `Refused`, which names the setting, where
    it came from, and what is wrong.
    """
    folder = app_folder(app_dir)
    check_environment(os.environ)
    try:
        settings = Settings(**{**_values_from_file(folder, read_file(folder)), "app_dir": folder, **overrides})
    except Invalid as error:
        raise _refusal(error, folder) from error
    if unknown := unknown_secret(settings.remotes):
        known = ", ".join(settings.remotes) or "none"
        raise Refused(f"{unknown} is not a setting of any remote.", hint=f"The remotes: {known}. See `remotes`.")
    return settings


def database_as_given(folder: Path) -> Path:
    """Return the database's path as it is set, its links not followed; the default, if what is set is not a path."""
    variables = _variables_upper_case()
    raw = variables.get(_variable("database"), read_file(folder).get("database", ""))
    try:
        return absolute_path(folder, Path(str(path_of(raw, folder))))
    except ValueError:
        return absolute_path(folder, fields(Settings)["database"].default)


def app_folder(app_dir: Path) -> Path:
    """Return `BACKUP_APP_DIR` if it is set, else the given folder; raise `Refused` if the folder does not exist."""
    folder = Path(os.environ.get("BACKUP_APP_DIR") or app_dir).absolute()
    if not folder.is_dir():
        raise Refused(f"The app folder {folder} is not there.", hint="Set BACKUP_APP_DIR, or unset it.")
    return folder


def read_file(folder: Path) -> dict[str, Any]:
    """Return what `backup.toml` says; empty if there is none."""
    return parse_file(folder, read_text(folder))


def read_text(folder: Path) -> str:
    """Return the text of `backup.toml`, empty if there is none; raise `Untrusted` if others can change it."""
    path = folder / SETTINGS_FILE
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            require_trusted(path, file.fileno())
            return file.read().decode()
    except FileNotFoundError:
        if text := disk.dangling(path):  # its disk may not be mounted: all settings would be at their defaults
            raise Refused(text, hint=disk.CORRECT_LINK) from None
        return ""
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not valid TOML: {error}.", hint="Save it as UTF-8 text.") from error
    except IsADirectoryError as error:
        hint = f"Docker makes a folder where a mounted file is missing: rmdir {path.name}, then `config init`."
        raise Refused(f"{path} cannot be read: {error.strerror}.", hint) from error
    except OSError as error:
        hint = f"Try: chmod a+r {path}"
        if not isinstance(error, PermissionError):
            hint = f"Look at the disk: dmesg. To put a copy of the file in its place: mv {path} {path}.unreadable"
        raise Untrusted(f"{path} cannot be read: {error.strerror}.", hint) from error


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file for `open` without waiting: a fifo would block until somebody writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def parse_file(folder: Path, text: str) -> dict[str, Any]:
    """Return what that text says as `backup.toml`; raise `Refused`, which names the line that is not TOML."""
    path = folder / SETTINGS_FILE
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error).replace("at end of document", f"at its end, line {text.count(chr(10)) + 1}")
        raise Refused(f"{path} is not valid TOML: {reason}.", hint="Mend that line.") from error
    except RecursionError as error:
        raise Refused(f"{path} is not valid TOML: it is nested too deeply.", hint="Mend it.") from error


def check_file(folder: Path, text: str, typed: str = "") -> Settings:
    """Return the settings if that text were `backup.toml`, and no variable overrode it; raise as `load_settings` does.

    This finds what is wrong in the file even if a variable hides it. `typed` is a setting that is not in it yet.
    """
    values = _with_secrets(folder, parse_file(folder, text), _name_another_file)
    try:
        return _file_alone()(**{**values, "app_dir": folder})
    except Invalid as error:
        raise _refusal(error, folder, text, typed) from error


def _name_another_file(name: str) -> str:
    return f"`config set {name} PATH` with the whole path of the file; or name none: `config unset {name}`"


@cache
def _file_alone() -> type[Settings]:
    class FileAlone(Settings):
        reads_environment = False

    return FileAlone


def origins(settings: Settings) -> dict[str, str]:
    """Return where each setting's value comes from: the variable, the file, or the default."""
    in_file = read_file(settings.app_dir).keys()
    return {name: _origin(name, in_file) for name in fields(Settings)}


def _origin(name: str, in_file: Set[str]) -> str:
    if variable := overriding_variable(name):
        return f"environment {variable}"
    names = {name, name + IN_FILE} if name in secret_names() else {name}
    return SETTINGS_FILE if names & in_file else "default"


def overriding_variable(name: str) -> str:
    """Return the environment variable that this setting's value comes from; empty if there is none.

    The wrapper has set the app folder itself where it found it.
    """
    if name == "app_dir" and os.environ.get("BACKUP_HOST_FOUND_APP_DIR"):
        return ""
    in_file = _variable(name + IN_FILE) if name in secret_names() else ""
    if os.environ.get(in_file):
        return in_file
    return _variable(name) if _variable(name) in os.environ else ""


def known_name(text: str) -> str:
    """Return the setting's name, as it is written in the file; raise `Refused` if there is no such setting."""
    name = text.removeprefix(PREFIX).lower()
    if name in fields(Settings) or _names_a_secret(name):
        return name
    table, dot, key = text.rpartition(".")
    if dot:
        raise Refused(
            f"{printable(text)} is in a table of its own.",
            hint=f"Edit {SETTINGS_FILE}: {printable(key)} below [{printable(table)}].",
        )
    raise _unknown(printable(text), name)


@cache
def secret_names() -> tuple[str, ...]:
    """Return the settings that are secrets: each may also be in a file."""
    return tuple(name for name, declared in fields(Settings).items() if _holds_secret(declared.type))


def secret_files(settings: Settings) -> list[Path]:
    """Return the files that hold secrets: those that settings name, and those that tables of remotes name."""
    raw = read_file(settings.app_dir)
    named = [os.environ.get(_variable(name + IN_FILE)) or raw.get(name + IN_FILE) for name in secret_names()]
    named += [getattr(table, "password" + IN_FILE, None) for table in settings.remotes.values()]
    return [place_of(str(file), settings.app_dir) for file in named if file]


def _holds_secret(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Secret):
        return True
    return any(_holds_secret(inner) for inner in get_args(annotation))


def _values_from_file(folder: Path, raw: dict[str, Any]) -> dict[str, Any]:
    # A missing file must not stop a user who overrides it in the environment.
    overridden = {one for name in secret_names() if _variables_set(name) for one in (name, name + IN_FILE)}
    here = {name: value for name, value in raw.items() if name not in overridden}
    return _with_secrets(folder, here)


def _with_secrets(folder: Path, raw: dict[str, Any], next_step: Callable[[str], str] | None = None) -> dict[str, Any]:
    """Return the values of the file, with each secret in place of the name of the file that holds it."""
    names, where = secret_names(), folder / SETTINGS_FILE
    if "app_dir" in raw:
        why = "app_dir is where this file is, and cannot be in it."
        raise Refused(f"{where}: {why}", hint="`config unset app_dir`; to name another folder set BACKUP_APP_DIR.")
    secrets = secrets_from_files(names, raw, folder, lambda name: f"{name} in {where}", next_step)
    return {name: value for name, value in raw.items() if not _names_a_secret(name)} | secrets


def _variables_set(name: str) -> list[str]:
    return [one for one in (_variable(name), _variable(name + IN_FILE)) if one in os.environ]


def _names_a_secret(name: str) -> bool:
    return name.endswith(IN_FILE) and name.removesuffix(IN_FILE) in secret_names()


def _variables_upper_case() -> dict[str, str]:
    """Return the environment: a setting's variable may be written in any case."""
    return {name.upper(): value for name, value in os.environ.items()}


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that begin like a setting and are none: another tool's, or misspelled ones."""
    ours = (name for name in environment if name.startswith(PREFIX))
    return sorted(
        name
        for name in ours
        if not name.removeprefix(PREFIX).startswith(_NOT_SETTINGS)
        and name not in TOLD_TO_HOOKS
        and not _is_setting(name)
    )


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise `Refused` for a variable that looks like a misspelled setting, and for a hook.

    Ignoring a misspelled one could back up the wrong database silently.
    """
    for name, value in environment.items():
        if value and name.upper() in map(_variable, HOOKS):
            raise Refused(
                f"{name} is set in the environment, but can only be set in {SETTINGS_FILE}.",
                hint=f"Type: unset {name}",
            )
    known = [_variable(name) for name in (*fields(Settings), *(name + IN_FILE for name in secret_names()))]
    for name in unknown_variables(environment):
        if close := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            raise Refused(f"{name} is not a setting.", hint=f"Did you mean {close[0]}?")


def _is_setting(variable: str) -> bool:
    name = variable.removeprefix(PREFIX).lower()
    return name in fields(Settings) or _names_a_secret(name)


def _refusal(error: Invalid, folder: Path, text: str | None = None, typed: str = "") -> Refused:
    """Return the error: what is wrong, and where (in the environment, in that text of the file, or as it was typed)."""
    name = error.name
    variables = _variables_set(name) if text is None else []
    place = "" if variables or name == typed else _location(folder, error, text)
    if error.is_unknown:
        return _unknown(f"{printable(name)} in {place}", name)
    subject = f"{variables[0] if variables else name}{_given(error)}{f' ({place})' if place else ''}"
    hint = f"{_allowed(name)}{_way_out(name, variables, typed)}"
    return Refused(f"{subject} is empty." if error.value == "" else f"{subject}: {_reason(error)}.", hint)


def _given(error: Invalid) -> str:
    """Return ` = ` and the value, as far as it may be shown."""
    if error.value in (None, "") or error.name in (*secret_names(), *_TABLES):
        return ""
    shown = str(error.value) if isinstance(error.value, date | time) else repr(error.value)
    return f" = {scrubbed(re.sub(r'//[^/@]*@', '//***@', shown))}"


def _reason(error: Invalid) -> str:
    if isinstance(error.value, date | time) and error.reason.startswith("must be text"):
        return f'must be text in quotes: {error.name} = "{str(error.value).removesuffix(":00")}"'
    return f"{error.reason[0].lower()}{error.reason[1:]}"


def _unknown(where: str, name: str) -> Refused:
    close = difflib.get_close_matches(name, fields(Settings), n=1)
    return Refused(f"{where} is not a setting.", hint=f"Did you mean {close[0]}?" if close else _EVERY_SETTING)


def _allowed(name: str) -> str:
    from backupkit.config.schema import allowed  # imported late, as it imports this module

    may = allowed(name)
    return f"It may be {may}. " if may else ""


def _way_out(name: str, variables: Sequence[str], typed: str) -> str:
    """Return what to do about a wrong value; `config` shows nothing while there is one."""
    if variables:
        return f"Correct it, or type: unset {variables[0]}"
    if name == typed:
        return _EVERY_SETTING
    if name in (*secret_names(), *_TABLES, "references"):
        return f"Correct it there. {_EVERY_SETTING}"
    return f"Correct it there, or take its default: `config unset {name}`"


def _location(folder: Path, error: Invalid, text: str | None) -> str:
    """Return the file and, if it is found, the line: that of the key, if the reason names one of a table."""
    with suppress(Refused):
        text = read_text(folder) if text is None else text
    line = _line_in_table(error, text or "") or _line_of(error.name, text or "")
    return f"{folder / SETTINGS_FILE}{f', line {line}' if line else ''}"


def _line_of(name: str, text: str) -> int:
    """Return the number of the line with that setting, or with its table; 0 if it is not found."""
    names = f"{re.escape(name)}(?:{IN_FILE})?" if name in secret_names() else re.escape(name)
    found = re.search(rf"""^[ \t]*\[*[ \t]*["']?{names}["']?[ \t]*[\].=]""", text, re.M)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def _line_in_table(error: Invalid, text: str) -> int:
    """Return the number of the line with the key of `[remotes.NAME]` that the reason names; 0 if it is not found."""
    key = re.match(r"([a-z0-9_-]+)\.([a-z_]+) ", error.reason) if error.name in _TABLES else None
    if key is None:
        return 0
    head, lines = rf"^[ \t]*\[{error.name}\.{key[1]}\].*\n", r"(?:(?![ \t]*\[).*\n)*?"
    found = re.search(rf"{head}{lines}(?=[ \t]*{key[2]}[ \t]*=)", text, re.M)
    return text.count("\n", 0, found.end()) + 1 if found else 0
