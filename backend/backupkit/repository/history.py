"""What was done, when, by whom and with what result: `backups/.state/history.jsonl`. Losing it loses no backup.

Each operation is written twice, as it begins and as it ends, so that one that was killed is seen: it never ended.
Lines that cannot be read are set aside in a file of their own, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from backupkit.fs import append_log, disk, own_folder, process
from backupkit.model import documents
from backupkit.model.operation import Operation, Who
from backupkit.repository import flags, lock

HISTORY_FILE = "history.jsonl"
DAMAGED_FILE = "history.damaged.jsonl"
LIMIT, KEPT = 2_000_000, 1  # bytes, and old files: some thousands of operations each
_NOTHING: tuple[object, ...] = (None, "", [])
_LEFT_OUT = (("outcome", "running"), ("through", "library"), ("born", ""))
_NEVER_ENDED = "It never ended: it was killed, or the machine went down."


@cache
def _form() -> TypeAdapter[Operation]:
    return TypeAdapter(Operation)


@dataclass(frozen=True)
class History:
    """The operations, newest first, and what was wrong with the file, in one sentence."""

    operations: tuple[Operation, ...] = ()
    error: str = ""


def path_of(backups: Path) -> Path:
    """Where the history of that backups folder lies."""
    return backups / flags.STATE_FOLDER / HISTORY_FILE


def write(backups: Path, operation: Operation) -> None:
    """The operation stands in the history as it is now; `OSError` where it cannot."""
    with own_folder.made(backups, flags.STATE_FOLDER) as folder:
        append_log.append(folder / HISTORY_FILE, _line(operation), LIMIT, KEPT)


def read(backups: Path) -> History:
    """Every operation that the history still knows. Where it cannot be read, or not all of it, `error` says so."""
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
    # By the order in which they began, whatever the clock said.
    return History(tuple(_with_outcome(backups, one) for one in reversed(known.values())), problem)


def _line(operation: Operation) -> bytes:
    """Without what is read as a default where it is not there."""
    document = documents.operation(operation)
    document["who"] = {key: one for key, one in document["who"].items() if (key, one) not in _LEFT_OUT}
    return documents.as_line(
        {key: one for key, one in document.items() if one not in _NOTHING and (key, one) not in _LEFT_OUT}
    )


def _lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    return [line for line in disk.read_plain(path, disk.MOST_STATE).split(b"\n") if line.strip()]


def _parsed(found: Iterable[bytes]) -> tuple[list[Operation], list[bytes]]:
    """What the lines tell, and the lines that tell nothing."""
    operations, unread = [], []
    for line in found:
        try:
            operations.append(_form().validate_json(line))
        except ValidationError:
            unread.append(line)
    return operations, unread


def _set_aside(path: Path, named: Path) -> str:
    """What cannot be read goes into a file of its own; the sentence that says so, empty if there was nothing."""
    aside, count = path.with_name(DAMAGED_FILE), 0
    try:
        with append_log.locked(path):
            for number in range(KEPT + 1):
                part = append_log.numbered(path, number)
                content = _lines(part)  # again: a line may have been written to its end meanwhile
                unread = _parsed(content)[1]
                if unread:
                    append_log.append(aside, b"\n".join(unread), LIMIT, KEPT)
                    append_log.replace(part, (line for line in content if line not in unread))
                count += len(unread)
    except OSError as error:
        return f"Lines of the history {named} cannot be read, nor set aside: {error.strerror}."
    if not count:
        return ""
    return f"{count} lines of the history {named} could not be read, and lie in {aside.name} beside it."


def _with_outcome(backups: Path, operation: Operation) -> Operation:
    if operation.outcome != "running" or _is_running(backups, operation.who):
        return operation
    return replace(operation, outcome="interrupted", error=_NEVER_ENDED)


def _is_running(backups: Path, who: Who) -> bool:
    """Seen here, or holding the lock from elsewhere. What does neither cannot be told from one that was killed."""
    if who.host == process.host() and process.is_alive(who.pid, who.born):
        return True
    return lock.signature(backups) == process.named(who.pid, who.host)
