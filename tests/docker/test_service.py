"""The image, the service and `./backup.sh` work on a real engine, whatever state the service is in."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from engine import run, wait_until
from project import QUICK, Project

import chance

USERS = """
import json, os, pathlib
own = {os.getpid(), os.getppid()}
pages = [pathlib.Path("/proc") / name for name in os.listdir("/proc") if name.isdigit() and int(name) not in own]
print(json.dumps({
    (page / "cmdline").read_bytes().replace(b"\\0", b" ").decode().strip(): (page / "stat").stat().st_uid
    for page in pages
}))
"""

# A restore that is killed as soon as its journal is on disk.
KILLED_RESTORE = """
import os, sys
from backupkit.restore import journal
import backup_restore
write = journal.write
def write_and_die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), 9)
journal.write = write_and_die
sys.argv = ["backup_restore.py", "restore", "good", "--force"]
backup_restore.main()
"""


def owners(folder: Path) -> set[int]:
    """Return the owners of a folder and of everything in it."""
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


def give(folder: Path, user: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def drop_table(project: Project) -> None:
    """Cause the disaster: drop a table, and delete every document."""
    with closing(sqlite3.connect(project.database, timeout=30)) as connection, connection:
        connection.execute("DROP TABLE documents")
    for document in [path for path in project.uploads.rglob("*") if path.is_file()]:
        document.unlink(missing_ok=True)  # a draft of the app gets its name meanwhile


@pytest.mark.shows("read-only root")
def test_the_app_runs_as_an_ordinary_user_on_a_read_only_root(project: Project) -> None:
    project.up()
    users: dict[str, int] = json.loads(project.inside("python", "-c", USERS))
    assert users["python app.py"] == 1000
    as_root = [command for command, user in users.items() if user == 0 and command]  # none that has ended already
    assert not [one for one in as_root if "docker-init" not in one and "/health" not in one]  # init, the health check
    assert project.inspect("HostConfig.ReadonlyRootfs") is True
    with pytest.raises(AssertionError, match="Read-only"):
        project.inside("touch", "/app/x")


# Prints the rights of the app's processes, as the kernel reports them.
RIGHTS = """
import json, os, pathlib
own = {os.getpid(), os.getppid(), 1}
pages = [pathlib.Path("/proc") / name for name in os.listdir("/proc") if name.isdigit() and int(name) not in own]
told = [dict(line.split(":\\t", 1) for line in (page / "status").read_text().splitlines()) for page in pages]
names = ("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs")
apps = [one for one in told if one["Uid"].split()[0] != "0"]  # the health check is root's
print(json.dumps([{name: int(one[name], 16) for name in names} for one in apps]))
"""


def test_the_app_has_no_rights_that_it_does_not_need(project: Project) -> None:
    project.up()
    rights = json.loads(project.inside("python", "-c", RIGHTS))
    assert rights and all(one.pop("NoNewPrivs") == 1 for one in rights)
    assert {value for one in rights for value in one.values()} == {0}
    with pytest.raises(AssertionError, match="Read-only"):
        project.inside("sh", "-c", "echo 'test_command = \"id\"' >>/app/backup.toml")


def test_the_scheduler_alone_can_write_backups_where_that_is_set(project: Project) -> None:
    """An attacker inside the app cannot delete backups, and every command still works."""
    (project.folder / ".env").write_text("BACKUPS_IN_APP=ro\n")
    project.scheduler.pop("profiles")
    project.override(environment={"BACKUP_ENABLED": "false"}, healthcheck=QUICK)  # the scheduler waits for health
    give(project.backups, 1000)
    project.up()
    project.backup_sh("config", "set", "service", "scheduler")
    project.backup_sh("config", "set", "app_service", "backend")
    letter = project.add_document(project.add_application("Before"), "Dear all")
    project.backup_sh("backup", "good")
    for command in ("rm -r /app/backups/good", "touch /app/backups/x", "mv /app/backups/good /app/backups/gone"):
        with pytest.raises(AssertionError, match="Read-only"):
            project.inside("sh", "-c", command)
    drop_table(project)
    started = project.inspect("State.StartedAt")
    project.backup_sh("restore", "good", "--yes", "--stop")
    assert letter.read_text() == "Dear all"
    assert project.inspect("State.StartedAt") > started
    project.up()
    assert project.companies() == {"Before"}
    project.backup_sh("undo", "--yes")
    assert not letter.exists()
    project.backup_sh("prune", "--dry-run")
    assert "belongs to another user" not in project.logs()


def test_a_setting_that_is_set_lasts(project: Project) -> None:
    """It is written into the project's own file through the mount, so a new container has it too."""
    project.up()
    file = project.folder / "backend" / "backup.toml"
    before = file.read_text()
    project.backup_sh("config", "set", "timezone", "Pacific/Kiritimati")
    assert file.read_text() == before.replace(
        '# timezone = "UTC"\n', '# timezone = "UTC"\ntimezone = "Pacific/Kiritimati"\n'
    )
    project.compose("stop", "--timeout", "10")
    project.compose("rm", "--force")
    project.up()
    assert project.json("config")["timezone"] == {"value": "Pacific/Kiritimati", "origin": "backup.toml"}
    project.backup_sh("config", "unset", "timezone")
    assert file.read_text() == before


