"""The branch of backups on a git remote: one commit is one backup, and its message says which.

We work in a temporary bare repository of our own, one for each call. The last lines of a commit's message describe its
backup, so that a list needs only the commits. Every push is conditional: it fails if the branch has moved since our
last fetch.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Literal, get_args

from msgspec import Struct

from backupkit.model.backup import Kind, Metadata
from backupkit.model.errors import Damaged, NoSuchBackup, Refused, RemoteFailed
from backupkit.model.names import check_name, first_of, printable
from backupkit.remotes.base import RemoteBackup
from backupkit.remotes.git.program import Git

_TIP = "refs/backups/tip"
_CHUNK = 1 << 20
Wanted = Literal["commits", "trees", "everything"]
_FILTERS: dict[Wanted, tuple[str, ...]] = {
    "commits": ("--filter=tree:0",),
    "trees": ("--filter=blob:none",),
    "everything": (),
}


class Commit(Struct, frozen=True):
    """A commit of the branch, and the backup that it holds; `holds` names the included parts."""

    id: str
    tree: str
    message: bytes
    backup: RemoteBackup
    holds: frozenset[str]


class OtherCommit(Struct, frozen=True):
    """A commit of the branch that is not a backup: somebody else's work."""

    id: str
    subject: str


class Draft(Struct, frozen=True):
    """A commit to be made."""

    tree: str
    message: bytes
    created_at: datetime


class Blob(Struct, frozen=True):
    """A file in a tree of git: its path there, and its size in bytes."""

    path: str
    id: str
    size: int


class Contents:
    """A reader of blobs, one after the other, from one git process."""

    def __init__(self, into: IO[bytes], out: IO[bytes]) -> None:
        self._into, self._out = into, out

    def chunks(self, blob: Blob) -> Iterator[bytes]:
        """Yield the blob's content; read it to its end before asking for the next."""
        self._into.write(f"{blob.id}\n".encode())
        self._into.flush()
        lost = RemoteFailed(f"{printable(blob.path)} did not come from the git remote.", hint="Try again.")
        head = self._out.readline().split()
        if len(head) != 3:
            raise lost
        left = int(head[2])
        while left:
            chunk = self._out.read(min(left, _CHUNK))
            if not chunk:
                raise lost
            left -= len(chunk)
            yield chunk
        self._out.read(1)

    def whole(self, blob: Blob) -> bytes:
        """Return the blob's content, in memory."""
        return b"".join(self.chunks(blob))


