"""restic, for every storage that it supports: encrypted and deduplicated there. One snapshot is one backup.

restic writes the snapshot last, so an interrupted upload is not visible; the next one reuses what was uploaded.
Passwords and keys are passed in the environment, never on a command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from msgspec import Struct
from msgspec.structs import replace

from backupkit.config.remotes import ResticTable, variable
from backupkit.config.secrets import IN_FILE, revealed, scrubbed, secrets_from_files
from backupkit.config.settings import Settings
from backupkit.fs import own_folder, scratch, space, tree
from backupkit.model.backup import Backup, Metadata
from backupkit.model.errors import BackupError, Refused, RemoteAway, RemoteFailed
from backupkit.model.events import EventListener, Step, silence
from backupkit.model.names import printable
from backupkit.remotes.base import WHOLE, DamagedThere, RemoteBackup, another_there
from backupkit.remotes.restic_program import (
    ANY_TARGETS,
    NO_BUCKET,
    OLDEST,
    Done,
    installed_version,
    reason_in,
    run,
    version_in,
    version_output,
)
from backupkit.repository import store
from backupkit.rewind import chain, copies
from backupkit.rewind.chain import Point
from backupkit.rewind.copies import Copied

_MARK = "backupkit"
_MARK_OF_POINTS = "backupkit-points"
_MOST_POINTS = 2000  # in one snapshot: their names are on a command line
_UNLISTED = "could not load snapshots"  # said by restic 0.14, which then prints an empty list and ends with 0
_INCOMPLETE = 3  # restic's exit code for a snapshot that lacks files
_LONG_STALL = 86400.0  # seconds: a check or a clean-up of a large repository takes hours, and prints little meanwhile
_UNREACHABLE = re.compile(
    r"dial tcp|no such host|connection refused|connection reset|i/o timeout|network is unreachable|no route to host"
    r"|\bEOF\b|TLS handshake|broken pipe|Service Unavailable|server misbehaving|connection timed out|HTTP response 5"
    r"|unable to start the sftp session|ssh command exited|Internal Server Error|Bad Gateway|Gateway Time-?out",
    re.I,
)
# What storages say to wrong keys, and to keys that may not do this.
_DENIED = re.compile(
    r"access ?denied|permission denied|forbidden|unauthorized|authentication ?failed|signature ?does ?not ?match"
    r"|request signature we calculated|invalid ?access ?key|access key id you provided"
    r"|(?:response \(|error |: )40[13]\b",
    re.I,
)
# What restic says of stored data that is not what it stored.
_ROTTEN = re.compile(
    r"[^\n]*(ciphertext verification failed|invalid (data|hash)|wrong hash|hash (does not match|mismatch)"
    r"|not found in (index|repository)|Pack ID does not match|data/[0-9a-f/]+: no such file)[^\n]*"
)
_LOGIN_FAILED = re.compile(r"Host key verification failed|Permission denied \(|Too many authentication failures")
# By the prefix of the repository's address: the program that restic starts for it, and the program's package.
_NEEDED = {"sftp:": ("ssh", "openssh-client"), "rclone:": ("rclone", "rclone")}


class _SentPoints(Struct, frozen=True):
    """A snapshot of points: their backup's name and time, how many, the number and time of the last, their bytes."""

    snapshot: str
    name: str
    created_at: datetime
    points: int
    last: int
    until: datetime
    size: int


