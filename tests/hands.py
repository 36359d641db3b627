"""A simulated person at the terminal interface: presses keys, clicks, reads the screen, waits for what should appear.

def test_something(app: SmallApp) -> None:
    async def story(person: Person) -> None:
        await person.press("down", "enter")
        await person.sees("will change")

    at_the_window(app, story, place="restore")
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable

from textual.errors import NoWidget
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widget import Widget

from backupkit.config.settings import Settings
from backupkit.model.clock import Clock, utc_now
from backupkit.ui.window import BackupApp
from small_app import SmallApp

SMALL, LARGE = (80, 24), (120, 40)
_PATIENCE = 120.0  # seconds; generous, because the machine may be busy
_NAMES = {"_": "underscore", ".": "full_stop", "/": "slash", "-": "minus", ":": "colon", " ": "space", "*": "asterisk"}


class Person:
    """The actions of a person at a window, and what the person sees."""

    def __init__(self, window: BackupApp, pilot: Pilot[None]) -> None:
        self.window, self.pilot = window, pilot

    @property
    def screen(self) -> str:
        """All text on the screen, line by line; if a dialog is open, only the dialog's text."""
        screen = self.window.screen
        strips = screen._compositor.render_strips()
        lines = ["".join(segment.text for segment in strip) for strip in strips]
        if not isinstance(screen, ModalScreen):
            return "\n".join(lines)
        if not (inside := screen.query("*")):  # the dialog is not mounted yet
            return ""
        box = inside.first().region
        return "\n".join(line[box.x : box.right] for line in lines[box.y : box.bottom])

    async def until(self, claim: Callable[[], object], what: str = "") -> None:
        """Wait until the claim is true."""
        deadline = time.monotonic() + _PATIENCE
        while not claim():
            assert time.monotonic() < deadline, f"{what or 'it'} did not come:\n{self.screen}"
            await self.pilot.pause(0.02)

    async def sees(self, *texts: str) -> None:
        """Wait until all the texts are on the screen, wherever its lines break."""
        for text in texts:
            await self.until(lambda text=text: squeezed(text) in squeezed(self.screen), repr(text))  # type: ignore[misc]

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def types(self, text: str) -> None:
        await self.pilot.press(*(_NAMES.get(letter, letter) for letter in text))

    async def click(self, selector: str) -> None:
        """Click the widget as soon as it can be clicked."""
        await self.until(lambda: self.can_click(selector), selector)
        await self.pilot.click(selector)

    def can_click(self, selector: str) -> bool:
        """Return whether exactly one such widget is there, enabled, with nothing over it."""
        found = self.window.screen.query(selector)
        if len(found) != 1 or not found.first().region.area or found.first().disabled:
            return False
        with contextlib.suppress(NoWidget):
            above, _ = self.window.screen.get_widget_at(*found.first().region.center)
            return found.first() in above.ancestors_with_self
        return False

    def the(self, kind: type[Widget] | str) -> Widget:
        """Return the widget of that kind, or by that selector."""
        return self.window.screen.query_one(kind)  # type: ignore[return-value,arg-type]


def squeezed(text: str) -> str:
    """Return the text without whitespace and vertical frame lines."""
    return re.sub(r"[\s│]+", "", text)


def at_the_window(
    app: SmallApp,
    story: Callable[[Person], Awaitable[None]],
    place: str,
    size: tuple[int, int] = SMALL,
    settings: Settings | None = None,
    clock: Clock = utc_now,
) -> None:
    """Run the story with a person at a window on this app, after the window's first look at the disk."""

    async def told() -> None:
        window = BackupApp(settings or app.settings, clock, place)
        async with window.run_test(size=size) as pilot:
            person = Person(window, pilot)
            await person.until(lambda: window.state, "a first look at the disk")
            await pilot.pause()
            await story(person)

    asyncio.run(told())
