"""What a backup is: the values written into `backup_metadata.json`, and those that the features pass to each other."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import fields, replace

from backupkit.model.durations import LONG_AGO

FORMAT = "1.0"
METADATA_FILE = "backup_metadata.json"
CHECKSUM_FILE = "SHA256SUMS"
GUIDE_FILE = "RESTORE.md"
UPLOADS_FOLDER = "uploads"
# The folder in which a restore stages files, inside each live folder, because a rename cannot cross mounts.
STAGING = ".backupkit-staging"

Kind = Literal["manual", "auto", "scheduled", "pre_restore", "pre_migration", "salvaged"]
# They hold what a restore replaced, or what was left of a broken database, and no usual state of the app, so that none
# of them can replace a missing backup.
APART = ("pre_restore", "salvaged")
State = Literal["unchecked", "checked", "proven", "damaged", "raw"]
Part = Literal["database", "uploads"]
MAIN_DATABASE = "database"  # the name of the first database, if there are several
_FIRST = (MAIN_DATABASE, UPLOADS_FOLDER)
# Numbers in a metadata file are checked when it is read: none may be beyond what SQLite can hold.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=sys.float_info.max)]


class DatabaseFacts(Struct, frozen=True):
    """What was read from the copy of the database, sizes in bytes. `raw`: too broken to copy, so its files were kept.

    `index_flaws` says where an index does not match its table: no row is missing, and REINDEX writes the index anew.
    """

    size: Count
    sha256: str
    page_size: Count = 0
    journal_mode: str = "delete"
    encoding: str = "UTF-8"
    user_version: Whole = 0
    application_id: Whole = 0
    rows: Mapping[str, Count] = field(default_factory=dict)
    foreign_key_violations: Count = 0
    index_flaws: tuple[str, ...] = ()
    sqlite_version: str = ""
    mode: Annotated[int, Meta(ge=0, le=0o777)] = 0o600
    raw: bool = False


class AppMigrations(Struct, frozen=True):
    """The migrations that Django or Rails recorded: the last one, and how many there are."""

    tool: str
    last: str
    count: Count


class UploadsFacts(Struct, frozen=True):
    """What the tree held, in bytes. `tree` is the SHA-256 of the list of its folders, files and links.

    `links_out` counts the links to something outside of the uploads, which is in no backup. `attributes` counts the
    ACLs, extended attributes and file capabilities, `hard_links` the further names of files with several names; None if
    they were not looked for. If the copies have fewer, these were lost in copying, and a restore must not remove them
    from the live files. `mounts` are the places in the tree at which something was mounted, None if that is not known.
    """

    files: Count
    bytes: Count
    folders: Count = 0
    links: Count = 0
    links_out: Count = 0
    attributes: Count | None = None
    hard_links: Count | None = None
    tree: str = ""
    warnings: tuple[str, ...] = ()
    mounts: tuple[str, ...] | None = None


class ReferenceFacts(Struct, frozen=True):
    """What the rows of one column name, by one path template: how many do, find no file, or lead out of the uploads.

    `left_out` counts those whose file the settings exclude from backups. `examples` are the first missing paths.
    `error` says why nothing is known.
    """

    column: str
    path: str
    rows: Count = 0
    missing: Count = 0
    outside: Count = 0
    left_out: Count = 0
    examples: tuple[str, ...] = ()
    error: str = ""


class References(Struct, frozen=True):
    """Which uploads rows name, and how many files no row names; None if a column could not be read."""

    columns: tuple[ReferenceFacts, ...] = ()
    unnamed: Count | None = None
    unnamed_examples: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        return sum(one.missing for one in self.columns)


class SealedDatabase(Struct, frozen=True):
    """One of several databases in a backup: its name in the settings, or its path in the backup, if it lies in a tree.

    The other fields are as in `Metadata`.
    """

    name: str
    database_file: str | None
    alembic_revision: str | None = None
    alembic_revisions: tuple[str, ...] = ()
    version_table: str = "alembic_version"
    migrations: AppMigrations | None = None
    schema_fingerprint: str | None = None
    database: DatabaseFacts | None = None


_OF_A_DATABASE = tuple(one.name for one in fields(SealedDatabase) if one.name != "name")


class SealedTree(Struct, frozen=True):
    """One of several trees in a backup: its name, which its folder there has too, and what it held."""

    name: str
    uploads: UploadsFacts
    excluded_folders: tuple[str, ...] = ()


class GitFacts(Struct, frozen=True):
    """The commit of the code, as git on the host reports it; `dirty` means changed tracked files."""

    commit: str
    short: str
    branch: str | None = None
    subject: str = ""
    dirty: bool = False
    tag: str | None = None


class Metadata(Struct, frozen=True):
    """The content of `backup_metadata.json`. An earlier or hand-made backup has only the first seven fields.

    `added_bytes` is the size of what it does not share with the backup `linked_from`, on which it does not depend.
    `anomalies` has a sentence for each thing of which there was suddenly less than in the backups before it. `exclude`
    are the patterns of the uploads that were left out; `excluded_folders` were left out because they hold a file of
    `exclude_marked`. `databases` and `trees` list all of them if there is more than one; the fields above are those of
    the first. `databases_gap_ms` is the time within which the snapshots of all databases began.
    """

    backup_name: str
    timestamp: str
    created_at: datetime
    alembic_revision: str | None
    database_file: str | None
    uploads_included: bool
    backup_version: str = FORMAT
    kind: Kind = "manual"
    note: str = ""
    alembic_revisions: tuple[str, ...] = ()
    version_table: str = "alembic_version"
    migrations: AppMigrations | None = None
    schema_fingerprint: str | None = None
    database: DatabaseFacts | None = None
    uploads: UploadsFacts | None = None
    git: GitFacts | None = None
    app_id: str | None = None
    tool_version: str | None = None
    duration_seconds: Seconds | None = None
    linked_from: str | None = None
    added_bytes: Count | None = None
    anomalies: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    exclude_marked: tuple[str, ...] = ()
    excluded_folders: tuple[str, ...] = ()
    references: References | None = None
    databases: tuple[SealedDatabase, ...] = ()
    trees: tuple[SealedTree, ...] = ()
    databases_gap_ms: Seconds | None = None

    @property
    def others(self) -> tuple[str, ...]:
        """The names of the backup's further databases and trees."""
        names = (*(one.name for one in self.databases), *(one.name for one in self.trees))
        return tuple(name for name in names if name not in _FIRST)

    def at(self, part: str) -> Metadata | None:
        """Return the metadata as if that database or tree were all of the backup; None if it does not hold it."""
        if not part:
            return replace(self, databases=(), trees=())
        alone = replace(
            self, databases=(), trees=(), database_file=None, database=None, uploads_included=False, references=None
        )
        for one in self.databases:
            if one.name == part:
                return replace(alone, uploads=None, **{key: getattr(one, key) for key in _OF_A_DATABASE})
        for tree in self.trees:
            if tree.name == part:
                return replace(
                    alone, uploads_included=True, uploads=tree.uploads, excluded_folders=tree.excluded_folders
                )
        return None

    def with_database_file(self, part: str, facts: DatabaseFacts, fingerprint: str) -> Metadata:
        """Return the metadata with another file of that database that has the same rows; an empty part is the first."""

        def change(one: SealedDatabase) -> SealedDatabase:
            is_meant = one.name == (part or MAIN_DATABASE)
            return replace(one, database=facts, schema_fingerprint=fingerprint) if is_meant else one

        listed = replace(self, databases=tuple(map(change, self.databases)))
        return listed if part else replace(listed, database=facts, schema_fingerprint=fingerprint)

    @property
    def parts(self) -> tuple[Metadata, ...]:
        """The metadata of each part; the first database and the first tree are one part, and come first."""
        return tuple(one for one in map(self.at, ("", *self.others)) if one)

    @property
    def revisions(self) -> tuple[str, ...]:
        """All heads at which the database was; empty for an unversioned one."""
        single = (self.alembic_revision,) if self.alembic_revision else ()
        return self.alembic_revisions or single

    @property
    def schema_name(self) -> str:
        """The version of the schema: Alembic's revisions, else the last migration of another tool; empty if none."""
        other = f"{self.migrations.tool} {self.migrations.last}" if self.migrations else ""
        return ", ".join(self.revisions) or other

    @property
    def is_raw(self) -> bool:
        """Whether a database in it is kept as raw files: it could not be read, and no restore can put it back."""
        return any(one is not None and one.raw for one in self.all_facts)

    @property
    def all_facts(self) -> tuple[DatabaseFacts | None, ...]:
        """What was read from each database."""
        return (self.database, *(one.database for one in self.databases if one.name not in _FIRST))

    @property
    def tree_facts(self) -> dict[str, UploadsFacts | None]:
        """What each tree held, by the name of its folder; None if that is not known."""
        first = {UPLOADS_FOLDER: self.uploads} if self.uploads_included else {}
        return first | {one.name: one.uploads for one in self.trees}

    @property
    def database_files(self) -> dict[str, DatabaseFacts | None]:
        """What was read from each database, by the path of its file."""
        first = {self.database_file: self.database} if self.database_file else {}
        return first | {one.database_file: one.database for one in self.databases if one.database_file}

    def left_out(self, only: str | None) -> frozenset[str]:
        """Return the databases and trees in its folder that are not of that part; empty if `only` is None."""
        if only is None:
            return frozenset()
        alone = self.at("" if only in _FIRST else only)
        wanted = {*(alone.database_files if alone and only != UPLOADS_FOLDER else ())}
        wanted |= {only} if only in self.tree_facts else set()
        files = {name for name in self.database_files if "/" not in name}
        return frozenset({*self.tree_facts, *files} - wanted)

    @property
    def database_size(self) -> int:
        """The bytes of all databases, except those that lie in a tree."""
        further = (one for one in self.databases if one.name not in _FIRST and "/" not in one.name)
        return sum(one.size for one in (self.database, *(one.database for one in further)) if one)

    @property
    def content_size(self) -> int:
        """The bytes of all databases and trees, as far as they are known."""
        return self.database_size + sum(one.bytes for one in self.tree_facts.values() if one)

    @property
    def database_checksum(self) -> str:
        """The SHA-256 of the only database, or of the list of the checksums of all."""
        sums = [one.sha256 for one in self.all_facts if one]
        return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


