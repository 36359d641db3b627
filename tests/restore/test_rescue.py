"""`rescue` brings rows of a backup back with the rows they refer to, all or none, and loses no live row."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import NoSuchBackup, Refused
from backupkit.repository import flags, store
from backupkit.restore.rescue import plan_rescue, rescue_rows
from backupkit.sqlite import row_rescue, row_return, rows
from backupkit.sqlite.row_rescue import Choice
from refusals import run_here
from small_app import SmallApp

TABLES = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, picture, boss INTEGER REFERENCES people (id));
CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, person INTEGER NOT NULL REFERENCES people, what TEXT);
CREATE TABLE lines (orders INTEGER, place INTEGER, text TEXT, double AS (place * 2) STORED,
  PRIMARY KEY (orders, place), FOREIGN KEY (orders) REFERENCES orders (id)) WITHOUT ROWID;
CREATE TABLE log (line TEXT);
CREATE TRIGGER says AFTER INSERT ON people BEGIN INSERT INTO log VALUES (new.name); END;
INSERT INTO people VALUES (1, 'Ann', NULL, NULL), (2, 'Bob', x'00ff', 1), (3, CAST(x'ff41' AS TEXT), 'c', 2);
INSERT INTO orders VALUES (10, 2, 'bread'), (11, 3, 'milk'), (12, 1, 'tea');
INSERT INTO lines (orders, place, text) VALUES (10, 1, 'a'), (10, 2, 'b'), (11, 1, 'c');
DELETE FROM log;
"""


TRIGGERS = "Triggers of people do not run for these rows: says."


def script(app: SmallApp, sql: str) -> None:
    with contextlib.closing(app.connect()) as live:
        live.executescript(sql)


@pytest.fixture
def shop(app: SmallApp) -> SmallApp:
    script(app, TABLES)
    create_backup(app.settings, BackupRequest("good"))
    return app


def rows_of(app: SmallApp, table: str) -> list[tuple[object, ...]]:
    with contextlib.closing(app.connect()) as live:
        live.text_factory = bytes
        return sorted(live.execute(f"SELECT * FROM {table}").fetchall(), key=repr)


def dumped(app: SmallApp) -> list[str]:
    with contextlib.closing(app.connect()) as live:
        live.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
        return list(live.iterdump())


def every_row(app: SmallApp) -> dict[str, list[tuple[object, ...]]]:
    return {table: rows_of(app, table) for table in ("people", "orders", "lines", "log", "companies")}


def test_a_row_comes_back_with_what_it_refers_to_to_the_last_byte(shop: SmallApp) -> None:
    before = every_row(shop)
    script(
        shop, "DELETE FROM lines WHERE orders = 11; DELETE FROM orders WHERE id = 11; DELETE FROM people WHERE id > 1"
    )
    done = run_here(shop, "rescue", "good", "orders", "--key", "11", "--yes", check=0)
    assert done.out.splitlines()[:2] == ["orders: 1 row brought back.", "people: 2 rows brought back."]
    assert rows_of(shop, "people") == before["people"]
    assert rows_of(shop, "orders") == before["orders"]
    assert rows_of(shop, "lines") == [one for one in before["lines"] if one[0] == 10]
    assert rows_of(shop, "log") == []
    assert TRIGGERS in done.err and TRIGGERS in done.out


def test_children_come_too_where_they_are_asked_for(shop: SmallApp) -> None:
    before = every_row(shop)
    script(shop, "DELETE FROM lines; DELETE FROM orders WHERE id < 12; DELETE FROM people WHERE id = 3")
    run_here(shop, "rescue", "good", "people", "--where", "id > 1", "--with-children", "--yes", check=0)
    assert every_row(shop) == before


