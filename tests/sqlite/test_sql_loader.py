"""SQL text that asks for too much cannot make the loading process exceed its bounds or touch anything else."""

from __future__ import annotations

import io
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

import chance
import scripts
from backupkit.fs import child, process
from backupkit.model.errors import BackupError, Damaged
from backupkit.model.events import Event, Progress, Step
from backupkit.sqlite import sql_loader
from backupkit.sqlite.allowance import Allowance
from backupkit.sqlite.sql_loader import load_dump

WORK, VALUE, FILE = "far more work than there is text", "a larger value than a text", "a far larger file than there is"
HARMLESS = ""

TEN = f"({' UNION ALL '.join(f'SELECT {digit}' for digit in range(10))})"
ROWS = f"INSERT INTO t VALUES{','.join(f'({number},{number})' for number in range(1000))};"
FIFTY = f"INSERT INTO x(a) VALUES{','.join(['(1)'] * 50)};"
DOUBLING = "INSERT INTO t VALUES(1,zeroblob(1000000));" + "INSERT INTO t SELECT a, b FROM t;" * 12
MULTIPLYING = (
    "CREATE TABLE u(a);CREATE TABLE v(a);CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO u SELECT a FROM t; END;"
    "CREATE TRIGGER y AFTER INSERT ON u BEGIN INSERT INTO v SELECT a FROM u; END;"
)
VIEWS = "CREATE VIEW v0 AS SELECT a.a FROM t a, t b, t c;CREATE VIEW v1 AS SELECT a.a FROM v0 a, v0 b;"
ENDLESS = "WITH RECURSIVE c(a) AS (SELECT 1 UNION ALL SELECT a+1 FROM c) SELECT a FROM c"
QUOTES = '"a"' * 50_000
SLASHES = "/* " * 200_000