@dataclass
class Branch:
    """The remote's branch as it was at the last `fetch`: its commits, oldest first, and those that are no backups."""

    git: Git
    name: str
    commits: tuple[Commit, ...] = ()
    others: tuple[OtherCommit, ...] = ()

    @property
    def tip(self) -> str:
        """The id of the newest commit; empty if there is no such branch."""
        return self.commits[-1].id if self.commits else ""

    def find(self, name: str) -> Commit:
        """Return the commit of that backup, or raise `NoSuchBackup`."""
        for commit in self.commits:
            if commit.backup.name == name:
                return commit
        raise NoSuchBackup(
            f"There is no backup named {name} in the git remote {self.git.remote}.",
            hint=f"What is there: `list --remote {self.git.remote}`",
        )

    def fetch(self, wanted: Wanted, to_read: bool = False) -> None:
        """Fetch the branch as it is now; raise `RemoteFailed` if a commit in it is not one of ours.

        With `to_read`, only if none is: the others are passed over.
        """
        self.commits = self.others = ()
        if not self.remote_tip():
            return
        self.git.run("fetch", "--quiet", "--no-tags", *_FILTERS[wanted], "origin", f"+{self._ref}:{_TIP}")
        ids = self.git.run("rev-list", "--topo-order", "--reverse", _TIP)
        texts = self.git.run("cat-file", "--batch", stdin=ids)
        found = [_commit(id_, text) for id_, text in _objects(texts)]
        self.commits = tuple(one for one in found if isinstance(one, Commit))
        self.others = tuple(one for one in found if isinstance(one, OtherCommit))
        if self.others and not (to_read and self.commits):
            raise RemoteFailed(f"{self.said_of_others()}; it is left as it is.", self._way_out(found))

    def said_of_others(self) -> str:
        """Return a sentence, without its end, that names the first commit that is not a backup."""
        return (
            f"The branch {self.name} of the git remote {self.git.remote} has a commit that is not a backup: "
            + first_of([f"{one.id[:10]} ({one.subject})" for one in self.others])
        )

    def _way_out(self, found: Sequence[Commit | OtherCommit]) -> str:
        """Return the hint: how to take off what lies above the newest backup, if all of it does."""
        if not self.commits or [*self.commits] != found[: len(self.commits)]:
            return "Set another `branch` for the backups, one that nothing else uses."
        back = f"git push --force-with-lease origin {self.tip[:10]}:{self._ref}"
        return f"Set another `branch`; or, in a clone of this one, take off what is not a backup: {back}"

    def fetch_one(self, commit: Commit) -> None:
        """Fetch that commit with its content; without the others if the host allows that."""
        alone = self.git.attempt("fetch", "--quiet", "--no-tags", "--depth=1", "origin", commit.id)
        if alone.code:
            if isinstance(why := self.git.failure(alone.err, commit.backup.name), Damaged):
                raise why
            self.fetch("everything", to_read=True)

    def remote_tip(self) -> str:
        """Return the id of the branch's newest commit on the remote now; empty if there is no branch."""
        return self.git.line("ls-remote", "--heads", "origin", self._ref).partition("\t")[0]

    def push(self, commit: str) -> bool:
        """Set the remote branch to that commit, or delete it if empty; return False, unchanged, if it has moved.

        Raises `RemoteFailed` if the host refuses it.
        """
        lease = f"--force-with-lease={self._ref}:{self.tip}"
        options = ("--quiet", "--no-verify", "--no-thin", lease)  # a thin pack would fetch the bases of its deltas
        done = self.git.attempt("push", *options, "origin", f"{commit}:{self._ref}")
        if done.code == 0:
            return True
        if self.remote_tip() != self.tip:
            return False
        if "rejected" in done.err:
            said = [line.removeprefix("remote: ") for line in done.err.splitlines() if line.startswith("remote: ")]
            reason = printable((said or re.findall(r"rejected\] .*\((.*)\)", done.err) or ["no reason"])[0]).rstrip(
                ". "
            )
            raise RemoteFailed(
                f"The git remote {self.git.remote} refused the push to {self.name}: {reason}.",
                hint=f"There, allow this user to push to {self.name}, by force too; or set another `branch`.",
            )
        raise self.git.failure(done.err)

    def try_push(self) -> None:
        """Raise `RemoteFailed` unless this user may push; change nothing."""
        commit = self.tip or self._commit_tree(self.git.line("mktree"), b"nothing", "@0 +0000", "")
        self.git.run("push", "--quiet", "--no-verify", "--dry-run", "origin", f"{commit}:{self._ref}")

    def build_history(self, wanted: Sequence[Commit | Draft]) -> str:
        """Return a commit whose history is exactly these; reuse unchanged first commits. Empty for none."""
        parent = ""
        for number, one in enumerate(wanted):
            if isinstance(one, Commit) and number < len(self.commits) and self.commits[number] == one:
                parent = one.id
                continue
            created = one.backup.created_at if isinstance(one, Commit) else one.created_at
            at = f"@{created.timestamp():.0f} {created.strftime('%z')[:5]}"
            parent = self._commit_tree(one.tree, one.message, at, parent)
        return parent

    def import_tree(self, files: Iterable[tuple[str, int, Iterator[bytes]]]) -> str:
        """Return the id of a tree of these files, given as path, size and streamed content."""
        with (
            tempfile.TemporaryFile(dir=self.git.folder) as said,
            self.git.started("fast-import", "--quiet", "--done", err=said) as child,
        ):
            assert child.stdin
            try:
                _write_import(child.stdin, files)
                child.stdin.close()
            except BrokenPipeError:
                pass  # git ended early; its stderr says why
            if self.git.ended(child):
                said.seek(0)
                raise self.git.failure(said.read().decode(errors="replace"))
        return self.git.line("rev-parse", "refs/backups/draft^{tree}")

    def files(self, tree: str) -> list[Blob]:
        """Return every file of a tree, at any depth."""
        entries = self.git.run("ls-tree", "-r", "-z", "--long", "--full-tree", tree).split(b"\0")
        return [_blob(entry) for entry in entries if entry]

    @contextlib.contextmanager
    def contents(self) -> Iterator[Contents]:
        """Yield a reader of the files in the fetched commits."""
        with self.git.started("cat-file", "--batch", err=subprocess.DEVNULL) as child:
            assert child.stdin and child.stdout
            yield Contents(child.stdin, child.stdout)

    def _commit_tree(self, tree: str, message: bytes, date: str, parent: str) -> str:
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        return self.git.line(
            "commit-tree", "--no-gpg-sign", tree, *(["-p", parent] * bool(parent)), stdin=message, **dates
        )

    @property
    def _ref(self) -> str:
        return f"refs/heads/{self.name}"


