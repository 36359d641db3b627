"""`extract` puts some uploads back in place, which can be undone, or writes them to a folder or to stdout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from backupkit.model.backup import STAGING
from refusals import assert_refusal, picture, refused, run_here
from small_app import SmallApp, tree


def back_up(app: SmallApp, name: str = "good", *options: str) -> dict[str, Any]:
    app.write_upload("deep/a b/[x].txt", b"x")
    app.write_upload("deep/plain.bin", bytes(range(256)))
    (app.uploads / "deep" / "plain.bin").chmod(0o640)
    os.utime(app.uploads / "deep" / "plain.bin", (1_700_000_000, 1_700_000_000))
    run_here(app, "backup", name, *options, check=0)
    return tree(app.uploads)


def damage(app: SmallApp) -> None:
    """Change the app in every way: alter and add files, remove a folder, redirect a link, add a row."""
    app.write_upload("1/letter.txt", b"overwritten")
    app.write_upload("1/newer.txt", b"came later")
    shutil.rmtree(app.uploads / "deep")
    (app.uploads / "latest").unlink()
    (app.uploads / "latest").symlink_to("1/letter.txt")
    app.execute("INSERT INTO companies (name) VALUES ('after')")


def kept(app: SmallApp) -> list[str]:
    return sorted(path.name for path in app.backups.glob("pre_restore_*"))


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    """Return the tree without the times of its folders, which change with their contents."""
    return {path: facts if facts[0] != "folder" else facts[:2] for path, facts in found.items()}


# In place


def test_what_is_chosen_comes_back_as_it_was_and_nothing_else_changes(app: SmallApp) -> None:
    wanted = back_up(app)
    damage(app)
    before, rows = tree(app.uploads), app.rows("companies")
    done = run_here(app, "extract", "good", "1/letter.txt", "*.bin", "--yes", check=0)
    assert "Put back from good: 1 restored, 1 changed" in done.out
    now = tree(app.uploads)
    for path in ("1/letter.txt", "deep/plain.bin"):
        assert now[path] == wanted[path]
    assert now["deep"][:2] == wanted["deep"][:2]
    others = {path: facts for path, facts in before.items() if path not in ("1", "1/letter.txt")}
    assert {path: facts for path, facts in now.items() if path in others} == others
    assert now.keys() - before.keys() == {"deep", "deep/plain.bin"}
    assert app.rows("companies") == rows
    assert not (app.uploads / STAGING).exists()


def test_it_makes_a_safety_copy_and_undo_takes_it_back(app: SmallApp) -> None:
    back_up(app)
    damage(app)
    before = tree(app.uploads)
    run_here(app, "extract", "good", "latest", "1/", "deep/", "--yes", check=0)
    assert tree(app.uploads) != before
    (safety,) = kept(app)
    assert tree(app.backups / safety / "uploads") == before
    run_here(app, "undo", "--yes", check=0)
    assert without_times(tree(app.uploads)) == without_times(before)


def test_a_file_replaces_the_folder_that_came_in_its_place_and_undo_brings_that_back(app: SmallApp) -> None:
    wanted = back_up(app)
    (app.uploads / "1" / "letter.txt").unlink()
    app.write_upload("1/letter.txt/inside/deep.txt", b"a folder where a file was")
    before = tree(app.uploads)
    run_here(app, "extract", "good", "1/letter.txt", "--yes", check=0)
    assert tree(app.uploads)["1/letter.txt"] == wanted["1/letter.txt"]
    run_here(app, "undo", "--yes", check=0)
    assert without_times(tree(app.uploads)) == without_times(before)


def test_a_folder_replaces_the_file_that_came_in_its_place(app: SmallApp) -> None:
    wanted = back_up(app)
    shutil.rmtree(app.uploads / "deep")
    app.write_upload("deep", b"a file where a folder was")
    run_here(app, "extract", "good", "deep/a b/[x].txt", "--yes", check=0)
    assert {path: facts[0] for path, facts in tree(app.uploads).items() if path.startswith("deep")} == {
        "deep": "folder",
        "deep/a b": "folder",
        "deep/a b/[x].txt": "file",
    }
    assert tree(app.uploads)["deep/a b/[x].txt"] == wanted["deep/a b/[x].txt"]


def test_a_link_above_is_replaced_and_what_it_points_to_is_not_touched(app: SmallApp) -> None:
    wanted = back_up(app)
    outside = app.folder / "outside"
    outside.mkdir()
    shutil.rmtree(app.uploads / "deep")
    (app.uploads / "deep").symlink_to(outside)
    run_here(app, "extract", "good", "deep/plain.bin", "--yes", check=0)
    assert (list(outside.iterdir()), tree(app.uploads)["deep/plain.bin"]) == ([], wanted["deep/plain.bin"])
    run_here(app, "undo", "--yes", check=0)
    assert (app.uploads / "deep").is_symlink()


def test_an_empty_folder_comes_back(app: SmallApp) -> None:
    wanted = back_up(app)
    (app.uploads / "empty").rmdir()
    run_here(app, "extract", "good", "empty/", "--yes", check=0)
    assert tree(app.uploads)["empty"] == wanted["empty"]


def test_a_name_of_a_hard_linked_file_comes_back_alone(app: SmallApp) -> None:
    os.link(app.uploads / "1" / "letter.txt", app.uploads / "1" / "again.txt")
    wanted = back_up(app)
    (app.uploads / "1" / "again.txt").unlink()
    app.write_upload("1/letter.txt", b"overwritten")
    run_here(app, "extract", "good", "1/again.txt", "--yes", check=0)
    assert tree(app.uploads)["1/again.txt"][3] == wanted["1/again.txt"][3]
    assert (app.uploads / "1" / "letter.txt").read_bytes() == b"overwritten"


def test_the_plan_names_what_is_chosen_and_changes_nothing(app: SmallApp) -> None:
    back_up(app)
    damage(app)
    before = picture(app)
    plan = run_here(app, "extract", "good", "1/letter.txt", "*.bin", "--dry-run", check=0).out
    assert "2 uploads of good" in plan and "1/letter.txt, deep/plain.bin" in plan
    found = run_here(app, "extract", "good", "1/letter.txt", "*.bin", "--dry-run", "--json", check=0).json
    assert found["source"]["chosen"] == ["1/letter.txt", "deep/plain.bin"]
    assert (found["uploads"]["added"], found["uploads"]["changed"], found["uploads"]["removed"]) == (1, 1, 0)
    assert picture(app) == before


def test_without_a_terminal_and_without_an_answer_it_is_refused(app: SmallApp) -> None:
    back_up(app)
    damage(app)
    refused(app, "extract", "good", "1/letter.txt", code=2, names="no terminal", hint="--yes")


def test_the_next_backup_is_right_after_it(app: SmallApp) -> None:
    back_up(app)
    damage(app)
    run_here(app, "extract", "good", "1/letter.txt", "--yes", check=0)
    run_here(app, "backup", "next", check=0)
    run_here(app, "verify", "next", check=0)
    assert tree(app.backups / "next" / "uploads") == tree(app.uploads)


# To a folder or to stdout


def test_files_are_taken_out_into_a_new_folder_as_they_lay(app: SmallApp, tmp_path: Path) -> None:
    wanted = back_up(app)
    before, target = picture(app), app.folder.parent / "out"
    done = run_here(app, "extract", "good", "*.bin", "latest", "--to", str(target), "--json", check=0).json
    assert (done["uploads"], done["database"], done["files"]) == (str(target), None, 2)
    assert set(tree(target)) == {"deep", "deep/plain.bin", "latest"}
    assert tree(target)["deep/plain.bin"] == wanted["deep/plain.bin"]
    assert picture(app) == before


def test_a_target_for_files_is_as_one_for_a_backup(app: SmallApp) -> None:
    back_up(app)
    refused(app, "extract", "good", "*", "--to", str(app.uploads / "x"), code=2, names="live data", hint="new folder")
    refused(app, "extract", "good", "*", "--to", str(app.backups / "x"), code=2, names="backups", hint="new folder")
    refused(app, "extract", "good", "*", "--to", str(app.folder), code=2, names=str(app.folder), hint="new")


def test_one_file_goes_to_stdout_byte_for_byte(app: SmallApp) -> None:
    back_up(app)
    (app.uploads / "deep" / "plain.bin").unlink()
    done = app.command("extract", "good", "deep/a b/[x].txt", "--to", "-", check=0)
    assert done.out == "x"
    two, link = (app.command("extract", "good", *words, "--to", "-") for words in (("1", "2"), ("latest",)))
    assert_refusal(two, code=2, names="2 files", hint="files good")
    assert_refusal(link, code=2, names="leads through a link", hint="file")
    refused(app, "extract", "good", "1", "--to", "-", "--json", code=2, names="stdout", hint="--json")


def test_a_file_that_is_not_as_it_was_sealed_reaches_neither_stdout_nor_the_app(app: SmallApp) -> None:
    back_up(app)
    sealed = app.backups / "good" / "uploads" / "1" / "letter.txt"
    sealed.unlink()  # a new file, so that no other name of the old one changes
    sealed.write_bytes(b"Dear company 2\n")
    app.write_upload("1/letter.txt", b"overwritten")
    done = app.command("extract", "good", "1/letter.txt", "--to", "-")
    assert (done.code, done.out) == (12, "")
    assert run_here(app, "extract", "good", "1/letter.txt", "--yes").code == 12
    assert (app.uploads / "1" / "letter.txt").read_bytes() == b"overwritten"
    assert not (app.uploads / STAGING).exists()


def test_a_file_behind_very_many_others_is_still_compared_with_its_own_checksum(app: SmallApp) -> None:
    """The list of checksums is longer than the part of it that is kept in memory."""
    back_up(app)
    sums = app.backups / "good" / "SHA256SUMS"
    line = "0" * 64 + "  uploads/1/{:07}\n"
    sums.write_text("".join(map(line.format, range(140_000))) + sums.read_text())
    assert app.command("extract", "good", "2/letter.txt", "--to", "-", check=0).out == "Dear company 2\n"


# Bad input

BAD: list[tuple[tuple[str, ...], int, str, str]] = [
    (("good", "*.pdf"), 10, "*.pdf", "`files good`"),
    (("good", "*.bin", "nothing"), 10, "nothing", "`files good`"),
    (("good", "!*.bin"), 10, "!*.bin", "`files good`"),
    (("good", "../data/pats.db"), 2, "leads out", "begin"),
    (("good", "[z-a]"), 2, "not a pattern", "gitignore"),
    (("none", "*"), 10, "none", "`list`"),
    (("half", "*"), 10, "no uploads", "`list`"),
    (("other", "*"), 2, "another app", "--force"),
]


@pytest.mark.parametrize(("words", "code", "names", "hint"), BAD, ids=[" ".join(words) for words, *_ in BAD])
def test_bad_input_changes_nothing(app: SmallApp, words: Any, code: int, names: str, hint: str) -> None:
    back_up(app)
    run_here(app, "backup", "half", "--no-uploads", check=0)
    run_here(app, "backup", "other", env={"BACKUP_APP_ID": "another"}, check=0)
    damage(app)
    refused(app, "extract", *words, "--yes", code=code, names=names, hint=hint)


def test_an_app_without_uploads_has_no_place_for_them(app: SmallApp) -> None:
    back_up(app)
    none = {"BACKUP_UPLOADS": ""}
    refused(app, "extract", "good", "*.bin", "--yes", code=2, names="no uploads folder", hint="--to", env=none)
    target = app.folder.parent / "out"
    run_here(app, "extract", "good", "*.bin", "--to", str(target), env=none, check=0)
    assert (target / "deep" / "plain.bin").is_file()


def test_history_says_what_was_put_back(app: SmallApp) -> None:
    back_up(app)
    damage(app)
    run_here(app, "extract", "good", "1/letter.txt", "--yes", check=0)
    newest = run_here(app, "history", "--json", check=0).json[0]
    assert (newest["command"], newest["backups"], newest["note"]) == ("restore", ["good"], "1 uploads put back")
