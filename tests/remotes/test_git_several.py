"""The git remote for an app with several databases and trees, and for older branches that hold one of each."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from test_git_remote import (
    ALL,
    KILLED,
    UNLOADABLE,
    Place,
    bare,
    contents,
    git,
    is_sound,
    make_unloadable,
    restored,
    warnings,
)

from backupkit.config.remotes import GitTable
from backupkit.config.settings import Settings
from backupkit.model.backup import Backup, Metadata
from backupkit.model.errors import Damaged, Refused, RemoteFailed
from backupkit.model.events import Event, Notice, silence
from backupkit.remotes.git.remote import GitRemote
from backupkit.repository import manifest, store
from refusals import run_here
from several import SeveralApp, change_all, extend
from small_app import BACKEND, SmallApp, tree

pytestmark = pytest.mark.needs("git")

TEXT = ("dump", "metadata")
PUSHED = "The copy of one in the git remote is damaged: "
# A branch with one database and one folder, in the format from before an app could have several. Its three backups hold
# the text, the text and the uploads, and everything. `git clone --branch backup FILE` shows them.
OLDER = Path(__file__).with_name("one_database.bundle")


@pytest.fixture
def several(app: SmallApp) -> SeveralApp:
    return extend(app)


@pytest.fixture
def place(several: SeveralApp, tmp_path: Path) -> Place:
    return Place(several, bare(tmp_path / "host.git"))


@pytest.fixture
def other(tmp_path: Path, templates: Path) -> SeveralApp:
    """The same app on a new machine, with other data in every part."""
    other = extend(SmallApp.create(tmp_path / "new machine" / "app", templates))
    change_all(other)
    return other


def names_there(place: Place) -> list[str]:
    return sorted(git(place.host, "ls-tree", "--name-only", "backup").split())


def reworked(place: Place, tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Change the newest commit on the host, as somebody else."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "backup", str(place.host), str(clone))
    change(clone)
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--amend", "--no-edit")
    git(clone, "push", "--quiet", "--force")


def databases(app: SeveralApp) -> tuple[object, ...]:
    """Return all rows of the databases that lie in no tree."""
    return app.contents().rows, app.values(app.cache), app.values(app.queue)


def in_trees(app: SeveralApp) -> tuple[object, ...]:
    """Return everything in the app's trees."""
    return app.contents().uploads, *app.everything()[3:]


# Round trips


def test_all_of_it_comes_back_byte_for_byte_on_a_new_machine(
    place: Place, several: SeveralApp, other: SeveralApp
) -> None:
    (several.media / "link").symlink_to("deep")
    (several.media / "empty").mkdir(mode=0o750)
    before = several.everything()
    backup = place.pushed("one", include=ALL)
    pulled = place.pull("one", other)
    assert contents(pulled) == contents(backup.path)
    for name in ("uploads", "media"):
        assert tree(pulled / name) == tree(backup.path / name)
    assert is_sound(pulled, other.settings)
    restored(other, "one")
    assert other.everything() == before


def test_each_database_has_a_text_and_each_folder_its_name(place: Place) -> None:
    place.pushed("one", include=ALL)
    assert names_there(place) == [
        "RESTORE.md",
        "SHA256SUMS",
        "backup_metadata.json",
        "database",
        "dump.cache.sql",
        "dump.queue.sql",
        "dump.sql",
        "media",
        "uploads",
        "uploads.tree",
    ]
    assert git(place.host, "ls-tree", "--name-only", "backup:database").split() == [
        "cache.sqlite3",
        "pats.db",
        "queue.sqlite3",
    ]
    assert "inner.sqlite3" in git(place.host, "ls-tree", "--name-only", "backup:media")
    message = git(place.host, "log", "-1", "--format=%B", "backup")
    assert "Backup-Holds: database dump dump.cache dump.queue metadata uploads\n" in message


def test_one_database_whose_text_cannot_be_loaded_brings_the_files_of_all(
    place: Place, several: SeveralApp, other: SeveralApp
) -> None:
    make_unloadable(several.cache, UNLOADABLE["collation"])
    backup = place.backup("one")
    (warning,) = warnings(place.push(backup))
    assert warning.startswith("dump.cache.sql of one does not restore the database: No such collation sequence: own.")
    assert "dump.sql" not in warning and "dump.queue.sql" not in warning
    pulled = place.pull("one", other)
    for name in ("pats.db", "cache.sqlite3", "queue.sqlite3"):
        assert (pulled / name).read_bytes() == (backup.path / name).read_bytes()
    assert is_sound(pulled, other.settings)


