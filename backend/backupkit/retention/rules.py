"""Retention rules: a pure decision about which backups stay, which may go, and why.

A backup goes only if there is no reason to keep it. Reasons come from the policy (buckets as in restic's `forget`)
and from safeguards that no policy overrides. While the newest backup is damaged or unusual, none goes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct, field

from backupkit.config.remotes import RemoteTable
from backupkit.config.settings import Settings
from backupkit.config.table import CheckedTable
from backupkit.model.backup import APART, Backup
from backupkit.model.durations import LONG_AGO, Span, parse_span
from backupkit.model.names import printable
from backupkit.repository.reliable import owner_of

_NO_SPAN = Span()
_GAP, _SETTLED = timedelta(days=2), timedelta(days=7)

# The rules: fields of `Policy`, each set by `keep_` and its name, in `Settings` and in the table of a remote.
_PERIODS: Mapping[str, tuple[str, Callable[[datetime], object]]] = {
    "daily": ("day", lambda at: at.date()),
    "weekly": ("week", lambda at: at.isocalendar()[:2]),
    "monthly": ("month", lambda at: (at.year, at.month)),
    "yearly": ("year", lambda at: at.year),
}
_ROUTINE_RULES = ("last", *_PERIODS, "within")
_SAFETY_RULES = ("pre_restore", "pre_migration", "safety_within")

Reason = tuple[Backup, str]


class Policy(Struct, frozen=True):
    """Retention settings; 0 or an empty span means that there is no such rule.

    `newest` is how many backups of all kinds may stay, `min_good` how many good ones stay whatever their age.
    """

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span = _NO_SPAN
    pre_restore: int = 0
    pre_migration: int = 0
    safety_within: Span = _NO_SPAN
    newest: int = 0
    min_good: int = 1

    @property
    def of_routine(self) -> bool:
        """Whether there is any rule for automatic and scheduled backups."""
        return any(getattr(self, rule) for rule in _ROUTINE_RULES)

    @property
    def of_kinds(self) -> bool:
        """Whether there is any rule other than `newest`."""
        return any(getattr(self, rule) for rule in (*_ROUTINE_RULES, *_SAFETY_RULES))

    @property
    def periods(self) -> list[tuple[str, int]]:
        """The periods that have a rule, each with its number: `("day", 30)`."""
        return [(word, number) for rule, (word, _) in _PERIODS.items() if (number := getattr(self, rule))]


class RetentionContext(Struct, frozen=True):
    """The other inputs of a decision: the app, the time and time zone, and facts about single backups by name.

    `reserved` holds the reason why a backup stays whatever the policy says. `apart` holds the reason why a backup is
    outside this decision. `undated` holds when a folder without trusted metadata last changed: it may be the newest
    backup.
    """

    app_id: str
    now: datetime
    zone: ZoneInfo
    reserved: Mapping[str, str] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)
    undated: Mapping[str, datetime] = field(default_factory=dict)


class Verdict(Struct, frozen=True):
    """The decision on one backup, with all reasons to keep it or the reason why it may go."""

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]


class Decision(Struct, frozen=True):
    """A verdict for each backup, newest first. `stopped` is why none may go now, or empty."""

    verdicts: tuple[Verdict, ...]
    stopped: str = ""


def policy_of(settings: Settings) -> Policy:
    """Return the policy of the settings. If only `max_backups` is set and no rule, the default rules do not apply."""
    newest = settings.max_backups
    min_good = min(settings.min_keep, newest) if newest else settings.min_keep
    found = _rules_in(settings)
    if newest and settings.given.isdisjoint(f"keep_{rule}" for rule in found):
        return Policy(newest=newest, min_good=min_good)
    return Policy(**found, newest=newest, min_good=min_good)


def policy_of_remote(table: RemoteTable) -> Policy:
    """Return the policy that the table of a remote sets: its own rules alone."""
    return Policy(**_rules_in(table), min_good=table.min_keep)


def _rules_in(table: CheckedTable) -> dict[str, Any]:
    """Return the value of each rule that has a setting in the table."""
    values = {rule: table.values().get(f"keep_{rule}") for rule in (*_ROUTINE_RULES, *_SAFETY_RULES)}
    found = {rule: value for rule, value in values.items() if value is not None}
    return {rule: parse_span(value) if isinstance(value, str) else value for rule, value in found.items()}


def decide(policy: Policy, backups: Iterable[Backup], context: RetentionContext) -> Decision:
    """Return a verdict with its reasons for each backup."""
    found = sorted(backups, key=lambda backup: (backup.made_at, backup.name), reverse=True)
    exempt = {backup.name: reason for backup in found if (reason := _exempt_reason(backup, context))}
    ours = [backup for backup in found if backup.name not in exempt]
    reasons = defaultdict(list, {name: [reason] for name, reason in exempt.items()})
    for backup, reason in (*_safeguards(policy, ours, context), *_policy_reasons(policy, ours, context.zone)):
        reasons[backup.name].append(reason)
    stopped = _safety_stop(found, context)
    return Decision(tuple(_verdict(policy, backup, reasons[backup.name], stopped) for backup in found), stopped)


def _verdict(policy: Policy, backup: Backup, reasons: list[str], stopped: str) -> Verdict:
    if reasons or stopped:
        return Verdict(backup, True, tuple(reasons) or ("nothing is removed now",))
    return Verdict(backup, False, ("beyond the newest" if policy.newest else "no rule keeps it",))


def _exempt_reason(backup: Backup, context: RetentionContext) -> str:
    """Return why the backup always stays and uses up no rule, or an empty string if the rules decide on it."""
    metadata = backup.metadata
    if metadata is None:
        return "damaged: its metadata cannot be read"
    if reason := context.apart.get(backup.name):
        return reason
    if (owner := owner_of(metadata)) != context.app_id:
        return f"of another app: {printable(owner)}" if owner else "of an unknown app"
    if metadata.created_at > context.now:
        return "dated in the future"
    return "damaged: look at it, then delete it" if backup.state == "damaged" else ""


def _safeguards(policy: Policy, ours: list[Backup], context: RetentionContext) -> Iterator[Reason]:
    normal = [backup for backup in ours if backup.kind not in APART]
    newest = {backup.name: backup for group in (ours, normal, *_by_uploads(normal)) for backup in group[:1]}
    yield from ((backup, "the newest") for backup in newest.values())
    for group in _by_uploads(backup for backup in ours if backup.state == "proven" and _is_good(backup)):
        yield from ((backup, "the newest proven") for backup in group[:1])
    yield from ((backup, "pinned") for backup in ours if backup.pinned)
    yield from ((backup, context.reserved[backup.name]) for backup in ours if backup.name in context.reserved)
    for group in _by_uploads(backup for backup in normal if _is_good(backup)):
        yield from _numbered("good", policy.min_good, group)


def _policy_reasons(policy: Policy, ours: list[Backup], zone: ZoneInfo) -> Iterator[Reason]:
    allowed = list(_numbered("newest", policy.newest, ours))
    if not policy.newest:
        yield from _by_kind(policy, ours, zone)
    elif not policy.of_kinds:
        yield from allowed
    else:
        names = {backup.name for backup, _ in allowed}
        yield from (reason for reason in _by_kind(policy, ours, zone) if reason[0].name in names)


def _by_kind(policy: Policy, ours: list[Backup], zone: ZoneInfo) -> Iterator[Reason]:
    yield from ((backup, backup.kind) for backup in ours if backup.kind in ("manual", "salvaged"))
    routine = [backup for backup in ours if backup.kind in ("auto", "scheduled")]
    yield from ((backup, "unchecked") for backup in routine if backup.state == "unchecked")
    if not policy.of_routine:
        yield from ((backup, "no rule for its kind") for backup in routine)
    for group in _by_uploads(backup for backup in routine if backup.state != "unchecked"):
        yield from _buckets(policy, group, zone)
        yield from _recent(policy.within, group, ours, zone)
    for kind, number in (("pre_restore", policy.pre_restore), ("pre_migration", policy.pre_migration)):
        copies = [backup for backup in ours if backup.kind == kind]
        if not number and not policy.safety_within:
            yield from ((backup, "no rule for its kind") for backup in copies)
        for group in _by_uploads(copies):
            yield from _numbered(kind, number, group)
        yield from _recent(policy.safety_within, copies, ours, zone)


def _by_uploads(backups: Iterable[Backup]) -> tuple[list[Backup], list[Backup]]:
    """Split into backups with uploads and without: one of the database alone never replaces a complete one."""
    whole: list[Backup] = []
    part: list[Backup] = []
    for backup in backups:
        (whole if backup.metadata and backup.metadata.uploads_included else part).append(backup)
    return whole, part


def _buckets(policy: Policy, group: list[Backup], zone: ZoneInfo) -> Iterator[Reason]:
    yield from _numbered("last", policy.last, group)
    for rule, (_, period) in _PERIODS.items():
        yield from _newest_of_each(rule, getattr(policy, rule), group, period, zone)


def _newest_of_each(
    rule: str, number: int, group: list[Backup], period: Callable[[datetime], object], zone: ZoneInfo
) -> Iterator[Reason]:
    """Yield the newest backup of each of the latest periods that have one; empty periods are not counted."""
    newest: dict[object, Backup] = {}
    for backup in group:
        newest.setdefault(period(backup.made_at.astimezone(zone)), backup)
    yield from _numbered(rule, number, newest.values())


def _numbered(rule: str, number: int, backups: Iterable[Backup]) -> Iterator[Reason]:
    for place, backup in zip(range(1, number + 1), backups, strict=False):
        yield backup, f"{rule} {place} of {number}"


def _recent(span: Span, group: list[Backup], ours: list[Backup], zone: ZoneInfo) -> Iterator[Reason]:
    """Yield the backups within the span before the newest one; not before now, so that a clock jump ages none."""
    if span and ours:
        newest = _span_start(span, [backup.made_at for backup in ours], zone)
        limit = span.before(newest, zone)
        yield from ((backup, f"within {span} of the newest") for backup in group if backup.made_at > limit)


def _span_start(span: Span, times: list[datetime], zone: ZoneInfo) -> datetime:
    """Return the time from which a span is measured: the newest, or the one before a gap that is not a week old."""
    # Such a gap makes all before it older than the span at once. Perhaps the clock is wrong now; then all would go.
    for later, earlier in pairwise(times):
        if times[0] - later >= _SETTLED:
            break
        if later - earlier >= _GAP and earlier <= span.before(later, zone):
            return earlier
    return times[0]


def _safety_stop(found: list[Backup], context: RetentionContext) -> str:
    """Return why no backup may go: a problem with one that is counted on. Return an empty string if there is none."""
    counted = counted_on(found, context)
    for backup in counted:
        if doubt := _problem(backup):
            return f"the newest backup {backup.name} is {doubt}"
    latest = counted[0].made_at if counted else LONG_AGO
    for name, changed in sorted(context.undated.items()):
        if latest < changed <= context.now:
            return f"{name} is damaged, and may be the newest backup"
    return ""


def counted_on(found: Iterable[Backup], context: RetentionContext) -> list[Backup]:
    """Return the backups that the app relies on once others are removed: the newest, and the newest with uploads.

    `found` is newest first. Safety copies, other apps' backups and those dated in the future are not counted on.
    """
    ours = [backup for backup in found if _is_current(backup, context) and backup.kind not in APART]
    whole, _ = _by_uploads(ours)
    return list({backup.name: backup for backup in (*ours[:1], *whole[:1])}.values())


def _problem(backup: Backup) -> str:
    if backup.state == "damaged":
        return "damaged"
    if backup.metadata and backup.metadata.database and (flaws := backup.metadata.database.index_flaws):
        return f"made of a database with an index that does not match its table ({flaws[0]})"
    more = f"; and {len(backup.unusual) - 1} more" if len(backup.unusual) > 1 else ""
    return f"unusual ({backup.unusual[0]}{more})" if backup.unusual else ""


def _is_current(backup: Backup, context: RetentionContext) -> bool:
    metadata = backup.metadata
    if metadata is None or backup.name in context.apart:
        return False
    return owner_of(metadata) == context.app_id and metadata.created_at <= context.now


def _is_good(backup: Backup) -> bool:
    return backup.state in ("checked", "proven") and not (backup.metadata and backup.metadata.is_raw)