class Flaw(Struct, frozen=True):
    """Something in a backup that is not as it was written: its path in the backup, and a sentence about it."""

    path: str
    text: str


class Backup(Struct, frozen=True):
    """A backup as it lies on disk. `metadata` is None if it cannot be trusted; `error` then says why.

    `flaws` are what the last verify found, `not_proven` is why the last test restore failed, `recovery_seconds` is how
    long a restore took in it. `just_built` means that this process has made it, and SQLite has checked its database,
    for this very use.
    """

    path: Path
    metadata: Metadata | None
    state: State
    size_bytes: int = 0
    unique_bytes: int = 0
    pinned: bool = False
    checked_at: datetime | None = None
    proven_at: datetime | None = None
    error: str = ""
    accepted: bool = False
    recovery_seconds: float | None = None
    not_proven: str = ""
    flaws: tuple[Flaw, ...] = ()
    just_built: bool = False

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def kind(self) -> str:
        """The purpose it was made for; empty if its metadata cannot be trusted."""
        return self.metadata.kind if self.metadata else ""

    @property
    def made_at(self) -> datetime:
        """The time it was made; the beginning of time if its metadata cannot be trusted."""
        return self.metadata.created_at if self.metadata else LONG_AGO

    @property
    def is_usable(self) -> bool:
        """Whether all of it can be restored, as far as is known."""
        return self.metadata is not None and self.state not in ("damaged", "raw")

    @property
    def unusual(self) -> tuple[str, ...]:
        """What is unusual about it, unless a user has accepted that."""
        return self.metadata.anomalies if self.metadata and not self.accepted else ()


