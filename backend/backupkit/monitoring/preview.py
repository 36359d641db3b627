"""What edited settings would bring: the next runs, and what retention would keep and remove. Looks only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backupkit.config import editor
from backupkit.config.settings import Settings, check_file, load_settings, read_text
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import Refused
from backupkit.retention.prune import PrunePlan, plan_prune
from backupkit.scheduling.agenda import next_runs
from backupkit.scheduling.planner import DueRun


@dataclass(frozen=True)
class Preview:
    """The settings as they would be in force, and what they would bring. Whether a scheduler `is_at_work`.

    `troubles` has, by setting, what is wrong with a value that was typed: the others are in the preview all the same.
    """

    settings: Settings
    runs: Sequence[DueRun]
    is_at_work: bool
    prune: PrunePlan
    troubles: Mapping[str, Refused]


def preview(settings: Settings, typed: Mapping[str, str], clock: Clock = utc_now) -> Preview:
    """What would be if these values were in `backup.toml`; the environment stays stronger than the file.

    A value that cannot be is refused with the sentence of `config set`.
    """
    good, troubles = _judged(settings, typed)
    folder = settings.app_dir
    wanted = check_file(folder, editor.edited(folder, read_text(folder), good)) if good else settings
    would = load_settings(folder, **{name: getattr(wanted, name) for name in good})
    runs, is_at_work = next_runs(would, clock)
    return Preview(would, runs, is_at_work, plan_prune(would, clock, looks_always=False), troubles)


def _judged(settings: Settings, typed: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Refused]]:
    """The values that can be, each by itself; and what is wrong with the others."""
    text = read_text(settings.app_dir)
    good: dict[str, str] = {}
    troubles: dict[str, Refused] = {}
    for name, value in typed.items():
        try:
            editor.edited(settings.app_dir, text, {name: value})
        except Refused as error:
            troubles[name] = error
        else:
            good[name] = value
    return good, troubles
