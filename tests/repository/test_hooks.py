"""Hooks: the user's commands before and after a backup or a restore, what they are told, and what they can stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backupkit.api.calls import AppFolder
from backupkit.backup.create import create_backup
from backupkit.config.settings import HOOKS, load_settings
from backupkit.model.backup import BackupRequest
from refusals import assert_refusal, picture, refused, run_here
from small_app import COMMAND, SmallApp, clean_environment

TELL = """\
import json, os, sys
told = {key: value for key, value in os.environ.items() if key.startswith("BACKUP_")}
with open("told.jsonl", "a") as file:
    file.write(json.dumps(told) + "\\n")
print("the hook says hello")
"""
FACTS = ("HOOK", "COMMAND", "NAME", "RESULT", "EXIT_CODE")
BEFORE, AFTER = ("before_backup", "backup", "one", "", ""), ("after_backup", "backup", "one", "success", "0")


def configure(app: SmallApp, *lines: str) -> None:
    (app.folder / "backup.toml").write_text("\n".join((*lines, "")))


def python(script: Path) -> str:
    return json.dumps([sys.executable, str(script)])


@pytest.fixture
def telling(app: SmallApp) -> SmallApp:
    """An app whose hooks all record what they are told."""
    (app.folder / "tell.py").write_text(TELL)
    configure(app, *(f"{hook} = {python(app.folder / 'tell.py')}" for hook in HOOKS))
    return app


def told(app: SmallApp) -> list[tuple[str, ...]]:
    """Return what the hooks were told since the last call."""
    file = app.folder / "told.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [tuple(json.loads(line)[f"BACKUP_{name}"] for name in FACTS) for line in lines]


def test_the_hooks_of_a_backup_are_told_what_is_made_and_what_came_of_it(telling: SmallApp) -> None:
    done = run_here(telling, "backup", "one", "--json", check=0)
    assert told(telling) == [BEFORE, AFTER]
    assert done.json["backup_name"] == "one"  # stdout has nothing else
    run_here(telling, "backup", check=0)
    (_, _, asked, *_), (_, _, made, *_) = told(telling)
    assert (asked, made.startswith("backup_")) == ("", True)
    run_here(telling, "backup", "--if-needed", check=0)
    assert told(telling) == []


def test_every_way_to_change_live_data_has_the_hooks_of_a_restore(telling: SmallApp) -> None:
    run_here(telling, "backup", "good", check=0)
    run_here(telling, "dump", "text.sql", check=0)
    told(telling)

    def after(*arguments: str) -> list[tuple[str, ...]]:
        run_here(telling, *arguments, check=0)
        return [(hook, command, name) for hook, command, name, *_ in told(telling)]

    def both(command: str, name: str) -> list[tuple[str, ...]]:
        return [("before_restore", command, name), ("after_restore", command, name)]

    assert after("restore", "good", "--yes") == both("restore", "good")
    (_, _, safety), _ = after("undo", "--yes")
    assert safety.startswith("pre_restore_")
    assert after("restore-dump", "text.sql", "--force") == both("restore-dump", "text.sql")
    (telling.uploads / "1" / "letter.txt").unlink()
    assert after("extract", "good", "1/", "--yes") == both("restore", "good")
    telling.execute("DELETE FROM documents WHERE id = 1")
    assert after("rescue", "good", "documents", "--missing", "--yes") == both("rescue", "good")
    telling.execute("DELETE FROM documents WHERE id = 1")
    AppFolder(app_dir=telling.folder).put_back(telling.backups / "good")
    assert [hook for hook, *_ in told(telling)] == ["before_restore", "after_restore"]


def test_a_migration_has_the_hooks_of_a_restore_and_none_where_there_is_nothing_to_do(telling: SmallApp) -> None:
    run_here(telling, "migrate", check=0)
    assert told(telling) == []
    telling.at_revision("3f1c8a5e2b70")
    run_here(telling, "migrate", check=0)
    assert [(hook, command) for hook, command, *_ in told(telling)] == [
        ("before_restore", "migrate"),
        ("after_restore", "migrate"),
    ]


def test_what_changes_nothing_live_runs_no_hook(telling: SmallApp) -> None:
    create_backup(telling.settings, BackupRequest("good"))
    for arguments in (
        ("restore", "good", "--dry-run"),
        ("restore", "good", "--to", str(telling.folder.parent / "look")),
        ("verify", "good", "--test-restore"),
        ("restore", "good"),  # refused: nobody can answer the question
        ("backup", "good"),  # the name is taken
        ("backup", "../x"),
        ("prune",),
    ):
        run_here(telling, *arguments)
        assert told(telling) == [], arguments


def test_the_scheduler_and_a_call_from_python_run_them_too(telling: SmallApp) -> None:
    run_here(telling, "run", check=0)
    assert [hook for hook, *_ in told(telling)] == ["before_backup", "after_backup"]
    assert AppFolder(app_dir=telling.folder).create_backup_now()
    assert [hook for hook, *_ in told(telling)] == ["before_backup", "after_backup"]


# Failing hooks


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["sh", "-c", "echo no room; echo; exit 3"], "ended with 3: no room."),
        (["sh", "-c", "exit 4"], "ended with 4: it said nothing."),
        (["no-such-program"], "cannot be run: No such file or directory: no-such-program."),
        (["sleep", "60"], "did not end within 0.3 s."),
        (["sh", "-c", "kill -9 $$"], "ended with -9"),
    ],
    ids=["fails", "fails in silence", "missing", "late", "killed"],
)
@pytest.mark.parametrize("around", ["backup", "restore"])
def test_a_before_hook_that_fails_stops_the_operation_and_changes_nothing(
    app: SmallApp, around: str, command: list[str], reason: str
) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.execute("DELETE FROM documents")
    configure(app, "hook_timeout = 0.3", f"before_{around} = {json.dumps(command)}")
    arguments = ("backup", "two") if around == "backup" else ("restore", "good", "--yes")
    result = refused(app, *arguments, code=1, names=f"before_{around} of", hint="Try it by hand")
    assert reason in result.err and "and nothing was changed." in result.err
    assert f"BACKUP_BEFORE_{around.upper()}= before the command" in result.err
    run_here(app, *arguments, env={f"BACKUP_BEFORE_{around.upper()}": ""}, check=0)


@pytest.mark.parametrize("around", ["backup", "restore"])
def test_an_after_hook_that_fails_is_a_warning_and_the_result_stands(app: SmallApp, around: str) -> None:
    create_backup(app.settings, BackupRequest("good"))
    app.execute("DELETE FROM documents")
    configure(app, f'after_{around} = ["sh", "-c", "echo the server is away; exit 1"]')
    arguments = ("backup", "two") if around == "backup" else ("restore", "good", "--yes")
    result = run_here(app, *arguments, "--json", check=3)
    warning = f"after_{around} of {app.folder / 'backup.toml'} ended with 1: the server is away."
    assert f"Warning: {warning}" in result.err and warning in result.json["warnings"]
    assert (app.backups / "two").is_dir() if around == "backup" else len(app.rows("documents")) == 2
    last = run_here(app, "history", "--json").json[0]
    assert (last["outcome"], last["warnings"]) == ("warning", [warning])


def test_a_backup_that_its_after_hook_moved_away_is_not_called_on_disk_without_a_warning(app: SmallApp) -> None:
    configure(app, """after_backup = ["sh", "-c", 'mv "$BACKUP_PATH" elsewhere']""")
    warning = f"one is not in {app.backups} any more: it was moved or removed while after_backup ran."
    assert f"Warning: {warning}" in run_here(app, "backup", "one", check=3).err
    assert (app.folder / "elsewhere").is_dir()


def test_on_error_hears_of_the_error_and_a_failure_of_its_own_changes_no_exit_code(telling: SmallApp) -> None:
    telling.database.write_bytes(b"")
    failed = run_here(telling, "backup", "one", check=13)
    assert told(telling) == [BEFORE, ("on_error", "backup", "one", "failure", "13")]
    assert "is empty" in failed.err
    configure(telling, 'on_error = "false"')
    assert "Warning: on_error of" in run_here(telling, "backup", "one", check=13).err


def test_on_error_hears_of_a_backup_that_could_not_begin(telling: SmallApp) -> None:
    from backupkit.repository import lock

    with lock.held(telling.backups, "a test", 1):
        run_here(telling, "backup", "one", env={"BACKUP_LOCK_TIMEOUT": "0"}, check=11)
    assert [(hook, code) for hook, *_, code in told(telling)] == [("on_error", "11")]


def test_after_a_before_hook_that_failed_on_error_runs_and_after_does_not(telling: SmallApp) -> None:
    lines = (telling.folder / "backup.toml").read_text().splitlines()
    configure(telling, *(line for line in lines if not line.startswith("before_backup")), 'before_backup = "false"')
    run_here(telling, "backup", "one", check=1)
    assert told(telling) == [("on_error", "backup", "one", "failure", "1")]


def test_a_restore_that_failed_tells_on_error(telling: SmallApp) -> None:
    create_backup(telling.settings, BackupRequest("good"))
    telling.execute("DELETE FROM documents WHERE id = 1")
    before = telling.rows("documents")
    blocker = telling.connect()
    blocker.execute("BEGIN IMMEDIATE")
    blocker.execute("DELETE FROM documents")
    run_here(telling, "restore", "good", "--yes", env={"BACKUP_BUSY_TIMEOUT": "0.1"}, check=13)
    blocker.rollback()
    blocker.close()
    assert [hook for hook, *_ in told(telling)] == ["before_restore", "on_error"]
    assert telling.rows("documents") == before


# Sources of hooks


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_in_the_environment_is_refused(app: SmallApp, hook: str) -> None:
    for name in (f"BACKUP_{hook.upper()}", f"backup_{hook}"):
        refused(app, "backup", env={name: "touch owned"}, code=2, names=name, hint="unset")
    assert not (app.folder / "owned").exists()


def test_a_settings_file_that_others_can_write_runs_nothing(telling: SmallApp) -> None:
    (telling.folder / "backup.toml").chmod(0o666)
    refused(telling, "backup", code=2, names="backup.toml", hint="chmod go-w")
    assert told(telling) == []


@pytest.mark.parametrize("by", ["itself", "a shell", "its folder"])
def test_a_program_that_others_can_write_is_not_run(app: SmallApp, by: str) -> None:
    folder = app.folder / "hooks"
    folder.mkdir()
    script = folder / "before.sh"
    script.write_text("#!/bin/sh\ntouch owned\n")
    script.chmod(0o755)
    (folder if by == "its folder" else script).chmod(0o777)
    configure(app, 'before_backup = "sh hooks/before.sh"' if by == "a shell" else 'before_backup = "hooks/before.sh"')
    result = refused(app, "backup", code=1, names="is not run: ", hint="Try it by hand")
    assert "can be changed by other users (mode 0777)" in result.err
    assert not (app.folder / "owned").exists()
    script.chmod(0o755)
    folder.chmod(0o755)
    run_here(app, "backup", check=0)
    assert (app.folder / "owned").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_program_of_another_user_is_not_run(app: SmallApp) -> None:
    script = app.folder / "before.sh"
    script.write_text("#!/bin/sh\ntouch owned\n")
    script.chmod(0o755)
    os.chown(script, 65534, 65534)
    configure(app, 'before_backup = "./before.sh"')
    assert "belongs to user 65534" in refused(app, "backup", code=1, names="is not run", hint="Try it").err


@pytest.mark.parametrize(
    "text",
    ["echo $BACKUP_NAME", "a | b", "a && b", "a > b", 'echo "$(id)"', "echo `id`", "rm *.tmp", "a; b", "echo 'open"],
)
def test_a_string_that_only_a_shell_understands_is_refused(app: SmallApp, text: str) -> None:
    configure(app, f"before_backup = {json.dumps(text)}")
    result = run_here(app, "backup")
    assert_refusal(result, 2, "before_backup", "config unset before_backup`")
    assert "No closing quotation".lower() in result.err if "open" in text else '["sh", "-c", "…"]' in result.err


def test_a_string_is_split_into_words_and_no_shell_reads_them(app: SmallApp) -> None:
    configure(app, f"before_backup = \"{sys.executable} -c 'import sys; open(sys.argv[1], chr(119))' 'a $b|c'\"")
    run_here(app, "backup", check=0)
    assert (app.folder / "a $b|c").exists()


@pytest.mark.parametrize("text", ['[""]', '["a\\u0000"]', "5", '["a", 5]'])
def test_what_is_no_command_is_refused(app: SmallApp, text: str) -> None:
    configure(app, f"before_backup = {text}")
    assert_refusal(run_here(app, "backup"), 2, "before_backup", "config unset before_backup`")


# Output and processes of hooks


def test_what_a_hook_says_is_in_the_log_without_secrets_and_nowhere_else(app: SmallApp) -> None:
    script = app.folder / "talk.py"
    script.write_text("import sys\nprint('token hunter22 \\x1b[31m')\nprint('worse', file=sys.stderr)\n" * 300)
    configure(app, f"before_backup = {python(script)}", 'log_file = "backup.log"', 'export_passphrase_file = "p"')
    (app.folder / "p").write_text("hunter22")
    done = run_here(app, "backup", "one", check=0)
    log = (app.folder / "backup.log").read_text()
    assert "before_backup: token *** \\x1b[31m" in log and "before_backup: worse" in log
    assert "before_backup: … and 400 more lines" in log
    assert not any(word in done.out + done.err for word in ("token", "worse")) and "hunter22" not in log


def test_the_error_that_a_hook_is_told_has_no_secrets(app: SmallApp) -> None:
    (app.folder / "tell.py").write_text(TELL)
    configure(
        app,
        'before_backup = ["sh", "-c", "echo bad hunter22; exit 1"]',
        f"on_error = {python(app.folder / 'tell.py')}",
        'export_passphrase_file = "p"',
    )
    (app.folder / "p").write_text("hunter22")
    assert "hunter22" not in run_here(app, "backup", check=1).err
    assert "ended with 1: bad ***" in json.loads((app.folder / "told.jsonl").read_text())["BACKUP_ERROR"]


def test_a_secret_with_a_quote_in_it_is_not_in_the_command_that_an_error_names(app: SmallApp) -> None:
    configure(app, """before_backup = ["sh", "-c", "exit 1", "hunter's 22"]""", 'export_passphrase_file = "p"')
    (app.folder / "p").write_text("hunter's 22")
    said = run_here(app, "backup", check=1).err
    assert "hunter" not in said and "***" in said


def test_nothing_of_a_hook_runs_on_when_it_has_ended_or_is_late(app: SmallApp) -> None:
    script = 'sleep 600 & echo $! > child; [ "$1" = late ] && wait; exit 0'
    for late in ("", "late"):
        configure(app, "hook_timeout = 2", f"before_backup = {json.dumps(['sh', '-c', script, 'sh', late])}")
        run_here(app, "backup", check=1 if late else 0)
        assert is_gone(int((app.folder / "child").read_text()))


def test_a_hook_that_closed_its_output_is_waited_for(app: SmallApp) -> None:
    configure(app, 'before_backup = ["sh", "-c", "exec >&- 2>&-; sleep 0.3; touch done"]')
    run_here(app, "backup", check=0)
    assert (app.folder / "done").exists()


def test_ctrl_c_ends_the_hook_with_its_group_and_leaves_nothing(app: SmallApp) -> None:
    create_backup(app.settings, BackupRequest("good"))
    configure(app, 'before_restore = ["sh", "-c", "sleep 600 & echo $! > child.new; mv child.new child; wait"]')
    before = picture(app)
    child = subprocess.Popen(
        [sys.executable, str(COMMAND), "restore", "good", "--yes"],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (app.folder / "child").exists() and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, "Interrupted" in err) == (130, True), err
    assert is_gone(int((app.folder / "child").read_text()))
    assert picture(app) == before


def is_gone(pid: int) -> bool:
    """Return whether the process ends within 10 seconds; a zombie counts as ended."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_hook_may_call_this_program_to_look(app: SmallApp) -> None:
    words = [sys.executable, str(COMMAND), "list", "--json"]
    (app.folder / "look.sh").write_text(f'"{words[0]}" "{words[1]}" list --json > listed.json')
    configure(app, 'after_backup = "sh look.sh"')
    app.command("backup", "one", check=0)
    assert [one["backup_name"] for one in json.loads((app.folder / "listed.json").read_text())] == ["one"]


