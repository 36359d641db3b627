"""What cannot be printed stops no work: a full disk under a log, a reader that went away, closed streams."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.repository import history, store
from listener import Service, listening_service
from small_app import COMMAND, SmallApp, clean_environment

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
FULL = "The result cannot be written to stdout: No space left on device."


@contextmanager
def stream(kind: str) -> Iterator[Any]:
    """Yield a stream to give to a program: `full`, `unread` (its reader has closed the pipe), or one that is read."""
    if kind == "full":
        with open("/dev/full", "wb") as full:
            yield full
    elif kind == "unread":
        reader, writer = os.pipe()
        os.close(reader)
        yield writer
        os.close(writer)
    else:
        yield subprocess.PIPE


def typed(
    app: SmallApp, *command: str, out: str = "read", err: str = "read", **settings: str
) -> subprocess.CompletedProcess[str]:
    with stream(out) as stdout, stream(err) as stderr:
        return subprocess.run(
            [sys.executable, str(COMMAND), *command],
            env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), **settings},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            check=False,
        )


def add_a_socket(app: SmallApp) -> None:
    """Add something that no backup can hold, so that each warns of it."""
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(app.uploads)  # its path may be too long
        one.bind("socket")


@pytest.mark.parametrize("kind", ["full", "unread"])
def test_a_warning_that_cannot_be_printed_stops_no_backup(
    app: SmallApp, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app.folder)
    add_a_socket(app)
    assert typed(app, "backup", "one", err=kind).returncode == 3
    assert typed(app, "backup", "two", out=kind, err=kind).returncode == 3
    assert [store.find(app.settings, name).state for name in ("one", "two")] == ["checked", "checked"]
    assert {one.outcome for one in history.read(app.backups).operations} == {"warning"}


@pytest.mark.parametrize("kind", ["full", "unread"])
def test_a_restore_whose_plan_cannot_be_printed_restores(app: SmallApp, kind: str) -> None:
    create_backup(app.settings, BackupRequest("good"))
    before = app.contents()
    app.add_rows(3)
    assert typed(app, "restore", "good", "--yes", out=kind, err=kind).returncode == (3 if kind == "full" else 0)
    assert app.contents() == before


@pytest.mark.parametrize("kind", ["full", "unread"])
def test_the_exit_code_and_the_messages_are_those_of_the_work(app: SmallApp, kind: str) -> None:
    assert typed(app, "show", "nope", err=kind).returncode == 10
    assert typed(app, "nope", err=kind).returncode == 2
    with listening_service() as service:
        told = {"BACKUP_NOTIFY_URLS": service.notify(), "BACKUP_PING_URL": service.page(), "NO_PROXY": "127.0.0.1"}
        assert typed(app, "run", out=kind, err=kind, **told).returncode == (3 if kind == "full" else 0)
        assert service.pings == ["/check/start", "/check"]
        app.database.unlink()
        assert typed(app, "run", out=kind, err=kind, **told).returncode == 13
        assert service.pings[2:] == ["/check/start", "/check/fail"]
        assert "FAILED" in service.messages[-1]["title"]
        assert_told_of(service, unprinted=kind == "full")


def assert_told_of(service: Service, unprinted: bool) -> None:
    """The message of the good run is a warning if its result was lost."""
    found = [FULL in one["message"] for one in service.messages[:-1]]
    assert found == ([True] if unprinted else [])


def test_a_result_that_cannot_be_printed_is_a_warning_of_what_is_done(app: SmallApp) -> None:
    done = typed(app, "backup", "one", out="full")
    assert (done.returncode, done.stderr) == (3, f"Warning: {FULL} What it tells of is done.\n")
    assert store.find(app.settings, "one").is_usable
    assert typed(app, "dump", "there.sql", out="full").returncode == 3
    assert typed(app, "config", "set", "keep_daily", "9", out="full").returncode == 3
    assert typed(app, "backup", "two", out="unread").returncode == 0


@pytest.mark.parametrize(
    "command", [("list",), ("list", "--json"), ("list", "--help"), ("config", "--help"), ("--help",), ("--version",)]
)
def test_where_printing_is_all_that_it_fails(app: SmallApp, command: tuple[str, ...]) -> None:
    done = typed(app, *command, out="full")
    assert (done.returncode, done.stderr) == (1, f"Error: {FULL}\n  Next: Send it elsewhere.\n")
    done = typed(app, *command, out="unread")
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("command", [("dump", "-"), ("export", "one", "-"), ("extract", "one", "1/*.txt", "--to", "-")])
def test_a_file_on_stdout_that_cannot_be_written_is_named_so(app: SmallApp, command: tuple[str, ...]) -> None:
    create_backup(app.settings, BackupRequest("one"))
    done = typed(app, *command, out="full")
    assert (done.returncode, done.stderr.splitlines()[-2:]) == (1, [f"Error: {FULL}", "  Next: Send it elsewhere."])
    assert typed(app, *command, out="unread").returncode == 1
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", sys.executable, COMMAND, *command],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "Error: There is no stdout: it is closed.\n  Next: Name a file instead of -.\n"
    assert (closed.returncode, closed.stderr) == (2, said)


def test_a_python_without_the_packages_says_which_and_how_to_get_it() -> None:
    done = subprocess.run([sys.executable, "-S", COMMAND, "list"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert " is not installed in " in done.stderr and f"-r {COMMAND.with_name('requirements.txt')}" in done.stderr
