"""Work that root has done by another user, in a child process that has no way back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from backupkit.fs import process
from backupkit.model.errors import BackupError


def run_as(user: tuple[int, int], act: Callable[[], str]) -> str:
    """Return what the act returns in a child process of that user and group.

    Raises `BackupError` with the words of what the act raises, and where root may not become that user.
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
    """Write what came of it, as text: a child with fewer rights gives root nothing that is run."""
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
