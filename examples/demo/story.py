"""The whole story on throw-away data: an app, a backup, a disaster, the restore, with a proof at each step.

Every command is the real one, run in a process of its own on a scratch app. None of the caller's settings reaches it,
so that no data but the demo's own can be meant.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from backupkit.fs.space import format_bytes
from backupkit.model.errors import BackupError, ExitCode
from backupkit.model.names import counted
from backupkit.repository import manifest
from demo.app import MIGRATIONS, Picture, ScratchApp, Writer, differences, last_visit, misplaced_visits
from demo.stage import CannotGoOn, Narrator, Stage, own_deployment, scratch_folder

BACKUP = "before_disaster"


def tell_story(script: Path, keep: bool = False) -> None:
    """Every proof held, else `BackupError` names those that did not. The scratch data are gone either way.

    `script` is the program with the commands; with `keep` the scratch data stay, and it is said where.
    """
    narrator = Narrator()
    with scratch_folder(keep, narrator) as folder, contextlib.suppress(CannotGoOn):
        narrator.announce(f"A demonstration on throw-away data in {folder}; your own data are not touched.")
        _lose_and_restore(Stage(narrator, script, ScratchApp(folder / "app")))
        _meet_another_schema(Stage(narrator, script, ScratchApp(folder / "older_app")))
    _conclude(narrator, folder, keep)


# One half of the story: everything is lost, and comes back while another process writes.


def _lose_and_restore(stage: Stage) -> None:
    _make_app(stage)
    with stage.app.writer() as writer:
        saved = _back_up(stage, writer)
        _go_on(stage, saved)
        broken = _destroy(stage, saved)
        _restore(stage, writer, saved)
        _undo(stage, writer, saved, broken)
        stage.narrator.result = _result(saved, writer)


def _make_app(stage: Stage) -> None:
    stage.narrator.step("An app")
    stage.app.make(len(MIGRATIONS))
    there = stage.app.picture()
    stage.narrator.say(f"A database, made by {len(MIGRATIONS)} Alembic migrations: {counted(there.row_count, 'row')}.")
    stage.narrator.say(f"Uploads: {counted(there.file_count, 'file')}, one with a line break in its name, and a link.")
    stage.narrator.say("From here on a second process commits a row every few milliseconds.")
    head = MIGRATIONS[-1].revision
    stage.narrator.prove(f"the database is at revision {head}", _unless(stage.app.revision(), head))
    stage.narrator.prove("it is in WAL mode, as a running app's should be", _unless(stage.app.journal_mode(), "wal"))


def _back_up(stage: Stage, writer: Writer) -> Picture:
    """What the backup has to hold, seen at its moment without the toolkit's help."""
    app, narrator = stage.app, stage.narrator
    narrator.step("A backup, while the app is being written to")
    before = app.picture()
    stage.run("backup", BACKUP)
    after, saved = app.picture(), app.picture_in(BACKUP)
    _show_folder(narrator, app.backups / BACKUP)
    narrator.prove(
        "every file of it is as its SHA256SUMS say",
        [flaw.text for flaw in manifest.verify_checksums(app.backups / BACKUP)],
    )
    narrator.prove("every row and every file of the app is in it", differences(before, saved))
    narrator.prove("it is of one moment: no transaction of the writer is half in it", _between(before, saved, after))
    narrator.prove("the writer noticed nothing", writer.errors())
    return saved


def _show_folder(narrator: Narrator, folder: Path) -> None:
    narrator.say("The backup is a folder:")
    for path in sorted(folder.iterdir()):
        narrator.output(f"{path.name + '/' * path.is_dir():22} {_size(path)}")


def _size(path: Path) -> str:
    if not path.is_dir():
        return format_bytes(path.stat().st_size)
    return counted(sum(one.is_file() and not one.is_symlink() for one in path.rglob("*")), "file")


def _between(before: Picture, saved: Picture, after: Picture) -> list[str]:
    """What is wrong with the writer's rows in the backup; nothing, if they are those of a moment in between."""
    return [
        *misplaced_visits(before, saved, last_visit(before)),
        *misplaced_visits(saved, after, last_visit(saved)),
    ]


def _go_on(stage: Stage, saved: Picture) -> None:
    app, narrator = stage.app, stage.narrator
    narrator.step("Life goes on")
    app.go_on()
    now = app.picture()
    rows, files = now.row_count - saved.row_count, now.file_count - saved.file_count
    narrator.say(f"{counted(rows, 'row')} and {counted(files, 'upload')} are new: the backup does not have them.")


def _destroy(stage: Stage, saved: Picture) -> Picture:
    """The damage, as it has to come back when the restore is undone."""
    narrator = stage.narrator
    narrator.step("Disaster")
    stage.app.disaster()
    broken = stage.app.picture()
    narrator.say("A table is dropped, another overwritten; uploads are deleted, emptied and replaced by rubbish:")
    narrator.output("\n".join([*differences(saved, broken)[:4], "..."]))
    missing = "orders" not in broken.rows and len(differences(saved, broken)) > 10
    narrator.prove("the damage is done", _if(not missing, "the data are not damaged"))
    return broken


def _restore(stage: Stage, writer: Writer, saved: Picture) -> None:
    stage.narrator.step("The restore, while the app is being written to")
    written = writer.committed()
    safety = _run_restore(stage, writer, "restore", BACKUP)
    stage.narrator.say(f"The writer committed {writer.committed() - written:,} transactions meanwhile.")
    now = stage.app.picture()
    stage.narrator.prove(
        f"all {saved.row_count} rows and {saved.file_count} files are as at the time of the backup",
        differences(saved, now),
    )
    _prove_writer_went_on(stage, writer, saved, safety)