def test_the_service_is_published_on_this_machine_only(project: Project) -> None:
    configured = json.loads(project.compose("config", "--format", "json").stdout)
    assert [one["host_ip"] for one in configured["services"]["backend"]["ports"]] == ["127.0.0.1"]


def test_alembic_upgrade_head_works_in_the_container(project: Project) -> None:
    project.up()
    project.inside("bash", "-c", "cd /app && alembic upgrade head")
    assert "(head)" in project.inside("alembic", "current")
    assert owners(project.database.parent) == {1000}


def back_up_and_restore_while_it_writes(project: Project, user: int) -> None:
    """Test the main path, on any engine; all data must belong to that user in the end."""
    project.up()
    letter = project.add_document(project.add_application("Before"), "Dear all")
    with project.writing() as answers:
        project.backup_sh("backup", "pre_migration")
        assert project.names() == ["pre_migration"]
        project.add_application("After")
        drop_table(project)
        # A document that the app writes during the restore stays, with a warning.
        project.backup_sh("restore", "pre_migration", "--force", or_code=3)
        project.add_application("Later")
    assert answers["200"] > 20
    assert letter.read_text() == "Dear all"
    assert {"Before", "Later"} < project.companies() and "After" not in project.companies()
    assert owners(project.database.parent) == owners(project.uploads) == owners(project.backups) == {user}


@pytest.mark.shows("backup beside a writer", "restore")
def test_a_backup_and_a_restore_while_the_app_is_writing(
    new_project: Callable[..., Project], generation: dict[str, str]
) -> None:
    project = new_project(**generation)
    back_up_and_restore_while_it_writes(project, 1000)
    assert project.inspect("RestartCount") == 0
    assert project.add_document(1, "still fine").read_text() == "still fine"


def test_a_stopped_service_is_backed_up_and_restored_and_stays_stopped(project: Project) -> None:
    project.up()
    project.add_application("Before")
    project.compose("stop")
    project.backup_sh("backup", "while_stopped")
    drop_table(project)
    project.backup_sh("restore", "while_stopped", "--force")
    assert project.state() == "exited"
    assert "Before" in project.companies()
    assert owners(project.database.parent) == {1000}
    project.up()
    assert project.call("GET", "/applications")[0]["company"] == "Before"


@pytest.mark.parametrize("lives", chance.cases(("0", "3"), "services that crash"))
def test_a_crash_looping_service_is_restored_beside_not_inside_it(project: Project, lives: str) -> None:
    project.up()
    project.add_application("Before")
    project.backup_sh("backup", "good")
    drop_table(project)
    project.override(command=["sh", "-c", f"sleep {lives}; exit 1"])
    project.compose("up", "--detach", "--no-build")
    assert wait_until(lambda: project.inspect("RestartCount") > 0)
    if lives != "0":
        assert wait_until(lambda: project.state() == "running")
    before = project.engine.docker("info", "--format", "{{.SystemTime}}").stdout.strip()
    project.backup_sh("restore", "good", "--force")
    now = project.engine.docker("info", "--format", "{{.SystemTime}}").stdout.strip()
    events = project.engine.docker("events", "--since", before, "--until", now, "--filter", "event=exec_create").stdout
    assert "backup_restore.py" not in events
    assert "Before" in project.companies()


