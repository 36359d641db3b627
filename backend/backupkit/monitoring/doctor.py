"""Diagnose this set-up: find problems, and the command that fixes each. Read-only."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shlex import join, quote
from typing import Literal

from msgspec import Struct

from backupkit.backup.create import refuse_overlap
from backupkit.config.deployment import as_root, unseen_variables
from backupkit.config.settings import (
    HOOKS,
    PREFIX,
    SETTINGS_FILE,
    Settings,
    overriding_variable,
    secret_files,
    unknown_variables,
)
from backupkit.fs import attributes, disk, mounts, own_folder, space, tree
from backupkit.migrations import schema, version_table
from backupkit.model.backup import Metadata
from backupkit.model.clock import Clock, utc_now
from backupkit.model.durations import span
from backupkit.model.errors import BackupError
from backupkit.model.events import EventListener, Step, silence
from backupkit.model.names import counted, few, printable, printable_text
from backupkit.monitoring.likely_databases import DATABASE_SUFFIXES, likely_databases
from backupkit.remotes import listing_cache
from backupkit.remotes.base import KEEPS_NO_RIGHTS, OnADisk, open_remote
from backupkit.remotes.registry import old_restic, try_remotes
from backupkit.repository import flags, hooks, lock, separate_disk, store
from backupkit.repository.reliable import CLOCKS_DIFFER
from backupkit.restore import unfinished
from backupkit.rewind import moments, take
from backupkit.scheduling import planner, scheduler_lock
from backupkit.sqlite import database, engine
from backupkit.upload_files import selection, walk

_SQLITE_FIX = "an image or a Python with SQLite 3.51.3 or later: docs/containers.md"
_SHARED_WAL_FIX = "a named volume, or PRAGMA journal_mode=DELETE in the app: docs/containers.md"
_MAX_CANDIDATES = 3  # candidates for the database that are shown
_OWN_NAMES = (lock.LOCK_FILE, flags.STATE_FOLDER, store.JOURNAL_FILE)


class Finding(Struct, frozen=True):
    """The result of one check, and how to fix it; a `note` is a deliberate choice or of no concern."""

    level: Literal["fine", "note", "warning", "wrong"]
    text: str
    fix: str = ""


def examine(settings: Settings, emit: EventListener = silence, clock: Clock = utc_now) -> list[Finding]:
    """Run all checks, basic ones first, and ask the remotes too; an error in a check becomes a finding."""
    checks = (
        _compose,
        _database,
        _owner,
        _uploads,
        _further_parts,
        _inside_trees,
        _backups,
        _locks,
        _preserved_attributes,
        _files_of_others,
        _schema,
        _temporary,
        _unfinished,
        _sqlite,
        _file_system,
        _integrity,
        _deployment,
        _notifications,
        _variables,
        _secret_files,
        _hooks,
        partial(_clock, now=clock()),
        partial(_scheduler, now=clock()),
        partial(_rewind, now=clock()),
        partial(_remotes, emit=emit),
    )
    return [finding for look in checks for finding in _safely(look(settings))]


def _safely(findings: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except BackupError as error:
        yield Finding("wrong", error.message, error.hint)
    except OSError as error:
        yield Finding("wrong", f"{error.filename}: {error.strerror}.")


def _database(settings: Settings) -> Iterator[Finding]:
    live = settings.database
    if not live.exists():
        yield from _missing_database(settings)
        return
    with database.snapshot(live, min(settings.busy_timeout, 5)) as snapshot:
        found = database.look(snapshot)
    yield Finding(
        "fine",
        f"The database {live} is readable: {space.format_bytes(found.facts.size)},"
        f" journal mode {found.facts.journal_mode}.",
    )
    if not os.access(live, os.W_OK) or not os.access(live.parent, os.W_OK):
        owner = ":".join(map(str, disk.owner_of(live.parent)))
        as_owner = own_folder.as_its_owner(live.parent)
        fix = f"{as_owner}chown {owner} {live}* and make {live.parent} writable"
        yield Finding("wrong", f"{live} or its folder cannot be written: a restore would fail.", fix)


def _missing_database(settings: Settings) -> Iterator[Finding]:
    """Report the missing database, and the files that may be it, each with the command that selects it."""
    variable = overriding_variable("database")
    where = f"{variable}, in the environment, says so" if variable else "`config` shows where that is set"
    yield Finding("wrong", f"There is no database at {settings.database}; {where}.")
    for path in likely_databases(settings)[:_MAX_CANDIDATES]:
        told = os.path.relpath(path, settings.app_dir)
        fix = (
            f"set {variable} to {told}" if variable else settings.deployment.tool(f"config set database {quote(told)}")
        )
        yield Finding("note", f"{path} is a SQLite database: is it the app's?", fix)


def _compose(settings: Settings) -> Iterator[Finding]:
    """Check for variables that the wrapper saw in the compose file, and that this process does not have."""
    if not (missing := unseen_variables(os.environ)):
        return
    text, name = f"The compose file sets {', '.join(missing)}", missing[0].removeprefix(PREFIX).lower()
    if settings.deployment.in_container:
        fix = f"{settings.deployment.compose} up -d {settings.deployment.service}"
        text += ", which is not set in this container: it is older than that line, or of another service."
    else:
        fix = settings.deployment.tool(f"config set {name} VALUE")
        text += ": that holds in the container, and this ran without one. A value in backup.toml holds in both."
    yield Finding("warning", text, fix)


def _owner(settings: Settings) -> Iterator[Finding]:
    if not settings.database.exists():
        return  # `_database` reports this
    live, folder = disk.owner_of(settings.database), disk.owner_of(settings.database.parent)
    if live[0] != folder[0] and live[0] == 0:
        fix = f"chown {folder[0]}:{folder[1]} {settings.database}*"
        yield Finding("warning", f"{settings.database} belongs to root, its folder to user {folder[0]}.", fix)


def _uploads(settings: Settings) -> Iterator[Finding]:
    if settings.uploads is None:
        yield Finding("note", "No uploads folder is set; backups hold the database only.")
        return
    walk.require(settings.uploads)
    selected = selection.of(settings)
    files, size = walk.measure(settings.uploads, selected.leaves_out)
    yield Finding("fine", f"The uploads {settings.uploads} are readable, files: {files}, {space.format_bytes(size)}.")
    if selected.met:
        names = ", ".join(printable(path) for path in sorted(selected.met))
        yield Finding("note", f"In the uploads folder, but not backed up as uploads: the database or backups, {names}.")
    if out := list(walk.leading_out(settings.uploads, selected.leaves_out)):
        fix = "move what they point to into the uploads, or back it up in another way"
        yield Finding("warning", f"Links lead out of the uploads; their targets are in no backup: {few(out, 5)}.", fix)
    if not os.access(settings.uploads, os.W_OK):
        fix = (
            f"{own_folder.as_its_owner(settings.uploads)}make it writable for the app's user: ls -ld {settings.uploads}"
        )
        yield Finding("wrong", f"{settings.uploads} cannot be written: a restore would fail.", fix)


def _preserved_attributes(settings: Settings) -> Iterator[Finding]:
    """Check whether the file systems can keep ACLs, extended attributes and hard links of uploads."""
    backups = settings.dir
    if settings.uploads is None or not settings.uploads.is_dir() or not backups.is_dir():
        return
    if rights := attributes.missing_rights(backups):
        text = f"The file system of {backups} keeps no {' and no '.join(rights)}: those of uploads are in no backup."
        yield Finding("warning", text, "take a disk with ext4, XFS or the like for the backups")
    unable = attributes.missing_kinds(settings.uploads)
    lost = [kind for kind in attributes.missing_kinds(backups) if kind not in unable]
    if os.access(backups, os.W_OK | os.X_OK) and not attributes.has_hard_links(backups):
        lost.append("hard links")
    if lost:
        kinds = " and ".join(lost)
        yield Finding("warning", f"The file system of {backups} keeps no {kinds}: those of uploads are in no backup.")
    elif unable:
        yield Finding("note", f"The file system of {settings.uploads} has no {' and no '.join(unable)}.")
    else:
        yield Finding("fine", "ACLs, extended attributes and hard links of uploads are kept.")


def _backups(settings: Settings) -> Iterator[Finding]:
    refuse_overlap(settings)
    separate_disk.require(settings)
    if not settings.dir.exists():
        yield Finding("warning", f"The backups folder {settings.dir} is not there yet; the first backup makes it.")
        yield from _left_beside(settings)
        return
    store.require(settings.dir)
    free, found = disk.free_space(settings.dir), store.all_backups(settings)
    yield Finding(
        "fine", f"The backups folder {settings.dir} has room: {space.format_bytes(free)} free, backups: {len(found)}."
    )
    for backup in found:
        if backup.state == "damaged":
            held = listing_cache.holders(settings, backup)
            fix = settings.deployment.tool(f"pull {backup.name} --remote {held[0]}") if held else ""
            yield Finding("warning", f"{backup.name} is damaged: {backup.error or backup.flaws[0].text}", fix)
    if not found:
        yield Finding("warning", "There is no backup yet.", settings.deployment.tool("backup"))
    yield from _left_beside(settings)


def _locks(settings: Settings) -> Iterator[Finding]:
    """Report a file system whose locks other machines do not see: two that write there delete each other's drafts."""
    mount = mounts.mount_of(Path(os.path.realpath(settings.dir)), mounts.read())
    if mount and mount.has_locks_of_its_own:
        text = f"{settings.dir} is on {mount.kind} ({mount.place}), whose locks other machines do not see"
        yield Finding("note", f"{text}: let only one machine write to it.")


