"""Copies as commits on a branch of a git repository that is used for nothing else.

Each database is stored as SQL text, so that a diff of two commits shows what changed between two backups. Of the user's
own repository only a remote's address, and the settings to reach it, are read; its working tree, index, hooks and
branches are not touched, since all work is done in a temporary bare repository of our own, one for each call.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from backupkit.archive import packing
from backupkit.archive.tar import Member
from backupkit.config.remotes import GitTable
from backupkit.config.settings import Settings
from backupkit.fs import disk, scratch, space, tree
from backupkit.model.backup import CHECKSUM_FILE, GUIDE_FILE, METADATA_FILE, UPLOADS_FOLDER, DatabaseFacts, Metadata
from backupkit.model.errors import Damaged, Refused, RemoteFailed
from backupkit.model.events import EventListener, Notice, Progress, Step, Warned, silence
from backupkit.model.names import printable
from backupkit.remotes import listing_cache
from backupkit.remotes.base import KEEPS_NO_ATTRIBUTES, DamagedThere, RemoteBackup, was_made_at
from backupkit.remotes.git import layout, sql_text
from backupkit.remotes.git.branch import Blob, Branch, Commit, Contents, Draft, Wanted, message_of, open_branch
from backupkit.remotes.git.layout import LISTING, Stored
from backupkit.remotes.git.program import Git
from backupkit.repository import manifest, store
from backupkit.sqlite import database

_ATTEMPTS = 5  # to push to a branch that others push to as well
_INHERITED = "^(credential|http|https|url|core\\.sshcommand)"
_SECTION_ON_UPLOADS = re.compile(r"\n## 3\. The (?:uploads|files of [^\n]*)\n.*?(?=\n## )", re.DOTALL)
_FILE_TOO = "So the database file is pushed to {remote} too. To avoid this warning, add database to `include`."
_Members = Iterator[tuple[Member, Iterator[bytes]]]


class GitRemote:
    """A branch of a git repository as a remote, for one app; temporary files are in the backups folder if possible."""

    reads_copies = True
    is_history = True

    def __init__(self, settings: Settings, name: str, table: GitTable) -> None:
        self.name, self._settings, self._table = name, settings, table

    def check(self) -> None:
        """Raise `RemoteFailed` unless the repository answers, the branch is ours or missing, and we may push."""
        with self._branch("commits") as branch:
            branch.try_push()

    def list(self, emit: EventListener = silence) -> list[RemoteBackup]:
        """Return the backups on the branch, newest first; warn of a commit that is not a backup."""
        with self._branch("commits", to_read=True) as branch:
            if branch.others:
                emit(Warned(f"{branch.said_of_others()}; it is passed over. `push` is refused while it is there."))
            backups = [commit.backup for commit in branch.commits]
        return sorted(backups, key=lambda one: (one.created_at, one.name), reverse=True)

    def push(self, backup: Path, metadata: Metadata, emit: EventListener) -> None:
        """Commit the backup to the branch. One that is there already, with all included parts, stays as it is.

        Raises `Refused`, before anything is committed, for a file beyond the host's limit, for a name that another
        backup has there, and for a backup older than those that stay there; `Damaged`; `RemoteFailed`.
        """
        self._refuse_unreadable(backup.name, metadata)
        with self._branch("trees") as branch:
            if self._has_backup(branch, backup.name, metadata):
                emit(Notice(f"{backup.name} is in the git remote {self.name} already."))
                return
            draft = self._commit_draft(branch, backup, metadata, emit)
            self._report_lost_attributes(metadata, emit)
            emit(Step(f"Pushing {backup.name} to {self.name}"))
            self._retry_push(branch, lambda: self._history_with(branch, draft, backup.name, metadata))

    def _report_lost_attributes(self, metadata: Metadata, emit: EventListener) -> None:
        trees = [one for one in metadata.tree_facts.values() if one and "uploads" in self._table.include]
        if lost := sum((one.attributes or 0) + (one.hard_links or 0) for one in trees):
            emit(Notice(KEEPS_NO_ATTRIBUTES.format(name=self.name, lost=lost)))

    def pull(self, name: str, target: Path, emit: EventListener) -> None:
        """Write the backup into the empty folder `target`: byte for byte if all was included, else from the SQL text.

        In the second case its metadata says what it holds, its database is compared with the original metadata, and
        it gets checksums of its own. Raises `NoSuchBackup`, `Damaged`, `NoSpace`, `RemoteFailed`.
        """
        with self._branch("commits", to_read=True) as branch:
            commit = branch.find(name)
        with self._branch(None) as branch:
            emit(Step(f"Pulling {name} from {self.name}"))
            space.require(2 * commit.backup.size_bytes, branch.git.folder, "This pull")
            branch.fetch_one(commit)
            with branch.contents() as contents:
                _Pull(branch, commit, contents, self._settings.zone, emit).into(target)

    def remove(self, names: Sequence[str]) -> None:
        """Remove these backups from the branch and from its history, which is rewritten and pushed once."""
        with self._branch("trees") as branch:
            if {one.backup.name for one in branch.commits}.intersection(names):
                self._retry_push(branch, lambda: [one for one in branch.commits if one.backup.name not in names])

    def verify(self, emit: EventListener, names: Collection[str] = ()) -> None:
        """Fetch all of the branch and check every byte with `git fsck`; raise if anything is wrong or missing.

        Of named backups, check only that all their files are there, without fetching their bytes.
        """
        emit(Step(f"Verifying {self.name}"))
        with self._branch("trees" if names else "everything", to_read=True) as branch:
            if branch.commits and not names:
                branch.git.run("fsck", "--full", "--no-dangling")
            for commit in branch.commits:
                if names and commit.backup.name not in names:
                    continue
                there = {blob.path for blob in branch.files(commit.tree)}
                if missing := _required_files(commit.holds) - there:
                    raise _damaged(commit.backup.name, f"{min(missing)} is missing")

    def _refuse_unreadable(self, name: str, metadata: Metadata) -> None:
        if metadata.is_raw and "database" not in self._table.include:
            raise Refused(
                f"{name} keeps a database that could not be read: there is no SQL text of it.",
                hint="Push it to another remote, or set `include` with database.",
            )

    def _has_backup(self, branch: Branch, name: str, metadata: Metadata) -> bool:
        """Return whether the branch has all the parts that it should; raise `Refused` if it must not get the backup."""
        found = next((one for one in branch.commits if one.backup.name == name), None)
        if found is None:
            self._refuse_old(branch, name, metadata)
            return False
        if found.backup.created_at != metadata.created_at:
            raise Refused(
                f"The git remote {self.name} has another backup named {name}, "
                f"of {found.backup.created_at:%Y-%m-%d %H:%M}.",
                hint="Names are used once. Look at both: `list`, `list --remote`; push the next backup.",
            )
        return self._held(metadata, self._table.include) <= found.holds

    def _refuse_old(self, branch: Branch, name: str, metadata: Metadata) -> None:
        keep = self._table.keep
        newer = [one for one in branch.commits if one.backup.created_at > metadata.created_at]
        if keep and len(newer) >= keep and len(self._own(newer)) >= keep:
            raise Refused(
                f"{name} is older than the {keep} backups that stay in the git remote {self.name}.",
                hint="Raise `keep` if it belongs there.",
            )

    def _held(self, metadata: Metadata, include: Collection[str]) -> frozenset[str]:
        """Return the parts that a commit of the backup holds if these are included."""
        databases = layout.databases(metadata)
        held = {
            "dump": [layout.dump_part(name) for name, one in databases.items() if not one.is_raw],
            "metadata": ["metadata"],
            "database": ["database"] if databases else [],
            "uploads": ["uploads"] if metadata.tree_facts else [],
        }
        return frozenset(part for wanted in include for part in held[wanted])

    def _commit_draft(self, branch: Branch, backup: Path, metadata: Metadata, emit: EventListener) -> Draft:
        """Write the backup's tree into our own repository, comparing every file with its checksum on the way."""
        include, own = self._table.include, branch.git.folder
        files = self._stored(backup, metadata, include, own)
        dumps = self._dumps(backup, metadata, own, emit, _size(files))
        # A database that a pull could not make from its SQL text is included as a file too.
        if "database" not in include and (reason := _unusable_dumps(backup.name, dumps, emit)):
            include = (*include, "database")
            files = self._stored(backup, metadata, include, own, reason)
            space.require(_size(files), own, "This push")
            emit(Warned(f"{reason} {_FILE_TOO.format(remote=self.name)}"))
        files = [*files, *(dump for _recorded, dump in dumps)]
        size, held = _size(files), sorted(self._held(metadata, include))
        emit(Step(f"Preparing {backup.name} for {self.name}", size))
        tree_id = branch.import_tree((file.path, file.size, chunks) for file, chunks in _counted(files, emit))
        message = message_of(backup.name, metadata, self._settings.app_id, size, held)
        return Draft(tree_id, message, metadata.created_at)

    def _stored(
        self, backup: Path, metadata: Metadata, include: Collection[str], own: Path, because: str = ""
    ) -> Sequence[Stored]:
        """Return the files for the tree except the dumps; `because`: why, if the settings do not ask for them."""
        files = layout.stored(backup, metadata, include)
        if {"database", "uploads"} & self._held(metadata, include):
            files.append(_made(own / LISTING, layout.listing(backup, metadata, include)))
        layout.refuse_large(files, self._table.file_limit_mb, self.name, because)
        return files

    def _dumps(
        self, backup: Path, metadata: Metadata, own: Path, emit: EventListener, more: int
    ) -> Sequence[tuple[Metadata, Stored]]:
        """Dump each included database; return its metadata and dump. Require space for `more` bytes besides."""
        held = self._held(metadata, self._table.include)
        dumped = {name: one for name, one in layout.databases(metadata).items() if layout.dump_part(name) in held}
        sealed = sum((backup / (one.database_file or "")).stat().st_size for one in dumped.values())
        space.require(more + 4 * sealed, own, "This push")
        dumps = [(one, sql_text.write(backup, one, own / sql_text.name_of(name), emit)) for name, one in dumped.items()]
        layout.refuse_large((dump for _recorded, dump in dumps), self._table.file_limit_mb, self.name)
        return dumps

    def _history_with(self, branch: Branch, draft: Draft, name: str, metadata: Metadata) -> Sequence[Commit | Draft]:
        """Return the branch with the new commit; once it has twice the backups to keep, only with the newest.

        Copies that were never in this backups folder stay and do not count.
        """
        self._has_backup(branch, name, metadata)  # others may have pushed this name meanwhile
        others = [one for one in branch.commits if one.backup.name != name]
        if going := self._beyond_keep(others):
            others = sorted((one for one in others if one.id not in going), key=lambda one: one.backup.created_at)
        return [*others, draft]

    def _beyond_keep(self, commits: Sequence[Commit]) -> Collection[str]:
        """Return the ids of those that leave the branch; none at most pushes, since all that stays is sent again."""
        keep = self._table.keep
        if not keep or len(commits) < 2 * keep:
            return ()
        own = sorted(self._own(commits), key=lambda one: one.backup.created_at)
        return {one.id for one in own[: len(own) + 1 - keep]} if len(own) >= 2 * keep else ()

    def _own(self, commits: Sequence[Commit]) -> Sequence[Commit]:
        """Return the commits whose backups are, or were, in this backups folder."""
        names = listing_cache.own(self._settings, self.name, [one.backup for one in commits])
        return [one for one in commits if one.backup.name in names]

    def _retry_push(self, branch: Branch, wanted: Callable[[], Sequence[Commit | Draft]]) -> None:
        """Push the branch as wanted; if someone else was faster, fetch what they pushed and try again with it."""
        for _ in range(_ATTEMPTS):
            if branch.push(branch.build_history(wanted())):
                return
            self._fetch(branch, "trees")
        raise RemoteFailed(
            f"Others pushed to the branch {branch.name} of the git remote {self.name}, {_ATTEMPTS} times in a row.",
            hint="Try again in a while; the backups here are unharmed.",
        )

    @contextlib.contextmanager
    def _branch(self, wanted: Wanted | None, to_read: bool = False) -> Iterator[Branch]:
        """Yield the branch in a repository of our own, which is deleted when the block ends, even with an error."""
        with self._work_folder() as folder:
            own = folder / "repository"
            own.mkdir()
            author = (self._table.user_name, self._table.user_email)
            branch = open_branch(self._git(own), self._address(), self._table.branch, author, self._inherited())
            if wanted:
                self._fetch(branch, wanted, to_read)
            yield branch

    def _work_folder(self) -> contextlib.AbstractContextManager[Path]:
        if os.access(self._settings.dir, os.W_OK | os.X_OK):
            return store.work_folder(self._settings, f"git-{self.name}", f"git remote {self.name}")
        return scratch.folder()  # on a new machine there is no backups folder

    def _fetch(self, branch: Branch, wanted: Wanted, to_read: bool = False) -> None:
        branch.fetch(wanted, to_read)
        for commit in branch.commits:
            if commit.backup.app_id != printable(self._settings.app_id):
                raise RemoteFailed(
                    f"The branch {branch.name} of the git remote {self.name} holds the backups of another app: "
                    f"{commit.backup.app_id}.",
                    hint="Give each app a `branch` of its own; BACKUP_APP_ID says which app this is.",
                )

    def _address(self) -> str:
        """Return the address to push to: the setting, or that of the app repository's remote of this name."""
        url = self._table.url.get_secret_value()
        if re.fullmatch(r"[\w.-]+", url) and url not in (".", ".."):
            found = self._ask_app_repository("remote", "get-url", "--push", url)
            if not found:
                raise RemoteFailed(
                    f"The repository at {self._settings.app_dir} has no remote named {url}.",
                    hint="Set `url` to an address; or add that remote: `git remote add`.",
                )
            url, top = found, Path(self._ask_app_repository("rev-parse", "--show-toplevel") or self._settings.app_dir)
        else:
            top = self._settings.app_dir
        is_path = "://" not in url and ":" not in url.partition("/")[0]
        return str(top / Path(url).expanduser()) if is_path else url

    def _inherited(self) -> Sequence[tuple[str, str]]:
        """Return the app repository's own configuration for reaching its host: credentials, proxies, rewritten URLs."""
        lines = self._ask_app_repository("config", "--local", "-z", "--get-regexp", _INHERITED).split("\0")
        pairs = [line.partition("\n") for line in lines if line]
        return [(key, value if mark else "true") for key, mark, value in pairs]

    def _ask_app_repository(self, *arguments: str) -> str:
        """Return what git prints about the app's repository; empty if there is none, or git fails."""
        done = self._git(self._settings.app_dir).attempt(*arguments)
        return os.fsdecode(done.out).strip("\n") if done.code == 0 else ""

    def _git(self, folder: Path) -> Git:
        return Git(self.name, folder, self._table.timeout)