def test_the_settings_show_a_hook_as_it_is(app: SmallApp) -> None:
    configure(app, 'before_backup = "pg_dump -f x.sql"')
    assert load_settings(app.folder).before_backup == ("pg_dump", "-f", "x.sql")
    assert "pg_dump" in run_here(app, "config", check=0).out
    run_here(app, "config", "set", "after_backup", "touch done", check=0)
    run_here(app, "config", "unset", "before_backup", check=0)
    run_here(app, "backup", check=0)
    assert (app.folder / "done").exists()


def test_doctor_names_a_hook_whose_program_would_not_be_run(app: SmallApp) -> None:
    (app.folder / "plain.sh").write_text("true\n")
    configure(
        app,
        'before_backup = "no-such-program x"',
        'after_backup = ["./plain.sh"]',
        'before_restore = ["sh", "plain.sh"]',
        'on_error = "./gone.sh"',
    )
    said = run_here(app, "doctor", check=1).out
    assert "before_backup would fail: there is no program no-such-program" in said
    assert "after_backup would fail" in said and "plain.sh is not executable" in said
    assert "on_error would fail: there is no program ./gone.sh" in said
    assert "before_restore would fail" not in said


def test_killed_while_a_hook_runs_the_data_is_old_before_and_new_after_and_the_next_command_goes_on(
    app: SmallApp,
) -> None:
    kill = '["sh", "-c", "kill -9 $PPID; sleep 1"]'

    def killed(hook: str, *command: str) -> None:
        configure(app, f"{hook} = {kill}")
        assert app.command(*command).code == -signal.SIGKILL
        configure(app)

    killed("before_backup", "backup", "one")
    assert not (app.backups / "one").exists()
    killed("after_backup", "backup", "one")
    app.command("verify", "one", check=0)
    old = app.contents()
    app.add_rows(2)
    (app.uploads / "1" / "letter.txt").unlink()
    now = app.contents()
    killed("before_restore", "restore", "one", "--yes")
    assert app.contents() == now
    killed("after_restore", "restore", "one", "--yes")
    assert app.contents() == old
    app.command("undo", "--yes", check=0)  # the restore is complete: no recovery is due, and undo finds the safety copy
    assert app.contents() == now
    assert not [path for path in app.backups.iterdir() if path.name.startswith((".draft", ".journal"))]
