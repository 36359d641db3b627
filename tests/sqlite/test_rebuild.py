"""A broken database is read page by page: all rows outside the damage come back, and nothing hangs or crashes."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupkit.sqlite.page_file import PageFile, _checksum
from backupkit.sqlite.rebuild import Rebuilt, rebuild
from chance import chance

PAGE = 1024
LATER = 40  # rows since the backup
Damage = Callable[[bytearray, random.Random], None]
Rows = dict[str, list[tuple[object, ...]]]

SCHEMA = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
CREATE TABLE people (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, born DATETIME, weight REAL, picture);
CREATE TABLE tags (person INTEGER NOT NULL, tag TEXT NOT NULL, note, PRIMARY KEY (person, tag)) WITHOUT ROWID;
CREATE TABLE log (line TEXT);
CREATE TABLE sums (id INTEGER PRIMARY KEY, a INT, b INT AS (a + 1) STORED, c AS (a * 2) VIRTUAL);
CREATE INDEX people_by_name ON people (name);
CREATE UNIQUE INDEX people_by_both ON people (name, id);
CREATE VIEW names AS SELECT name FROM people;
CREATE TRIGGER logs AFTER DELETE ON people BEGIN INSERT INTO log VALUES ('gone'); END;
CREATE VIRTUAL TABLE words USING fts5(text);
PRAGMA user_version = 7;
PRAGMA application_id = 99;
INSERT INTO alembic_version VALUES ('abc');
"""


def fill(connection: sqlite3.Connection, first: int, count: int) -> None:
    chosen = random.Random(first)
    for number in range(first, first + count):
        picture = chosen.randbytes(5000 if number % 50 == 0 else number % 40)
        person = (number, f"Person {number}", "2026-06-15 12:00", number / 7, picture)
        connection.execute("INSERT INTO people VALUES (?, ?, ?, ?, ?)", person)
        connection.execute("INSERT INTO tags VALUES (?, ?, ?)", (number, f"tag {number % 5}", "x" * (number % 30)))
        connection.execute("INSERT INTO log VALUES (?)", (f"line {number}",))
        connection.execute("INSERT INTO sums (id, a) VALUES (?, ?)", (number, number))
        connection.execute("INSERT INTO words VALUES (?)", (f"word{number % 50} more",))


class Case:
    """A database that was written to after its backup; in WAL mode only the WAL has the last rows."""

    def __init__(self, folder: Path, rows: int = 400, **pragmas: object) -> None:
        self.folder = folder
        self.live, self.known, self.target = (folder / name for name in ("live.db", "known.db", "new.db"))
        with contextlib.closing(sqlite3.connect(self.live)) as connection:
            for name, value in {"page_size": PAGE, **pragmas}.items():
                connection.execute(f"PRAGMA {name} = {value}")
            connection.executescript(SCHEMA)
            fill(connection, 1, rows)
            connection.execute("DELETE FROM people WHERE id BETWEEN 90 AND 120")
            connection.commit()
            with contextlib.closing(sqlite3.connect(self.known)) as known:
                connection.backup(known)
            fill(connection, rows + 1, LATER)
            connection.commit()
            self.rows = read(connection)
            self.broken = folder / "broken.db"
            for path in self.folder.glob("live.db*"):
                shutil.copyfile(path, self.folder / path.name.replace("live", "broken"))

    def rebuild(self, known: bool = True, include_free: bool = False) -> Rebuilt:
        self.target.unlink(missing_ok=True)
        return rebuild(self.broken, self.target, self.known if known else None, include_free)

    def result(self) -> Rows:
        with contextlib.closing(sqlite3.connect(self.target)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return read(connection)

    def damage(self, with_it: Damage, seed: int = 0, suffix: str = "") -> None:
        source, target = (self.folder / f"{name}.db{suffix}" for name in ("live", "broken"))
        data = bytearray(source.read_bytes()) if source.exists() else bytearray(target.read_bytes())
        with_it(data, random.Random(seed))
        target.write_bytes(data)


def read(connection: sqlite3.Connection) -> Rows:
    tables = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
    ).fetchall()
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    names = sorted(name for (name,) in tables if not name.startswith("sqlite_"))
    return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}


def schema_of(path: Path) -> set[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql NOT NULL"))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.parametrize(
    "pragmas",
    [
        {},
        {"journal_mode": "WAL", "wal_autocheckpoint": 0},
        {"page_size": 512, "encoding": "'UTF-16le'"},
        {"page_size": 65536, "encoding": "'UTF-16be'"},
        {"auto_vacuum": 1},
    ],
    ids=str,
)
def test_a_whole_database_comes_back_to_the_letter(tmp_path: Path, pragmas: dict[str, object]) -> None:
    case = Case(tmp_path, **pragmas)
    found = case.rebuild(known=False)
    assert found.is_whole, found
    assert case.result() == case.rows
    assert schema_of(case.target) == schema_of(case.live)
    told = ("encoding", "page_size", "auto_vacuum", "user_version", "application_id")
    with contextlib.closing(sqlite3.connect(case.target)) as new, contextlib.closing(sqlite3.connect(case.live)) as old:
        for name in told:
            assert new.execute(f"PRAGMA {name}").fetchone() == old.execute(f"PRAGMA {name}").fetchone(), name
        for query in ("SELECT rowid FROM words WHERE words MATCH 'word7'", "SELECT * FROM sqlite_sequence"):
            assert new.execute(query).fetchall() == old.execute(query).fetchall()


@pytest.mark.parametrize("page_size", [512, 4096])
def test_a_database_that_was_much_changed_is_whole_all_the_same(tmp_path: Path, page_size: int) -> None:
    """What SQLite leaves in a page, between rows and in freed space, is not taken for damage."""
    broken, new, at = tmp_path / "broken.db", tmp_path / "new.db", chance(f"changes {page_size}")
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.executescript(
            f"PRAGMA page_size = {page_size}; CREATE TABLE t (id INTEGER PRIMARY KEY, a, b);"
            "CREATE TABLE w (a, b, c, PRIMARY KEY (b, a)) WITHOUT ROWID; CREATE INDEX i ON t (a, b);"
        )
        for _ in range(4000):
            size = at.choice((0, 1, 2, 5, 30, 300, 3000))
            row = (at.randrange(400), at.choice((None, at.randrange(9), "x" * size)), at.randbytes(size))
            connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", row)
            connection.execute("INSERT OR REPLACE INTO w VALUES (?, ?, ?)", (row[0], size, row[2]))
            if at.random() < 0.3:
                connection.execute("DELETE FROM t WHERE id = ?", (at.randrange(400),))
                connection.execute("DELETE FROM w WHERE a = ?", (at.randrange(400),))
        connection.commit()
        rows = read(connection)
    assert rebuild(broken, new, None).is_whole
    with contextlib.closing(sqlite3.connect(new)) as again:
        assert read(again) == rows