HOSTILE = {
    # joins and the like
    "a join of constants": (f"INSERT INTO t SELECT 1, count(*) FROM {','.join([TEN] * 9)};", WORK),
    "a join of a table with itself": (f"{ROWS}INSERT INTO t SELECT 1, count(*) FROM t a, t b, t c, t d;", WORK),
    "a table made of a join": (f"{ROWS}CREATE TABLE x AS SELECT a.a FROM t a, t b, t c;", WORK),
    "a join behind views": (f"{ROWS}{VIEWS}CREATE TABLE x AS SELECT count(*) FROM v1;", WORK),
    "a view of too many views": (
        f"{VIEWS}CREATE VIEW v2 AS SELECT a.a FROM v1 a,v1 b,v1 c,v1 d,v1 e,v1 f,v1 g,v1 h,v1 i,v1 j,v1 k,v1 l,v1 m;"
        "CREATE TABLE x AS SELECT a.a FROM v2 a, v2 b, v2 c;",
        "line 3",
    ),
    "a join in a DELETE": (f"{ROWS}DELETE FROM t WHERE a IN (SELECT x.a+y.a+z.a FROM t x, t y, t z);", WORK),
    "a join in an UPDATE": (f"{ROWS}UPDATE t SET b = (SELECT count(*) FROM t x, t y, t z);", WORK),
    "a join of values in JSON": (
        f"INSERT INTO t SELECT 1, count(*) FROM json_each('{list(range(1000))}') a, json_each('{list(range(1000))}') b,"
        f" json_each('{list(range(1000))}') c;",
        "line 3",
    ),
    "windows over windows": (
        f"{ROWS}INSERT INTO t SELECT 1, max(a.a) OVER (ORDER BY a.a ROWS BETWEEN 999999 PRECEDING AND CURRENT ROW)"
        " FROM t a, t b, t c;",
        WORK,
    ),
    "an upsert of all with all": (
        f"DELETE FROM t;{ROWS}CREATE UNIQUE INDEX i ON t(a);"
        "INSERT INTO t SELECT a.a, b.a FROM t a, t b, t c WHERE true ON CONFLICT(a) DO UPDATE SET b = excluded.b + 1;",
        WORK,
    ),
    "REPLACE of all with all": (f"{ROWS}REPLACE INTO t SELECT a.a, b.a FROM t a, t b, t c;", WORK),
    "a sort of large rows": (
        f"{ROWS}CREATE TABLE x AS SELECT DISTINCT zeroblob(3000000)||a AS z FROM t ORDER BY z;",
        FILE,
    ),
    # recursion and triggers
    "a recursive query": (
        f"INSERT INTO t SELECT a, a FROM ({ENDLESS});",
        "a recursive query is not allowed",
    ),
    "a recursive query in a view": (
        f"CREATE VIEW v AS {ENDLESS};INSERT INTO t SELECT a, a FROM v;",
        "a recursive query is not allowed",
    ),
    "a recursive query in a trigger": (
        f"CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t SELECT a, a FROM ({ENDLESS}); END;"
        "INSERT INTO t VALUES(1, 1);",
        "a recursive query is not allowed",
    ),
    "triggers that multiply": (f"{MULTIPLYING}{ROWS * 3}", WORK),
    "a trigger that sets itself off": (
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t VALUES(new.a + 1, 1); END;INSERT INTO t VALUES(1, 1);",
        HARMLESS,
    ),
    "triggers that recurse by a pragma": ("PRAGMA recursive_triggers=ON;", "recursive_triggers=ON is not allowed"),
    "a trigger on a view that multiplies": (
        f"{ROWS}CREATE VIEW v AS SELECT a FROM t;CREATE TRIGGER x INSTEAD OF INSERT ON v BEGIN"
        " INSERT INTO t SELECT a.a, 1 FROM t a, t b, t c; END;INSERT INTO v VALUES(1);",
        WORK,
    ),
    "a trigger without an end": ("CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1;", "has no end"),
    # values out of nothing
    "half a gigabyte of zeros": ("INSERT INTO t VALUES(1, zeroblob(500000000));", VALUE),
    "a gigabyte of noise": ("INSERT INTO t VALUES(1, randomblob(900000000));", VALUE),
    "a gigabyte of digits": ("INSERT INTO t VALUES(1, hex(zeroblob(480000000)));", VALUE),
    "a value that grows by replacing": (
        "INSERT INTO t VALUES(1, replace(hex(zeroblob(15000)), '0', hex(zeroblob(15000))));",
        VALUE,
    ),
    "a wide number": ("INSERT INTO t VALUES(1, printf('%900000000d', 1));", HARMLESS),
    "many values as one": (f"{ROWS}INSERT INTO t SELECT 1, group_concat(zeroblob(1000000)) FROM t;", VALUE),
    "JSON of many values": (f"{ROWS}INSERT INTO t SELECT 1, json_group_array(a.a) FROM t a, t b, t c;", "line 3"),
    "a default that is large": (f"CREATE TABLE x(a, b DEFAULT (zeroblob(20000000)));{FIFTY}", VALUE),
    "a generated column that is large": (f"CREATE TABLE x(a, b AS (zeroblob(400000000)) STORED);{FIFTY}", VALUE),
    "an index on what is large": (f"CREATE TABLE x(a);{FIFTY}CREATE INDEX i ON x(hex(zeroblob(50000000)));", VALUE),
    "an index where something large is": (f"{ROWS}CREATE INDEX i ON t(a) WHERE hex(zeroblob(10000000)) > a;", VALUE),
    "a CHECK on what is large": (f"CREATE TABLE x(a CHECK(length(hex(zeroblob(50000000))) > 1));{FIFTY}", VALUE),
    "rows that double": (DOUBLING, FILE),
    "an UPDATE that swells": (f"{ROWS}UPDATE t SET b = zeroblob(1000000);", FILE),
    "a new column that swells": (
        f"{ROWS}ALTER TABLE t ADD COLUMN c AS (zeroblob(1000000)) VIRTUAL;CREATE INDEX i ON t(c);",
        FILE,
    ),
    "an index that swells": (f"{ROWS}CREATE INDEX i ON t(zeroblob(1000000) || a);", FILE),
    "full text that swells": (
        "CREATE VIRTUAL TABLE f USING fts5(a);INSERT INTO f VALUES(replace(hex(zeroblob(20000000)), '0', 'a '));",
        VALUE,
    ),
    # patterns and parsers
    "a pattern with many gaps": (
        f"INSERT INTO t VALUES(1, hex(zeroblob(3000)) LIKE '{'%0' * 200}1');",
        HARMLESS,
    ),
    "brackets in brackets": (f"INSERT INTO t VALUES(1, {'(' * 900}1{')' * 900});", "line 3"),
    "a very deep expression": (f"INSERT INTO t VALUES(1, {'1+' * 100_000}1);", "line 3"),
    "a table of too many columns": (f"CREATE TABLE x({','.join(f'c{n}' for n in range(40_000))});", "line 3"),
    "JSON in JSON": (f"INSERT INTO t VALUES(1, json('{'[' * 50_000}'));", "line 3"),
    "comments that can be taken together in many ways": (f"CREATE{'/**/' * 40} TABLE x(a);", HARMLESS),
    "comments that never end, in a string": (
        f"CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT '{SLASHES}'; END;",
        HARMLESS,
    ),
    "comments that never end, in a pragma": (f"PRAGMA user_version='{SLASHES}';", "is not allowed"),
    "semicolons without end": (f"CREATE TRIGGER x AFTER INSERT ON t BEGIN {';' * 100_000} END;", "syntax error"),
    "quotes without end": (f"INSERT INTO {QUOTES} VALUES(1);", "no such table"),
    "a string without an end": (f"INSERT INTO t VALUES(1, '{'x' * 500_000}\n;", "has no end"),
    # settings of SQLite
    "no limit on pages": ("PRAGMA max_page_count=4294967294;", "max_page_count=4294967294 is not allowed"),
    "a cache of all memory": ("PRAGMA cache_size=-100000000;", "cache_size=-100000000"),
    "no limit on memory": ("PRAGMA soft_heap_limit=0;", "soft_heap_limit=0 is not allowed"),
    "very many threads": ("PRAGMA threads=1000;", "threads=1000 is not allowed"),
    "tables in memory": ("PRAGMA temp_store=MEMORY;", "temp_store=MEMORY is not allowed"),
    "a check of all": ("PRAGMA integrity_check;", "PRAGMA integrity_check is not allowed"),
    "an optimization": ("PRAGMA optimize(-1);", "PRAGMA optimize(-1) is not allowed"),
    # outside
    "another module's files": ("CREATE VIRTUAL TABLE x USING fsdir('/');", "the module fsdir is not allowed"),
    "an archive": ("CREATE VIRTUAL TABLE x USING zipfile('{outside}/z.zip');", "the module zipfile is not allowed"),
    "pages of the file": ("INSERT INTO t SELECT 1, data FROM sqlite_dbpage;", "line 3"),
    "statements of SQLite": ("CREATE VIRTUAL TABLE x USING sqlite_stmt;", "the module sqlite_stmt is not allowed"),
    "a function of the shell": ("INSERT INTO t VALUES(1, edit('x', 'touch {outside}/stolen'));", "no such function"),
    "a value that is returned": ("INSERT INTO t VALUES(1, 1) RETURNING load_extension('x');", "load_extension"),
    "an extension in an upsert": (
        "CREATE UNIQUE INDEX i ON t(a);"
        "INSERT INTO t VALUES(0, 1) ON CONFLICT(a) DO UPDATE SET b = load_extension('{outside}/x');",
        "load_extension",
    ),
    "a file in another's name": ("ALTER TABLE t RENAME TO sqlite_master;", "line 3"),
    "poisoned statistics": ("ANALYZE;INSERT INTO sqlite_stat1 VALUES('t', 'i', '999999999999 x');", HARMLESS),
}


