"""The content of a report, and the path that it is written to. The disk is read once; no remote is asked."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct, field

from backupkit.config.settings import Settings
from backupkit.fs import disk
from backupkit.model.backup import Backup
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import Refused
from backupkit.monitoring.overview import Overview, overview
from backupkit.monitoring.status import Status, judge, look
from backupkit.repository import store
from backupkit.repository.history import History
from backupkit.retention import rules
from backupkit.retention.rules import Policy
from backupkit.scheduling import planner
from backupkit.scheduling.planner import DueRun

DEFAULT_FILE = "report.html"
SIGNATURE = b'<meta name="generator" content="backupkit report'
_HEAD, _RUNS = 1000, 5  # bytes searched for the signature; runs that are listed


class Report(Struct, frozen=True):
    """The content of the page, all as of one time."""

    status: Status
    overview: Overview
    backups: tuple[Backup, ...]
    runs: tuple[DueRun, ...]
    is_scheduled: bool
    policy: Policy
    history: History = field(default_factory=History)


def report(settings: Settings, clock: Clock = utc_now) -> Report:
    """Return the report as of now. An unreadable folder becomes a reason in its status, not an error."""
    facts = look(settings, clock)
    seed = facts.scheduler_seed or ""
    past = planner.run_history_of(settings, facts.backups, facts.history.operations, facts.now, seed)
    return Report(
        judge(settings, facts),
        overview(settings, facts),
        facts.backups,
        tuple(planner.upcoming(settings, past, facts.now, _RUNS)),
        facts.scheduler_seed is not None,
        rules.policy_of(settings),
        facts.history,
    )


def report_path(settings: Settings, file: str) -> Path:
    """Return the path for a report of that name: a bare name lies in the backups folder.

    Raises `Refused` if its folder does not exist, or if the path exists and is not an earlier report.
    """
    path = store.file_named(settings, file)
    if path.exists() and not _is_report(path):
        raise Refused(f"{path} exists already, and is not a report.", hint="Choose another name.")
    store.require_parent(path)
    return path


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return SIGNATURE in file.read(_HEAD)


def write_report(path: Path, page: str) -> None:
    """Replace the file atomically; an existing file keeps its owner and mode, a new one is readable for all users."""
    disk.rewrite_file(path, page.encode())