ODD_VALUES = [
    None, 0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 0.1, -0.0, 5e-324, 1.7976931348623157e308,
    float("inf"), -float("inf"), 1 / 3, 100.0, "", "a\0b", "\0", "'", "\ufeffbom", "\uffff", "😀é", "x" * 70000,
    b"", b"\0", bytes(range(256)),
    "1", "1e999",
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("declared", ["", "INTEGER", "TEXT", "REAL", "NUMERIC", "BLOB"])
def test_odd_values_come_back_to_the_last_bit(tmp_path: Path, encoding: str, declared: str) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute(f'CREATE TABLE "odd ""name" (rowid TEXT, "a b" {declared}, "select" {declared} DEFAULT 5)')
        for number, value in enumerate(ODD_VALUES):
            connection.execute('INSERT INTO "odd ""name" (_rowid_, "a b") VALUES (?, ?)', (number * -7, value))
        for value in (b"\xff\xfe\xfd", b"a\xc3", b"\xed\xa0\x80", b"\x00\xd8"):
            connection.execute(f'INSERT INTO "odd ""name" ("a b") VALUES (CAST(x\'{value.hex()}\' AS TEXT))')
        connection.execute('ALTER TABLE "odd ""name" ADD COLUMN later TEXT DEFAULT \'there\'')
        connection.commit()
    assert rebuild(broken, new, None).is_whole
    query = 'SELECT _rowid_, typeof("a b"), CAST("a b" AS BLOB), "a b" = 0.1, "select", later FROM "odd ""name"'
    reals = 'SELECT "a b" FROM "odd ""name" WHERE typeof("a b") IN (\'real\', \'integer\')'
    with contextlib.closing(sqlite3.connect(broken)) as old, contextlib.closing(sqlite3.connect(new)) as again:
        assert again.execute(query).fetchall() == old.execute(query).fetchall()
        assert [repr(row) for row in again.execute(reals)] == [repr(row) for row in old.execute(reals)]


def test_a_row_that_breaks_a_constraint_goes_in_as_far_as_it_can(tmp_path: Path) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.executescript(
            "CREATE TABLE checked (a INT CHECK (a > 0), b INT REFERENCES checked (a));"
            "CREATE TABLE required (a INT); INSERT INTO required VALUES (1), (NULL);"
            "PRAGMA ignore_check_constraints = ON; INSERT INTO checked VALUES (1, 1), (-1, 77);"
            "PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql = 'CREATE TABLE required (a INT NOT NULL)' WHERE name = 'required';"
        )
    found = {one.name: one for one in rebuild(broken, new, None).tables}
    assert (found["checked"].rows, found["checked"].not_taken) == (2, 0)
    assert (found["required"].rows, found["required"].not_taken) == (1, 1)
    assert found["required"].reason == "NOT NULL constraint failed: required.a"


def test_an_index_that_the_rows_do_not_allow_is_left_out_and_named(tmp_path: Path) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.executescript(
            "CREATE TABLE t (a); INSERT INTO t VALUES (1), (1); CREATE INDEX once ON t (a);"
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE UNIQUE INDEX once ON t (a)'"
            " WHERE name = 'once';"
        )
    found = rebuild(broken, new, None)
    assert [one.rows for one in found.tables] == [2]
    assert found.notes == ("The index once is left out: UNIQUE constraint failed: t.a.",)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t AS WITH RECURSIVE c(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM c) SELECT a FROM c",
        "CREATE TABLE other (a)",
        "CREATE TABLE t (a); DROP TABLE t",
        "CREATE TEMP TABLE t (a)",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
        "CREATE TABLE t (a",
        "CREATE TABLE t AS SELECT zeroblob(900000000) AS a",
        "EXPLAIN CREATE TABLE t (a)",
        "CREATE TABLE t (a DEFAULT (load_extension('x')))",
    ],
)
def test_a_definition_that_is_none_makes_no_table(tmp_path: Path, sql: str) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (1); CREATE TABLE u (a)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 't'", (sql,))
        connection.commit()
    found = rebuild(broken, new, None)
    assert [one.name for one in found.tables] == ["u"]
    (note,) = found.notes
    assert note.startswith("The table t is left out: its definition cannot be read: ")
    assert ("load_extension" in sql) == ("it calls load_extension()" in note)


def with_schema(broken: Path, *lines: tuple[str, str, str], rows: int = 0) -> None:
    """Make a sound table, and write lines (kind, name, text) into the schema by hand."""
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.executescript("CREATE TABLE t (a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES (1, 'x'), (2, 'y')")
        connection.executemany("INSERT INTO t VALUES (?, 'x')", ((number,) for number in range(3, rows)))
        connection.execute("PRAGMA writable_schema = ON")
        for kind, name, sql in lines:
            line = (kind, name, "t" if kind in ("index", "trigger") else name, sql)
            connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, 0, ?)", line)
        connection.commit()