def _left_beside(settings: Settings) -> Iterator[Finding]:
    if there := store.left_beside(settings):
        fix = f"set BACKUP_DIR to {there}, or move what is in it to {settings.dir}"
        yield Finding("warning", f"There are backups in {there}, where an earlier version kept them.", fix)


def _further_parts(settings: Settings) -> Iterator[Finding]:
    """Check the databases and trees of `[databases]` and `[trees]`."""
    for part in settings.parts[1:]:
        live = part.uploads or part.database
        if not live.exists():
            level: Literal["note", "wrong"] = "note" if part.is_optional else "wrong"
            table = "trees" if part.uploads else "databases"
            fix = f"set path of [{table}.{part.part}] in backup.toml, or `restore NAME --only {part.part}`"
            yield Finding(level, f"There is no {part.part} at {live}.", "" if part.is_optional else fix)
        else:
            yield from _safely(_readable(part))


def _readable(part: Settings) -> Iterator[Finding]:
    if part.uploads:
        os.listdir(part.uploads)
        yield Finding("fine", f"The folder {part.part} at {part.uploads} is readable.")
        return
    with database.snapshot_of(part, timeout=min(part.busy_timeout, 5)) as snapshot:
        size = space.format_bytes(database.live_size(snapshot))
    yield Finding("fine", f"The database {part.part} at {part.database} is readable: {size}.")