class BackupRequest(Struct, frozen=True):
    """A request for a new backup: `pin_until_next` pins it until the next good one, `pin` for good."""

    name: str | None = None
    kind: Kind = "manual"
    note: str = ""
    uploads: bool = True
    pin: bool = False
    pin_until_next: bool = False
    git: GitFacts | None = None


class Migration(Struct, frozen=True):
    """One step of the schema: its revision, and the title that its author gave it."""

    revision: str
    title: str


class SchemaVerdict(Struct, frozen=True):
    """How a backup's revisions relate to this code's heads, and why.

    `pending` are the migrations still to run after a restore, oldest first (only if the relation is behind). `needs`
    says what is missing if the two cannot be compared.
    """

    relation: Literal["same", "behind", "unknown", "unreadable", "unversioned", "no_migrations"]
    backup: tuple[str, ...]
    code: tuple[str, ...]
    pending: tuple[Migration, ...] = ()
    reason: str = ""
    needs: str = ""

    @property
    def target(self) -> str:
        """The argument of an upgrade to this code."""
        return "heads" if len(self.code) > 1 else "head"

    def migrates_by_itself(self, command: str) -> bool:
        """Return whether the app's own command may bring it to this code, though nothing can be read beforehand."""
        return bool(command) and self.relation in ("no_migrations", "unreadable")

    @property
    def command(self) -> str:
        """The command of this toolkit that runs the pending migrations."""
        return "migrate heads" if self.target == "heads" else "migrate"