def test_as_text_every_row_of_every_database_comes_back_and_no_folder_is_touched(
    place: Place, several: SeveralApp, other: SeveralApp
) -> None:
    several.put(several.cache, "two\r\nlines, 'quoted'")
    backup = place.pushed("text")
    assert names_there(place) == [
        "RESTORE.md",
        "backup_metadata.json",
        "dump.cache.sql",
        "dump.queue.sql",
        "dump.sql",
    ]
    folders = in_trees(other)
    heard: list[Event] = []
    pulled = other.backups / "text"
    pulled.mkdir(mode=0o700)
    place.remote(app=other).pull("text", pulled, heard.append)
    assert is_sound(pulled, other.settings)
    found, recorded = store.read(other.settings, "text"), store.require_metadata(backup)
    metadata = store.require_metadata(found)
    assert found.state == "checked"
    assert [one.name for one in metadata.databases] == ["database", "cache", "queue"]
    assert [one.schema_fingerprint for one in metadata.databases] == [
        one.schema_fingerprint for one in recorded.databases[:3]
    ]
    for name, facts in metadata.database_files.items():
        assert facts and facts.size == (pulled / name).stat().st_size
        assert facts.sha256 == manifest.sound_checksums(pulled)[name]
    assert metadata.databases[0].database == metadata.database
    assert (metadata.tree_facts, metadata.trees, metadata.uploads_included) == ({}, (), False)
    assert metadata.note == "made from its SQL text"
    assert [event.text for event in heard if isinstance(event, Notice)] == [
        "The folders uploads, media of text are not in the git remote.",
        "text was rebuilt from its SQL text: it has all rows, but its database files differ.",
    ]
    restored(other, "text")
    assert databases(other) == databases(several)
    assert in_trees(other) == folders


def test_the_page_for_restoring_by_hand_says_what_came(place: Place, other: SeveralApp) -> None:
    place.pushed("text")
    heads = re.findall("^## .*", (place.pull("text", other) / "RESTORE.md").read_text(), re.M)
    assert heads == [
        "## 1. Is this backup whole?",
        "## 2. The database",
        "## 2. The database cache",
        "## 2. The database queue",
        "## 4. The schema",
    ]


@pytest.mark.parametrize("include", [("dump", "metadata", "uploads"), ("database", "metadata")], ids="-".join)
def test_what_is_included_comes_back_and_the_metadata_say_so(
    place: Place, several: SeveralApp, other: SeveralApp, include: tuple[str, ...]
) -> None:
    backup = place.pushed("half", include=include)
    pulled = place.pull("half", other, include=include)
    assert is_sound(pulled, other.settings)
    has_trees, before, folders = "uploads" in include, several.everything(), in_trees(other)
    for name in ("pats.db", "cache.sqlite3", "queue.sqlite3"):
        assert ((pulled / name).read_bytes() == (backup.path / name).read_bytes()) == (not has_trees)
    assert set(store.require_metadata(store.read(other.settings, "half")).tree_facts) == (
        {"uploads", "media"} if has_trees else set()
    )
    restored(other, "half")
    assert databases(other) == databases(several)
    if has_trees:
        assert other.everything() == before
    else:
        assert in_trees(other) == folders


def test_only_the_text_of_the_database_that_changed_is_another(place: Place, several: SeveralApp) -> None:
    place.pushed("one")
    several.put(several.queue, "Acme")
    place.pushed("two")
    changed = git(place.host, "diff", "--name-only", "backup~", "backup").split()
    assert changed == ["RESTORE.md", "backup_metadata.json", "dump.queue.sql"]
    assert "Acme" in git(place.host, "diff", "backup~", "backup", "--", "dump.queue.sql")


def test_a_database_that_is_missing_and_folders_that_are_left_out_are_in_no_commit(
    place: Place, several: SeveralApp, other: SeveralApp
) -> None:
    several.queue.unlink()
    place.push(place.backup("few", uploads=False), include=ALL)
    assert names_there(place) == [
        "RESTORE.md",
        "SHA256SUMS",
        "backup_metadata.json",
        "database",
        "dump.cache.sql",
        "dump.sql",
        "uploads.tree",
    ]
    assert not place.remote().list()[0].uploads
    assert contents(place.pull("few", other)) == contents(several.backups / "few")


