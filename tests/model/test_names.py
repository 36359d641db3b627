"""Every accepted name is one plain folder name, and every generated name is accepted."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest, GitFacts
from backupkit.model.errors import Refused
from backupkit.model.names import auto_name, check_name, default_name, distinct, printable
from small_app import NOON, SmallApp

CONTRACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ANYTHING = st.text(max_size=120) | st.binary(max_size=120).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
NEARLY = st.from_regex(r"[A-Za-z0-9._/-]{0,110}\n?", fullmatch=True)
TIMES = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1))


@given(ANYTHING | NEARLY)
@example("../x")
@example("x\n")
@example("x\0")
@example("ｘ")  # noqa: RUF001 - a letter that looks like another is what this is about
@example("²")
def test_a_name_is_accepted_if_and_only_if_it_is_what_the_contract_says(name: str) -> None:
    try:
        accepted = check_name(name) == name
    except Refused as refusal:
        accepted = False
        assert refusal.code == 2 and "\n" not in refusal.message and refusal.hint
    assert accepted == bool(CONTRACT.fullmatch(name))
    if accepted:
        assert PurePosixPath(name).parts == (name,)
        assert Path("/backups", name).resolve().parent == Path("/backups")


@given(branch=st.none() | ANYTHING, short=st.none() | ANYTHING, dirty=st.booleans(), moment=TIMES)
@example(branch="f" * 80, short="a" * 40, dirty=True, moment=datetime(2026, 6, 15, 12))
def test_a_name_made_from_git_is_always_accepted(
    branch: str | None, short: str | None, dirty: bool, moment: datetime
) -> None:
    name = auto_name(branch, short, dirty, moment)
    assert check_name(name) == name
    assert moment.strftime("%Y%m%d_%H%M%S") in name
    assert name.endswith("_dirty") == dirty
    assert check_name(distinct(name, {name})) != name


@pytest.mark.parametrize(
    ("branch", "dirty", "expected"),
    [
        ("main", False, "auto_main_abc1234_20260615_120000"),
        ("feature/new-list", False, "auto_feature-new-list_abc1234_20260615_120000"),
        ("main", True, "auto_main_abc1234_20260615_120000_dirty"),
        (None, False, "auto_abc1234_20260615_120000"),
    ],
)
def test_a_name_tells_branch_commit_and_time(branch: str | None, dirty: bool, expected: str) -> None:
    assert auto_name(branch, "abc1234", dirty, NOON) == expected


def test_without_git_a_name_tells_the_time() -> None:
    assert auto_name(None, None, False, NOON) == "auto_20260615_120000"
    assert default_name("manual", NOON) == "backup_20260615_120000"
    assert default_name("pre_restore", NOON) == "pre_restore_20260615_120000"


def test_two_backups_in_one_second_have_two_names(app: SmallApp) -> None:
    git = GitFacts("abc1234", "abc1234", "main")
    orders = (
        BackupRequest(),
        BackupRequest(),
        BackupRequest(),
        BackupRequest(kind="auto", git=git),
        BackupRequest(kind="auto", git=git),
    )
    names = [create_backup(app.settings, order, clock=lambda: NOON).backup.name for order in orders]
    assert names[:3] == ["backup_20260615_120000", "backup_20260615_120000_2", "backup_20260615_120000_3"]
    assert names[3:] == ["auto_main_abc1234_20260615_120000", "auto_main_abc1234_20260615_120000_2"]


@given(st.integers(0, 12))
def test_a_name_is_never_one_that_is_taken(count: int) -> None:
    taken: set[str] = set()
    for _ in range(count):
        taken.add(distinct("name", taken))
    assert len(taken) == count


@given(ANYTHING)
@example("\x1b[2Jgone")
@example("\u202egpj.exe")
@example("a\nb")
def test_what_is_shown_is_one_line_without_any_trick(text: str) -> None:
    assert printable(text).isprintable()