def test_missing_children_that_stay_away_are_named(shop: SmallApp) -> None:
    script(shop, "DELETE FROM lines; DELETE FROM orders WHERE id < 12; DELETE FROM people WHERE id = 3")
    note = "Rows that refer to these are missing too: 1 of orders. --with-children brings them back."
    assert note in run_here(shop, "rescue", "good", "people", "--missing", "--dry-run", check=0).out
    for more in (["--with-children"], ["--where", "id = 1"]):
        choice = more if "--where" in more else ["--missing", *more]
        assert "missing too" not in run_here(shop, "rescue", "good", "people", *choice, "--dry-run", check=0).out
    run_here(shop, "rescue", "good", "people", "--missing", "--yes", check=0)
    done = run_here(shop, "rescue", "good", "orders", "--missing", "--dry-run", check=0)
    assert "are missing too: 3 of lines." in done.out, "of the rows of two orders"


def test_missing_children_that_take_long_to_count_stop_nothing(shop: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    script(shop, "DELETE FROM orders; DELETE FROM people")
    monkeypatch.setattr(row_rescue, "_SECONDS_TO_COUNT", 0.0)
    monkeypatch.setattr(rows, "_INSTRUCTIONS", 1)
    done = run_here(shop, "rescue", "good", "people", "--missing", "--dry-run", check=0)
    assert "were not counted: it takes long." in done.out


def test_rows_that_refer_to_each_other_and_all_come_back_are_not_named(shop: SmallApp) -> None:
    script(shop, "DELETE FROM lines; DELETE FROM orders; DELETE FROM people")
    done = run_here(shop, "rescue", "good", "people", "--missing", "--dry-run", check=0)
    assert "are missing too: 3 of orders." in done.out


def test_a_rescue_is_undone_and_the_triggers_are_as_they_were(shop: SmallApp) -> None:
    script(shop, "DELETE FROM people WHERE id = 3")
    before = every_row(shop)
    run_here(shop, "rescue", "good", "people", "--missing", "--yes", check=0)
    script(shop, "INSERT INTO people VALUES (9, 'New', NULL, NULL)")
    assert rows_of(shop, "log") == [(b"New",)]
    run_here(shop, "undo", "--yes", check=0)
    assert every_row(shop) == before


def test_a_dry_run_shows_all_and_changes_nothing(shop: SmallApp) -> None:
    script(shop, "DELETE FROM people WHERE id = 3; UPDATE people SET name = 'Bo' WHERE id = 2")
    before, backups = every_row(shop), sorted(path.name for path in shop.backups.iterdir())
    done = run_here(shop, "rescue", "good", "people", "--where", "1", "--dry-run", check=0)
    assert done.out.splitlines() == [
        "Bringing rows of good back into the live database:",
        "  people: 1 row to bring back",
        "    + id 3, name \\udcffA, picture c, boss 2",
        "  rows whose live values differ, left as they are (--overwrite replaces them): 1",
        "    ~ people 2: name Bob in the backup, Bo live",
        "  rows that are live already, as they were: 1",
        f"  note       {TRIGGERS}",
        "  A safety copy is made first; `python backup_restore.py undo` takes this back.",
    ]
    found = run_here(shop, "rescue", "good", "people", "--where", "id = 2", "--dry-run", "--json", check=0).json
    assert (found["inserts"], found["same"], found["overwrite"]) == ([], 0, False)
    assert (found["differ"][0]["backup"]["name"], found["differ"][0]["live"]["name"]) == ("Bob", "Bo")
    assert every_row(shop) == before
    assert sorted(path.name for path in shop.backups.iterdir()) == backups


def test_a_row_that_is_another_now_stays_unless_it_is_to_be_replaced(shop: SmallApp) -> None:
    script(shop, "UPDATE people SET name = 'Zoe', picture = 'hers' WHERE id = 2")
    before = every_row(shop)
    done = run_here(shop, "rescue", "good", "people", "--key", "2", "--yes", check=0)
    assert done.out.splitlines()[:2] == [
        "Nothing was brought back.",
        "Not brought back, because the live row of that key has other values: 1. See --overwrite.",
    ]
    assert every_row(shop) == before
    assert [one.name for one in store.all_backups(shop.settings)] == ["good"]
    done = run_here(shop, "rescue", "good", "people", "--key", "2", "--overwrite", "--yes", check=0)
    assert "people: 1 row replaced." in done.out
    assert (2, b"Bob", b"\x00\xff", 1) in rows_of(shop, "people")
    run_here(shop, "undo", "--yes", check=0)
    assert every_row(shop) == before


def test_a_parent_that_is_another_now_is_told(shop: SmallApp) -> None:
    script(shop, "DELETE FROM orders WHERE id = 11; UPDATE people SET name = 'Dan' WHERE id = 3")
    done = run_here(shop, "rescue", "good", "orders", "--key", "11", "--dry-run", check=0)
    assert "people 3 is another row now than in the backup, and rows that come back refer to it" in done.out


@pytest.mark.parametrize(
    ("change", "words", "code", "message"),
    [
        ("", ["people"], 2, "Rows must be selected in exactly one way."),
        ("", ["people", "--missing", "--key", "1"], 2, "Rows must be selected in exactly one way."),
        ("", ["nope", "--missing"], 10, "There is no table nope in the live database."),
        ("DROP TABLE log", ["log", "--missing"], 10, "There is no table log in the live database."),
        ("", ["people", "--key", "99"], 10, "The backup has no row 99 in people."),
        ("", ["lines", "--key", "10"], 2, "A row of lines is found by orders, place"),
        ("", ["log", "--missing"], 2, "The table log has no primary key"),
        ("", ["people", "--where", "nope = 1"], 2, "is not a condition"),
        ("", ["people", "--where", "1) UNION SELECT id FROM people --"], 2, "is not a condition"),
        ("", ["people", "--where", "load_extension('x')"], 2, "is not a condition"),
        (
            "DELETE FROM people WHERE id = 3; INSERT INTO people VALUES (7, CAST(x'ff41' AS TEXT), 0, NULL)",
            ["people", "--missing"],
            2,
            "A row cannot come back: UNIQUE constraint failed: people.name.",
        ),
        (
            "DELETE FROM people WHERE id = 2; INSERT INTO people VALUES (7, 'Bob', 0, NULL)",
            ["people", "--missing"],
            2,
            "people 2 cannot come back: the live row 7 has the same name.",
        ),
        (
            "DELETE FROM orders; ALTER TABLE orders ADD COLUMN price INTEGER NOT NULL DEFAULT 1; "
            "CREATE TABLE other (id INTEGER PRIMARY KEY, need NOT NULL); DROP TABLE orders; "
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, need NOT NULL)",
            ["orders", "--missing"],
            2,
            "has a column that needs a value, and that the backup lacks: need",
        ),
        (
            "DROP TABLE orders; CREATE TABLE orders (id INTEGER, what TEXT PRIMARY KEY)",
            ["orders", "--missing"],
            2,
            "has another primary key than the backup.",
        ),
        ("CREATE VIEW looks AS SELECT 1 AS id", ["sqlite_sequence", "--missing"], 2, "is not an ordinary table"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    shop: SmallApp, change: str, words: list[str], code: int, message: str
) -> None:
    script(shop, change)
    before = dumped(shop)
    done = run_here(shop, "rescue", "good", *words, "--yes")
    assert (done.code, message in done.err) == (code, True), done
    assert "Next: " in done.err
    assert dumped(shop) == before


def test_without_a_terminal_and_without_yes_it_refuses(shop: SmallApp) -> None:
    script(shop, "DELETE FROM people WHERE id = 3")
    assert run_here(shop, "rescue", "good", "people", "--missing").code == 2
    assert len(rows_of(shop, "people")) == 2


def test_a_row_that_came_after_the_plan_was_made_is_not_overwritten(shop: SmallApp) -> None:
    script(shop, "DELETE FROM people WHERE id = 3")
    plan = plan_rescue(shop.settings, "good", "people", Choice(missing=True))
    script(shop, "INSERT INTO people VALUES (3, 'Eve', NULL, NULL)")
    before = every_row(shop)
    with pytest.raises(Refused, match="people 3 was changed meanwhile"):
        rescue_rows(shop.settings, plan)
    assert every_row(shop) == before


def test_what_the_backup_lacks_too_is_told_and_stops_nothing(app: SmallApp) -> None:
    script(app, TABLES + "INSERT INTO orders VALUES (20, 77, 'nobody');")
    create_backup(app.settings, BackupRequest("good"))
    script(app, "DELETE FROM orders WHERE id = 20")
    done = run_here(app, "rescue", "good", "orders", "--key", "20", "--yes", check=0)
    assert "Rows of orders refer to rows of people that the backup lacks too." in done.err
    assert (20, 77, b"nobody") in rows_of(app, "orders")


def test_a_constraint_that_would_replace_rows_does_not(app: SmallApp) -> None:
    script(
        app,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE ON CONFLICT REPLACE, b); INSERT INTO t VALUES (1, x'01', 2)",
    )
    create_backup(app.settings, BackupRequest("good"))
    script(app, "DELETE FROM t; CREATE UNIQUE INDEX only ON t (abs(b)); INSERT INTO t VALUES (5, 0, -2)")
    assert "UNIQUE constraint failed" in run_here(app, "rescue", "good", "t", "--missing", "--yes", check=2).err
    assert rows_of(app, "t") == [(5, 0, -2)]


def test_a_column_that_was_dropped_or_added_since_is_told(shop: SmallApp) -> None:
    script(
        shop,
        "DELETE FROM orders WHERE id = 11; ALTER TABLE orders DROP COLUMN what;"
        "ALTER TABLE orders ADD COLUMN n DEFAULT 7",
    )
    done = run_here(shop, "rescue", "good", "orders", "--missing", "--yes", check=0)
    assert "The live table orders has no column what: its values stay behind." in done.err
    assert (11, 3, 7) in rows_of(shop, "orders")


# Random rows in random schemas, compared with a model


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[tuple[int, int | None, int]]], list[set[int]], int, set[int], bool]:
    """Draw each table's rows (id, parent id, value) and lost ids; table and ids to rescue; whether with children."""
    tables: list[list[tuple[int, int | None, int]]] = []
    for number in range(draw(st.integers(1, 4))):
        ids = draw(st.lists(st.integers(1, 12), unique=True, min_size=1, max_size=8))
        above = [one[0] for one in tables[-1]] if number else []
        refers = [draw(st.sampled_from([None, *above])) for _ in ids]
        tables.append([(one, to, draw(st.integers(0, 9))) for one, to in zip(ids, refers, strict=True)])
    gone = [{row[0] for row in rows if draw(st.booleans())} for rows in tables]
    asked = draw(st.integers(0, len(tables) - 1))
    wanted = {row[0] for row in tables[asked] if draw(st.booleans())}
    return tables, gone, asked, wanted, draw(st.booleans())


