"""Tables that are filled anew whenever what they show has changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import DataTable


def fill(table: DataTable[Text], heads: Sequence[Text | str], rows: Sequence[Sequence[Text]]) -> None:
    """These rows and no others, each column as wide as the widest that is in it.

    The widths are told: a table measures by itself only when it is idle, and cuts what was filled in twice before.
    """
    table.clear(columns=True)
    for number, head in enumerate(heads):
        widest = max(row[number].cell_len for row in rows) if rows else 0
        table.add_column(head, width=max(widest, len(head), 1))
    table.add_rows(rows)