def _inside_trees(settings: Settings) -> Iterator[Finding]:
    """Report SQLite databases in a tree, found by suffix or by a -wal or -journal file beside them."""
    for part in settings.parts:
        if part.uploads and part.uploads.is_dir() and (found := _databases_below(part, part.uploads)):
            yield Finding(
                "fine",
                f"SQLite databases in {part.uploads}, which are copied and restored through SQLite: {few(found)}.",
            )
            if settings.rewind:
                text = (
                    f"Points of rewind have {few(found)} in {part.uploads} as files, torn where an app writes to them"
                )
                yield Finding("note", f"{text}: name them in [databases].")


def _databases_below(part: Settings, live: Path) -> list[str]:
    skip = selection.of(part).leaves_out
    names = [one.path for one in tree.walk(live, skip=skip, unreadable=lambda *_: None) if one.form == "file"]
    bases = {name.removesuffix(end) for name in names for end in ("-wal", "-journal") if name.endswith(end)}
    likely = [name for name in names if name in bases or name.endswith(DATABASE_SUFFIXES)]
    return [name for name in likely if database.is_database(live / name)]


def _files_of_others(settings: Settings) -> Iterator[Finding]:
    """Check for files of another user in the backups folder, such as root's from versions that ran as root."""
    us = os.geteuid()
    if us == 0 or not settings.dir.is_dir():  # the check of the folder itself covers root
        return
    ours = [path for path in sorted(settings.dir.iterdir()) if path.name in _OWN_NAMES or store.is_backup(path)]
    if found := [str(path) for path in ours if _has_other_owner(path, us)]:
        fix = as_root("chown", "-R", f"{us}:{os.getegid()}", str(settings.dir))
        yield Finding("wrong", f"Some or all files belong to another user than uid {us}: {few(found)}.", fix)


