"""Fetch a backup from a remote and check every byte before it gets its name; or fetch it only for a test restore."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path

from msgspec import Struct

from backupkit.archive import packing
from backupkit.config.settings import Settings
from backupkit.fs import attributes, descriptors, disk, space, tree
from backupkit.model import times
from backupkit.model.backup import APART, UPLOADS_FOLDER, Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import Damaged, NoSuchBackup, Refused
from backupkit.model.events import EventListener, Notice, Step, silence
from backupkit.model.names import check_name, few, is_name, likely, printable
from backupkit.remotes import checks, listing_cache
from backupkit.remotes.base import (
    DamagedThere,
    HoldsPoints,
    OnADisk,
    Remote,
    RemoteBackup,
    copy_points,
    open_remote,
    refuse_without,
    retry_while_away,
    was_made_at,
)
from backupkit.repository import flags, integrity, manifest, store
from backupkit.repository.operation import locked_operation, recorded
from backupkit.restore.lay_out import LaidOut, lay_out_fetched, require_place
from backupkit.restore.recovery import recover_under_lock
from backupkit.rewind.chain import Point
from backupkit.verify.verify import Verified, backup_at, verify_backups


class Pulled(Struct, frozen=True):
    """The backup that is here now, whether this call fetched it, and how many rewind points came with it."""

    backup: Backup
    fetched: bool
    points: int = 0


def the_remote(settings: Settings, name: str | None) -> str:
    """Return the name of the given remote, or of the only one; raise `Refused` if there is none or a choice."""
    if name is None:
        refuse_without(settings)
        name, *others = settings.remotes
        if others:
            raise Refused("Which remote is meant?", hint=f"--remote with one of: {', '.join(settings.remotes)}")
    open_remote(settings, name)
    return name


def list_remote(
    settings: Settings, remote: str, emit: EventListener = silence, clock: Clock = utc_now
) -> list[RemoteBackup]:
    """Return the backups on the remote, newest first, and store the listing."""
    return [*checks.ask(settings, open_remote(settings, remote), emit, clock).backups]


def pull_backup(
    settings: Settings, name: str, remote: str, emit: EventListener = silence, trust: bool = False
) -> Pulled:
    """Fetch a backup from the remote: it appears here complete, checked and on disk, or not at all.

    `latest` is the newest whole one there that is not a safety copy; damaged ones, and ones pushed from elsewhere, only
    if there is no other. A backup that is here already stays as it is; a damaged one is replaced. `trust` accepts what
    a person must vouch for, as `import` does. Also fetches the rewind points based on the backup that come after the
    last one here. Raises `NoSuchBackup`; `Refused` if another backup here has that name; `Damaged`; `NoSpace`;
    `RemoteFailed`.
    """
    opened = open_remote(settings, remote)
    store.require(settings.dir)
    with locked_operation(settings, f"pull of {name}", emit, names=[name]) as work:
        recover_under_lock(settings, work.emit)
        found = _find(settings, name, remote, work.emit)
        here = _same_here(settings, found) if found.name in store.taken_names(settings) else None
        if here and here.state != "damaged":
            work.about(here)
            return Pulled(here, False, _fetch_points(settings, opened, here, trust, work.emit))
        with store.draft_folder(settings, found.name, replaces=here is not None) as draft:
            _fetch(settings, opened, found, draft, trust, work.emit)
        with contextlib.suppress(OSError):  # the backup itself is complete
            flags.forget(settings.dir, found.name)
        for kind in opened.missing_rights() if isinstance(opened, OnADisk) else ():
            flags.add(settings.dir, flags.WITHOUT[kind], found.name)
        backup = store.read(settings, found.name)
        work.about(backup)
        points = _fetch_points(settings, opened, backup, trust, work.emit)
    return Pulled(backup, True, points)


def verify_remote(settings: Settings, remote: str, emit: EventListener = silence, clock: Clock = utc_now) -> None:
    """Check the remote with its own means; raise `Damaged` or `RemoteFailed` for what is wrong."""
    with recorded(settings, "verify", emit, clock) as work:
        work.concerning(note=f"of {remote}")
        list_remote(settings, remote, work.emit, clock)
        checks.check(settings, open_remote(settings, remote), emit=work.emit, clock=clock)


def prove_remote(settings: Settings, name: str, remote: str, emit: EventListener = silence) -> list[Verified]:
    """Fetch the backup, run a test restore of it, and delete the fetched copy."""
    opened = open_remote(settings, remote)
    found = _find(settings, name, remote, emit)
    store.require(settings.dir)
    with store.work_folder(settings, "fetched", f"test of {found.name} from {remote}") as folder:
        _fetch(settings, opened, found, folder / found.name, True, emit)  # trusted: it stays here
        return verify_backups(settings, [backup_at(settings, folder / found.name)], True, emit)


def lay_out_from(
    settings: Settings,
    name: str,
    remote: str,
    target: Path,
    only: str | None = None,
    emit: EventListener = silence,
    until: datetime | None = None,
) -> LaidOut:
    """Fetch the backup and lay it out in the target, as `lay_out` does; put nothing into the backups folder.

    With `until`, only backups made until then are considered. The backup is fetched into a folder beside the target,
    checked there, and deleted afterwards. Raises what a pull raises.
    """
    opened = open_remote(settings, remote)

    def fetch(folder: Path, listen: EventListener) -> Backup:
        found = _find(settings, name, remote, listen, until)
        folder.mkdir(mode=0o700)
        _fetch(settings, opened, found, folder / found.name, False, listen)
        return backup_at(settings, folder / found.name)

    return lay_out_fetched(settings, name, target, fetch, only, emit)


def plan_lay_out_from(
    settings: Settings,
    name: str,
    remote: str,
    target: Path,
    emit: EventListener = silence,
    until: datetime | None = None,
) -> RemoteBackup:
    """Return the backup that `lay_out_from` would fetch, and raise what that raises before it fetches anything."""
    target = require_place(settings, target)
    found = _find(settings, name, remote, emit, until)
    space.require(found.size_bytes, target.parent, f"The backup {found.name}")
    return found


def _find(
    settings: Settings, name: str, remote: str, emit: EventListener, until: datetime | None = None
) -> RemoteBackup:
    there = list_remote(settings, remote, emit)
    there = [one for one in there if until is None or times.is_until(one.created_at, until)]
    avoided = _avoided_by_latest(settings, remote) if name == store.LATEST else {}
    if name == store.LATEST:
        wanted = _latest(settings, there, avoided, emit)
    else:
        wanted = next((one for one in there if one.name == name), None)
    if wanted:
        check_name(wanted.name)
        return wanted
    when = f" made until {settings.local(until).isoformat(sep=' ', timespec='seconds')}" if until else ""
    if name == store.LATEST:
        _refuse_partial(there, avoided, remote, when)
    if until:
        text = f"There is no whole backup on the remote {remote}{when}."
        raise NoSuchBackup(text, f"`list --remote {remote}` shows all of them.")
    known = ", ".join(likely(name, [one.name for one in there])[:3])
    hint = f"There are: {known} …; `list --remote {remote}` shows all." if known else "There are none yet: `push`"
    raise NoSuchBackup(f"There is no backup {name} on the remote {remote}.", hint)


def _refuse_partial(there: Sequence[RemoteBackup], avoided: Collection[str], remote: str, when: str) -> None:
    """Raise `NoSuchBackup`, which names the newest, if the remote has backups, but all are without the uploads."""
    partial = [one.name for one in there if one.kind not in APART]
    if not partial:
        return
    newest = next((one for one in partial if one not in avoided and is_name(one)), "NAME")
    raise NoSuchBackup(
        f"No backup on the remote {remote}{when} is a usual, whole one. "
        f"Passed over: {few(partial)} (without the uploads).",
        hint=f"To take one of them, name it instead of `latest`. The newest: `pull {newest} --remote {remote}`",
    )


def _avoided_by_latest(settings: Settings, remote: str) -> Mapping[str, str]:
    """Return the copies on the remote that `latest` avoids, and why."""
    arrivals = dict.fromkeys(
        (one.name for one in listing_cache.recall(settings.dir, remote).arrivals), "from elsewhere"
    )
    return arrivals | dict.fromkeys(checks.recall(settings, remote).flaws, "damaged")


def _latest(
    settings: Settings, there: Sequence[RemoteBackup], avoided: Mapping[str, str], emit: EventListener
) -> RemoteBackup | None:
    """Return the newest whole one that is not avoided, else the newest whole one; emit which newer ones it skips."""
    whole = [one for one in there if _is_whole(settings, one)]
    found = next((one for one in whole if one.name not in avoided), next(iter(whole), None))
    newer = [one.name for one in there[: there.index(found)] if one.kind not in APART] if found else []
    if found and newer:
        why = (f"{one} ({avoided.get(one, 'without the uploads')})" for one in newer)
        emit(Notice(f"latest is {found.name}. Passed over: {printable(', '.join(why))}."))
    return found


def _is_whole(settings: Settings, one: RemoteBackup) -> bool:
    """Return whether `latest` may choose it: no safety copy, and with the uploads if this app has any."""
    return one.kind not in APART and (one.uploads or settings.uploads is None)


def _same_here(settings: Settings, found: RemoteBackup) -> Backup:
    here = settings.dir / found.name
    if store.is_backup(here):
        backup = store.read(settings, found.name)
        if backup.metadata and backup.metadata.created_at == found.created_at:
            return backup
    raise Refused(
        f"There is another {found.name} in {settings.dir} already, or one that cannot be read.",
        hint="Look at it: `show`. Delete it, then pull again.",
    )


def _fetch(
    settings: Settings, remote: Remote, found: RemoteBackup, draft: Path, trust: bool, emit: EventListener
) -> None:
    """Fetch the backup into the draft, check that every byte is as it was sealed, and remember what was found."""
    try:
        _fetch_checked(settings, remote, found, draft, trust, emit)
    except DamagedThere as error:
        checks.remember_damaged(settings, remote.name, error.flaws)
        raise
    checks.remember_sound(settings, remote.name, [found.name], [found.name])


def _fetch_checked(
    settings: Settings, remote: Remote, found: RemoteBackup, draft: Path, trust: bool, emit: EventListener
) -> None:
    space.require(found.size_bytes, draft.parent, f"The backup {found.name}")

    def attempt() -> None:
        disk.remove_tree(draft)
        draft.mkdir(mode=0o700)
        remote.pull(found.name, draft, emit)

    retry_while_away(attempt, settings.remotes[remote.name].retry_for, emit)
    with descriptors.opened(draft, descriptors.FOLDER) as folder:  # by descriptor: its path may be a link by now
        os.fchmod(folder, 0o700)
    emit(Step(f"Checking {found.name}"))
    _refuse_untrusted_entries(draft, found, remote.name, trust)
    _refuse_damaged(settings, draft, found, remote.name)
    disk.chown_if_root(draft, disk.owner_of(draft.parent))


def _fetch_points(settings: Settings, remote: Remote, backup: Backup, trust: bool, emit: EventListener) -> int:
    """Fetch points and return how many came; a refused one is left there, with those based on it."""
    if not isinstance(remote, HoldsPoints) or backup.metadata is None:
        return 0

    def refuse(one: Point) -> None:
        changes = ((part.name or UPLOADS_FOLDER, change) for part in one.header.parts for change in part.changes)
        for folder, change in () if trust else changes:
            if (entry := change.entry) is None:
                continue
            path, extra = f"{folder}/{change.path}", [name for name, _ in entry.attributes]
            if why := packing.why_untrusted(path, entry.form, entry.mode, entry.target, extra):
                hint = f"{packing.VOUCH}: `pull {backup.name} --remote {remote.name} --trust`"
                named = change.path if folder == UPLOADS_FOLDER else path
                raise Damaged(f"In the point {one.name} {printable(named)} {why}.", hint)

    seconds = settings.remotes[remote.name].retry_for
    return copy_points(lambda: remote.pull_points(backup, emit, refuse), backup, seconds, emit)


def _refuse_untrusted_entries(draft: Path, found: RemoteBackup, remote: str, trust: bool) -> None:
    """Raise `Damaged` for entries that no backup has, or that need trust: others may write to a remote."""
    with contextlib.closing(tree.Parents.in_ours(draft)) as parents:
        for one in tree.walk(draft):
            hint = f"Try another one: `list --remote {remote}`"
            why = packing.why_unsupported(one.path, one.form)
            if not why and not trust:
                extra = attributes.names(draft, one.path, parents) if one.form == "file" else ()
                why = packing.why_untrusted(one.path, one.form, one.facts.st_mode, one.target, extra)
                hint = f"{packing.VOUCH}: `pull {found.name} --remote {remote} --trust`"
            if why:
                raise Damaged(f"{found.name} from {remote} is refused: {printable(one.path)} {why}.", hint)


def _refuse_damaged(settings: Settings, draft: Path, found: RemoteBackup, remote: str) -> None:
    hint = f"Try another one: `list --remote {remote}`; `verify --remote {remote}` looks at them all."
    try:
        metadata = manifest.read_metadata(draft, settings.zone)
    except Damaged as error:
        what = f"What came from {remote} is not a backup: {error.message}"
        raise DamagedThere(what, hint, {found.name: error.message}) from error
    sealed = manifest.has_checksums(draft)
    flaws = list(islice(integrity.file_flaws(draft, metadata, integrity.Digests()), 1)) if sealed else []
    what = flaws[0].text if flaws else ""
    if metadata.tool_version and not sealed:
        what = "it has lost its checksums"
    if what := what or ("" if was_made_at(metadata, found.created_at) else "it is another backup than the list says"):
        raise DamagedThere(f"{found.name} arrived damaged from {remote}: {what}.", hint, {found.name: what})
