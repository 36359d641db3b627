"""Browsing a backup changes nothing in it or beside it, never leads out of it, and shows its true content."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import BackupError, Damaged, NoSuchBackup, Refused, SourceUnreadable
from backupkit.sqlite import rows
from backupkit.verify import browse
from refusals import Picture, picture
from small_app import SmallApp


def back_up(app: SmallApp, name: str = "kept") -> Path:
    return create_backup(app.settings, BackupRequest(name)).backup.path


def names(folder: browse.Folder) -> list[str]:
    return [item.name for item in folder.items]


def texts(page: rows.RowPage, column: str) -> list[str]:
    return [row.cells[page.columns.index(column)].text for row in page.rows]


def hand_made(app: SmallApp, name: str = "by_hand") -> Path:
    """Make a backup without a seal; its folder may hold anything."""
    folder = app.backups / name
    (folder / "uploads").mkdir(parents=True)
    (folder / "backup_metadata.json").write_text(
        '{"timestamp": "20241201_120000", "database_file": "pats.db", "uploads_included": true}'
    )
    return folder


def looked_at(app: SmallApp) -> Picture:
    """Return a picture of everything but the -shm files, in which every reader of a WAL database leaves a mark."""
    return {path: facts for path, facts in picture(app).items() if not path.endswith("-shm")}


# Uploads


def test_a_folder_is_told_with_its_folders_first_and_links_as_links(app: SmallApp) -> None:
    back_up(app)
    top = browse.look_into(app.settings, "kept")
    assert [(item.name, item.form) for item in top.items] == [
        ("1", "folder"),
        ("2", "folder"),
        ("empty", "folder"),
        ("latest", "link"),
    ]
    assert (top.total, top.items[-1].target) == (4, "2/letter.txt")
    (letter,) = browse.look_into(app.settings, "kept", "1").items
    assert (letter.name, letter.form, letter.size_bytes) == ("letter.txt", "file", len(b"Dear company 1\n"))


def test_of_a_large_folder_only_what_is_asked_for_is_looked_at(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        app.write_upload(f"many/{number:03}.txt", b"x")
    back_up(app)
    looked: list[str] = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: (looked.append(str(path)), real(path, **more))[1])
    part = browse.look_into(app.settings, "kept", "many", start=100, count=3)
    assert (names(part), part.start, part.total) == (["100.txt", "101.txt", "102.txt"], 100, 300)
    assert len([path for path in looked if path.endswith(".txt")]) == 3


@pytest.mark.parametrize("path", ["..", "../..", "1/../../x", "/etc", "out", "out/passwd"])
def test_no_path_and_no_link_leads_out_of_the_uploads(app: SmallApp, path: str) -> None:
    folder = hand_made(app)
    (folder / "uploads" / "out").symlink_to("/etc")
    before = picture(app)
    with pytest.raises(Refused):
        browse.look_into(app.settings, "by_hand", path)
    assert picture(app) == before


def test_what_is_not_there_is_named(app: SmallApp) -> None:
    back_up(app)
    with pytest.raises(NoSuchBackup, match="nowhere"):
        browse.look_into(app.settings, "kept", "nowhere")
    create_backup(app.settings, BackupRequest("rows_only", uploads=False))
    with pytest.raises(NoSuchBackup, match="no uploads"):
        browse.look_into(app.settings, "rows_only")


# Tables


def test_tables_are_told_with_their_rows_as_they_were_kept(app: SmallApp) -> None:
    back_up(app)
    app.add_rows(5)
    counted = {table.name: table.rows for table in browse.tables(app.settings, "kept")}
    assert (counted["companies"], counted["documents"]) == (3, 2)
    hand_made(app).joinpath("pats.db").write_bytes((app.backups / "kept" / "pats.db").read_bytes())
    assert {table.name: table.rows for table in browse.tables(app.settings, "by_hand")} == counted


def test_pages_follow_each_other_both_ways_without_a_gap(app: SmallApp) -> None:
    app.execute("DELETE FROM companies WHERE id = 2")
    app.add_rows(7)
    back_up(app)
    wanted = [str(row[0]) for row in app.rows("companies")]
    wanted.sort(key=int)
    seen: list[rows.RowPage] = []
    page = browse.read_page(app.settings, "kept", "companies", 4)
    assert not page.has_earlier
    while True:
        seen.append(page)
        if not page.has_later:
            break
        page = browse.read_page(app.settings, "kept", "companies", 4, after=page.rows[-1].key)
        assert page.has_earlier
    assert [text for one in seen for text in texts(one, "id")] == wanted
    for later, earlier in zip(reversed(seen), list(reversed(seen))[1:], strict=False):
        back = browse.read_page(app.settings, "kept", "companies", 4, before=later.rows[0].key)
        assert back.rows == earlier.rows
        assert back.has_later
    assert not back.has_earlier


def test_tables_of_every_kind_have_pages(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as made:
        made.executescript("""
            CREATE TABLE pairs (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
            CREATE TABLE "odd""name; --" ("ro""w" TEXT, rowid TEXT);
            CREATE TABLE counted (n INTEGER PRIMARY KEY, twice AS (n * 2));
            INSERT INTO pairs VALUES (1, 'x'), (1, 'y'), (2, 'a');
            INSERT INTO "odd""name; --" VALUES ('one', 'not the id'), ('two', 'not the id');
            INSERT INTO counted VALUES (5);
        """)
        first = rows.page(made, "pairs", 2)
        assert [row.key for row in first.rows] == [(1, "x"), (1, "y")]
        assert [row.key for row in rows.page(made, "pairs", 2, after=(1, "y")).rows] == [(2, "a")]
        odd = rows.page(made, 'odd"name; --', 1)
        assert odd.columns == ('ro"w', "rowid")
        assert texts(rows.page(made, 'odd"name; --', 1, after=odd.rows[0].key), 'ro"w') == ["two"]
        assert texts(rows.page(made, "counted", 1), "n") == ["5"]


def test_values_are_told_on_one_line_and_no_longer_than_can_be_read(app: SmallApp) -> None:
    app.execute("CREATE TABLE odd (value)")
    for value in (None, 7, 1.5, "b\x1b[31m\nc\u202e", "x" * 5000, b"\0" * 70_000, "é ✓"):
        app.execute("INSERT INTO odd VALUES (?)", (value,))
    app.execute("INSERT INTO odd VALUES (CAST(x'ff41' AS TEXT))")
    back_up(app)
    cells = [row.cells[0] for row in browse.read_page(app.settings, "kept", "odd", 50).rows]
    assert [cell.kind for cell in cells] == ["null", "integer", "real", "text", "text", "blob", "text", "text"]
    assert [cell.text for cell in cells[:4]] == ["", "7", "1.5", r"b\x1b[31m\nc\u202e"]
    assert (cells[4].text, cells[4].is_cut) == ("x" * 60, True)
    assert (cells[5].text, cells[5].size) == ("", 70_000)
    assert [cell.text for cell in cells[6:]] == ["é ✓", r"\udcffA"]


def test_blobs_are_told_by_size_in_utf16_too(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as made:
        made.executescript("PRAGMA encoding='UTF-16'; CREATE TABLE t (b); INSERT INTO t VALUES (zeroblob(123));")
        assert rows.page(made, "t", 1).rows[0].cells[0].size == 123


def test_a_table_that_is_not_there_and_a_database_that_is_none_are_named(app: SmallApp) -> None:
    back_up(app)
    with pytest.raises(NoSuchBackup, match="no table nothing"):
        browse.read_page(app.settings, "kept", "nothing", 5)
    folder = hand_made(app)
    with pytest.raises(Damaged, match="missing"):
        browse.tables(app.settings, "by_hand")
    (folder / "pats.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Damaged, match=str(folder / "pats.db")):
        browse.tables(app.settings, "by_hand")
    (folder / "pats.db").unlink()
    (folder / "pats.db").symlink_to(app.database)
    with pytest.raises(Damaged, match="link"):
        browse.read_page(app.settings, "by_hand", "companies", 5)


# Comparison with the live rows


def test_rows_that_came_went_and_changed_are_told(app: SmallApp) -> None:
    app.add_rows(4)
    back_up(app)
    app.execute("DELETE FROM applications WHERE company_id = 2")
    app.execute("DELETE FROM companies WHERE id = 2")
    app.execute("UPDATE companies SET name = 'COMPANY 3' WHERE id = 3")
    app.execute("INSERT INTO companies (id, name) VALUES (70, 'new')")
    found = browse.compare_table(app.settings, "kept", "companies")
    name = found.columns.index("name")
    told = [
        (one.kind, *(cells[name].text if cells else "" for cells in (one.before, one.after)))
        for one in found.differences
    ]
    assert told == [("gone", "Company 2", ""), ("came", "", "new"), ("changed", "Company 3", "COMPANY 3")]
    assert (found.keys, found.is_cut) == (("id",), False)
    assert not browse.compare_table(app.settings, "kept", "documents").differences


def test_a_change_that_its_collation_does_not_see_is_told(app: SmallApp) -> None:
    app.execute("CREATE TABLE tags (name TEXT COLLATE NOCASE PRIMARY KEY, note TEXT COLLATE NOCASE) WITHOUT ROWID")
    app.execute("INSERT INTO tags VALUES ('one', 'x'), ('two', NULL), ('three', 'same')")
    back_up(app)
    app.execute("UPDATE tags SET note = 'X' WHERE name = 'one'")
    app.execute("UPDATE tags SET note = '' WHERE name = 'two'")
    found = browse.compare_table(app.settings, "kept", "tags")
    assert [(one.kind, one.before[0].text) for one in found.differences] == [("changed", "one"), ("changed", "two")]


def test_without_a_primary_key_rows_are_known_by_their_row_id(app: SmallApp) -> None:
    app.execute("CREATE TABLE notes (text)")
    app.execute("INSERT INTO notes VALUES ('a'), ('b')")
    back_up(app)
    app.execute("UPDATE notes SET text = 'c' WHERE text = 'b'")
    found = browse.compare_table(app.settings, "kept", "notes")
    assert [(one.kind, one.before[0].text, one.after[0].text) for one in found.differences] == [("changed", "b", "c")]


def test_columns_of_one_side_are_left_out_of_the_comparison(app: SmallApp) -> None:
    back_up(app)
    app.execute("ALTER TABLE companies ADD COLUMN colour TEXT DEFAULT 'red'")
    found = browse.compare_table(app.settings, "kept", "companies")
    assert "colour" not in found.columns
    assert not found.differences


def test_a_comparison_ends_at_so_many_and_says_so(app: SmallApp) -> None:
    back_up(app)
    app.add_rows(30)
    found = browse.compare_table(app.settings, "kept", "companies", most=10)
    assert (found.count("came"), found.count("gone"), found.is_cut) == (10, 0, True)
    assert not browse.compare_table(app.settings, "kept", "companies", most=30).is_cut


def test_a_comparison_ends_when_its_time_is_over_and_says_so(app: SmallApp) -> None:
    app.execute("CREATE TABLE many (n INTEGER PRIMARY KEY)")
    app.execute(
        "INSERT INTO many SELECT value FROM"
        " (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c LIMIT 20000) SELECT value FROM c)"
    )
    back_up(app)
    app.execute("UPDATE many SET n = 20001 WHERE n = 20000")  # the last row, which it does not reach in 0 s
    assert browse.compare_table(app.settings, "kept", "many").count("gone") == 1
    found = browse.compare_table(app.settings, "kept", "many", seconds=0)
    assert (found.is_cut, found.is_late, found.differences) == (True, True, ())


def test_what_cannot_be_compared_is_one_sentence(app: SmallApp) -> None:
    back_up(app)
    app.execute("CREATE TABLE later (n)")
    with pytest.raises(NoSuchBackup, match="no table later in kept"):
        browse.compare_table(app.settings, "kept", "later")
    with contextlib.closing(app.connect()) as live:
        live.create_collation("ours", lambda one, other: (one > other) - (one < other))
        live.execute("CREATE TABLE sorted (word TEXT COLLATE ours PRIMARY KEY)")
        live.commit()
    back_up(app, "second")
    with pytest.raises(BackupError, match=r"The table sorted of .* cannot be compared with .*: no such collation"):
        browse.compare_table(app.settings, "second", "sorted")
    app.database.unlink()
    with pytest.raises(SourceUnreadable):
        browse.compare_table(app.settings, "kept", "companies")


def test_a_database_in_wal_mode_that_somebody_put_there_gets_nothing_beside_it(app: SmallApp) -> None:
    folder = hand_made(app)
    with contextlib.closing(app.connect()) as live:
        live.execute("VACUUM INTO ?", (str(folder / "pats.db"),))
    with contextlib.closing(sqlite3.connect(folder / "pats.db")) as copied:
        copied.execute("PRAGMA journal_mode=WAL")
    before = folder.stat().st_mtime_ns
    assert browse.read_page(app.settings, "by_hand", "companies", 5).rows
    assert not browse.compare_table(app.settings, "by_hand", "companies").differences
    assert sorted(os.listdir(folder)) == ["backup_metadata.json", "pats.db", "uploads"]
    assert folder.stat().st_mtime_ns == before  # nor was anything there for a moment


def test_looking_and_comparing_change_nothing_and_stop_no_writer(app: SmallApp) -> None:
    app.use_and_crash()
    back_up(app)
    before = looked_at(app)
    browse.tables(app.settings, "kept")
    browse.read_page(app.settings, "kept", "companies", 5)
    browse.compare_table(app.settings, "kept", "companies")
    assert looked_at(app) == before
    with app.writer() as report:
        for _ in range(20):
            browse.compare_table(app.settings, "kept", "companies")
    assert report.count and not report.errors