@pytest.mark.parametrize("kind", ["view", "index", "trigger", "table"])
@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH '{other}' AS other",
        "VACUUM main INTO '{folder}/made.db'",
        "DELETE FROM t",
        "INSERT INTO t VALUES (3, 'z')",
        "UPDATE sqlite_master SET sql = ''",
        "DROP TABLE t",
        "PRAGMA journal_mode = WAL",
        "BEGIN",
        "COMMIT",
        "CREATE TABLE z AS WITH RECURSIVE c(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM c) SELECT a FROM c",
        "CREATE TABLE z AS SELECT zeroblob(900000000)",
        "CREATE VIRTUAL TABLE z USING dbstat",
        "CREATE VIRTUAL TABLE z USING fts5(a); DELETE FROM t",
        "CREATE VIRTUAL TABLE z USING fts5('a",
        "SELECT load_extension('x')",
        "CREATE VIEW z AS SELECT 1; DELETE FROM t",
        "CREATE TRIGGER other AFTER INSERT ON t BEGIN DELETE FROM t; END",
        "CREATE TRIGGER z AFTER INSERT ON t BEGIN SELECT load_extension('x'); END",
        "CREATE VIEW z AS SELECT \"load_extension\" /* ( */ ('x')",
        "CREATE INDEX z ON t(load_extension(b))",
    ],
)
def test_text_of_the_schema_makes_what_it_is_named_after_or_nothing(tmp_path: Path, kind: str, sql: str) -> None:
    broken, new, other = tmp_path / "broken.db", tmp_path / "new.db", tmp_path / "other.db"
    with_schema(broken, (kind, "z", sql.format(other=other, folder=tmp_path)))
    found = rebuild(broken, new, None)
    assert sorted(tmp_path.iterdir()) == [broken, new]
    with contextlib.closing(sqlite3.connect(new)) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == [(1, "x"), (2, "y")]
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    is_virtual = kind == "table" and sql.startswith("CREATE VIRTUAL")
    assert f"The {'virtual ' * is_virtual}{kind} z is left out: " in found.notes[-1]


def test_a_row_of_the_app_that_looks_like_the_schema_is_not_run(tmp_path: Path) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.execute("CREATE TABLE furniture (kind, name, room, seats, note)")
        vacuum = f"VACUUM main INTO '{tmp_path}/made.db'"
        connection.execute("INSERT INTO furniture VALUES ('view', 'x', 'x', 0, ?)", (vacuum,))
        connection.commit()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    broken.write_bytes(bytes(size) + broken.read_bytes()[size:])
    rebuild(broken, new, None)
    assert sorted(tmp_path.iterdir()) == [broken, new]


def test_the_file_says_how_much_memory_a_value_may_take(tmp_path: Path) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with_schema(broken, ("index", "z", "CREATE INDEX z ON t(hex(zeroblob(100000000)))"))
    assert rebuild(broken, new, None).notes[-1] == "The index z is left out: string or blob too big."


def with_expensive_indexes(broken: Path, number: int) -> None:
    columns = ", ".join("+".join(["a"] * 900) for _ in range(100))
    lines = [("index", f"z{one}", f"CREATE INDEX z{one} ON t({columns})") for one in range(number)]
    with_schema(broken, *lines, rows=5000)


def test_the_file_says_how_much_work_a_definition_may_take(tmp_path: Path) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with_expensive_indexes(broken, 1)
    expected = "The index z0 is left out: it asks for far more work than a file of this size."
    assert rebuild(broken, new, None).notes[-1] == expected


def test_what_only_the_app_has_does_not_stop_it(tmp_path: Path) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.create_collation("german", lambda one, two: (one > two) - (one < two))
        connection.create_function("slug", 1, lambda text: text, deterministic=True)
        connection.executescript(
            "CREATE TABLE notes (text TEXT COLLATE german PRIMARY KEY, slug AS (slug(text))) WITHOUT ROWID;"
            "CREATE INDEX by_slug ON notes (slug(text)); INSERT INTO notes VALUES ('b'), ('a');"
        )
    found = rebuild(broken, new, None)
    assert [one.rows for one in found.tables] == [2]
    assert len(found.notes) == 2 and all("REINDEX" in note for note in found.notes)


def test_a_row_whose_number_another_row_has_is_counted_as_lost(tmp_path: Path) -> None:
    """One flipped byte gives the row the number of another one, so that only one of the two can go in."""
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(at, f"row {at} unique") for at in range(1, 21)])
        connection.commit()
    data = bytearray(broken.read_bytes())
    place = data.index(b"row 7 unique") - 4
    assert data[place] == 7
    data[place] = 5
    broken.write_bytes(data)
    found = rebuild(broken, new, None)
    (table,) = found.tables
    assert (table.rows, table.lost.rows) == (19, 1) and not found.is_whole


def test_a_row_whose_key_another_row_has_is_counted(tmp_path: Path) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.execute("CREATE TABLE pairs (one TEXT, two TEXT, PRIMARY KEY (one)) WITHOUT ROWID")
        connection.executemany("INSERT INTO pairs VALUES (?, ?)", [(f"key {at}", f"value {at}") for at in range(9)])
        connection.commit()
    broken.write_bytes(broken.read_bytes().replace(b"key 7", b"key 5"))
    found = rebuild(broken, new, None)
    (table,) = found.tables
    assert (table.rows, table.not_taken) == (8, 1) and not found.is_whole


# --- damage to pages, trees and tables


