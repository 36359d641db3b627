"""Unattended runs report how they end to people and dead man's switches; if a report fails, the run is not harmed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backupkit import AppFolder, protected
from backupkit.backup.create import create_backup
from backupkit.config.secrets import SecretUrl
from backupkit.config.settings import Settings
from backupkit.model.backup import BackupRequest
from backupkit.model.errors import SourceUnreadable
from backupkit.monitoring.notify import messages, sender
from backupkit.monitoring.notify.messages import message_of
from backupkit.monitoring.notify.sender import Address, Message
from listener import Service, listening_service
from refusals import another_process, run_here
from small_app import COMMAND, SmallApp, clean_environment
from terminal import at_a_terminal

SECRET = "sesame-7f3a"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with listening_service() as listening:
        yield listening


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def told(app: SmallApp, service: Service, *command: str, check: int, **settings: str) -> Any:
    """Run the command and return the one message that it sent."""
    environment = {"BACKUP_NOTIFY_URLS": service.notify(), **settings}
    run_here(app, *command, env=environment, check=check)
    (message,) = service.messages
    return message


def lose_the_database(app: SmallApp) -> None:
    app.database.unlink()


# Content of messages


def test_a_failure_is_told_with_its_reason_the_next_command_and_the_log(app: SmallApp, service: Service) -> None:
    lose_the_database(app)
    message = told(app, service, "backup", check=13, BACKUP_HOST_NAME="harbour")
    assert message["title"] == "pats on harbour: backup FAILED"
    assert message["type"] == "failure"
    error, hint = message["message"].splitlines()[:2]
    assert error == f"Error: There is no database at {app.database}."
    assert hint.startswith("Next: ")
    assert "The last lines of the log:" in message["message"]
    assert message["message"].splitlines()[-1].endswith(f"failed with exit code 13: {error.removeprefix('Error: ')}")


def test_what_a_run_says_to_type_next_is_a_whole_command_in_its_message_too(app: SmallApp, service: Service) -> None:
    lose_the_database(app)
    wrapped = {"BACKUP_RUNNER_IN_USE": "local", "BACKUP_HOST_COMMAND": "./backup.sh"}
    message = told(app, service, "run", check=13, **wrapped)["message"]
    assert "`./backup.sh doctor` names what it may be" in message
    assert "`doctor`" not in message


def test_a_warning_is_told_with_what_is_missing_and_what_is_there(app: SmallApp, service: Service) -> None:
    os.mkfifo(app.uploads / "fifo")
    message = told(app, service, "backup", "one", check=3)
    assert message["title"].endswith(": backup done, with warnings")
    assert message["type"] == "warning"
    assert "Warning: " in message["message"] and "fifo is a socket, a fifo or a device" in message["message"]
    assert "Backup one: " in message["message"] and "kB, " in message["message"]
    assert "It took " in message["message"]


def test_a_call_of_a_program_is_told_of_as_a_command_is(app: SmallApp, service: Service) -> None:
    def settings(**more: Any) -> Settings:
        return app.settings.replaced(notify_urls=(SecretUrl(service.notify()),), **more)

    assert AppFolder(settings=settings()).create_backup_now() and service.messages == []
    assert AppFolder(settings=settings(notify_on=("success",))).create_backup_now()
    assert service.messages[-1]["title"].endswith(": backup done")
    assert AppFolder(settings=settings()).restore_backup("nothing") is False
    assert service.messages[-1]["title"].endswith(": restore FAILED")
    assert "There is no backup named nothing" in service.messages[-1]["message"]
    assert "`python backup_restore.py list`" in service.messages[-1]["message"]
    lose_the_database(app)
    with pytest.raises(SourceUnreadable), protected("import", on=AppFolder(settings=settings())):
        pass
    assert service.messages[-1]["title"].endswith(": backup FAILED")
    assert f"Error: There is no database at {app.database}." in service.messages[-1]["message"]


def test_a_call_of_a_program_is_a_sign_of_life_also_where_nothing_is_to_be_done(
    app: SmallApp, service: Service
) -> None:
    calls = AppFolder(settings=app.settings.replaced(ping_url=SecretUrl(service.page())))
    assert calls.create_backup_if_needed() and calls.create_backup_if_needed() is None
    assert service.pings == ["/check/start", "/check"] * 2
    lose_the_database(app)
    assert calls.create_backup_now() is None
    assert service.pings[-2:] == ["/check/start", "/check/fail"]


def test_a_message_that_is_not_sent_costs_a_program_no_backup(
    app: SmallApp, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    settings = app.settings.replaced(ping_url=SecretUrl(service.page("500")))
    assert AppFolder(settings=settings).create_backup_now()
    assert "was not sent: HTTP 500" in caplog.text


def test_a_success_is_told_only_where_it_was_asked_for(app: SmallApp, service: Service) -> None:
    run_here(app, "backup", "one", env={"BACKUP_NOTIFY_URLS": service.notify()}, check=0)
    assert service.heard == []
    message = told(app, service, "backup", "two", "--json", check=0, BACKUP_NOTIFY_ON="success")
    assert message["title"].endswith(": backup done")
    assert "Backup two: " in message["message"]


def test_what_is_not_wanted_is_not_told(app: SmallApp, service: Service) -> None:
    lose_the_database(app)
    for wanted in ("", "warning success"):
        environment = {"BACKUP_NOTIFY_URLS": service.notify(), "BACKUP_NOTIFY_ON": wanted}
        run_here(app, "backup", env=environment, check=13)
    assert service.heard == []


def test_every_address_is_told(app: SmallApp, service: Service) -> None:
    lose_the_database(app)
    both = f"{service.notify('a')},\n {service.notify('b')}"
    run_here(app, "backup", env={"BACKUP_NOTIFY_URLS": both}, check=13)
    assert sorted(one.path for one in service.heard) == ["/a", "/b"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("backup", "old"), 2),
        (("auto-backup",), 13),
        (("run",), 13),
        (("dump",), 13),
        (("migrate",), 13),
        (("restore", "nope", "--force"), 10),
        (("restore", "old"), 2),
        (("restore-dump", "nope.sql", "--force"), 10),
        (("undo", "--force"), 10),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_that_does_work_tells_of_its_failure(
    app: SmallApp, service: Service, command: tuple[str, ...], code: int
) -> None:
    create_backup(app.settings, BackupRequest("old"))
    if code == 13:
        lose_the_database(app)
    message = told(app, service, *command, check=code)
    assert message["title"].endswith(f": {command[0]} FAILED")
    assert "Error: " in message["message"] or command == ("run",)


def test_a_restore_that_worked_is_told_where_success_was_asked_for(app: SmallApp, service: Service) -> None:
    create_backup(app.settings, BackupRequest("old"))
    message = told(app, service, "restore", "old", "--force", check=0, BACKUP_NOTIFY_ON="success")
    assert message["title"].endswith(": restore done")
    assert "Restored old." in message["message"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("list",), 0),
        (("show", "nope"), 10),
        (("restore", "old", "--dry-run"), 0),
        (("config",), 0),
        (("pin", "x"), 10),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_no_work_tells_nobody(app: SmallApp, service: Service, command: tuple[str, ...], code: int) -> None:
    create_backup(app.settings, BackupRequest("old"))
    environment = {
        "BACKUP_NOTIFY_URLS": service.notify(),
        "BACKUP_NOTIFY_ON": "success failure warning",
        "BACKUP_PING_URL": service.page(),
    }
    run_here(app, *command, env=environment, check=code)
    assert service.heard == []


def test_work_that_was_done_already_is_no_news_and_yet_a_sign_of_life(app: SmallApp, service: Service) -> None:
    create_backup(app.settings, BackupRequest("old"))
    environment = {
        "BACKUP_NOTIFY_URLS": service.notify(),
        "BACKUP_NOTIFY_ON": "success",
        "BACKUP_PING_URL": service.page(),
    }
    for command in ("backup", "run"):
        run_here(app, command, "--if-needed", env=environment, check=0)
    run_here(app, "recover", env=environment, check=0)
    assert service.messages == []
    assert service.pings == ["/check/start", "/check"] * 2


def test_a_person_at_the_terminal_sees_it_and_nobody_else_is_told(app: SmallApp, service: Service) -> None:
    lose_the_database(app)
    environment = {"BACKUP_NOTIFY_URLS": service.notify(), "BACKUP_PING_URL": service.page()}
    assert at_a_terminal(app, "backup", **environment).code == 13
    assert service.heard == []
    assert at_a_terminal(app, "run", **environment).code == 13  # the command for cron, tried by a person
    assert service.pings == ["/check/start", "/check/fail"]
    assert len(service.messages) == 1


def test_an_interrupted_run_is_told(app: SmallApp, service: Service) -> None:
    writer = "import sqlite3\nlive = sqlite3.connect(sys.argv[1])\nlive.execute('BEGIN EXCLUSIVE')"
    app.execute("PRAGMA journal_mode=DELETE")
    with another_process(writer, app.database):
        process = subprocess.Popen(
            [sys.executable, str(COMMAND), "backup"],
            env={
                **clean_environment(),
                "BACKUP_APP_DIR": str(app.folder),
                "BACKUP_NOTIFY_URLS": service.notify(),
                "BACKUP_PING_URL": service.page(),
            },
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 30
        while "/check/start" not in service.pings and time.monotonic() < deadline:
            time.sleep(0.01)
        lock = app.backups / ".lock"
        while not (lock.exists() and lock.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted" in said
    assert service.pings == ["/check/start", "/check/fail"]
    assert "interrupted" in service.messages[0]["message"]


def test_a_bug_is_told_too(app: SmallApp, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr("backupkit.backup.create.create_backup", broken)
    result = run_here(app, "backup", env={"BACKUP_NOTIFY_URLS": service.notify()}, check=1)
    assert "ZeroDivisionError" in result.err
    assert "ZeroDivisionError: seven" in service.messages[0]["message"]


# The dead man's switch


def test_start_and_success_are_pinged_with_the_log(app: SmallApp, service: Service) -> None:
    run_here(app, "backup", "one", env={"BACKUP_PING_URL": service.page("check/")}, check=0)
    assert service.pings == ["/check/start", "/check/"]
    assert "Backup one: " in service.heard[-1].body
    assert service.heard[-1].method == "POST"


def test_a_failure_is_pinged_as_one(app: SmallApp, service: Service) -> None:
    lose_the_database(app)
    run_here(app, "backup", env={"BACKUP_PING_URL": service.page()}, check=13)
    assert service.pings == ["/check/start", "/check/fail"]
    assert "There is no database" in service.heard[-1].body


def test_a_backup_with_warnings_is_a_sign_of_life(app: SmallApp, service: Service) -> None:
    os.mkfifo(app.uploads / "fifo")
    run_here(app, "backup", env={"BACKUP_PING_URL": service.page()}, check=3)
    assert service.pings == ["/check/start", "/check"]
    assert "fifo" in service.heard[-1].body


def test_what_makes_no_backup_is_no_sign_of_life(app: SmallApp, service: Service) -> None:
    create_backup(app.settings, BackupRequest("old"))
    for command in (("restore", "old", "--force"), ("dump",), ("undo", "--force")):
        run_here(app, *command, env={"BACKUP_PING_URL": service.page()}, check=0)
    assert service.heard == []


def test_what_follows_the_question_mark_stays_at_the_end(app: SmallApp, service: Service) -> None:
    run_here(app, "backup", env={"BACKUP_PING_URL": service.page("key/slug?create=1")}, check=0)
    assert service.pings == ["/key/slug/start?create=1", "/key/slug?create=1"]


def test_a_user_and_password_are_sent_as_such(app: SmallApp, service: Service) -> None:
    run_here(app, "backup", env={"BACKUP_PING_URL": service.page(user="me:p%40ss@")}, check=0)
    assert [one.headers["authorization"] for one in service.heard] == ["Basic bWU6cEBzcw=="] * 2


# Messages that cannot be sent


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("500", "Internal server error., error=500"),
        ("redirect", "error=302"),
    ],
)
def test_a_service_that_does_not_accept_it_is_a_warning(
    app: SmallApp, service: Service, path: str, reason: str
) -> None:
    result = run_here(
        app, "backup", "one", env={"BACKUP_NOTIFY_URLS": service.notify(path), "BACKUP_NOTIFY_ON": "success"}, check=3
    )
    assert "Warning: The notification to json://*** was not sent: " in result.err and reason in result.err
    assert "Backup one: " in result.out
    assert [one.path for one in service.heard] == [f"/{path}"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("500", "HTTP 500"), ("redirect", "it redirects to another address (HTTP 302)"), ("unknown", "OK (not found)")],
)
def test_a_ping_that_does_not_arrive_is_a_warning(app: SmallApp, service: Service, path: str, reason: str) -> None:
    result = run_here(app, "backup", "one", env={"BACKUP_PING_URL": service.page(path)}, check=3)
    assert result.err.count("Warning: The ping to http://127.0.0.1/*** was not sent: ") == 2
    assert reason in result.err
    assert service.pings == [f"/{path}/start", f"/{path}"]


def unreachable(kind: str, service: Service) -> dict[str, str]:
    """Return settings for services that do not answer, or that do not exist."""
    if kind == "hangs":
        return {"BACKUP_NOTIFY_URLS": service.notify("hang?rto=300"), "BACKUP_PING_URL": service.page("hang")}
    where = f"127.0.0.1:{closed_port()}" if kind == "refuses" else "there-is-no-such.invalid"
    return {"BACKUP_NOTIFY_URLS": f"json://{where}", "BACKUP_PING_URL": f"http://{where}/x"}


@pytest.mark.parametrize("kind", ["hangs", "refuses", "is unknown"])
def test_a_service_out_of_reach_spoils_no_backup_and_hides_no_failure(
    app: SmallApp, service: Service, kind: str
) -> None:
    patience = "2" if kind == "hangs" else "60"
    environment = {
        **unreachable(kind, service),
        "BACKUP_NOTIFY_TIMEOUT": patience,
        "BACKUP_NOTIFY_ON": "success failure",
    }
    result = run_here(app, "backup", "one", env=environment, check=3)
    assert "Backup one: " in result.out
    assert "The notification to json://*** was not sent" in result.err
    assert result.err.count("The ping to http://") == 2
    assert ("no answer within 2 seconds" in result.err) == (kind == "hangs")
    lose_the_database(app)
    result = run_here(app, "backup", env=environment, check=13)
    assert result.err.startswith(f"Error: There is no database at {app.database}."), "said before anyone was waited for"
    assert "The notification to json://*** was not sent" in result.err


def test_one_that_hangs_keeps_no_other_from_being_told(app: SmallApp, service: Service) -> None:
    urls = f"{service.notify('hang')}?rto=300 {service.notify('good')}"
    result = run_here(app, "notify-test", env={"BACKUP_NOTIFY_URLS": urls, "BACKUP_NOTIFY_TIMEOUT": "10"}, check=1)
    assert result.out.splitlines() == [
        "NOT SENT  notification to json://***: no answer within 10 seconds",
        "sent      notification to json://***",
    ]


def test_a_process_of_a_hanging_message_does_not_outlive_the_command(app: SmallApp, service: Service) -> None:
    message = sender.PendingMessage(Message("", ""), [Address(SecretUrl(service.page("hang")), "ping")], 1)
    assert [one.error for one in message.deliveries()] == ["no answer within 1 seconds"]
    assert message._process.returncode == -signal.SIGKILL


def test_a_message_that_nobody_waits_for_ends_by_itself(service: Service) -> None:
    message = sender.PendingMessage(Message("", ""), [Address(SecretUrl(service.page("hang")), "ping")], 1)
    assert message._process.wait(60) == -signal.SIGALRM


def test_ctrl_c_while_a_message_is_sent_gives_up_the_message_alone(app: SmallApp, service: Service) -> None:
    process = subprocess.Popen(
        [sys.executable, str(COMMAND), "backup", "one"],
        env={
            **clean_environment(),
            "BACKUP_APP_DIR": str(app.folder),
            "BACKUP_NOTIFY_URLS": service.notify("hang?rto=300"),
            "BACKUP_NOTIFY_ON": "success",
            "BACKUP_NOTIFY_TIMEOUT": "300",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline().startswith("Backup one: ")
    assert process.stdout.readline()
    deadline = time.monotonic() + 30
    while not service.heard and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert process.returncode == 3 and "was not sent: interrupted." in said, said
    assert (app.backups / "one").is_dir()


def test_without_apprise_one_line_says_what_to_install(app: SmallApp, service: Service, tmp_path: Path) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError")
    result = run_here(
        app,
        "backup",
        env={
            "BACKUP_NOTIFY_URLS": service.notify(),
            "BACKUP_NOTIFY_ON": "success",
            "BACKUP_PING_URL": service.page(),
            "PYTHONPATH": str(tmp_path),
        },
        check=3,
    )
    (warning,) = result.err.splitlines()
    assert warning.endswith("the package apprise is not installed (pip install apprise).")
    assert service.pings == ["/check/start", "/check"]


# Secrets


@pytest.mark.parametrize("path", ["500", "redirect", "hang", "fine"])
def test_no_secret_is_in_the_output_the_log_or_a_message(app: SmallApp, service: Service, path: str) -> None:
    log = app.folder / "backup.log"
    environment = {
        "BACKUP_NOTIFY_URLS": f"{service.notify(f'{path}/{SECRET}', f'user:{SECRET}@')} slack://{SECRET}",
        "BACKUP_PING_URL": service.page(f"{path}/{SECRET}", f"user:{SECRET}@"),
        "BACKUP_NOTIFY_ON": "success failure warning",
        "BACKUP_NOTIFY_TIMEOUT": "2",
        "BACKUP_LOG_FILE": str(log),
    }
    note = f"see {environment['BACKUP_PING_URL']}"
    results = [app.command("backup", "--note", note, env=environment, check=3)]
    results += [run_here(app, *words, env=environment) for words in (("notify-test",), ("notify-test", "--json"))]
    results += [run_here(app, *words, env=environment, check=0) for words in (("config",), ("config", "--json"))]
    for result in results:
        assert SECRET not in result.out + result.err
    assert SECRET not in log.read_text() and "--note see ***" in log.read_text()
    for heard in service.heard:
        assert SECRET not in heard.body


def test_a_password_in_any_url_is_in_no_message(app: SmallApp) -> None:
    lines = [f"Error: cannot connect to postgresql://me:{SECRET}@host/db"]
    message = message_of(app.settings, "migrate", "failure", lines)
    assert SECRET not in message.body and "postgresql://***@host/db" in message.body


def test_no_secret_is_on_a_command_line(app: SmallApp, service: Service) -> None:
    message = sender.PendingMessage(Message("", ""), [Address(SecretUrl(service.page(f"hang/{SECRET}")), "ping")], 30)
    command = subprocess.run(
        ["ps", "-o", "args=", "-p", str(message._process.pid)], capture_output=True, text=True, check=True
    ).stdout
    message._process.kill()
    assert "notify.sender" in command and SECRET not in command


# The test message


def test_notify_test_tells_everyone_and_says_what_became_of_it(app: SmallApp, service: Service) -> None:
    environment = {"BACKUP_NOTIFY_URLS": f"{service.notify('a')} {service.notify('500')}", "BACKUP_NOTIFY_ON": ""}
    result = run_here(app, "notify-test", env={**environment, "BACKUP_PING_URL": service.page()}, check=1)
    first, second, ping = result.out.splitlines()
    assert first == "sent      notification to json://***"
    assert second.startswith("NOT SENT  notification to json://***: ") and "500" in second
    assert ping == "sent      ping to http://127.0.0.1/***"
    assert sorted(one.path for one in service.heard) == ["/500", "/a", "/check/log"], "a log is not a sign of life"


def test_notify_test_as_json(app: SmallApp, service: Service) -> None:
    environment = {"BACKUP_NOTIFY_URLS": service.notify(), "BACKUP_PING_URL": service.page("500")}
    assert run_here(app, "notify-test", "--json", env=environment, check=1).json == [
        {"schema_version": 1, "kind": "notification", "url": "json://***", "sent": True, "trouble": None},
        {"schema_version": 1, "kind": "ping", "url": "http://127.0.0.1/***", "sent": False, "trouble": "HTTP 500"},
    ]
    environment["BACKUP_PING_URL"] = ""
    run_here(app, "notify-test", env=environment, check=0)


def test_notify_test_with_nobody_to_tell_is_refused(app: SmallApp) -> None:
    result = run_here(app, "notify-test", check=2)
    assert "BACKUP_NOTIFY_URLS" in result.err


def test_an_address_that_no_service_has_is_said(app: SmallApp) -> None:
    result = run_here(app, "notify-test", env={"BACKUP_NOTIFY_URLS": "nonsense://x slack://bad"}, check=1)
    assert result.out.count("it is not an address that Apprise understands") == 2


def test_sending_leaves_nothing_on_disk(app: SmallApp, service: Service, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    run_here(app, "notify-test", env={"BACKUP_NOTIFY_URLS": service.notify(), "HOME": str(tmp_path)}, check=0)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_person_is_told_needs_no_disk(app: SmallApp, service: Service) -> None:
    delivered = messages.send(
        app.settings, messages.test_message(app.settings), [Address(SecretUrl(service.notify("a")))]
    )
    assert [one.error for one in delivered] == [""]


def test_the_doctor_says_whether_anybody_is_told(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No message is sent after a failure:" in run_here(app, "doctor", check=0).out
    there = {"BACKUP_NOTIFY_URLS": f"slack://{SECRET}"}
    assert "notify-test` sends a test message" in run_here(app, "doctor", env=there, check=0).out
    monkeypatch.setattr("backupkit.monitoring.doctor.find_spec", lambda _name: None)
    assert "fix: pip install apprise" in run_here(app, "doctor", env=there, check=1).out
