"""`dump` changes nothing in the database; a bad dump is refused with its line, and loading it leaves no file."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

import scripts
from backupkit.model.errors import Damaged, SourceUnreadable
from backupkit.model.events import Event, Progress, Step
from backupkit.sqlite import allowance
from backupkit.sqlite.sql import load_dump, write_dump

GOOD = """PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
INSERT INTO t VALUES(1,'it''s; one');
INSERT INTO t VALUES(2,'two
lines');
CREATE TRIGGER tr AFTER INSERT ON t BEGIN
  DELETE FROM t WHERE a < 0; -- END;
  SELECT CASE WHEN 1 THEN 2 END;
END;
CREATE INDEX i ON t(b); /* last */
COMMIT;
"""


def load(text: str | bytes, folder: Path) -> Path:
    target = folder / "new.db"
    load_dump(io.BytesIO(text.encode() if isinstance(text, str) else text), target)
    return target


def with_statement(statement: str) -> str:
    """Return the good dump with one more statement, on line 11, after the trigger."""
    return GOOD.replace("CREATE INDEX", f"{statement}\nCREATE INDEX")


def refusal(text: str | bytes, folder: Path) -> str:
    """Return the message with which the text is refused; assert that the folder is unchanged."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(Damaged) as caught:
        load(text, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert caught.value.hint
    return caught.value.message


def rows(path: Path, query: str = "SELECT * FROM t") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


# --- dump


@pytest.fixture
def live(tmp_path: Path) -> Path:
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t(a); CREATE TABLE u(a)")
        database.executemany("INSERT INTO t VALUES(?)", [(number,) for number in range(20_000)])
        database.commit()
    return path


def test_a_dump_is_of_one_moment_though_another_process_writes(live: Path) -> None:
    class WritingInBetween(io.BytesIO):
        def write(self, data: object) -> int:
            with closing(sqlite3.connect(live)) as other, other:
                other.execute("INSERT INTO u VALUES('late')")
            return super().write(data)  # type: ignore[arg-type]

    out = WritingInBetween()
    with closing(sqlite3.connect(live)) as connection:
        facts = write_dump(connection, out)
    assert rows(live, "SELECT count(*) > 3 FROM u") == [(1,)]
    assert b"late" not in out.getvalue()
    assert (facts.tables, facts.rows, facts.bytes) == (2, 20_000, len(out.getvalue()))


def test_a_dump_changes_nothing_and_leaves_the_connection_as_it_was(live: Path) -> None:
    with closing(sqlite3.connect(live)) as connection:
        connection.row_factory = sqlite3.Row
        before = connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes, live.read_bytes()
        write_dump(connection, io.BytesIO())
        assert not connection.in_transaction
        assert connection.text_factory is str
        after = connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes, live.read_bytes()
        assert after == before


def test_a_dump_inside_the_callers_transaction_leaves_it_open(live: Path) -> None:
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("BEGIN")
        write_dump(connection, io.BytesIO())
        assert connection.in_transaction


def test_a_dump_is_made_of_a_read_only_connection(live: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    with closing(sqlite3.connect(f"file:{live}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA query_only=ON")
        write_dump(connection, out)
    assert rows(load(out.getvalue(), tmp_path), "SELECT sum(a) FROM t") == rows(live, "SELECT sum(a) FROM t")


def test_two_dumps_of_the_same_content_are_the_same_bytes(live: Path) -> None:
    texts = []
    for _ in range(2):
        out = io.BytesIO()
        with closing(sqlite3.connect(live)) as connection:
            write_dump(connection, out)
        texts.append(out.getvalue())
    assert texts[0] == texts[1]


def test_a_dump_tells_how_far_it_is(live: Path) -> None:
    heard: list[Event] = []
    with closing(sqlite3.connect(live)) as connection:
        write_dump(connection, io.BytesIO(), heard.append)
    assert heard[0] == Step("Dumping the database", 20_000, "rows")
    done = [event.done for event in heard[1:] if isinstance(event, Progress)]
    assert len(done) > 2
    assert done == sorted(done)
    assert done[-1] <= 20_000


def test_a_failing_disk_does_not_leave_a_transaction_open(live: Path) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with closing(sqlite3.connect(live)) as connection:
        with pytest.raises(OSError, match="No space"):
            write_dump(connection, Full())
        assert not connection.in_transaction
        assert connection.text_factory is str


def test_a_row_too_long_for_sql_text_is_said_and_the_limits_of_the_connection_stay(live: Path) -> None:
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("INSERT INTO u VALUES(zeroblob(400000))")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 500_000)
        with pytest.raises(SourceUnreadable, match=r"too (big|long)"):
            write_dump(connection, io.BytesIO())
        assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == 500_000


def test_a_database_without_tables_is_not_dumped(tmp_path: Path) -> None:
    out = io.BytesIO()
    with closing(sqlite3.connect(tmp_path / "empty.db")) as empty, pytest.raises(SourceUnreadable, match="no tables"):
        write_dump(empty, out)
    assert out.getvalue() == b""


def test_a_broken_database_is_unreadable_and_named(live: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("VACUUM INTO ?", (str(broken),))
    content = broken.read_bytes()
    broken.write_bytes(content[:8192] + b"\xff" * 40_000 + content[48_192:])
    malformed = pytest.raises(SourceUnreadable, match=r"broken\.db.*malformed")
    with closing(sqlite3.connect(broken)) as connection, malformed:
        write_dump(connection, io.BytesIO())


# --- loading, tolerated


def test_the_good_dump_loads(tmp_path: Path) -> None:
    path = load(GOOD, tmp_path)
    assert rows(path) == [(1, "it's; one"), (2, "two\nlines")]
    assert [file.name for file in tmp_path.iterdir()] == ["new.db"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace(";\n", ";\r\n"),
        GOOD + "\n\n  -- made somewhere\n/* end */ ;; \n",
        GOOD.replace("COMMIT;", "END TRANSACTION;"),
        GOOD.replace("COMMIT;", "/* ready */ COMMIT -- now\n;"),
        GOOD.replace("BEGIN TRANSACTION;", "begin immediate;"),
        GOOD + "PRAGMA foreign_keys=ON;\n",
        GOOD.replace("BEGIN", "-- header; with 'marks\n/* more\n; */BEGIN"),
        GOOD.replace("INSERT INTO t VALUES(1", "INSERT INTO t VALUES /* first; */ (1"),
        GOOD.replace("CREATE TRIGGER", "CREATE /* a */ -- b\n TRIGGER"),
        GOOD.replace("VALUES(1,'it''s; one')", "(a, b) VALUES(1, 'it''s; one')"),
        GOOD.replace("COMMIT;", "INSERT INTO sqlite_stat4 VALUES(1,2,3,4,5,6);COMMIT;"),
        GOOD.replace("BEGIN TRANSACTION;", "PRAGMA journal_mode=WAL; PRAGMA synchronous = FULL; BEGIN;"),
    ],
)
def test_a_dump_that_is_dressed_differently_loads_the_same(tmp_path: Path, text: str) -> None:
    assert rows(load(text, tmp_path)) == [(1, "it's; one"), (2, "two\nlines")]
    assert (tmp_path / "new.db").read_bytes()[18:20] == b"\x01\x01"


def test_line_ends_inside_a_string_stay_as_they_are(tmp_path: Path) -> None:
    assert rows(load(GOOD.replace("two\nlines", "two\r\nlines\r"), tmp_path))[1] == (2, "two\r\nlines\r")


def test_the_functions_of_older_and_newer_shells_are_understood(tmp_path: Path) -> None:
    text = GOOD.replace("'it''s; one'", r"unistr('a\u000ab\\c\0041\+01F600\U0001F600''')")
    text = text.replace("'two\nlines'", r"replace('two\nlines','\n',char(10))")
    assert rows(load(text, tmp_path)) == [(1, "a\nb\\cA😀😀'"), (2, "two\nlines")]


def test_orphans_load_and_foreign_keys_are_not_enforced_in_between(tmp_path: Path) -> None:
    text = GOOD.replace("b TEXT", "b TEXT REFERENCES later(x)").replace("foreign_keys=OFF", "foreign_keys=ON")
    assert len(rows(load(text, tmp_path))) == 2


@pytest.mark.parametrize("length", [1, 255 * 1024, 256 * 1024 - 70, 256 * 1024, 700 * 1024, 5_000_000])
def test_a_long_value_loads_wherever_the_reading_is_cut(tmp_path: Path, length: int) -> None:
    value = ("é';--/*\n" * (length // 8 + 1))[:length]
    text = GOOD.replace("it''s; one", value.replace("'", "''"))
    assert rows(load(text, tmp_path))[0] == (1, value)


def test_every_cut_of_the_reading_gives_the_same_database(tmp_path: Path) -> None:
    class Dripping(io.BytesIO):
        size = 1

        def read(self, _size: int | None = -1) -> bytes:
            return super().read(self.size)

    for size in (1, 2, 3, 7, 64):
        stream, target = (
            Dripping(GOOD.replace("one", "é -- /* ' one".replace("'", "''")).encode()),
            tmp_path / f"{size}.db",
        )
        stream.size = size
        load_dump(stream, target)
        assert rows(target) == [(1, "it's; é -- /* ' one"), (2, "two\nlines")]


def test_a_long_statement_is_read_right_wherever_a_comment_or_a_string_is_cut(tmp_path: Path) -> None:
    class Dripping(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            return super().read(1)

    table = f"CREATE TABLE x(a DEFAULT '{'x' * 270_000}', -- it's; a comment\n b /* it's; */, \"c;d\", [e'f], `g\"h`);"
    load_dump(Dripping(GOOD.replace("COMMIT;", f"{table}\nCOMMIT;").encode()), tmp_path / "new.db")
    assert rows(tmp_path / "new.db", "SELECT count(*) FROM pragma_table_info('x')") == [(5,)]


def test_many_small_inserts_load_in_order_and_between_the_others(tmp_path: Path) -> None:
    inserts = "".join(f"INSERT INTO {'t' if n % 700 else 'u'} VALUES({n},'x;{n})');\n" for n in range(3, 9000))
    text = with_statement("").replace("CREATE TRIGGER", f"CREATE TABLE u(a, b);\n{inserts}CREATE TRIGGER")
    path = load(text, tmp_path)
    expected = [(n, f"x;{n})") for n in range(3, 9000)]
    assert rows(path)[2:] == [row for row in expected if row[0] % 700]
    assert rows(path, "SELECT * FROM u") == [row for row in expected if not row[0] % 700]


def test_a_load_tells_how_far_it_is(tmp_path: Path) -> None:
    heard: list[Event] = []
    load_dump(io.BytesIO(GOOD.encode()), tmp_path / "new.db", heard.append)
    assert heard[0] == Step("Loading the SQL text", None, "bytes")
    assert heard[-1] == Progress(len(GOOD.encode()))


# --- loading, refused


def test_a_dump_that_ends_anywhere_before_its_end_is_refused(tmp_path: Path) -> None:
    whole = GOOD.rstrip().encode()
    load(whole, tmp_path).unlink()
    for length in range(len(whole)):
        refusal(whole[:length], tmp_path)


def test_our_own_dump_is_refused_wherever_it_is_cut(live: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("DELETE FROM t WHERE a > 3")
        connection.commit()
        connection.executescript("CREATE VIRTUAL TABLE ft USING fts5(a); CREATE VIEW v AS SELECT 1; ANALYZE")
        write_dump(connection, out)
    whole = out.getvalue().rstrip()
    folder = tmp_path / "new"
    folder.mkdir()
    load(whole, folder).unlink()
    for length in range(0, len(whole), 3):
        refusal(whole[:length], folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1: it is empty"),
        ("\n \n-- nothing\n", "line 4: it is empty"),
        ("BEGIN;\nCREATE TABLE t(a);", "line 2: it ends in the middle, without COMMIT"),
        ("BEGIN;\nCOMMIT;", "holds no table"),
        ("hello world", "line 1: this is not SQL"),
        ("<html>;</html>", "line 1: this is not SQL"),
        ("CREATE TABLE t(a);", "line 1: it has no COMMIT at its end and may be cut off; if it is whole, put BEGIN;"),
        ("CREATE TABLE t(a);\nCOMMIT;", "line 2: COMMIT is out of place"),
        (GOOD + GOOD, "line 15: table t already exists"),
        (GOOD + "INSERT INTO t VALUES(3,'later');", "it has no COMMIT at its end"),
        (GOOD.replace("COMMIT;", "ROLLBACK; -- due to errors"), "line 12: it was broken off by errors"),
        (GOOD.replace("COMMIT;", "COMMIT;\nROLLBACK;"), "broken off"),
        (with_statement("CREATE TABLE x(a,;"), 'line 11: near ";": syntax error'),
        (with_statement("INSERT INTO nowhere VALUES(1);"), "line 11: no such table: nowhere"),
        (GOOD.replace("VALUES(2", "VALUES(1"), "line 5: UNIQUE constraint failed"),
        (GOOD.replace("VALUES(2,", "VALUES(2,3,"), "line 5: table t has 2 columns but 3 values"),
        (with_statement("INSERT INTO t VALUES(3,Inf);"), "line 11: no such column: Inf"),
        (with_statement("BEGIN;"), "line 11: BEGIN is out of place"),
        ("BEGIN; CREATE TABLE t(a); DROP TABLE t; COMMIT;", "holds no table"),
        (GOOD.replace("COMMIT;", "COMMIT; nonsense"), "line 12: this is not SQL"),
    ],
)
def test_what_is_no_whole_dump_is_refused_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"SQLite format 3\0" + bytes(100), "line 1: there is a NUL byte"),
        (GOOD.encode().replace(b"one", b"o\0e"), "line 4: there is a NUL byte"),
        (GOOD.encode() + b"\0", "line 13: there is a NUL byte"),
        (GOOD.encode().replace(b"lines", b"l\xffnes"), "line 6: this is not UTF-8"),
        (
            GOOD.encode().replace(b"/* last */", b"/* \xff */ INSERT INTO t VALUES(3, '\xff');"),
            "line 11: this is not UTF-8",
        ),
        (GOOD.encode("utf-16"), "line 1: there is a NUL byte"),
        (bytes(range(128, 168)) + b"\0", "line"),
    ],
    ids=["a database", "NUL in text", "NUL at the end", "not UTF-8 in text", "in a comment", "UTF-16", "noise"],
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, text: bytes, sentence: str) -> None:
    assert sentence in refusal(text, tmp_path)


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("ATTACH '{folder}/stolen.db' AS x;", "ATTACH is not allowed"),
        ("/**/ATTACH DATABASE '{folder}/stolen.db' AS x;", "ATTACH is not allowed"),
        ("DETACH main;", "DETACH is not allowed"),
        ("VACUUM INTO '{folder}/stolen.db';", "VACUUM is not allowed"),
        ("VACUUM;", "VACUUM is not allowed"),
        ("SELECT load_extension('x');", "SELECT is not allowed"),
        ("SAVEPOINT x;", "SAVEPOINT is not allowed"),
        ("EXPLAIN INSERT INTO t VALUES(3,4);", "EXPLAIN is not allowed"),
        ("WITH RECURSIVE c(x) AS (SELECT 1) INSERT INTO t SELECT 3, x FROM c;", "WITH is not allowed"),
        (".read /etc/passwd", ".read is a command of the sqlite3 shell"),
        (".import '|touch {folder}/stolen' t", ".import is a command of the sqlite3 shell"),
        (".shell touch {folder}/stolen", ".shell is a command"),
        ("INSERT INTO t VALUES(3, load_extension('x'));", "the function load_extension is not allowed"),
        ("INSERT INTO t VALUES(3,load_extension('x'));", "the function load_extension is not allowed"),
        ("INSERT INTO t VALUES(3, fts3_tokenizer('simple'));", "the function fts3_tokenizer is not allowed"),
        ("INSERT INTO t VALUES(3, readfile('/etc/passwd'));", "no such function: readfile"),
        ("INSERT INTO t VALUES(3, writefile('{folder}/stolen', 'x'));", "no such function: writefile"),
        ("INSERT INTO t SELECT 3, file FROM pragma_database_list;", "PRAGMA database_list is not allowed"),
        ("CREATE TABLE x AS SELECT * FROM pragma_compile_options;", "PRAGMA compile_options is not allowed"),
        (
            "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 3 UNION ALL SELECT x+1 FROM c) SELECT x, 1 FROM c;",
            "recursive",
        ),
        ("CREATE TABLE x(a DEFAULT (load_extension('x')));\nINSERT INTO x DEFAULT VALUES;", "load_extension"),
        ("CREATE TABLE x(a, b AS (load_extension(a)));", "load_extension"),
        (
            "CREATE TRIGGER evil BEFORE INSERT ON t BEGIN SELECT load_extension('x'); END;\nINSERT INTO t VALUES(3,4);",
            "load_ext",
        ),
        (
            "CREATE TRIGGER evil BEFORE INSERT ON t BEGIN SELECT load_extension('x'); "
            "END;\nINSERT INTO t VALUES(3, 4);",
            "load_ext",
        ),
        ("CREATE TEMP TABLE x(a);", "is not allowed"),
        ("CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END;", "is not allowed"),
        ("CREATE TABLE temp.x(a);", "is not allowed"),
        ("CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd');", "the module csv is not allowed"),
        ("CREATE VIRTUAL TABLE x USING dbstat;", "the module dbstat is not allowed"),
        ("PRAGMA temp_store_directory='{folder}';", "PRAGMA temp_store_directory"),
        ("PRAGMA data_store_directory='{folder}';", "PRAGMA data_store_directory"),
        ("PRAGMA wal_checkpoint(TRUNCATE);", "PRAGMA wal_checkpoint"),
        ("PRAGMA schema_version=7;", "PRAGMA schema_version=7 is not allowed"),
        ("PRAGMA hard_heap_limit=1;", "PRAGMA hard_heap_limit=1 is not allowed"),
        ("PRAGMA trusted_schema=ON;", "PRAGMA trusted_schema=ON is not allowed"),
        ("PRAGMA mmap_size=1000000;", "PRAGMA mmap_size"),
        ("PRAGMA user_version;", "PRAGMA user_version is not allowed"),
        ("PRAGMA user_version='1 OR 1';", "is not allowed"),
        ("PRAGMA key='x';", "PRAGMA key"),
        ("UPDATE sqlite_master SET sql = 'x';", "may not be modified"),
        ("DELETE FROM sqlite_schema;", "may not be modified"),
        ("INSERT INTO sqlite_master VALUES('table','x','x',2,'CREATE TABLE x(a)');", "may not be modified"),
    ],
)
@pytest.mark.parametrize("before", ["", "PRAGMA writable_schema=ON;"])
def test_a_dump_that_reaches_for_more_is_refused(tmp_path: Path, statement: str, sentence: str, before: str) -> None:
    message = refusal(with_statement(before + statement.replace("{folder}", str(tmp_path))), tmp_path)
    assert sentence in message
    assert "line 1" in message


ROW = "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','{name}','{name}',{root},'{sql}');"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (ROW.format(name="x", root=2, sql="CREATE TABLE x(a)"), "may not be modified"),
        (ROW.format(name="x", root=0, sql="CREATE TABLE x(a)"), "may not be modified"),
        (ROW.format(name="x", root=0, sql="CREATE VIRTUAL TABLE x USING csv(filename=''/etc/passwd'')"), "module csv"),
        (ROW.format(name="x", root=0, sql="CREATE VIRTUAL TABLE y USING fts5(a)"), "is not a virtual table"),
        (
            ROW.format(name="x", root=0, sql="CREATE VIRTUAL TABLE x USING fts5(a); DROP TABLE t"),
            "is not a virtual table",
        ),
        (
            ROW.format(name="x", root=0, sql="CREATE VIRTUAL TABLE IF NOT EXISTS t USING fts5(a)"),
            "is not a virtual table",
        ),
        (ROW.format(name="x", root=0, sql="CREATE VIRTUAL TABLE x /* USING fts5( */ USING csv(a)"), "module csv"),
        (
            ROW.format(name="x", root=0, sql="CREATE VIRTUAL TABLE x USING fts5(a)"),
            "cannot be read",
        ),  # no shadow tables
        (ROW.format(name="t", root=0, sql="CREATE VIRTUAL TABLE t USING fts5(a)"), "is not a virtual table"),
    ],
)
def test_a_row_for_the_schema_that_is_no_sound_virtual_table_is_refused(
    tmp_path: Path, row: str, sentence: str
) -> None:
    assert sentence in refusal(with_statement(f"PRAGMA writable_schema=ON;\n{row}"), tmp_path)


