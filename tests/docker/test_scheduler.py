"""The scheduler service makes backups on its own, makes up for missed ones, and is unhealthy when they fail."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine import wait_until
from project import QUICK as QUICK_APP
from project import Project

QUICK = {"interval": "1s", "start_period": "0s", "retries": 1}


class Scheduler:
    """The second service of a project."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def up(self, **changed: Any) -> None:
        """Start the app and the scheduler, as `docker compose up` does."""
        self.project.scheduler.pop("profiles", None)
        self.project.scheduler |= {"healthcheck": QUICK, **changed}
        self.project.override(healthcheck=QUICK_APP)  # the scheduler waits for the health check
        self.project.compose("up", "--detach", "--no-build")

    def stop(self) -> None:
        """Stop the scheduler, with the grace period of the compose file."""
        self.project.compose("stop", "scheduler")

    def health(self) -> str:
        return str(self.project.inspect("State.Health.Status", self.container()))

    def container(self) -> str:
        (container,) = self.project.containers("False", "scheduler")
        return container

    def logs(self) -> str:
        return self.project.logs(self.container())

    def says(self, text: str, times: int = 1) -> None:
        assert wait_until(lambda: self.logs().count(text) >= times), self.logs()

    def backups(self) -> list[Path]:
        return sorted(self.project.backups.glob("scheduled_*"))


@pytest.fixture
def scheduler(project: Project) -> Scheduler:
    return Scheduler(project)


def older(backup: Path, days: int) -> None:
    """Make the backup look as if it had been made that many days earlier."""
    path = backup / "backup_metadata.json"
    told = json.loads(path.read_text())
    told["created_at"] = (datetime.fromisoformat(told["created_at"]) - timedelta(days=days)).isoformat()
    path.write_text(json.dumps(told))


@pytest.mark.shows("scheduler")
def test_the_second_service_makes_backups_by_itself_and_proves_them(scheduler: Scheduler) -> None:
    scheduler.up()
    scheduler.says("Next backup: ")
    scheduler.says("Test restore of ")
    assert len(scheduler.backups()) == 1
    assert wait_until(lambda: scheduler.health() == "healthy")
    (found,) = scheduler.project.json("list")
    assert (found["kind"], found["state"]) == ("scheduled", "proven")
    owners = {path.lstat().st_uid for path in scheduler.project.backups.rglob("*")}
    live = {path.lstat().st_uid for path in scheduler.project.database.parent.iterdir()}
    assert owners == live == {1000}
    assert scheduler.project.add_application("Still writing")


def test_what_came_due_while_it_was_stopped_is_made_up_at_the_start(scheduler: Scheduler) -> None:
    scheduler.up()
    scheduler.says("Next test restore: ")
    scheduler.stop()
    (first,) = scheduler.backups()
    scheduler.up()
    scheduler.says("Next backup: ", 2)
    assert scheduler.backups() == [first]
    scheduler.stop()
    older(first, 2)
    scheduler.up()
    scheduler.says("Due now: backup (missed at ")
    assert wait_until(lambda: len(scheduler.backups()) == 2)


def test_docker_stop_makes_a_last_backup_where_that_is_asked(scheduler: Scheduler) -> None:
    scheduler.up(environment={"BACKUP_BACKUP_ON_SHUTDOWN": "true"})
    scheduler.says("Next test restore: ")
    scheduler.project.add_application("At the last moment")
    scheduler.stop()
    assert scheduler.project.inspect("State.ExitCode", scheduler.container()) == 0 and len(scheduler.backups()) == 2
    assert not list(scheduler.project.backups.glob(".draft*"))


def test_its_health_turns_when_backups_stop_succeeding_and_turns_back(scheduler: Scheduler) -> None:
    scheduler.up()
    scheduler.says("Next test restore: ")
    assert wait_until(lambda: scheduler.health() == "healthy")
    (first,) = scheduler.backups()
    away = scheduler.project.database.rename(scheduler.project.database.with_name("away"))
    older(first, 3)
    assert wait_until(lambda: scheduler.health() == "unhealthy")
    away.rename(scheduler.project.database)
    scheduler.project.backup_sh("backup", "by_hand")
    assert wait_until(lambda: scheduler.health() == "healthy")
