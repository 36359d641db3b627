"""No escape sequence in any data reaches a terminal, and no text in data is taken for markup."""

from __future__ import annotations

import json
import os
import unicodedata
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from textual.widgets import Input

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest, GitFacts
from backupkit.model.names import printable_lines, printable_text
from backupkit.model.operation import Operation
from backupkit.repository import history
from backupkit.repository.operation import who_is_at_work
from backupkit.ui.dialogs import Form, Message, Question
from backupkit.verify.verify import verify_backups
from hands import Person, at_the_window
from refusals import run_here
from small_app import SmallApp

# A colour, a title, a C1 clear-screen, backspace, carriage return, right-to-left text, a zero-width space, markup.
EVIL = "\x1b[31mred\x1b]0;title\x07\x9b2J\b\r\u202eback\u200b[bold]loud[/bold]"


def harmful(text: str) -> set[str]:
    """Return the characters that a terminal could take for a command, or that reverse the text as read."""
    return {letter for letter in text if letter != "\n" and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co")}


@pytest.fixture
def evil(app: SmallApp) -> SmallApp:
    """An app and its backups with hostile text in every place that can hold text."""
    (app.folder / "backup.toml").write_text(f'[remotes.nas]\ntype = "folder"\npath = "{app.folder.parent}/nas"\n')
    (app.folder.parent / "nas").mkdir()
    app.execute(f'CREATE TABLE "{EVIL}" (x)')
    app.execute(f'INSERT INTO "{EVIL}" VALUES (?)', (EVIL,))
    app.write_upload(EVIL.replace("/", "-"), b"evil")
    os.mkfifo(app.uploads / f"fifo{EVIL.replace('/', '-')}")
    git = GitFacts("abc", EVIL, EVIL, EVIL, tag=EVIL)
    create_backup(app.settings, BackupRequest("good", note=EVIL, git=git))
    app.execute("UPDATE alembic_version SET version_num = ?", (EVIL,))
    for table in ("documents", "applications"):
        app.execute(f"DELETE FROM {table}")
    create_backup(app.settings, BackupRequest("unknown", note=EVIL, git=git))
    damaged = create_backup(app.settings, BackupRequest("damaged", note=EVIL)).backup
    (damaged.path / "uploads" / EVIL.replace("/", "-")).write_bytes(b"altered")
    verify_backups(app.settings, [damaged])
    named = app.backups / EVIL.replace("/", "-")
    named.mkdir()
    (named / "backup_metadata.json").write_text(json.dumps({"timestamp": EVIL, "database_file": EVIL}))
    strange = app.backups / f"x{EVIL.replace('/', '-')}"
    strange.mkdir()
    metadata = {"timestamp": "20241201_120000", "database_file": "pats.db", "app_id": EVIL, "kind": "auto"}
    (strange / "backup_metadata.json").write_text(json.dumps(metadata))
    who = replace(who_is_at_work({}, []), user=EVIL)
    now = datetime.now(UTC)
    done = Operation("1", EVIL, now, who, now, "failure", backups=(EVIL,), note=EVIL, error=EVIL, warnings=(EVIL,))
    history.write(app.backups, done)
    remote = app.backups / ".state" / "remotes" / "nas"
    remote.mkdir(parents=True)
    there = {
        "name": EVIL,
        "created_at": now.isoformat(),
        "kind": EVIL,
        "size_bytes": 1,
        "app_id": EVIL,
        "revision": EVIL,
    }
    (remote / "seen.json").write_text(json.dumps({"at": now.isoformat(), "backups": [there], "other_disk": False}))
    return app


COMMANDS = [
    ("list",),
    ("show", "good"),
    ("show", "unknown"),
    ("show", "damaged"),
    ("show", f"x{EVIL}"),
    ("show", EVIL),
    ("verify", "good"),
    ("verify", "--all"),
    ("restore", "good", "--dry-run", "--force"),
    ("restore", "unknown", "--dry-run"),
    ("restore", "latest", "--dry-run"),
    ("restore", "good", "--force"),
    ("restore", EVIL, "--yes"),
    ("undo", "--force"),
    ("prune", "--dry-run"),
    ("prune", "--remote", "nas"),
    ("prune", "--remote", EVIL),
    ("status",),
    ("status", "--prometheus", "-"),
    ("history",),
    ("history", "--since", EVIL),
    ("report", "--output", "-"),
    ("doctor",),
    ("remotes",),
    ("list", "--remote", "nas"),
    ("push",),
    ("pull", EVIL),
    ("recovery-kit",),
    ("schedule", "--list"),
    ("config",),
    ("config", "set", EVIL, "1"),
    ("config", "set", "timezone", EVIL),
    ("backup", EVIL),
    ("backup", "fresh", "--note", EVIL),
    ("run",),
    ("delete", "good", "--yes"),
    ("delete", EVIL, "--yes"),
    ("pin", "good"),
    ("export", "damaged", "x.tar"),
    ("export", "good", EVIL),
    ("import", EVIL),
    ("dump", EVIL),
    ("restore-dump", EVIL, "--yes"),
    ("migrate", EVIL),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command).replace(EVIL, "EVIL"))
