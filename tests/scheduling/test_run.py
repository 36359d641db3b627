"""`run` does the regular steps in order; a step that fails stops only those that need it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pytest

from backupkit.backup.create import create_backup
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import BackupError, Damaged, ExitCode, NoSpace, RemoteFailed
from backupkit.model.events import EventListener
from backupkit.repository import store
from backupkit.scheduling.run import RunStep, StepReport, StepResult, backup_step, run_steps, worst
from refusals import run_here
from small_app import NOON, SmallApp

Act = Callable[[Mapping[str, StepReport], EventListener], StepReport]


def says(sentence: str = "Fine.", *warnings: str, idle: bool = False) -> Act:
    return lambda _done, _tell: StepReport(sentence, warnings, idle=idle)


def fails(error: Exception) -> Act:
    def act(_done: Mapping[str, StepReport], _tell: EventListener) -> StepReport:
        raise error

    return act


def ran(**acts: Act) -> dict[str, StepResult]:
    """Run the four steps with their real dependencies; those that are not named succeed."""
    needs = {"backup": (), "verify": ("backup",), "prune": ("backup", "verify"), "push": ()}
    steps = [RunStep(name, acts.get(name, says()), wanted) for name, wanted in needs.items()]
    return {result.name: result for result in run_steps(steps)}


def states(results: Mapping[str, StepResult]) -> list[str]:
    return [result.state for result in results.values()]


def test_every_step_is_run_in_order(app: SmallApp) -> None:
    order: list[str] = []

    def noting(name: str) -> Act:
        def act(done: Mapping[str, StepReport], _tell: EventListener) -> StepReport:
            assert list(done) == order
            order.append(name)
            return StepReport("Fine.")

        return act

    results = ran(**{name: noting(name) for name in ("backup", "verify", "prune", "push")})
    assert order == ["backup", "verify", "prune", "push"]
    assert states(results) == ["done"] * 4


def test_after_a_failed_backup_nothing_old_is_removed_and_what_is_there_is_still_copied() -> None:
    results = ran(backup=fails(NoSpace("Full.", hint="Make room.")))
    assert states(results) == ["failed", "skipped", "skipped", "done"]
    assert results["backup"].error and results["backup"].error.hint == "Make room."
    assert results["prune"].sentence == "It needs backup, which did not succeed."


def test_a_new_backup_that_is_damaged_removes_no_old_one() -> None:
    assert states(ran(verify=fails(Damaged("Torn.")))) == ["done", "failed", "skipped", "done"]


def test_what_failed_last_takes_nothing_back() -> None:
    results = ran(push=fails(RemoteFailed("Away.")))
    assert states(results) == ["done", "done", "done", "failed"]
    assert worst([*results.values()]) == ExitCode.REMOTE_FAILED


def test_a_step_with_warnings_is_one_that_was_done() -> None:
    results = ran(backup=says("Made.", "a fifo"), verify=says(idle=True))
    assert states(results) == ["warnings", "nothing", "done", "done"]
    assert results["backup"].warnings == ("a fifo",)


@pytest.mark.parametrize(
    ("acts", "code"),
    [
        ({}, 0),
        ({"verify": says("", "hm")}, 3),
        ({"backup": says("", "hm"), "push": fails(RemoteFailed(""))}, 16),
        ({"backup": fails(NoSpace("")), "push": fails(RemoteFailed(""))}, 15),
        ({"prune": fails(BackupError(""))}, 1),
        ({"prune": fails(PermissionError(13, "Permission denied", "/x")), "push": says("", "hm")}, 1),
    ],
    ids=["fine", "warning", "copy", "room", "failed", "system"],
)
def test_the_exit_code_is_that_of_the_worst_step(acts: dict[str, Act], code: int) -> None:
    assert worst([*ran(**acts).values()]) == code


def test_an_error_of_the_system_is_a_sentence_with_its_path() -> None:
    results = ran(prune=fails(PermissionError(13, "Permission denied", "/backups/x")))
    assert results["prune"].sentence == "Permission denied: /backups/x."


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        ran(verify=fails(ZeroDivisionError()))
    with pytest.raises(KeyboardInterrupt):
        next(run_steps([RunStep("backup", interrupted)]))


def interrupted(_done: Mapping[str, StepReport], _tell: EventListener) -> StepReport:
    raise KeyboardInterrupt


def test_a_later_step_is_given_the_backup_that_was_made(app: SmallApp) -> None:
    seen = []

    def act(done: Mapping[str, StepReport], _tell: EventListener) -> StepReport:
        seen.append(done["backup"].backup)
        return StepReport("Fine.")

    step = backup_step(app.settings, BackupRequest(kind="scheduled"), clock=lambda: NOON)
    first, _ = run_steps([step, RunStep("verify", act, ("backup",))])
    assert first.state == "done" and first.backup == "scheduled_20260615_120000"
    assert seen == [store.find(app.settings, "latest")]
    assert seen[0] and seen[0].metadata and seen[0].metadata.kind == "scheduled"


def test_a_backup_of_today_is_enough_where_one_is_enough(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("today"), clock=lambda: NOON)
    (result,) = run_steps([backup_step(app.settings, BackupRequest(kind="scheduled"), True, lambda: NOON)])
    assert (result.state, result.backup) == ("nothing", "today")
    assert [one.name for one in store.all_backups(app.settings)] == ["today"]


# The command


def test_run_makes_a_backup_and_says_what_became_of_each_step(app: SmallApp) -> None:
    result = run_here(app, "run", check=0)
    (made,) = store.all_backups(app.settings)
    assert made.name.startswith("scheduled_")
    assert result.out.splitlines()[0].startswith(f"backup  done      {made.name} is checked and on disk: ")
    assert result.err == ""
    assert "today already" in run_here(app, "run", "--if-needed", check=0).out
    assert len(store.all_backups(app.settings)) == 1


def test_run_as_json_is_one_document_whatever_happened(app: SmallApp) -> None:
    os.mkfifo(app.uploads / "fifo")
    document = run_here(app, "run", "--json", check=3).json
    (step,) = (one for one in document["steps"] if one["name"] == "backup")
    (made,) = store.all_backups(app.settings)
    assert document["exit_code"] == 3
    assert (step["state"], step["exit_code"], step["backup"], step["hint"]) == ("warnings", 3, made.name, None)
    assert len(step["warnings"]) == 1 and step["seconds"] > 0
    app.database.unlink()
    result = run_here(app, "run", "--json", check=13)
    assert result.json["steps"][0]["state"] == "failed" and result.json["steps"][0]["hint"]
    assert result.json["exit_code"] == 13


def test_a_step_that_failed_is_an_error_on_stderr_too(app: SmallApp) -> None:
    app.database.unlink()
    result = run_here(app, "run", check=13)
    assert result.err.startswith(f"Error: There is no database at {app.database}.\n  Next: ")
    assert "backup  failed    There is no database" in result.out and "next: " in result.out