def test_everything_survives_compose_down_in_between(project: Project) -> None:
    project.up()
    letter = project.add_document(project.add_application("Before"), "Dear all")
    project.backup_sh("backup", "kept")
    project.down()
    drop_table(project)
    project.backup_sh("restore", "kept", "--force")
    assert "Before" in project.companies()
    assert letter.read_text() == "Dear all"
    project.up()
    assert project.call("GET", "/applications")[0]["documents"] == ["letter.txt"]


@pytest.mark.parametrize(
    "up", chance.cases((True, False), "services under cron"), ids=lambda up: "running" if up else "stopped"
)
def test_cron_without_a_terminal_or_an_environment(project: Project, up: bool) -> None:
    project.up()
    if not up:
        project.compose("stop")
    needed = ("DOCKER_HOST", "COMPOSE_PROJECT_NAME")  # a real cron user has the engine's address from a Docker context
    cron = ["setsid", "--wait", "env", "-i", "PATH=/usr/bin:/bin"]
    cron += [f"{name}={project.environment[name]}" for name in needed]
    project.backup_sh("backup", "nightly", prefix=cron)
    assert project.names() == ["nightly"]


@pytest.mark.shows("other user id")
def test_another_user_id_owns_what_is_made(project: Project) -> None:
    for folder in (project.database.parent, project.uploads, project.backups):
        give(folder, 1234)
    project.override(user="1234:1234")
    project.up()
    letter = project.add_document(project.add_application("Before"), "Dear all")
    project.backup_sh("backup", "as_1234")
    letter.unlink()
    project.backup_sh("restore", "as_1234", "--force")
    assert letter.read_text() == "Dear all"
    everything = owners(project.database.parent) | owners(project.uploads) | owners(project.backups)
    assert everything == {1234}


def test_a_user_who_may_not_write_is_told_the_command_that_mends_it(project: Project) -> None:
    project.override(user="1234:1234", restart="no")
    project.compose("up", "--detach", "--no-build")
    assert wait_until(lambda: project.state() == "exited")
    assert "sudo chown -R 1234:1234 backend/data" in project.logs()


def test_the_app_becomes_the_owner_of_the_data(project: Project) -> None:
    give(project.database.parent, 1234)
    project.up()
    assert json.loads(project.inside("python", "-c", USERS))["python app.py"] == 1234
    assert owners(project.database.parent) == owners(project.uploads) == {1234}


def test_a_command_has_no_more_rights_than_the_app(project: Project) -> None:
    """`backup.sh` works as the owner of the data; a backups folder of another user is named, not taken over."""
    give(project.database.parent, 1234)
    give(project.backups, 4321)
    project.up()
    done = project.backup_sh("backup", "mine", code=1)
    assert b"The backups folder /app/backups cannot be written to." in done.stderr
    assert b"--entrypoint chown backend -R 1234:1234 /app/backups" in done.stderr
    assert not list(project.backups.iterdir())
    give(project.backups, 1234)
    project.backup_sh("backup", "mine")
    project.backup_sh("dump", "mine.sql")
    project.compose("stop")
    project.backup_sh("verify", "mine", "--test-restore")
    assert owners(project.backups) == {1234}


