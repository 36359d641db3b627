"""A command imports only what it needs and opens few files. Seconds are not measured: they vary from day to day."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backupkit.repository import flags, store
from small_app import COMMAND, SmallApp, clean_environment

# Runs the command in its own process, and prints what it imported and what it opened below the backups.
WATCHED = """
import contextlib, json, os, runpy, sys
backups, opened = sys.argv[1], []
def heard(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        path = arguments[0]
        if path.startswith("/proc/self/fd/"):  # the toolkit's own folders are gone through by their handles
            handle, _, name = path.removeprefix("/proc/self/fd/").partition("/")
            path = os.path.join(os.readlink("/proc/self/fd/" + handle), name)
        if path.startswith(backups + os.sep):
            opened.append(path)
sys.addaudithook(heard)
sys.argv = sys.argv[2:]
with contextlib.redirect_stdout(open(os.devnull, "w")), contextlib.suppress(SystemExit):
    runpy.run_path(sys.argv[0], run_name="__main__")
print(json.dumps({"modules": sorted(sys.modules), "opened": opened}))
"""


def watched(app: SmallApp, *words: str) -> tuple[set[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(app.backups), str(COMMAND), *words],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "PYTHONPATH": str(COMMAND.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    return set(told["modules"]), told["opened"]


HEAVY = {"pydantic", "alembic", "sqlalchemy", "tomlkit", "apprise", "requests", "cryptography", "pathspec", "zstandard"}


@pytest.mark.parametrize(
    ("words", "not_needed"),
    [
        (["--help"], {"rich", "markdown_it", "backupkit.config.settings"}),
        (
            ["list"],
            {
                "rich",
                "backupkit.monitoring.notify.messages",
                "backupkit.archive.export",
                "backupkit.monitoring.status",
                "backupkit.restore.recovery",
                "backupkit.backup.make",
            },
        ),
        (["list", "--json"], {"rich", "backupkit.archive.export", "backupkit.monitoring.status"}),
        (["show", "latest"], {"rich", "backupkit.archive.export", "backupkit.monitoring.status"}),
        (["config"], {"rich", "backupkit.repository.store", "backupkit.backup.make"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_imports_no_more_than_it_needs(app: SmallApp, words: list[str], not_needed: set[str]) -> None:
    app.command("backup", "one", check=0)
    modules, _ = watched(app, *words)
    assert modules & (HEAVY | not_needed) == set()


READS = """
import sys
from pathlib import Path
from backupkit.config.settings import load_settings
from backupkit.remotes import checks, listing_cache
from backupkit.repository import history, sizes, store
from backupkit.restore import journal
settings = load_settings(Path(sys.argv[1]))
found = sizes.with_unique_bytes(settings, store.all_backups(settings))
assert [one.name for one in found] == ["one"] and history.read(settings.dir).operations
assert journal.read(settings.dir) is None
listing_cache.recall(settings.dir, "nas"), checks.recall(settings, "nas")
assert "pydantic" not in sys.modules, "pydantic is imported"
"""


def test_a_program_that_reads_backups_imports_no_pydantic(app: SmallApp) -> None:
    app.command("backup", "one", check=0)
    subprocess.run(
        [sys.executable, "-c", READS, str(app.folder)],
        env={**clean_environment(), "PYTHONPATH": str(COMMAND.parent)},
        check=True,
    )


def copied(app: SmallApp, name: str, count: int) -> None:
    """Add `count` copies of the backup, each with the same proofs."""
    for number in range(count):
        shutil.copytree(app.backups / name, app.backups / f"{name}_{number}")
        record = app.backups / flags.STATE_FOLDER / flags.PROOFS
        shutil.copy(record / name, record / f"{name}_{number}")


def test_list_opens_two_files_a_backup(app: SmallApp) -> None:
    app.command("backup", "one", check=0)
    app.command("verify", "one", check=0)
    copied(app, "one", 20)
    _, opened = watched(app, "list")
    below = [Path(path).relative_to(app.backups).parts for path in opened]
    of_backups = [parts for parts in below if not parts[0].startswith(".")]
    assert sorted(of_backups) == sorted((one.name, "backup_metadata.json") for one in store.all_backups(app.settings))
    records = [parts for parts in below if parts[:2] == (flags.STATE_FOLDER, flags.PROOFS)]
    assert len(records) == 21
    assert len(below) < 2 * 21 + 10


def test_what_is_said_of_the_backups_is_looked_up_once_for_all(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.command("backup", "one", check=0)
    app.command("verify", "one", check=0)
    app.command("pin", "one", check=0)
    copied(app, "one", 20)
    asked: list[str] = []
    really = os.listdir

    def listdir(path: str) -> list[str]:
        asked.append(str(path))
        return really(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert [one.name for one in store.all_backups(app.settings) if one.pinned] == ["one"]
    assert len(asked) == 2  # one lists the pinned, one the checked; other flags have no folder
