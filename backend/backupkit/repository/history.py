"""The history of operations: what, when, by whom and the result, in `backups/.state/history.jsonl`.

Losing it loses no backup. Each operation is written when it begins and when it ends, so a killed one is recognized by
its missing end. Unreadable lines are moved to a separate file, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backupkit.fs import append_log, disk, own_folder, process
from backupkit.model import documents
from backupkit.model.operation import Operation, Who
from backupkit.repository import flags, lock

HISTORY_FILE = "history.jsonl"
DAMAGED_FILE = "history.damaged.jsonl"
LIMIT, KEPT = 2_000_000, 1  # bytes per file, and number of rotated files: each holds some thousands of operations
_EMPTY_VALUES: tuple[object, ...] = (None, "", [])
_OMITTED_DEFAULTS = (("outcome", "running"), ("through", "library"), ("born", ""))
_NEVER_ENDED = "Its end was not recorded: it was killed, the machine went down, or the disk was full."


class History(Struct, frozen=True):
    """The operations, newest first, and what is wrong with the file, in one sentence."""

    operations: tuple[Operation, ...] = ()
    error: str = ""


def path_of(backups: Path) -> Path:
    """Return the path of the history in this backups folder."""
    return backups / flags.STATE_FOLDER / HISTORY_FILE


def write(backups: Path, operation: Operation) -> None:
    """Append the operation in its present state. Raise `OSError` if that fails."""
    with own_folder.made(backups, flags.STATE_FOLDER) as folder:
        append_log.append(folder / HISTORY_FILE, _line(operation), LIMIT, KEPT)


def read(backups: Path) -> History:
    """Return every operation still in the history. If some or all of it cannot be read, `error` says so."""
    known, bad, problem = dict[str, Operation](), 0, ""
    with own_folder.existing(backups, flags.STATE_FOLDER) as folder:
        if folder is None:
            return History()
        try:
            for number in range(KEPT, -1, -1):
                found, unread = _parsed(_lines(append_log.numbered(folder / HISTORY_FILE, number)))
                known |= {operation.id: operation for operation in found}
                bad += len(unread)
        except OSError as error:
            return History(error=f"The history {path_of(backups)} cannot be read: {error.strerror}.")
        if bad:
            problem = _set_aside(folder / HISTORY_FILE, path_of(backups))
    # Ordered as they began, not by time, because the clock may have been changed.
    return History(tuple(_with_outcome(backups, one) for one in reversed(known.values())), problem)


def _line(operation: Operation) -> bytes:
    """Return the operation as one JSON line, omitting fields that have their default values."""
    document = documents.operation(operation)
    document["who"] = {key: one for key, one in document["who"].items() if (key, one) not in _OMITTED_DEFAULTS}
    return documents.as_line(
        {key: one for key, one in document.items() if one not in _EMPTY_VALUES and (key, one) not in _OMITTED_DEFAULTS}
    )


def _lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    return [line for line in disk.read_plain(path, disk.MOST_STATE).split(b"\n") if line.strip()]


def _parsed(found: Iterable[bytes]) -> tuple[list[Operation], list[bytes]]:
    """Return the operations that could be parsed, and the lines that could not."""
    operations, unread = [], []
    for line in found:
        try:
            operations.append(msgspec.json.decode(line.decode(), type=Operation))
        except (ValueError, RecursionError):
            unread.append(line)
    return operations, unread


def _set_aside(path: Path, named: Path) -> str:
    """Move unreadable lines to a separate file. Return a sentence that says so, or an empty string if none remain."""
    aside, count = path.with_name(DAMAGED_FILE), 0
    try:
        with append_log.locked(path):
            for number in range(KEPT + 1):
                part = append_log.numbered(path, number)
                content = _lines(part)  # read again under the lock: a half-written line may be complete now
                unread = _parsed(content)[1]
                if unread:
                    append_log.append(aside, b"\n".join(unread), LIMIT, KEPT)
                    append_log.replace(part, (line for line in content if line not in unread))
                count += len(unread)
    except OSError as error:
        return f"Lines of the history {named} cannot be read, and cannot be moved aside: {error.strerror}."
    if not count:
        return ""
    return f"{count} lines of the history {named} could not be read; they were moved to {aside.name} beside it."


def _with_outcome(backups: Path, operation: Operation) -> Operation:
    if operation.outcome != "running" or _is_running(backups, operation.who):
        return operation
    return replace(operation, outcome="interrupted", error=_NEVER_ENDED)


def _is_running(backups: Path, who: Who) -> bool:
    """Return whether the process is alive on this host, or holds the lock from another; otherwise assume it ended."""
    if who.host == process.host() and process.is_alive(who.pid, who.born):
        return True
    return lock.signature(backups) == process.named(who.pid, who.host)
