"""`backup.sh` with stub engines on PATH that record their calls: the runner it takes, the words and facts it passes."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

import bsd

WRAPPER = Path(__file__).resolve().parents[2] / "backup.sh"
BASH = shutil.which("bash") or "bash"
SYSTEM_PROGRAMS = (
    "bash basename cat chmod cksum cp date dirname env find grep gzip ln ls mkdir mktemp mv python3 readlink rm tr"
)
MORE_FOLDERS = ":/usr/local/bin:/opt/homebrew/bin"
GIT = ["git", "-c", "user.name=A Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]

# Stands in for every engine and every Compose: records its call, and answers from `answers.json`.
STUB = f"""#!{sys.executable}
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).parent
answers = json.loads((here / "answers.json").read_text())
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
if "-X" in words:
    del words[(place := words.index("-X")) : place + 2]  # the mark by which a signal finds the command
call = " ".join([name, *words])
if name in ("docker", "podman") and words[:1] == ["compose"]:
    if not answers["plugin"]:
        sys.exit(f"{{name}}: unknown command: {{name}} compose")
    words = words[1:]
if words[:1] == ["--podman-path"]:  # podman-compose: it starts what it is given in the place of podman
    print("using podman version: 4.3.1")
    os.execv(words[1], [words[1], words[2], *(word for word in words[3:] if word not in ("-T", "--quiet"))])
read = ""
if words[0] in ("exec", "run"):
    read = sys.stdin.buffer.read().decode("latin-1")
    sys.stdout.buffer.write(answers["output"].encode("latin-1"))
with (here / "calls.jsonl").open("a") as calls:
    variables = {{name: value for name, value in os.environ.items() if name.startswith("BACKUP_")}}
    print(json.dumps({{"call": call, "read": read, "cwd": os.getcwd(), "variables": variables}}), file=calls)
if words[0] == "ps" and name in ("docker", "podman") and answers["engine"] == "hangs":
    time.sleep(4)
if words[0] == "ps" and name in ("docker", "podman") and "compose" not in call and answers["engine"] != "up":
    sys.exit("Cannot connect to the engine. Is it running?")
if words[0] == "ps" and answers["state"] and name + str(words) not in ("docker['ps', '--quiet']",):
    print("0123456789ab")
if words[0] == "inspect":
    for owner in answers["owners"]:
        print(f"{{owner}}|False|{{answers['state']}}|{{answers['restarts']}}|{{answers['since']}}|0123456789ab")
if words[0] == "version":
    print(answers.get("version", "v2"))
if words[0] == "config":
    print(answers["services"])
