"""Run git in a repository of our own: no hooks, no prompts, no signing, and always a deadline.

The user's configuration for reaching a host (keys, credential helpers, proxies) applies. Nothing of a repository
that we may have been called in applies: not its index, its branch or its hooks.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

from backupkit.config.secrets import scrubbed
from backupkit.fs import process
from backupkit.model.errors import BackupError, NoSpace, RemoteAway, RemoteFailed
from backupkit.model.names import printable
from backupkit.remotes.base import WHOLE, DamagedThere

_ALWAYS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "push.gpgSign=false"),
    *("-c", "push.followTags=false"),
    *("-c", "push.recurseSubmodules=no"),
    *("-c", "fetch.fsckObjects=true"),
    *("-c", "safe.directory=*"),
    *("-c", "safe.bareRepository=all"),
)
# Variables that would make git use another repository than ours (`git rev-parse --local-env-vars`).
_FOREIGN = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_QUARANTINE_PATH", "GIT_SHALLOW_FILE"),
    *("GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS", "GIT_IMPLICIT_WORK_TREE", "GIT_CONFIG"),
    *("GIT_INTERNAL_SUPER_PREFIX", "GIT_LITERAL_PATHSPECS", "GIT_TRACE", "GIT_TEMPLATE_DIR", "GIT_DEFAULT_HASH"),
)
_ACCESS = "Let this user reach it without a question: `git ls-remote` of that address must ask nothing."
_ADDRESS = "Look at the address: `git remote -v`, and the setting `url`."
_LATER = "Try again when it can be reached; the backups here are unharmed."
_HINTS = (
    ("Host key verification failed", "Accept its key once by hand, as this user: `ssh` to that host."),
    ("Permission", _ACCESS),
    ("Authentication failed", _ACCESS),
    ("could not read Username", _ACCESS),
    ("could not read Password", _ACCESS),
    ("dubious ownership", "Run as the user who owns that repository."),
    ("does not appear to be a git repository", _ADDRESS),
    ("not found", _ADDRESS),
    ("does not exist", _ADDRESS),
)


# What curl, ssh and git print about network errors and busy hosts.
_PASSING = re.compile(
    r"(?i)could not resolve|connection (refused|reset|closed|timed out)|operation timed out|failed to connect|"
    r"couldn't connect|no route to host|network is unreachable|temporary failure|hung up unexpectedly|early EOF|"
    r"error: (429|50[0234])|RPC failed"
)
# What git prints about objects of the repository there that are damaged or lost. Its "possible repository corruption"
# is not among them: it says that of any failure.
_DAMAGED = re.compile(
    r"inflate: data stream error|inflate returned|corrupt loose object|is corrupt\b|corrupt ewah bitmap|"
    r"bad (tree|blob|commit|tag)? ?object|missing (tree|blob|commit|tag) object|did not send all necessary objects|"
    r"unable to (unpack|parse) [0-9a-f]{40} header|header for [0-9a-f]{40} too long|unable to read [0-9a-f]{40}|"
    r"non-monotonic index|SHA1 mismatch|hash mismatch|does not match index"
)


class Done(Struct, frozen=True):
    """The exit code and the output of a git command."""

    code: int
    out: bytes
    err: str


class Git(Struct, frozen=True):
    """The git program, run in one folder for one remote; `timeout` is the seconds that a command may take."""

    remote: str
    folder: Path
    timeout: float

    def run(self, *arguments: str, stdin: bytes = b"", **environment: str) -> bytes:
        """Return the command's output, or raise `RemoteFailed` with its reason."""
        done = self.attempt(*arguments, stdin=stdin, **environment)
        if done.code:
            raise self.failure(done.err)
        return done.out

    def line(self, *arguments: str, stdin: bytes = b"", **environment: str) -> str:
        """Return the one line that the command prints, stripped; else like `run`."""
        return os.fsdecode(self.run(*arguments, stdin=stdin, **environment)).strip()

    def attempt(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Done:
        """Return the command's result, even if it failed; kill it and raise `RemoteAway` after the timeout."""
        with self.started(*arguments, err=subprocess.PIPE, **environment) as child:
            try:
                out, err = child.communicate(stdin, self.timeout)
            except subprocess.TimeoutExpired as error:
                raise self._too_slow() from error
        return Done(child.returncode, out, err.decode(errors="replace"))

    def ended(self, child: subprocess.Popen[bytes]) -> int:
        """Wait for a command that has all its input and return its exit code; raise `RemoteAway` after the timeout."""
        try:
            return child.wait(self.timeout)
        except subprocess.TimeoutExpired as error:
            raise self._too_slow() from error

    @contextlib.contextmanager
    def started(self, *arguments: str, err: int | IO[bytes], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the command during the block, with pipes to and from it; kill it and its children at the end."""
        program = shutil.which("git")
        if program is None:
            raise RemoteFailed(
                f"The git remote {self.remote} needs the program git, which is not installed here.",
                hint="Install it: apt install git; in a container, into its image.",
            )
        child = subprocess.Popen(
            [program, *_ALWAYS, *arguments],
            cwd=self.folder,
            env=_environment() | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,  # without a terminal ssh cannot prompt either
        )
        try:
            yield child
        finally:
            _end(child)

    def _too_slow(self) -> RemoteFailed:
        return RemoteAway(f"The git remote {self.remote} did not answer within {self.timeout:g} s.", hint=_LATER)

    def failure(self, said: str, about: str = WHOLE) -> BackupError:
        """Return git's failure as one of our errors. `about` is the copy it fetched, which `DamagedThere` names."""
        reason = scrubbed(printable(_reason(said)))
        if "No space left on device" in said and "remote:" not in said:
            return NoSpace(f"The disk is full, says git: {reason}.", hint="Make room; `list` shows the backups.")
        if _DAMAGED.search(said) and "Permission denied" not in said:
            return self._damaged(said, about)
        hint = next((hint for sign, hint in _HINTS if sign in said), _LATER)
        kind = RemoteAway if _PASSING.search(said) else RemoteFailed
        return kind(f"The git remote {self.remote} failed: {reason}.", hint=hint)

    def _damaged(self, said: str, about: str) -> DamagedThere:
        reason = scrubbed(printable(_reason("\n".join(line for line in said.splitlines() if _DAMAGED.search(line)))))
        return DamagedThere(
            f"The git remote {self.remote} holds something damaged: {reason}.",
            f"The backups here are not touched by that: make a new, empty repository, set `url` in "
            f"[remotes.{self.remote}] to it, and `push --remote {self.remote}`. Copies elsewhere: `remotes`",
            {about: reason},
        )


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "LANGUAGE": "C"}


def _reason(said: str) -> str:
    """Return the most telling line: the first that git marks as an error, or else the last, skipping useless ones."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and "correct access rights" not in line]
    lines = [line for line in lines if line != "and the repository exists." and not line.startswith("warning:")]
    telling = [line for line in lines if "Could not read from remote repository" not in line] or lines
    marked = [line for line in telling if line.startswith(("fatal:", "error:", "remote: error:", "remote: fatal:"))]
    line = (marked or telling or ["it ended without a word"])[0 if marked else -1]
    return line.removeprefix("remote: ").removeprefix("fatal: ").removeprefix("error: ").rstrip(".")


def _end(child: subprocess.Popen[Any]) -> None:
    if child.poll() is None:
        process.end_group(child)
    for pipe in filter(None, (child.stdin, child.stdout, child.stderr)):
        with contextlib.suppress(OSError):
            pipe.close()
    child.wait()