def leaf_of(case: Case, table: str, kind: int = 13) -> int:
    """Return the offset of a leaf page in the middle of the table's tree, found by its content."""
    data = case.live.read_bytes()
    word = {"people": b"Person 2", "log": b"line 2", "tags": b"tag 2"}[table]
    pages = [
        place for place in range(PAGE, len(data), PAGE) if data[place] == kind and word in data[place : place + PAGE]
    ]
    return pages[len(pages) // 2]


def test_one_lost_page_costs_its_own_rows_and_no_other(case: Case) -> None:
    place = leaf_of(case, "people")
    rows = struct.unpack_from(">H", case.live.read_bytes(), place + 3)[0]
    case.damage(lambda data, _: data.__setitem__(slice(place, place + PAGE), bytes(PAGE)))
    found = next(one for one in case.rebuild().tables if one.name == "people")
    people = case.result()["people"]
    assert found.lost.pages == 1
    assert len(people) == len(case.rows["people"]) - rows and set(people) < set(case.rows["people"])


@pytest.mark.parametrize("auto_vacuum", [0, 1])
def test_pages_whose_tree_is_broken_go_back_to_their_table(tmp_path: Path, auto_vacuum: int) -> None:
    case = Case(tmp_path, auto_vacuum=auto_vacuum)
    with contextlib.closing(sqlite3.connect(case.live)) as connection:
        roots = dict(
            connection.execute("SELECT name, rootpage FROM sqlite_master WHERE name IN ('people', 'log', 'tags')")
        )

    def without_roots(data: bytearray, _: random.Random) -> None:
        for root in roots.values():
            data[(root - 1) * PAGE : root * PAGE] = bytes(PAGE)

    case.damage(without_roots)
    found = {one.name: one for one in case.rebuild().tables}
    assert found["people"].adrift and found["people"].lost.pages
    result = case.result()
    assert result["people"] == case.rows["people"] and sorted(result["log"]) == sorted(case.rows["log"])
    assert len(result["tags"]) > 0.9 * len(case.rows["tags"])  # the root of such a table holds rows itself


TWINS = "CREATE TABLE {0} (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO {0} SELECT value, '{0} ' || value FROM n;"


@pytest.mark.parametrize("known", [True, False])
def test_tables_that_look_alike_are_told_apart(tmp_path: Path, known: bool) -> None:
    """The rows in the backup tell them apart; without a backup the pointer map does."""
    broken, backup, new = (tmp_path / name for name in ("broken.db", "known.db", "new.db"))
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.executescript(f"PRAGMA page_size = 1024; PRAGMA auto_vacuum = {int(not known)}")
        connection.execute(
            "CREATE TEMP VIEW n AS WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c"
            " LIMIT 400) SELECT value FROM c"
        )
        connection.executescript(TWINS.format("one") + TWINS.format("two"))
        roots = [root for (root,) in connection.execute("SELECT rootpage FROM sqlite_master")]
    shutil.copyfile(broken, backup)
    data = bytearray(broken.read_bytes())
    for root in roots:
        data[(root - 1) * 1024 : root * 1024] = bytes(1024)
    broken.write_bytes(data)
    found = rebuild(broken, new, backup if known else None)
    assert [(one.name, one.rows) for one in found.tables] == [("one", 400), ("two", 400)]
    with contextlib.closing(sqlite3.connect(new)) as connection:
        assert all(text.startswith("one ") for (text,) in connection.execute("SELECT text FROM one"))


def test_tables_that_nothing_tells_apart_get_no_row_of_each_other(tmp_path: Path) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.executescript("CREATE TABLE one (a TEXT); CREATE TABLE two (a TEXT)")
        connection.executescript("INSERT INTO one VALUES ('x'); INSERT INTO two VALUES ('y')")
    data = bytearray(broken.read_bytes())
    one = data.index(b"CREATE TABLE one (a TEXT)") - 1
    two = data.index(b"CREATE TABLE two (a TEXT)") - 1
    data[one], data[two] = 99, 98  # both roots point to pages that do not exist
    broken.write_bytes(data)
    found = rebuild(broken, new, None)
    assert [one.rows for one in found.tables] == [0, 0] and found.no_place == 2


# --- pointers in circles


def root_of(case: Case, table: str) -> int:
    with contextlib.closing(sqlite3.connect(case.live)) as connection:
        return int(connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0])


def test_a_ring_of_pages_is_walked_once(case: Case) -> None:
    root = root_of(case, "people")

    def ring(data: bytearray, _: random.Random) -> None:
        data[(root - 1) * PAGE + 8 : (root - 1) * PAGE + 12] = root.to_bytes(4, "big")

    case.damage(ring)
    found = next(one for one in case.rebuild().tables if one.name == "people")
    assert found.lost.pages == 1 and case.result()["people"] == case.rows["people"]


def test_a_ring_of_overflow_pages_makes_no_row(case: Case) -> None:
    case.damage(overflow_rings)
    found = next(one for one in case.rebuild().tables if one.name == "people")
    long = [row for row in case.rows["people"] if len(row[4]) > PAGE]
    assert found.lost.rows == len(long) > 5
    assert set(case.result()["people"]) == set(case.rows["people"]) - set(long)


def test_a_ring_of_free_pages_is_no_list(case: Case) -> None:
    with contextlib.closing(sqlite3.connect(case.live)) as live, live:
        live.execute("DELETE FROM log WHERE rowid < 300")
        case.rows = read(live)

    def ring(data: bytearray, _: random.Random) -> None:
        first = int.from_bytes(data[32:36], "big")
        assert first
        data[(first - 1) * PAGE : (first - 1) * PAGE + 4] = first.to_bytes(4, "big")

    case.damage(ring)
    case.rebuild()
    assert case.result() == case.rows


@pytest.mark.parametrize("said", [b"\2\0", b"\x10\0", b"\0\1", b"\0\0"], ids=["512", "4096", "65536", "nonsense"])
def test_a_page_size_that_the_pages_deny_is_not_believed(case: Case, said: bytes) -> None:
    case.damage(lambda data, _: data.__setitem__(slice(16, 18), said))
    assert case.rebuild(known=False).rows > 2000 and case.result()["people"] == case.rows["people"]


@pytest.mark.parametrize("damage", ["none", "cut off", "first page lost"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.45, 0.6, 0.85, 2.5])
@pytest.mark.parametrize("size", [512, 1024, 4096, 16384, 65536])
def test_the_page_size_is_found_whatever_the_rows_are_like(
    tmp_path: Path, size: int, share: float, damage: str
) -> None:
    """Rows that take most of a page look the same in pages of half the size."""
    for count in (40, 130, 300):
        path = tmp_path / f"{count}.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA page_size = {size}")
            connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
            rows = ((number, "x" * int(size * share)) for number in range(max(count, int(6 / share))))
            connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
            connection.commit()
        data = path.read_bytes()
        if damage == "cut off":
            path.write_bytes(data[:-100])
        if damage == "first page lost":
            path.write_bytes(bytes(size) + data[size:])
        with PageFile(path) as pages:
            assert pages.size == size, count


def test_rows_as_large_as_a_page_are_all_got_back(tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ((number, "x" * 3500) for number in range(300)))
        connection.commit()
    path.write_bytes(path.read_bytes()[:-100])
    assert rebuild(path, tmp_path / "new.db", None).rows == 299


def without_schema(data: bytearray, _: random.Random) -> None:
    for place in range(0, len(data), PAGE):
        if place == 0 or b"CREATE " in data[place : place + PAGE]:
            data[place : place + PAGE] = bytes(PAGE)