def test_a_database_that_comes_out_unsound_is_refused(tmp_path: Path) -> None:
    rows = ",".join(f"({number})" for number in range(200))
    fickle = f"CREATE TABLE u(a CHECK(random() > 0)); INSERT OR IGNORE INTO u VALUES{rows};"
    assert "not sound: CHECK constraint failed in u" in refusal(with_statement(fickle), tmp_path)


@pytest.mark.parametrize(
    ("evil", "what"),
    [
        ("CREATE VIEW evil AS SELECT load_extension('x');", "view evil calls load_extension()"),
        (
            "CREATE TRIGGER e AFTER DELETE ON t BEGIN SELECT 'it''s' || \"Load_Extension\" /* a */ -- b\n ('x'); END;",
            "trigger e calls Load_Extension()",
        ),
        ("CREATE TRIGGER e AFTER DELETE ON t BEGIN SELECT [writefile]('x', 'y'); END;", "trigger e calls writefile()"),
        ("CREATE TABLE evil (a DEFAULT (readfile('x')));", "table evil calls readfile()"),
    ],
)
def test_what_would_call_a_function_with_effects_later_is_refused(tmp_path: Path, evil: str, what: str) -> None:
    assert what in refusal(with_statement(evil), tmp_path)


def test_a_table_and_a_text_may_be_named_as_such_a_function(tmp_path: Path) -> None:
    honest = (
        "CREATE TABLE edit(a, note DEFAULT 'readfile()'); CREATE TABLE u(a REFERENCES edit(a));"
        "CREATE TRIGGER e AFTER DELETE ON t BEGIN INSERT INTO edit(a) VALUES ('load_extension(1)'); END;"
        "CREATE VIEW v AS SELECT a AS edit /* writefile( */ FROM edit;"
    )
    assert rows(load(with_statement(honest), tmp_path), "SELECT name FROM sqlite_master WHERE name = 'e'") == [("e",)]


