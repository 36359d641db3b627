"""The Python examples of the documents: tests run them, and check their types as a user's type checker would."""

from __future__ import annotations

from documents import DOCS, blocks, text

PYTHON = DOCS / "python.md"


def examples() -> list[str]:
    """Return the code blocks of docs/python.md, in order."""
    return blocks(text(PYTHON), "python")
