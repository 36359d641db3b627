"""With `references`, `rescue` brings back the uploads that the rows name together with the rows, or neither."""

from __future__ import annotations

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.settings import load_settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Refused, SourceUnreadable
from backupkit.model.events import Event, Step
from backupkit.restore.rescue import plan_rescue, rescue_rows
from backupkit.sqlite.row_rescue import Choice
from refusals import picture, run_here
from small_app import SmallApp, tree

SETTING = '[references]\n"documents.path" = ["uploads/{value}", "uploads/thumbs/{value}.png"]\n'
RESCUE = ("rescue", "good", "documents", "--missing")


@pytest.fixture
def app(app: SmallApp) -> SmallApp:
    """An app that lost both documents and their files, one of them with a picture."""
    (app.folder / "backup.toml").write_text(SETTING)
    app.write_upload("thumbs/1/letter.txt.png", b"a picture")
    create_backup(app.settings, BackupRequest("good"))
    app.execute("DELETE FROM documents")
    for path in ("1/letter.txt", "2/letter.txt", "thumbs/1/letter.txt.png"):
        (app.uploads / path).unlink()
    (app.uploads / "1").rmdir()
    app.write_upload("other.txt", b"not in the backup")
    return app


def test_the_files_that_the_rows_name_come_back_too_and_no_others(app: SmallApp) -> None:
    app.write_upload("9/changed.txt", b"mine")
    before = tree(app.uploads)
    plan = run_here(app, *RESCUE, "--dry-run", check=0)
    assert "3 uploads that they name, to bring back: 1/letter.txt, 2/letter.txt, thumbs/1/letter.txt.png" in plan.out
    done = run_here(app, *RESCUE, "--yes", "--json", check=0).json
    assert done["uploads"] == ["1/letter.txt", "2/letter.txt", "thumbs/1/letter.txt.png"]
    assert len(app.rows("documents")) == 2
    after = tree(app.uploads)
    assert after["1/letter.txt"][3] == b"Dear company 1\n"
    assert set(after) - set(before) == {"1", *done["uploads"]}
    assert {path: after[path][3] for path in before} == {path: facts[3] for path, facts in before.items()}


def test_undo_takes_rows_and_files_back(app: SmallApp) -> None:
    before = app.contents()
    run_here(app, *RESCUE, "--yes", check=0)
    run_here(app, "undo", "--yes", check=0)
    assert app.contents() == before
    run_here(app, "undo", "--yes", check=0)
    assert (app.uploads / "1" / "letter.txt").exists() and len(app.rows("documents")) == 2


def test_a_file_that_is_another_one_now_stays_and_one_that_is_nowhere_is_named(app: SmallApp) -> None:
    app.write_upload("1/letter.txt", b"another one")
    done = run_here(app, *RESCUE, "--yes", check=0)
    assert "others now, and stay as they are: 1/letter.txt" in done.out
    assert "neither live nor in the backup: thumbs/2/letter.txt.png" in done.out
    assert (app.uploads / "1" / "letter.txt").read_bytes() == b"another one"


def test_rows_that_are_not_written_bring_no_file(app: SmallApp) -> None:
    run_here(app, *RESCUE, "--yes", check=0)
    app.execute("UPDATE documents SET name = 'changed' WHERE id = 1")
    (app.uploads / "1" / "letter.txt").unlink()
    run_here(app, "rescue", "good", "documents", "--where", "1", "--yes", check=0)
    assert not (app.uploads / "1" / "letter.txt").exists()
    run_here(app, "rescue", "good", "documents", "--where", "1", "--overwrite", "--yes", check=0)
    assert (app.uploads / "1" / "letter.txt").exists()


def test_what_is_excluded_now_stays_away(app: SmallApp) -> None:
    (app.folder / "backup.toml").write_text('exclude = ["/1/"]\n' + SETTING)
    run_here(app, *RESCUE, "--yes", check=0)
    assert not (app.uploads / "1").exists() and (app.uploads / "2" / "letter.txt").exists()


def test_a_value_that_leads_out_names_no_file(app: SmallApp) -> None:
    run_here(app, "restore", "good", "--yes", check=0)
    app.execute("UPDATE documents SET path = '../data/pats.db' WHERE id = 1")
    create_backup(app.settings, BackupRequest("odd"))
    app.execute("DELETE FROM documents")
    done = run_here(app, "rescue", "odd", "documents", "--missing", "--yes", "--json", check=0).json
    assert (done["uploads"], len(app.rows("documents"))) == ([], 2)


def test_a_backup_without_uploads_brings_the_rows_alone(app: SmallApp) -> None:
    run_here(app, "restore", "good", "--yes", "--only", "database", check=0)
    run_here(app, "backup", "small", "--no-uploads", check=0)
    app.execute("DELETE FROM documents")
    done = run_here(app, "rescue", "small", "documents", "--missing", "--yes", check=0)
    assert "neither live nor in the backup: 1/letter.txt" in done.out and len(app.rows("documents")) == 2


def test_a_damaged_file_stops_the_rescue_before_anything_is_done(app: SmallApp) -> None:
    (app.backups / "good" / "uploads" / "1" / "letter.txt").write_bytes(b"Dear nobody 1\n")
    before = picture(app)
    assert "letter.txt" in run_here(app, *RESCUE, "--yes", check=12).err
    assert picture(app) == before


def test_where_the_rows_cannot_come_no_file_has_come(app: SmallApp) -> None:
    plan = plan_rescue(load_settings(app.folder), "good", "documents", Choice(missing=True))
    app.execute("INSERT INTO documents (id, application_id, name, path, size_bytes) VALUES (1, 1, 'n', 'p', 1)")
    before = tree(app.uploads)
    with pytest.raises(Refused, match="changed meanwhile"):
        rescue_rows(load_settings(app.folder), plan)
    assert tree(app.uploads) == before


def test_files_that_had_come_go_again_where_somebody_wrote_in_between(app: SmallApp) -> None:
    run_here(app, "backup", "later", check=0)
    run_here(app, "restore", "later", "--yes", check=0)
    before, would_undo = tree(app.uploads), run_here(app, "undo", "--dry-run", "--json", check=0).json["source"]

    def write(event: Event) -> None:
        if event == Step("Bringing rows back"):
            app.execute("INSERT INTO documents (id, application_id, name, path, size_bytes) VALUES (1, 1, 'n', 'p', 1)")

    settings = load_settings(app.folder)
    plan = plan_rescue(settings, "good", "documents", Choice(missing=True))
    with pytest.raises(Refused, match="changed meanwhile"):
        rescue_rows(settings, plan, write)
    files = {path for path, facts in tree(app.uploads).items() if facts[0] != "folder"}
    assert files == {path for path, facts in before.items() if facts[0] != "folder"}
    assert len(app.rows("documents")) == 1
    assert run_here(app, "undo", "--dry-run", "--json", check=0).json["source"] == would_undo


def test_a_locked_database_brings_nothing(app: SmallApp) -> None:
    before = tree(app.uploads)
    settings = load_settings(app.folder, busy_timeout=0.1)
    plan = plan_rescue(settings, "good", "documents", Choice(missing=True))
    blocker = app.connect()
    blocker.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(SourceUnreadable, match="locked"):
            rescue_rows(settings, plan)
    finally:
        blocker.close()
    assert tree(app.uploads) == before