def test_the_file_under_the_name_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "new.db").write_text("mine")
    with pytest.raises(FileExistsError):
        load(GOOD, tmp_path)
    assert (tmp_path / "new.db").read_text() == "mine"


def test_an_error_names_the_dumps_file(tmp_path: Path) -> None:
    (tmp_path / "bad.sql").write_text("nonsense")
    with (
        (tmp_path / "bad.sql").open("rb") as stream,
        pytest.raises(Damaged, match=r"bad\.sql cannot be loaded, line 1"),
    ):
        load_dump(stream, tmp_path / "new.db")


@pytest.mark.parametrize("rows_of_it", [1, 3])
def test_ctrl_c_ends_a_statement_that_would_run_for_ever_and_leaves_nothing(
    tmp_path: Path, rows_of_it: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "_STEPS", 1 << 60)  # or the bound on work would end the statement first
    digits = "(SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4)"
    endless = f"INSERT INTO t SELECT NULL, count(*) FROM {', '.join([digits] * 30)};" * rows_of_it
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        load(with_statement(endless), tmp_path)
        time.sleep(5)  # only reached if the statement ended without the signal
    timer.join()
    assert list(tmp_path.iterdir()) == []


# --- memory


def test_dump_and_load_of_a_large_database_take_little_memory(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "large.db")) as database:
        database.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c BLOB)")
        text, blob = "it's é\n" * 200, os.urandom(3000)
        database.executemany("INSERT INTO t VALUES(?, ?, ?)", ((number, text, blob) for number in range(13_000)))
        database.commit()
    assert (tmp_path / "large.db").stat().st_size > 60_000_000
    script = """
        import resource, sqlite3, sys
        from pathlib import Path
        from backupkit.sqlite.sql import load_dump, write_dump
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        with open("large.sql", "wb") as out:
            write_dump(sqlite3.connect("large.db"), out)
        dumped = peak()
        with open("large.sql", "rb") as text:
            load_dump(text, Path("new.db"))
        print(dumped - before, peak() - before)
    """
    done = scripts.run(script, tmp_path)
    dumping, both = (int(kilobytes) for kilobytes in done.stdout.split())
    assert dumping < 12_000
    assert both < 40_000, "16 MB of it are SQLite's page cache"
    assert rows(tmp_path / "new.db", "SELECT count(*), sum(length(b)) FROM t") == [(13_000, 13_000 * 1400)]


def test_a_tree_in_which_a_search_goes_round_in_circles_is_read_through(tmp_path: Path) -> None:
    """A wrong byte in an inner page: a search for what follows the last row finds earlier rows again."""
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA page_size=512")
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text)")
        connection.executemany("INSERT INTO t VALUES(?, ?)", [(number, "x" * 100) for number in range(1, 13)])
        connection.commit()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master").fetchone()
    content = bytearray(path.read_bytes())
    page = (root - 1) * 512
    count = int.from_bytes(content[page + 3 : page + 5])
    last = int.from_bytes(content[page + 12 + 2 * (count - 1) : page + 14 + 2 * (count - 1)])
    assert content[page] == 5 and content[page + last + 4] < 12  # an inner page, and the last row number that it names
    content[page + last + 4] = 100
    path.write_bytes(content)
    text = io.BytesIO()
    with closing(sqlite3.connect(path)) as connection:
        write_dump(connection, text)
    assert rows(load(text.getvalue(), tmp_path), "SELECT id FROM t") == [(number,) for number in range(1, 13)]
