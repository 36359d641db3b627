"""The Python examples of the documents: they are run, and checked as a user's type checker would."""

from __future__ import annotations

from documents import DOCS, blocks, text

PYTHON = DOCS / "python.md"


def examples() -> list[str]:
    """The code blocks of docs/python.md, in order."""
    return blocks(text(PYTHON), "python")