def test_a_push_done_twice_does_nothing_and_one_with_more_included_replaces_it(place: Place, other: SeveralApp) -> None:
    backup = place.pushed("one")
    before = place.tip()
    place.push(backup)
    assert place.tip() == before
    place.push(backup, include=ALL)
    assert (place.names(), len(place.log())) == (["one"], 1)
    assert contents(place.pull("one", other)) == contents(backup.path)


def test_what_is_removed_is_gone_and_history_is_bounded(place: Place, several: SeveralApp, other: SeveralApp) -> None:
    for number in range(1, 7):
        several.put(several.cache, str(number))
        place.pushed(f"n{number}", keep=2, include=ALL)
        assert len(place.log()) <= 4
    place.remote().remove(["n5"])
    assert place.names()[0] == "n6" and "n5" not in place.names()
    for name in place.names():
        assert contents(place.pull(name, other)) == contents(several.backups / name)
    place.remote().verify(silence)


# The commands


def to_git(app: SeveralApp, host: Path, *include: str) -> SeveralApp:
    """Add a git remote on that host to the app's settings."""
    parts = f"include = {json.dumps(include)}\n" if include else ""
    with (app.folder / "backup.toml").open("a") as toml:
        toml.write(f'\n[remotes.host]\ntype = "git"\nurl = "{host}"\n{parts}')
        toml.write('user_name = "B"\nuser_email = "b@example.com"\nkeep_last = 1\nmin_keep = 1\n')
    return app


@pytest.mark.parametrize("include", [(), ALL], ids=["text", "all"])
def test_push_verify_pull_restore_and_prune_by_the_commands(
    several: SeveralApp, other: SeveralApp, tmp_path: Path, include: tuple[str, ...]
) -> None:
    host = bare(tmp_path / "host.git")
    to_git(several, host, *include), to_git(other, host, *include)
    first = run_here(several, "auto-backup", "--json", check=0).json["backup_name"]
    run_here(several, "push", "--yes", check=0)
    second = run_here(several, "auto-backup", "--json", check=0).json["backup_name"]
    several.put(several.cache, "more")
    run_here(several, "backup", "one", check=0)
    run_here(several, "push", "--yes", check=0)
    run_here(several, "verify", "--remote", "host", check=0)
    run_here(other, "verify", "one", "--remote", "host", "--test-restore", check=0)
    look = tmp_path / "look"
    run_here(other, "restore", "one", "--to", str(look), "--remote", "host", check=0)
    with closing(sqlite3.connect(next(look.rglob("cache.sqlite3")))) as laid_out:
        assert laid_out.execute("SELECT value FROM entries ORDER BY id").fetchall() == [("before",), ("more",)]
    assert not (other.backups / "one").exists()
    run_here(other, "pull", "one", "--remote", "host", check=0)
    run_here(other, "verify", "one", "--test-restore", check=0)
    run_here(other, "restore", "one", "--yes", check=0)
    assert databases(other) == databases(several)
    assert (other.everything() == several.everything()) == bool(include)
    listed = run_here(several, "list", "--remote", "host", "--json", check=0).json
    assert [one["name"] for one in listed] == ["one", second, first]
    run_here(several, "prune", "--remote", "host", check=0)
    listed = run_here(several, "list", "--remote", "host", "--json", check=0).json
    assert [one["name"] for one in listed] == ["one", second]


# Damage and interruption


def loose(place: Place, file: str) -> Path:
    """Return the path at which the host stores that file of the newest commit."""
    id_ = git(place.host, "rev-parse", f"backup:{file}").strip()
    return place.host / "objects" / id_[:2] / id_[2:]


@pytest.mark.parametrize("file", ["dump.cache.sql", "database/cache.sqlite3", "media/title.txt"])
def test_a_damaged_file_of_the_second_database_or_tree_is_found(place: Place, other: SeveralApp, file: str) -> None:
    place.pushed("one", include=ALL)
    place.remote().verify(silence)
    stored = loose(place, file)
    stored.chmod(0o644)
    content = bytearray(stored.read_bytes())
    content[-3] ^= 0xFF
    stored.write_bytes(content)
    with pytest.raises((RemoteFailed, Damaged)):
        place.remote().verify(silence)
    with pytest.raises((RemoteFailed, Damaged)):
        place.pull("one", other)


