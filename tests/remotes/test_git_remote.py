"""The git remote, on real repositories on disk, with real pushes that lose a race, are refused, or are killed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from msgspec.structs import replace

from backupkit.backup.create import create_backup
from backupkit.config.remotes import GitTable
from backupkit.config.settings import Settings
from backupkit.config.table import Invalid
from backupkit.model.backup import Backup, BackupRequest
from backupkit.model.errors import Damaged, NoSuchBackup, Refused, RemoteFailed
from backupkit.model.events import Event, EventListener, Notice, Warned, silence
from backupkit.remotes.base import WHOLE, DamagedThere
from backupkit.remotes.git.remote import GitRemote
from backupkit.repository import integrity, manifest, store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.sqlite import sql
from small_app import BACKEND, NOON, SmallApp, tree

pytestmark = pytest.mark.needs("git")

ALL = ("dump", "metadata", "database", "uploads")
HOSTILE = [
    ".git/config",
    ".GIT/hooks/pre-push",
    "sub/git~1",
    ".gitmodules",
    "line\nbreak.txt",
    'quo"ted\\.txt',
    "100%.txt",
    "%2Egit",
    "caf\u00e9.txt",
    "\u200c.git/x",
    os.fsdecode(b"latin-\xe9.txt"),
    " leading and trailing ",
    "tab\there",
    "-option",
]


def git(folder: Path, *arguments: str) -> str:
    """Return git's output, without the git configuration of the user who runs the tests."""
    apart = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    person = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "core.hooksPath=/dev/null")
    done = subprocess.run(
        ["git", *person, *arguments],
        cwd=folder,
        env={**os.environ, **apart},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def bare(folder: Path) -> Path:
    """Create a repository like a host's: bare, on disk, and able to serve partial clones."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main")
    git(folder, "config", "uploadpack.allowFilter", "true")
    return folder


def settings_of(url: str, /, **changes: Any) -> GitTable:
    return GitTable(**{"type": "git", "url": url, "user_name": "Backup", "user_email": "backup@example.com", **changes})


def make_git_remote(tmp_path: Path, settings: Settings | None = None, **changes: Any) -> GitRemote:
    """Return a git remote on its own real bare repository; also used by the tests of all remotes."""
    here = settings or Settings(app_dir=tmp_path, dir=tmp_path)
    host = tmp_path / "host.git"
    return GitRemote(here, "git", settings_of(str(host if host.exists() else bare(host)), **changes))


@dataclass
class Place:
    """A small app and a host that its backups are pushed to."""

    app: SmallApp
    host: Path
    hour: int = 0

    def remote(self, url: str | None = None, app: SmallApp | None = None, **changes: Any) -> GitRemote:
        return GitRemote((app or self.app).settings, "git", settings_of(url or str(self.host), **changes))

    def backup(self, name: str, app: SmallApp | None = None, **order: Any) -> Backup:
        """Make a backup dated one hour after the previous one."""
        self.hour += 1
        moment = NOON + timedelta(hours=self.hour)
        return create_backup((app or self.app).settings, BackupRequest(name, **order), silence, lambda: moment).backup

    def push(self, backup: Backup, **changes: Any) -> list[Event]:
        heard: list[Event] = []
        self.remote(**changes).push(backup.path, store.require_metadata(backup), heard.append)
        return heard

    def pushed(self, name: str, **changes: Any) -> Backup:
        backup = self.backup(name)
        self.push(backup, **changes)
        return backup

    def pull(self, name: str, app: SmallApp | None = None, **changes: Any) -> Path:
        """Pull the backup into the backups folder of an app."""
        target = (app or self.app).backups / name
        target.mkdir(mode=0o700)
        self.remote(app=app, **changes).pull(name, target, silence)
        return target

    def names(self) -> list[str]:
        return [one.name for one in self.remote().list()]

    def log(self) -> list[str]:
        """Return the subjects of the branch's commits, newest first."""
        return git(self.host, "log", "--format=%s", "backup").splitlines()

    def tip(self) -> str:
        return git(self.host, "rev-parse", "backup").strip()

    def litter(self) -> list[Path]:
        return [path for path in self.app.backups.iterdir() if path.name.startswith(".draft")]


@pytest.fixture
def place(app: SmallApp, tmp_path: Path) -> Place:
    return Place(app, bare(tmp_path / "host.git"))


@pytest.fixture
def other(tmp_path: Path, templates: Path) -> SmallApp:
    """The same app on a new machine, with other data."""
    other = SmallApp.create(tmp_path / "new machine" / "app", templates)
    other.add_rows(7)
    other.write_upload("only here", b"x")
    return other


def restored(app: SmallApp, name: str) -> SmallApp:
    plan = plan_restore(app.settings, name)
    restore_backup(app.settings, plan)
    return app


def is_sound(folder: Path, settings: Settings) -> bool:
    metadata = manifest.read_metadata(folder, settings.zone)
    return not [*integrity.file_flaws(folder, metadata, integrity.Digests())]


# Round trips


def test_a_backup_with_all_of_it_included_comes_back_byte_for_byte_on_a_new_machine(
    place: Place, other: SmallApp
) -> None:
    app = place.app
    app.write_upload("run.sh", b"#!/bin/sh\n").chmod(0o755)
    (app.uploads / "gone").symlink_to("/nowhere/at all")
    (app.uploads / "deep/empty").mkdir(parents=True)
    (app.uploads / "deep").chmod(0o2750)
    app.write_upload("sparse", b"").touch()
    os.truncate(app.uploads / "sparse", 3_000_000)
    backup = place.pushed("whole", include=ALL)
    pulled = place.pull("whole", other)
    assert contents(pulled) == contents(backup.path)
    assert (pulled / "pats.db").stat().st_mode == (backup.path / "pats.db").stat().st_mode
    assert tree(pulled / "uploads") == tree(backup.path / "uploads")
    assert is_sound(pulled, other.settings)
    assert restored(other, "whole").contents() == app.contents()


def contents(folder: Path) -> dict[str, bytes]:
    return {path: facts[3] for path, facts in tree(folder).items()}


def test_a_backup_as_text_comes_back_with_every_row_on_a_new_machine(place: Place, other: SmallApp) -> None:
    app = place.app
    app.execute("CREATE TABLE odd (a, b)")
    app.execute("INSERT INTO odd VALUES (?, ?)", (b"\x00\xff", "two\r\nlines, 'quoted'"))
    app.execute("PRAGMA user_version = 7")
    backup = place.backup("text", note="before 2.0")
    place.push(backup)
    uploads = other.contents().uploads
    pulled = place.pull("text", other)
    assert is_sound(pulled, other.settings)
    made, recorded = store.read(other.settings, "text"), store.require_metadata(backup)
    metadata = store.require_metadata(made)
    assert made.state == "checked"
    assert (metadata.created_at, metadata.revisions) == (recorded.created_at, recorded.revisions)
    assert metadata.schema_fingerprint == recorded.schema_fingerprint
    assert metadata.note == "before 2.0 (made from its SQL text)"
    assert (metadata.uploads_included, metadata.uploads) == (False, None)
    assert "uploads/. " not in (pulled / "RESTORE.md").read_text()
    assert restored(other, "text").rows("odd") == app.rows("odd")
    assert other.contents().rows == app.contents().rows
    assert other.contents().uploads == uploads


@pytest.mark.parametrize("include", [("dump", "metadata", "uploads"), ("database", "metadata")], ids="-".join)
def test_what_is_included_comes_back_and_the_metadata_say_so(
    place: Place, other: SmallApp, include: tuple[str, ...]
) -> None:
    backup = place.pushed("half", include=include)
    pulled = place.pull("half", other, include=include)
    assert is_sound(pulled, other.settings)
    assert ((pulled / "pats.db").read_bytes() == (backup.path / "pats.db").read_bytes()) == ("database" in include)
    has_uploads = "uploads" in include
    assert store.require_metadata(store.read(other.settings, "half")).uploads_included == has_uploads
    assert not has_uploads or tree(pulled / "uploads") == tree(backup.path / "uploads")
    assert restored(other, "half").contents().rows == place.app.contents().rows


def test_names_that_git_takes_for_its_own_come_back_too(place: Place, other: SmallApp) -> None:
    for number, name in enumerate(HOSTILE):
        place.app.write_upload(name, f"{number}".encode())
    backup = place.pushed("hostile", include=ALL)
    stored = git(place.host, "ls-tree", "-r", "--name-only", "-z", "backup").split("\0")
    assert [one for one in stored if re.search(r"(^|/)(\.git|git~)", one, re.IGNORECASE)] == []
    assert len(set(stored)) == len(stored)
    git(place.host, "fsck", "--strict")
    assert tree(place.pull("hostile", other) / "uploads") == tree(backup.path / "uploads")


def test_a_host_checks_what_it_gets_and_takes_it(place: Place) -> None:
    git(place.host, "config", "receive.fsckObjects", "true")
    place.app.write_upload(".git/config", b"[core]")
    place.app.write_upload(".gitmodules", b"no such thing")
    place.pushed("checked", include=ALL)
    assert place.names() == ["checked"]


def test_what_the_host_shows_is_text_that_can_be_compared(place: Place) -> None:
    place.pushed("one")
    place.app.execute("INSERT INTO companies (name) VALUES ('Acme')")
    place.pushed("two")
    assert sorted(git(place.host, "ls-tree", "--name-only", "backup").split()) == [
        "RESTORE.md",
        "backup_metadata.json",
        "dump.sql",
    ]
    lines = git(place.host, "diff", "-U0", "backup~", "backup", "--", "dump.sql").splitlines()
    added = [line for line in lines if line.startswith("+") and not line.startswith("+++")]
    assert any("Acme" in line for line in added)
    assert len(added) < 5


def test_the_list_has_what_the_backups_say_newest_first(place: Place) -> None:
    one = place.backup("one", kind="auto", note="Backup-Name: evil\n\nBackup-Name: evil")
    place.push(one)
    place.pushed("two", include=ALL)
    newest, oldest = place.remote().list()
    metadata = store.require_metadata(one)
    assert (newest.name, newest.uploads, oldest.uploads) == ("two", True, False)
    assert (oldest.name, oldest.kind, oldest.created_at) == ("one", "auto", metadata.created_at)
    assert (oldest.app_id, oldest.revision) == (metadata.app_id, ",".join(metadata.revisions))
    assert 0 < oldest.size_bytes < newest.size_bytes
    assert place.log()[-1] == "Backup one, 15 June 2026, 13:00:00 UTC"
    assert (
        git(place.host, "log", "-1", "--format=%an %ae %cn %ce", "backup").split()
        == [
            "Backup",
            "backup@example.com",
        ]
        * 2
    )


def test_a_push_done_twice_does_nothing_the_second_time(place: Place) -> None:
    backup = place.pushed("one")
    before = place.tip()
    assert [event.text for event in place.push(backup) if isinstance(event, Notice)] == [
        "one is in the git remote git already."
    ]
    assert (place.tip(), place.names()) == (before, ["one"])


def test_a_push_with_more_included_replaces_the_one_with_less(place: Place, other: SmallApp) -> None:
    backup = place.pushed("one")
    place.pushed("two")
    place.push(backup, include=ALL)
    assert sorted(place.names()) == ["one", "two"]
    assert tree(place.pull("one", other) / "uploads") == tree(backup.path / "uploads")


def test_an_older_backup_can_follow_a_newer_one(place: Place) -> None:
    older, newer = place.backup("older"), place.backup("newer")
    place.push(newer)
    place.push(older)
    assert place.names() == ["newer", "older"]


def test_another_backup_of_that_name_is_never_replaced(place: Place, other: SmallApp) -> None:
    place.pushed("same")
    before = place.tip()
    backup = place.backup("same", other)
    with pytest.raises(Refused, match="another backup named same"):
        place.remote(app=other).push(backup.path, store.require_metadata(backup), silence)
    assert place.tip() == before


def test_a_backup_that_was_altered_is_not_pushed(place: Place) -> None:
    for include, file in ((("dump", "metadata"), "pats.db"), (ALL, "uploads/1/letter.txt")):
        backup = place.backup(f"altered-{len(include)}")
        content = bytearray((backup.path / file).read_bytes())
        content[-1] ^= 1
        (backup.path / file).write_bytes(content)
        with pytest.raises(Damaged, match="is not as it was written; nothing was pushed"):
            place.push(backup, include=include)
    assert place.names() == []
    assert place.litter() == []


def test_a_database_kept_raw_has_no_text_and_is_refused(place: Place) -> None:
    backup = place.backup("raw")
    metadata = store.require_metadata(backup)
    assert metadata.database
    raw = replace(metadata, database=replace(metadata.database, raw=True))
    with pytest.raises(Refused, match="there is no SQL text of it"):
        place.remote().push(backup.path, raw, silence)


# SQL text that does not restore the database


@dataclass(frozen=True)
class Unloadable:
    """Database content that SQLite alone cannot restore from SQL text, and the reason."""

    made_by: str
    reason: str
    row: str = ""


UNLOADABLE = {
    "check row": Unloadable(
        "CREATE TABLE c (a CHECK (a > 5)); INSERT INTO c VALUES (6);"
        " PRAGMA ignore_check_constraints = 1; INSERT INTO c VALUES (1)",
        "CHECK constraint failed: a > 5.",
    ),
    "function in index": Unloadable("CREATE INDEX f ON documents (own(path))", "No such function: own."),
    "function in check": Unloadable(
        "CREATE TABLE f (a CHECK (own(a) IS NOT NULL)); INSERT INTO f VALUES (1)", "No such function: own."
    ),
    "generated column": Unloadable(
        "CREATE TABLE f (a, b AS (own(a)) STORED); INSERT INTO f (a) VALUES (1)", "No such function: own."
    ),
    "collation": Unloadable(
        "CREATE TABLE n (a TEXT COLLATE own PRIMARY KEY); INSERT INTO n VALUES ('x'), ('y')",
        "No such collation sequence: own.",
    ),
    "missing module": Unloadable(
        "PRAGMA writable_schema = 1; INSERT INTO sqlite_master VALUES"
        " ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING vec0(a)')",
        "A virtual table of the module vec0 is not allowed in a dump.",
    ),
}
each_unloadable = pytest.mark.parametrize("kind", UNLOADABLE.values(), ids=UNLOADABLE.keys())


def make_unloadable(database: Path, kind: Unloadable) -> None:
    """Change the database as an app does, with the function and the collation that only this app defines."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.create_function("own", 1, lambda value: value, deterministic=True)
        connection.create_collation("own", lambda one, two: (one > two) - (one < two))
        connection.executescript(kind.made_by)


def warnings(heard: list[Event]) -> list[str]:
    return [event.text for event in heard if isinstance(event, Warned)]


@each_unloadable
def test_a_database_whose_text_cannot_be_loaded_is_pushed_as_a_file_too_and_comes_back_byte_for_byte(
    place: Place, other: SmallApp, kind: Unloadable
) -> None:
    make_unloadable(place.app.database, kind)
    backup = place.backup("own")
    assert warnings(place.push(backup)) == [
        f"dump.sql of own does not restore the database: {kind.reason} So the database file is pushed to git too. "
        "To avoid this warning, add database to `include`."
    ]
    names = git(place.host, "ls-tree", "-r", "--name-only", "backup").split()
    assert names == ["RESTORE.md", "backup_metadata.json", "database/pats.db", "dump.sql", "uploads.tree"]
    pulled = place.pull("own", other)
    assert (pulled / "pats.db").read_bytes() == (backup.path / "pats.db").read_bytes()
    assert is_sound(pulled, other.settings)
    metadata = store.require_metadata(store.read(other.settings, "own"))
    assert (metadata.uploads_included, metadata.note) == (False, "")
    assert restored(other, "own").rows("documents") == place.app.rows("documents")


def test_of_a_backup_without_uploads_everything_comes_back_byte_for_byte(place: Place, other: SmallApp) -> None:
    make_unloadable(place.app.database, UNLOADABLE["collation"])
    backup = place.backup("own", uploads=False)
    place.push(backup)
    assert contents(place.pull("own", other)) == contents(backup.path)


def test_a_commit_that_holds_more_than_is_included_is_as_any_other(place: Place, other: SmallApp) -> None:
    place.pushed("before", keep=2)
    make_unloadable(place.app.database, UNLOADABLE["function in index"])
    own = place.pushed("own", keep=2)
    tip = place.tip()
    again = place.push(own, keep=2)
    assert [event.text for event in again if isinstance(event, Notice)] == ["own is in the git remote git already."]
    assert (warnings(again), place.tip()) == ([], tip)
    place.pushed("after", keep=2)
    place.remote().verify(silence)
    place.remote().verify(silence, ["own"])
    place.remote().remove(["before"])
    assert place.names() == ["after", "own"]
    for number in range(3):
        place.pushed(f"n{number}", keep=2)
    assert place.names() == ["n2", "n1"]  # with four backups there, a push keeps the newest two
    newest = place.app.backups / "n2"
    assert (place.pull("n2", other) / "pats.db").read_bytes() == (newest / "pats.db").read_bytes()
    place.remote().verify(silence)


@pytest.mark.parametrize("include", [ALL, ("database", "metadata")], ids="-".join)
def test_where_the_file_is_included_the_text_need_not_be_loaded(
    place: Place, other: SmallApp, include: tuple[str, ...]
) -> None:
    make_unloadable(place.app.database, UNLOADABLE["collation"])
    backup = place.backup("own")
    assert warnings(place.push(backup, include=include)) == []
    assert (place.pull("own", other) / "pats.db").read_bytes() == (backup.path / "pats.db").read_bytes()


def test_a_file_that_must_come_along_and_is_beyond_the_limit_is_refused_with_the_cause(place: Place) -> None:
    place.app.execute("CREATE TABLE big AS SELECT zeroblob(400000) AS content")
    place.app.execute("CREATE TABLE spare AS SELECT zeroblob(900000) AS content")
    place.app.execute("DROP TABLE spare")  # its pages stay in the file, but no text contains them
    make_unloadable(place.app.database, UNLOADABLE["function in index"])
    backup = place.backup("own")
    expected = r"^dump.sql of own does not restore the database: No such function: own\. The git remote git takes files"
    with pytest.raises(Refused, match=expected) as raised:
        place.push(backup, file_limit_mb=1)
    assert "pats.db (" in raised.value.message and "include" not in raised.value.hint
    assert git(place.host, "for-each-ref") == ""
    assert place.litter() == []


def test_a_text_that_makes_another_database_is_found_when_it_is_pushed(
    place: Place, other: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = place.backup("own")
    write = sql.write_dump

    def without_a_row(live: sqlite3.Connection, out: BinaryIO, emit: EventListener = silence) -> sql.DumpFacts:
        text = io.BytesIO()
        facts = write(live, text, emit)
        out.write(text.getvalue().replace(b"COMMIT;", b"DELETE FROM documents;\nCOMMIT;"))
        return facts

    monkeypatch.setattr(sql, "write_dump", without_a_row)
    assert "dump.sql of own does not restore the database: It makes other rows than were backed up. So" in str(
        warnings(place.push(backup))
    )
    assert (place.pull("own", other) / "pats.db").read_bytes() == (backup.path / "pats.db").read_bytes()


# The user's own repository


@dataclass(frozen=True)
class Picture:
    status: str
    head: bytes
    index: bytes
    refs: str
    config: bytes
    files: dict[str, bytes]


def picture(repository: Path) -> Picture:
    files = {str(p): p.read_bytes() for p in repository.rglob("*") if p.is_file() and "backups" not in p.parts}
    inside = repository / ".git"
    index = (inside / "index").read_bytes()
    refs = git(repository, "for-each-ref")
    status = git(repository, "--no-optional-locks", "status", "--porcelain=v2", "--branch")
    return Picture(status, (inside / "HEAD").read_bytes(), index, refs, (inside / "config").read_bytes(), files)


@pytest.fixture
def repository(place: Place) -> Path:
    """The app's folder as a repository with a remote, hooks that must not run, and uncommitted changes."""
    folder = place.app.folder
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "remote", "add", "origin", str(place.host))
    (folder / ".gitignore").write_text("backups/\ndata/\nuploads/\n")
    git(folder, "add", ".gitignore", "models.py")
    git(folder, "commit", "--quiet", "-m", "code")
    git(folder, "push", "--quiet", "origin", "main")
    (folder / "models.py").write_text("# changed\n")
    (folder / "staged.py").write_text("# staged\n")
    git(folder, "add", "staged.py")
    for hook in ("pre-commit", "commit-msg", "pre-push", "post-commit", "reference-transaction", "post-rewrite"):
        path = folder / ".git" / "hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {folder}/hook-{hook}\nexit 1\n")
        path.chmod(0o755)
    return folder