def _has_other_owner(path: Path, us: int) -> bool:
    try:
        return path.lstat().st_uid != us or any(one.facts.st_uid != us for one in tree.walk(path))
    except NotADirectoryError:
        return False
    except PermissionError:
        return True


def _schema(settings: Settings) -> Iterator[Finding]:
    if not settings.database.exists():
        return  # `_database` reports this
    with database.snapshot(settings.database, min(settings.busy_timeout, 5)) as snapshot:
        revisions = version_table.of_live(settings, snapshot)
    verdict = schema.classify(settings, revisions)
    at = ", ".join(revisions)
    if verdict.relation == "same":
        yield Finding("fine", f"The database is at this code's revision: {at}.")
    elif verdict.relation == "behind":
        fix = settings.deployment.tool(verdict.command)
        count = counted(len(verdict.pending), "migration")
        yield Finding("warning", f"The database is {count} behind this code.", fix)
    elif verdict.relation == "unversioned":
        fix = f"only if you know which one its tables are at: {settings.deployment.alembic('stamp THAT_REVISION')}"
        yield Finding("warning", "The database has no Alembic revision.", fix)
    elif verdict.relation == "unreadable":
        yield Finding("wrong", f"{verdict.reason} A backup cannot be compared with this code.", verdict.needs)
    elif verdict.relation == "no_migrations" and not revisions:
        yield Finding("note", f"{verdict.reason} Schemas are not compared with the code.")
    elif verdict.relation == "no_migrations":
        text = f"The database is at {at}, and is not compared with this code: there is no {settings.alembic_ini}."
        yield Finding("warning", text, "set BACKUP_ALEMBIC_INI to the one that the app uses")
    else:
        reason = verdict.reason.replace("The backup", "The database").replace("the backup", "the database")
        yield Finding("warning", f"The database is at {at}. {reason}")


def _temporary(_settings: Settings) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile():
            yield Finding("fine", f"Temporary files can be written in {tempfile.gettempdir()}.")
    except OSError:
        fix = "Give the container a tmpfs at /tmp, or set TMPDIR"
        yield Finding("wrong", "No temporary file can be written anywhere; SQLite may need one.", fix)


def _unfinished(settings: Settings) -> Iterator[Finding]:
    if what := unfinished.describe(settings):
        yield Finding("wrong", what, settings.deployment.tool("recover"))


def at_start(settings: Settings) -> list[Finding]:
    """Run the checks that a container logs at start: its SQLite version, and WAL mode on a shared file system."""
    return [finding for look in (_sqlite, _file_system) for finding in _safely(look(settings))]


def _sqlite(settings: Settings) -> Iterator[Finding]:
    """Check this process's SQLite; that of an app in another Python is unknown here."""
    found = f"SQLite is {sqlite3.sqlite_version}, for this toolkit and for an app in the same Python"
    if not engine.has_wal_reset_bug():
        yield Finding("fine", f"{found}; it is free of the WAL-reset bug.")
    elif _is_in_wal_mode(settings):
        text = f"{found}. It has the WAL-reset bug, which can lose commits of an app or damage its database."
        yield Finding("warning", text, _SQLITE_FIX)
    else:
        yield Finding("note", f"{found}. It has the WAL-reset bug, which is of no concern without WAL mode.")


def _file_system(settings: Settings) -> Iterator[Finding]:
    mount = mounts.mount_of(Path(os.path.realpath(settings.database)), mounts.read())
    if mount and mount.is_shared and _is_in_wal_mode(settings):
        text = f"{settings.database} is in WAL mode on {mount.kind} ({mount.place}), where it can be damaged"
        yield Finding("warning", f"{text}: that file system shares no memory between its users.", _SHARED_WAL_FIX)


