"""A month of daily life with real backups leaves exactly the backups that the policy promises."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from backupkit.backup.create import create_backup
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import SourceUnreadable
from backupkit.repository import store
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from backupkit.retention.delete import set_pin
from backupkit.retention.prune import accept, plan_prune, prune_backups
from small_app import SmallApp

FIRST = date(2026, 3, 1)  # a Sunday; Berlin changes its clocks on the 29th
DAYS = 31
OFF = {9, 10, 11}  # the machine was switched off
BROKEN = {17}  # the database could not be read


class Month:
    """An app that lives through March by the clock of Berlin."""

    def __init__(self, app: SmallApp) -> None:
        self.app = app
        rules = {
            "keep_daily": 7,
            "keep_weekly": 4,
            "keep_monthly": 2,
            "keep_pre_restore": 1,
            "keep_safety_within": "3d",
        }
        self.settings = Settings(**{**app.settings.values(), "timezone": "Europe/Berlin", **rules})  # type: ignore[arg-type]
        self.now = datetime.min
        self.stopped: list[int] = []

    def clock(self) -> datetime:
        return self.now

    def at(self, day: int, hour: int) -> None:
        """Set the clock to that hour of that day of March."""
        wall = datetime(FIRST.year, FIRST.month, day, hour, tzinfo=self.settings.zone)
        self.now = wall.astimezone(UTC)

    def back_up(self, name: str, kind: str = "scheduled") -> None:
        create_backup(self.settings, BackupRequest(name, kind=kind), clock=self.clock)  # type: ignore[arg-type]

    def prune(self) -> None:
        """Prune; assert that exactly the planned backups go, and that a second plan removes none."""
        plan = plan_prune(self.settings, self.clock)
        before = self.names()
        done = prune_backups(self.settings, plan, clock=self.clock)
        gone = {backup.name for backup in plan.removals}
        assert {backup.name for backup in done.removed} == gone
        assert self.names() == [name for name in before if name not in gone]
        assert plan_prune(self.settings, self.clock).removals == ()
        if plan.stopped:
            self.stopped.append(self.now.astimezone(self.settings.zone).day)

    def names(self) -> list[str]:
        return [backup.name for backup in store.all_backups(self.settings)]

    def morning(self, day: int) -> None:
        """Make the nightly backup, prune after it, and add rows."""
        self.at(day, 3)
        if day in BROKEN:
            with pytest.raises(SourceUnreadable):
                self.break_and_back_up(day)
        else:
            self.back_up(f"march{day:02}")
        self.prune()
        self.app.add_rows(10)

    def break_and_back_up(self, day: int) -> None:
        content = self.app.database.read_bytes()
        self.app.database.write_bytes(b"no database")
        try:
            self.back_up(f"march{day:02}")
        finally:
            self.app.database.write_bytes(content)

    def afternoon(self, day: int) -> None:
        """Do what happens on some days only."""
        self.at(day, 15)
        if day % 2:
            self.back_up(f"deploy{day:02}", "auto")
        if day == 5:
            self.back_up("release", "manual")
        if day == 6:
            set_pin(self.settings, "march06", True)
        if day == 14:
            restore_backup(self.settings, plan_restore(self.settings, "march14"), clock=self.clock)
        if day == 20:
            (self.app.backups / "march20" / "SHA256SUMS").unlink()
        if day == 23:
            self.app.execute("DELETE FROM applications WHERE id > 50")
        if day == 25:
            accept(self.settings, "march25")

    def live(self) -> None:
        for number in range(DAYS):
            day = (FIRST + timedelta(days=number)).day
            if day not in OFF:
                self.morning(day)
                self.afternoon(day)


@pytest.mark.slow
def test_a_month_ends_in_exactly_the_backups_that_the_policy_promises(app: SmallApp) -> None:
    month = Month(app)
    month.live()
    assert month.stopped == [24, 25]  # half the rows were gone, until a person accepted that
    month.at(31, 23)
    month.prune()
    left = month.names()
    safety = [name for name in left if name.startswith("pre_restore")]
    assert [name for name in left if name not in safety] == [
        "deploy31",  # seven days, the newest of each
        "march31",  # one of the three newest good ones
        "march30",
        "deploy29",  # a Sunday, and the end of its week
        "march28",
        "deploy27",
        "march26",
        "deploy25",
        "march22",  # the newest of each earlier week
        "march20",  # damaged: only a person may remove it
        "deploy15",
        "march06",  # pinned
        "release",  # manual
    ]
    assert plan_undo(month.settings, force=True).source.name == safety[0]
    assert len(safety) == 1
    assert {backup.name for backup in store.all_backups(month.settings) if backup.state == "damaged"} == {"march20"}
