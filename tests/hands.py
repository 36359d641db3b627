"""A person at the terminal interface: presses keys, clicks, reads the screen, and waits for what should come.

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
_PATIENCE = 120.0  # seconds, on a machine that has other things to do
_NAMES = {"_": "underscore", ".": "full_stop", "/": "slash", "-": "minus", ":": "colon", " ": "space", "*": "asterisk"}


class Person:
    """What a person can do and see at a window."""

    def __init__(self, window: BackupApp, pilot: Pilot[None]) -> None:
        self.window, self.pilot = window, pilot

    @property
    def screen(self) -> str:
        """All that is on the screen now, line by line; of a dialog, only what is in it."""
        screen = self.window.screen
        strips = screen._compositor.render_strips()
        lines = ["".join(segment.text for segment in strip) for strip in strips]
        if not isinstance(screen, ModalScreen):
            return "\n".join(lines)
        if not (inside := screen.query("*")):  # it is not mounted yet
            return ""
        box = inside.first().region
        return "\n".join(line[box.x : box.right] for line in lines[box.y : box.bottom])

    async def until(self, claim: Callable[[], object], what: str = "") -> None:
        """Goes on as soon as the claim is true."""
        deadline = time.monotonic() + _PATIENCE
        while not claim():
            assert time.monotonic() < deadline, f"{what or 'it'} did not come:\n{self.screen}"
            await self.pilot.pause(0.02)

    async def sees(self, *texts: str) -> None:
        """Goes on as soon as all of it is on the screen, at whatever place a line ends."""
        for text in texts:
            await self.until(lambda text=text: squeezed(text) in squeezed(self.screen), repr(text))  # type: ignore[misc]

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def types(self, text: str) -> None:
        await self.pilot.press(*(_NAMES.get(letter, letter) for letter in text))

    async def click(self, selector: str) -> None:
        """A click on what is there, and can be clicked, sooner or later."""
        await self.until(lambda: self.can_click(selector), selector)
        await self.pilot.click(selector)

    def can_click(self, selector: str) -> bool:
        """Whether it is there, once, and nothing lies over it."""
        found = self.window.screen.query(selector)
        if len(found) != 1 or not found.first().region.area or found.first().disabled:
            return False
        with contextlib.suppress(NoWidget):
            above, _ = self.window.screen.get_widget_at(*found.first().region.center)
            return found.first() in above.ancestors_with_self
        return False

    def the(self, kind: type[Widget] | str) -> Widget:
        """The widget of that kind, or by that selector."""
        return self.window.screen.query_one(kind)  # type: ignore[return-value,arg-type]


def squeezed(text: str) -> str:
    """Without what a line's end, a column or a frame puts between two letters."""
    return re.sub(r"[\s│]+", "", text)


def at_the_window(
    app: SmallApp,
    story: Callable[[Person], Awaitable[None]],
    place: str,
    size: tuple[int, int] = SMALL,
    settings: Settings | None = None,
    clock: Clock = utc_now,
) -> None:
    """A person at a window on this app, which has looked at the disk."""

    async def told() -> None:
        window = BackupApp(settings or app.settings, clock, place)
        async with window.run_test(size=size) as pilot:
            person = Person(window, pilot)
            await person.until(lambda: window.world, "a first look at the disk")
            await pilot.pause()
            await story(person)

    asyncio.run(told())
