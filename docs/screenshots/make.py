#!/usr/bin/env python3
"""The pictures in README and guide, made anew: `tests/run --environment && .venv/bin/python docs/screenshots/make.py`.

A small real app lives through three months, with backups by the verbs themselves and a clock that is told; then
Chromium takes pictures of what the commands show of it today. Needs Chromium: apt install chromium chromium-driver.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "backend"), str(ROOT / "tests")]

from selenium.webdriver import Chrome  # noqa: E402

from backupkit.backup.create import create_backup  # noqa: E402
from backupkit.migrations.migrate import migrate  # noqa: E402
from backupkit.model.backup import BackupRequest, GitFacts  # noqa: E402
from backupkit.model.errors import BackupError  # noqa: E402
from backupkit.repository import store  # noqa: E402
from backupkit.restore.restore import plan_restore, restore_backup  # noqa: E402
from backupkit.retention.delete import set_pin  # noqa: E402
from backupkit.retention.prune import plan_prune, prune_backups  # noqa: E402
from backupkit.scheduling import scheduler_lock  # noqa: E402
from backupkit.verify.verify import verify_backups  # noqa: E402
from browser import chromium, look, picture  # noqa: E402
from hands import Person, at_the_window  # noqa: E402
from small_app import COMMAND, MERGED, SmallApp, clean_environment  # noqa: E402

DAYS = 84
SCALE = 20 / 24.4  # a line of the drawing is 24.4 high: twenty whole pixels look sharp
COMMITS = ["4f2a9c1", "b81d03e", "9c7e5f2", "1a6d8b4", "e05c7a9"]
FIRST = ["Northwind", "Alder", "Birch", "Cobalt", "Delta", "Ember", "Fjord", "Harbor", "Juniper", "Lumen", "Maple"]
SECOND = ["Foods", "Robotics", "Energy", "Books", "Health", "Maps", "Studio", "Optics", "Rail", "Papers"]
THIRD = ["GmbH", "Ltd", "AG", "Inc", "& Sons", "Collective"]
POSITIONS = ["Data engineer", "Web developer", "Site reliability engineer", "Technical writer", "Product designer"]
DOCUMENTS = ["cv", "cover-letter", "certificate", "references"]
# As the wrapper hands over to a container, so that the commands in the pictures are those that people type.
CONTAINER = {"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker compose", "BACKUP_HOST_COMMAND": "./backup.sh"}
PERSON = {"BACKUP_HOST_USER": "anna"}
BY_ITSELF, BY_HAND = (
    ["backup_restore.py", "schedule"],
    ["backup_restore.py", "backup"],
)  # as the history tells them apart


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(CONTAINER | PERSON)
        folder = Path(scratch)
        app = live_three_months(folder, datetime.now(UTC))
        with scheduler_lock.on(app.backups, 1), chromium(folder / "profile") as driver:
            picture_report(app, driver, folder)
            picture_pages(app, driver)
            for screen in SCREENS:
                picture_screen(app, driver, folder, screen)


# Three months in the life of an app.


def live_three_months(folder: Path, now: datetime) -> SmallApp:
    chance = random.Random(7)  # always the same weeks
    companies = [" ".join(words) for words in product(FIRST, SECOND, THIRD)]
    chance.shuffle(companies)
    app = an_empty_app(folder)
    last_night = (now - timedelta(hours=8)).replace(hour=2, minute=0, second=0, microsecond=0)
    for number in range(DAYS + 1):
        sys.argv = BY_ITSELF
        night = last_night - timedelta(days=DAYS - number)
        work_for_a_day(app, chance, companies, night)
        if number == 44:
            fail_to_back_up(app, night)
        elif number not in (31, 58):  # the machine was off
            keep_a_day(app, night, number)
        sys.argv = BY_HAND
        if number == 49:
            migrate(app.settings, clock=lambda night=night: night + timedelta(hours=7))
        if number == DAYS - 12:
            a_bad_afternoon(app, night + timedelta(hours=13, minutes=12))
    sys.argv = BY_HAND
    by_hand(app, "before_the_audit", now - timedelta(hours=2, minutes=20), "What the auditors looked at")
    return app


def an_empty_app(folder: Path) -> SmallApp:
    app = SmallApp.create(folder / "app", folder)
    app.at_revision(MERGED, rows=0)
    shutil.rmtree(app.uploads)
    app.uploads.mkdir()
    return app


def work_for_a_day(app: SmallApp, chance: random.Random, companies: list[str], night: datetime) -> None:
    with contextlib.closing(app.connect()) as live, live:
        for _ in range(chance.randint(2, 6)):
            row = live.execute("INSERT INTO companies (name) VALUES (?)", (companies.pop(),))
            values = (row.lastrowid, chance.choice(POSITIONS), chance.choice(["draft", "applied"]), f"{night:%Y-%m-%d}")
            live.execute(
                "INSERT INTO applications (company_id, position, status, applied_on) VALUES (?, ?, ?, ?)", values
            )
    for number in range(chance.randint(0, 3)):
        path = f"{night:%Y-%m}/{chance.choice(DOCUMENTS)}-{night:%d}{number}.pdf"
        app.add_document(1, app.write_upload(path, chance.randbytes(chance.randint(8_000, 60_000))))


def keep_a_day(app: SmallApp, night: datetime, number: int) -> None:
    git = GitFacts("0" * 40, COMMITS[number * len(COMMITS) // (DAYS + 1)], "main")
    create_backup(app.settings, BackupRequest(kind="scheduled", git=git), clock=lambda: night)
    if night.weekday() == 6:
        test_restore(app, night + timedelta(hours=2, minutes=30))
    later = night + timedelta(minutes=5)
    prune_backups(app.settings, plan_prune(app.settings, lambda: later), force=True, clock=lambda: later)


def fail_to_back_up(app: SmallApp, night: datetime) -> None:
    aside = app.uploads.rename(app.uploads.with_name("not mounted"))
    with contextlib.suppress(BackupError):
        create_backup(app.settings, BackupRequest(kind="scheduled"), clock=lambda: night)
    aside.rename(app.uploads)


def test_restore(app: SmallApp, moment: datetime) -> None:
    verify_backups(app.settings, [store.find(app.settings, "latest")], test_restore=True, clock=lambda: moment)


def a_bad_afternoon(app: SmallApp, moment: datetime) -> None:
    by_hand(app, "before_the_import", moment, "The new price list comes in")
    app.execute("DELETE FROM documents")
    plan = plan_restore(app.settings, "before_the_import")
    restore_backup(app.settings, plan, clock=lambda: moment + timedelta(minutes=25))


def by_hand(app: SmallApp, name: str, moment: datetime, note: str) -> None:
    create_backup(app.settings, BackupRequest(name, note=note), clock=lambda: moment)
    set_pin(app.settings, name, True)


# The pictures.


def picture_report(app: SmallApp, driver: Chrome, folder: Path) -> None:
    page = folder / "report.html"
    page.write_text(app.command("report", env=CONTAINER, check=0).out)
    for name, width, height, scheme in (("report", 1100, 925, "light"), ("report-on-a-phone", 390, 844, "dark")):
        look(driver, width, height, scheme)
        driver.get(page.as_uri())
        (HERE / f"{name}.png").write_bytes(picture(driver))


PAGES = (
    ("web-overview", "", 1100, 900, "light"),
    ("web-overview-on-a-phone", "", 390, 844, "dark"),
    ("web-schedule", "schedule", 1100, 800, "light"),
)


def picture_pages(app: SmallApp, driver: Chrome) -> None:
    """What `web` serves, as somebody who was let in sees it."""
    command = [sys.executable, str(COMMAND), "web", "--port", "0"]
    environment = {**clean_environment(), **CONTAINER, "BACKUP_APP_DIR": str(app.folder)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout
        driver.get(served.stdout.readline().strip())
        driver.find_element("css selector", "button").click()
        base = driver.execute_script("return location.origin + document.body.dataset.session")
        for name, place, width, height, scheme in PAGES:
            look(driver, width, height, scheme)
            driver.get(f"{base}/{place}")
            (HERE / f"{name}.png").write_bytes(picture(driver))
        served.terminate()


@dataclass(frozen=True)
class Screen:
    """A place of the interface, what a person does there, and what is to be seen before the picture is taken."""

    name: str
    place: str
    sees: str
    keys: tuple[str, ...] = ()
    size: tuple[int, int] = (92, 26)


SCREENS = (
    Screen("ui-overview", "overview", "Whatever the rules say", size=(104, 40)),
    Screen("ui-backups", "backups", "The backup is", ("down", "down"), size=(104, 24)),
    Screen("ui-restore", "backups", "will change", ("down", "down", "down", "R")),
    Screen("ui-history", "history", "The end of the log", size=(108, 22)),
)


def picture_screen(app: SmallApp, driver: Chrome, folder: Path, screen: Screen) -> None:
    drawings: list[str] = []

    async def story(person: Person) -> None:
        await person.press(*screen.keys)
        await person.sees(screen.sees)
        drawings.append(person.window.export_screenshot(title="./backup.sh ui"))

    at_the_window(app, story, screen.place, screen.size)
    drawing = self_contained(drawings[0], folder)
    width, height = (float(number) * SCALE for number in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)[0])
    page = folder / "screen.html"
    page.write_text(f"<style>body {{ margin: 0 }} svg {{ display: block; width: {width}px }}</style>{drawing}")
    look(driver, round(width), round(height))
    driver.get(page.as_uri())
    (HERE / f"{screen.name}.png").write_bytes(picture(driver))


def self_contained(drawing: str, folder: Path) -> str:
    """With a font of this machine instead of one from a network, as high as a line: frames and bars have no gaps."""
    drawing = re.sub(r'@font-face \{.*?\}| clip-path="[^"]*"', "", drawing, flags=re.S)
    drawing = drawing.replace("Fira Code", "DejaVu Sans Mono").replace("font-size: 20px", "font-size: 21.2px")
    drawing = drawing.replace('<text class="terminal', '<text dy="1" class="terminal')
    return re.sub(">([^<>]*)</text>", lambda found: f">{as_in_a_container(found[1], folder)}</text>", drawing)


def as_in_a_container(text: str, folder: Path) -> str:
    """The app's folder is /app there; as long as before, since its length is fixed."""
    told = text.replace(f"{folder}/app", "/app")
    return told + "&#160;" * (len(text) - len(told))


if __name__ == "__main__":
    main()
