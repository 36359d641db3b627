"""The page of schedule and retention: a form of settings, with a preview of what an edit would do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from backupkit.config.editor import as_typed, set_values
from backupkit.config.settings import Settings, overriding_variable
from backupkit.model.errors import Refused
from backupkit.monitoring.preview import preview
from backupkit.web.site import Answer, Handler, Page, Visit

SCHEDULE_FIELDS = (
    ("enabled", "Make backups automatically"),
    ("automatic_daily", "Every day"),
    ("backup_time", "at"),
    ("schedule", "or at these times (cron)"),
    ("test_schedule", "Test restores (cron)"),
    ("timezone", "Time zone"),
)
RETENTION_FIELDS = (
    ("keep_last", "The last"),
    ("keep_daily", "One a day, for this many days"),
    ("keep_weekly", "One a week, for this many weeks"),
    ("keep_monthly", "One a month, for this many months"),
    ("keep_yearly", "One a year, for this many years"),
    ("keep_within", "All within this time (7d, 2w)"),
    ("keep_pre_restore", "Safety copies of restores"),
    ("keep_pre_migration", "Backups before migrations"),
    ("keep_safety_within", "Both of these: all within this time"),
    ("max_backups", "Backups in all, at most"),
    ("min_keep", "Good backups, at least"),
)
PRESETS = (
    ("Daily at 03:00", {"automatic_daily": "true", "backup_time": "03:00", "schedule": ""}),
    ("Every hour", {"automatic_daily": "false", "schedule": "0 * * * *"}),
    ("Every 15 minutes", {"automatic_daily": "false", "schedule": "*/15 * * * *"}),
)


def show(visit: Visit) -> Answer:
    """Show the form with the settings in force."""
    return _form(visit.settings, {})


def look(visit: Visit) -> Answer:
    """Show what the edits would do, without saving them."""
    return _form(visit.settings, _edits(visit.settings, visit.form))


def save(visit: Visit) -> Answer:
    """Save the edits to `backup.toml`, which puts them in force.

    Save nothing, and show the preview, if a value is invalid, or if retention would then remove backups and the owner
    has not agreed to that.
    """
    settings, edits = visit.settings, _edits(visit.settings, visit.form)
    found = preview(settings, edits)
    if found.troubles or (found.prune.removals and not visit.form.get("agreed")):
        return _form(settings, edits, asks=not found.troubles)
    if edits:
        set_values(settings.app_dir, edits)
    return _form(visit.site.settings(), {}, was_saved=bool(edits))


def _edits(settings: Settings, form: Mapping[str, str]) -> dict[str, str]:
    """Return the typed values that differ from the settings; browsers do not send unticked checkboxes."""
    # If the settings have changed since the form was shown, saving would revert that.
    if form.get("was", _values_hash(settings)) != _values_hash(settings):
        raise Refused("The settings were changed since this form was shown; nothing was saved.", hint="Open it again.")
    edits = {}
    for name, _ in (*SCHEDULE_FIELDS, *RETENTION_FIELDS):
        if overriding_variable(name):
            continue
        before = as_typed(getattr(settings, name))
        typed = form.get(name, "false" if before in ("true", "false") else before).strip()
        if typed != before:
            edits[name] = typed
    return edits


def _values_hash(settings: Settings) -> str:
    values = [as_typed(getattr(settings, name)) for name, _ in (*SCHEDULE_FIELDS, *RETENTION_FIELDS)]
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _form(settings: Settings, edits: Mapping[str, str], asks: bool = False, was_saved: bool = False) -> Page:
    """Return the form with its preview; `asks` whether to remove the backups that the edits would remove."""
    refused = None
    try:
        found = preview(settings, edits)
    except Refused as error:
        found, refused = preview(settings, {}), error

    def entry(name: str, words: str) -> dict[str, object]:
        value = getattr(settings, name)
        kind = "switch" if isinstance(value, bool) else "number" if isinstance(value, int) else "text"
        typed = edits.get(name, as_typed(value))
        return {"name": name, "words": words, "value": typed, "kind": kind, "variable": overriding_variable(name)}

    return Page(
        "schedule.html",
        when=[entry(*one) for one in SCHEDULE_FIELDS],
        stays=[entry(*one) for one in RETENTION_FIELDS],
        presets=PRESETS,
        was=_values_hash(settings),
        found=found,
        edits=edits,
        asks=asks,
        was_saved=was_saved,
        refused=refused,
    )


GET: Mapping[str, Handler] = {"schedule": show}
POST: Mapping[str, Handler] = {"schedule/look": look, "schedule": save}