def _required_files(holds: frozenset[str]) -> set[str]:
    """Return the files that must be in the tree of a commit that holds these parts."""
    listing = {LISTING} if {"database", "uploads"} & holds else set()
    return {METADATA_FILE} | listing | {dump for part in holds if (dump := layout.dump_file(part))}


def _unusable_dumps(backup: str, dumps: Sequence[tuple[Metadata, Stored]], emit: EventListener) -> str:
    """Return sentences that say which dumps a pull could not use, and why; empty if it could use all."""
    found = [(dump.name, sql_text.refusal(dump.source, recorded, emit)) for recorded, dump in dumps]
    return " ".join(f"{name} of {backup} does not restore the database: {why}" for name, why in found if why)


def _size(files: Iterable[Stored]) -> int:
    return sum(file.size for file in files)


def _made(path: Path, content: bytes) -> Stored:
    path.write_bytes(content)
    return Stored(path.name, path, len(content), path.name)


def _counted(files: Iterable[Stored], emit: EventListener) -> Iterator[tuple[Stored, Iterator[bytes]]]:
    """Return each file with its content, which emits the overall progress as it is read."""
    done = 0

    def counted(file: Stored) -> Iterator[bytes]:
        nonlocal done
        for chunk in file.chunks():
            yield chunk
            done += len(chunk)
            emit(Progress(done))

    return ((file, counted(file)) for file in files)