def test_what_root_made_with_an_earlier_version_is_named_with_its_chown(project: Project) -> None:
    project.up()
    project.backup_sh("backup", "mine")
    give(project.backups / ".state", 0)
    (project.backups / ".state").chmod(0o700)
    done = project.backup_sh("pin", "mine", code=1)
    assert b"/app/backups/.state belongs to another user, and this is user 1000." in done.stderr
    assert b"As root: chown -R 1000:1000 /app/backups" in done.stderr
    found = json.loads(project.backup_sh("doctor", "--json", code=1).stdout)
    (finding,) = [one for one in found if "belong to another user" in one["text"]]
    assert finding["mend"].endswith(" --user root --entrypoint chown backend -R 1000:1000 /app/backups")
    project.compose(*finding["mend"].partition("compose ")[2].split())
    project.backup_sh("pin", "mine")


def test_a_link_in_the_place_of_the_database_gives_root_s_files_to_nobody(project: Project) -> None:
    """The app's user put the link there; root in the container could have read its target."""
    project.up()
    project.compose("stop")
    project.database.rename(project.folder / "backend" / "away.db")
    project.database.symlink_to("/etc/shadow")
    done = project.backup_sh("backup", "stolen", code=13)
    assert b"/etc/shadow" in done.stderr and b"Traceback" not in done.stderr
    assert not (project.backups / "stolen").exists()


def test_the_app_does_not_start_when_recover_fails(project: Project) -> None:
    project.override(environment={"BACKUP_TIMEZONE": "Mars/Olympus"}, restart="no")
    project.compose("up", "--detach", "--no-build")
    assert wait_until(lambda: project.state() == "exited")
    assert project.inspect("State.ExitCode") == 2
    assert "The app does not start" in project.logs()
    assert not project.database.exists()


@pytest.mark.shows("kill, recover")
def test_an_interrupted_restore_is_finished_before_the_app_starts(project: Project) -> None:
    kill_a_restore_and_start_the_app(project, 1000)


