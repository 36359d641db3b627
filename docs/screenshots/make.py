#!/usr/bin/env python3
"""The pictures in README and guide, made anew: `tests/run --environment && .venv/bin/python docs/screenshots/make.py`.

A small real app lives through three months, with backups by the verbs themselves and a clock that is told; then
Chromium takes pictures of what the commands show of it today. Needs Chromium: apt install chromium.
"""

from __future__ import annotations

import random
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "backend"), str(ROOT / "tests")]

from selenium.webdriver import Chrome  # noqa: E402

from backupkit.parts import duty, store  # noqa: E402
from backupkit.verbs.create import create_backup  # noqa: E402
from backupkit.verbs.prune import plan_prune, prune_backups  # noqa: E402
from backupkit.verbs.remove import set_pin  # noqa: E402
from backupkit.verbs.restore import plan_restore, restore_backup  # noqa: E402
from backupkit.verbs.verify import verify_backups  # noqa: E402
from backupkit.words.errors import BackupError  # noqa: E402
from backupkit.words.model import GitFacts, Order  # noqa: E402
from browser import chromium, look, picture  # noqa: E402
from small_app import SmallApp  # noqa: E402

DAYS = 84
CONTAINER = {"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker compose", "BACKUP_HOST_COMMAND": "./backup.sh"}
COMMITS = ["4f2a9c1", "b81d03e", "9c7e5f2", "1a6d8b4", "e05c7a9"]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        app = SmallApp.create(Path(scratch) / "app", Path(scratch))
        live_three_months(app, datetime.now(UTC))
        with duty.on(app.backups, 1), chromium(Path(scratch) / "profile") as driver:
            picture_report(app, driver, Path(scratch))


# Three months in the life of an app.


def live_three_months(app: SmallApp, now: datetime) -> None:
    chance = random.Random(7)  # always the same weeks
    last_night = (now - timedelta(hours=8)).replace(hour=2, minute=0, second=0, microsecond=0)
    first = last_night - timedelta(days=DAYS)
    for number in range(DAYS + 1):
        work_for_a_day(app, chance, number)
        night = first + timedelta(days=number)
        if number in (31, 58):
            continue  # the machine was off
        if number == 44:
            fail_to_back_up(app, night)
            continue
        keep_a_day(app, night, number)
        if number == DAYS - 12:
            a_bad_afternoon(app, night + timedelta(hours=13, minutes=12))
    by_hand(app, "before_the_audit", now - timedelta(hours=2, minutes=20), "What the auditors looked at")


def work_for_a_day(app: SmallApp, chance: random.Random, number: int) -> None:
    app.add_rows(chance.randint(3, 14))
    for upload in range(chance.randint(0, 3)):
        app.write_upload(f"{number}/letter-{upload}.pdf", chance.randbytes(chance.randint(8_000, 60_000)))


def keep_a_day(app: SmallApp, night: datetime, number: int) -> None:
    git = GitFacts("0" * 40, COMMITS[number * len(COMMITS) // (DAYS + 1)], "main")
    create_backup(app.settings, Order(kind="scheduled", git=git), clock=lambda: night)
    if night.weekday() == 6:
        test_restore(app, night + timedelta(hours=2, minutes=30))
    later = night + timedelta(minutes=5)
    prune_backups(app.settings, plan_prune(app.settings, lambda: later), force=True, clock=lambda: later)


def fail_to_back_up(app: SmallApp, night: datetime) -> None:
    aside = app.uploads.rename(app.uploads.with_name("not mounted"))
    with suppress(BackupError):
        create_backup(app.settings, Order(kind="scheduled"), clock=lambda: night)
    aside.rename(app.uploads)


def test_restore(app: SmallApp, moment: datetime) -> None:
    verify_backups(app.settings, [store.find(app.settings, "latest")], test_restore=True, clock=lambda: moment)


def a_bad_afternoon(app: SmallApp, moment: datetime) -> None:
    by_hand(app, "before_the_import", moment, "The new price list comes in")
    app.execute("DELETE FROM applications")
    later = moment + timedelta(minutes=25)
    restore_backup(app.settings, plan_restore(app.settings, "before_the_import"), clock=lambda: later)


def by_hand(app: SmallApp, name: str, moment: datetime, note: str) -> None:
    create_backup(app.settings, Order(name, note=note), clock=lambda: moment)
    set_pin(app.settings, name, True)


# The pictures.


def picture_report(app: SmallApp, driver: Chrome, scratch: Path) -> None:
    written = scratch / "report.html"
    written.write_text(app.command("report", env=CONTAINER, check=0).out)
    for name, width, height, scheme in (("report", 1100, 925, "light"), ("report-on-a-phone", 390, 844, "dark")):
        look(driver, width, height, scheme)
        driver.get(written.as_uri())
        (HERE / f"{name}.png").write_bytes(picture(driver))


if __name__ == "__main__":
    main()
