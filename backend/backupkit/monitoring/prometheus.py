"""The numbers of `status` for Prometheus, in the format of node exporter's textfile collector.

Times are seconds since 1970, and not ages, so that a file that is no longer updated does not look fresh. Unknown values
have no line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from backupkit.fs import disk
from backupkit.model.errors import Refused
from backupkit.model.names import printable_text
from backupkit.monitoring.status import LEVELS, Numbers, Status
from backupkit.remotes.copies import RemoteState

_PREFIX = "backupkit_"
Value = float | datetime | None
_REMOTE_METRICS: tuple[tuple[str, str, Callable[[RemoteState], Value]], ...] = (
    ("asked_timestamp_seconds", "When the remote last answered.", lambda one: one.asked_at),
    ("newest_timestamp_seconds", "When the newest backup that is on the remote was made.", lambda one: one.newest_at),
    ("backups", "Backups on the remote.", lambda one: one.backups),
    ("behind", "Backups that are still to be pushed to the remote.", lambda one: one.behind),
)


def text(found: Status, app: str) -> str:
    """Return the content of the file."""
    return "".join(f"{line}\n" for line in _lines(found, app))


def write(path: Path, content: str) -> None:
    """Replace the file atomically with this content, readable for all users.

    Raises `Refused` if it cannot be written, or is a link or a device.
    """
    _require_replaceable(path)
    draft = path.with_name(f"{path.name}.new")  # the collector reads every name that ends with .prom
    try:
        disk.write_file(draft, content.encode(), 0o644)
        disk.rename(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            disk.remove(draft)
        reason = error.strerror or type(error).__name__
        raise Refused(f"The file {path} cannot be written: {reason}.", hint=f"ls -ld {path.parent}") from error


def _require_replaceable(path: Path) -> None:
    """Raise `Refused` for a link, a device or a pipe: root could replace /dev/stdout for every program."""
    if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
        hint = "Name a file; `status --prometheus -` prints the metrics."
        raise Refused(f"{path} is a link or a device, and is not replaced.", hint)


def _lines(found: Status, app: str) -> Iterator[str]:
    yield from _metric("status", "0 fine, 1 warning, 2 critical.", {_labels(app=app): LEVELS.index(found.level)})
    for name, meaning, value in _metric_values(found.numbers):
        if value is not None:
            yield from _metric(name, meaning, {_labels(app=app): value})
    for name, meaning, value_of in _REMOTE_METRICS:
        by = {_labels(app=app, remote=one.name): value_of(one) for one in found.numbers.copies.remotes}
        if known := {labels: value for labels, value in by.items() if value is not None}:
            yield from _metric(f"remote_{name}", meaning, known)
    for label, counts in (("kind", found.numbers.by_kind), ("state", found.numbers.by_state)):
        by = {_labels(app=app, **{label: name}): number for name, number in sorted(counts.items())}
        yield from _metric(f"backups_by_{label}", f"Backups, by {label}.", by)


def _metric_values(numbers: Numbers) -> Iterator[tuple[str, str, Value]]:
    yield "status_timestamp_seconds", "When this was looked at.", numbers.now
    yield "last_success_timestamp_seconds", "When the last reliable backup was made.", numbers.last_backup_at
    yield "last_whole_timestamp_seconds", "When the last one with all that the app has was made.", numbers.last_whole_at
    yield "expected_interval_seconds", "How often a backup is expected.", numbers.expected_interval_seconds
    yield "newest_checked_timestamp_seconds", "When the newest checked backup was checked.", numbers.newest_checked_at
    yield "newest_proven_timestamp_seconds", "When the newest proven backup was proven.", numbers.newest_proven_at
    yield "last_proof_timestamp_seconds", "When a test restore last went well.", numbers.last_proof_at
    yield "next_run_timestamp_seconds", "When the next backup is planned.", numbers.next_run_at
    yield "total_bytes", "Bytes in all backups.", numbers.total_bytes
    yield "unique_bytes", "Bytes that the backups take on disk.", numbers.unique_bytes
    yield "growth_bytes_per_day", "Bytes a day of the backups of the last 30 days.", numbers.growth_bytes_per_day
    yield "free_bytes", "Bytes free on the disk of the backups.", numbers.free_bytes
    yield "free_days", "Days until that disk is full, at the recent rate.", numbers.days_left
    yield "unfinished_restore", "1 if a restore was interrupted.", numbers.unfinished_restore
    yield "drafts", "Unfinished backups.", numbers.drafts
    yield "failures_since_success", "Operations that failed since the last backup.", numbers.failures_since_success
    yield "copies", "Copies of the data, the live one among them, by what remotes last said.", numbers.copies.copies
    yield "copies_elsewhere", "How many of them are in another place.", numbers.copies.elsewhere
    yield "rewind_points", "Points of rewind that can be restored.", numbers.rewind_points
    yield "rewind_bytes", "Bytes in all points.", numbers.rewind_bytes
    yield "rewind_from_timestamp_seconds", "How far back rewind reaches.", numbers.rewind_from
    yield "rewind_newest_timestamp_seconds", "When the newest point was taken.", numbers.rewind_to
    yield "three_two_one", "1 if there are three copies, on two media, one elsewhere.", not numbers.copies.lacking


def _metric(name: str, meaning: str, values: Mapping[str, Value]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {meaning}"
    yield f"# TYPE {_PREFIX}{name} gauge"
    for labels, value in values.items():
        number = value.timestamp() if isinstance(value, datetime) else value
        yield f"{_PREFIX}{name}{labels} {float(number or 0):.17g}"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return printable_text(value).replace("\\", "\\\\").replace('"', '\\"')