def _undo(stage: Stage, writer: Writer, saved: Picture, broken: Picture) -> None:
    app, narrator = stage.app, stage.narrator
    narrator.step("The restore taken back, and that taken back too")
    restored = _run_restore(stage, writer, "undo")
    narrator.prove("the state before the restore is there again, damage and all", differences(broken, app.picture()))
    safety = _run_restore(stage, writer, "undo")
    narrator.prove("and the restored state once more", differences(saved, app.picture()))
    _prove_writer_went_on(stage, writer, restored, safety)


def _run_restore(stage: Stage, writer: Writer, *words: str) -> Picture:
    """What is in the last safety copy that the command made; the writer has committed again since.

    A second one holds what the writer committed after the first.
    """
    known = stage.app.backup_names()
    stage.run(*words, "--force", results_only=words[0] == "undo")
    made = sorted(stage.app.backup_names() - known)
    if not made:
        stage.narrator.prove("it left a safety copy", ["found none"])
        raise CannotGoOn
    writer.wait_for_more()
    return stage.app.picture_in(made[-1])


def _prove_writer_went_on(stage: Stage, writer: Writer, source: Picture, safety: Picture) -> None:
    now = stage.app.picture()
    problems = misplaced_visits(source, now, last_visit(safety))
    silent = _if(len(now.visits) == len(source.visits), "no new row of the writer is there")
    stage.narrator.prove("the writer goes on in the restored data, after the rows they had", problems + silent)
    stage.narrator.prove("it saw no error", writer.errors())


def _result(saved: Picture, writer: Writer) -> str:
    return (
        f"{saved.row_count} rows and {saved.file_count} files came back exactly, "
        f"while another process committed {writer.committed():,} transactions without an error."
    )


# The other half: the backup's schema is not the code's.


def _meet_another_schema(stage: Stage) -> None:
    older = len(MIGRATIONS) - 2
    _restore_older(stage, older)
    _refuse_newer(stage, older)


def _restore_older(stage: Stage, migrations: int) -> None:
    app, narrator = stage.app, stage.narrator
    narrator.step("A backup older than the code")
    narrator.say(f"Another app, at its second migration. It is backed up, then a release brings {len(MIGRATIONS)}.")
    app.make(migrations)
    stage.run("backup", "release_1")
    app.have_code(len(MIGRATIONS))
    app.upgrade()
    said = stage.run("restore", "release_1", "--force")
    narrator.prove("the missing migrations are named", _unnamed(said, migrations))
    narrator.prove("nothing else than the backup came back", differences(app.picture_in("release_1"), app.picture()))
    _type_what_was_said(stage, said)
    _prove_upgraded(stage)


def _unnamed(said: str, migrations: int) -> list[str]:
    waiting = MIGRATIONS[migrations:]
    return [f"{one.revision} is not" for one in waiting if f"{one.revision}  {one.title}" not in said]


def _type_what_was_said(stage: Stage, said: str) -> None:
    lines = [line.strip() for line in said.splitlines() if " && " in line]
    stage.narrator.prove("two commands are given to type", _unless(str(len(lines)), "2"))
    stage.narrator.say("They are typed:")
    for line in lines:
        stage.run_line(line)


def _prove_upgraded(stage: Stage) -> None:
    head = MIGRATIONS[-1].revision
    stage.narrator.prove(f"the database is at revision {head}", _unless(stage.app.revision(), head))
    saved, now = stage.app.picture_in("release_1"), stage.app.picture()
    lost = [table for table in ("customers", "documents") if saved.rows[table] != now.rows.get(table)]
    if [row[:4] for row in now.rows.get("orders", [])] != saved.rows["orders"]:
        lost.append("orders")
    stage.narrator.prove("with every row of the backup in it", [f"table {table} is another one" for table in lost])


def _refuse_newer(stage: Stage, migrations: int) -> None:
    app, narrator = stage.app, stage.narrator
    narrator.step("A backup newer than the code")
    narrator.say("The app is backed up, then it goes back to the release before: its code, and its data.")
    stage.run("backup", "release_2")
    app.have_code(migrations)
    stage.run("restore", "release_1", "--force", results_only=True)
    before = app.picture()
    said = stage.run("restore", "release_2", code=ExitCode.SCHEMA_MISMATCH)
    unnamed = MIGRATIONS[-1].revision not in said
    narrator.prove("it is refused, and the revision is named", _if(unnamed, "the revision is not in the message"))
    narrator.prove("nothing was changed", differences(before, app.picture()))


# The end.


def _conclude(narrator: Narrator, folder: Path, keep: bool) -> None:
    if not keep:
        narrator.step("Cleaned up")
        narrator.prove("the throw-away data are gone", _if(folder.exists(), f"{folder} is still there"))
    if narrator.failures:
        hint = "Please report it, with all of the above; --keep leaves the data to look at."
        raise BackupError(f"The demo failed: {'; '.join(narrator.failures)}.", hint)
    narrator.announce(f"\nAll {narrator.proofs} proofs held, in {narrator.seconds()}: {narrator.result}")
    narrator.announce(f"Next, a backup of your own app:  {own_deployment().tool('backup')}")


def _unless(found: str, wanted: str) -> list[str]:
    return _if(found != wanted, f"found {found!r} instead of {wanted!r}")


def _if(wrong: bool, problem: str) -> list[str]:
    return [problem] if wrong else []
