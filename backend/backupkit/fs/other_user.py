"""Work that root does as another user, in a child process that cannot become root again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from backupkit.fs import process
from backupkit.model.errors import BackupError


def run_as(user: tuple[int, int], act: Callable[[], str]) -> str:
    """Return what `act` returns in a child process of that user and group.

    Raise `BackupError` with the message of what `act` raises, or if root may not become that user.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer(writing, user, act)
    os.close(writing)
    try:
        with open(reading, encoding="utf-8") as answer:
            said = answer.read()
    finally:
        os.waitpid(child, 0)
    found = json.loads(said) if said else {"message": "The process that did it ended without an answer.", "hint": ""}
    if "message" in found:
        raise BackupError(found["message"], found["hint"])
    return str(found["result"])


def _answer(writing: int, user: tuple[int, int], act: Callable[[], str]) -> None:
    """Write the result as text: root must run nothing that a child with fewer rights sends."""
    found: dict[str, str] = {}
    try:
        process.become(*user)
        found = {"result": act()}
    except BackupError as error:
        found = {"message": error.message, "hint": error.hint}
    except BaseException as error:
        found = {"message": f"{type(error).__name__}: {error}", "hint": ""}
    finally:
        with open(writing, "w", encoding="utf-8") as answer:
            json.dump(found, answer)
        os._exit(0)