class ResticRemote:
    """A repository that several apps and machines may share: each app sees only its own snapshots, by their tags.

    Rewind points are in snapshots of their own: each holds those that are new since the previous one.
    """

    reads_copies = False
    is_history = False

    def __init__(self, settings: Settings, name: str, table: ResticTable) -> None:
        self.name = name
        self._settings = settings
        self._table = table

    def check(self) -> None:
        self._require_restic()
        self._run(["cat", "config"])

    def prepare(self) -> None:
        """Create the repository if there is none; if there is one, check that the password opens it."""
        self._require_restic()
        done = self._run(["init"], allowed=(0, 1))
        if "already" in done.said:  # check that our password opens it
            self._run(["cat", "config"])
        elif done.code:
            raise self._failure("init", done)

    def list(self, _emit: EventListener = silence) -> list[RemoteBackup]:
        self._require_restic()
        snapshots, points = self._snapshots(_MARK, _MARK_OF_POINTS), Counter[tuple[str, datetime]]()
        for sent in _point_snapshots(snapshots):
            points[sent.name, sent.created_at] += sent.points
        found = [replace(one, points=points[one.name, one.created_at]) for one in map(_backup_of, snapshots) if one]
        return sorted(found, key=lambda one: (one.created_at, one.name), reverse=True)

    def push(self, backup: Path, metadata: Metadata, emit: EventListener) -> None:
        for one in self.list():
            if one.name == backup.name:
                if one.created_at != metadata.created_at:
                    raise another_there(one.name, self.name)
                return
        self._require_readable(backup)
        self._refuse_links_it_cannot_keep(backup)
        emit(Step(f"Sending {backup.name} to {self.name}"))
        tags = self._tags(backup.name, metadata)
        # Run inside the folder, so that its content is at the top of the snapshot, whatever the target of a restore.
        done = self._send(["."], backup, metadata.created_at, tags, emit)
        if done.code == _INCOMPLETE:
            raise RemoteFailed(
                f"Not every file of {backup} could be read by restic: {reason_in(done.said)}.",
                hint=f"Check it: `verify {backup.name}`",
            )

    def push_points(self, backup: Backup, emit: EventListener) -> Copied:
        there = self._points_of(backup)
        last, until = max((one.last for one in there), default=0), max((one.until for one in there), default=None)

        def is_new(one: Point) -> bool:
            return until is None or one.number > last or one.at > until

        coming, left_out = copies.to_send(self._settings.dir, backup, is_new, emit)
        for start in range(0, len(coming), _MOST_POINTS):
            self._send_points(backup, coming[start : start + _MOST_POINTS], emit)
        return Copied(len(coming), left_out)

    def pull_points(self, backup: Backup, emit: EventListener, refuse: Callable[[Point], None]) -> Copied:
        here = self._settings.dir
        last = max((one.number for one in chain.read(here, backup.name)[0]), default=0)
        coming = [one for one in self._points_of(backup) if one.last > last]
        if not coming:
            return Copied()
        with store.work_folder(self._settings, "fetched", f"pull of the points after {backup.name}") as folder:
            space.require(2 * sum(one.size for one in coming), here, f"The copy of the points after {backup.name}")
            emit(Step(f"Fetching the points after {backup.name} from {self.name}"))
            with own_folder.made(folder, chain.FOLDER, backup.name):
                target = folder / chain.FOLDER / backup.name
            for one in coming:
                self._run(["restore", one.snapshot, "--target", str(target)], emit, stall=_LONG_STALL)
            return copies.copy(folder, here, backup, emit, only_later=True, refuse=refuse)

    def pull(self, name: str, target: Path, emit: EventListener) -> None:
        emit(Step(f"Fetching {name} from {self.name}"))
        self._run(["restore", self._snapshot(name), "--target", str(target)], emit, stall=_LONG_STALL, about=name)

    def remove(self, names: Sequence[str]) -> None:
        snapshots = self._snapshots(_MARK, _MARK_OF_POINTS)
        there = [(one.snapshot, one.name) for one in _point_snapshots(snapshots)]  # points first: they need the backup
        there += [(str(one["id"]), found.name) for one in snapshots if (found := _backup_of(one))]
        if ids := [snapshot for snapshot, name in there if name in names]:
            done = self._run(["forget", *ids])
            left = {str(one["id"]) for one in self._snapshots(_MARK, _MARK_OF_POINTS)}
            if kept := set(ids) & left:  # later versions of restic exit with 0 then
                raise RemoteFailed(
                    f"The remote {self.name} did not remove {len(kept)} of {len(ids)} snapshots: "
                    f"{self._words_of(done)}.",
                    hint="If it is append-only, prune it from a machine that may delete there.",
                )

    def tidy(self, emit: EventListener) -> None:
        """Delete the data that only forgotten snapshots used."""
        emit(Step(f"Freeing space on {self.name}"))
        self._run(["prune"], emit, stall=_LONG_STALL)

    def verify(self, emit: EventListener, names: Collection[str] = ()) -> None:
        """Check the repository as a whole: restic cannot check a single snapshot."""
        self._require_restic()
        emit(Step(f"Checking {self.name}"))
        self._run(["check"], emit, stall=_LONG_STALL)

    def _snapshots(self, *marks: str) -> Sequence[dict[str, Any]]:
        """Return this app's snapshots that have one of the marks; without marks, those of backups."""
        app = f"app={_tag_value(self._settings.app_id)}"
        tags = [word for mark in marks or (_MARK,) for word in ("--tag", f"{mark},{app}")]
        done = self._run(["snapshots", "--json", *tags])
        if _UNLISTED in done.said:
            raise self._failure("snapshots", done)
        return [one for part in done.printed if isinstance(part, list) for one in part]

    def _snapshot(self, name: str) -> str:
        for one in self._snapshots():
            if (found := _backup_of(one)) and found.name == name:
                return str(one["id"])
        raise RemoteFailed(
            f"There is no backup {name} on the remote {self.name} any more.",
            hint=f"See what is there: `list --remote {self.name}`",
        )

    def _points_of(self, backup: Backup) -> Sequence[_SentPoints]:
        created = store.require_metadata(backup).created_at
        found = _point_snapshots(self._snapshots(_MARK_OF_POINTS))
        return [one for one in found if (one.name, one.created_at) == (backup.name, created)]

    def _send_points(self, backup: Backup, points: Sequence[Point], emit: EventListener) -> None:
        emit(Step(f"Sending the points after {backup.name} to {self.name}"))
        until = max(one.at for one in points)
        facts = {
            "app": self._settings.app_id,
            "name": backup.name,
            "created": store.require_metadata(backup).created_at.isoformat(),
            "points": str(len(points)),
            "last": str(points[-1].number),
            "until": until.isoformat(),
            "size": str(sum(one.size for one in points)),
        }
        with chain.opened(self._settings.dir, backup.name) as folder:
            names, tags = [one.name for one in points], [_MARK_OF_POINTS, *_as_tags(facts)]
            done = self._send(names, folder, until, tags, emit) if folder else None
        if done is None or done.code == _INCOMPLETE:
            why = reason_in(done.said) if done else "their folder is gone"
            raise RemoteAway(
                f"Points after {backup.name} were merged while they were sent to {self.name}: {why}.",
                hint="Nothing is lost: `push` again.",
            )

    def _send(self, names: Sequence[str], folder: Path, at: datetime, tags: Sequence[str], emit: EventListener) -> Done:
        """Send the files as a snapshot dated `at`; delete it again if it is incomplete (`_INCOMPLETE`)."""
        time = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        words = ["--json", "--time", time, "--host", _tag_value(self._settings.app_id)]
        words += [word for tag in tags for word in ("--tag", tag)]
        sending = ["backup", *words, "--", *names]
        done = self._run(sending, emit, folder=folder, allowed=(0, _INCOMPLETE), stall=self._table.stall)
        summary: dict[str, Any] = next((one for one in done.printed if one.get("message_type") == "summary"), {})
        # restic does not fail if one of several names is gone.
        is_whole = done.code == 0 and (len(names) == 1 or summary.get("total_files_processed") == len(names))
        if summary and is_whole:
            return done
        if summary:
            self._run(["forget", summary["snapshot_id"]])
        return replace(done, code=_INCOMPLETE)

    def _tags(self, name: str, metadata: Metadata) -> Sequence[str]:
        facts = {
            "app": self._settings.app_id,
            "name": name,
            "kind": metadata.kind,
            "revision": "+".join(metadata.revisions),
            "created": metadata.created_at.isoformat(),
            "size": str(metadata.content_size),
            "uploads": "yes" if metadata.uploads_included else "no",
        }
        return [_MARK, *_as_tags(facts)]

    def _require_readable(self, backup: Path) -> None:
        """Raise `RemoteFailed` for an unreadable file: restic would leave it out, and the copy would look complete."""
        for entry in tree.walk(backup):
            if entry.form != "link" and not os.access(backup / entry.path, os.R_OK):
                raise RemoteFailed(
                    f"{backup / printable(entry.path)} cannot be read, and so {backup.name} is not sent.",
                    hint="Run as the user who owns it, or as root.",
                )

    def _refuse_links_it_cannot_keep(self, backup: Path) -> None:
        """Raise `Refused` for a link that this restic would store with another target: no pull could take that copy."""
        odd = (entry for entry in tree.walk(backup) if entry.form == "link" and not _is_utf8(entry.target))
        if (link := next(odd, None)) is None or (version := installed_version() or (0, 0)) >= ANY_TARGETS:
            return
        found, needed = (".".join(map(str, one)) for one in (version, ANY_TARGETS))
        raise Refused(
            f"restic {found} cannot keep the link {printable(link.path)} (its target is not UTF-8), and so "
            f"{backup.name} is not sent to {self.name}.",
            hint=f"Install restic {needed} or later, here and where it is pulled; or remove that link, then `backup`.",
        )

    def _require_restic(self) -> None:
        address = self._table.repository.get_secret_value()
        begun = [needed for begin, needed in _NEEDED.items() if address.startswith(begin)]
        for program, package in [("restic", "restic"), *begun]:
            if shutil.which(program) is None:
                raise RemoteFailed(
                    f"{program} is not installed, and the remote {self.name} needs it.",
                    hint=f"apt-get install {package}, or brew install {package}; in a container it belongs into the "
                    "image.",
                )
        output = version_output()
        if (version_in(output) or (0, 0)) < OLDEST:
            raise RemoteFailed(
                f"This restic is too old: {reason_in(output)}; it takes {'.'.join(map(str, OLDEST))} or later.",
                hint="Install a later one: https://github.com/restic/restic/releases",
            )

    def _run(
        self,
        words: Sequence[str],
        emit: EventListener = silence,
        folder: Path | None = None,
        allowed: Sequence[int] = (0,),
        stall: float | None = None,
        about: str = WHOLE,
    ) -> Done:
        """Run restic; remove a stale lock once and retry. `stall`: seconds without progress; `about`: what it reads."""
        wait = stall or self._table.stall
        with self._environment() as environment:
            done = run(words, environment, folder, emit, wait, self.name)
            if done.code not in allowed and "already locked" in done.said:
                run(["unlock"], environment, None, silence, wait, self.name)
                done = run(words, environment, folder, emit, wait, self.name)
        if done.code not in allowed:
            raise self._failure(words[0], done, about)
        return done

    @contextlib.contextmanager
    def _environment(self) -> Iterator[dict[str, str]]:
        """Yield restic's variables: the user's own for its back ends, ours for its repository and password."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("BACKUP_")}
        for name in ("RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND", "RESTIC_REPOSITORY_FILE"):
            variables.pop(name, None)
        variables["RESTIC_REPOSITORY"] = self._table.repository.get_secret_value()
        variables["RESTIC_PASSWORD"] = self._password()
        variables |= {"RESTIC_PROGRESS_FPS": "2", "TZ": "UTC", "LC_ALL": "C"}
        if variables.get("HOME") or variables.get("XDG_CACHE_HOME") or variables.get("RESTIC_CACHE_DIR"):
            yield variables
            return
        with scratch.folder() as cache:
            yield variables | {"RESTIC_CACHE_DIR": str(cache)}

    def _password(self) -> str:
        files = {"password" + IN_FILE: self._table.password_file}
        found = secrets_from_files(("password",), files, self._settings.app_dir, lambda one: variable(self.name, one))
        password = revealed(self._table.password) or found.get("password", "")
        if not password:
            raise RemoteFailed(
                f"The remote {self.name} has no password.",
                hint=f"Set {variable(self.name, 'password')}_FILE, or password_file in [remotes.{self.name}].",
            )
        return password

    def _words_of(self, done: Done) -> str:
        """Return why it failed, in restic's own words without secrets."""
        return reason_in(scrubbed(done.said, self._table.secrets)).rstrip(".")

    def _failure(self, command: str, done: Done, about: str = WHOLE) -> BackupError:
        """Return restic's failure as one of our errors."""
        said, place, reason = done.said, str(self._table.repository), self._words_of(done)
        if "wrong password" in said:
            return RemoteFailed(
                f"The password of the remote {self.name} is wrong: {place}.",
                hint=f"{variable(self.name, 'password')}, or password_file in [remotes.{self.name}], must be the one "
                "it was made with. Nobody can read it without.",
            )
        if "already locked" in said:
            return RemoteAway(
                f"The repository of the remote {self.name} is locked: {_lock_of(said)}.",
                hint="Wait for the other restic; a lock left by one that was killed elsewhere expires in 30 minutes.",
            )
        if _LOGIN_FAILED.search(said):
            return RemoteFailed(
                f"ssh cannot log in to the remote {self.name}: {reason}.",
                hint="It must log in without a question: the key, and the host in known_hosts, are in ~/.ssh of the "
                "user who runs this; in the container that is /root/.ssh.",
            )
        if _UNREACHABLE.search(said):
            return RemoteAway(
                f"The remote {self.name} cannot be reached: {reason}.", hint="Is the network up? `remotes` tries again."
            )
        if _DENIED.search(reason):  # before the next: an unreadable config looks like a missing repository
            return self._denied(reason)
        if _lacks_repository(said):
            return RemoteFailed(
                f"There is no repository of restic at {place}, for the remote {self.name}.",
                hint=f"If the place is right: `remotes --init {self.name}`",
            )
        rotten = list(_ROTTEN.finditer(scrubbed(said, self._table.secrets))) if command == "restore" else []
        if command == "check" or rotten:
            return self._damaged(printable(rotten[-1][0].strip()) if rotten else reason, about)
        return RemoteFailed(
            f"The remote {self.name} failed: restic {command}: {reason}.",
            hint="The backups here are not touched by that. `remotes` tries again.",
        )

    def _damaged(self, reason: str, about: str) -> DamagedThere:
        return DamagedThere(
            f"The remote {self.name} holds something damaged: {reason}.",
            "`restic check --read-data` there says more. The backups here are not touched by that.",
            {about: reason},
        )

    def _denied(self, reason: str) -> RemoteFailed:
        needed = self._table.way_in or "the user and password in its address, or the rights of who runs this"
        return RemoteFailed(
            f"The remote {self.name} denied access: {reason}.",
            hint=f"Check {needed}: set for this command, right, and allowed to read and write there? Then: `remotes`",
        )