def open_branch(git: Git, url: str, branch: str, author: tuple[str, str], more: Iterable[tuple[str, str]]) -> Branch:
    """Return the branch, not fetched yet, in a new bare repository in git's folder. `more` is extra configuration."""
    git.run("init", "--quiet", "--bare", "--template=", ".")
    name, email = author
    own = (("user.name", name), ("user.email", email), ("remote.origin.url", url))
    with open(git.folder / "config", "a", encoding="utf-8", errors="surrogateescape") as config:
        config.writelines(_setting(key, value) for key, value in (*more, *own))
    return Branch(git, branch)


def _setting(key: str, value: str) -> str:
    """Return lines for git's configuration file; others could read a token on the command line of `git config`."""
    section, _, rest = key.partition(".")
    subsection, _, variable = rest.rpartition(".")
    head = f"{section} {_quoted(subsection)}" if subsection else section
    return f"[{head}]\n{variable} = {_quoted(value)}\n"


def _quoted(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{plain}"'


def message_of(name: str, metadata: Metadata, app_id: str, size: int, holds: Iterable[str]) -> bytes:
    """Return the message of a backup's commit: text for people, then the facts for the list. `size` in bytes."""
    facts = {
        "Name": name,
        "Created": metadata.created_at.isoformat(),
        "Kind": metadata.kind,
        "App": app_id,
        "Revision": ",".join(metadata.revisions),
        "Bytes": str(size),
        "Holds": " ".join(holds),
    }
    lines = [f"Backup-{key}: {_one_line(value)}" for key, value in facts.items() if value]
    at = f"{metadata.created_at:%d %B %Y, %H:%M:%S} {metadata.created_at.tzname()}"
    note = [_one_line(metadata.note)] if metadata.note else []
    paragraphs = [f"Backup {name}, {at}", *note, "\n".join(lines)]
    return ("\n\n".join(paragraphs) + "\n").encode()


def _one_line(text: str) -> str:
    return printable(text.strip())


def _commit(id_: str, text: bytes) -> Commit | OtherCommit:
    head, _, message = text.partition(b"\n\n")
    tree = head.partition(b"\n")[0].removeprefix(b"tree ").decode()
    try:
        backup, holds = _parse(message.decode())
    except (ValueError, KeyError, Refused):
        return OtherCommit(id_, printable(message.decode(errors="replace").partition("\n")[0][:60]))
    return Commit(id_, tree, message, backup, holds)


def _parse(message: str) -> tuple[RemoteBackup, frozenset[str]]:
    """Parse the last paragraph of a message; raise `ValueError`, `KeyError` or `Refused` if it is not ours."""
    lines = message.strip().rpartition("\n\n")[2].splitlines()
    facts = dict(line.removeprefix("Backup-").split(": ", 1) for line in lines if line.startswith("Backup-"))
    created, kind = datetime.fromisoformat(facts["Created"]), facts["Kind"]
    if kind not in get_args(Kind) or created.tzinfo is None:
        raise ValueError(message)
    holds = frozenset(facts["Holds"].split())
    name, size = check_name(facts["Name"]), int(facts["Bytes"])
    backup = RemoteBackup(name, created, kind, size, facts["App"], facts.get("Revision", ""), "uploads" in holds)
    return backup, holds


def _objects(batch: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield id and content of each object in the output of `cat-file --batch`."""
    start = 0
    while start < len(batch):
        end = batch.index(b"\n", start)
        id_, _, size = batch[start:end].decode().split(" ")
        start = end + 1 + int(size) + 1
        yield id_, batch[end + 1 : start - 1]


def _write_import(stream: IO[bytes], files: Iterable[tuple[str, int, Iterator[bytes]]]) -> None:
    stream.write(b"commit refs/backups/draft\ncommitter backup <backup> 0 +0000\ndata 0\n")
    for path, size, chunks in files:
        stream.write(f"M 100644 inline {path}\ndata {size}\n".encode())
        for chunk in chunks:
            stream.write(chunk)
        stream.write(b"\n")
    stream.write(b"done\n")


def _blob(entry: bytes) -> Blob:
    facts, _, path = entry.partition(b"\t")
    _mode, _type, id_, size = facts.split()
    return Blob(os.fsdecode(path), id_.decode(), int(size) if size.isdigit() else 0)
