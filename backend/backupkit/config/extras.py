"""Optional packages: a missing one becomes one line that says what to type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backupkit.model.errors import Refused


@contextmanager
def from_extra(extra: str, what: str) -> Iterator[None]:
    """Import an optional package in the block; raise `Refused`, which says how to install it, if it is missing.

    `what` is what the user asked for, at the beginning of a sentence:

        with from_extra("notifications", "A notification by mail"):
            import apprise
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "backupkit":
            raise  # a bug of ours, which no installation fixes
        raise Refused(
            f"{what} needs the package {error.name}, which is not installed.",
            hint=f"pip install 'backupkit[{extra}]'",
        ) from error
