"""`files` lists the uploads of a backup, and how the live ones compare with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from backupkit.fs import tree
from backupkit.verify import files
from refusals import as_user, picture, refused, run_here
from small_app import SmallApp

LOOK = tree._look


def back_up(app: SmallApp, name: str = "good") -> None:
    run_here(app, "backup", name, check=0)


def listed(app: SmallApp, *patterns: str, name: str = "good") -> dict[str, str]:
    """Return how the live file compares, by path."""
    return {one["path"]: one["live"] for one in run_here(app, "files", name, *patterns, "--json", check=0).json}


def test_each_upload_is_listed_with_how_the_live_one_stands_to_it(app: SmallApp) -> None:
    app.write_upload("3/gone.txt", b"gone")
    app.write_upload("3/altered.txt", b"old content")
    back_up(app)
    (app.uploads / "3" / "gone.txt").unlink()
    before = (app.uploads / "3" / "altered.txt").stat()
    app.write_upload("3/altered.txt", b"new content")
    os.utime(app.uploads / "3" / "altered.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    (app.uploads / "2" / "letter.txt").chmod(0o600)
    os.utime(app.uploads / "1" / "letter.txt")
    app.write_upload("new.txt", b"is in no backup")
    assert listed(app) == {
        "1/letter.txt": "same",
        "2/letter.txt": "same",
        "3/altered.txt": "changed",
        "3/gone.txt": "missing",
        "latest": "same",
    }


def test_a_document_says_size_time_form_and_where_a_link_leads(app: SmallApp) -> None:
    os.utime(app.uploads / "1" / "letter.txt", (1_700_000_000, 1_700_000_000))
    back_up(app)
    letter, _, link = run_here(app, "files", "latest", "--json", check=0).json
    assert letter["size_bytes"] == len(b"Dear company 1\n") and letter["changed_at"].startswith("2023-11-14T22:13:20")
    assert (letter["form"], letter["target"], link["form"], link["target"]) == ("file", None, "link", "2/letter.txt")


def test_a_table_for_people_has_a_line_for_each(app: SmallApp) -> None:
    back_up(app)
    (app.uploads / "1" / "letter.txt").unlink()
    lines = run_here(app, "files", "good", check=0).out.splitlines()
    assert lines[0].split() == ["SIZE", "CHANGED", "LIVE", "PATH"]
    assert lines[1].startswith("15 bytes") and lines[1].endswith("missing  1/letter.txt")
    assert lines[3].endswith("same     latest -> 2/letter.txt")


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (("*.txt",), {"1/letter.txt", "2/letter.txt", "deep/a b/[x].txt"}),
        (("/1/",), {"1/letter.txt"}),
        (("1",), {"1/letter.txt"}),
        (("1/letter.txt", "latest"), {"1/letter.txt", "latest"}),
        (("deep/**/*.bin",), {"deep/a b/c.bin"}),
        (("deep/a b/[x].txt",), {"deep/a b/[x].txt"}),
        (("deep/a b/",), {"deep/a b/[x].txt", "deep/a b/c.bin"}),
        (("*", "!*.bin"), {"1/letter.txt", "2/letter.txt", "deep/a b/[x].txt", "latest"}),
    ],
)
def test_patterns_are_those_of_gitignore_and_a_path_means_itself(
    app: SmallApp, patterns: tuple[str, ...], paths: set[str]
) -> None:
    app.write_upload("deep/a b/[x].txt", b"x")
    app.write_upload("deep/a b/c.bin", b"c")
    back_up(app)
    assert set(listed(app, *patterns)) == paths


def test_names_of_any_bytes_are_listed(app: SmallApp) -> None:
    for name in (b"new\nline", b"\xff\xfe", b"\x1b[31mred"):
        (app.uploads / os.fsdecode(name)).write_bytes(b"x")
    back_up(app)
    assert "\x1b" not in run_here(app, "files", "good", check=0).out
    assert len(listed(app)) == 6


def test_where_there_are_no_live_uploads_all_are_missing(app: SmallApp) -> None:
    back_up(app)
    app.uploads.rename(app.folder / "away")
    assert set(listed(app).values()) == {"missing"}


def test_a_live_folder_that_cannot_be_read_is_said_to_be_so(app: SmallApp) -> None:
    back_up(app)
    (app.uploads / "1").chmod(0)
    done = as_user(app, "files", "good", "--json")
    (app.uploads / "1").chmod(0o755)
    assert {one["path"]: one["live"] for one in done.json}["1/letter.txt"] == "unreadable"


def test_nothing_is_written_and_no_restore_is_finished(app: SmallApp) -> None:
    back_up(app)
    before = picture(app)
    listed(app)
    assert picture(app) == before


BAD: list[tuple[tuple[str, ...], int, str, str]] = [
    (("good", "*.pdf"), 10, "*.pdf", "`files good`"),
    (("good", "*.txt", "nothing"), 10, "nothing", "`files good`"),
    (("good", "!*.txt"), 10, "matches", "`files good`"),
    (("good", "../x"), 2, "../x", "begin"),
    (("good", "[z-a]"), 2, "not a pattern", "gitignore"),
    (("good", "a\\"), 2, "not a pattern", "gitignore"),
    (("good", "*a*a*a*b"), 2, "too many stars", "several"),
    (("good", "**/a/**/a/**/a/**/b"), 2, "too many stars", "several"),
    (("none",), 10, "none", "`list`"),
    (("half",), 10, "no uploads", "`list`"),
]


@pytest.mark.parametrize(("words", "code", "names", "hint"), BAD, ids=[" ".join(words) for words, *_ in BAD])
def test_bad_input_is_an_error_that_names_it(app: SmallApp, words: Any, code: int, names: str, hint: str) -> None:
    back_up(app)
    run_here(app, "backup", "half", "--no-uploads", check=0)
    refused(app, "files", *words, code=code, names=names, hint=hint)


def test_a_backup_made_by_hand_is_listed(app: SmallApp) -> None:
    folder = app.backups / "by_hand"
    (folder / "uploads").mkdir(parents=True)
    (folder / "uploads" / "x").write_text("x")
    os.mkfifo(folder / "uploads" / "fifo")
    Path(folder / "backup_metadata.json").write_text(
        '{"timestamp": "20241201_120000", "database_file": null, "uploads_included": true}'
    )
    assert listed(app, name="by_hand") == {"x": "missing"}


def test_few_that_are_chosen_cost_no_look_at_all_the_others(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        app.write_upload(f"many/{number % 8}/{number}.txt", b"x")
    back_up(app)
    looked_at: list[str] = []
    monkeypatch.setattr(tree, "_look", lambda folder, name, path: looked_at.append(path) or LOOK(folder, name, path))
    _, found = files.list_files(app.settings, "good", ["17.txt"])
    assert [one.path for one in found] == ["many/1/17.txt"] and found[0].live == "same"
    assert {path for path in looked_at if path.count("/") == 2} <= {f"many/1/{number}.txt" for number in range(40)}


def test_paths_are_those_of_a_walk(app: SmallApp) -> None:
    app.write_upload("a/b/c", b"x")
    app.write_upload("a.b", b"x")
    app.write_upload("a-b/\udcff", b"x")
    walked = [(one.path, one.form == "folder") for one in tree.walk(app.uploads)]
    assert list(tree.paths(app.uploads)) == walked and len(walked) > 8