def test_a_second_database_whose_text_is_missing_is_found(place: Place, other: SeveralApp, tmp_path: Path) -> None:
    place.pushed("one")
    reworked(place, tmp_path, lambda clone: (clone / "dump.cache.sql").unlink())
    with pytest.raises(Damaged, match=f"{PUSHED}dump.cache.sql is missing"):
        place.remote().verify(silence)
    with pytest.raises(Damaged, match=f"{PUSHED}dump.cache.sql is missing"):
        place.pull("one", other)


def test_a_text_of_the_second_database_that_has_other_rows_is_not_taken(
    place: Place, other: SeveralApp, tmp_path: Path
) -> None:
    place.pushed("one")

    def forge(clone: Path) -> None:
        text = (clone / "dump.cache.sql").read_text()
        (clone / "dump.cache.sql").write_text(text.replace("COMMIT;", "DELETE FROM entries;\nCOMMIT;"))

    reworked(place, tmp_path, forge)
    with pytest.raises(Damaged, match=f"{PUSHED}its SQL text of cache makes other rows than were backed up"):
        place.pull("one", other)


@pytest.mark.parametrize("file", ["database/cache.sqlite3", "media/title.txt"])
def test_a_file_of_the_second_database_or_tree_that_was_changed_there_is_not_taken(
    place: Place, other: SeveralApp, tmp_path: Path, file: str
) -> None:
    place.pushed("one", include=ALL)
    reworked(place, tmp_path, lambda clone: (clone / file).write_bytes(b"x" * (clone / file).stat().st_size))
    with pytest.raises(Damaged, match=f"{PUSHED}{file.removeprefix('database/')} is not as it was written"):
        place.pull("one", other)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"database_file": "queue.sqlite3"', '"database_file": "cache.sqlite3"', "cache.sqlite3 and cache.sqlite3"),
        ('"name": "queue"', '"name": "cache"', "a name comes twice"),
        ('"name": "media"', '"name": "database"', "'database' is not a name"),
        ('"name": "queue"', '"name": "../x"', "is not a path in a tree"),
    ],
)
def test_names_that_collide_or_lead_out_are_refused(
    place: Place, other: SeveralApp, tmp_path: Path, old: str, new: str, why: str
) -> None:
    place.pushed("one")

    def forge(clone: Path) -> None:
        text = (clone / "backup_metadata.json").read_text()
        assert old in text
        (clone / "backup_metadata.json").write_text(text.replace(old, new))

    reworked(place, tmp_path, forge)
    with pytest.raises(Damaged, match=f"cannot be trusted: .*{re.escape(why)}"):
        place.pull("one", other)
    assert contents(other.backups / "one") == {}


def test_a_second_database_that_was_altered_here_is_not_pushed(place: Place) -> None:
    for include in (TEXT, ALL):
        backup = place.backup(f"altered-{len(include)}")
        content = bytearray((backup.path / "cache.sqlite3").read_bytes())
        content[-1] ^= 1
        (backup.path / "cache.sqlite3").write_bytes(content)
        with pytest.raises(Damaged, match=r"cache\.sqlite3 is not as it was written; nothing was pushed"):
            place.push(backup, include=include)
    assert (place.names(), place.litter()) == ([], [])


def raw(metadata: Metadata, name: str) -> Metadata:
    """Return the metadata as if that database had been too broken to read."""
    found = tuple(
        replace(one, database=replace(one.database, raw=True)) if one.name == name and one.database else one
        for one in metadata.databases
    )
    return replace(metadata, databases=found)


def test_a_second_database_kept_raw_has_no_text(place: Place) -> None:
    backup = place.backup("raw")
    metadata = raw(store.require_metadata(backup), "queue")
    with pytest.raises(Refused, match="there is no SQL text of it"):
        place.remote().push(backup.path, metadata, silence)
    place.remote(include=ALL).push(backup.path, metadata, silence)
    assert [one for one in names_there(place) if one.startswith("dump")] == ["dump.cache.sql", "dump.sql"]