def expected(
    tables: list[list[tuple[int, int | None, int]]], gone: list[set[int]], asked: int, wanted: set[int], children: bool
) -> list[set[int]]:
    """Return the ids that are live afterwards, by table."""
    rows = [{row[0]: row for row in one} for one in tables]
    live = [set(one) - lost for one, lost in zip(rows, gone, strict=True)]
    todo = [(asked, one, True) for one in sorted(wanted)]  # the rows that were asked for come first
    seen: set[tuple[int, int]] = set()
    while todo:
        number, key, is_meant = todo.pop(0)
        if (number, key) in seen:
            continue
        seen.add((number, key))
        was_live = key in live[number]
        live[number].add(key)
        if was_live and not (children and is_meant):
            continue
        if number and (above := rows[number][key][1]) is not None:
            todo.append((number - 1, above, False))
        if children and is_meant and number + 1 < len(tables):
            todo += [
                (number + 1, one, True)
                for one, row in rows[number + 1].items()
                if row[1] == key and one not in live[number + 1]
            ]
    return live


@given(world=worlds())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_rows_over_random_schemas(
    tmp_path_factory: pytest.TempPathFactory,
    world: tuple[list[list[tuple[int, int | None, int]]], list[set[int]], int, set[int], bool],
) -> None:
    tables, gone, asked, wanted, children = world
    folder = tmp_path_factory.mktemp("rescue")
    live, sealed = folder / "live.db", folder / "sealed.db"
    with contextlib.closing(sqlite3.connect(live)) as connection:
        for number, rows in enumerate(tables):
            above = f" REFERENCES t{number - 1} (id)" if number else ""
            connection.execute(f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY, above INTEGER{above}, v)")
            connection.executemany(f"INSERT INTO t{number} VALUES (?, ?, ?)", rows)
        connection.commit()
        with contextlib.closing(sqlite3.connect(sealed)) as copied:
            connection.backup(copied)
        for number, ids in enumerate(gone):
            connection.executemany(f"DELETE FROM t{number} WHERE id = ?", [(one,) for one in ids])
        connection.commit()
    condition = f"id IN ({', '.join(map(str, sorted(wanted)))})"
    with row_rescue.opened(live, sealed, 5) as snapshot:
        found = row_rescue.find(snapshot, sealed, f"t{asked}", Choice(where=condition), with_children=children)
    row_return.bring_back(live, sealed, found, 5)
    after = [{row[0] for row in read(live, number)} for number in range(len(tables))]
    assert after == expected(tables, gone, asked, wanted, children)
    assert all(set(read(live, number)) <= set(rows) for number, rows in enumerate(tables))