def kill_a_restore_and_start_the_app(project: Project, owner: int) -> None:
    """Kill a restore in its container; the app's start must finish it, and all data must belong to that user."""
    project.up()
    letter = project.add_document(project.add_application("Before"), "Dear all")
    project.backup_sh("backup", "good")
    project.add_application("After")
    project.compose("stop")
    letter.unlink()
    killed = project.compose(
        *("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "backend", "-c", KILLED_RESTORE), check=False
    )
    assert killed.returncode == 137
    assert project.companies() == {"Before", "After"}
    project.up()
    assert project.companies() == {"Before"}
    assert letter.read_text() == "Dear all"
    assert owners(project.database.parent) == owners(project.uploads) == {owner}


def test_auto_backup_knows_gits_facts_from_the_host(project: Project) -> None:
    project.up()
    (project.folder / "docker-compose.yml").open("a").write("# changed\n")
    project.backup_sh("auto-backup")
    (name,) = project.names()
    facts = project.json("show", name)["git"]
    commit = run(["git", "-C", str(project.folder), "rev-parse", "HEAD"], os.environ).stdout.strip()
    assert name.startswith(f"auto_feature-search_{commit[:7]}_") and name.endswith("_dirty")
    assert (facts["commit"], facts["branch"], facts["subject"]) == (commit, "feature/search", 'Say "hello"')
    assert facts["dirty"] is True


def test_a_dump_travels_through_stdout_and_back_through_stdin(project: Project, tmp_path: Path) -> None:
    project.up()
    project.add_application("Grüße")
    text = project.backup_sh("dump", "-").stdout
    assert "Grüße" in text.decode() and text.rstrip().endswith(b"COMMIT;")
    drop_table(project)
    project.backup_sh("restore-dump", "-", "--force", content=text)
    assert "Grüße" in project.companies()


def test_a_path_of_the_host_is_dumped_to_and_restored_from(project: Project, tmp_path: Path) -> None:
    project.up()
    project.add_application("Before")
    out = tmp_path / "out of sight" / "x.sql.gz"
    out.parent.mkdir()
    project.backup_sh("dump", str(out))
    assert gzip.decompress(out.read_bytes()).rstrip().endswith(b"COMMIT;")
    project.backup_sh("dump", str(out), code=2)
    drop_table(project)
    project.backup_sh("restore-dump", str(out), "--force")
    assert "Before" in project.companies()
    assert [path.name for path in out.parent.iterdir()] == ["x.sql.gz"]


def test_restore_stop_starts_the_service_again(project: Project) -> None:
    project.up()
    project.add_application("Before")
    project.backup_sh("backup", "good")
    started = project.inspect("State.StartedAt")
    drop_table(project)
    project.backup_sh("restore", "good", "--force", "--stop")
    assert project.state() == "running"
    assert project.inspect("State.StartedAt") > started
    assert "Before" in project.companies()


def test_restore_stop_starts_the_service_again_after_a_failed_restore(project: Project) -> None:
    project.up()
    started = project.inspect("State.StartedAt")
    project.backup_sh("restore", "no_such_backup", "--force", "--stop", code=10)
    assert project.state() == "running"
    assert project.inspect("State.StartedAt") > started


def test_restore_stop_leaves_a_stopped_service_stopped(project: Project) -> None:
    project.up()
    project.add_application("Before")
    project.backup_sh("backup", "good")
    project.compose("stop")
    done = project.backup_sh("restore", "good", "--force", "--stop")
    assert b"it stays stopped" in done.stderr
    assert project.state() == "exited"


@pytest.mark.parametrize("number", chance.cases((signal.SIGINT, signal.SIGTERM), "signals to restore --stop"))
def test_an_interrupted_restore_stop_starts_the_service_again(project: Project, number: signal.Signals) -> None:
    project.up()
    project.backup_sh("backup", "good")
    restore = subprocess.Popen(
        [str(project.folder / "backup.sh"), "restore", "good", "--force", "--stop"],
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert wait_until(lambda: project.state() == "exited")
    os.killpg(restore.pid, number)
    assert restore.wait(60) == 130
    assert wait_until(lambda: project.containers("True") == [])  # the engine may still be removing it
    assert wait_until(lambda: project.state() == "running")


# In the container: prints what a wrong token gets, and what the right one gets.
VISIT = """
import sys, urllib.error, urllib.request
address = sys.argv[1]
door, _, token = address.partition("?token=")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def come_in(token):
    request = urllib.request.Request(door, f"token={token}".encode(), {"Origin": door.rstrip("/")})
    try:
        return urllib.request.build_opener(NoRedirect).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        return error


print(come_in("guessed").code)
print(come_in(token).headers["Set-Cookie"])
"""


def test_the_pages_are_served_to_a_browser_from_a_container_of_its_own(project: Project) -> None:
    project.up()
    command = [str(project.folder / "backup.sh"), "web", "--port", "9000"]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=project.environment, start_new_session=True, **streams) as served:
        try:
            assert served.stdout
            address = served.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:9000/?token=")
            (container,) = project.containers("True")
            told = project.engine.docker("exec", container, "python", "-c", VISIT, address).stdout
            refused, cookie = told.splitlines()
            assert refused == "403" and "HttpOnly" in cookie
        finally:
            os.killpg(served.pid, signal.SIGINT)  # as Ctrl-C does
        assert served.wait(120) in (0, 130)  # its own: nothing was going on
    assert wait_until(lambda: project.containers("True") == [])  # the engine may still be removing it


SIGN_IN = """
import sys, urllib.error, urllib.request
door = "http://127.0.0.1:8765/"
request = urllib.request.Request(door, f"password={sys.argv[1]}".encode(), {"Origin": door.rstrip("/")})
class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
try:
    print(urllib.request.build_opener(NoRedirect).open(request, timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_the_pages_can_be_a_service_that_stays(project: Project) -> None:
    project.environment["WEB_PORT"] = "9100"
    project.up()
    project.backup_sh("web", "--set-password", content=b"correct-horse-battery\n")
    project.compose("--profile", "web", "up", "--detach", "--no-build", "web")
    (container,) = project.containers("False", "web")

    def code(password: str) -> str:
        return project.engine.docker("exec", container, "python", "-c", SIGN_IN, password, check=False).stdout.strip()

    assert wait_until(lambda: code("correct-horse-battery") == "303"), project.logs(container)
    assert code("guessed") == "403"