def _integrity(settings: Settings) -> Iterator[Finding]:
    for part in settings.parts:
        # `_database` and `_further_parts` report one that is missing.
        if part.part not in settings.trees and part.database.exists():
            yield from _full_check(part)


def _full_check(settings: Settings) -> Iterator[Finding]:
    name = f"database {settings.part}".rstrip()
    found = database.check_live(settings.database, min(settings.busy_timeout, 5))
    if found is None:
        yield Finding(
            "note", f"The {name} was not checked in full: it is large, or in use. `verify` checks backups of it."
        )
    elif found.problems:
        text = f"The database {settings.database} is damaged: {found.problems[0]}."
        yield Finding("wrong", text, _repair_hint(settings.part))
    elif flaws := found.facts.index_flaws:
        yield Finding("warning", database.index_sentence(settings, flaws))
    else:
        yield Finding("fine", f"The {name} passed a full check.")


def _repair_hint(part: str) -> str:
    of, only = (f" --database {part}", f" NAME --only {part}") if part else ("", "")
    return f"see what is left: `salvage{of}`; or put a backup back: `list`, then `restore{only}`"


def _hooks(settings: Settings) -> Iterator[Finding]:
    """Check for hooks in `backup.toml` that cannot run: if a `before_…` fails, no backup or restore is made."""
    for hook in HOOKS:
        if why := hooks.why_not_run(settings, hook):
            fix = f"correct {hook} in {settings.app_dir / SETTINGS_FILE}, or make its program executable (chmod +x)"
            yield Finding("wrong", f"{hook} would fail: {why}.", fix)


def _is_in_wal_mode(settings: Settings) -> bool:
    """Return whether the live database is in WAL mode; False if it cannot be read, which `_database` reports."""
    with contextlib.suppress(BackupError), database.snapshot(settings.database, 1) as snapshot:
        return database.journal_mode(snapshot) == "wal"
    return False


def _deployment(settings: Settings) -> Iterator[Finding]:
    deployment = settings.deployment
    where = (
        f"in the service {deployment.service}, by {deployment.compose}"
        if deployment.in_container
        else "on this machine, without Docker"
    )
    yield Finding("fine", f"Commands run {where}; times are in {settings.timezone}.")
    if why := printable_text(os.environ.get("BACKUP_HOST_ENGINE_FAILS", "")):
        fix = "start the engine; or set BACKUP_RUNNER=local, if the app runs without it"
        yield Finding("warning", f"There is a compose file, but {why}.", fix)


def _notifications(settings: Settings) -> Iterator[Finding]:
    if settings.notify_urls and not find_spec("apprise"):
        yield Finding("wrong", "BACKUP_NOTIFY_URLS needs the package apprise: nothing is sent.", "pip install apprise")
    elif settings.notify_urls or settings.ping_url:
        yield Finding("fine", "Notifications of unattended runs are set up; `notify-test` sends a test message.")
    else:
        text = "No message is sent after a failure: BACKUP_NOTIFY_URLS and BACKUP_PING_URL are empty."
        yield Finding("note", text, settings.deployment.tool("config set ping_url_file FILE"))