sys.exit(answers["codes"].get(words[0], 0))
"""

# Stands in for uv: makes an environment whose python prints its arguments; `fail` leaves half of one behind.
STUB_UV = f"""#!{BASH}
echo "$@" >>"$(dirname "$0")/uv.calls"
case $1 in
  venv)
    target=${{!#}}
    mkdir -p "$target/bin" "$target/lib/python3.12/site-packages"
    printf '#!%s\\n[ "$1" = -V ] && echo Python 3.12.1 && exit\\n' {BASH} >"$target/bin/python"
    printf 'export -p >"$HOME/exported"\\n' >>"$target/bin/python"
    printf 'shift\\necho "local:$*${{BACKUP_HOST_ENGINE_FAILS:+|$BACKUP_HOST_ENGINE_FAILS}}"\\n' >>"$target/bin/python"
    chmod +x "$target/bin/python"
    ;;
  pip) if [ -e "$(dirname "$0")/fail" ]; then exit 1; fi ;;
esac
"""


class Host:
    """A machine with a project on it, and the programs that a test installs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self.programs = folder, folder / "my project", folder / "programs"
        self.programs.mkdir(parents=True)
        (self.project / "backend").mkdir(parents=True)
        script = WRAPPER.read_text()
        assert MORE_FOLDERS in script  # a real engine of this machine may be there
        (self.project / "backup.sh").write_text(script.replace(MORE_FOLDERS, ""))
        (self.project / "backup.sh").chmod(0o755)
        (self.project / "docker-compose.yml").write_text("services:\n  backend:\n    image: x\n")
        (self.project / "backend" / "backup_restore.py").write_text("")
        (self.project / "backend" / "requirements.txt").write_text("# none\n")
        for program in SYSTEM_PROGRAMS.split():
            self.link(program)
        self.answers: dict[str, Any] = {"plugin": True, "engine": "up", "state": "running", "restarts": 0, "codes": {}}
        self.answers |= {"since": "2020-01-01T00:00:00Z", "output": "", "owners": ["backend"]}
        self.answers["services"] = "backend\ndatabase"
        self.answer()

    def link(self, program: str) -> None:
        found = shutil.which(program)
        assert found, program
        (self.programs / program).symlink_to(found)

    def answer(self, **answers: Any) -> None:
        self.answers |= answers
        (self.programs / "answers.json").write_text(json.dumps(self.answers))

    def install(self, *names: str) -> None:
        for name in names:
            self.write_program(name, STUB_UV if name == "uv" else STUB)

    def write_program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `backup.sh` without a terminal, in a process group of its own."""
        return subprocess.Popen(
            [BASH, str(self.project / "backup.sh"), *words],
            env={"PATH": str(self.programs), "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self,
        *words: str,
        code: int = 0,
        content: bytes = b"",
        cwd: str = "/",
        settings: Mapping[str, str] | None = None,
        **more: str,
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [BASH, str(self.project / "backup.sh"), *words],
            env={"PATH": str(self.programs), "HOME": str(self.folder), **(settings or {}), **more},
            input=content,
            capture_output=True,
            cwd=cwd,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}"
        return done

    def noted(self) -> list[dict[str, Any]]:
        path = self.programs / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def handover(self) -> dict[str, Any]:
        """Return the one call that ran the tool."""
        (call,) = [one for one in self.noted() if " exec " in one["call"] or " run " in one["call"]]
        return call

    def verbs(self) -> list[str]:
        """Return the exec, run, stop and start calls to Compose, in order."""
        words = [one["call"].removeprefix("docker compose ").split()[0] for one in self.noted()]
        return [word for word in words if word in ("exec", "run", "stop", "start")]

    def environments(self) -> list[Path]:
        """Return the links to the environments in use."""
        return [path for path in (self.project / ".backup-venv").iterdir() if path.is_symlink()]

    def made(self) -> list[Path]:
        return list((self.project / ".backup-venv").glob("made.*"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def after(call: str, word: str) -> str:
    return call.partition(f" {word} ")[2]


# --- the choice of the engine and the way in


@pytest.mark.parametrize(
    ("installed", "plugin", "expected"),
    [
        (["docker", "docker-compose", "podman", "podman-compose"], True, "docker compose"),
        (["docker", "docker-compose", "podman", "podman-compose"], False, "docker-compose"),
        (["podman", "podman-compose"], True, "podman compose"),
        (["podman", "podman-compose"], False, "podman-compose"),
    ],
)
def test_every_generation_of_compose_is_found(host: Host, installed: list[str], plugin: bool, expected: str) -> None:
    host.install(*installed)
    host.answer(plugin=plugin)
    host.run("list")
    call = host.handover()
    if expected == "podman-compose":
        assert call["call"].startswith("podman exec --interactive -e ")
        assert call["call"].endswith(" 0123456789ab python backup_restore.py list")
    else:
        assert call["call"].startswith(f"{expected} exec -T -e ")
        assert call["call"].endswith(" backend python backup_restore.py list")
    assert call["variables"]["BACKUP_COMPOSE"] == expected


@pytest.mark.parametrize("state", ["exited", "created", "restarting", "paused", "dead", ""])
def test_a_service_that_does_not_run_is_worked_on_from_a_fresh_container(host: Host, state: str) -> None:
    host.install("docker")
    host.answer(state=state)
    host.run("list")
    call = host.handover()["call"]
    assert call.startswith("docker compose run --rm --no-deps --name backup-")
    assert " -T -e " in call
    assert call.endswith(" --entrypoint python backend backup_restore.py list")


def test_podman_compose_says_what_to_run_and_podman_is_run(host: Host) -> None:
    """It would print lines of its own among the results, lose the exit code, and take no `-e NAME`."""
    host.install("podman", "podman-compose")
    host.answer(plugin=False, state="exited", output="one backup\n", codes={"run": 10})
    done = host.run("show", 'it\'s "mine" $x', code=10)
    assert done.stdout == b"one backup\n"
    call = host.handover()["call"]
    assert call.startswith("podman run -e BACKUP_")
    assert " -e BACKUP_APP_SERVICE " in call and " --label com.docker.compose.oneoff=True " in call
    assert call.endswith(' --entrypoint python backend backup_restore.py show it\'s "mine" $x')


def test_podman_compose_that_cannot_read_its_file_ends_the_command(host: Host) -> None:
    host.install("podman")
    host.write_program("podman-compose", f"#!{BASH}\necho 'missing files: x'\nexit 1\n")
    host.answer(plugin=False)
    done = host.run("list", code=2)
    assert b"missing files: x" in done.stderr
    assert b"Error: Compose cannot read its file" in done.stderr
    named = host.run("list", code=2, BACKUP_COMPOSE_FILE="/nope.yml").stderr.decode()
    assert "Error: Compose cannot read /nope.yml (see above).\n  Next: podman-compose config" in named


def test_an_engine_that_fails_without_a_word_is_not_quoted(host: Host) -> None:
    host.write_program("docker", f"#!{BASH}\nexit 1\n")
    assert "but docker does not answer.\n" in host.run("list", code=1, BACKUP_RUNNER="docker").stderr.decode()


def test_podman_compose_behind_podman_is_spoken_to_itself(host: Host) -> None:
    """`podman compose` hands over to podman-compose; called itself, it puts no lines among the results."""
    host.install("podman", "podman-compose")
    host.answer(version="podman-compose version 1.0.6")
    host.run("list")
    assert host.handover()["variables"]["BACKUP_COMPOSE"] == "podman-compose"


@pytest.mark.parametrize("words", [("config", "set", "timezone", "UTC"), ("config", "unset", "timezone")])
def test_settings_are_changed_in_a_container_that_can_write_them(host: Host, words: tuple[str, ...]) -> None:
    """The file is read-only in the app's own service."""
    host.install("docker")
    host.run(*words)
    assert host.handover()["call"].startswith("docker compose run --rm --no-deps ")
    assert host.handover()["variables"]["BACKUP_HOST_SETTINGS_READ_ONLY"] == "false"


def test_settings_are_looked_at_where_commands_run(host: Host) -> None:
    host.install("docker")
    host.run("config")
    assert " exec " in host.handover()["call"]
    assert "BACKUP_HOST_SETTINGS_READ_ONLY" not in host.handover()["variables"]


def test_the_app_is_stopped_and_not_the_service_that_commands_run_in(host: Host) -> None:
    host.install("docker")
    (host.project / "backend" / "backup.toml").write_text('service = "backend"\napp_service = "app"\n')
    host.answer(owners=["backend", "app"])
    host.run("restore", "good", "--yes", "--stop")
    calls = [one["call"].removeprefix("docker compose ") for one in host.noted()]
    assert [call for call in calls if call.startswith(("stop", "start"))] == ["stop app", "start app"]
    assert " backend backup_restore.py restore good --yes" in host.handover()["call"]


def test_a_container_that_just_crashed_is_not_entered(host: Host) -> None:
    host.install("docker")
    host.answer(restarts=3, since="2999-01-01T00:00:00Z")
    host.run("list")
    assert host.verbs() == ["run"]


def test_a_container_that_crashed_long_ago_is_entered(host: Host) -> None:
    host.install("docker")
    host.answer(restarts=3)
    host.run("list")
    assert host.verbs() == ["exec"]


def test_an_unknown_service_is_named_with_those_there_are(host: Host) -> None:
    host.install("docker")
    host.answer(state="")
    done = host.run("list", code=2, BACKUP_SERVICE="web")
    assert b"no service 'web', but: backend, database" in done.stderr


def test_an_engine_that_does_not_answer_is_passed_over_and_said_so(host: Host) -> None:
    host.install("docker", "uv")
    host.answer(engine="down")
    done = host.run("list")
    assert done.stdout == b"local:list\n"
    assert b"Running without a container: docker does not answer (Cannot connect to the engine" in done.stderr


def test_an_engine_that_hangs_is_waited_for_once_and_doctor_is_told(host: Host) -> None:
    script = host.project / "backup.sh"
    assert "engine_patience=30" in script.read_text()
    script.write_text(script.read_text().replace("engine_patience=30", "engine_patience=1"))
    host.install("podman", "podman-compose", "uv")
    host.answer(engine="hangs")
    began = time.monotonic()
    done = host.run("doctor")
    assert time.monotonic() - began < 3, "both ways to Compose are by the same engine"
    assert b"Running without a container: podman does not answer within 1 s." in done.stderr
    assert done.stdout == b"local:doctor|podman does not answer within 1 s\n"


def test_insisting_on_docker_says_what_is_missing(host: Host) -> None:
    done = host.run("list", code=1, BACKUP_RUNNER="docker")
    assert b"neither Docker nor Podman" in done.stderr
    host.install("docker")
    host.answer(engine="down")
    assert b"does not answer" in host.run("list", code=1, BACKUP_RUNNER="docker").stderr
    (host.project / "docker-compose.yml").unlink()
    assert b"no compose file" in host.run("list", code=1, BACKUP_RUNNER="docker").stderr


def test_an_unknown_runner_is_refused(host: Host) -> None:
    assert b"auto, docker or local" in host.run("list", code=2, BACKUP_RUNNER="vm").stderr


def same_as_document(done: subprocess.CompletedProcess[bytes]) -> bool:
    """Return whether stdout is one JSON document with what the last two lines of stderr say."""
    document, (said, following) = json.loads(done.stdout), done.stderr.decode().splitlines()[-2:]
    assert said.startswith("Error: ") and following.startswith("  Next: "), done.stderr
    error = {"code": done.returncode, "message": said[len("Error: ") :], "next": following[len("  Next: ") :]}
    return bool(document == {"schema_version": 1, "error": error})


def test_a_refusal_of_the_wrapper_is_a_json_document_too(host: Host) -> None:
    host.install("docker")
    host.answer(state="")
    odd = 'a "quoted" \\ name with ü'
    assert same_as_document(host.run("list", "--json", code=2, BACKUP_SERVICE=odd))
    assert same_as_document(host.run("list", "--json", code=2, BACKUP_RUNNER="vm"))
    assert b"\\t" not in host.run("list", "--json", code=2, BACKUP_RUNNER="v\tm").stdout
    assert host.run("list", code=2, BACKUP_RUNNER="vm").stdout == b""


def test_a_refusal_while_the_environment_is_made_is_one_too(host: Host) -> None:
    (host.programs / "python3").unlink()
    assert same_as_document(host.run("list", "--json", code=1, BACKUP_RUNNER="local"))


def test_a_folder_that_cannot_be_written_to_is_said_in_one_sentence(host: Host) -> None:
    (host.project / ".backup-venv").touch()
    assert same_as_document(host.run("list", "--json", code=1, BACKUP_RUNNER="local"))
    lines = host.run("list", code=1, BACKUP_RUNNER="local").stderr.decode().splitlines()
    assert lines[1:] == [
        f"Error: Cannot write to {host.project}/.backup-venv.",
        f"  Next: Type this command once as the owner of {host.project}.",
    ]


def test_without_a_container_update_names_what_to_type(host: Host) -> None:
    assert b"./backup.sh migrate" in host.run("update", code=2, BACKUP_RUNNER="local").stderr


def test_the_name_for_an_imported_backup_is_no_path(host: Host) -> None:
    host.install("uv")
    done = host.run("import", "x.tar", "--name", "a/b", BACKUP_RUNNER="local")
    assert done.stdout == b"local:import x.tar --name a/b\n"


def test_data_in_a_named_volume_is_never_looked_for_in_a_folder(host: Host) -> None:
    host.install("uv")
    compose = "services:\n  backend:\n    volumes:\n      - data:/app/data\nvolumes:\n  data:\n"
    (host.project / "docker-compose.yml").write_text(compose)
    assert b"in a named volume" in host.run("restore", "x", code=1).stderr
    assert host.run("demo").stdout == b"local:demo\n"
    assert host.run("list", BACKUP_RUNNER="local").stdout == b"local:list\n"


@pytest.mark.parametrize(
    "words", [[], ["--version"], ["demo"], ["doctor"], ["config"], ["backup", "--help"], ["help", "backup"]]
)
def test_nothing_is_built_for_a_first_look(host: Host, words: list[str]) -> None:
    host.install("docker", "uv")
    host.answer(state="")
    assert host.run(*words).stdout.startswith(b"local:")
    assert host.verbs() == []


@pytest.mark.parametrize("runner", ["auto", "docker"])
def test_the_demo_which_no_image_has_runs_here_whatever_runs(host: Host, runner: str) -> None:
    host.install("docker", "uv")
    assert host.run("demo", BACKUP_RUNNER=runner).stdout == b"local:demo\n"
    assert host.verbs() == []


def test_starting_the_first_container_is_said(host: Host) -> None:
    host.install("docker")
    host.answer(state="")
    assert b"its image is built first" in host.run("backup", "x").stderr


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_silences_what_the_wrapper_has_to_say_but_no_error(host: Host, option: str) -> None:
    host.install("uv")
    assert b"Running without a container" in host.run("backup").stderr
    assert host.run("backup", option).stderr == b""
    assert b"auto, docker or local" in host.run("backup", option, code=2, BACKUP_RUNNER="vm").stderr


def test_a_project_without_a_compose_file_runs_here_in_silence(host: Host) -> None:
    host.install("docker", "uv")
    (host.project / "docker-compose.yml").unlink()
    host.run("list")
    done = host.run("list")
    assert (done.stdout, done.stderr) == (b"local:list\n", b"")


def test_an_env_that_is_a_fifo_is_not_waited_for(host: Host) -> None:
    host.install("docker", "uv")
    (host.project / "docker-compose.yml").unlink()
    os.mkfifo(host.project / ".env")
    assert host.run("list").stdout == b"local:list\n"


@pytest.mark.parametrize("name", ["docker-compose.yaml", "compose.yml", "compose.yaml"])
def test_every_usual_name_of_a_compose_file_is_found(host: Host, name: str) -> None:
    host.install("docker")
    (host.project / "docker-compose.yml").rename(host.project / name)
    host.run("list")
    assert host.verbs() == ["exec"]


# --- words, streams, codes


@pytest.mark.parametrize("state", ["running", "exited"])
@pytest.mark.parametrize("code", [0, 1, 2, 3, 10, 16, 130])
def test_the_exit_code_is_passed_through(host: Host, state: str, code: int) -> None:
    host.install("docker")
    host.answer(state=state, codes={"exec": code, "run": code})
    assert b"killed" not in host.run("list", code=code).stderr


@pytest.mark.parametrize("state", ["running", "exited"])
def test_a_command_that_was_killed_with_its_container_is_told(host: Host, state: str) -> None:
    host.install("docker")
    host.answer(state=state, codes={"exec": 137, "run": 137})
    assert b"The command was killed: its container was stopped or removed" in host.run("list", code=137).stderr


def test_every_word_arrives_as_it_was_typed(host: Host) -> None:
    host.write_program("docker", STUB.replace('" ".join([name, *words])', "repr([name, *words])"))
    words = ["backup", "--note", "two  words, 'quoted' \"twice\" $HOME * \\", "", "--json"]
    host.run(*words)
    (call,) = [one["call"] for one in host.noted() if "'exec'" in one["call"]]
    assert call.endswith(repr(words)[1:])


@pytest.mark.parametrize("state", ["running", "exited"])
def test_bytes_pass_through_unharmed(host: Host, state: str) -> None:
    host.install("docker")
    every_byte = bytes(range(256)) * 300
    host.answer(state=state, output=every_byte.decode("latin-1"))
    assert host.run("dump", "-").stdout == every_byte
    (host.programs / "calls.jsonl").unlink()
    host.run("restore-dump", "-", "--force", content=every_byte)
    assert host.handover()["read"].encode("latin-1") == every_byte


# An engine whose command ends when it is signalled in its container, and not with its client.
HEARS = """read = ""
told, here_it_is = here / "told", "backup_restore.py" in words
if here_it_is:
    (here / "began").touch()
    for _ in range(600):
        if told.exists():
            print("Interrupted; nothing is left half done.")
            sys.exit(130)
        time.sleep(0.02)
if "-c" in words:
    if words[-1]:
        told.write_text(words[-1])
    sys.exit(not words[-1])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("state", ["running", "exited"])
def test_a_signal_ends_the_command_in_its_container_and_what_that_says_is_shown(
    host: Host, state: str, number: signal.Signals
) -> None:
    host.write_program("docker", STUB.replace('read = ""\n', HEARS))
    host.link("sleep")
    host.answer(state=state)
    with host.begin("restore", "good", "--yes") as wrapper:
        while not (host.programs / "began").exists():
            assert wrapper.poll() is None
            time.sleep(0.02)
        os.killpg(wrapper.pid, number)
        said, noise = wrapper.communicate(timeout=60)
    assert (wrapper.returncode, said, noise) == (130, b"Interrupted; nothing is left half done.\n", b"")
    assert (host.programs / "told").read_text() == ("INT" if number == signal.SIGINT else "TERM")


def test_ctrl_c_while_the_engine_is_asked_is_not_taken_for_its_answer(host: Host) -> None:
    host.install("docker", "uv")
    host.write_program("docker", STUB.replace('read = ""\n', 'read = ""\ntime.sleep(0.2)\n'))
    for moment in range(6):
        with host.begin("list") as wrapper:
            time.sleep(0.2 + moment / 10)
            os.killpg(wrapper.pid, signal.SIGINT)
            said = wrapper.communicate(timeout=60)
        assert (wrapper.returncode, said) == (130, (b"", b""))


@pytest.mark.parametrize("words", [["list"], ["dump", "-"], ["restore-dump", "x.sql"], ["restore", "x"]])
def test_the_input_of_a_surrounding_loop_is_left_alone(host: Host, words: list[str]) -> None:
    host.install("docker")
    host.run(*words, content=b"the next line of the loop\n")
    assert [one["read"] for one in host.noted() if one["read"]] == []


def test_a_terminal_on_both_sides_is_passed_on(host: Host) -> None:
    host.install("docker")
    terminal, ours = pty.openpty()
    environment = {"PATH": str(host.programs), "HOME": str(host.folder)}
    command = [BASH, str(host.project / "backup.sh"), "list"]
    with subprocess.Popen(command, env=environment, stdin=ours, stdout=ours, stderr=ours) as wrapper:
        os.write(terminal, b"\x04")
        assert wrapper.wait(30) == 0
    os.close(ours)
    os.close(terminal)
    assert " -T " not in host.handover()["call"]


@pytest.mark.parametrize(
    ("words", "published", "address", "port"),
    [
        ([], "127.0.0.1:8765:8765", "127.0.0.1", "8765"),
        (["--port", "9000"], "127.0.0.1:9000:9000", "127.0.0.1", "9000"),
        (["--host=0.0.0.0", "--port=9000"], "0.0.0.0:9000:9000", "0.0.0.0", "9000"),
        (["--host", "::1"], "[::1]:8765:8765", "::1", "8765"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("state", ["running", "exited"])
def test_the_pages_for_a_browser_have_their_port_published_on_this_machine(
    host: Host, state: str, words: list[str], published: str, address: str, port: str
) -> None:
    host.install("docker")
    host.answer(state=state)
    host.run("web", *words)
    call = host.handover()
    assert call["call"].startswith("docker compose run --rm --no-deps --name backup-")
    assert f" -p {published} " in call["call"]
    inside = f" --entrypoint python backend backup_restore.py web --host 0.0.0.0 --port {port}"
    assert call["call"].endswith(inside)
    assert call["variables"]["BACKUP_HOST_ADDRESS"] == address


def test_a_port_that_is_any_cannot_be_published(host: Host) -> None:
    host.install("docker")
    assert b"--port 8765" in host.run("web", "--port", "0", code=2).stderr
    assert host.verbs() == []


@pytest.mark.parametrize("words", [["--host", ""], ["--host="]])
def test_an_empty_address_is_not_published_everywhere(host: Host, words: list[str]) -> None:
    host.install("docker")
    assert b"--host is empty" in host.run("web", *words, code=2).stderr
    assert host.verbs() == []


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_of_keys_without_any_is_refused(host: Host, content: str) -> None:
    host.install("docker")
    (host.folder / "keys").write_text(content)
    words = ("export", "latest", "x.tar", "--recipients-file", "keys")
    assert b"keys holds no key of age" in host.run(*words, code=2, cwd=str(host.folder)).stderr


def test_the_interface_in_the_terminal_is_entered_with_what_that_can_show(host: Host) -> None:
    host.install("docker")
    host.run("ui")
    call = host.handover()["call"]
    assert " exec " in call and " -e TERM -e COLORTERM " in call and " -p " not in call
    assert call.endswith(" backend python backup_restore.py ui")


def test_it_works_through_a_symlink_from_any_folder_without_an_environment(host: Host) -> None:
    host.install("docker")
    link, second = host.folder / "link here", host.folder / "deep" / "er"
    link.symlink_to(host.project / "backup.sh")
    second.parent.mkdir()
    second.symlink_to("../link here")
    bare = f"PATH={host.programs}"
    done = subprocess.run(["env", "-i", bare, BASH, str(second), "list"], cwd=second.parent, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert host.handover()["cwd"] == str(host.project)


# --- settings and facts


def test_every_backup_variable_reaches_the_container(host: Host) -> None:
    host.install("docker")
    host.run("list", BACKUP_KEEP_DAILY="7", BACKUP_DATABASE="/x/y.db", BACKUP_RUNNER="docker", BACKUP_APP_DIR="/here")
    call = host.handover()
    assert " -e BACKUP_KEEP_DAILY " in call["call"] and " -e BACKUP_DATABASE " in call["call"]
    assert "BACKUP_RUNNER " not in call["call"] and "BACKUP_APP_DIR" not in call["call"]
    assert call["variables"]["BACKUP_KEEP_DAILY"] == "7"
    assert call["variables"]["BACKUP_SERVICE"] == "backend"
    assert call["variables"]["BACKUP_RUNNER_IN_USE"] == "exec"
    assert call["variables"]["BACKUP_HOST_COMMAND"] == "./backup.sh"
    assert call["variables"]["BACKUP_HOST_NAME"] == socket.gethostname()  # a container only knows its own id


@pytest.mark.parametrize(
    "names", [{"USER": "anna"}, {"USER": "root", "SUDO_USER": "anna"}, {"LOGNAME": "anna"}], ids=str
)
def test_who_typed_the_command_is_handed_over_for_the_history(host: Host, names: dict[str, str]) -> None:
    host.install("docker")
    host.run("list", **names)
    assert host.handover()["variables"]["BACKUP_HOST_USER"] == "anna"


def commit(project: Path, *more: Iterable[str]) -> str:
    for words in (["init", "-q", "-b", "feature/x"], ["add", "-A"], ["commit", "-qm", "Fix  the \\n 'thing'"], *more):
        subprocess.run([*GIT, "-C", str(project), *words], check=True)
    return subprocess.check_output(["git", "-C", str(project), "rev-parse", "HEAD"], text=True).strip()


def git_facts(host: Host, **more: str) -> dict[str, str]:
    (host.programs / "calls.jsonl").unlink(missing_ok=True)
    host.run("auto-backup", settings=more)
    prefix = "BACKUP_GIT_"
    found = host.handover()["variables"].items()
    return {name.removeprefix(prefix): value for name, value in found if name.startswith(prefix)}


@pytest.mark.needs("git")
def test_gits_facts_are_collected_on_the_host(host: Host) -> None:
    host.install("docker")
    host.link("git")
    made = commit(host.project)
    facts = {"COMMIT": made, "SHORT": made[:7], "BRANCH": "feature/x", "SUBJECT": "Fix  the \\n 'thing'"}
    assert git_facts(host) == facts | {"DIRTY": "false", "TAG": ""}
    (host.project / "untracked").write_text("")
    assert git_facts(host)["DIRTY"] == "false"
    (host.project / "docker-compose.yml").write_text("services:\n  backend:\n    image: y\n")
    assert git_facts(host)["DIRTY"] == "true"


@pytest.mark.needs("git")
def test_a_tag_and_a_detached_head_are_seen(host: Host) -> None:
    host.install("docker")
    host.link("git")
    commit(host.project, ["tag", "v1.2"], ["checkout", "-q", "--detach"])
    facts = git_facts(host)
    assert (facts["TAG"], facts["BRANCH"]) == ("v1.2", "")


@pytest.mark.needs("git")
def test_a_git_hooks_variables_do_not_point_git_elsewhere(host: Host) -> None:
    host.install("docker")
    host.link("git")
    made = commit(host.project)
    assert git_facts(host, GIT_DIR="/nowhere", GIT_INDEX_FILE="/nowhere/index")["COMMIT"] == made


@pytest.mark.needs("git")
def test_the_repository_is_not_written_to(host: Host) -> None:
    host.install("docker")
    host.link("git")
    commit(host.project)
    os.utime(host.project / "docker-compose.yml", (1, 1))  # git status would refresh its index
    index = host.project / ".git" / "index"
    before = index.read_bytes()
    git_facts(host)
    assert index.read_bytes() == before


@pytest.mark.needs("git")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the repository to another user")
def test_a_repository_of_another_user_is_read_all_the_same(host: Host) -> None:
    host.install("docker")
    host.link("git")
    made = commit(host.project)
    for path in (host.project, *host.project.rglob("*")):
        os.chown(path, 4321, 4321)
    assert git_facts(host)["COMMIT"] == made


@pytest.mark.needs("git")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the repository to another user")
def test_a_repository_that_a_stranger_put_around_the_project_is_not_asked(host: Host, tmp_path: Path) -> None:
    """The settings of a repository name commands, which git runs as the caller, and anybody can make one in /tmp."""
    host.install("docker")
    host.link("git")
    around, ran = host.project.parent, tmp_path / "ran"
    (around / ".gitattributes").write_text("* filter=x\n")
    commit(around, ["config", "filter.x.clean", f"touch {ran}; cat"], ["config", "core.untrackedCache", "false"])
    os.utime(around / ".gitattributes", (1, 1))
    for path in (around / ".git", *(around / ".git").rglob("*")):
        os.chown(path, 4321, 4321)
    assert git_facts(host) == {"MISSING": f"{around}/.git belongs to user 4321, so git is not asked"}
    assert not ran.exists()


def test_without_git_the_tool_is_told_why_there_are_no_facts(host: Host) -> None:
    host.install("docker")
    assert git_facts(host) == {"MISSING": "no git here"}


@pytest.mark.needs("git")
def test_outside_a_repository_the_tool_is_told_so(host: Host) -> None:
    host.install("docker")
    host.link("git")
    assert git_facts(host, GIT_CEILING_DIRECTORIES=str(host.folder)) == {"MISSING": "not a git repository"}


# --- files of the host


def test_a_dump_to_a_path_appears_there_complete_or_not_at_all(host: Host) -> None:
    host.install("docker")
    host.answer(output="-- SQL")
    out = host.folder / "it's here"
    out.mkdir()
    assert host.run("dump", "./x.sql", cwd=str(out)).stdout == f"{out}/x.sql\n".encode()
    assert (out / "x.sql").read_text() == "-- SQL"
    host.run("dump", f"{out}/x.sql", code=2)
    host.answer(codes={"exec": 13})
    host.run("dump", f"{out}/y.sql", code=13)
    assert [path.name for path in out.iterdir()] == ["x.sql"]


def test_a_dump_to_a_path_in_a_missing_folder_is_refused(host: Host) -> None:
    host.install("docker")
    done = host.run("dump", f"{host.folder}/none/x.sql", code=2)
    assert b"Cannot write beside" in done.stderr


def test_a_file_of_the_host_is_fed_through_stdin(host: Host) -> None:
    host.install("docker")
    (host.folder / "x.sql").write_bytes(b"SELECT 1;")
    host.run("restore-dump", "./x.sql", "--force", cwd=str(host.folder))
    assert host.handover()["read"] == "SELECT 1;"
    assert host.handover()["call"].endswith(" restore-dump - --force")


def test_an_export_to_a_path_appears_there_complete_and_is_written_as_its_name_says(host: Host) -> None:
    host.install("docker")
    host.answer(output="an archive")
    host.run("export", "latest", "./x.tar.gz", cwd=str(host.folder))
    assert (host.folder / "x.tar.gz").read_text() == "an archive", "it is not compressed once more"
    assert host.handover()["call"].endswith(" export latest -")
    assert host.handover()["variables"]["BACKUP_HOST_FILE"] == "x.tar.gz"
    host.answer(codes={"exec": 12})
    host.run("export", "latest", f"{host.folder}/y.tar", code=12)
    assert not (host.folder / "y.tar").exists()


def test_an_archive_of_the_host_is_fed_through_stdin_and_its_key_through_the_environment(host: Host) -> None:
    host.install("docker")
    (host.folder / "x.tar").write_bytes(b"an archive")
    (host.folder / "key.txt").write_text("# a key\nAGE-SECRET-KEY-1\n")
    host.run("import", "-i", "key.txt", "./x.tar", "--name", "two", cwd=str(host.folder))
    assert host.handover()["read"] == "an archive"
    assert host.handover()["call"].endswith(" import - --name two")
    assert "AGE-SECRET-KEY" not in host.handover()["call"]
    assert host.handover()["variables"]["BACKUP_EXPORT_IDENTITY"] == "# a key\nAGE-SECRET-KEY-1"


def test_recipients_in_a_file_of_the_host_go_through_the_environment(host: Host) -> None:
    host.install("docker")
    (host.folder / "keys").write_text("age1one\nage1two\n")
    host.run("export", "latest", "x.tar.age", "--recipients-file", "keys", cwd=str(host.folder))
    assert host.handover()["call"].endswith(" export latest x.tar.age")
    assert host.handover()["variables"]["BACKUP_EXPORT_RECIPIENTS"] == "age1one\nage1two"


@pytest.mark.parametrize("path", ["backups/x.sql", "./backups/x.sql", "backend/../backups/x.sql"])
def test_a_path_into_the_backups_folder_is_a_bare_name(host: Host, path: str) -> None:
    host.install("docker")
    (host.project / "backups").mkdir()
    host.run("restore-dump", path, cwd=str(host.project))
    assert host.handover()["call"].endswith(" restore-dump x.sql")


def test_a_path_that_is_not_here_is_left_to_the_tool(host: Host) -> None:
    host.install("docker")
    host.run("restore-dump", "/app/backups/x.sql")
    assert host.handover()["call"].endswith(" restore-dump /app/backups/x.sql")


def test_a_local_path_is_the_callers(host: Host) -> None:
    host.install("uv")
    (host.folder / "sub").mkdir()
    done = host.run("dump", "sub/../sub/x.sql", cwd=str(host.folder), BACKUP_RUNNER="local")
    assert done.stdout.decode() == f"local:dump {host.folder}/sub/x.sql\n"


@pytest.mark.parametrize("form", [("--to", "new"), ("--to=new",), ("--to", "./new"), ("--to", "../sub folder/new")])
def test_a_new_folder_of_the_host_lies_in_one_that_is_mounted(host: Host, form: tuple[str, ...]) -> None:
    host.install("docker")
    folder = host.folder / "sub folder"
    folder.mkdir()
    host.run("restore", "latest", *form, "--only", "uploads", cwd=str(folder))
    call = host.handover()
    assert call["call"].startswith("docker compose run --rm --no-deps ")
    assert f" -v {folder}:/mnt/backup-target " in call["call"]
    assert call["call"].endswith(" restore latest --to /mnt/backup-target/new --only uploads")
    assert call["variables"]["BACKUP_HOST_MOUNT"] == str(folder)


def test_what_is_taken_out_of_a_backup_goes_to_such_a_folder_or_to_stdout(host: Host) -> None:
    host.install("docker")
    host.answer(output="content")
    host.run("extract", "latest", "/a/*.pdf", "--to", "new", cwd=str(host.folder))
    assert host.handover()["call"].endswith(" extract latest /a/*.pdf --to /mnt/backup-target/new")
    (host.programs / "calls.jsonl").unlink()
    for form in (("--to", "-"), ("--to=-",)):
        done = host.run("extract", "latest", "a.pdf", *form)
        assert done.stdout == b"content" and host.verbs() == ["exec"]
        assert host.handover()["call"].endswith(" extract latest a.pdf --to -")
        (host.programs / "calls.jsonl").unlink()


def test_a_new_folder_in_a_missing_one_is_refused(host: Host) -> None:
    host.install("docker")
    assert b"There is no folder" in host.run("restore", "x", "--to", f"{host.folder}/none/new", code=2).stderr
    assert host.verbs() == []


def test_a_service_is_not_stopped_for_what_touches_nothing_live(host: Host) -> None:
    host.install("docker")
    assert b"--stop" in host.run("restore", "x", "--to", f"{host.folder}/new", "--stop", code=2).stderr
    assert host.verbs() == []


def test_the_app_folder_that_nobody_set_is_told_apart(host: Host) -> None:
    host.install("uv")
    for settings, mark in (({}, True), ({"BACKUP_APP_DIR": f"{host.project}/backend"}, False)):
        host.run("config", BACKUP_RUNNER="local", settings=settings)
        assert ("BACKUP_HOST_FOUND_APP_DIR" in (host.folder / "exported").read_text()) == mark


def test_without_a_container_a_new_folder_is_the_callers(host: Host) -> None:
    host.install("uv")
    done = host.run("restore", "x", "--to", "new", cwd=str(host.folder), BACKUP_RUNNER="local")
    assert done.stdout.decode() == f"local:restore x --to {host.folder}/new\n"


def test_a_file_in_the_root_has_one_slash(host: Host) -> None:
    host.install("uv")
    assert host.run("dump", "/x.sql", BACKUP_RUNNER="local").stdout.decode() == "local:dump /x.sql\n"


@pytest.mark.parametrize("words", [("restore", "x", "--to", ""), ("restore", "x", "--to="), ("clone", "")])
def test_an_empty_folder_is_not_the_callers(host: Host, words: tuple[str, ...]) -> None:
    host.install("docker")
    host.run(*words)
    assert host.verbs() == ["exec"] and "/" not in host.handover()["call"].partition("backup_restore.py")[2]


# --- restore --stop


@pytest.mark.parametrize("command", ["restore", "restore-dump", "undo", "migrate"])
def test_stop_stops_the_service_and_starts_it_again(host: Host, command: str) -> None:
    host.install("docker")
    host.run(command, "x", "--stop", "--force")
    assert host.verbs() == ["stop", "run", "start"]
    assert host.handover()["call"].endswith(f"backup_restore.py {command} x --force")


def test_the_service_starts_again_after_a_failure_with_the_failures_code(host: Host) -> None:
    host.install("docker")
    host.answer(codes={"run": 12})
    host.run("restore", "x", "--stop", code=12)
    assert host.verbs() == ["stop", "run", "start"]


@pytest.mark.parametrize(("codes", "expected"), [({"start": 1}, 3), ({"start": 1, "run": 12}, 12)])
def test_a_service_that_does_not_start_again_is_said(host: Host, codes: dict[str, int], expected: int) -> None:
    host.install("docker")
    host.answer(codes=codes)
    done = host.run("restore", "x", "--stop", code=expected)
    assert b"could not be started again. Run: docker compose up -d backend" in done.stderr


def test_a_service_that_did_not_run_is_not_started(host: Host) -> None:
    host.install("docker")
    host.answer(state="exited")
    assert b"it stays stopped" in host.run("restore", "x", "--stop").stderr
    assert host.verbs() == ["run"]


@pytest.mark.parametrize("look", ["--dry-run", "--help"])
def test_looking_stops_nothing(host: Host, look: str) -> None:
    host.install("docker")
    host.run("restore", "x", "--stop", look)
    assert host.verbs() == ["exec"]


def test_stop_without_a_container_is_no_error(host: Host) -> None:
    host.install("uv")
    done = host.run("restore", "x", "--stop", BACKUP_RUNNER="local")
    assert b"no container to stop. If the app must not run meanwhile, stop it yourself" in done.stderr
    assert done.stdout == b"local:restore x\n"


# --- the local environment


def test_the_environment_is_made_once_and_again_when_the_requirements_change(host: Host) -> None:
    host.install("uv")
    assert b"(once)" in host.run("list", BACKUP_RUNNER="local").stderr
    assert host.run("list", BACKUP_RUNNER="local").stderr == b""
    (host.project / "backend" / "requirements.txt").write_text("# other\n")
    assert b"(once)" in host.run("list", BACKUP_RUNNER="local").stderr


def test_a_half_made_environment_is_never_used(host: Host) -> None:
    host.install("uv")
    (host.programs / "fail").touch()
    (host.programs / "python3").unlink()
    done = host.run("list", code=1, BACKUP_RUNNER="local")
    assert b"Python 3.11 or later is needed" in done.stderr
    assert host.environments() == host.made() == []
    (host.programs / "fail").unlink()
    assert host.run("list", BACKUP_RUNNER="local").stdout == b"local:list\n"


def test_an_environment_whose_python_is_gone_is_made_again(host: Host) -> None:
    host.install("uv")
    host.run("list", BACKUP_RUNNER="local")
    (environment,) = host.environments()
    (environment / "bin" / "python").unlink()
    assert host.run("list", BACKUP_RUNNER="local").stdout == b"local:list\n"


def test_an_environment_of_another_python_is_made_again(host: Host) -> None:
    host.install("uv")
    host.run("list", BACKUP_RUNNER="local")
    (environment,) = host.environments()
    (environment / "lib" / "python3.12").rename(environment / "lib" / "python3.11")
    assert b"(once)" in host.run("list", BACKUP_RUNNER="local").stderr


def test_two_at_once_do_not_break_each_other(host: Host) -> None:
    host.install("uv")
    environment = {"PATH": str(host.programs), "HOME": str(host.folder), "BACKUP_RUNNER": "local"}
    command = [BASH, str(host.project / "backup.sh"), "list"]
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) for _ in range(6)]
    assert [run.communicate()[0] for run in runs] == [b"local:list\n"] * 6
    assert len(host.environments()) == 1


def test_too_old_a_python_is_said_in_one_sentence(host: Host) -> None:
    (host.programs / "python3").unlink()
    host.write_program("python3", f"#!{BASH}\nexit 1\n")
    assert b"Python 3.11 or later is needed" in host.run("list", code=1, BACKUP_RUNNER="local").stderr


def test_a_real_virtual_environment_runs_the_tool(host: Host) -> None:
    (host.programs / "python3").unlink()
    (host.programs / "python3").symlink_to(sys.executable)
    tool = host.project / "backend" / "backup_restore.py"
    tool.write_text("import os, sys; print(sys.argv[1:], os.environ['BACKUP_APP_DIR'], sys.prefix != sys.base_prefix)")
    done = host.run("list", BACKUP_RUNNER="local")
    assert done.stdout.decode() == f"['list'] {host.project}/backend True\n"
    (environment,) = host.environments()
    subprocess.run([environment / "bin" / "pip", "--version"], check=True)  # its scripts find their Python


def test_an_app_folder_beside_the_script_is_found(host: Host) -> None:
    host.install("uv")
    for file in (host.project / "backend").iterdir():
        file.rename(host.project / file.name)
    assert host.run("list", BACKUP_RUNNER="local").stdout == b"local:list\n"


@pytest.mark.needs("shellcheck")
@pytest.mark.parametrize("script", ["backup.sh", "backend/entrypoint.sh"])
def test_shellcheck_has_nothing_to_say(script: str) -> None:
    done = subprocess.run(["shellcheck", str(WRAPPER.parent / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# What macOS's Bash 3.2 lacks: the pattern that finds it, and a line that prints yes if bash has it.
NAME = r"!?\w+(?:\[[^]]*\])?"
NEVER_EMPTY = "compose|filter|flags|pip|rest|way|words"
NEWER_BASH = {
    "an associative array": (r"\b(declare|local|typeset)\s+-\w*A", "declare -A a; a[x]=yes; a[y]=no; echo ${a[x]}"),
    "a reference to a name": (r"\b(declare|local|typeset)\s+-\w*n", "a=yes; declare -n b=a; echo $b"),
    "a global in a function": (r"\b(declare|typeset)\s+-\w*g", "f() { declare -g a=yes; }; f; echo $a"),
    "a name in one case": (r"\b(declare|local|typeset)\s+-\w*[lu]", "declare -l a=YES; echo $a"),
    "the other case": (rf"\$\{{{NAME}(,|\^)", "a=YES; echo ${a,,}"),
    "a value in quotes": (rf"\$\{{{NAME}@[A-Za-z]\}}", "a=yes; eval echo ${a@Q}"),
    "lines as an array": (r"\b(mapfile|readarray)\b", "mapfile -t a <<<yes; echo $a"),
    "both outputs appended": (r"&>>", "echo yes &>>/dev/stdout"),
    "both outputs in a pipe": (r"\|&", "echo yes |& cat"),
    "a process at both ends": (r"\bcoproc\b", "set -e; coproc cat; echo yes"),
    "the next one that ends": (r"\bwait\s+-\w*[nfp]", "true & wait -n && echo yes"),
    "a time from printf": (r"%[-\d]*\([^)]*\)T", "printf '%(yes)T' -1"),
    "printf into an array": (r"\bprintf\s+-v\s*\S+\[", "printf -v 'a[0]' yes; echo $a"),
    "whether a name is set": (r"(\[\[?|!|&&|\|\||\btest)\s+-v\s", "a=1; [[ -v a ]] && echo yes"),
    "a negative subscript": (r"\w\[-\d", "a=(no yes); echo ${a[-1]}"),
    "a negative length": (rf"\$\{{{NAME}:(?![-+=?])[^:}}]*:\s*-", "a=yesno; echo ${a:0:-2}"),
    "a case that goes on": (r";;?&", "case a in a) ;;& *) echo yes ;; esac"),
    "a part of a second": (r"\bread\s.*-t\s*\d*\.\d", "read -t 0.5 a <<<yes; echo $a"),
    "so many letters": (r"\bread\s[^;|&<]*-\w*[Ni]\b", "read -N 3 a <<<yes; echo $a"),
    "any free descriptor": (r"(^|\s)\{\w+\}[<>]", "exec {a}>&1; echo yes >&$a"),
    "a letter by its number": (r"\$'[^']*\\[uU]", "echo $'\\u0079es'"),
    "a range with steps": (r"\{\w+\.\.\w+\.\.\w+\}", "[ '1 3' = \"$(echo {1..3..2})\" ] && echo yes"),
    "later variables": (r"\$\{?(BASHPID|EPOCH\w+|SRANDOM|BASH_ARGV0)\b", "[ $BASHPID ] && echo yes"),
    "later options": (
        r"\bshopt\s.*\b(globstar|lastpipe|inherit_errexit|autocd|dirspell|localvar_inherit)\b",
        "shopt -s globstar && echo yes",
    ),
    "case in a substitution": (r"\$\([^)]*\bcase\b.*\sin\s+[^(\s]", "echo $(case a in a) echo yes ;; esac)"),
    "a script out of a process": (r"(^|\s)(\.|source)\s+<\(", ". <(echo echo yes)"),
    "an escaped quote in quotes": (
        rf"\"[^\"]*\$\{{{NAME}//?[^\"}}]*\\'",
        r"""a="it's"; [ "${a//\'/\'\\\'\'}" = "it'\\''s" ] && echo yes""",
    ),
    "an array that may be empty": (
        rf'(?<!\+)"\$\{{(?!(?:{NEVER_EMPTY})\b)\w+\[[@*]\](:[^}}]*)?\}}"',
        'set -u; a=(); echo yes "${a[@]}"',
    ),
}


def is_old(bash: str) -> bool:
    return subprocess.run([bash, "-c", "exit $((BASH_VERSINFO[0] > 3))"]).returncode == 0


@pytest.mark.parametrize("what", NEWER_BASH)
def test_the_wrapper_does_without_what_bash_3_does_not_have(what: str) -> None:
    """Run under an old bash (see CONTRIBUTING.md), the test also shows that such a bash fails on the line."""
    pattern, line = NEWER_BASH[what]
    assert re.search(pattern, line), "the pattern finds the line"
    said = subprocess.run([BASH, "-c", line], capture_output=True, text=True).stdout.strip()
    assert (said == "yes") == (not is_old(BASH)), said
    code = (line for line in WRAPPER.read_text().splitlines() if not line.lstrip().startswith("#"))
    assert [line for line in code if re.search(pattern, line)] == []


def test_another_shell_hands_the_wrapper_over_to_bash(host: Host) -> None:
    host.install("docker")
    host.link("sh")
    done = subprocess.run(
        ["sh", host.project / "backup.sh", "rows", "a b", "*"],
        env={"PATH": str(host.programs), "HOME": str(host.folder)},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert after(host.handover()["call"], "backup_restore.py") == "rows a b *"


def test_the_rules_of_posix_are_switched_off(host: Host) -> None:
    """In this mode Bash 3.2 knows no `<(…)`; in a later one only the variable shows the mode."""
    host.write_program("docker", f'#!{BASH}\necho "${{POSIXLY_CORRECT-none}}" >>{host.folder}/seen\nexit 1\n')
    host.run("list", code=1, BACKUP_RUNNER="docker", POSIXLY_CORRECT="1")
    assert set((host.folder / "seen").read_text().split()) == {"none"}


# Programs as macOS has them


def test_the_programs_of_bsd_do_all_that_is_asked_of_them(host: Host) -> None:
    programs = bsd.Programs(host.programs)
    host.install("docker", "uv")
    (host.folder / "link.sh").symlink_to(host.project / "backup.sh")
    host.answer(restarts=3, since="2999-01-01T00:00:00Z")
    assert start(host, host.folder / "link.sh", "list") and host.verbs() == ["run"]
    host.answer(restarts=3, since="2020-01-01T00:00:00Z")
    assert start(host, host.project / "backup.sh", "config") and host.verbs() == ["run", "exec"]
    host.run("dump", "./dump.sql.gz", cwd=str(host.folder))
    host.answer(output='<meta content="backupkit report 1">')
    for _ in range(2):
        host.run("report", "--output", "./page.html", cwd=str(host.folder))
    host.run("list", BACKUP_RUNNER="local")
    says = f"case $* in *--show-toplevel) echo {host.project} ;; esac"  # the owner is asked next
    host.write_program("git", f"#!{BASH}\n{says}\n")
    (host.project / ".git").mkdir()
    host.run("auto-backup", BACKUP_RUNNER="local")
    assert {one.partition(" @")[0] for one in programs.refused()} == {"date -u -d"}, "and then date -r does it"
    assert set(SYSTEM_PROGRAMS.split()) - {"bash", "env", "python3"} <= programs.used(), "all are called here"


def test_a_word_of_gnu_is_refused_by_them(tmp_path: Path) -> None:
    programs = bsd.Programs(tmp_path)
    for line in ("readlink -f x", "mktemp --directory x", "cp x y -p", "find . -printf x", "date -d yesterday"):
        assert subprocess.run(["/bin/sh", "-c", line], env={"PATH": str(tmp_path)}, capture_output=True).returncode
        assert programs.refused()[-1] == line


def start(host: Host, script: Path, *words: str) -> bool:
    environment = {"PATH": str(host.programs), "HOME": str(host.folder)}
    return subprocess.run([BASH, script, *words], env=environment, stdin=subprocess.DEVNULL).returncode == 0


# The wrapper's settings in backup.toml


def toml(host: Host, text: str) -> None:
    (host.project / "backend" / "backup.toml").write_text(text)


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ('service = "database"\n', "database"),
        ("  service='database'  # ours", "database"),
        ('timezone = "UTC"\r\nservice = "database"\r\n', "database"),
        ('# service = "database"\n', "backend"),
        ('service_name = "database"\n', "backend"),
        ('service = "data base"\n', "backend"),
        ('service = "$(touch /tmp/x)"\n', "backend"),
        ('[later]\nservice = "database"\n', "backend"),
        ("", "backend"),
    ],
)
def test_the_service_is_read_from_backup_toml(host: Host, text: str, called: str) -> None:
    host.install("docker")
    toml(host, text)
    host.answer(state="")
    host.run("list")
    assert f" {called} backup_restore.py list" in host.handover()["call"]
    assert host.handover()["variables"]["BACKUP_SERVICE"] == called


def test_the_environment_is_stronger_than_backup_toml(host: Host) -> None:
    host.install("docker", "uv")
    toml(host, 'service = "nowhere"\nrunner = "docker"\n')
    assert host.run("list", BACKUP_RUNNER="local").stdout == b"local:list\n"
    host.run("list", BACKUP_SERVICE="backend")
    assert host.verbs() == ["exec"]


def test_the_runner_is_read_from_backup_toml(host: Host) -> None:
    host.install("docker", "uv")
    toml(host, 'runner = "local"')
    assert host.run("list").stdout == b"local:list\n"
    toml(host, 'runner = "vm"\n')
    assert b"BACKUP_RUNNER is 'vm'; it can be auto, docker or local." in host.run("list", code=2).stderr


def test_a_backup_toml_that_is_a_folder_or_unreadable_stops_no_command(host: Host) -> None:
    host.install("docker")
    (host.project / "backend" / "backup.toml").mkdir()
    host.run("list")
    assert host.verbs() == ["exec"]


def test_what_config_says_of_the_service_is_where_it_was_set(host: Host) -> None:
    host.install("docker")
    toml(host, 'service = "backend"\n')
    host.run("config", "set", "service", "database")
    assert "BACKUP_SERVICE" not in host.handover()["variables"]
    assert host.handover()["call"].endswith(" config set service database")


@pytest.mark.parametrize(("services", "told"), [("backend\nschedulers", None), ("scheduler\nbackend", "scheduler")])
def test_doctor_is_told_whether_the_compose_file_has_a_scheduler(host: Host, services: str, told: str | None) -> None:
    host.install("docker")
    host.answer(services=services)
    host.run("doctor")
    assert host.handover()["variables"].get("BACKUP_HOST_SCHEDULER") == told


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        (["BACKUP_DATABASE: data/app.db"], "BACKUP_DATABASE"),
        (['"BACKUP_DATABASE": "data/app.db"', "BACKUP_DIR: /backups"], "BACKUP_DATABASE BACKUP_DIR"),
        (["- BACKUP_UPLOADS=media", "- 'BACKUP_ALEMBIC_INI=x.ini'"], "BACKUP_UPLOADS BACKUP_ALEMBIC_INI"),
        (["# BACKUP_DATABASE: data/app.db", "BACKUP_DIR:", "BACKUP_TIMEZONE: UTC", "X: ${BACKUP_DIR:-x}"], ""),
    ],
)
def test_the_tool_is_told_which_settings_the_compose_file_has(host: Host, lines: list[str], seen: str) -> None:
    host.install("docker")
    compose = host.project / "docker-compose.yml"
    compose.write_text(compose.read_text() + "".join(f"      {line}\n" for line in ("environment:", *lines)))
    host.run("doctor")
    assert host.handover()["variables"]["BACKUP_HOST_COMPOSE_SETS"].split() == seen.split()


@pytest.mark.needs("git")
def test_a_recovery_sheet_for_a_path_is_written_here_with_what_is_known_here(host: Host) -> None:
    host.install("docker")
    host.link("git")
    host.answer(output="# Recovery sheet\n")
    made = commit(host.project)
    subprocess.run([*GIT, "-C", str(host.project), "remote", "add", "origin", "git@example.org:x.git"], check=True)
    host.run("recovery-kit", "./sheet.md", cwd=str(host.folder))
    assert (host.folder / "sheet.md").read_text() == "# Recovery sheet\n"
    told = host.handover()["variables"]
    assert host.handover()["call"].endswith(" recovery-kit -")
    assert (told["BACKUP_GIT_COMMIT"], told["BACKUP_HOST_ORIGIN"]) == (made, "git@example.org:x.git")
    assert told["BACKUP_HOST_FOLDER"] == str(host.project)
    assert b"exists already" in host.run("recovery-kit", "./sheet.md", cwd=str(host.folder), code=2).stderr


@pytest.mark.parametrize("words", [["--output", "./page.html"], ["--output=./page.html"], ["-o./page.html"]])
def test_a_report_for_a_path_is_written_here_and_takes_the_place_of_an_earlier_one(
    host: Host, words: list[str]
) -> None:
    host.install("docker")
    page = host.folder / "page.html"
    page.write_text('<meta name="generator" content="backupkit report of yesterday">')
    page.chmod(0o604)
    host.answer(output="the report of today")
    host.run("report", *words, cwd=str(host.folder))
    assert page.read_text() == "the report of today"
    assert page.stat().st_mode & 0o777 == 0o604
    assert host.handover()["call"].endswith(" report --output -")
    page.write_text("a page of somebody's own")
    assert b"exists already" in host.run("report", *words, cwd=str(host.folder), code=2).stderr
    assert page.read_text() == "a page of somebody's own"


def test_a_new_report_may_be_read_by_whom_the_umask_lets(host: Host) -> None:
    host.install("docker")
    before = os.umask(0o027)
    try:
        host.run("report", "-o", "./page.html", cwd=str(host.folder))
    finally:
        os.umask(before)
    assert (host.folder / "page.html").stat().st_mode & 0o777 == 0o640