@pytest.mark.slow
def test_a_push_killed_anywhere_leaves_the_remote_whole_and_the_next_completes_it(
    place: Place, several: SeveralApp, other: SeveralApp
) -> None:
    place.pushed("one")
    several.put(several.queue, "more")
    before, backup, first = several.everything(), place.backup("two"), place.tip()
    include = ("dump", "metadata", "uploads")
    seen = set()
    for at in range(1, 100):
        child = subprocess.run(
            [sys.executable, "-c", KILLED, several.folder, place.host, str(at)],
            env={**os.environ, "PYTHONPATH": str(BACKEND)},
            capture_output=True,
            text=True,
            check=False,
        )
        git(place.host, "fsck", "--strict")
        seen.add(tuple(place.names()))
        if child.returncode != -signal.SIGKILL:
            break
        store.clear_drafts(several.settings)
        place.push(backup, include=include)
        assert place.names() == ["two", "one"]
        place.remote().verify(silence)
        git(place.host, "update-ref", "refs/heads/backup", first)
    assert child.returncode == 0, child.stderr
    assert at > 8
    assert seen == {("one",), ("two", "one")}
    place.pull("two", other)
    restored(other, "two")
    assert other.everything() == before


# Branches that hold one database and one folder


def shop(folder: Path) -> tuple[Settings, GitRemote]:
    """Return the settings and the remote of an app whose older backups lie on a branch."""
    (folder / "backups").mkdir(parents=True)
    app = Settings(
        app_dir=folder,
        database=folder / "data" / "shop.db",
        uploads=folder / "uploads",
        dir=folder / "backups",
        app_id="shop",
    )
    host = folder / "host.git"
    git(folder, "clone", "--quiet", "--bare", "--branch", "backup", str(OLDER), str(host))
    return app, GitRemote(app, "git", table(host))


def table(host: Path, **more: Any) -> GitTable:
    return GitTable(type="git", url=str(host), user_name="Backup", user_email="backup@example.com", **more)


def pulled(app: Settings, remote: GitRemote, name: str) -> Backup:
    (app.dir / name).mkdir(mode=0o700)
    remote.pull(name, app.dir / name, silence)
    assert is_sound(app.dir / name, app)
    return store.read(app, name)


def test_an_older_branch_is_listed_verified_and_pulled(tmp_path: Path) -> None:
    app, remote = shop(tmp_path / "shop")
    assert [one.name for one in remote.list()] == ["whole", "half", "text"]
    remote.verify(silence)
    for name, rows in (("text", 3), ("half", 4), ("whole", 5)):
        backup = pulled(app, remote, name)
        with closing(sqlite3.connect(f"file:{backup.path}/shop.db?mode=ro&immutable=1", uri=True)) as sealed:
            assert sealed.execute("SELECT count(*) FROM orders").fetchone() == (rows,)
        assert (backup.path / "uploads" / "100%.txt").exists() == (name != "text")
    assert os.readlink(app.dir / "whole" / "uploads" / "deep" / "latest") == "../100%.txt"


def test_a_backup_of_one_database_is_laid_out_there_to_the_letter_as_before(tmp_path: Path) -> None:
    app, remote = shop(tmp_path / "shop")
    backup = pulled(app, remote, "whole")
    again = bare(tmp_path / "again.git")
    GitRemote(app, "git", table(again, include=ALL)).push(backup.path, store.require_metadata(backup), silence)
    host = app.app_dir / "host.git"
    assert commit(again) == commit(host)


def commit(host: Path) -> tuple[dict[str, str], list[Any], str]:
    """Return the newest commit without what depends on who pulled: owners, and the size of the list that holds them."""
    files = dict(line.split("\t")[::-1] for line in git(host, "ls-tree", "-r", "backup").splitlines())
    del files["uploads.tree"]
    listing = [json.loads(line) for line in git(host, "show", "backup:uploads.tree").splitlines()]
    message = git(host, "log", "-1", "--format=%an %ae %aI %cI%n%B", "backup")
    return files, [{**one, "owner": None} for one in listing], re.sub("Backup-Bytes: .*\n", "", message)


def test_a_database_in_the_uploads_stays_behind_with_them(app: SmallApp, tmp_path: Path, templates: Path) -> None:
    """Pulled as text, the backup would name in its metadata a database in uploads that it does not have."""
    with closing(sqlite3.connect(app.uploads / "vectors.sqlite3")) as live, live:
        live.execute("CREATE TABLE vectors (id INTEGER PRIMARY KEY)")
    place, other = Place(app, bare(tmp_path / "host.git")), SmallApp.create(tmp_path / "other" / "app", templates)
    place.pushed("text")
    place.pull("text", other)
    assert store.require_metadata(store.read(other.settings, "text")).databases == ()
    assert restored(other, "text").contents().rows == app.contents().rows
    backup = place.pushed("whole", include=ALL)
    assert contents(place.pull("whole", other)) == contents(backup.path)