def test_rows_whose_tables_nobody_knows_are_kept_in_one(case: Case) -> None:
    case.damage(without_schema)
    found = case.rebuild(known=False)
    assert [one.name for one in found.tables] == ["lost_and_found"] and not found.is_whole
    rows = case.result()["lost_and_found"]
    people = {(row[2], row[4]) for row in rows if row[1] == 5}
    assert {(number, name) for number, name, *_ in case.rows["people"]} <= people
    assert {(None, *row[1:]) for row in case.rows["people"]} <= {row[3:8] for row in rows if row[1] == 5}


def test_rows_that_a_page_no_longer_counts_are_told_of(case: Case) -> None:
    place = leaf_of(case, "people")

    def fewer(data: bytearray, _: random.Random) -> None:
        data[place + 4] -= 1

    case.damage(fewer)
    found = case.rebuild()
    people = next(one for one in found.tables if one.name == "people")
    assert not found.is_whole and people.lost.odd_pages == 1
    assert len(case.result()["people"]) == len(case.rows["people"]) - 1


@pytest.mark.parametrize("pointer", [8, 10])
def test_a_row_whose_pointer_leads_beyond_its_page_is_found_as_sqlite_finds_it(case: Case, pointer: int) -> None:
    place = leaf_of(case, "people")
    case.damage(lambda data, _: data.__setitem__(place + pointer, 255))
    people = next(one for one in case.rebuild().tables if one.name == "people")
    assert case.result()["people"] == case.rows["people"] and people.is_whole


def test_a_schema_that_is_lost_is_taken_from_the_backup(case: Case) -> None:
    case.damage(without_schema)
    found = case.rebuild()
    assert not found.is_whole_schema and "people" in found.from_backup
    assert case.result()["people"] == case.rows["people"]
    assert schema_of(case.target) == schema_of(case.live)


def test_rows_that_look_like_definitions_go_to_their_table(tmp_path: Path) -> None:
    """The schema page is lost, and the app's table has five columns, the first of which says `table` or `view`."""
    broken, backup, new = (tmp_path / f"{name}.db" for name in ("broken", "known", "new"))
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        connection.execute("CREATE TABLE furniture (kind TEXT, name TEXT, room TEXT, seats INT, note TEXT)")
        rows = [("table" if at % 3 else "chair", f"oak {at}", "kitchen", 4, "a nice one") for at in range(300)]
        rows.append(("view", "x", "x", 0, "CREATE VIEW other AS SELECT 1"))
        connection.executemany("INSERT INTO furniture VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
    shutil.copyfile(broken, backup)
    data = bytearray(broken.read_bytes())
    data[100:4096] = bytes(3996)
    broken.write_bytes(data)
    found = rebuild(broken, new, backup)
    assert [(one.name, one.rows) for one in found.tables] == [("furniture", 301)] and not found.notes
    with contextlib.closing(sqlite3.connect(new)) as connection:
        assert connection.execute("SELECT * FROM furniture").fetchall() == rows
        assert [kind for (kind,) in connection.execute("SELECT type FROM sqlite_master")] == ["table"]


def test_pages_of_the_schema_that_lost_their_tree_are_found(tmp_path: Path) -> None:
    """The schema fills pages of its own, and page 1, which leads to them, is broken."""
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(broken)) as connection:
        for at in range(200):
            connection.execute(f'CREATE TABLE "t ""{at}" (id INTEGER PRIMARY KEY, name TEXT UNIQUE)')
            connection.execute(f'INSERT INTO "t ""{at}" VALUES (1, ?)', (f"row {at}",))
        connection.commit()
    data = bytearray(broken.read_bytes())
    data[100:4096] = bytes(3996)
    broken.write_bytes(data)
    found = rebuild(broken, new, None)
    assert found.rows == len(found.tables) == 200 and not found.is_whole_schema


KEYED = "CREATE TABLE settings (k TEXT PRIMARY KEY, v INT) WITHOUT ROWID;"
USERS = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT{0});"


class Files:
    """A broken database, its backup, and the rebuilt one."""

    def __init__(self, folder: Path) -> None:
        self.broken, self.backup, self.new = (folder / f"{name}.db" for name in ("broken", "known", "new"))

    def write(self, sql: str, **rows: list[tuple[object, ...]]) -> None:
        with contextlib.closing(sqlite3.connect(self.broken)) as connection:
            connection.executescript(sql)
            for table, many in rows.items():
                connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(many[0]))})", many)
            connection.commit()

    def back_up(self) -> None:
        shutil.copyfile(self.broken, self.backup)

    def root(self, name: str) -> int:
        with contextlib.closing(sqlite3.connect(self.broken)) as connection:
            query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
            return int(connection.execute(query, (name,)).fetchone()[0])

    def change(self, place: int, data: bytes) -> None:
        old = bytearray(self.broken.read_bytes())
        old[place : place + len(data)] = data
        self.broken.write_bytes(old)

    def without_schema(self) -> None:
        self.change(100, bytes(3996))

    def rebuild(self, known: bool = True) -> Rebuilt:
        return rebuild(self.broken, self.new, self.backup if known else None)

    def rows(self) -> Rows:
        with contextlib.closing(sqlite3.connect(self.new)) as connection:
            return read(connection)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def emails(many: int) -> list[tuple[object, ...]]:
    return [(number, f"u{number}@x.y") for number in range(1, many + 1)]


@pytest.mark.parametrize("index", ["of a constraint", "made"])
def test_entries_of_an_index_are_no_rows_of_a_table_that_looks_like_it(files: Files, index: str) -> None:
    """The schema page is lost; there is a table without row numbers, and an index with the same types."""
    users = USERS.format(" UNIQUE") if index == "of a constraint" else USERS.format("")
    made = "" if index == "of a constraint" else "CREATE INDEX by_email ON users (email);"
    settings = [(f"s{number}", number) for number in range(10)]
    files.write(users + KEYED + made, users=emails(300), settings=settings)
    files.back_up()
    files.without_schema()
    found = files.rebuild()
    assert files.rows()["users"] == emails(300) and files.rows()["settings"] == settings
    assert not any(one.adrift for one in found.tables)


