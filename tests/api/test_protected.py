"""`protected` makes a backup before a critical operation, records how the operation ended, and can roll it back."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backupkit import AppFolder, PlainDatabase, SourceUnreadable, protected
from backupkit.repository import store
from small_app import SmallApp


class Notes:
    """A plain database of notes."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "notes.db"
        self.plain = PlainDatabase(self.database, timeout=0.3)
        with contextlib.closing(sqlite3.connect(self.database)) as live, live:
            live.execute("CREATE TABLE notes (text TEXT)")

    def write(self, text: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as live, live:
            live.execute("INSERT INTO notes VALUES (?)", (text,))

    def read(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.database)) as live:
            return [text for (text,) in live.execute("SELECT text FROM notes")]

    def outcomes(self) -> list[str]:
        return sorted(record["outcome"] for record in records(self.plain.folder))


def records(backups: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((backups / ".state" / "operations").glob("*.json"))]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


def fail(notes: Notes) -> None:
    notes.write("half of it")
    raise ValueError("line 7 has no date")


def test_the_backup_is_made_before_the_operation(notes: Notes) -> None:
    with protected("bulk import", notes.database) as operation:
        notes.write("imported")
    with contextlib.closing(sqlite3.connect(operation.backup)) as backup:
        assert backup.execute("SELECT * FROM notes").fetchall() == []
    assert notes.read() == ["imported"]


def test_how_it_ended_is_written_down_beside_the_backup(notes: Notes) -> None:
    with protected("bulk import", notes.database) as operation:
        (under_way,) = records(notes.plain.folder)
    (record,) = records(notes.plain.folder)
    assert (under_way["outcome"], under_way["ended"]) == ("running", None)
    assert (record["outcome"], record["error"]) == ("succeeded", "")
    assert (record["operation"], record["backup"]) == ("bulk import", operation.backup.name)
    assert record["started"] <= record["ended"]


def test_a_failure_is_written_down_and_goes_on(notes: Notes) -> None:
    with pytest.raises(ValueError, match="line 7"), protected("bulk import", notes.database):
        fail(notes)
    (record,) = records(notes.plain.folder)
    assert (record["outcome"], record["error"]) == ("failed", "ValueError: line 7 has no date")
    assert notes.read() == ["half of it"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_with_rollback_everything_is_as_before_and_the_error_says_so(notes: Notes, error: type[BaseException]) -> None:
    notes.write("before")
    with pytest.raises(error) as raised, protected("bulk import", notes.database, rollback=True) as operation:
        notes.write("half of it")
        raise error
    assert notes.read() == ["before"]
    assert raised.value.__notes__ == [f"Rolled back to {operation.backup}."]
    assert notes.outcomes() == ["rolled back"]


def test_a_rollback_that_fails_says_so_and_hides_no_error(notes: Notes) -> None:
    guard = protected("bulk import", rollback=True, on=notes.plain)
    with (
        pytest.raises(ValueError, match="line 7") as raised,
        contextlib.closing(sqlite3.connect(notes.database)) as live,
        guard,
    ):
        live.execute("BEGIN IMMEDIATE")
        raise ValueError("line 7")
    (note,) = raised.value.__notes__
    assert note.startswith("It could not be rolled back to ") and "stayed locked" in note
    assert notes.outcomes() == ["not rolled back"]


def test_without_a_backup_the_operation_does_not_begin(notes: Notes) -> None:
    notes.database.write_bytes(b"no database" * 1000)
    with pytest.raises(SourceUnreadable), protected("bulk import", notes.database):
        raise AssertionError("the operation was begun")


def test_as_a_decorator_every_call_is_protected_and_the_function_stays_what_it_is(notes: Notes) -> None:
    @protected("bulk import", on=notes.plain, rollback=True)
    def bring_in(text: str, *, times: int = 1) -> int:
        """Bring it in."""
        for _ in range(times):
            notes.write(text)
        if text == "bad":
            raise ValueError(text)
        return times

    assert bring_in("good", times=2) == 2
    with pytest.raises(ValueError):
        bring_in("bad")
    assert notes.read() == ["good", "good"]
    assert notes.outcomes() == ["rolled back", "succeeded"]
    assert (bring_in.__name__, bring_in.__doc__) == ("bring_in", "Bring it in.")
    assert list(inspect.signature(bring_in).parameters) == ["text", "times"]


def test_calls_of_a_decorated_function_may_overlap(notes: Notes) -> None:
    together = threading.Barrier(2, timeout=30)

    @protected("bulk import", notes.database, timeout=30)
    def bring_in(text: str) -> None:
        together.wait()
        if text == "bad":
            raise ValueError(text)

    def call(text: str) -> None:
        with contextlib.suppress(ValueError):
            bring_in(text)

    threads = [threading.Thread(target=call, args=(text,)) for text in ("good", "bad")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert notes.outcomes() == ["failed", "succeeded"]


def test_one_block_is_entered_once_at_a_time(notes: Notes) -> None:
    guard = protected("bulk import", on=notes.plain)
    with guard, pytest.raises(RuntimeError, match="under way already"), guard:
        raise AssertionError("it was entered twice")
    assert notes.outcomes() == ["succeeded"]


def test_a_coroutine_is_protected_until_it_has_ended(notes: Notes) -> None:
    @protected("bulk import", on=notes.plain, rollback=True)
    async def bring_in() -> None:
        await asyncio.sleep(0)
        fail(notes)

    assert inspect.iscoroutinefunction(bring_in)
    with pytest.raises(ValueError, match="line 7"):
        asyncio.run(bring_in())
    assert notes.read() == []
    assert notes.outcomes() == ["rolled back"]


def test_an_async_block_does_not_hold_up_the_loop(notes: Notes) -> None:
    async def main() -> list[str]:
        other = asyncio.create_task(asyncio.sleep(0, "went on"))
        async with protected("bulk import", on=notes.plain):
            pass
        return [await other] if other.done() else []

    assert asyncio.run(main()) == ["went on"]
    assert notes.outcomes() == ["succeeded"]


def test_a_generator_is_refused(notes: Notes) -> None:
    def bring_in() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="is a generator"):
        protected("bulk import", on=notes.plain)(bring_in)
    assert not notes.plain.folder.exists()


# In an app's folder


def test_database_and_uploads_of_an_app_go_back_together(app: SmallApp) -> None:
    before = app.contents()
    with (
        pytest.raises(ValueError),
        protected("bulk import", on=AppFolder(settings=app.settings), rollback=True) as operation,
    ):
        app.execute("DELETE FROM documents")
        app.write_upload("3/new.txt", b"new")
        raise ValueError
    assert app.contents() == before
    made = store.read(app.settings, operation.backup.name)
    assert made.metadata and (made.metadata.kind, made.metadata.note) == ("auto", "before bulk import")
    assert made.pinned, "held until the next good backup"
    (record,) = records(app.backups)
    assert record["outcome"] == "rolled back"
