"""A table of a backup: its rows a page at a time, and the rows in which the live table differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, DataTable, Static

from backupkit.fs.space import format_bytes
from backupkit.model.names import printable
from backupkit.sqlite.rows import Cell, Comparison, Difference, Key, RowPage
from backupkit.ui import styles
from backupkit.ui.page import fill

PAGE = 50  # rows
_SIGNS = {"came": ("+", "success"), "gone": ("-", "error"), "changed": ("~", "warning")}


class RowsView(Vertical):
    """What was read of a table. It reads nothing itself: the page does, when it is asked to."""

    DEFAULT_CSS = """
    RowsView #title { text-style: bold; padding: 0 1; }
    RowsView #told { padding: 0 1; color: $foreground 80%; height: auto; }
    RowsView DataTable { height: 1fr; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 1; }
    RowsView #turn { height: 1; align-horizontal: right; }
    RowsView Button { margin-left: 1; min-width: 10; }
    """
    table = ""
    total = 0
    start = 0
    page: RowPage | None = None
    found: Comparison | None = None

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())

    def _draw(self) -> None:
        """What differs, in the colours of another theme; rows have none."""
        if self.found and self.is_comparison:
            self.show_comparison(self.table, self.found)

    def compose(self) -> ComposeResult:
        yield Static("", id="title", markup=False)
        yield Static("", id="told", markup=False)
        yield DataTable[Text](cursor_type="row", zebra_stripes=True)
        with Horizontal(id="turn"):
            yield Button("Rows", id="rows", compact=True)
            yield Button("Earlier", id="earlier", compact=True)
            yield Button("Later", id="later", compact=True)
            yield Button("Bring back …", id="bring", compact=True)
            yield Button("Compare with live", id="compare", variant="primary", compact=True)

    def show_page(self, table: str, total: int, start: int, page: RowPage) -> None:
        """Rows from the place `start` on, in the order of their keys."""
        self.table, self.total, self.start, self.page = table, total, start, page
        last = start + len(page.rows)
        caption = f"rows {start + 1:,} to {last:,} of {total:,}" if page.rows else "no rows"
        self._fill(caption, page.columns, [[cell_text(cell) for cell in row.cells] for row in page.rows])
        self._offer(rows=False, earlier=page.has_earlier, later=page.has_later, compare=True, bring=bool(page.rows))

    def show_comparison(self, table: str, found: Comparison) -> None:
        """The rows that differ, each with its sign: those that are gone, came and changed since the backup."""
        self.table, self.page, self.found = table, None, found
        colours = styles.colours(self.app.theme_variables)
        rows = [list(difference_texts(difference, colours)) for difference in found.differences]
        self._fill("\n".join(summed_up(found)), ("", *found.columns), rows)
        self._offer(rows=True, earlier=False, later=False, compare=False, bring=False)

    @property
    def is_comparison(self) -> bool:
        """Whether what differs is in view, and not the rows."""
        return bool(self.table) and self.page is None

    @property
    def key(self) -> Key | None:
        """The key of the row that the cursor is at."""
        row = self.query_one(DataTable).cursor_row
        return self.page.rows[row].key if self.page and 0 <= row < len(self.page.rows) else None

    def _fill(self, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
        self.query_one("#title", Static).update(printable(self.table))
        self.query_one("#told", Static).update(caption)
        fill(self.query_one(DataTable), [Text(printable(name)) for name in columns], rows)

    def _offer(self, **which: bool) -> None:
        for name, is_offered in which.items():
            self.query_one(f"#{name}", Button).display = is_offered


def cell_text(cell: Cell) -> Text:
    """A value: a number to the right, nothing and a blob in words."""
    if cell.kind == "null":
        return Text("null", style="dim italic")
    if cell.kind == "blob":
        return Text(f"blob, {format_bytes(cell.size)}", style="dim italic")
    justify = "right" if cell.kind in ("integer", "real") else "left"
    return Text(cell.text + ("…" if cell.is_cut else ""), justify=justify, no_wrap=True)  # type: ignore[arg-type]


def difference_texts(difference: Difference, colours: styles.Colours) -> Iterator[Text]:
    """A line of the comparison: the sign and, of a row that changed, each value that did as `before → after`."""
    sign, colour = _SIGNS[difference.kind]
    style = colours[colour]
    yield Text(f"{sign} {difference.kind}", style=style)
    if difference.kind != "changed":
        yield from map(cell_text, difference.before or difference.after)
        return
    for before, after in zip(difference.before, difference.after, strict=True):
        if before == after and not (before.is_cut and before.kind == "text"):
            yield cell_text(before)
        elif before == after:
            yield cell_text(before).append(" (?)", style=style)  # alike as far as is shown
        else:
            yield Text.assemble(cell_text(before), (" → ", style), cell_text(after))


def summed_up(found: Comparison) -> Iterator[str]:
    """What the comparison comes to, in words."""
    if not found.differences and not found.is_cut:
        yield "The live table has the same rows."
        return
    counts = {kind: found.count(kind) for kind in ("gone", "came", "changed")}
    yield f"Since this backup: {', '.join(f'{count:,} {kind}' for kind, count in counts.items() if count)}."
    if found.is_late:
        yield "There may be more: it was ended after half a minute, so as not to block the app."
    elif found.is_cut:
        yield "There are more: only the first of each kind are shown."


def row_lines(columns: Sequence[str], cells: Sequence[Cell]) -> Iterator[str]:
    """One row in full, a line for each value."""
    for name, cell in zip(columns, cells, strict=True):
        yield f"{printable(name)}: {cell_text(cell).plain}"


def title_of(table: str, key: Key) -> str:
    """What a row is called: by its table and its key."""
    return f"{printable(table)}, {', '.join(printable(str(value)) for value in key)}"
