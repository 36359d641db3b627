"""The terminal interface, driven by keys on real data; the tests check its results on disk."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, DataTable, Input, Label, Static

import backup_restore
from backupkit.backup.create import create_backup
from backupkit.cli import render, tasks
from backupkit.cli.commands.check import ui
from backupkit.cli.task import Ended, Run, Task
from backupkit.config.deployment import in_full
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import Refused
from backupkit.model.events import Event, EventListener, Notice, Progress, Step, Warned
from backupkit.monitoring import log
from backupkit.monitoring.status import status
from backupkit.repository import history, lock, store
from backupkit.scheduling.agenda import next_runs
from backupkit.ui.backups import BackupsPage
from backupkit.ui.dialogs import Form, Message
from backupkit.ui.pages import LEVEL_SYMBOLS, STATE_SYMBOLS, HistoryPage
from backupkit.ui.window import PLACES, BackupApp
from backupkit.ui.work import WorkScreen
from backupkit.verify.verify import verify_backups
from small_app import COMMAND, NOON, SmallApp, clean_environment

DEADLINE = 30.0
SMALL = (80, 24)


class Person:
    """A simulated person at the interface: presses keys, waits for what should appear, reads the screen."""

    def __init__(self, pilot: Pilot[None], window: BackupApp) -> None:
        self.pilot, self.window = pilot, window

    async def presses(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def clicks(self, selector: str) -> None:
        """Click the widget as soon as it is visible."""
        screen = self.window.screen
        await self.until(lambda: screen.query(selector) and screen.query_one(selector).region.area)
        await self.pilot.click(selector)

    async def types(self, text: str) -> None:
        """Replace the content of the focused field."""
        field = self.window.screen.focused
        assert isinstance(field, Input)
        field.value = text
        await self.pilot.pause()

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = asyncio.get_running_loop().time() + DEADLINE
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, f"not seen in time; there is:\n{self.reads()}"
            await self.pilot.pause(0.02)
        await self.pilot.pause()

    async def until_it_says(self, text: str) -> None:
        await self.until(lambda: text in self.reads())

    async def until_ended(self) -> Ended[Any]:
        """Wait until the work on the screen has ended; return how it ended."""
        await self.until(lambda: isinstance(self.window.screen, WorkScreen) and self.window.screen.ended)
        assert isinstance(self.window.screen, WorkScreen) and self.window.screen.ended
        return self.window.screen.ended

    async def closes(self) -> None:
        await self.presses("escape")
        await self.until(lambda: len(self.window.screen_stack) == 1)

    def reads(self) -> str:
        """Return all texts of the front screen, untruncated."""
        screen, said = self.window.screen, [str(self.window.screen.query("*").first().border_title)]
        said += [str(one.render()) for one in screen.query(Static) if one.display]
        said += [str(one.render()) for one in screen.query(Button)]
        said += [one.placeholder + one.value for one in screen.query(Input)]
        return "\n".join(said)

    @property
    def backups(self) -> BackupsPage:
        return self.window.query_one(BackupsPage)

    def column(self, title: str) -> list[str]:
        """Return the cells of that column of the table in view."""
        table = self.window.page.query_one(DataTable)
        return [str(table.get_cell(key, title)) for key in table.rows]

    def text(self, selector: str) -> str:
        return str(self.window.page.query_one(selector, Static).render())


Play = Callable[[Person], Awaitable[None]]


def at(app: SmallApp, place: str, play: Play, settings: Settings | None = None, size: tuple[int, int] = SMALL) -> None:
    """Open the interface at that place, and run `play` with a person at it."""

    async def run() -> None:
        window = BackupApp(settings or app.settings, place=place)
        async with window.run_test(size=size) as pilot:
            person = Person(pilot, window)
            await person.until(lambda: window.state)
            await play(person)

    asyncio.run(run())


def make(app: SmallApp, *names: str, note: str = "") -> None:
    for name in names:
        create_backup(app.settings, BackupRequest(name, note=note))


def on_disk(app: SmallApp) -> set[str]:
    return {one.name for one in store.all_backups(app.settings)}


# The window


@pytest.mark.parametrize("size", [SMALL, (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_place_is_reached_by_its_key_and_by_a_click_on_its_tab(app: SmallApp, size: tuple[int, int]) -> None:
    make(app, "one")

    async def play(person: Person) -> None:
        for key, page in enumerate(PLACES, 1):
            await person.presses(str(key))
            await person.until(lambda page=page: isinstance(person.window.page, page))
            assert person.window.page.region.width > 0
        for page in PLACES[:2]:
            await person.clicks(f"#--content-tab-{page.place}")
            await person.until(lambda page=page: isinstance(person.window.page, page))

    at(app, "overview", play, size=size)


def test_the_help_names_every_key(app: SmallApp) -> None:
    async def play(person: Person) -> None:
        await person.presses("question_mark")
        await person.until(lambda: isinstance(person.window.screen, Message))
        told = person.reads()
        for binding in [*BackupApp.BINDINGS, *BackupsPage.BINDINGS]:
            key = {"escape": "Esc"}.get(binding.key, binding.key)  # type: ignore[union-attr]
            assert f"\n{key} " in told, key
        assert "D       delete it, after a question" in told and "3       history" in told
        await person.closes()

    at(app, "backups", play)


def test_every_level_and_state_has_a_symbol_of_its_own() -> None:
    for symbols in (LEVEL_SYMBOLS, STATE_SYMBOLS):
        assert len(set(symbols.values())) == len(symbols)


def test_without_a_terminal_it_is_refused_in_one_line(app: SmallApp) -> None:
    done = app.command("ui", check=2)
    assert done.err.startswith("Error: The terminal interface needs a terminal.\n  Next: ")
    assert done.out == ""


def read_in_time(terminal: int) -> bytes:
    """Return what was drawn since the last call."""
    assert select.select([terminal], [], [], DEADLINE)[0], "nothing more was drawn"
    return os.read(terminal, 65536)


@pytest.mark.parametrize("how", ["q", "SIGTERM", "SIGHUP"])
def test_in_a_real_terminal_it_opens_and_ends(app: SmallApp, how: str) -> None:
    terminal, ours = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(COMMAND), "ui"],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "TERM": "xterm-256color"},
        stdin=ours,
        stdout=ours,
        stderr=ours,
        start_new_session=True,
    )
    os.close(ours)
    drawn = b""
    while b"at risk" not in drawn:
        drawn += read_in_time(terminal)
    os.write(terminal, b"q") if how == "q" else process.send_signal(signal.Signals[how])
    with contextlib.suppress(OSError):  # reading fails at the end of the terminal
        while chunk := read_in_time(terminal):
            drawn += chunk
    assert process.wait(DEADLINE) == 0, drawn[-3000:].decode(errors="replace")
    assert b"\x1b[?1049l" in drawn  # the terminal's earlier content is shown again
    os.close(terminal)


def test_it_ends_when_its_terminal_vanishes_while_it_draws(app: SmallApp) -> None:
    """Drawing goes through a short queue. The queue was left full, so that the drawing thread waited without end."""
    terminal, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    process = subprocess.Popen(
        [sys.executable, str(COMMAND), "ui"],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "TERM": "xterm-256color"},
        stdin=ours,
        stdout=ours,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.login_tty(0),
    )
    os.close(ours)
    drawn = b""
    while b"at risk" not in drawn:
        drawn += read_in_time(terminal)
    os.write(terminal, b"231" * 6)  # everything is drawn anew
    os.close(terminal)
    assert process.wait(DEADLINE) == 0


def test_a_missing_extra_is_one_line_that_says_what_to_type(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("backupkit.ui.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.setitem(sys.modules, "textual.app", None)
    monkeypatch.delitem(sys.modules, "textual.widgets")
    with pytest.raises(Refused) as caught:
        ui()
    assert caught.value.hint == "pip install 'backupkit[ui]'"


# Overview


def test_the_overview_says_what_the_status_says(app: SmallApp) -> None:
    make(app, "one")
    verify_backups(app.settings, [store.find(app.settings, "one")], test_restore=True)

    async def play(person: Person) -> None:
        await person.until_it_says(f"✓ {status(app.settings).sentence}")
        assert "✓ SAFE" in person.reads()
        for line in render.status(app.settings, person.window.state.report.status):
            assert in_full(line) in person.reads()
        assert f"  proven     one, {app.settings.local(NOON.now()):%Y-%m-%d}" in person.reads()

    at(app, "overview", play)


def test_without_a_backup_the_overview_says_that_the_data_is_at_risk_and_what_to_type(app: SmallApp) -> None:
    async def play(person: Person) -> None:
        await person.until_it_says("✗ Your data is at risk.")
        assert "✗ AT RISK" in person.reads()
        assert status(app.settings).reasons[0].fix in person.text("#sentence")

    at(app, "overview", play)


def test_the_overview_shows_what_is_due_and_what_is_kept(app: SmallApp) -> None:
    settings = app.settings.replaced(keep_daily=5)
    runs, _ = next_runs(settings)

    async def play(person: Person) -> None:
        await person.until_it_says("Of those made automatically, the newest of each of the last 5 days")
        for run in runs[:3]:
            assert run.task in person.reads() and run.why in person.reads()
        assert "config set`" in person.reads()

    at(app, "overview", play, settings)


def test_a_backup_made_by_another_process_shows_by_itself(app: SmallApp) -> None:
    async def play(person: Person) -> None:
        assert "Press b to make the first one" in person.text("#shown")
        done = await asyncio.to_thread(app.command, "backup", "elsewhere", "--note", "by cron")
        assert done.code == 0
        await person.until(lambda: person.column("Name") == ["elsewhere"])

    at(app, "backups", play)


def test_a_run_at_work_elsewhere_is_named(app: SmallApp) -> None:
    async def play(person: Person) -> None:
        with lock.held(app.backups, "backup of something", 1):
            await person.until_it_says("At work now: backup of something")
        await person.until(lambda: not person.window.query_one("#at-work", Label).display)

    at(app, "overview", play)


# Backups


def test_the_table_has_what_list_has(app: SmallApp) -> None:
    make(app, "one", note="the [bold]first[/bold]")
    app.write_upload("3/new.txt", b"new")
    create_backup(app.settings, BackupRequest("two", kind="auto"))
    app.command("pin", "one", check=0)
    listed = app.command("list", "--json", check=0).json

    async def play(person: Person) -> None:
        assert person.column("Name") == [one["backup_name"] for one in listed] == ["two", "one"]
        assert person.column("State") == ["✓ checked", "✓ checked ◆"]
        assert person.column("Kind") == ["auto", "manual"]
        assert person.column("Size") == [render.format_bytes(one["size_bytes"]) for one in listed]
        assert person.column("Adds") == [render.format_bytes(one["unique_bytes"]) for one in listed]
        await person.until(lambda: person.column("Schema") == ["= this code"] * 2)
        await person.presses("down")
        await person.until(lambda: "one · the [bold]first[/bold]" in person.text("#summary"))
        await person.presses("enter")
        await person.until(lambda: isinstance(person.window.screen, Message))
        for line in render.details(app.settings, store.find(app.settings, "one")):
            assert line in person.reads()
        assert "rows one TABLE`" in person.reads()  # the command that looks inside

    at(app, "backups", play)


def test_a_long_name_is_whole_where_there_is_room_and_why_one_is_damaged_stands_beside_it(app: SmallApp) -> None:
    name = "before_the_move_to_the_new_machine_in_autumn"
    create_backup(app.settings, BackupRequest(name, note="asked for by Anna"))
    (app.backups / name / "pats.db").chmod(0o600)
    (app.backups / name / "pats.db").write_bytes(b"broken")
    app.command("verify", name, check=12)
    assert "damaged" in app.command("list", "--wide", check=0).out

    async def play(person: Person) -> None:
        table = person.window.page.query_one(DataTable)
        width = {column.label.plain: column.get_render_width(table) for column in table.ordered_columns}
        [note] = person.column("Note")
        assert "pats.db" in note and note.endswith("· asked for by Anna")
        assert width["Name"] >= len(name) and width["Note"] > 30

    at(app, "backups", play, size=(220, 40))


def test_a_backup_of_an_older_schema_says_so(app: SmallApp) -> None:
    app.at_revision("8d24b6f09c13")
    make(app, "old")

    async def play(person: Person) -> None:
        await person.until(lambda: person.column("Schema") == ["< behind"])
        assert "migrations behind this code" in person.text("#summary")

    at(app, "backups", play)


def test_they_are_found_by_part_of_a_note_and_escape_shows_all_again(app: SmallApp) -> None:
    make(app, "one", note="before the move")
    make(app, "two")

    async def play(person: Person) -> None:
        await person.presses("slash", *"move")
        await person.until(lambda: person.column("Name") == ["one"])
        assert "1 of 2 backups · with “move”" in person.text("#shown")
        await person.presses("escape")
        await person.until(lambda: person.column("Name") == ["two", "one"])

    at(app, "backups", play)


def test_one_that_cannot_be_read_is_in_the_table_too(app: SmallApp) -> None:
    make(app, "one", "two")
    (app.backups / "two" / "backup_metadata.json").write_text("{")

    async def play(person: Person) -> None:
        assert sorted(person.column("Name")) == ["one", "two"]
        await person.presses("slash", *"damaged")
        await person.until(lambda: person.column("Name") == ["two"])
        assert person.column("State") == ["✗ damaged"] and "backup_metadata.json" in person.text("#summary")
        await person.presses("enter", "enter")  # to the table, then to the backup
        await person.until(lambda: isinstance(person.window.screen, Message))
        assert "damaged" in person.reads()

    at(app, "backups", play)


def test_a_backup_is_made_with_name_and_note(app: SmallApp) -> None:
    async def play(person: Person) -> None:
        await person.presses("b")
        await person.until_it_says("Back up now")
        await person.types("by_hand")
        await person.presses("enter")
        await person.types("before the move")
        await person.presses("enter")
        ended = await person.until_ended()
        assert ended.state == "done"
        assert "Backup by_hand: " in person.reads()
        await person.closes()
        await person.until(lambda: person.column("Name") == ["by_hand"])
        assert "before the move" in person.text("#summary")

    at(app, "backups", play)
    made = store.find(app.settings, "by_hand")
    assert made.metadata and made.metadata.note == "before the move"
    verify_backups(app.settings, [made])


def test_the_wrappers_facts_of_git_are_in_it(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_GIT_COMMIT", "a" * 40)
    assert Run(tasks.back_up(app.settings, "one", "")).carry_out().state == "done"
    made = store.find(app.settings, "one").metadata
    assert made and made.git and made.git.commit == "a" * 40


def test_an_error_is_the_sentence_and_the_hint_of_the_command(app: SmallApp) -> None:
    make(app, "taken")
    said = app.command("backup", "taken", check=2).err
    message, hint = (line.partition(": ")[2] for line in said.splitlines())

    async def play(person: Person) -> None:
        await person.presses("b")
        await person.until_it_says("Back up now")
        await person.types("taken")
        await person.presses("enter", "enter")
        ended = await person.until_ended()
        assert ended.error and (ended.error.message, in_full(ended.error.hint, {})) == (message, hint)
        assert message in person.reads() and f"Next: {hint}" in person.reads()
        await person.presses("escape")
        await person.until(lambda: len(person.window.screen_stack) == 2 and isinstance(person.window.screen, Form))
        assert person.reads().count("taken") == 1  # the field keeps what was typed
        await person.closes()
        assert person.column("Name") == ["taken"]

    at(app, "backups", play)


def test_verify_and_a_test_restore_leave_their_proof(app: SmallApp) -> None:
    make(app, "one")

    async def play(person: Person) -> None:
        await person.presses("v")
        assert (await person.until_ended()).state == "done"
        assert "one: sound: every byte" in person.reads()
        await person.closes()
        await person.presses("p")
        assert (await person.until_ended()).state == "done"
        await person.closes()
        await person.until(lambda: person.column("State") == ["★ proven"])

    at(app, "backups", play)
    assert store.find(app.settings, "one").proven_at


def test_a_damaged_backup_is_found_and_shown_as_that(app: SmallApp) -> None:
    make(app, "one")
    (app.backups / "one" / "uploads" / "1" / "letter.txt").write_bytes(b"changed")

    async def play(person: Person) -> None:
        await person.presses("v")
        ended = await person.until_ended()
        assert ended.error and ended.error.code == 12
        await person.closes()
        await person.until(lambda: person.column("State") == ["✗ damaged"])

    at(app, "backups", play)


def test_a_pinned_backup_is_not_deleted_and_an_unpinned_one_only_after_a_yes(app: SmallApp) -> None:
    make(app, "one", "two")

    async def play(person: Person) -> None:
        await person.presses("down", "k")
        await person.until(lambda: person.column("State") == ["✓ checked", "✓ checked ◆"])
        await person.presses("D")
        await person.until_it_says("is pinned.")
        await person.closes()
        await person.presses("k")
        await person.until(lambda: person.column("State") == ["✓ checked"] * 2)
        await person.presses("D")
        await person.until_it_says("for ever?")
        await person.presses("enter")  # the safe answer has the focus
        await person.until(lambda: len(person.window.screen_stack) == 1)
        assert on_disk(app) == {"one", "two"}
        await person.presses("D")
        await person.until_it_says("for ever?")
        await person.clicks("#yes")
        await person.until(lambda: person.column("Name") == ["two"])

    at(app, "backups", play)
    assert on_disk(app) == {"two"}


# Long work


def test_while_a_verb_waits_the_interface_answers_and_the_wait_can_be_cancelled(app: SmallApp) -> None:
    settings = app.settings.replaced(lock_timeout=DEADLINE)

    async def play(person: Person) -> None:
        with lock.held(app.backups, "somebody's backup", 1):
            await person.presses("b")
            await person.until_it_says("Back up now")
            await person.presses("enter", "enter")
            await person.until_it_says("for somebody's backup")
            await person.presses("3")  # a key that the dialog does not use: nothing happens, and the loop goes on
            person.window.action_go("history")
            await person.until(lambda: isinstance(person.window.page, HistoryPage))
            await person.presses("q")
            assert person.window.is_running
            await person.presses("escape")
            assert (await person.until_ended()).state == "cancelled"
            assert "nothing is left half done" in person.reads()
            await person.closes()

    at(app, "backups", play, settings)
    assert on_disk(app) == set()
    assert history.read(app.backups).operations[0].outcome == "interrupted"


def test_a_backup_cancelled_at_any_event_leaves_nothing_and_harms_nothing(app: SmallApp) -> None:
    make(app, "before")
    app.write_upload("3/new.bin", bytes(3_000_000))
    number, ended = 0, Ended[Any]("cancelled")
    while ended.state == "cancelled":
        number += 1
        ended = cancelled_at(number, tasks.back_up(app.settings, "new", "").act)
        assert ended.state in ("cancelled", "done")
        assert not list(app.backups.glob(".draft*"))
        assert ("new" in on_disk(app)) == (ended.state == "done")
    assert number > 3
    verify_backups(app.settings, store.all_backups(app.settings))
    assert {one.outcome for one in history.read(app.backups).operations} == {"success", "interrupted"}


def cancelled_at(number: int, act: Callable[[EventListener], Any]) -> Ended[Any]:
    """Run the work, cancelled by a person at its event of that number."""
    heard = 0

    def counting(emit: EventListener) -> Any:
        def listen(event: Event) -> None:
            nonlocal heard
            heard += 1
            if heard == number:
                run.cancel()
            emit(event)

        return act(listen)

    run: Run[Any] = Run(Task("work", counting, lambda done: []))
    return run.carry_out()


def test_where_there_is_only_forward_nothing_is_cancelled(app: SmallApp) -> None:
    def act(emit: EventListener) -> str:
        emit(Step("Going forward"))
        run.cancel()
        emit(Progress(1))
        return "through"

    run = Run(Task("work", act, lambda done: [done], steps_to_finish=frozenset({"Going forward"})))
    assert run.carry_out() == Ended("done", "through")


def test_tidying_up_after_a_cancel_is_not_cancelled_too() -> None:
    told: list[str] = []

    def act(emit: EventListener) -> None:
        run.cancel()
        try:
            emit(Progress(1))
        finally:
            emit(Notice("taken back"))
            told.append("taken back")

    run = Run(Task("work", act, lambda done: []))
    assert run.carry_out().state == "cancelled"
    assert told == ["taken back"] == run.said


def test_a_result_that_is_nothing_is_a_result_all_the_same(app: SmallApp) -> None:
    assert Run(Task("work", lambda emit: None, lambda done: [])).carry_out() == Ended("done", None)


def test_a_bug_is_a_sentence_and_the_window_lives_on(app: SmallApp) -> None:
    def act(_tell: EventListener) -> None:
        raise TypeError("a slip")

    async def play(person: Person) -> None:
        person.window.run_worker(person.window.carry_out(Task("work", act, lambda done: [])))
        ended = await person.until_ended()
        assert ended.error and ended.error.message == "This is a bug: TypeError: a slip."
        await person.closes()
        await person.presses("2")
        await person.until(lambda: isinstance(person.window.page, BackupsPage))

    at(app, "overview", play)
    assert any("a slip" in line for line in log.last_lines())


def test_progress_warnings_and_choices_are_shown(app: SmallApp) -> None:
    go_on = threading.Event()

    def act(emit: EventListener) -> str:
        emit(Step("Copying", 2_000_000))
        time.sleep(2.1)  # the remaining time is shown only after two seconds
        emit(Progress(1_500_000))
        emit(Warned("A socket was skipped."))
        assert go_on.wait(DEADLINE)
        return "done"

    async def play(person: Person) -> None:
        chosen: list[str] = []

        async def work() -> None:
            ended = await person.window.carry_out(Task("work", act, lambda done: ["All is well."], choices=("Undo",)))
            chosen.append(ended.choice)

        person.window.run_worker(work())
        await person.until_it_says("Copying · 1.5 MB of 2.0 MB · about 1 s left")
        await person.until_it_says("Warning: A socket was skipped.")
        go_on.set()
        await person.until_ended()
        assert "All is well." in person.reads() and "A socket was skipped." in person.reads()
        await person.pilot.pause()
        await person.clicks("#choice-0")
        await person.until(lambda: chosen == ["Undo"])

    at(app, "overview", play)


# History


def test_the_history_has_what_the_command_has_and_one_in_full(app: SmallApp) -> None:
    make(app, "one")
    app.command("backup", "one", check=2)
    (app.backups / "one" / "pats.db").chmod(0o600)
    (app.backups / "one" / "pats.db").write_bytes(b"broken")
    app.command("verify", "one", check=12)

    async def play(person: Person) -> None:
        commands = [one["command"] for one in app.command("history", "--json", check=0).json]
        assert person.column("Command") == commands == ["verify", "backup", "backup"]
        assert person.column("Result") == ["✗ failure", "- refused", "✓ success"]
        await person.presses("enter")
        await person.until_it_says("is damaged")

    at(app, "history", play)


# Many backups

OPENED = """
import asyncio, json, os, sys
from pathlib import Path
from backupkit.ui.window import BackupApp
from backupkit.config.settings import load_settings
settings, opened = load_settings(Path(sys.argv[1])), []
def heard(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(str(settings.dir) + os.sep):
        opened.append(str(arguments[0]))
async def main():
    window = BackupApp(settings, place=sys.argv[2])
    async with window.run_test() as pilot:
        while window.state is None:
            await pilot.pause(0.01)
        for place in ("overview", "backups", "history"):
            window.action_go(place)
            await pilot.pause(0.05)
sys.addaudithook(heard)
asyncio.run(main())
print(json.dumps(opened))
"""


def test_opening_reads_two_small_files_a_backup_and_none_of_the_uploads(app: SmallApp) -> None:
    for number in range(200):
        app.write_upload(f"many/{number}.txt", b"small")
    make(app, *(f"backup{number}" for number in range(15)))
    done = subprocess.run(
        [sys.executable, "-c", OPENED, str(app.folder), "backups"],
        env={**clean_environment(), "PYTHONPATH": str(Path(backup_restore.__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    opened = [Path(path).relative_to(app.backups) for path in json.loads(done.stdout)]
    below_backups = [path for path in opened if not path.parts[0].startswith(".")]
    assert {path.name for path in below_backups} == {"backup_metadata.json"}
    assert len(below_backups) == 15
    assert not [path for path in opened if "uploads" in path.parts]