def _is_utf8(target: str) -> bool:
    try:
        os.fsencode(target).decode()
    except UnicodeDecodeError:
        return False
    return True


def _backup_of(snapshot: Mapping[str, Any]) -> RemoteBackup | None:
    """Return the backup that a snapshot's tags describe; None if it is not one of ours."""
    facts = _facts_of(snapshot, _MARK)
    try:
        size, revision = int(facts["size"]), facts["revision"].replace("+", ",")
        with_uploads, created = facts["uploads"] == "yes", _time_in(facts["created"])
        return RemoteBackup(facts["name"], created, facts["kind"], size, facts["app"], revision, with_uploads)
    except (KeyError, ValueError):
        return None


def _point_snapshots(snapshots: Sequence[Mapping[str, Any]]) -> list[_SentPoints]:
    """Return the snapshots that hold points, oldest first."""
    found = []
    for one in snapshots:
        facts = _facts_of(one, _MARK_OF_POINTS)
        with contextlib.suppress(KeyError, ValueError):
            created, until = _time_in(facts["created"]), _time_in(facts["until"])
            points, last, size = (int(facts[key]) for key in ("points", "last", "size"))
            found.append(_SentPoints(str(one["id"]), facts["name"], created, points, last, until, size))
    return sorted(found, key=lambda one: (one.until, one.last))


def _facts_of(snapshot: Mapping[str, Any], mark: str) -> dict[str, str]:
    """Return the facts in a snapshot's tags; empty if it does not have that mark."""
    tags = snapshot.get("tags") or ()
    pairs = (tag.partition("=") for tag in tags if mark in tags)
    return {key: unquote(value) for key, sign, value in pairs if sign}


def _time_in(text: str) -> datetime:
    """Parse a time with an offset; raise `ValueError` for anything else."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at


def _as_tags(facts: Mapping[str, str]) -> list[str]:
    return [f"{key}={_tag_value(value)}" for key, value in facts.items()]


def _tag_value(value: str) -> str:
    """Percent-encode what a tag cannot hold, such as commas, which separate tags."""
    return quote(value, safe=":+-._ ")


def _lacks_repository(said: str) -> bool:
    """Return whether the place was reached but holds no repository."""
    is_missing = any(sign in said for sign in ("unable to open config file", "Is there a repository", NO_BUCKET))
    return is_missing and not _UNREACHABLE.search(said)


def _lock_of(said: str) -> str:
    found = re.search(r"already locked[^\n]*", said)
    return printable(found[0].rstrip(".")) if found else "already locked"