class _Pull:
    """The conversion of a commit back to a backup."""

    def __init__(self, branch: Branch, commit: Commit, contents: Contents, zone: ZoneInfo, emit: EventListener) -> None:
        self._own, self._contents, self._zone, self._tell = branch.git.folder, contents, zone, emit
        self._name, self._holds = commit.backup.name, commit.holds
        self._created = commit.backup.created_at
        self._blobs = {blob.path: blob for blob in branch.files(commit.tree)}

    def into(self, target: Path) -> None:
        """Write everything in the commit into that empty folder; not yet synced."""
        recorded = self._recorded()
        if not was_made_at(recorded, self._created):
            raise _damaged(self._name, "it is another backup than its commit says")
        whole = layout.is_whole(recorded, self._holds)
        members = self._original_entries(recorded) if whole else self._rebuilt_entries(recorded)
        try:
            packing.unpack(self._name, members, target, self._zone, True, self._tell)
        except Damaged as error:
            raise _damaged(self._name, error.message.removeprefix("The archive is refused: ").rstrip(".")) from error
        if not whole:
            _seal(target)

    def _recorded(self) -> Metadata:
        """Return the metadata of the backup as it was made."""
        (self._own / METADATA_FILE).write_bytes(self._text(METADATA_FILE))
        return manifest.read_metadata(self._own, self._zone)

    def _original_entries(self, recorded: Metadata) -> _Members:
        for name in layout.TEXTS:
            if blob := self._blobs.get(name):
                yield self._member(name, blob.size), self._contents.chunks(blob)
        yield from self._listed(recorded)

    def _rebuilt_entries(self, recorded: Metadata) -> _Members:
        """Yield the entries of a backup that holds less than the original, with metadata that says so."""
        made = self._own / "made"
        made.mkdir()
        metadata = replace(recorded, created_at=self._created, linked_from=None, added_bytes=None)
        if "uploads" not in self._holds and recorded.tree_facts:
            metadata = self._without_trees(metadata)
        rebuilt = {} if "database" in self._holds else layout.databases(recorded)
        for name, alone in rebuilt.items():
            metadata = metadata.with_database_file(
                name, *self._rebuild_database(name, alone, made / sql_text.name_of(name))
            )
        if rebuilt:
            files = "database files differ" if len(rebuilt) > 1 else "database file differs"
            self._tell(Notice(f"{self._name} was rebuilt from its SQL text: it has all rows, but its {files}."))
            said = "made from its SQL text"
            metadata = replace(metadata, note=f"{metadata.note} ({said})" if metadata.note else said)
        manifest.write_metadata(made, metadata)
        yield self._file(METADATA_FILE, made / METADATA_FILE)
        if GUIDE_FILE in self._blobs:
            yield self._file(GUIDE_FILE, self._guide(made, metadata))
        for name, alone in rebuilt.items():
            mode = alone.database.mode if alone.database else 0o600
            yield self._file(alone.database_file or "", made / sql_text.name_of(name), mode)
        yield from self._listed(metadata)

    def _without_trees(self, metadata: Metadata) -> Metadata:
        """Return the metadata without the trees, and without databases inside them."""
        names = [*metadata.tree_facts]
        what = "uploads" if names == [UPLOADS_FOLDER] else f"folders {', '.join(names)}"
        self._tell(Notice(f"The {what} of {self._name} are not in the git remote."))
        left = tuple(one for one in metadata.databases if "/" not in one.name)
        return replace(metadata, uploads_included=False, uploads=None, trees=(), databases=left if left[1:] else ())

    def _rebuild_database(self, name: str, recorded: Metadata, target: Path) -> tuple[DatabaseFacts, str]:
        """Make the database from its SQL text, compare it with the record, and return its facts and fingerprint."""
        found, text = self._load(sql_text.name_of(name), target), f"its SQL text of {name}" if name else "its SQL text"
        if fault := sql_text.fault(recorded, found):
            raise _damaged(self._name, f"{text} {fault}")
        if recorded.schema_fingerprint not in (None, found.fingerprint):
            whose = f"{name} in {self._name}" if name else self._name
            self._tell(Warned(f"The schema of {whose} is not exactly as it was backed up."))
        mode = recorded.database.mode if recorded.database else 0o600
        return replace(found.facts, mode=mode), found.fingerprint

    def _load(self, dump: str, target: Path) -> database.Inspection:
        text = self._own / dump
        with open(text, "wb") as file:
            disk.write_contents(self._contents.chunks(self._blob(dump)), file.fileno())
        try:
            return sql_text.make(text, target, self._tell)
        finally:
            text.unlink()  # the next dump needs the space

    def _guide(self, made: Path, metadata: Metadata) -> Path:
        text = self._text(GUIDE_FILE).decode(errors="surrogateescape")
        if not metadata.tree_facts:
            text = _SECTION_ON_UPLOADS.sub("", text)
        guide = made / GUIDE_FILE
        guide.write_text(text, encoding="utf-8", errors="surrogateescape")
        return guide

    def _listed(self, metadata: Metadata) -> _Members:
        if LISTING not in self._blobs:
            return
        sizes = {path: blob.size for path, blob in self._blobs.items()}
        for member, place in layout.members(self._text(LISTING), sizes, metadata, self._name):
            yield member, self._contents.chunks(self._blob(place)) if place else iter(())

    def _file(self, name: str, source: Path, mode: int = 0o600) -> tuple[Member, Iterator[bytes]]:
        file = Stored(name, source, source.stat().st_size, name)
        return self._member(name, file.size, mode), file.chunks()

    def _member(self, name: str, size: int, mode: int = 0o600) -> Member:
        changed = int(self._created.timestamp()) * 10**9
        return Member(f"{self._name}/{name}", "file", mode, (0, 0), changed, size)

    def _text(self, path: str) -> bytes:
        return self._contents.whole(self._blob(path))

    def _blob(self, path: str) -> Blob:
        if path not in self._blobs:
            raise _damaged(self._name, f"{path} is missing")
        return self._blobs[path]


def _seal(folder: Path) -> None:
    """Write the checksums of all files in the folder."""
    paths = [entry.path for entry in tree.walk(folder) if entry.form == "file"]
    with contextlib.closing(manifest.ChecksumWriter(folder)) as checksums:
        for path in paths:
            checksums.record_file(path)
    os.chmod(folder / CHECKSUM_FILE, 0o600)


def _damaged(name: str, problem: str) -> DamagedThere:
    said = f"The copy of {name} in the git remote is damaged: {problem}."
    return DamagedThere(said, "Take another one: `list --remote`.", {name: problem})
