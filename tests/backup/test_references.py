"""`references`: in each backup, rows that name missing uploads and uploads that no row names are reported."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupkit.backup import references
from backupkit.model.backup import References
from backupkit.model.events import Event, Warned, silence
from refusals import assert_refusal, run_here
from small_app import SmallApp

SETTING = '[references]\n"documents.path" = "uploads/{value}"\n'


def configure(app: SmallApp, text: str = SETTING) -> None:
    (app.folder / "backup.toml").write_text(text)


@pytest.fixture
def app(app: SmallApp) -> SmallApp:
    """The app with this setting, two rows and their files, and a link that no row names."""
    configure(app)
    return app


def sealed(app: SmallApp, name: str) -> Any:
    return json.loads((app.backups / name / "backup_metadata.json").read_text())["references"]


def counts(found: Any) -> list[tuple[int, int, int]]:
    return [(one["rows"], one["missing"], one["outside"]) for one in found["columns"]]


def test_a_backup_counts_rows_whose_file_is_missing_and_files_without_a_row(app: SmallApp) -> None:
    app.execute("UPDATE documents SET path = '9/gone.txt' WHERE id = 1")
    done = run_here(app, "backup", "good", check=0)
    assert "1 row of documents.path names a file that is missing: 9/gone.txt" in done.out
    assert "2 files are named by no row: 1/letter.txt, latest" in done.out
    found = sealed(app, "good")
    assert counts(found) == [(2, 1, 0)] and found["columns"][0]["examples"] == ["9/gone.txt"]
    assert (found["unnamed"], found["unnamed_examples"]) == (2, ["1/letter.txt", "latest"])
    assert "missing: 9/gone.txt" in run_here(app, "show", "good", check=0).out
    assert run_here(app, "backup", "next", "--json", check=0).json["references"] == found


def test_where_each_row_finds_its_file_that_is_said_in_one_line(app: SmallApp) -> None:
    (app.uploads / "latest").unlink()
    assert "references each of 2 rows finds its file" in run_here(app, "backup", "good", check=0).out
    status = run_here(app, "status", "--json")
    assert counts(status.json["references"]) == [(2, 0, 0)]
    assert not any("names a file" in one["text"] for one in status.json["reasons"])


def test_status_warns_of_rows_whose_file_was_missing(app: SmallApp) -> None:
    (app.uploads / "1" / "letter.txt").unlink()
    run_here(app, "backup", "good", check=0)
    status = run_here(app, "status", "--json", check=1)
    assert "1 row names a file of the uploads that the last backup, good, does not have." in status.json["sentence"]
    assert "is missing: 1/letter.txt" in run_here(app, "status", check=1).out


def test_the_plan_of_a_restore_shows_them(app: SmallApp) -> None:
    (app.uploads / "1" / "letter.txt").unlink()
    run_here(app, "backup", "good", check=0)
    said = "In this backup 1 row of documents.path names a file that is missing: 1/letter.txt."
    assert said in run_here(app, "restore", "good", "--dry-run", check=0).out
    assert said not in run_here(app, "restore", "good", "--dry-run", "--only", "database", check=0).out


def test_verify_looks_at_the_backup_s_own_moment_with_the_settings_of_now(app: SmallApp) -> None:
    configure(app, "")
    run_here(app, "backup", "old", check=0)
    assert sealed(app, "old") is None
    configure(app)
    (app.uploads / "1" / "letter.txt").unlink()  # a live change, which does not matter here
    app.execute("DELETE FROM documents")
    assert "each of 2 rows finds its file" not in run_here(app, "verify", "old", check=0).out  # no row names `latest`
    found = run_here(app, "verify", "old", "--json", check=0).json
    assert counts(found["references"]) == [(2, 0, 0)] and found["references"]["unnamed"] == 1


def test_null_and_empty_name_nothing_and_what_leads_out_is_counted_apart(app: SmallApp) -> None:
    app.execute("CREATE TABLE names (path)")
    values = [None, "", "1/letter.txt", "./1//letter.txt", "../data/pats.db", "/etc/passwd", "a/../../x", ".", b"2/x"]
    for value in [*values, 7, "nul\0", "2"]:
        app.execute("INSERT INTO names VALUES (?)", (value,))
    app.write_upload("7", b"")
    configure(app, '[references]\nnames.path = "uploads/{value}"\n')  # TOML allows this without quotes
    run_here(app, "backup", "good", check=0)
    found = sealed(app, "good")
    assert counts(found) == [(10, 1, 5)] and found["columns"][0]["examples"] == ["2/x"]
    assert found["unnamed_examples"] == ["latest"]  # a row that names a folder names what is in it


def test_a_column_may_name_several_files(app: SmallApp) -> None:
    configure(app, '[references]\n"documents.path" = ["uploads/{value}", "uploads/thumbs/{value}.png"]\n')
    app.write_upload("thumbs/1/letter.txt.png", b"x")
    run_here(app, "backup", "good", check=0)
    found = sealed(app, "good")
    assert counts(found) == [(2, 0, 0), (2, 1, 0)] and found["unnamed_examples"] == ["latest"]


def test_a_file_that_is_excluded_is_not_called_missing(app: SmallApp) -> None:
    configure(app, 'exclude = ["/1/"]\nexclude_marked = [".nobackup"]\n' + SETTING)
    app.write_upload("2/.nobackup", b"")
    run_here(app, "backup", "good", check=0)
    (one,) = sealed(app, "good")["columns"]
    assert (one["missing"], one["left_out"]) == (0, 2)


@pytest.mark.parametrize(
    ("column", "names"),
    [("nothing.path", "no table nothing"), ("documents.nothing", "documents has no column nothing")],
)
def test_a_table_or_column_that_is_not_there_is_a_warning_and_no_failure(
    app: SmallApp, column: str, names: str
) -> None:
    configure(app, f'{SETTING}"{column}" = "uploads/{{value}}"\n')
    done = run_here(app, "backup", "good", check=3)
    assert "Warning: references: " in done.err and names in done.err
    found = sealed(app, "good")
    assert found["columns"][0]["missing"] == 0 and names in found["columns"][1]["error"]
    assert found["unnamed"] is None  # unknown, because it depends on that column
    assert names in run_here(app, "verify", "good", check=3).err


def test_the_database_alone_or_a_broken_one_is_not_looked_at(app: SmallApp) -> None:
    run_here(app, "backup", "small", "--no-uploads", check=0)
    assert sealed(app, "small") is None
    run_here(app, "verify", "small", check=0)
    run_here(app, "backup", "good", check=0)
    app.database.write_bytes(b"broken")
    run_here(app, "restore", "good", "--yes", check=0)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"path" = "uploads/{value}"', "not a table and a column"),
        ('"a.b" = "uploads/x"', "without {value}"),
        ('"a.b" = "{value}"', "not below uploads/"),
        ('"a.b" = "uploads/../{value}"', "not below uploads/"),
        ('"a.b" = "/uploads/{value}"', "not below uploads/"),
        ('"a.b" = []', "no path"),
        ('"a.b" = 5', "no path"),
        ('"a.b" = ["uploads/{value}", 5]', "without {value}"),
        ("[references.a.b]\nc = 5", "no path"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(app: SmallApp, text: str, names: str) -> None:
    configure(app, f"[references]\n{text}\n")
    assert_refusal(run_here(app, "backup"), 2, names, "config")


def test_the_setting_may_be_json_in_the_environment(app: SmallApp) -> None:
    configure(app, "")
    told = {"BACKUP_REFERENCES": '{"documents.path": "uploads/{value}"}'}
    run_here(app, "backup", "good", env=told, check=0)
    assert counts(sealed(app, "good")) == [(2, 0, 0)]
    assert "documents.path" in run_here(app, "config", env=told, check=0).out
    assert_refusal(run_here(app, "backup", env={"BACKUP_REFERENCES": "{"}), 2, "is not JSON", "unset BACKUP_REFERENCES")


MEMORY = """
import resource, sys
from pathlib import Path
from backupkit.backup import references
file, uploads = map(Path, sys.argv[1:])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wanted = {"many.path": ("uploads/{value}",)}
found = references.examine(wanted, file, uploads, references.LeftOut(), lambda _event: None)
assert (found.columns[0].rows, found.missing) == (1_000_000, 999_999), found
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_million_rows_are_not_in_memory_at_once(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "file-with-a-name-of-some-length-7.pdf").touch()
    with contextlib.closing(sqlite3.connect(tmp_path / "many.db")) as database, database:
        database.execute("CREATE TABLE many (path TEXT)")
        names = ((f"file-with-a-name-of-some-length-{number}.pdf",) for number in range(1_000_000))
        database.executemany("INSERT INTO many VALUES (?)", names)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "many.db", tmp_path / "uploads"],
        env={**os.environ, "PYTHONPATH": str(Path(references.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 16_000_000


PLACES = st.sampled_from(["a", "b/c", "b", "d/e/f.txt", "", None, "/a", "../a", "x/../a", "nowhere", "b/"])


@given(named=st.lists(PLACES, max_size=12), files=st.sets(st.sampled_from(["a", "b/c", "b/d", "d/e/f.txt", "g"])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_random_rows_and_files_are_told_as_a_person_would(
    tmp_path: Path, named: list[str | None], files: set[str]
) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(_folder(tmp_path)))
        (folder / "uploads").mkdir()
        for path in files:
            (folder / "uploads" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "uploads" / path).touch()
        with contextlib.closing(sqlite3.connect(folder / "x.db")) as database, database:
            database.execute("CREATE TABLE t (p)")
            database.executemany("INSERT INTO t VALUES (?)", [(one,) for one in named])
        found = references.examine(
            {"t.p": ("uploads/{value}",)}, folder / "x.db", folder / "uploads", references.LeftOut(), silence
        )
        asked = [one for one in named if one]
        outside = [one for one in asked if one.startswith(("/", ".."))]
        inside = [os.path.normpath(one) for one in asked if one not in outside]
        missing = [one for one in inside if not (folder / "uploads" / one).exists()]
        covered = {file for file in files if any(file == one or file.startswith(f"{one}/") for one in inside)}
        assert isinstance(found, References)
        assert (found.columns[0].rows, found.missing, found.columns[0].outside, found.unnamed) == (
            len(asked),
            len(missing),
            len(outside),
            len(files - covered),
        )


@contextlib.contextmanager
def _folder(above: Path) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory(dir=above) as folder:
        yield folder


def test_what_sqlite_cannot_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database" * 500)
    heard: list[Event] = []
    found = references.examine(
        {"t.p": ("uploads/{value}",)}, tmp_path / "x.db", tmp_path, references.LeftOut(), heard.append
    )
    assert found is None and any(isinstance(one, Warned) for one in heard)
