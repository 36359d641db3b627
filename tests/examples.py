"""The examples of the guide that are Python: they are run, and checked as a user's type checker would."""

from __future__ import annotations

import re

from small_app import BACKEND

GUIDE = BACKEND.parent / "BACKUP_GUIDE.md"


def examples() -> list[str]:
    """The code blocks of the section From Python, in order."""
    section = re.search(r"^## From Python\n(.*?)^## ", GUIDE.read_text(), re.M | re.S)
    assert section
    return re.findall(r"^```python\n(.*?)^```", section[1], re.M | re.S)