def test_entries_of_an_index_that_moved_since_the_backup_are_no_rows(files: Files) -> None:
    """The table's root in the backup is a page of an index now, and the lost schema cannot tell."""
    files.write(USERS.format("") + KEYED, users=emails(300), settings=[("a", 1)])
    files.back_up()
    files.write("DROP TABLE settings; CREATE INDEX by_email ON users (email);")
    files.write(KEYED, settings=[("b", 2)])
    files.without_schema()
    found = files.rebuild()
    assert not {row[0] for row in files.rows()["settings"]} - {"a", "b"} and files.rows()["users"] == emails(300)
    assert found.no_place >= 300  # the entries, which could be rows


def test_a_table_that_was_dropped_stays_away_from_a_sound_database(files: Files) -> None:
    """An index took over its page."""
    files.write(USERS.format("") + KEYED, users=emails(100), settings=[("a", 1)])
    files.back_up()
    files.write("DROP TABLE settings; CREATE INDEX by_email ON users (email);")
    found = files.rebuild()
    assert found.is_whole and files.rows() == {"users": emails(100)}


def test_a_sound_database_of_another_kind_keeps_its_tables(files: Files) -> None:
    """The backup and the database have no table in common."""
    files.write(KEYED, settings=[("a", 1)])
    files.back_up()
    files.broken.unlink()
    files.write("CREATE TABLE t (k TEXT); CREATE INDEX i ON t (k)", t=[(f"row {at}",) for at in range(300)])
    found = files.rebuild()
    assert found.is_whole and [(one.name, one.rows) for one in found.tables] == [("t", 300)]


@pytest.mark.parametrize("value", [0, 255])
def test_a_broken_page_of_an_index_is_damage(files: Files, value: int) -> None:
    files.write(USERS.format(" UNIQUE"), users=emails(300))
    root = files.root("sqlite_autoindex_users_1")
    files.change((root - 1) * 4096, bytes([value]))
    found = files.rebuild(known=False)
    assert files.rows() == {"users": emails(300)} and not found.is_whole
    assert found.notes == ("Pages of indexes that cannot be read: 1. The indexes are rebuilt from the rows.",)


@pytest.mark.parametrize("known", [True, False])
def test_pages_of_sqlite_itself_that_changed_places_with_a_table_cost_no_row(files: Files, known: bool) -> None:
    notes = [(f"note {number}", number) for number in range(50)]
    files.write(
        "CREATE TABLE posts (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT); CREATE TABLE notes (a TEXT, n INT)"
    )
    files.write("", posts=[(number, f"body {number}") for number in range(1, 21)], notes=notes)
    files.write("DELETE FROM posts WHERE id > 15")
    files.back_up()
    data = files.broken.read_bytes()
    one, two = ((files.root(name) - 1) * 4096 for name in ("notes", "sqlite_sequence"))
    files.change(one, data[two : two + 4096])
    files.change(two, data[one : one + 4096])
    found = files.rebuild(known)
    assert not found.is_whole and files.rows()["notes"] == notes and len(files.rows()["posts"]) == 15
    with contextlib.closing(sqlite3.connect(files.new)) as connection:
        assert connection.execute("SELECT * FROM sqlite_sequence").fetchall() == [("posts", 20)]


def test_lost_sequences_are_damage(files: Files) -> None:
    files.write("CREATE TABLE posts (id INTEGER PRIMARY KEY AUTOINCREMENT)", posts=[(1,), (2,)])
    files.change((files.root("sqlite_sequence") - 1) * 4096, bytes(4096))
    found = files.rebuild(known=False)
    assert not found.is_whole and "AUTOINCREMENT" in found.notes[0] and files.rows() == {"posts": [(1,), (2,)]}


def test_tables_of_other_columns_that_changed_places_get_their_own_rows(files: Files) -> None:
    one, two = [(f"x{at}", at) for at in range(40)], [(at, f"y{at}", f"z{at}") for at in range(40)]
    files.write("CREATE TABLE one (a TEXT, b INT); CREATE TABLE two (a INT, b TEXT, c TEXT)", one=one, two=two)
    data = files.broken.read_bytes()
    places = [(files.root(name) - 1) * 4096 for name in ("one", "two")]
    files.change(places[0], data[places[1] : places[1] + 4096])
    files.change(places[1], data[places[0] : places[0] + 4096])
    found = files.rebuild(known=False)
    assert not found.is_whole and files.rows() == {"one": one, "two": two}


def test_a_letter_that_flipped_in_a_definition_is_mended_from_the_backup(case: Case) -> None:
    def misspelt(data: bytearray, _: random.Random) -> None:
        place = data.index(b"name TEXT NOT NULL, born")
        data[place : place + 4] = b"nbme"

    case.damage(misspelt)
    found = case.rebuild()
    assert found.from_backup == ("people",)
    assert schema_of(case.target) == schema_of(case.live) and case.result() == case.rows


def test_columns_that_changed_places_since_the_backup_keep_their_names(case: Case) -> None:
    with contextlib.closing(sqlite3.connect(case.live)) as connection, connection:
        for old, new in (("name", "spare"), ("born", "name"), ("spare", "born")):
            connection.execute(f"ALTER TABLE people RENAME COLUMN {old} TO {new}")
    case.damage(lambda data, _: None)
    found = case.rebuild()
    assert found.from_backup == () and schema_of(case.target) == schema_of(case.live)


def test_a_file_written_over_the_beginning_does_not_hide_what_is_behind(case: Case) -> None:
    other = case.folder / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.executescript(
            f"PRAGMA page_size = {PAGE}; CREATE TABLE strangers (a); INSERT INTO strangers VALUES (1)"
        )
    over = other.read_bytes()
    case.damage(lambda data, _: data.__setitem__(slice(0, len(over)), over))
    found = case.rebuild()
    people = case.result()["people"]
    assert len(people) > 0.9 * len(case.rows["people"]) and set(people) <= set(case.rows["people"])
    assert "strangers" not in case.result() and any("strangers" in note for note in found.notes)


def test_deleted_rows_stay_away_unless_they_are_asked_for(case: Case) -> None:
    deleted = set(range(200, 350))
    with contextlib.closing(sqlite3.connect(case.broken)) as connection, connection:
        connection.execute("PRAGMA secure_delete = OFF")  # Debian's SQLite overwrites deleted rows by default
        connection.execute("DELETE FROM people WHERE id BETWEEN 200 AND 349")
    found = case.rebuild()
    assert found.is_whole and not deleted & {row[0] for row in case.result()["people"]}
    assert case.rebuild(include_free=True).rows > found.rows
    assert deleted & {row[0] for row in case.result()["people"]}