@pytest.mark.parametrize("name", chance.cases(list(HOSTILE), "hostile texts"))
def test_hostile_text_is_bounded_and_reaches_nothing_else(tmp_path: Path, name: str) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "precious").write_text("as it was")
    statement, sentence = HOSTILE[name]
    statement = statement.replace("{outside}", str(outside))
    text = f"BEGIN;\nCREATE TABLE t(a, b);INSERT INTO t VALUES(0, 0);\n{statement}\nCOMMIT;"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    message = outcome(text, inside)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (sentence in message) if sentence else not message
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert [path.name for path in inside.iterdir()] == ([] if sentence else ["new.db"])
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    # In kilobytes, of the largest child process so far, which may be another test's.
    assert after.ru_maxrss < 400_000 or after.ru_maxrss == before.ru_maxrss


def outcome(text: str | bytes, folder: Path) -> str:
    """Return the message with which the text is refused, or "" if it is loaded."""
    try:
        load_dump(io.BytesIO(text.encode() if isinstance(text, str) else text), folder / "new.db")
    except Damaged as error:
        assert error.hint
        return error.message
    return ""


@pytest.mark.parametrize("before", [b"", b"BEGIN; CREATE TABLE t(a);"], ids=["first", "after statements"])
@pytest.mark.parametrize("unit", [b";", b" ;", b"--\n", b"/**/", b"; -- x\n"], ids=str)
def test_much_of_nothing_takes_little_time(tmp_path: Path, unit: bytes, before: bytes) -> None:
    seconds = processor_seconds()
    message = outcome(before + unit * (30_000_000 // len(unit)), tmp_path)
    assert "ends in the middle" in message or "it is empty" in message
    assert processor_seconds() - seconds < 3


def processor_seconds() -> float:
    """Return the processor time that the children of this process have used so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_process_is_bound_before_it_has_read_a_byte(tmp_path: Path) -> None:
    started = sql_loader._start(tmp_path / "new.db", "text")
    assert started
    wanted = [Allowance().memory_bytes, Allowance().seconds, Allowance().file_bytes(0)]
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)
    deadline = time.monotonic() + 30
    with started:
        while found := [resource.prlimit(started.pid, kind)[0] for kind in kinds]:
            if found == wanted:
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.01)


@pytest.mark.parametrize("where", ["fed", "waited for"])
def test_a_process_that_was_stopped_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    stop = "import os, signal, sys; sys.stdin.read() if {} else 0; os.kill(os.getpid(), signal.SIGSTOP)"
    monkeypatch.setattr(process, "start_module", scripts.in_place_of_a_module(stop.format(where == "waited for")))
    monkeypatch.setattr(child, "STANDSTILL", 2.0)
    with pytest.raises(BackupError, match=r"loads The dump \(pid \d+\) did nothing for 2 seconds, and was ended"):
        load_dump(io.BytesIO(b"BEGIN; COMMIT;" * 100_000), tmp_path / "new.db")
    assert list(tmp_path.iterdir()) == []


def test_a_process_at_work_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is silent for longer than a standstill may last, but it uses the processor."""
    work = "import sys, time; sys.stdin.read(); end = time.process_time() + 4\nwhile time.process_time() < end: pass"
    monkeypatch.setattr(process, "start_module", scripts.in_place_of_a_module(work + "\nprint('[\"done\"]')"))
    monkeypatch.setattr(child, "STANDSTILL", 2.0)
    assert outcome("BEGIN; COMMIT;", tmp_path) == ""


def test_a_definition_without_an_end_is_refused_early(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        name, taken = "endless.sql", 0

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            return b"a" * size if self.taken > size else b"CREATE TABLE t(a DEFAULT '"

    text = Endless()
    with pytest.raises(Damaged, match="longer than SQLite, or a dump, allows"):
        load_dump(text, tmp_path / "new.db")  # type: ignore[arg-type]
    assert text.taken < 16 << 20


def test_many_tables_have_the_time_that_sqlite_needs_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite reads its whole schema again for each table."""
    monkeypatch.setattr(process, "start_module", scripts.in_place_of_a_module(_serving("allowance.SECONDS = 1")))
    tables = "".join(f"CREATE TABLE t{number}(a);\n" for number in range(8000))
    seconds = processor_seconds()
    assert outcome(f"BEGIN;\n{tables}COMMIT;", tmp_path) == ""
    assert processor_seconds() - seconds > 1.5


def test_many_small_amounts_of_work_end_with_the_processor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement stays within its bound, but all together do not."""
    monkeypatch.setattr(process, "start_module", scripts.in_place_of_a_module(_serving("allowance.SECONDS = 1")))
    count = f"INSERT INTO t SELECT 1, count(*) FROM {','.join([TEN] * 6)};\n"
    message = outcome(f"BEGIN; CREATE TABLE t(a, b);\n{count * 100}COMMIT;", tmp_path)
    assert message == "The dump cannot be loaded: it asks for far more work than there is text."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", f"signal {int(signal.SIGSEGV)}"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", f"signal {int(signal.SIGKILL)}"),
        ("raise SystemExit(7)", "exit code 7"),
        ("print('no answer')", "an invalid answer"),
        ("print('[', end='')", "half an answer"),
    ],
)
def test_a_process_that_ends_before_its_time_is_an_error_that_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, how: str
) -> None:
    monkeypatch.setattr(process, "start_module", scripts.in_place_of_a_module(program))
    with pytest.raises(BackupError, match=how):
        load_dump(io.BytesIO(b"BEGIN; COMMIT;" * 100_000), tmp_path / "new.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("python", ["", "/nowhere/python"])
def test_where_no_process_can_be_started_text_is_loaded_in_this_one_with_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    assert WORK in outcome(f"BEGIN; CREATE TABLE t(a, b); {HOSTILE['a join of constants'][0]} COMMIT;", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert outcome("BEGIN; CREATE TABLE t(a, b); COMMIT;", tmp_path) == ""


def _serving(setting: str) -> str:
    """Return a program that does the work of the loading process with another bound."""
    imports = "import sys; from pathlib import Path; from backupkit.sqlite import allowance, sql_loader"
    return f"{imports}; {setting}; sql_loader._serve(Path(sys.argv[1]), sys.argv[2])"


@pytest.mark.parametrize("length", [3_000_000, 25_000_000])
def test_a_row_as_long_as_its_text_is_loaded(tmp_path: Path, length: int) -> None:
    text = b"".join(
        (b"PRAGMA encoding='UTF-16'; BEGIN; CREATE TABLE t(a);\n", b"INSERT INTO t VALUES('", b"x" * length)
    )
    assert outcome(text + b"');\nCREATE INDEX i ON t(a);COMMIT;", tmp_path) == ""
    with closing(sqlite3.connect(tmp_path / "new.db")) as database:
        assert database.execute("SELECT length(a) FROM t").fetchone() == (length,)


def test_a_statement_longer_than_the_memory_of_every_text_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        process, "start_module", scripts.in_place_of_a_module(_serving("allowance._MEMORY = 200 << 20"))
    )
    length = 60_000_000
    text = b"BEGIN; CREATE TABLE t(a);\nINSERT INTO t VALUES(X'" + b"61" * length + b"'),(1);\nCOMMIT;"
    assert outcome(text, tmp_path) == ""
    assert (tmp_path / "new.db").stat().st_size > length
    (tmp_path / "new.db").unlink()


def test_many_small_tables_of_large_pages_are_loaded(tmp_path: Path) -> None:
    tables = "".join(f"CREATE TABLE t{number}(a PRIMARY KEY, b UNIQUE);" for number in range(1400))
    assert outcome(f"PRAGMA page_size=65536; BEGIN; {tables} COMMIT;", tmp_path) == ""
    assert (tmp_path / "new.db").stat().st_size > 256 << 20
    (tmp_path / "new.db").unlink()


def test_small_rows_with_many_indexes_are_loaded(tmp_path: Path) -> None:
    rows = f"INSERT INTO t VALUES{','.join(['(1,2)'] * 2000)};\n" * 100
    indexes = "".join(f"CREATE INDEX i{number} ON t(abs(a), b, a + {number});" for number in range(10))
    assert outcome(f"BEGIN; CREATE TABLE t(a, b CHECK(b IN (1, 2, 3)));\n{rows}{indexes}COMMIT;", tmp_path) == ""


def test_ctrl_c_ends_the_process_too_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
        import io
        from pathlib import Path
        from backupkit.sqlite import allowance, sql_loader
        class Endless(io.RawIOBase):
            name = "endless.sql"
            started = False
            def read(self, size=-1):
                if self.started:
                    return b"INSERT INTO t VALUES(1);"
                self.started = True
                print(flush=True)
                return b"BEGIN; CREATE TABLE t(a);"
        sql_loader.load_dump(Endless(), Path({str(tmp_path / "new.db")!r}))
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout
    child.stdout.readline()
    deadline = time.monotonic() + 20
    while not (tmp_path / "new.db").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    assert list(tmp_path.iterdir()) == []


def test_a_load_in_a_process_of_its_own_tells_how_far_it_is(tmp_path: Path) -> None:
    heard: list[Event] = []
    text = b"BEGIN; CREATE TABLE t(a); COMMIT;"
    load_dump(io.BytesIO(text), tmp_path / "new.db", heard.append)
    assert heard == [Step("Loading the SQL text", None, "bytes"), Progress(len(text))]
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


def test_the_file_under_the_name_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "new.db").write_text("mine")
    with pytest.raises(FileExistsError):
        outcome("BEGIN; CREATE TABLE t(a); COMMIT;", tmp_path)
    assert (tmp_path / "new.db").read_text() == "mine"


