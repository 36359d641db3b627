"""The recovery sheet: Markdown that is read on paper, by someone who may never have seen this tool."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from backupkit.cli.host import Host
from backupkit.config.secrets import scrubbed
from backupkit.fs.space import format_bytes
from backupkit.model.backup import Backup, GitFacts
from backupkit.model.names import printable, printable_text
from backupkit.monitoring.recovery_kit import RecoveryKit


def sheet(kit: RecoveryKit, host: Host, git: GitFacts | None) -> Iterator[str]:
    """The lines of the sheet, without any secret."""
    yield from (printable_text(scrubbed(line, kit.settings.secrets)) for line in _lines(kit, host, git))


def _lines(kit: RecoveryKit, host: Host, git: GitFacts | None) -> Iterator[str]:
    made = kit.settings.local(kit.made_at)
    yield f"# Recovery sheet of {kit.settings.app_id}"
    yield ""
    yield f"Printed {made:%Y-%m-%d %H:%M} ({kit.settings.timezone}). Keep it away from the machine: on paper, or where"
    yield "you keep passwords. It holds no secret. Print it anew when something in it has changed."
    yield ""
    yield from _what_there_is(kit, host)
    yield from _copies(kit)
    yield from _keys(kit)
    yield from _steps(kit, host, git)
    yield from _WITHOUT_THE_TOOL


def _what_there_is(kit: RecoveryKit, host: Host) -> Iterator[str]:
    settings = kit.settings
    yield f"## What there is{' (paths in the container)' if settings.reach.in_container else ''}"
    yield ""
    if host.folder:
        yield f"- machine, folder: {host.name or 'unknown'}, `{printable(host.folder)}`"
    yield f"- app: `{settings.app_id}`, time zone {settings.timezone}"
    yield f"- database: `{printable(str(settings.database))}`"
    yield f"- uploads: `{printable(str(settings.uploads))}`" if settings.uploads else "- uploads: none"
    yield f"- backups: `{printable(str(settings.dir))}`"
    yield f"- newest backup: {_newest(kit)}"
    yield f"- last proven by a test restore: {_proven(kit)}"
    yield ""


def _newest(kit: RecoveryKit) -> str:
    backup = kit.newest
    if backup is None or backup.metadata is None:
        return "none"
    metadata = backup.metadata
    made = f"{kit.settings.local(metadata.created_at):%Y-%m-%d %H:%M}, {format_bytes(backup.size_bytes)}"
    commit = f", commit {metadata.git.commit}" if metadata.git else ""
    revision = printable(", ".join(metadata.revisions)) or "none"
    return f"`{backup.name}`, {made}, schema revision {revision}{commit}"


def _proven(kit: RecoveryKit) -> str:
    backup = kit.proven
    if backup is None or backup.proven_at is None:
        return f"**never**; do it now: `{kit.settings.reach.tool('verify --latest --test-restore')}`"
    took = f", in {backup.recovery_seconds:.1f} s" if backup.recovery_seconds is not None else ""
    return f"`{backup.name}` on {kit.settings.local(backup.proven_at):%Y-%m-%d %H:%M}{took}"


def _copies(kit: RecoveryKit) -> Iterator[str]:
    yield "## Where the copies are"
    yield ""
    if not kit.copies:
        yield from _NO_COPIES
    for one in kit.copies:
        yield f"- {one.name}: `{printable(one.place)}`"
    yield ""


def _keys(kit: RecoveryKit) -> Iterator[str]:
    yield "## Keys"
    yield ""
    if not kit.recipients and not kit.secrets and not kit.ways_in:
        yield "None is needed: nothing is encrypted by this tool's settings."
    for recipient in kit.recipients:
        yield f"- exports are encrypted to `{printable(recipient)}`; the secret key to it is needed, and is not here"
    for name, origin in kit.secrets:
        yield f"- `{name}` is set ({origin}); without a copy of it elsewhere it is lost with the machine"
    for name, what in kit.ways_in:
        yield f"- to reach the remote {name}: {what}; the same goes for that"
    yield ""


def _steps(kit: RecoveryKit, host: Host, git: GitFacts | None) -> Iterator[str]:
    name = kit.newest.name if kit.newest else "latest"
    yield "## On a new machine"
    yield ""
    yield "1. Install git, and Docker with Compose (or Python 3.11 or later with its `venv`)."
    yield "2. The code, as it was when the newest backup was made:"
    yield ""
    yield from (f"       {line}" for line in _clone(kit.newest, host, git))
    yield ""
    yield "3. What is not in git: `.env`, changes of `backup.toml`, and the secrets above."
    yield "4. A backup, into the folder `backups`, by one of these:"
    yield ""
    yield from (f"       {one.fetch}" for one in kit.copies)
    yield f"       cp -a /path/to/copy/{name} backups/     # as root: only then uploads keep their owners"
    yield "       ./backup.sh import FILE                  # of a file that an export wrote"
    yield ""
    yield "5. Look, restore, start:"
    yield ""
    yield "       ./backup.sh verify latest"
    yield "       ./backup.sh restore latest"
    if kit.settings.reach.in_container:
        yield f"       {kit.settings.reach.compose} up -d"
    yield "       ./backup.sh status"
    yield from _ABOUT_THE_SCHEMA


def _clone(newest: Backup | None, host: Host, git: GitFacts | None) -> Iterator[str]:
    folder = host.folder.rsplit("/", 1)[-1] or "app"
    address = shlex.quote(scrubbed(host.origin) or "ADDRESS-OF-THE-REPOSITORY")
    yield f"git clone {address} {shlex.quote(folder)}"
    yield f"cd {shlex.quote(folder)}"
    facts = newest.metadata.git if newest and newest.metadata and newest.metadata.git else git
    if facts:
        yield f"git checkout {facts.commit}"


_NO_COPIES = """\
This tool knows of no copy off the machine. If there are any, write down here where they are, and who has access:

    ____________________________________________________________
""".splitlines()

_ABOUT_THE_SCHEMA = """\

   If `restore` says that the schema is behind, its last lines are the next commands to type. If it says that the
   schema is later than the code (exit code 14), check out the commit that it names.
""".splitlines()

_WITHOUT_THE_TOOL = """\

## If this tool does not work at all

A backup is a plain folder: a SQLite file, the uploads, checksums. Its `RESTORE.md` has the commands to put it back by
hand, with `python3`, `mv` and `cp`.
""".splitlines()
