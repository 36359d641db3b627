"""Preview the effect of edited settings: the next runs, and what retention would keep and remove. Read-only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from backupkit.config import editor
from backupkit.config.settings import Settings, check_file, load_settings, read_text
from backupkit.model.clock import Clock, utc_now
from backupkit.model.errors import Refused
from backupkit.retention.prune import PrunePlan, plan_prune
from backupkit.scheduling.agenda import next_runs
from backupkit.scheduling.planner import DueRun


class Preview(Struct, frozen=True):
    """The settings as they would be in force, and their effect; `is_at_work`: a scheduler is running.

    `troubles` has the error of each typed value that is not valid, by setting; the preview uses the other values.
    """

    settings: Settings
    runs: Sequence[DueRun]
    is_at_work: bool
    prune: PrunePlan
    troubles: Mapping[str, Refused]


def preview(settings: Settings, typed: Mapping[str, str], clock: Clock = utc_now) -> Preview:
    """Return the preview for these values in `backup.toml`; the environment still overrides the file.

    An invalid value gets the same error as from `config set`, in `troubles`; nothing is raised for it.
    """
    good, troubles = _validated(settings, typed)
    folder = settings.app_dir
    wanted = check_file(folder, editor.edited(folder, read_text(folder), good)) if good else settings
    new = load_settings(folder, **{name: getattr(wanted, name) for name in good})
    runs, is_at_work = next_runs(new, clock)
    return Preview(new, runs, is_at_work, plan_prune(new, clock, looks_always=False), troubles)


def _validated(settings: Settings, typed: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Refused]]:
    """Return the values that are valid on their own, and the errors of the others."""
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