def read(file: Path, number: int) -> list[tuple[int, int | None, int]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(f"SELECT * FROM t{number}").fetchall()


@pytest.mark.parametrize("failing", ["flag", "write"])
def test_what_fails_on_the_way_leaves_the_database_as_it_was(
    shop: SmallApp, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    script(shop, "DELETE FROM people WHERE id = 3")
    before = every_row(shop)
    plan = plan_rescue(shop.settings, "good", "people", Choice(missing=True))

    def fail(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    place: tuple[object, str] = (row_return, "_put_back") if failing == "write" else (row_return, "_write")
    monkeypatch.setattr(*place, fail)
    with pytest.raises(OSError, match="No space"):
        rescue_rows(shop.settings, plan)
    monkeypatch.undo()
    assert every_row(shop) == before
    assert every_trigger(shop) == ["says"]


def every_trigger(app: SmallApp) -> list[str]:
    with contextlib.closing(app.connect()) as live:
        return [name for (name,) in live.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]


def test_a_database_that_stays_locked_is_told_of_and_unchanged(shop: SmallApp) -> None:
    script(shop, "DELETE FROM people WHERE id = 3")
    before = every_row(shop)
    with contextlib.closing(shop.connect()) as other:
        other.execute("BEGIN IMMEDIATE")
        done = run_here(shop, "rescue", "good", "people", "--missing", "--yes", env={"BACKUP_BUSY_TIMEOUT": "0.3"})
        other.execute("ROLLBACK")
    assert done.code == 13 and "stayed locked" in done.err, done
    assert every_row(shop) == before


def test_a_key_that_came_since_the_backup_is_no_obstacle(shop: SmallApp) -> None:
    script(
        shop,
        "DELETE FROM orders WHERE id = 11; CREATE TABLE shops (id INTEGER PRIMARY KEY);"
        "ALTER TABLE orders ADD COLUMN shop INTEGER REFERENCES shops (id);"
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, person INTEGER REFERENCES people (id))",
    )
    run_here(shop, "rescue", "good", "orders", "--missing", "--with-children", "--yes", check=0)
    assert (11, 3, b"milk", None) in rows_of(shop, "orders")


def test_names_are_shown_as_they_are_written(app: SmallApp) -> None:
    script(
        app,
        'CREATE TABLE "Odd Table" ("The Id" INTEGER PRIMARY KEY, "a""B" TEXT UNIQUE);'
        'INSERT INTO "Odd Table" VALUES (1, 2)',
    )
    create_backup(app.settings, BackupRequest("good"))
    script(app, 'DELETE FROM "Odd Table"')
    found = run_here(app, "rescue", "good", "odd table", "--missing", "--dry-run", "--json", check=0).json
    assert found["inserts"][0]["table"] == "Odd Table"
    assert found["inserts"][0]["backup"] == {"The Id": 1, 'a"B': "2"}
    run_here(app, "rescue", "good", "odd table", "--key", "1", "--yes", check=0)
    assert rows_of(app, '"Odd Table"') == [(1, b"2")]


# Cases found by somebody who did not know the code


def two(app: SmallApp, before: str, after: str) -> None:
    """Back up after running `before`, then run `after`."""
    script(app, before)
    create_backup(app.settings, BackupRequest("good"))
    script(app, after)


def test_letters_outside_ascii_have_no_case(app: SmallApp) -> None:
    table = 'CREATE TABLE t ("Ü" INTEGER PRIMARY KEY, "Ä", "ä");'
    two(
        app,
        f"{table} INSERT INTO t VALUES (1, 'one', 'a'), (2, 'two', 'b')",
        "UPDATE t SET ä = 'x' WHERE Ü = 2; DELETE FROM t WHERE Ü = 1",
    )
    run_here(app, "rescue", "good", "t", "--missing", "--yes", check=0)
    assert rows_of(app, "t") == [(1, b"one", b"a"), (2, b"two", b"x")]
    run_here(app, "rescue", "good", "t", "--key", "2", "--overwrite", "--yes", check=0)
    assert rows_of(app, "t") == [(1, b"one", b"a"), (2, b"two", b"b")]


FAMILY = (
    "CREATE TABLE p (id INTEGER PRIMARY KEY, u UNIQUE); CREATE TABLE c (id INTEGER PRIMARY KEY, r REFERENCES p (u));"
)


def test_what_is_replaced_leaves_no_row_alone_that_refers_to_it(app: SmallApp) -> None:
    two(app, f"{FAMILY} INSERT INTO p VALUES (1, 'a')", "UPDATE p SET u = 'b'; INSERT INTO c VALUES (10, 'b')")
    done = run_here(app, "rescue", "good", "p", "--key", "1", "--overwrite", "--yes", check=2)
    assert "Rows of c would refer to rows of p that are not there. Nothing was written." in done.err
    assert rows_of(app, "p") == [(1, b"b")]


def test_a_key_that_is_mended_hides_none_that_breaks(app: SmallApp) -> None:
    two(
        app,
        f"{FAMILY} INSERT INTO p VALUES (1, 'a')",
        "UPDATE p SET u = 'b'; INSERT INTO c VALUES (10, 'b'), (11, 'a')",
    )
    run_here(app, "rescue", "good", "p", "--key", "1", "--overwrite", "--yes", check=2)
    assert rows_of(app, "p") == [(1, b"b")]


def test_a_search_index_knows_the_rows_that_came_back(app: SmallApp) -> None:
    two(
        app,
        """
        CREATE TABLE docs (id INTEGER PRIMARY KEY, body);
        CREATE VIRTUAL TABLE found USING fts5(body, content='docs', content_rowid='id');
        CREATE TRIGGER ai AFTER INSERT ON docs BEGIN INSERT INTO found(rowid, body) VALUES (new.id, new.body); END;
        CREATE TRIGGER ad AFTER DELETE ON docs BEGIN
          INSERT INTO found(found, rowid, body) VALUES ('delete', old.id, old.body); END;
        INSERT INTO docs VALUES (1, 'apple'), (2, 'pear');
        """,
        "DELETE FROM docs WHERE id = 2",
    )
    done = run_here(app, "rescue", "good", "docs", "--missing", "--yes", check=0)
    assert "The search index of docs is rebuilt: found." in done.out
    with contextlib.closing(app.connect()) as live:
        assert live.execute("SELECT rowid FROM found WHERE found MATCH 'pear'").fetchall() == [(2,)]
        live.execute("DELETE FROM docs WHERE id = 2")
        live.execute("INSERT INTO found(found) VALUES ('integrity-check')")


def test_a_rescue_that_was_refused_leaves_undo_as_it_was(shop: SmallApp) -> None:
    script(shop, "DELETE FROM people WHERE id = 3")
    run_here(shop, "restore", "good", "--yes", check=0)
    before = flags.last_restore(shop.backups)
    script(
        shop,
        "DELETE FROM people WHERE id = 3; CREATE UNIQUE INDEX x ON people (abs(boss));"
        "UPDATE people SET boss = 2 WHERE id = 1",
    )
    script(shop, "UPDATE people SET boss = 1 WHERE id = 2")
    run_here(shop, "rescue", "good", "people", "--missing", "--yes", check=2)
    assert flags.last_restore(shop.backups) == before


def test_a_condition_reads_the_backup_alone(app: SmallApp) -> None:
    two(
        app,
        "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE o (u);"
        "INSERT INTO t VALUES (1), (2), (3); INSERT INTO o VALUES (1), (2)",
        "DELETE FROM t; DELETE FROM o",
    )
    run_here(app, "rescue", "good", "t", "--where", "id IN (SELECT u FROM o)", "--yes", check=0)
    assert rows_of(app, "t") == [(1,), (2,)]
    done = run_here(app, "rows", "good", "t", "--diff", "--where", "id IN (SELECT u FROM o)", check=2)
    assert "a condition with a query in it" in done.err


def test_two_rows_never_become_one(app: SmallApp) -> None:
    two(
        app,
        "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('Bob', 1), ('bob', 2)",
        "DROP TABLE t; CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY, v); INSERT INTO t VALUES ('BOB', 3)",
    )
    done = run_here(app, "rescue", "good", "t", "--where", "1", "--overwrite", "--yes", check=2)
    assert "Two rows of t in the backup are one live row: BOB." in done.err
    assert rows_of(app, "t") == [(b"BOB", 3)]


def test_a_value_that_another_type_would_change_is_refused(app: SmallApp) -> None:
    two(
        app,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, g AS (a || '!') STORED);"
        "INSERT INTO t (id, a) VALUES (1, '00123'), (2, 'x')",
        "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, g)",
    )
    done = run_here(app, "rescue", "good", "t", "--key", "1", "--yes", check=2)
    assert "t 1 would not come back as it was: a column has another type now." in done.err
    run_here(app, "rescue", "good", "t", "--key", "2", "--yes", check=0)
    assert rows_of(app, "t") == [(2, b"x", b"x!")]


def test_triggers_keep_their_order(shop: SmallApp) -> None:
    script(
        shop,
        "".join(f"CREATE TRIGGER {name} AFTER UPDATE ON people BEGIN SELECT 1; END;" for name in ("mm", "aa", "zz")),
    )
    order = every_trigger(shop)
    script(shop, "DELETE FROM people WHERE id = 3")
    run_here(shop, "rescue", "good", "people", "--missing", "--yes", check=0)
    assert every_trigger(shop) == order


def test_a_reader_is_waited_for_where_it_must_be(shop: SmallApp) -> None:
    script(shop, "PRAGMA journal_mode=DELETE; DELETE FROM people WHERE id = 3")
    with contextlib.closing(sqlite3.connect(shop.database, check_same_thread=False, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM people").fetchone()
        end = threading.Timer(1, lambda: reader.execute("COMMIT"))
        end.start()
        run_here(shop, "rescue", "good", "people", "--missing", "--yes", check=0)
        end.join()
    assert len(rows_of(shop, "people")) == 3


@pytest.mark.parametrize("table", ["sqlite_master", "SQLITE_MASTER", "pragma_table_list", "json_each", "sqlite_schema"])
@pytest.mark.parametrize("words", [["rows"], ["rows", "--diff"], ["rescue", "--missing", "--dry-run"]], ids=str)
def test_what_is_no_table_of_the_app_is_told(shop: SmallApp, table: str, words: list[str]) -> None:
    done = run_here(shop, words[0], "good", table, *words[1:])
    assert done.code in (0, 2, 10) and "Traceback" not in done.err, done


def test_schemas_that_slipped_are_no_obstacle(app: SmallApp) -> None:
    two(
        app,
        """
        CREATE TABLE Par (id INTEGER PRIMARY KEY); CREATE TABLE bare (x);
        CREATE TABLE c (id INTEGER PRIMARY KEY, a REFERENCES PAR, b REFERENCES nowhere, d REFERENCES bare (x));
        INSERT INTO c VALUES (1, 99, 99, 99); INSERT INTO Par VALUES (5); INSERT INTO c VALUES (2, 5, NULL, NULL);
        CREATE TABLE k (k PRIMARY KEY); INSERT INTO k VALUES (1), (NULL);
        CREATE TABLE n (id INTEGER PRIMARY KEY, b REFERENCES nowhere); INSERT INTO n VALUES (1, 99);
        """,
        "DELETE FROM c; DELETE FROM Par; DELETE FROM k; DELETE FROM n",
    )
    run_here(app, "rescue", "good", "c", "--key", "1,2", "--yes", check=0)
    assert (rows_of(app, "c"), rows_of(app, "Par")) == ([(1, 99, 99, 99), (2, 5, None, None)], [(5,)])
    run_here(app, "rescue", "good", "n", "--missing", "--yes", check=0)
    assert rows_of(app, "n") == [(1, 99)]
    done = run_here(app, "rescue", "good", "k", "--missing", "--yes", check=0)
    assert "Rows of k whose key is NULL are left out" in done.out and rows_of(app, "k") == [(1,)]


def test_another_encoding_is_told_as_such(app: SmallApp) -> None:
    two(app, "CREATE TABLE t (id INTEGER PRIMARY KEY)", "")
    app.database.unlink()
    for sidecar in app.database.parent.glob("*-*"):
        sidecar.unlink()
    with contextlib.closing(sqlite3.connect(app.database)) as live:
        live.executescript("PRAGMA encoding='UTF-16'; CREATE TABLE t (id INTEGER PRIMARY KEY)")
    assert "another encoding of text" in run_here(app, "rescue", "good", "t", "--missing", check=2).err
    assert "another encoding of text" in run_here(app, "rows", "good", "t", "--diff", check=2).err


def test_a_row_with_a_text_key_keeps_its_number_where_that_is_free(app: SmallApp) -> None:
    """A search table with external content refers to the row by this number."""
    script(app, "CREATE TABLE pages (name TEXT PRIMARY KEY, text)")
    script(app, "INSERT INTO pages (rowid, name, text) VALUES (7, 'a', 'x'), (9, 'b', 'y')")
    script(app, "CREATE TABLE bare (k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO bare VALUES ('k')")
    create_backup(app.settings, BackupRequest("good"))
    script(app, "DELETE FROM pages; DELETE FROM bare; INSERT INTO pages (rowid, name, text) VALUES (9, 'new', 'z')")
    for table in ("pages", "bare"):
        run_here(app, "rescue", "good", table, "--missing", "--yes", check=0)
    with contextlib.closing(app.connect()) as live:
        found = dict(live.execute("SELECT name, rowid FROM pages"))
        assert (found["a"], found["new"], len(found)) == (7, 9, 3)
        assert live.execute("SELECT * FROM bare").fetchall() == [("k",)]


def test_a_row_of_an_exact_key_is_that_one_and_no_other_one(shop: SmallApp) -> None:
    script(shop, "CREATE TABLE odd (name PRIMARY KEY, value) WITHOUT ROWID")
    keys = ["a", "a\0b", b"a", 1.5, float("inf"), "1.5", "it's"]
    with contextlib.closing(shop.connect()) as live, live:
        live.executemany("INSERT INTO odd VALUES (?, 'x')", [(key,) for key in keys])
    create_backup(shop.settings, BackupRequest("odd"))
    script(shop, "DELETE FROM odd")
    for key in keys:
        plan = plan_rescue(shop.settings, "odd", "odd", Choice(rows=((key,),)))
        assert [row.key for row in plan.found.inserts] == [(key,)]
    for wrong in ((1.25,), ("a", "b"), (None,)):
        with pytest.raises((Refused, NoSuchBackup)):
            plan_rescue(shop.settings, "odd", "odd", Choice(rows=((keys[0],), wrong)))
    assert rows_of(shop, "odd") == []
