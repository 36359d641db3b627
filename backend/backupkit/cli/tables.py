"""Text tables: complete lines for a pipe; on a terminal the columns that fit its width, the most important first."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from backupkit.model.names import printable_text

_GAP = "  "
_NUMBERS = ("AGE", "SIZE", "ADDS", "TOOK", "BACKUPS", "BEHIND")
_STATES = ("STATE", "RESULT", "VERDICT")
_MAY_BE_CUT = ("NOTE", "WHAT", "WHY", "NEWEST", "VALUE")
_LEAST_WIDTH, _RESERVED_WIDTH = 12, 40  # least width of a column that may be cut, and the width reserved for it
_GREEN, _YELLOW, _RED = 32, 33, 31
_COLOURS = {
    **dict.fromkeys(("proven", "checked", "success", "current"), _GREEN),
    **dict.fromkeys(("unchecked", "warning", "running", "behind", "empty", "REMOVE"), _YELLOW),
    **dict.fromkeys(("damaged", "raw", "failure", "refused", "interrupted", "FAILED"), _RED),
}


class Drawn(str):
    """A line that is safe to print unchanged: its cells are printable, and its escape codes are our own colours."""


class Terminal(Struct, frozen=True):
    """The terminal on which a table is drawn; a width of None shows all columns."""

    width: int | None
    has_colour: bool


def terminal(is_wide: bool) -> Terminal | None:
    """Return the terminal of stdout, or None if stdout is a pipe or a file."""
    if not sys.stdout.isatty():
        return None
    has_colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return Terminal(None if is_wide else shutil.get_terminal_size().columns, has_colour)


def drawn(
    screen: Terminal | None,
    head: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    order: Sequence[str],
    needed: int,
    more: Iterable[Mapping[str, str]] = (),
) -> Iterator[str]:
    """Yield all columns of `head` for a pipe; on a screen those of `order` that fit, always with its first `needed`.

    `more` has, for each row, the cells that only a screen shows, or shows in another form.
    """
    if screen is None:
        yield from table(head, rows)
        return
    cells = [dict(zip(head, row, strict=True)) for row in rows]
    for one, own in zip(cells, more, strict=False):
        one.update(own)
    yield from fitted(screen, order, needed, cells)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield lines with columns as wide as their cells; never cut, so that a script can read them."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def fitted(screen: Terminal, head: Sequence[str], needed: int, rows: Sequence[Mapping[str, str]]) -> Iterator[Drawn]:
    """Yield the first `needed` columns, uncut, and as many others as fit. Numbers are aligned to the right."""
    columns = {name: [printable_text(row[name]) for row in rows] for name in head}
    widths = _widths(screen.width, columns, needed)
    yield Drawn(_GAP.join(_aligned(name, name, width) for name, width in widths.items()).rstrip())
    for number in range(len(rows)):
        cells = (
            _coloured(screen, name, _aligned(name, columns[name][number], width)) for name, width in widths.items()
        )
        yield Drawn(_GAP.join(cells).rstrip())


def _widths(width: int | None, columns: Mapping[str, Sequence[str]], needed: int) -> dict[str, int]:
    """Return the columns to show, each with its width; those that may be cut share the room the others leave."""
    wanted = {name: max(map(_width, (name, *cells))) for name, cells in columns.items()}
    found = dict(list(wanted.items())[:needed])
    room = (sys.maxsize if width is None else width + len(_GAP)) - sum(len(_GAP) + one for one in found.values())
    long = sum(len(_GAP) + min(wanted[name], _RESERVED_WIDTH) for name in wanted if name in _MAY_BE_CUT)
    for name in list(wanted)[needed:]:
        if name not in _MAY_BE_CUT and len(_GAP) + wanted[name] <= room - long:
            found[name] = wanted[name]
            room -= len(_GAP) + wanted[name]
    for name in (one for one in wanted if one in _MAY_BE_CUT):
        if (cut := min(wanted[name], room - len(_GAP))) >= min(wanted[name], _LEAST_WIDTH):
            found[name] = cut
    return {name: found[name] for name in wanted if name in found}


def _aligned(column: str, text: str, width: int) -> str:
    """Return the text padded or cut to `width`; numbers are aligned to the right."""
    if (length := _width(text)) > width:
        while _width(text) >= width:
            text = text[:-1]
        text, length = f"{text}…", _width(text) + 1
    space = " " * (width - length)
    return space + text if column in _NUMBERS else text + space


def _width(text: str) -> int:
    """Return how many terminal columns the text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else not unicodedata.combining(one) for one in text)


def _coloured(screen: Terminal, column: str, cell: str) -> str:
    """Return the cell, coloured if it is a state; the colour adds nothing to its word."""
    colour = _COLOURS.get(cell.split(" ")[0].rstrip(",")) if column in _STATES and screen.has_colour else None
    return f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell
