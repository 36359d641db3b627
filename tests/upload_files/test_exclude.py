"""Uploads matched by `exclude` are in no backup, and no restore touches, removes or warns of them."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from refusals import picture, refused, run_here
from small_app import SmallApp, tree

CACHE = {"BACKUP_EXCLUDE": "cache/; *.tmp; !keep.tmp"}


@pytest.fixture
def app(app: SmallApp) -> SmallApp:
    """An app with a cache folder and temporary files, one of which is to be kept."""
    for path in ("cache/thumb.png", "cache/deep/er.png", "1/draft.tmp", "1/keep.tmp"):
        app.write_upload(path, path.encode())
    return app


def held(app: SmallApp, name: str) -> set[str]:
    """Return the paths of the files in a backup."""
    return {path for path, facts in tree(app.backups / name / "uploads").items() if facts[0] == "file"}


WITHOUT = {"1/letter.txt", "2/letter.txt", "1/keep.tmp"}
ALL = {*WITHOUT, "1/draft.tmp", "cache/thumb.png", "cache/deep/er.png"}


def test_what_is_excluded_is_in_no_backup_and_the_patterns_are_sealed(app: SmallApp) -> None:
    run_here(app, "backup", "good", env=CACHE, check=0)
    assert held(app, "good") == WITHOUT
    assert not (app.backups / "good" / "uploads" / "cache").exists()
    sealed = json.loads((app.backups / "good" / "backup_metadata.json").read_text())
    assert sealed["exclude"] == ["cache/", "*.tmp", "!keep.tmp"]
    run_here(app, "verify", "good", "--test-restore", env=CACHE, check=0)
    assert "cache/, *.tmp" in run_here(app, "show", "good", check=0).out


@pytest.mark.parametrize("now", [CACHE, {}], ids=["as now", "as then"])
def test_a_restore_leaves_alone_what_the_backup_or_the_settings_exclude(app: SmallApp, now: dict[str, str]) -> None:
    run_here(app, "backup", "good", env=CACHE, check=0)
    app.write_upload("cache/new.png", b"new")
    (app.uploads / "cache" / "thumb.png").write_bytes(b"changed")
    (app.uploads / "1" / "draft.tmp").unlink()
    app.write_upload("2/other.tmp", b"other")
    app.write_upload("1/letter.txt", b"overwritten")
    before = tree(app.uploads)
    done = run_here(app, "restore", "good", "--yes", env=now, check=0)
    assert "Warning" not in done.err
    after = tree(app.uploads)
    left = {path for path in before if path.startswith("cache") or path.endswith("other.tmp")}
    assert {path: after[path] for path in left} == {path: before[path] for path in left}
    assert ("1/draft.tmp" in after, after["1/letter.txt"][3]) == (False, b"Dear company 1\n")
    run_here(app, "undo", "--yes", env=now, check=0)
    assert (app.uploads / "1" / "letter.txt").read_bytes() == b"overwritten"
    assert {path: tree(app.uploads)[path] for path in left} == {path: before[path] for path in left}


def test_what_is_excluded_only_now_is_not_restored_from_an_older_backup(app: SmallApp) -> None:
    run_here(app, "backup", "old", check=0)
    assert held(app, "old") == ALL
    shutil.rmtree(app.uploads / "cache")
    (app.uploads / "1" / "letter.txt").unlink()
    plan = run_here(app, "restore", "old", "--dry-run", env=CACHE, check=0).out
    assert "Excluded uploads stay as they are: cache/, *.tmp, !keep.tmp" in plan
    run_here(app, "restore", "old", "--yes", env=CACHE, check=0)
    assert ((app.uploads / "cache").exists(), (app.uploads / "1" / "letter.txt").exists()) == (False, True)


def test_an_older_backup_is_proven_and_laid_out_with_all_that_it_has(app: SmallApp) -> None:
    run_here(app, "backup", "old", check=0)
    run_here(app, "verify", "old", "--test-restore", env=CACHE, check=0)
    target = app.folder.parent / "look"
    run_here(app, "restore", "old", "--to", str(target), env=CACHE, check=0)
    assert {path for path, facts in tree(target / "uploads").items() if facts[0] == "file"} == ALL


def test_a_folder_that_holds_something_excluded_is_not_removed(app: SmallApp) -> None:
    run_here(app, "backup", "good", env=CACHE, check=0)
    app.write_upload("new/one.txt", b"goes")
    app.write_upload("new/one.tmp", b"stays")
    run_here(app, "restore", "good", "--yes", env=CACHE, check=0)
    assert os.listdir(app.uploads / "new") == ["one.tmp"]


def test_what_is_excluded_is_listed_and_taken_out_but_not_put_back(app: SmallApp) -> None:
    run_here(app, "backup", "old", check=0)
    (app.uploads / "cache" / "thumb.png").write_bytes(b"changed")
    found = run_here(app, "files", "old", "thumb.png", "er.png", "--json", env=CACHE, check=0).json
    assert {one["path"]: one["live"] for one in found} == {"cache/deep/er.png": "same", "cache/thumb.png": "changed"}
    before = picture(app)
    refused(app, "extract", "old", "thumb.png", "--yes", code=2, names="thumb.png", hint="--to", env=CACHE)
    run_here(app, "extract", "old", "thumb.png", "--to", str(app.folder.parent / "out"), env=CACHE, check=0)
    assert picture(app) == before


def test_other_patterns_make_no_backup_unusual(app: SmallApp) -> None:
    for number in range(40):
        app.write_upload(f"cache/{number}.png", b"x" * 100_000)
    run_here(app, "backup", "one", check=0)
    done = run_here(app, "backup", "two", "--json", env=CACHE, check=0).json
    assert done["anomalies"] == []
    for number in range(40):
        app.write_upload(f"many/{number}.png", b"x" * 100_000)
    run_here(app, "backup", "three", env=CACHE, check=0)
    shutil.rmtree(app.uploads / "many")
    (app.backups / "two").rename(app.folder / "two")
    assert run_here(app, "backup", "four", "--json", env=CACHE).json["anomalies"] != []


def test_patterns_may_be_a_list_in_the_file(app: SmallApp) -> None:
    (app.folder / "backup.toml").write_text('exclude = ["cache/", "*.tmp", "!keep.tmp"]\n')
    run_here(app, "backup", "good", check=0)
    assert held(app, "good") == WITHOUT
    run_here(app, "config", "set", "exclude", "*.png", check=0)
    run_here(app, "backup", "next", check=0)
    assert held(app, "next") == {*WITHOUT, "1/draft.tmp"}


BAD = (
    ("*", "every upload"),
    ("**", "every upload"),
    ("/*; *.tmp", "every upload"),
    ("[z-a]", "not a pattern"),
    ("../data", "leads out"),
    ("*a*a*a*b", "too many stars"),
)


@pytest.mark.parametrize(("patterns", "names"), BAD, ids=[patterns for patterns, _ in BAD])
def test_patterns_that_cannot_be_are_refused(app: SmallApp, patterns: str, names: str) -> None:
    refused(app, "backup", "x", code=2, names=names, hint="unset BACKUP_EXCLUDE", env={"BACKUP_EXCLUDE": patterns})


@pytest.mark.parametrize("pattern", ["*.db", "data/", "/data/pats.db"])
def test_a_pattern_that_means_the_database_is_refused(app: SmallApp, pattern: str) -> None:
    whole = {"BACKUP_UPLOADS": str(app.folder), "BACKUP_DIR": str(app.folder.parent / "kept")}
    refused(
        app,
        "backup",
        "x",
        code=2,
        names="the database",
        hint="unset BACKUP_EXCLUDE",
        env={**whole, "BACKUP_EXCLUDE": pattern},
    )
    run_here(app, "backup", "x", env={**whole, "BACKUP_EXCLUDE": "*.pyc"}, check=0)


def test_patterns_in_metadata_that_are_none_are_damage(app: SmallApp) -> None:
    """Patterns in metadata are input, like everything in a backup that came from elsewhere."""
    run_here(app, "backup", "good", check=0)
    file = app.backups / "good" / "backup_metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"exclude": ["*a*a*a*b"]}))
    refused(app, "restore", "good", "--yes", code=12, names=str(file), hint="`list`")


# Folders marked by a file in them

MARKED = {"BACKUP_EXCLUDE_MARKED": ".nobackup; CACHEDIR.TAG"}
SIGNED = b"Signature: 8a477f597d28d172789f06886806bc55\n# a cache\n"


@pytest.fixture
def marked(app: SmallApp) -> SmallApp:
    """An app with marked folders, and some that only look marked."""
    for path, content in {
        "cache/.nobackup": b"",
        "tags/a/CACHEDIR.TAG": SIGNED,
        "tags/a/deep/thumb.png": b"x",
        "tags/b/CACHEDIR.TAG": b"no signature",
        "tags/b/kept.png": b"x",
        "tags/c/.nobackup/kept.png": b"a folder of that name",
        "tags/d/kept.png": b"x",
    }.items():
        app.write_upload(path, content)
    (app.uploads / "tags" / "d" / ".nobackup").symlink_to("kept.png")
    (app.uploads / ".nobackup").write_bytes(b"")  # a mark in the uploads folder itself has no effect
    return app


LEFT_OUT = ("cache", "tags/a")


def outside(app: SmallApp, folder: str = "") -> dict[str, tuple[str, int, int, bytes]]:
    """Return the entries outside the marked folders."""
    top = app.backups / folder / "uploads" if folder else app.uploads
    return {path: facts for path, facts in tree(top).items() if not f"{path}/".startswith(("cache/", "tags/a/"))}


def test_a_marked_folder_is_in_no_backup_and_is_sealed(marked: SmallApp) -> None:
    run_here(marked, "backup", "good", env=MARKED, check=0)
    assert {path: facts[3] for path, facts in tree(marked.backups / "good" / "uploads").items()} == {
        path: facts[3] for path, facts in outside(marked).items()
    }
    sealed = json.loads((marked.backups / "good" / "backup_metadata.json").read_text())
    assert (sealed["exclude_marked"], sealed["excluded_folders"]) == ([".nobackup", "CACHEDIR.TAG"], [*LEFT_OUT])
    run_here(marked, "verify", "good", "--test-restore", env=MARKED, check=0)
    assert "cache, tags/a" in run_here(marked, "show", "good", check=0).out
    run_here(marked, "backup", "all", check=0)
    assert (marked.backups / "all" / "uploads" / "cache" / ".nobackup").exists()


@pytest.mark.parametrize("now", [MARKED, {}], ids=["as now", "as then"])
@pytest.mark.parametrize("is_unmarked", [False, True], ids=["marked", "not any more"])
def test_a_restore_leaves_alone_what_is_marked_or_was(marked: SmallApp, now: dict[str, str], is_unmarked: bool) -> None:
    run_here(marked, "backup", "good", env=MARKED, check=0)
    marked.write_upload("cache/new.png", b"new")
    (marked.uploads / "tags" / "a" / "deep" / "thumb.png").write_bytes(b"changed")
    marked.write_upload("later/.nobackup", b"")
    marked.write_upload("later/new.png", b"new")
    (marked.uploads / "tags" / "b" / "kept.png").write_bytes(b"changed")
    if is_unmarked:
        (marked.uploads / "cache" / ".nobackup").unlink()
    before = tree(marked.uploads)
    plan = run_here(marked, "restore", "good", "--dry-run", env=now, check=0).out
    assert "folders with .nobackup" in plan and "cache/" in plan
    done = run_here(marked, "restore", "good", "--yes", env=now, check=0)
    assert "Warning" not in done.err
    after = tree(marked.uploads)
    left = [path for path in before if f"{path}/".startswith(("cache/", "tags/a/", "later/"))]
    assert {path: after.get(path) for path in left} == {path: before[path] for path in left}
    assert after["tags/b/kept.png"][3] == b"x"


def test_a_folder_that_is_marked_now_is_not_restored_from_an_older_backup(marked: SmallApp) -> None:
    run_here(marked, "backup", "old", check=0)
    (marked.uploads / "tags" / "a" / "deep" / "thumb.png").unlink()
    (marked.uploads / "cache" / "thumb.png").write_bytes(b"changed")
    run_here(marked, "restore", "old", "--yes", env=MARKED, check=0)
    assert not (marked.uploads / "tags" / "a" / "deep" / "thumb.png").exists()
    assert (marked.uploads / "cache" / "thumb.png").read_bytes() == b"changed"
    refused(marked, "extract", "old", "/cache/", "--yes", code=2, names="cache/", hint="--to", env=MARKED)


def test_a_name_that_is_not_utf_8_is_sealed_and_known_again(app: SmallApp) -> None:
    folder = os.fsencode(app.uploads) + b"/caf\xe9"
    os.mkdir(folder)
    for name in (b"/.nobackup", b"/x"):
        with open(folder + name, "wb"):
            pass
    run_here(app, "backup", "good", env=MARKED, check=0)
    os.unlink(folder + b"/.nobackup")
    run_here(app, "restore", "good", "--yes", check=0)
    assert os.listdir(folder) == [b"x"]


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_a_mark_that_is_no_name_of_a_file_is_refused(app: SmallApp, name: str) -> None:
    refused(
        app,
        "backup",
        "x",
        code=2,
        names="name of a file",
        hint="unset BACKUP_EXCLUDE_MARKED",
        env={"BACKUP_EXCLUDE_MARKED": name},
    )