def test_a_broken_frame_of_the_wal_costs_no_later_commit(tmp_path: Path) -> None:
    case = Case(tmp_path, journal_mode="WAL", wal_autocheckpoint=0)
    frames = (case.folder / "broken.db-wal").stat().st_size // (PAGE + 24)
    wal = bytearray((case.folder / "broken.db-wal").read_bytes())
    wal[32 + 5 * (PAGE + 24) + 500] ^= 255
    (case.folder / "broken.db-wal").write_bytes(wal)
    found = case.rebuild()
    assert found.lost_frames == 1 and found.newer > frames / 4
    assert case.result()["people"] == case.rows["people"]


@pytest.mark.parametrize("auto_vacuum", [0, 1])
@pytest.mark.parametrize("known", [True, False])
def test_pages_behind_the_end_that_the_wal_sets_are_no_part_of_it(
    tmp_path: Path, auto_vacuum: int, known: bool
) -> None:
    """After rows were deleted the database became smaller, and only the WAL says so."""
    live, broken, backup, new = (tmp_path / f"{name}.db" for name in ("live", "broken", "known", "new"))
    with contextlib.closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.executescript(
            f"PRAGMA secure_delete = OFF; PRAGMA auto_vacuum = {auto_vacuum}; PRAGMA journal_mode = WAL;"
            "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)"
        )
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(at, f"row {at} " + "x" * 100) for at in range(3000)])
        connection.execute("COMMIT")
        connection.executescript("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint = 0;")
        connection.execute("DELETE FROM t WHERE id >= 1000")
        connection.execute("VACUUM" if not auto_vacuum else "SELECT 1")
        connection.execute("VACUUM INTO ?", (str(backup),))
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{live}{suffix}", f"{broken}{suffix}")
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    assert pages * 4096 < broken.stat().st_size
    found = rebuild(broken, new, backup if known else None)
    assert found.is_whole and [(one.name, one.rows, one.adrift) for one in found.tables] == [("t", 1000, 0)]


@pytest.mark.parametrize("ends", [True, False], ids=["rolled back", "under way"])
def test_what_is_in_the_wal_and_not_committed_is_left_out_and_no_loss(tmp_path: Path, ends: bool) -> None:
    case = Case(tmp_path, journal_mode="WAL", wal_autocheckpoint=0)
    with contextlib.closing(sqlite3.connect(case.live, isolation_level=None)) as connection:
        connection.executescript("PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 2; BEGIN")
        connection.execute("UPDATE people SET name = 'not committed'")
        if ends:
            connection.execute("ROLLBACK")
            connection.execute("INSERT INTO log VALUES ('committed')")
            case.rows = read(connection)
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{case.live}{suffix}", f"{case.broken}{suffix}")
    assert b"not committed" in Path(f"{case.broken}-wal").read_bytes()
    assert case.rebuild().is_whole and case.result() == case.rows


def test_frames_behind_the_last_commit_are_left_out(tmp_path: Path) -> None:
    case = Case(tmp_path, journal_mode="WAL", wal_autocheckpoint=0)
    wal = bytearray((case.folder / "broken.db-wal").read_bytes())
    last, before = len(wal) - PAGE - 24, len(wal) - 2 * (PAGE + 24)
    assert wal[last + 4 : last + 8] != bytes(4)  # the last frame is a commit; make it none, with a right checksum
    wal[last + 4 : last + 8] = bytes(4)
    seed = struct.unpack_from(">II", wal, before + 16)
    struct.pack_into(">II", wal, last + 16, *_checksum(bytes(wal[last : last + 8] + wal[last + 24 :]), seed, "<"))
    (case.folder / "broken.db-wal").write_bytes(wal)
    found = case.rebuild()
    assert found.is_whole and len(case.result()["people"]) == len(case.rows["people"]) - LATER


def other_wal(case: Case) -> bytes:
    """Return the WAL of another database with the same page size."""
    folder = case.folder / "other"
    folder.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / "other.db", isolation_level=None)) as connection:
        connection.executescript(f"PRAGMA page_size = {PAGE}; PRAGMA journal_mode = WAL; CREATE TABLE strangers (a)")
        connection.executemany("INSERT INTO strangers VALUES (?)", [("x" * 500,)] * 300)
        return (folder / "other.db-wal").read_bytes()


