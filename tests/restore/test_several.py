"""Several databases and trees share one moment, one manifest and one journal, and are restored all or none."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from typing import NoReturn

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import STAGING, BackupRequest
from backupkit.model.errors import BackupError, Damaged, Refused, SourceUnreadable
from backupkit.model.events import Event, Notice, Warned, silence
from backupkit.repository import manifest, store
from backupkit.restore import journal, recovery
from backupkit.restore.rescue import plan_rescue, rescue_rows
from backupkit.restore.restore import Restored, plan_restore, restore_backup
from backupkit.restore.undo import needed, plan_undo
from backupkit.sqlite.row_rescue import Choice
from backupkit.verify import browse
from refusals import run_here
from several import SeveralApp, change_all, extend
from small_app import SmallApp


@pytest.fixture
def several(app: SmallApp) -> SeveralApp:
    return extend(app)


def back_up(app: SeveralApp, name: str = "good") -> tuple[object, ...]:
    create_backup(app.settings, BackupRequest(name))
    return app.everything()


def restore(app: SeveralApp, name: str = "good", **options: object) -> Restored:
    plan = plan_restore(app.settings, name, **options)  # type: ignore[arg-type]
    return restore_backup(app.settings, plan)


def test_a_backup_holds_every_database_and_every_tree_under_its_own_name(several: SeveralApp) -> None:
    back_up(several)
    folder = several.backups / "good"
    assert {one.name for one in folder.iterdir()} == {
        "pats.db",
        "cache.sqlite3",
        "queue.sqlite3",
        "uploads",
        "media",
        "backup_metadata.json",
        "SHA256SUMS",
        "RESTORE.md",
    }
    assert list(manifest.verify_checksums(folder)) == []
    metadata = json.loads((folder / "backup_metadata.json").read_text())
    assert [one["name"] for one in metadata["databases"]] == ["database", "cache", "queue", "media/inner.sqlite3"]
    assert [one["database_file"] for one in metadata["databases"]] == [
        "pats.db",
        "cache.sqlite3",
        "queue.sqlite3",
        "media/inner.sqlite3",
    ]
    assert [one["name"] for one in metadata["trees"]] == ["uploads", "media"]
    assert 0 < metadata["databases_gap_ms"] < 10_000
    assert metadata["databases"][1]["database"]["rows"] == {"entries": 1}
    assert store.read(several.settings, "good").state == "checked"


def test_a_backup_says_how_much_it_holds_of_all_of_them(several: SeveralApp) -> None:
    told = run_here(several, "backup", "good", check=0).out
    held = run_here(several, "show", "good", "--json", check=0).json
    rows = [one["database"]["rows"] for one in held["databases"]]
    tables, total = sum(map(len, rows)), sum(sum(one.values()) for one in rows)
    files = sum(one["uploads"]["files"] for one in held["trees"])
    assert f", {len(rows)} databases with {tables} tables, {total} rows, {files} uploads, revision" in told


def test_where_one_is_missing_the_next_step_names_its_own_table(several: SeveralApp) -> None:
    back_up(several)
    several.media.rename(several.media.with_name("away"))
    error = run_here(several, "backup", check=13).err
    assert "Next: Set path of [trees.media] in backup.toml to where it is" in error and "BACKUP_UPLOADS" not in error
    assert f"There is no folder media at {several.media}." in error
    several.media.with_name("away").rename(several.media)
    for part in ("", "-wal", "-shm"):
        several.cache.with_name(f"{several.cache.name}{part}").unlink(missing_ok=True)
    error = run_here(several, "backup", check=13).err
    assert "Next: Set path of [databases.cache] in backup.toml to where it is; if it is gone:" in error
    assert "restore NAME --only cache`." in error and "BACKUP_DATABASE" not in error
    assert "set path of [databases.cache] in backup.toml" in run_here(several, "doctor", check=1).out
    run_here(several, "restore", "good", "--only", "cache", "--force", check=0)
    run_here(several, "backup", check=0)


def test_the_page_for_restoring_by_hand_has_a_section_for_each_part(several: SeveralApp) -> None:
    back_up(several)
    heads = re.findall("^## .*", (several.backups / "good" / "RESTORE.md").read_text(), re.M)
    assert heads == [
        "## 1. Is this backup whole?",
        "## 2. The database",
        "## 3. The uploads",
        "## 2. The database cache",
        "## 2. The database queue",
        "## 3. The files of media",
        "## 4. The schema",
    ]


def test_a_backup_of_one_database_names_no_list(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    written = (app.backups / "good" / "backup_metadata.json").read_text()
    assert not {"databases", "trees", "databases_gap_ms"} & json.loads(written).keys()


def test_a_restore_brings_all_of_them_back_and_undo_takes_it_back(several: SeveralApp) -> None:
    before = back_up(several)
    change_all(several)
    after = several.everything()
    done = restore(several)
    assert several.everything() == before
    assert set(done.parts) == {"cache", "queue", "media", "media/inner.sqlite3"}
    restore_backup(several.settings, plan_undo(several.settings))
    assert several.everything() == after
    assert not list(several.folder.rglob(STAGING))
    assert not journal.exists(several.backups)


@pytest.mark.parametrize("name", ["database", "cache", "media", "uploads"])
def test_only_the_named_one_is_restored_and_undone(several: SeveralApp, name: str) -> None:
    before = back_up(several)
    change_all(several)
    after = several.everything()
    restore(several, only=name)
    now = several.everything()
    changed = [one for one, (old, new) in enumerate(zip(after, now, strict=True)) if old != new]
    assert changed == {"database": [0], "uploads": [0], "cache": [1], "media": [3, 4]}[name]
    if name in ("cache", "media"):
        assert now[changed[0]] == before[changed[0]]
    restore_backup(several.settings, plan_undo(several.settings))
    assert several.everything() == after


def test_only_something_that_is_not_there_is_refused_with_the_names(several: SeveralApp) -> None:
    back_up(several)
    with pytest.raises(Refused) as refused:
        plan_restore(several.settings, "good", only="cach")
    assert "cach" in refused.value.message
    assert "database, uploads, cache, queue, media" in refused.value.hint


def test_an_error_in_the_second_database_takes_the_first_back(several: SeveralApp) -> None:
    back_up(several)
    change_all(several)
    after = several.everything()
    seen: list[str] = []
    with closing(sqlite3.connect(several.queue, isolation_level=None)) as other:
        plan = plan_restore(several.quick().settings, "good")

        def listen(event: Event) -> None:
            found = journal.read(several.backups) if journal.exists(several.backups) else None
            if found and not found.database and not seen:
                other.execute("BEGIN IMMEDIATE")
                seen.extend(one.name for one in found.others if one.database)
            if "rolling back" in getattr(event, "text", ""):
                other.execute("ROLLBACK")

        with pytest.raises(SourceUnreadable, match="stayed locked"):
            restore_backup(several.settings, plan, listen)
    assert "queue" in seen
    assert several.everything() == after
    assert not journal.exists(several.backups)
    assert not list(several.folder.rglob(STAGING))


def test_where_the_disk_is_too_full_to_go_back_it_is_said_what_is_left_to_do(
    several: SeveralApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = back_up(several)
    change_all(several)
    heard: list[Event] = []
    plan = plan_restore(several.settings, "good")

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(several.backups))

    def fill(_settings: object, done: object, *_: object) -> NoReturn:
        monkeypatch.setattr(journal, "write", full)
        full()

    monkeypatch.setattr(recovery, "database_is_done", fill)
    with pytest.raises(OSError, match="No space"):
        restore_backup(several.settings, plan, heard.append)
    monkeypatch.undo()
    said = [one.text for one in heard if isinstance(one, Warned)]
    assert said[-1] == "Neither the restore nor its rollback is finished. Type: `recover`"
    assert several.everything() != before
    recovery.recover(several.settings)
    assert several.everything() == before


def test_a_database_that_may_be_missing_is_left_out_and_comes_back_where_a_backup_has_it(several: SeveralApp) -> None:
    before = back_up(several)
    several.queue.unlink()
    heard: list[Event] = []
    create_backup(several.settings, BackupRequest("without"), heard.append)
    assert any("queue" in one.text for one in heard if isinstance(one, Notice))
    assert not (several.backups / "without" / "queue.sqlite3").exists()
    plan = plan_restore(several.settings, "good")
    assert plan.can_undo and any(
        note.startswith("There is no queue now: `undo` does not") for one in plan.each for note in one.notes
    )
    done = restore_backup(several.settings, plan)
    assert several.everything() == before and done.can_undo and not done.kept
    restore_backup(several.settings, plan_undo(several.settings))
    assert several.values(several.queue) == ["before"]
    plan = plan_restore(several.settings, "without")
    assert any(note.startswith("queue stays as it is") for note in plan.notes)
    restore_backup(several.settings, plan)
    assert several.values(several.queue) == ["before"]


def test_a_database_that_must_be_there_and_is_missing_stops_the_backup(several: SeveralApp) -> None:
    several.cache.unlink()
    with pytest.raises(SourceUnreadable, match=r"cache\.sqlite3"):
        create_backup(several.settings, BackupRequest("good"))
    assert list(store.all_backups(several.settings)) == []


def test_a_database_that_the_app_has_no_place_for_stays_in_the_backup_and_is_named(several: SeveralApp) -> None:
    back_up(several)
    change_all(several)
    (several.folder / "backup.toml").write_text('[trees.media]\npath = "media"\n')
    plan = plan_restore(several.settings, "good")
    assert [note for note in plan.notes if note.startswith(("cache stays in", "queue stays in"))]
    restore_backup(several.settings, plan)
    assert several.values(several.cache) == ["before", "after"]


def test_an_older_backup_of_one_restores_into_an_app_with_several(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("old"))
    before = app.contents()
    several = extend(app)
    change_all(several)
    plan = plan_restore(several.settings, "old")
    assert len([note for note in plan.notes if "stays as it is: it is not in this backup" in note]) == 3
    restore_backup(several.settings, plan)
    assert several.contents() == before
    assert several.values(several.cache) == ["before", "after"]


def test_rows_that_came_to_the_second_database_meanwhile_are_kept(several: SeveralApp) -> None:
    back_up(several)
    change_all(several)
    plan = plan_restore(several.settings, "good")
    done_once: list[bool] = []

    def listen(event: Event) -> None:
        if not done_once and journal.exists(several.backups):
            done_once.append(True)
            several.put(several.queue, "late")

    restore_backup(several.settings, plan, listen)
    assert done_once
    assert several.values(several.queue) == ["before"]
    kept = [one for one in store.all_backups(several.settings) if (one.path / "queue.sqlite3").exists()]
    assert any("late" in (several.values(one.path / "queue.sqlite3") or []) for one in kept)


def test_unchanged_databases_and_files_of_trees_are_shared_with_the_backup_before(several: SeveralApp) -> None:
    back_up(several, "one")
    back_up(several, "two")
    for path in ("media/deep/film.bin", "cache.sqlite3", "queue.sqlite3", "pats.db"):
        one, two = (several.backups / name / path for name in ("one", "two"))
        assert one.samefile(two), path


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ('[databases.two]\npath = "other/pats.db"', "pats.db"),
        ('[databases.two]\npath = "other/PATS.DB"', "PATS.DB"),
        ('[databases.two]\npath = "data/pats.db"', "twice"),
        ('[databases.two]\npath = "data/Uploads"', "Uploads"),
        ('[databases.two]\npath = "data/restore.MD"', "restore.MD"),
        ('[databases.two]\npath = "data/media"\n[trees.media]\npath = "media"', "media"),
        ('[databases.two]\npath = "data/pats.db-wal"', "pats.db-wal"),
        ('[trees.two]\npath = "uploads/inner"', "overlap"),
        ('[trees.two]\npath = "backups"', "overlap"),
        ('[databases.uploads]\npath = "data/x.db"', "uploads"),
        ('[databases.Two]\npath = "data/x.db"', "Two"),
        ("[databases.two]\nalembic_ini = 'x'", "two.path is missing"),
    ],
)
def test_names_that_collide_and_places_that_overlap_are_refused(app: SmallApp, tables: str, said: str) -> None:
    (app.folder / "backup.toml").write_text(tables)
    result = app.command("backup", "x")
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err
    assert list(app.backups.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"databases": [{"name": "database", "database_file": "other.db"}]},
        {"databases.1": {"name": "../x", "database_file": "cache.sqlite3"}},
        {"databases.1": {"name": "uploads/../../x", "database_file": "uploads/../../x"}},
        {"databases.1": {"name": "cache", "database_file": "../cache.sqlite3"}},
        {"databases.1": {"name": "cache", "database_file": "uploads/1"}},
        {"databases.1": {"name": "uploads/.backupkit-staging/x", "database_file": "uploads/.backupkit-staging/x"}},
        {"databases.1": {"name": "queue", "database_file": "queue.sqlite3"}},
        {"trees.1": {"name": "../media", "uploads": {"files": 1, "bytes": 1}}},
        {"trees.1": {"name": "pats.db", "uploads": {"files": 1, "bytes": 1}}},
    ],
)
def test_metadata_that_lead_elsewhere_are_not_trusted(several: SeveralApp, change: dict[str, object]) -> None:
    back_up(several)
    file = several.backups / "good" / "backup_metadata.json"
    metadata = json.loads(file.read_text())
    for key, value in change.items():
        name, _, number = key.partition(".")
        if number:
            metadata[name][int(number)] = value
        else:
            metadata[name] = value
    file.write_text(json.dumps(metadata))
    before = several.everything()
    result = several.command("restore", "good", "--force")
    assert result.code == 12, result.err
    assert "cannot be trusted" in result.err
    assert several.everything() == before


def test_a_test_restore_proves_all_of_them(several: SeveralApp) -> None:
    back_up(several)
    before = several.everything()
    result = several.command("verify", "good", "--test-restore", check=0)
    assert "proven" in result.out or "passed" in result.out
    assert several.everything() == before


def test_damage_in_any_of_them_is_found_and_stops_a_restore(several: SeveralApp) -> None:
    for number, path in enumerate(("cache.sqlite3", "queue.sqlite3", "media/title.txt")):
        name = f"b{number}"
        several.put(several.cache, "x")
        several.put(several.queue, "x")
        (several.media / "title.txt").write_text(name)
        back_up(several, name)
        file = several.backups / name / path
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        shutil.copymode(file, file)
        file.write_bytes(content)
        before = several.everything()
        assert path in several.command("verify", name, check=12).err
        with pytest.raises(BackupError, match="damaged"):
            plan_restore(several.settings, name)
        assert several.everything() == before


def test_an_interrupted_restore_of_several_is_finished_by_the_next_command(several: SeveralApp) -> None:
    before = back_up(several)
    change_all(several)
    plan = plan_restore(several.settings, "good")

    class Killed(BaseException):
        pass

    def stop(_event: Event) -> None:
        if (found := journal.read(several.backups)) and not found.database:
            raise Killed

    original = recovery.roll_back
    try:
        recovery.roll_back = lambda *_: None  # a killed process rolls nothing back
        with pytest.raises(Killed):
            restore_backup(several.settings, plan, stop)
    finally:
        recovery.roll_back = original
    assert recovery.recover(several.settings, silence)
    assert several.everything() == before


def test_a_locked_second_database_is_left_to_the_app_and_nothing_waits_for_a_recovery(several: SeveralApp) -> None:
    """The restore did not change it, so nothing is rolled back, and what the app commits there stays."""
    back_up(several)
    change_all(several)
    with closing(sqlite3.connect(several.cache, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO entries (value) VALUES ('committed later')")
        plan = plan_restore(several.quick().settings, "good")
        with pytest.raises(SourceUnreadable, match="stayed locked"):
            restore_backup(several.settings, plan)
        assert not journal.exists(several.backups)
        other.execute("COMMIT")
    assert several.values(several.cache) == ["before", "after", "committed later"]
    assert several.values(several.queue) == ["before", "after"] and several.rows("documents") == []
    assert (several.media / "came.txt").exists() and (several.uploads / "new" / "one.txt").exists()


def test_a_broken_database_beside_it_takes_no_way_back_from_another_one(several: SeveralApp) -> None:
    back_up(several)
    change_all(several)
    for path in several.cache.parent.glob("cache.sqlite3*"):
        path.unlink()
    several.cache.write_bytes(b"no database" * 100)
    done = restore_backup(several.settings, plan_restore(several.settings, "good", only="queue"))
    assert done.can_undo and not done.kept
    restore_backup(several.settings, plan_undo(several.settings))
    assert several.values(several.queue) == ["before", "after"]
    done = restore_backup(several.settings, plan_restore(several.settings, "good"))
    assert not done.can_undo and [path.name for path in done.kept] == ["cache.sqlite3"]
    with pytest.raises(Damaged) as refused:
        plan_undo(several.settings)
    assert f"`restore {done.safety} --only database`; so too queue." in refused.value.hint


def test_what_shrinks_in_a_further_database_or_tree_is_unusual(several: SeveralApp) -> None:
    with closing(sqlite3.connect(several.cache)) as live, live:
        live.executemany("INSERT INTO entries (value) VALUES (?)", [("x",)] * 500)
    for number in range(20):
        (several.media / f"{number}.txt").write_text("x")
    back_up(several)
    with closing(sqlite3.connect(several.cache)) as live, live:
        live.execute("DELETE FROM entries")
    for number in range(20):
        (several.media / f"{number}.txt").unlink()
    found = create_backup(several.settings, BackupRequest("lost")).backup
    assert found.unusual == (
        "cache: table entries: 0 rows, down from 501 rows",
        "media: 3 files, down from 23 files",
    )


def test_undo_brings_each_part_back_from_the_safety_copy_that_has_its_last_row(several: SeveralApp) -> None:
    """The app writes to the others after the first database was replaced: a later safety copy has their last rows."""
    back_up(several)
    change_all(several)
    plan = plan_restore(several.settings, "good")
    after: list[tuple[object, ...]] = []

    def listen(event: Event) -> None:
        found = journal.read(several.backups) if journal.exists(several.backups) else None
        if found and not found.back and not found.database and not after:
            several.put(several.cache, "late")
            (several.media / "late.txt").write_text("late")
            after.append((several.values(several.cache), several.values(several.queue), several.values(several.inner)))

    done = restore_backup(several.settings, plan, listen)
    assert done.can_undo and not [one for one in done.warnings if "undo" in one]
    undo = plan_undo(several.settings)
    (said,) = [note for note in undo.notes if note.startswith("cache comes from pre_restore_")]
    later = said.split()[3].rstrip(",")
    assert later != done.safety and {done.safety, later} <= needed(several.settings)
    restore_backup(several.settings, undo)
    assert (several.values(several.cache), several.values(several.queue), several.values(several.inner)) == after[0]
    assert (several.media / "late.txt").exists() and several.rows("documents") == []
    restore_backup(several.settings, plan_undo(several.settings))
    assert several.values(several.cache) == ["before"] and several.rows("documents")


def test_undo_goes_on_without_a_later_safety_copy_that_was_deleted(several: SeveralApp) -> None:
    back_up(several)
    change_all(several)
    before = several.values(several.cache), several.rows("documents")
    plan = plan_restore(several.settings, "good")
    written: list[str] = []

    def listen(event: Event) -> None:
        found = journal.read(several.backups) if journal.exists(several.backups) else None
        if found and not found.back and not found.database and not written:
            several.put(several.cache, "late")
            written.append("late")

    safety = restore_backup(several.settings, plan, listen).safety
    (later,) = needed(several.settings) - {safety}
    said = several.command("delete", later, "--yes", check=0).err
    assert "An undo takes cache" in said and f"go back to {safety}" in said
    undone = several.command("undo", "--yes", check=0)
    assert f"cache goes back to {safety}: {later} is gone" in undone.out + undone.err
    assert (several.values(several.cache), several.rows("documents")) == before and written


def test_what_is_left_of_a_further_database_is_salvaged_and_put_back_alone(several: SeveralApp) -> None:
    with closing(sqlite3.connect(several.queue)) as live, live:
        live.executemany("INSERT INTO entries (value) VALUES (?)", [(f"{number:04}" * 50,) for number in range(200)])
    back_up(several)
    several.put(several.queue, "later")
    content = bytearray(several.queue.read_bytes())
    content[4096 * 2 : 4096 * 3] = bytes(4096)
    several.queue.write_bytes(content)
    others = several.contents(), several.values(several.cache)
    refused = several.command("backup", "impossible", check=13)
    assert "salvage --database queue`" in refused.err and "restore NAME --only queue`" in refused.err
    assert "salvage --database queue" in several.command("doctor", check=None).out
    assert "salvage --database queue`" in several.command("salvage", str(several.queue), check=2).err
    done = several.command("salvage", "--database", "queue", "--json", check=3).json
    (entries,) = done["tables"]
    assert done["compared_with"] == "good" and entries["new"] == 1 and entries["lost_pages"] == 1
    assert "`--only queue`" in done["advice"]
    name = done["backup"]["backup_name"]
    assert {"pats.db", "cache.sqlite3", "queue.sqlite3"} <= {one.name for one in (several.backups / name).iterdir()}
    several.command("verify", name, check=0)
    several.put(several.cache, "goes on")
    several.command("restore", name, "--only", "queue", "--yes", check=0)
    values = several.values(several.queue)
    assert values and len(values) == entries["found"] and "later" in values
    assert (several.contents(), several.values(several.cache)) == (others[0], ["before", "goes on"])


def test_files_of_a_further_tree_are_listed_put_back_and_taken_out(several: SeveralApp) -> None:
    before = back_up(several)
    change_all(several)
    after = several.everything()
    media = ("--tree", "media")
    listed = {one["path"]: one["live"] for one in several.command("files", "good", *media, "--json", check=0).json}
    assert listed == {"deep/film.bin": "missing", "title.txt": "changed", "inner.sqlite3": "changed"}
    assert several.command("extract", "good", "title.txt", "--to", "-", *media, check=0).out == "a title"
    out = several.folder.parent / "out"
    several.command("extract", "good", "*.bin", "inner.sqlite3", "--to", str(out), *media, check=0)
    assert (out / "deep" / "film.bin").read_bytes() == bytes(range(256)) * 64
    assert several.values(out / "inner.sqlite3") == ["before"]
    several.command("extract", "good", "deep/film.bin", "inner.sqlite3", *media, "--yes", check=0)
    assert several.values(several.inner) == ["before"] and (several.media / "deep" / "film.bin").exists()
    assert (several.media / "title.txt").read_text() == "another title" and several.contents() == after[0] != before[0]
    several.command("undo", "--yes", check=0)
    assert several.everything() == after
    assert "media" in several.command("files", "good", "nothing", *media, check=10).err
    refused = several.command("extract", "good", "title.txt", "--tree", "medai", "--yes", check=2)
    assert "There are: uploads, media" in refused.err


def test_each_command_works_on_the_database_that_is_named(several: SeveralApp) -> None:
    with closing(sqlite3.connect(several.cache)) as live, live:
        live.execute("CREATE TABLE words (word TEXT PRIMARY KEY, meaning TEXT)")
        live.execute("INSERT INTO words VALUES ('it''s', 'one'), ('x', 'two')")
    back_up(several)
    cache = ("--database", "cache")
    others = several.contents(), several.values(several.queue)
    run_here(several, "dump", "cache.sql", *cache, check=0)
    with closing(sqlite3.connect(several.cache)) as live, live:
        live.execute("DELETE FROM words")
        live.execute("DELETE FROM entries")
    assert "it's" in run_here(several, "rows", "good", "words", *cache, check=0).out
    assert "only in backup" in run_here(several, "rows", "good", "words", "--diff", *cache, check=0).out
    assert "words" in run_here(several, "rows", "good", "words", check=10).err  # the first database has no such table
    part = several.settings.at("cache")
    assert part
    for row in browse.read_page(part, "good", "words", 9).rows:
        rescue_rows(part, plan_rescue(part, "good", "words", Choice(rows=(row.key,))))
    run_here(several, "rescue", "good", "entries", "--missing", "--yes", *cache, check=0)
    assert several.values(several.cache) == ["before"]
    run_here(several, "undo", "--yes", check=0)
    assert several.values(several.cache) == []
    run_here(several, "restore-dump", "cache.sql", "--yes", *cache, check=0)
    assert several.values(several.cache) == ["before"]
    with closing(sqlite3.connect(several.cache)) as live:
        assert live.execute("SELECT word FROM words ORDER BY word").fetchall() == [("it's",), ("x",)]
    assert (several.contents(), several.values(several.queue)) == others
    for command in (("rows", "good", "words"), ("dump",), ("migrate",), ("salvage",), ("restore-dump", "cache.sql")):
        refused = run_here(several, *command, "--database", "cach", check=2)
        assert "There are: database, cache, queue" in refused.err, command