def _clock(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Check the clock: names, retention and schedule use it, and servers refuse a client whose clock is far off."""
    says = f"The clock says {settings.local(now):%Y-%m-%d %H:%M}"
    newest = max((one.created_at for one in _good_metadata(settings)), default=now)
    if newest > now + CLOCKS_DIFFER:
        yield Finding("warning", f"{says}, and a backup is of {settings.local(newest):%Y-%m-%d %H:%M}.", "date")
    else:
        yield Finding("fine", f"{says}.")


def _scheduler(settings: Settings, now: datetime) -> Iterator[Finding]:
    gap = planner.longest_gap(settings, now)
    made = max((one.created_at for one in _good_metadata(settings) if one.kind == "scheduled"), default=None)
    if gap is None:
        yield Finding("note", "No automatic backup is scheduled: enabled, automatic_daily and schedule say so.")
    elif scheduler_lock.is_running_for(settings.dir):
        yield Finding("fine", "A scheduler is running.")
    elif made and now - made < 2 * gap:
        ago = span((now - made).total_seconds())
        yield Finding(
            "fine", f"Automatic backups are made without the scheduler (by cron, for example): the last one {ago} ago."
        )
    else:
        yield Finding(
            "warning", "No scheduler is running, and nothing else makes automatic backups.", _scheduler_start(settings)
        )


def _rewind(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Check whether points of rewind are taken, and how long one takes, judged by the last point."""
    if not settings.rewind:
        return
    newest = next((one.point.header for one in reversed(moments.timeline(settings).moments) if one.point), None)
    interval = max(settings.rewind_interval, newest.interval if newest else 0)
    looked = scheduler_lock.last_look(settings.dir)
    if not scheduler_lock.is_running_for(settings.dir):
        text = "Rewind is on, but no scheduler is running: no points are taken."
        yield Finding("warning", text, _scheduler_start(settings))
    elif looked is None:
        yield Finding("note", "The scheduler has not looked for points of rewind yet; it needs a whole backup first.")
    elif now - looked > timedelta(seconds=3 * interval):
        ago = span((now - looked).total_seconds())
        text = f"The scheduler last looked for points of rewind {ago} ago. It should look every {interval:g} s."
        yield Finding("warning", text, "the scheduler's log says why")
    else:
        yield Finding("fine", f"The scheduler takes points of rewind: it looks every {interval:g} s.")
    if newest and interval > settings.rewind_interval:
        takes = f"{interval * take.SHARE:.1f} s of processor"
        text = f"A point takes {takes}: too long for rewind_interval, {settings.rewind_interval:g} s"
        yield Finding("note", f"{text}. So the scheduler looks every {interval:g} s.")


def _scheduler_start(settings: Settings) -> str:
    """Return how to start a scheduler; the wrapper passes the compose service for it, if there is one."""
    if not settings.deployment.in_container:
        return settings.deployment.tool("schedule")
    if service := os.environ.get("BACKUP_HOST_SCHEDULER"):
        return f"{settings.deployment.compose} up -d {service}"
    return f"a second service, or a line for cron ({settings.deployment.tool('run')}): docs/schedule-and-retention.md"


def _good_metadata(settings: Settings) -> list[Metadata]:
    """Return the metadata of all own backups that are not damaged."""
    found = store.own_backups(settings) if settings.dir.is_dir() else []
    return [one.metadata for one in found if one.metadata and one.state != "damaged"]


def _remotes(settings: Settings, emit: EventListener) -> Iterator[Finding]:
    if not settings.remotes:
        fix = "a table [remotes.NAME] in backup.toml"
        yield Finding("note", "There are no copies elsewhere: no remote is set up.", fix)
        return
    emit(Step("Asking the remotes"))
    for name, failure in try_remotes(settings).items():
        table = settings.remotes[name]
        if failure:
            yield Finding("wrong", failure.message, failure.hint)
        else:
            yield Finding("fine", f"The remote {name} can be used: {table.type}, {table.place}.")
            yield from _rights_there(settings, name)
    if too_old := old_restic(settings):
        yield Finding("warning", too_old, "a later one: https://github.com/restic/restic/releases, or Debian 13")


def _rights_there(settings: Settings, name: str) -> Iterator[Finding]:
    remote = open_remote(settings, name)
    if isinstance(remote, OnADisk) and (missing := remote.missing_rights()):
        fix = "take a disk with ext4, XFS or the like, or a remote of type restic"
        yield Finding("warning", KEEPS_NO_RIGHTS.format(name=name, kinds=" and ".join(missing)), fix)


def _secret_files(settings: Settings) -> Iterator[Finding]:
    """Check that only their owners may read the files with secrets; those of the engine have the mode that it gives."""
    for path in secret_files(settings):
        if not path.is_relative_to("/run/secrets") and os.path.isfile(path) and path.stat().st_mode & 0o077:
            line = ("chmod", "600", str(path))
            fix = as_root(*line) if settings.deployment.in_container else join(line)
            yield Finding("warning", f"Others than its owner may read the secret in {path}.", fix)


def _variables(_settings: Settings) -> Iterator[Finding]:
    for name in unknown_variables(os.environ):
        yield Finding(
            "warning", f"{name} is set, but is not a setting of this toolkit.", f"correct its name, or unset {name}"
        )