@pytest.mark.parametrize("damaged", ["missing", "cut", "noise", "no header", "of another database", "the only file"])
def test_a_wal_may_be_lost_or_wrong(tmp_path: Path, damaged: str) -> None:
    case = Case(tmp_path, journal_mode="WAL", wal_autocheckpoint=0)
    with contextlib.closing(sqlite3.connect(case.live)) as live:
        live.execute("PRAGMA wal_checkpoint(PASSIVE)" if damaged != "the only file" else "SELECT 1")
        shutil.copyfile(case.live, case.broken)
        wal = case.folder / "broken.db-wal"
        data = wal.read_bytes()
        match damaged:
            case "missing":
                wal.unlink()
            case "cut":
                wal.write_bytes(data[: len(data) // 2])
            case "noise":
                wal.write_bytes(random.Random(1).randbytes(len(data)))
            case "no header":
                wal.write_bytes(bytes(32) + data[32:])
            case "of another database":
                wal.write_bytes(other_wal(case))
            case "the only file":
                case.broken.write_bytes(b"")
    found = case.rebuild()
    assert len(case.result()["people"]) >= len(case.rows["people"]) - LATER and found.rows > 1000
    assert "strangers" not in case.result()


def test_what_a_killed_transaction_wrote_is_left_out(tmp_path: Path) -> None:
    case = Case(tmp_path)
    with contextlib.closing(sqlite3.connect(case.live, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 2")
        connection.execute("BEGIN")
        connection.execute("UPDATE people SET name = 'not committed'")
        for suffix in ("", "-journal"):
            shutil.copyfile(f"{case.live}{suffix}", f"{case.broken}{suffix}")
        connection.execute("ROLLBACK")
    assert b"not committed" in case.broken.read_bytes()
    before = (case.broken.read_bytes(), Path(f"{case.broken}-journal").read_bytes())
    assert case.rebuild().is_whole and case.result() == case.rows
    assert (case.broken.read_bytes(), Path(f"{case.broken}-journal").read_bytes()) == before


# --- a hundred kinds of damage


def flipped(many: int, start: float = 0, end: float = 1) -> Damage:
    def damage(data: bytearray, at: random.Random) -> None:
        for _ in range(many):
            data[at.randrange(int(start * len(data)), max(1, int(end * len(data))))] ^= 1 << at.randrange(8)

    return damage


def overwritten(size: int, start: float, what: str) -> Damage:
    def damage(data: bytearray, at: random.Random) -> None:
        place = int(start * (len(data) - size))
        data[place : place + size] = bytes(size) if what == "zeros" else at.randbytes(size)

    return damage


def cut(share: float) -> Damage:
    def damage(data: bytearray, at: random.Random) -> None:
        del data[int(share * len(data)) :]

    return damage


def in_headers(place: int, value: bytes, step: int) -> Damage:
    """Overwrite the same bytes in the header of every `step`-th page: huge counts, stray and circular pointers."""

    def damage(data: bytearray, at: random.Random) -> None:
        for page in range(PAGE, len(data), step * PAGE):
            data[page + place : page + place + len(value)] = value

    return damage


def overflow_rings(data: bytearray, at: random.Random) -> None:
    for page in range(PAGE, len(data), PAGE):
        if data[page] == 0 and any(data[page : page + 4]):
            data[page : page + 4] = (page // PAGE + 1).to_bytes(4, "big")


def moved(data: bytearray, at: random.Random) -> None:
    pages = [bytes(data[place : place + PAGE]) for place in range(PAGE, len(data), PAGE)]
    at.shuffle(pages)
    data[PAGE:] = b"".join(pages)


def byte_of_header(place: int, value: int) -> Damage:
    return lambda data, at: data.__setitem__(place, value)


def kinds() -> Iterator[tuple[str, Damage]]:
    for many in (1, 3, 10, 30, 100, 300, 1000, 3000):
        for part in ((0, 1), (0, 0.01), (0.01, 0.2), (0.5, 1)):
            yield f"{many} bits flipped in {part}", flipped(many, *part)
    for size in (100, PAGE, 20 * PAGE, 100 * PAGE):
        for start in (0, 0.1, 0.5, 1):
            for what in ("zeros", "noise"):
                yield f"{size} bytes of {what} at {start}", overwritten(size, start, what)
    for share in (0, 0.0001, 0.001, 0.1, 0.5, 0.9, 0.999):
        yield f"cut at {share}", cut(share)
    for place, value in (
        (0, b"\0"),
        (0, b"\5"),
        (0, b"\r"),
        (1, b"\xff\xff"),
        (3, b"\xff\xff"),
        (3, b"\0\0"),
        (5, b"\0\0"),
        (8, bytes(4)),
    ):
        for step in (1, 7):
            yield f"{value!r} at {place} of each {step}th page", in_headers(place, value, step)
    for place in (0, 16, 18, 20, 28, 36, 52, 56, 59, 99, 100, 103, 105):
        for value in (0, 255):
            yield f"header byte {place} is {value}", byte_of_header(place, value)
    yield "rings of overflow pages", overflow_rings
    yield "pages in another order", moved


def test_no_damage_is_too_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [Case(tmp_path / str(number), 150, **pragmas) for number, pragmas in _cases(tmp_path)]
    shares, came = [], []
    for number, (name, damage) in enumerate(kinds()):
        case = cases[number % len(cases)]
        case.damage(damage, chance(name).randrange(1 << 30))
        began = time.process_time()
        found = case.rebuild(known=number % 5 > 0)
        assert time.process_time() - began < 20, f"{name} took too long"
        result = case.result()
        assert sum(map(len, result.values())) == sum(one.rows for one in found.tables if one.name in result), name
        if name.startswith("cut"):  # no row is invented
            assert all(set(rows) <= set(case.rows[table]) for table, rows in result.items()), name
        shares.append(sum(len(rows) for rows in result.values()) / sum(map(len, case.rows.values())))
        came.append(name)
    whole, none = sum(one >= 1 for one in shares), sum(one == 0 for one in shares)
    assert len(shares) > 100 and sum(shares) / len(shares) > 0.6
    with capsys.disabled():
        print(
            f"\nsalvage: {len(shares)} kinds of damage, {sum(shares) / len(shares):.0%} of the rows came back;", end=" "
        )
        print(f"all of them {whole} times, none {none} times")


def _cases(folder: Path) -> Iterator[tuple[int, dict[str, object]]]:
    kinds_of_file: list[dict[str, object]] = [{}, {"journal_mode": "WAL", "wal_autocheckpoint": 0}, {"auto_vacuum": 1}]
    for number, pragmas in enumerate(kinds_of_file):
        (folder / str(number)).mkdir()
        yield number, pragmas


@pytest.mark.parametrize("seed", range(20))
def test_bytes_that_are_no_database_give_nothing(tmp_path: Path, seed: int) -> None:
    broken, new = tmp_path / "broken.db", tmp_path / "new.db"
    broken.write_bytes((b"SQLite format 3\0" if seed % 2 else b"") + random.Random(seed).randbytes(seed * 3000))
    assert rebuild(broken, new, None).rows == 0


def test_a_size_that_is_claimed_and_not_there_takes_no_memory(case: Case) -> None:
    """A row's first byte claims two gigabytes, and the header claims four thousand million pages."""
    import tracemalloc

    place = leaf_of(case, "log")

    def huge(data: bytearray, _: random.Random) -> None:
        (first,) = struct.unpack_from(">H", data, place + 8)
        data[place + first : place + first + 5] = b"\x87\xff\xff\xff\x7f"
        data[28:32] = b"\xff\xff\xff\xff"

    case.damage(huge)
    tracemalloc.start()
    try:
        found = next(one for one in case.rebuild().tables if one.name == "log")
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert found.lost.rows == 1 and found.rows == len(case.rows["log"]) - 1