def test_a_confined_process_writes_below_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "precious").write_text("as it was")
    script = """
        import os
        from pathlib import Path
        from backupkit.fs import confinement
        if not confinement.write_below_only(Path("mine")):
            raise SystemExit(77)
        Path("mine/file").write_text("allowed")
        os.rename("mine/file", "mine/other")
        refused = 0
        for attempt in (
            lambda: Path("precious").write_text("gone"),
            lambda: Path("new").write_text("x"),
            lambda: Path("new").mkdir(),
            lambda: os.unlink("precious"),
            lambda: os.rename("mine/other", "other"),
            lambda: os.truncate("precious", 0),
            lambda: os.symlink("x", "new"),
            lambda: os.link("precious", "mine/precious"),
        ):
            try:
                attempt()
            except OSError:
                refused += 1
        print(refused, Path("precious").read_text())
    """
    done = scripts.run(script, tmp_path, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no Landlock, or does not allow it here")
    assert done.stdout == "8 as it was\n", done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "precious"]


def test_a_limit_is_never_above_the_one_that_is_there() -> None:
    script = """
        import resource
        from backupkit.fs import confinement
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 2000))
        confinement.limit(resource.RLIMIT_FSIZE, 5000)
        print(*resource.getrlimit(resource.RLIMIT_FSIZE))
    """
    done = scripts.run(script)
    assert done.stdout == "2000 2000\n"
