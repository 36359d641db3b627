"""The numbers of the status as tiles; each bears its name in `status --json` and its exact value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from xml.etree.ElementTree import Element

from backupkit.cli import render
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.durations import ago, span
from backupkit.monitoring.status import Numbers
from backupkit.remotes.copies import Copies
from backupkit.web.report.elements import Child, element


def _number(name: str, value: object, text: str) -> Element:
    return element("data", text, value=f"{value}", data_number=name)


def moment_of(settings: Settings, name: str, at: datetime, form: str = "%Y-%m-%d %H:%M") -> Element:
    """A moment in the configured zone."""
    return _number(name, at.isoformat(), settings.local(at).strftime(form))


def tiles(settings: Settings, numbers: Numbers) -> Element:
    """Everything that is known, a tile for each thing to be known."""
    every = (
        ("Last backup", _last_backup(settings, numbers)),
        ("Proven by a test restore", _proven(settings, numbers)),
        ("Checked", _found_good(settings, numbers, "newest_checked")),
        ("Next backup", _next_run(settings, numbers)),
        ("Backups", _counts(settings, numbers)),
        ("On disk", _on_disk(numbers)),
        ("Free space", _free(numbers)),
        ("Copies", _copies(settings, numbers.copies)),
        ("Rewind", _rewind(settings, numbers)),
        ("Failures since the last backup", _failures(numbers)),
        ("SQLite", _sqlite(numbers)),
    )
    return element("dl", *(_tile(title, lines) for title, lines in every), class_="tiles")


def _tile(title: str, lines: Iterable[list[Child]]) -> Element:
    return element("div", element("dt", title), *(element("dd", *line) for line in lines))


def _last_backup(settings: Settings, numbers: Numbers) -> Iterator[list[Child]]:
    age = numbers.last_backup_age_seconds
    if age is None or numbers.last_backup_at is None:
        yield ["none"]
    else:
        yield [_number("last_backup_age_seconds", age, ago(age))]
        yield [_number("last_backup", numbers.last_backup, numbers.last_backup or "")]
        yield [moment_of(settings, "last_backup_at", numbers.last_backup_at)]
    if settings.uploads and numbers.last_whole and numbers.last_whole_at:
        yield ["with the uploads: ", _number("last_whole", numbers.last_whole, numbers.last_whole)]
        yield [moment_of(settings, "last_whole_at", numbers.last_whole_at)]
    if expected := numbers.expected_interval_seconds:
        told = _number("expected_interval_seconds", expected, f"{expected / 3600:g} hours")
        yield ["one is expected every ", told]


def _found_good(settings: Settings, numbers: Numbers, which: str) -> Iterator[list[Child]]:
    name, at = getattr(numbers, which), getattr(numbers, f"{which}_at")
    if at is None:
        yield ["never"]
        return
    yield [ago((numbers.now - at).total_seconds())]
    yield [_number(which, name, name)]
    yield [moment_of(settings, f"{which}_at", at)]


def _proven(settings: Settings, numbers: Numbers) -> Iterator[list[Child]]:
    yield from _found_good(settings, numbers, "newest_proven")
    if at := numbers.last_proof_at:
        yield ["last test restore ", moment_of(settings, "last_proof_at", at)]


def _next_run(settings: Settings, numbers: Numbers) -> Iterator[list[Child]]:
    if numbers.next_run_at is None:
        yield ["none planned"]
        yield ["no scheduler is running"]
        return
    seconds = (numbers.next_run_at - numbers.now).total_seconds()
    yield [f"in {span(seconds)}"]
    yield [moment_of(settings, "next_run_at", numbers.next_run_at)]


def _counts(settings: Settings, numbers: Numbers) -> Iterator[list[Child]]:
    yield [_number("backups", numbers.backups, f"{numbers.backups:,}")]
    for which, counts in (("by_kind", numbers.by_kind), ("by_state", numbers.by_state)):
        yield from _counted(which, dict(counts))
    if numbers.oldest_at and numbers.newest_at:
        ends = (("oldest_at", numbers.oldest_at), ("newest_at", numbers.newest_at))
        oldest, newest = (moment_of(settings, name, at, "%Y-%m-%d") for name, at in ends)
        yield [oldest, " to ", newest]


def _counted(which: str, counts: dict[str, int]) -> Iterator[list[Child]]:
    line: list[Child] = []
    for name, number in sorted(counts.items()):
        line += [", " if line else None, _number(f"{which}.{name}", number, f"{number:,} {name}")]
    if line:
        yield line


def _on_disk(numbers: Numbers) -> Iterator[list[Child]]:
    yield [_size("unique_bytes", numbers.unique_bytes)]
    yield [_size("total_bytes", numbers.total_bytes), " if each were a full copy"]
    yield ["backups grow by ", _size("growth_bytes_per_day", numbers.growth_bytes_per_day), " a day"]


def _free(numbers: Numbers) -> Iterator[list[Child]]:
    if numbers.free_bytes is None:
        yield ["not known"]
        return
    yield [_size("free_bytes", numbers.free_bytes)]
    if numbers.days_left is not None:
        lasts = _number("days_left", numbers.days_left, render.lasting(numbers.days_left))
        yield ["with all that fills this disk, enough for ", lasts]


def _copies(settings: Settings, found: Copies) -> Iterator[list[Child]]:
    media, elsewhere = found.media, found.elsewhere
    yield [_number("copies", found.copies, f"{found.copies:,}")]
    yield [
        "the live data among them, on ",
        _number("media", media, "1 medium" if media == 1 else f"{media} media"),
        ", ",
        _number("elsewhere", elsewhere, f"{elsewhere} in another place"),
    ]
    yield [f"3-2-1 lacks {' and '.join(found.lacking)}" if found.lacking else "that is 3-2-1"]
    for one in found.remotes:
        asked = f"asked {settings.local(one.asked_at):%Y-%m-%d %H:%M}" if one.asked_at else "never reached"
        yield [f"{one.name}: {one.backups:,} there, {one.behind:,} still to be pushed, {asked}"]


def _rewind(settings: Settings, numbers: Numbers) -> Iterator[list[Child]]:
    yield [_number("rewind_points", numbers.rewind_points, render.counted(numbers.rewind_points, "point"))]
    yield [_size("rewind_bytes", numbers.rewind_bytes)]
    if numbers.rewind_from and numbers.rewind_to:
        ends = (("rewind_from", numbers.rewind_from), ("rewind_to", numbers.rewind_to))
        oldest, newest = (moment_of(settings, name, at) for name, at in ends)
        yield [oldest, " to ", newest]
    if seconds := numbers.rewind_interval_seconds:
        yield ["looks every ", _number("rewind_interval_seconds", seconds, span(seconds))]


def _failures(numbers: Numbers) -> Iterator[list[Child]]:
    yield [_number("failures_since_success", numbers.failures_since_success, f"{numbers.failures_since_success:,}")]
    yield [_number("drafts", numbers.drafts, render.counted(numbers.drafts, "unfinished backup"))]
    unfinished = "a restore is not finished" if numbers.unfinished_restore else "no unfinished restore"
    yield [_number("unfinished_restore", str(numbers.unfinished_restore).lower(), unfinished)]


def _size(name: str, size: int) -> Element:
    return _number(name, size, format_bytes(size))


def _sqlite(numbers: Numbers) -> Iterator[list[Child]]:
    yield [_number("sqlite_version", numbers.sqlite_version, numbers.sqlite_version)]
    has_bug = numbers.sqlite_wal_reset_bug
    told = "has the WAL-reset bug: see doctor" if has_bug else "without the WAL-reset bug"
    yield [_number("sqlite_wal_reset_bug", str(has_bug).lower(), told)]