def test_nothing_of_the_users_repository_is_touched_and_no_hook_runs(place: Place, repository: Path) -> None:
    backup = place.backup("one")
    before = picture(repository)
    place.push(backup, url="origin")
    place.remote(url="origin").check()
    place.remote(url="origin").verify(silence)
    assert picture(repository) == before
    assert list(repository.glob("hook-*")) == []
    assert place.names() == ["one"]
    assert git(place.host, "log", "--format=%s", "main") == "code\n"


def test_a_detached_head_is_as_good_as_a_branch(place: Place, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    before = picture(repository)
    place.pushed("one", url="origin")
    assert picture(repository) == before
    assert place.names() == ["one"]


def test_hooks_and_signing_of_the_users_own_configuration_stay_out(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    git(place.host, "config", "core.hooksPath", str(tmp_path / "the host has none"))
    for hook in ("pre-push", "reference-transaction"):
        (hooks / hook).write_text(f"#!/bin/sh\ntouch {hooks}/ran\nexit 1\n")
        (hooks / hook).chmod(0o755)
    config = tmp_path / "config"
    config.write_text(
        f"[core]\nhooksPath={hooks}\n[commit]\ngpgSign=true\n[gpg]\nprogram=false\n[push]\ngpgSign=true\n"
        "[transfer]\nfsckObjects=true\n[log]\nshowSignature=true\n[init]\ndefaultBranch=x\n"
        f'[safe]\nbareRepository=explicit\n[url "{place.host}"]\ninsteadOf=short:\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    place.pushed("one", url="short:")
    assert place.names() == ["one"]
    assert not (hooks / "ran").exists()


def test_a_call_from_inside_a_hook_of_git_does_not_meet_its_repository(
    place: Place, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = place.backup("one")
    before = picture(repository)
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository / ".git" / "index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    place.push(backup)
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name)
    assert picture(repository) == before
    assert place.names() == ["one"]


def test_what_the_repository_alone_knows_of_its_host_holds(place: Place, repository: Path) -> None:
    git(repository, "config", f"url.{place.host}.insteadOf", "company:")
    git(repository, "config", "http.extraHeader", 'odd "quotes" \\ and\na line')
    git(repository, "remote", "set-url", "origin", "company:")
    place.pushed("one", url="origin")
    assert place.names() == ["one"]


# Other machines, and hosts that refuse


def test_a_push_that_another_machine_overtook_has_both(
    place: Place, other: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = place.backup("ours"), place.backup("theirs", other)
    original = GitRemote._commit_draft

    def overtaken(self: GitRemote, *arguments: Any) -> Any:
        draft = original(self, *arguments)
        monkeypatch.setattr(GitRemote, "_commit_draft", original)
        place.remote(app=other).push(theirs.path, store.require_metadata(theirs), silence)
        return draft

    place.pushed("first")
    monkeypatch.setattr(GitRemote, "_commit_draft", overtaken)
    place.push(ours)
    assert sorted(place.names()) == ["first", "ours", "theirs"]
    assert git(place.host, "rev-list", "--count", "--min-parents=2", "backup") == "0\n"


def test_a_host_that_refuses_says_why_and_nothing_changed(place: Place) -> None:
    place.pushed("one")
    before = place.tip()
    hook = place.host / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'this branch is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    backup = place.backup("two")
    with pytest.raises(RemoteFailed, match="refused the push to backup: this branch is protected"):
        place.push(backup)
    assert place.tip() == before
    assert place.litter() == []


def test_a_host_that_forbids_to_rewrite_says_so(place: Place) -> None:
    git(place.host, "config", "receive.denyNonFastForwards", "true")
    for name in ("one", "two"):
        place.pushed(name)
    with pytest.raises(RemoteFailed, match=r"refused the push to backup: .*non-fast-forward"):
        place.remote().remove(["one"])
    assert sorted(place.names()) == ["one", "two"]


def work_on(place: Place, folder: Path, *subjects: str) -> Path:
    """Make commits on the branch as a person does, and return the clone they were made in."""
    clone = folder / "clone"
    git(folder, "clone", "--quiet", "--branch", "backup", str(place.host), str(clone))
    for subject in subjects:
        git(clone, "commit", "--quiet", "--allow-empty", "-m", subject)
    git(clone, "push", "--quiet")
    return clone


@pytest.mark.parametrize("then", ["push", "remove", "check"])
def test_a_branch_with_other_commits_is_never_touched(place: Place, tmp_path: Path, then: str) -> None:
    place.pushed("one")
    clone = work_on(place, tmp_path, "My own work", "More of it")
    before, backup = place.tip(), place.backup("two")
    acts: dict[str, Callable[[], object]] = {
        "push": lambda: place.push(backup),
        "remove": lambda: place.remote().remove(["one"]),
        "check": lambda: place.remote().check(),
    }
    said = r"a commit that is not a backup: \w+ \(My own work\) \(and 1 more\); it is left as it is"
    with pytest.raises(RemoteFailed, match=said) as raised:
        acts[then]()
    assert place.tip() == before
    subprocess.run(raised.value.hint.rpartition(": ")[2], shell=True, cwd=clone, check=True)
    acts[then]()
    assert place.names() == {"push": ["two", "one"], "remove": [], "check": ["one"]}[then]


def test_backups_below_other_commits_can_be_listed_checked_and_pulled(
    place: Place, other: SmallApp, tmp_path: Path
) -> None:
    place.pushed("one", include=ALL)
    place.pushed("two", include=ALL)
    work_on(place, tmp_path, "Say hello in the README")
    before, heard = place.tip(), list[Event]()
    assert [one.name for one in place.remote().list(heard.append)] == ["two", "one"]
    (said,) = warnings(heard)
    assert re.search(r"not a backup: \w{10} \(Say hello in the README\); it is passed over", said)
    place.remote().verify(silence)
    place.remote().verify(silence, ["two"])
    for name in ("one", "two"):
        assert contents(place.pull(name, other)) == contents(place.app.backups / name)
    assert place.tip() == before


def test_a_branch_without_any_backup_is_not_an_empty_one(place: Place, tmp_path: Path) -> None:
    place.pushed("one")
    clone = work_on(place, tmp_path)
    git(clone, "commit", "--quiet", "--amend", "--allow-empty", "-m", "My own work")
    git(clone, "push", "--quiet", "--force")
    for act in (
        place.remote().list,
        lambda: place.remote().verify(silence),
        lambda: place.remote().pull("one", tmp_path, silence),
    ):
        with pytest.raises(RemoteFailed, match="not a backup") as raised:
            act()
        assert "Set another `branch` for the backups" in raised.value.hint


def test_commits_between_the_backups_are_taken_off_by_no_line(place: Place, tmp_path: Path) -> None:
    place.pushed("one")
    clone = work_on(place, tmp_path, "My own work")
    message = git(clone, "log", "-1", "--format=%B", "HEAD^").replace("one", "two")
    git(clone, "commit", "--quiet", "--allow-empty", "-m", message)
    git(clone, "push", "--quiet")
    assert place.names() == ["two", "one"]
    with pytest.raises(RemoteFailed, match="My own work") as raised:
        place.remote().remove(["one"])
    assert "git push" not in raised.value.hint


def test_another_apps_branch_is_never_touched(place: Place, other: SmallApp) -> None:
    place.pushed("one")
    stranger = other.settings.replaced(app_id="another")
    with pytest.raises(RemoteFailed, match="holds the backups of another app"):
        GitRemote(stranger, "git", settings_of(str(place.host))).list()


def test_a_remote_that_the_repository_does_not_have_is_named(place: Place, repository: Path) -> None:
    with pytest.raises(RemoteFailed, match="has no remote named upstream"):
        place.remote(url="upstream").check()


@pytest.mark.parametrize("url", ["./nothing here", "http://127.0.0.1:9/x.git", "ssh://127.0.0.1:9/x.git"])
def test_a_host_that_cannot_be_reached_is_told_with_a_hint(place: Place, url: str) -> None:
    backup = place.backup("one")
    with pytest.raises(RemoteFailed, match="The git remote git failed: ") as raised:
        place.push(backup, url=url)
    assert raised.value.hint
    assert place.litter() == []


def test_a_host_that_hangs_is_left_at_the_deadline(place: Place, tmp_path: Path, monkeypatch: Any) -> None:
    mark = tmp_path / "pid"
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho $$ >{mark}\nexec sleep 600\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(RemoteFailed, match="did not answer within 5 s"):
        place.remote(url="ssh://example.com/x.git", timeout=5).check()
    assert eventually(lambda: not is_running(int(mark.read_text())))
    assert place.litter() == []


def is_running(pid: int) -> bool:
    """Return whether the process is running; a zombie is not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def eventually(what: Callable[[], bool]) -> bool:
    """Return whether it becomes true within 10 seconds: a killed process takes a moment to end."""
    for _ in range(200):
        if what():
            return True
        time.sleep(0.05)
    return False


def test_a_password_in_the_address_is_in_no_message(place: Place) -> None:
    with pytest.raises(RemoteFailed) as raised:
        place.remote(url="http://ann:hunter2@127.0.0.1:9/x.git").check()
    assert "hunter2" not in raised.value.message + raised.value.hint


def test_without_git_it_says_what_to_install(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RemoteFailed, match="needs the program git") as raised:
        place.remote().check()
    assert "apt install git" in raised.value.hint


def test_a_new_machine_without_a_backups_folder_can_list(place: Place, other: SmallApp) -> None:
    place.pushed("one")
    other.backups.rmdir()
    assert [one.name for one in place.remote(app=other).list()] == ["one"]
    assert not other.backups.exists()


def test_a_host_on_the_network_will_do(place: Place, other: SmallApp) -> None:
    with served(place.host.parent) as address:
        url = f"{address}/host.git"
        backup = place.pushed("one", url=url, include=ALL)
        place.remote(url=url).check()
        place.remote(url=url).verify(silence)
        assert contents(place.pull("one", other, url=url)) == contents(backup.path)
    with pytest.raises(RemoteFailed, match="The git remote git failed: "):
        place.remote(url=url).list()


def answers(port: int) -> bool:
    with socket.socket() as there:
        return there.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the repositories in a folder by git's own server, which accepts pushes from everyone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr")
    command = ["git", "daemon", *options, f"--base-path={folder}", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            assert eventually(lambda: answers(port))
            yield f"git://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def test_a_check_of_an_empty_host_changes_nothing(place: Place) -> None:
    place.remote().check()
    assert git(place.host, "for-each-ref") == ""
    assert place.names() == []
    place.remote().verify(silence)


# Limits and retention


def test_a_file_beyond_the_limit_is_refused_before_anything_is_committed(place: Place) -> None:
    place.pushed("small")
    before = place.tip()
    place.app.write_upload("film.mp4", os.urandom(1_200_000))
    objects = git(place.host, "count-objects", "-v")
    backup = place.backup("large")
    with pytest.raises(Refused, match=r"up to 1 MB, and uploads/film.mp4 \(1.2 MB\) are larger") as raised:
        place.push(backup, include=ALL, file_limit_mb=1)
    assert "file_limit_mb" in raised.value.hint
    assert (place.tip(), git(place.host, "count-objects", "-v")) == (before, objects)
    assert place.litter() == []
    place.push(backup, file_limit_mb=1)
    assert place.names() == ["large", "small"]


def test_a_dump_beyond_the_limit_is_refused_too(place: Place) -> None:
    place.app.execute("CREATE TABLE big AS SELECT randomblob(600000) AS content")
    backup = place.backup("large")
    with pytest.raises(Refused, match=r"dump.sql \(1.2 MB\)"):
        place.push(backup, file_limit_mb=1)
    assert git(place.host, "for-each-ref") == ""


def test_the_history_is_bounded(place: Place, other: SmallApp) -> None:
    for number in range(1, 9):
        place.pushed(f"n{number}", keep=2)
        assert len(place.log()) <= 4
    assert place.names()[:2] == ["n8", "n7"]
    git(place.host, "reflog", "expire", "--expire=now", "--all")
    git(place.host, "gc", "--quiet", "--prune=now")
    assert "n1," not in git(place.host, "log", "--all", "--format=%s")
    for name in place.names():
        assert is_sound(place.pull(name, other), other.settings)
    place.remote().verify(silence)


def test_a_backup_older_than_what_stays_is_refused(place: Place) -> None:
    oldest = place.backup("oldest")
    for name in ("one", "two"):
        place.pushed(name)
    with pytest.raises(Refused, match="oldest is older than the 2 backups that stay"):
        place.push(oldest, keep=2)


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_what_is_removed_is_gone_from_the_history_too(place: Place, other: SmallApp, name: str) -> None:
    for one in ("one", "two", "three"):
        place.app.add_rows(1)
        place.pushed(one, include=ALL)
    place.remote().remove([name])
    left = [one for one in ("three", "two", "one") if one != name]
    assert place.names() == left
    assert f"Backup {name}," not in "".join(place.log())
    for one in left:
        assert contents(place.pull(one, other)) == contents(place.app.backups / one)
    before = place.tip()
    place.remote().remove([name])
    assert place.tip() == before
    place.remote().verify(silence)


def test_the_history_is_pushed_once_however_many_are_removed(place: Place) -> None:
    for one in ("one", "two", "three", "four"):
        place.pushed(one)
    pushes = place.host / "hooks" / "update"
    pushes.parent.mkdir(exist_ok=True)
    pushes.write_text('#!/bin/sh\necho "$@" >>pushes\n')
    pushes.chmod(0o755)
    place.remote().remove(["one", "three", "four"])
    assert place.names() == ["two"]
    assert len((place.host / "pushes").read_text().splitlines()) == 1


def test_the_last_one_removed_takes_the_branch_along(place: Place) -> None:
    place.pushed("one")
    place.remote().remove(["one"])
    assert git(place.host, "for-each-ref") == ""
    place.pushed("two")
    assert place.names() == ["two"]


def test_a_host_that_sends_all_or_nothing_will_do(place: Place, other: SmallApp) -> None:
    git(place.host, "config", "uploadpack.allowFilter", "false")
    for name in ("one", "two", "three", "four", "five"):
        place.pushed(name, keep=2, include=ALL)
    assert place.names()[0] == "five"
    assert contents(place.pull("five", other)) == contents(place.app.backups / "five")


def test_uploads_that_did_not_change_are_not_sent_again(place: Place) -> None:
    place.app.write_upload("film.mp4", os.urandom(2_000_000))
    place.pushed("one", include=ALL)

    def size() -> int:
        return sum(path.stat().st_size for path in (place.host / "objects").rglob("*") if path.is_file())

    before = size()
    place.app.add_rows(1)
    place.pushed("two", include=ALL)
    assert size() - before < 500_000


# Damage and interruption


def test_a_copy_that_is_not_as_it_was_is_not_taken(place: Place, other: SmallApp, tmp_path: Path) -> None:
    place.pushed("one", include=ALL)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "backup", str(place.host), str(clone))
    (clone / "uploads/1/letter.txt").write_text("another text")
    git(clone, "commit", "--quiet", "--all", "--amend", "--no-edit")
    git(clone, "push", "--quiet", "--force")
    with pytest.raises(Damaged, match=r"The copy of one in the git remote is damaged: uploads/1/letter.txt is not as"):
        place.pull("one", other)


@pytest.mark.parametrize("include", [ALL, ("dump", "metadata")], ids=len)
def test_a_commit_that_holds_another_backup_than_it_says_is_not_taken(
    place: Place, other: SmallApp, include: tuple[str, ...]
) -> None:
    place.pushed("one", include=include)
    place.pushed("two", include=include)
    message = git(place.host, "log", "--format=%B", "--max-count=1", "backup~1").strip()
    forged = git(place.host, "commit-tree", "backup^{tree}", "-m", message).strip()
    git(place.host, "update-ref", "refs/heads/backup", forged)
    with pytest.raises(Damaged, match="The copy of one in the git remote is damaged: it is another backup than its"):
        place.pull("one", other)


@pytest.mark.parametrize(
    "statement", ["DELETE FROM documents", "PRAGMA user_version = 3", "UPDATE alembic_version SET version_num = 'x'"]
)
def test_a_text_that_makes_another_database_is_not_taken(
    place: Place, other: SmallApp, tmp_path: Path, statement: str
) -> None:
    place.pushed("one")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "backup", str(place.host), str(clone))
    text = (clone / "dump.sql").read_text()
    (clone / "dump.sql").write_text(text.replace("COMMIT;", f"{statement};\nCOMMIT;"))
    git(clone, "commit", "--quiet", "--all", "--amend", "--no-edit")
    git(clone, "push", "--quiet", "--force")
    with pytest.raises(Damaged, match="its SQL text makes other"):
        place.pull("one", other)


def test_a_listing_that_leads_out_is_refused(place: Place, other: SmallApp, tmp_path: Path) -> None:
    place.pushed("one", include=ALL)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "backup", str(place.host), str(clone))
    listing = (clone / "uploads.tree").read_text()
    (clone / "uploads.tree").write_text(listing.replace('"uploads/empty"', '"uploads/../../../empty"'))
    git(clone, "commit", "--quiet", "--all", "--amend", "--no-edit")
    git(clone, "push", "--quiet", "--force")
    before = sorted(tmp_path.rglob("empty"))
    with pytest.raises(Damaged):
        place.pull("one", other)
    assert sorted(tmp_path.rglob("empty")) == before


def flip(file: Path) -> None:
    """Alter the byte in the middle of the file."""
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def damage(host: Path, kind: str) -> None:
    """Damage an upload's content in the host's repository, or its only commit; for `packed`, after a repack."""
    if kind == "packed":
        git(host, "repack", "-adq")
        (file,) = (host / "objects" / "pack").glob("*.pack")
    else:
        wanted = git(host, "rev-parse", "backup:uploads/noise" if kind == "loose" else f"backup{kind}").strip()
        file = host / "objects" / wanted[:2] / wanted[2:]
    flip(file)


@pytest.mark.parametrize("kind", ["loose", "packed", "^{tree}", "^{commit}"])
def test_damage_on_the_host_is_found_and_is_no_trouble_of_the_network(place: Place, other: SmallApp, kind: str) -> None:
    place.app.write_upload("noise", os.urandom(100_000))
    place.pushed("one", include=ALL)
    place.remote().verify(silence)
    damage(place.host, kind)
    with pytest.raises(DamagedThere, match="The git remote git holds something damaged: ") as raised:
        place.remote().verify(silence)
    assert set(raised.value.flaws) == {WHOLE}
    assert "`url` in [remotes.git]" in raised.value.hint
    with pytest.raises(DamagedThere, match="The git remote git holds something damaged: ") as raised:
        place.pull("one", other)
    assert set(raised.value.flaws) == {"one" if kind in ("loose", "packed") else WHOLE}  # a list needs the others


def test_a_new_repository_is_sound_after_damage_on_the_host(place: Place, other: SmallApp, tmp_path: Path) -> None:
    """A new branch would not do: git keeps the damaged object that it has."""
    place.app.write_upload("noise", os.urandom(100_000))
    backup = place.pushed("one", include=ALL)
    damage(place.host, "loose")
    place.push(backup, include=ALL, branch="again")
    with pytest.raises(DamagedThere):
        place.remote(branch="again").verify(silence)
    place.host = bare(tmp_path / "new.git")
    place.push(backup, include=ALL)
    place.remote().verify(silence)
    assert is_sound(place.pull("one", other), other.settings)


def test_a_commit_without_its_dump_is_found(place: Place, tmp_path: Path) -> None:
    place.pushed("one")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", "backup", str(place.host), str(clone))
    git(clone, "rm", "--quiet", "dump.sql")
    git(clone, "commit", "--quiet", "--amend", "--no-edit")
    git(clone, "push", "--quiet", "--force")
    with pytest.raises(Damaged, match=r"The copy of one in the git remote is damaged: dump.sql is missing"):
        place.remote().verify(silence)


def test_no_secret_is_on_a_command_line_of_ours(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, seen = "s3cret-t0ken", tmp_path / "seen"
    real = shutil.which("git")
    stub = tmp_path / "bin" / "git"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nexec {real} "$@"\n')
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RemoteFailed):
        place.remote(url=f"http://ann:{token}@127.0.0.1:9/x.git").check()
    assert "ls-remote" in seen.read_text()
    assert token not in seen.read_text()


KILLED = """
import os, signal, sys
from pathlib import Path
from backupkit.repository import store
from backupkit.remotes.git import program
from backupkit.remotes.base import WHOLE, DamagedThere
from backupkit.remotes.git.remote import GitRemote
from backupkit.model.events import silence
from backupkit.config.remotes import GitTable
from backupkit.config.settings import Settings
app, host, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
here = Settings(app_dir=app, database=app / "data/pats.db", uploads=app / "uploads", dir=app / "backups")
person = {"user_name": "Backup", "user_email": "b@example.com"}
table = GitTable(type="git", url=host, include=("dump", "metadata", "uploads"), **person)
count, run = 0, program.Git.attempt
def counted(self, *arguments, **options):
    global count
    count += 1
    done = run(self, *arguments, **options)
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
program.Git.attempt = counted
backup = store.find(here, "two")
GitRemote(here, "git", table).push(backup.path, backup.metadata, silence)
print(count)
"""


@pytest.mark.slow
def test_a_push_killed_anywhere_leaves_the_remote_whole_and_the_next_completes_it(place: Place) -> None:
    place.pushed("one")
    backup, first = place.backup("two"), place.tip()
    seen = set()
    for at in range(1, 100):
        child = subprocess.run(
            [sys.executable, "-c", KILLED, place.app.folder, place.host, str(at)],
            env={**os.environ, "PYTHONPATH": str(BACKEND)},
            capture_output=True,
            text=True,
            check=False,
        )
        git(place.host, "fsck", "--strict")
        seen.add(tuple(place.names()))
        if child.returncode != -signal.SIGKILL:
            break
        assert place.litter() != []
        store.clear_drafts(place.app.settings)
        place.push(backup, include=("dump", "metadata", "uploads"))
        assert place.names() == ["two", "one"]
        git(place.host, "update-ref", "refs/heads/backup", first)
    assert child.returncode == 0, child.stderr
    assert at > 8
    assert seen == {("one",), ("two", "one")}


@pytest.mark.parametrize("hook", ["pre-receive", "update"])
def test_a_connection_that_breaks_during_a_push_leaves_the_remote_whole(place: Place, hook: str) -> None:
    place.pushed("one")
    backup, before = place.backup("two"), place.tip()
    file = place.host / "hooks" / hook
    file.parent.mkdir(exist_ok=True)
    file.write_text("#!/bin/sh\nkill -KILL $PPID\nsleep 1\n")
    file.chmod(0o755)
    with pytest.raises(RemoteFailed):
        place.push(backup)
    assert place.tip() == before
    assert place.litter() == []
    file.unlink()
    git(place.host, "fsck", "--strict")
    place.push(backup)
    assert place.names() == ["two", "one"]


def test_what_a_killed_run_left_is_cleared_but_not_what_is_in_use(place: Place) -> None:
    with place.remote()._branch("commits"):
        assert store.clear_drafts(place.app.settings) == []
        (folder,) = place.litter()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert place.litter() == []


# Settings


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"branch": "main"}, "backups need a branch of their own"),
        ({"branch": "a..b"}, "is not a name for a branch"),
        ({"branch": "-f"}, "is not a name for a branch"),
        ({"branch": "x.lock"}, "is not a name for a branch"),
        ({"url": "--upload-pack=x"}, "is not an address"),
        ({"url": ""}, "is not an address"),
        ({"user_name": " "}, "is empty"),
        ({"user_email": "a\nb"}, "that git does not allow"),
        ({"include": ("metadata",)}, "must contain metadata, and dump or database"),
        ({"include": ("dump",)}, "must contain metadata"),
        ({"include": ("dump", "metadata", "all")}, "is none of the values"),
        ({"file_limit_mb": 0}, "must be a number greater than 0"),
        ({"keep": -1}, "must be a whole number of at least 0"),
        ({"brunch": "x"}, "is not a setting"),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        settings_of("host", **changes)


def test_a_backup_that_is_not_there_is_named(place: Place) -> None:
    with pytest.raises(NoSuchBackup, match="no backup named nothing in the git remote git") as raised:
        place.pull("nothing")
    assert raised.value.hint