def test_no_escape_sequence_reaches_the_terminal(evil: SmallApp, command: tuple[str, ...]) -> None:
    log_file = evil.folder / "backup.log"
    done = run_here(evil, *command, env={"BACKUP_LOG_FILE": str(log_file)})
    assert not harmful(done.out + done.err), repr(done.out + done.err)
    assert not log_file.exists() or not harmful(log_file.read_text())
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "text", ["{", json.dumps({"source": EVIL}), json.dumps({"source": EVIL, "safety": EVIL, "started": EVIL})]
)
@pytest.mark.parametrize("command", ["list", "recover", "backup", "doctor"])
def test_a_journal_reaches_no_terminal_raw(app: SmallApp, text: str, command: str) -> None:
    (app.backups / ".journal").write_text(text)
    done = run_here(app, command)
    assert not harmful(done.out + done.err), repr(done.out + done.err)


def test_what_can_be_printed_stays_as_it_is() -> None:
    for text in ("größe", "日本　語", "a b c", "—“x”", ""):
        assert printable_text(text) == text
    assert printable_text(EVIL) == printable_text(printable_text(EVIL)) and not harmful(printable_text(EVIL))
    assert printable_text("a\nb") == "a\\nb" and printable_lines("a\nb\x1b") == "a\nb\\x1b"
    assert printable_text("caf\udce9") == "caf\\udce9"


# Terminal interface


@pytest.mark.parametrize("place", ["overview", "backups", "history"])
def test_no_escape_sequence_is_drawn(evil: SmallApp, place: str) -> None:
    async def story(person: Person) -> None:
        await person.pilot.pause(0.5)
        assert not harmful(person.screen), repr(person.screen)
        await person.press("down", "enter")
        await person.pilot.pause(0.5)
        assert not harmful(person.screen), repr(person.screen)

    at_the_window(evil, story, place=place)


def test_brackets_in_a_dialog_are_brackets(app: SmallApp) -> None:
    async def story(person: Person) -> None:
        for dialog in (
            Question(f"Delete [red]x[/] {EVIL}", [f"[link=x]{EVIL}[/link]", "[/]"], f"[b]yes {EVIL}"),
            Message(f"[red]{EVIL}", [f"[bold]{EVIL}"], "badly"),
            Form(f"[red]{EVIL}", {f"[b]{EVIL}": Input(EVIL, EVIL)}, f"[b]go {EVIL}"),
        ):
            person.window.push_screen(dialog)
            await person.pilot.pause(0.3)
            assert not harmful(person.screen), repr(person.screen)
            assert "[red]" in person.screen and ("[b]" in person.screen or "[bold]" in person.screen)
            person.window.pop_screen()

    at_the_window(app, story, place="overview")
