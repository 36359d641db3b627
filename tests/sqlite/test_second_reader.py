"""The second process of a dump: it sees the same moment, changes no byte of the text, and may go at any time."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupkit.backup.sql_dump import dump_to
from backupkit.fs import process
from backupkit.sqlite import database, second_reader, sql
from backupkit.sqlite.sql_rows import RowRun, read_run
from small_app import SmallApp


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_reader, "_WORTH_IT", 0)
    monkeypatch.setattr(second_reader, "_processors", lambda: 2)


class Counting:
    """A reader that counts the runs of pages it gave."""

    def __init__(self, reader: second_reader.Reader) -> None:
        self._reader = reader
        self.runs = 0

    def ask(self, query: str, place: float, size: int, count: int) -> None:
        self._reader.ask(query, place, size, count)

    def answer(self) -> list[RowRun] | None:
        pages = self._reader.answer()
        self.runs += pages is not None
        self.after()
        return pages

    def after(self) -> None:
        pass


class Dying(Counting):
    """A reader whose process is killed after its first run."""

    def after(self) -> None:
        if self.runs == 1:
            os.kill(self._reader._process.pid, signal.SIGKILL)


@contextlib.contextmanager
def two_readers(live: Path, kind: type[Counting] = Counting) -> Iterator[tuple[sqlite3.Connection, Counting]]:
    with database.snapshot(live, 5) as moment, second_reader.beside(moment, live) as reader:
        assert reader, "there is no second reader, so this test shows nothing"
        yield moment, kind(reader)


def alone(live: Path) -> bytes:
    out = io.BytesIO()
    with database.snapshot(live, 5) as moment:
        sql.write_dump(moment, out)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_text_is_the_same_with_a_second_reader_and_without(app: SmallApp, mode: str) -> None:
    app.add_rows(30_000)
    app.execute(f"PRAGMA journal_mode={mode}")
    app.execute("INSERT INTO companies (name) VALUES (CAST(x'27ff0d0a00' AS TEXT))")
    out = io.BytesIO()
    with two_readers(app.database) as (moment, second):
        sql.write_dump(moment, out, second=second)
    assert second.runs > 2
    assert out.getvalue() == alone(app.database)


def test_a_second_reader_that_is_killed_leaves_the_dump_to_the_first(app: SmallApp) -> None:
    app.add_rows(30_000)
    out = io.BytesIO()
    with two_readers(app.database, Dying) as (moment, second):
        sql.write_dump(moment, out, second=second)
    assert second.runs == 1
    assert out.getvalue() == alone(app.database)


class Strict:
    """A reader in this process that gives one answer for each question, and fails where a real one would hang."""

    def __init__(self, live: sqlite3.Connection) -> None:
        self._live = live
        self._pending: list[list[RowRun]] = []
        self.answered = 0

    def ask(self, query: str, place: float, size: int, count: int) -> None:
        assert not self._pending, "asked again before the answer was taken"
        self._pending.append(list(read_run(self._live, query, place, size, count)))

    def answer(self) -> list[RowRun] | None:
        self.answered += 1
        return self._pending.pop()


@pytest.mark.parametrize("width", [1, 700])
def test_of_any_number_of_rows_nothing_is_waited_for_that_was_not_asked_for(width: int) -> None:
    answered = 0
    with contextlib.closing(sqlite3.connect(":memory:")) as live:
        live.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        for count in range(1, 1700):
            live.execute("INSERT INTO t (text) VALUES (?)", ("x" * width,))
            # Around the ends of pages and of runs of them, of whatever size they are by then.
            if count % 64 in (0, 1, 63, 32) or count < 40:
                live.commit()
                one, two, second = io.BytesIO(), io.BytesIO(), Strict(live)
                sql.write_dump(live, one)
                sql.write_dump(live, two, second=second)
                assert one.getvalue() == two.getvalue() and not second._pending
                answered += second.answered
    assert answered


def test_a_table_that_ends_within_the_last_page_of_a_run_is_dumped_to_its_end(app: SmallApp) -> None:
    app.execute("DELETE FROM companies")
    app.add_rows(500)  # eight pages of 64 rows, the last one not full
    out = io.BytesIO()
    with two_readers(app.database) as (moment, second):
        sql.write_dump(moment, out, second=second)
    assert out.getvalue() == alone(app.database)


def test_both_readers_see_the_same_moment_though_another_process_commits_all_the_time(app: SmallApp) -> None:
    with app.writer() as writer:
        for _ in range(5):
            with two_readers(app.database) as (moment, second):
                count = "SELECT count(*) AS line, 1 AS key FROM companies WHERE ? < 1 LIMIT ?"
                second.ask(count, 0, 1, 1)
                pages = second.answer()
                assert pages
                assert int(pages[0].text) == moment.execute("SELECT count(*) FROM companies").fetchone()[0]
    assert not writer.errors
    assert writer.count > 0


def test_a_commit_between_the_two_is_noticed(app: SmallApp) -> None:
    with database.snapshot(app.database, 5) as moment:
        assert not second_reader._has_moved(moment)
        app.add_rows(1)
        assert second_reader._has_moved(moment)
        assert not second_reader._has_moved(moment)


def test_a_dump_with_two_readers_leaves_no_process_and_nothing_beside_the_database(app: SmallApp) -> None:
    app.add_rows(3000)
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = sorted(path.name for path in app.database.parent.iterdir())
    started: list[int] = []
    start = process.start_module

    def remembering(name: str, *arguments: str) -> object:
        child = start(name, *arguments)
        started.append(child.pid)
        return child

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(process, "start_module", remembering)
        dump_to(app.settings, io.BytesIO())
    assert len(started) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert sorted(path.name for path in app.database.parent.iterdir()) == before


def test_a_small_database_is_dumped_by_one_process(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_reader, "_WORTH_IT", 32 * 1024 * 1024)
    with database.snapshot(app.database, 5) as moment, second_reader.beside(moment, app.database) as reader:
        assert reader is None
