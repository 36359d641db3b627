"""`rows` shows rows of a backup, and how live ones differ; no condition changes anything or runs without end."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sqlite3
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import BackupError
from backupkit.verify import browse
from refusals import run_here
from small_app import SmallApp

ODD = "CREATE TABLE odd (a TEXT PRIMARY KEY, b, c REAL)"


@pytest.fixture
def backed_up(app: SmallApp) -> SmallApp:
    app.execute("DELETE FROM companies")
    for number, name in enumerate(["Acme", "Bolt", "Alpha", "Cone"], 1):
        app.execute(f"INSERT INTO companies (id, name) VALUES ({number}, '{name}')")
    app.execute(ODD)
    app.execute("INSERT INTO odd VALUES ('x', x'00ff', 9e999), ('y', NULL, -0.5), ('a\nb,c', 'é', 1)")
    create_backup(app.settings, BackupRequest("good"))
    return app


@pytest.fixture
def changed(backed_up: SmallApp) -> SmallApp:
    backed_up.execute("UPDATE companies SET name = 'acme' WHERE id = 1")
    backed_up.execute("DELETE FROM companies WHERE id = 2")
    backed_up.execute("INSERT INTO companies (id, name) VALUES (9, 'New')")
    return backed_up


def test_rows_are_shown_in_the_order_of_their_keys(backed_up: SmallApp) -> None:
    said = run_here(backed_up, "rows", "latest", "companies", "--columns", "id,name", check=0).out
    assert [line.split() for line in said.splitlines()] == [
        ["id", "name"],
        ["1", "Acme"],
        ["2", "Bolt"],
        ["3", "Alpha"],
        ["4", "Cone"],
        ["4", "rows."],
    ]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("name LIKE 'A%'", [1, 3]),
        ("id > 2 AND name GLOB 'C*'", [4]),
        ("id IN (SELECT max(id) FROM companies)", [4]),
        ("id = 1 -- the first", [1]),
        ("0", []),
        ("length(name) = (SELECT max(length(name)) FROM companies)", [3]),
    ],
)
def test_a_condition_picks_rows(backed_up: SmallApp, where: str, ids: list[int]) -> None:
    found = run_here(
        backed_up, "rows", "good", "companies", "--where", where, "--columns", "ID", "--json", check=0
    ).json
    assert found["columns"] == ["id"]
    assert [row[0] for row in found["rows"]] == ids


def test_more_rows_than_were_asked_for_are_told(backed_up: SmallApp) -> None:
    assert "3 rows, and more: see --limit." in run_here(backed_up, "rows", "good", "companies", "--limit", "3").out
    assert run_here(backed_up, "rows", "good", "companies", "--limit", "3", "--json").json["more"] is True
    assert "more" not in run_here(backed_up, "rows", "good", "companies", "--limit", "4").out


def test_values_of_every_kind_come_whole(backed_up: SmallApp) -> None:
    found = run_here(backed_up, "rows", "good", "odd", "--json", check=0).json
    assert found["rows"] == [["x", {"base64": "AP8="}, {"real": "inf"}], ["y", None, -0.5], ["a\nb,c", "é", 1.0]]
    said = run_here(backed_up, "rows", "good", "odd", "--csv", check=0).out
    lines = [["a", "b", "c"], ["x", "X'00ff'", "inf"], ["y", "", "-0.5"], ["a\nb,c", "é", "1.0"]]
    assert list(csv.reader(io.StringIO(said))) == lines
    assert "a\\nb,c" in run_here(backed_up, "rows", "good", "odd", check=0).out


def test_rows_that_differ_are_told_by_column(changed: SmallApp) -> None:
    said = run_here(changed, "rows", "good", "companies", "--diff", "--columns", "name", check=0).out.splitlines()
    assert said == [
        "- id 2, name Bolt",
        "+ id 9, name New",
        "~ id 1: name Acme -> acme",
        "1 only in backup, 1 only live, 1 changed.",
    ]
    found = run_here(changed, "rows", "good", "companies", "--diff", "--columns", "name", "--json", check=0).json
    assert (found["keys"], found["columns"], found["more"]) == (["id"], ["id", "name"], False)
    assert found["differences"] == [
        {"kind": "only in backup", "backup": [2, "Bolt"], "live": None},
        {"kind": "only live", "backup": None, "live": [9, "New"]},
        {"kind": "changed", "backup": [1, "Acme"], "live": [1, "acme"]},
    ]
    said_csv = run_here(changed, "rows", "good", "companies", "--diff", "--columns", "name", "--csv", check=0).out
    assert said_csv.splitlines()[-2:] == ["changed,backup,1,Acme", "changed,live,1,acme"]


@pytest.mark.parametrize(
    ("where", "signs"),
    [("id = 2", "-"), ("name = 'acme'", "~"), ("name = 'Acme'", "~"), ("id > 8", "+"), ("id < 3", "-~"), ("0", "")],
)
def test_a_condition_picks_rows_that_meet_it_on_one_of_the_sides(changed: SmallApp, where: str, signs: str) -> None:
    said = run_here(changed, "rows", "good", "companies", "--diff", "--where", where, check=0).out.splitlines()
    assert "".join(line[0] for line in said[:-1]) == signs


def test_the_same_rows_are_said_to_be_the_same(backed_up: SmallApp) -> None:
    assert run_here(backed_up, "rows", "good", "odd", "--diff", check=0).out == "No row differs.\n"


@pytest.mark.parametrize(
    "where",
    [
        "nothing = 1",
        "id = ",
        "1) OR (1",
        "1) UNION SELECT id FROM companies --",
        "1); DELETE FROM companies; --",
        "1; ATTACH 'x.db' AS x",
        "load_extension('x')",
        "readfile('/etc/passwd') NOT NULL",
        "(DELETE FROM companies)",
        "count(*) > 1",
        "id = ?",
        "json_extract('{', '$')",
        "a\0b",
    ],
)
@pytest.mark.parametrize("options", [[], ["--diff"]], ids=["rows", "diff"])
def test_what_is_no_condition_is_refused_and_changes_nothing(
    backed_up: SmallApp, where: str, options: list[str]
) -> None:
    before = backed_up.contents()
    if "\0" in where:
        with pytest.raises(BackupError, match="zero byte"):
            browse.select_rows(backed_up.settings, "good", "companies", where)
        return
    done = run_here(backed_up, "rows", "good", "companies", "--where", where, *options)
    if where == "1) OR (1":
        assert done.code == 0  # it makes a valid expression
        return
    assert done.code == 2, done
    assert backed_up.contents() == before
    assert not Path("x.db").exists()


def test_a_condition_without_an_end_is_ended(backed_up: SmallApp) -> None:
    endless = "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c) > 0"
    with pytest.raises(BackupError, match=r"not done after 0\.5 s") as raised:
        browse.select_rows(backed_up.settings, "good", "companies", endless, seconds=0.5)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nope", "companies"], 10, "nope"),
        (["good", "nope"], 10, "There is no table nope in "),
        (["good", "companies", "--columns", "id,nope"], 10, "The table companies has no column nope."),
        (["good", "companies", "--csv", "--json"], 2, "two forms of one result"),
        (["good", "companies", "--limit", "0"], 2, "limit"),
        (["../x", "companies"], 2, "is not a name"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--diff"]], ids=["rows", "diff"])
def test_bad_input_is_told(backed_up: SmallApp, words: list[str], code: int, message: str, options: list[str]) -> None:
    done = run_here(backed_up, "rows", *words, *options)
    assert done.code == code
    assert message in done.err + done.out


def test_a_table_that_the_live_database_no_longer_has_is_named(backed_up: SmallApp) -> None:
    backed_up.execute("DROP TABLE odd")
    done = run_here(backed_up, "rows", "good", "odd", "--diff", check=10)
    assert "There is no table odd in the live database" in done.err
    assert "3 rows" in run_here(backed_up, "rows", "good", "odd", check=0).out


def test_a_damaged_backup_is_named(backed_up: SmallApp) -> None:
    file = backed_up.backups / "good" / "pats.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'companies'").fetchone()
    os.chmod(file, 0o600)
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    data[(root - 1) * size : root * size] = b"\xff" * size
    file.write_bytes(data)
    done = run_here(backed_up, "rows", "good", "companies", check=12)
    assert "cannot be read" in done.err


def test_a_view_has_rows_and_no_keys(app: SmallApp) -> None:
    app.execute("CREATE VIEW names AS SELECT name FROM companies")
    create_backup(app.settings, BackupRequest("good"))
    assert len(run_here(app, "rows", "good", "names", "--json", check=0).json["rows"]) == 3
    assert "names is a view" in run_here(app, "rows", "good", "names", "--diff", check=2).err


def test_numbers_of_another_kind_differ_and_names_in_capitals_do_not(app: SmallApp) -> None:
    app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, Name, v)")
    app.execute("INSERT INTO t VALUES (1, 'a', 1)")
    create_backup(app.settings, BackupRequest("good"))
    app.execute("ALTER TABLE t RENAME COLUMN Name TO name")
    app.execute("UPDATE t SET v = 1.0")
    assert "~ id 1: v 1 -> 1.0" in run_here(app, "rows", "good", "t", "--diff", check=0).out
    app.execute("UPDATE t SET v = 1, name = 'b'")
    assert "~ id 1: name a -> b" in run_here(app, "rows", "good", "t", "--diff", check=0).out


def test_rows_whose_key_is_null_are_told_apart(backed_up: SmallApp) -> None:
    """SQLite allows any number of them, unless the key is an INTEGER PRIMARY KEY."""
    backed_up.execute("CREATE TABLE codes (code TEXT PRIMARY KEY, what)")
    backed_up.execute("INSERT INTO codes VALUES (NULL, 'one'), (NULL, 'two'), ('x', 'three')")
    create_backup(backed_up.settings, BackupRequest("nulls"))
    assert "No row differs." in run_here(backed_up, "rows", "nulls", "codes", "--diff", check=0).out
    assert "unchanged: 9 tables" in run_here(backed_up, "restore", "nulls", "--dry-run", check=0).out
    backed_up.execute("UPDATE codes SET what = 'changed' WHERE what = 'two'")
    backed_up.execute("DELETE FROM codes WHERE what = 'one'")
    found = run_here(backed_up, "rows", "nulls", "codes", "--diff", "--json", check=0).json["differences"]
    assert [(one["kind"], one["backup"], one["live"]) for one in found] == [
        ("only in backup", [None, "one"], None),
        ("changed", [None, "two"], [None, "changed"]),
    ]


def test_of_a_table_without_a_key_each_row_is_named_by_its_number(backed_up: SmallApp) -> None:
    backed_up.execute("CREATE TABLE notes (text)")
    backed_up.execute("INSERT INTO notes VALUES ('a'), ('a'), ('b')")
    create_backup(backed_up.settings, BackupRequest("notes"))
    backed_up.execute("UPDATE notes SET text = 'c' WHERE rowid = 2")
    said = run_here(backed_up, "rows", "notes", "notes", "--diff", check=0).out
    assert said.splitlines()[0] == "~ rowid 2: text a -> c"
    found = run_here(backed_up, "rows", "notes", "notes", "--diff", "--json", check=0).json
    assert (found["columns"], found["differences"][0]["live"]) == (["rowid", "text"], [2, "c"])
