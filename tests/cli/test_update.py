"""Every way in which `./backup.sh update` can end, on a stub engine that has images and containers.

`tests/docker/test_real_update.py` does it on a real engine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bsd

WRAPPER = Path(__file__).resolve().parents[2] / "backup.sh"

# Keeps its state in a file. A build makes the image `new`, and `answers` replaces the usual answers.
ENGINE = f"""#!{sys.executable}
import json, os, pathlib, sys, time
place = pathlib.Path(__file__).parent / "engine.json"
state = json.loads(place.read_text())
images, containers, answers = state["images"], state["containers"], state["answers"]
words = sys.argv[1:]

def leave(code=0):
    draft = place.with_name(f"draft-{{os.getpid()}}")
    draft.write_text(json.dumps(state))
    draft.rename(place)
    sys.exit(code)

if words[0] == "compose":
    words = words[1:]
    if words[0] == answers.get("slow"):
        (place.parent / "slow").touch()
        time.sleep(1)
    if words[0] == answers.get("full") and not os.path.lexists(".backup-update/state.new"):
        os.symlink("/dev/full", ".backup-update/state.new")
    if words[0] == "config" and "--services" in words:
        print("\\n".join(containers))
    elif words[0] == "config":
        print("services:")
        for name, one in containers.items():
            how = "" if "pull" in answers else "\\n    build:\\n      context: ."
            print(f"  {{name}}:{{how}}\\n    image: {{one.get('name', state['tag'])}}")
    elif words[0] == "ps":
        print("\\n".join(containers))
    elif words[0] == "build":
        images[state["tag"]] = answers.get("new", "sha256:new")
        leave(answers.get("build", 0))
    elif words[0] == "pull":
        leave(answers["pull"])
    elif words[0] == "stop":
        for name in words[1:]:
            containers[name]["status"] = "exited"
    elif words[0] == "up":
        state["scales"] = [word for word in words if "=" in word]
        for name in words[1:]:
            if name in containers:
                image = images[state["tag"]]
                containers[name] |= {{"image": image, "status": "running", "health": "healthy"}}
                containers[name] |= answers.get(f"{{name}} on {{image}}", {{}})
    elif words[0] in ("run", "exec"):
        command = words[words.index("backup_restore.py") + 1 :]
        image = images[state["tag"]] if words[0] == "run" else containers["backend"]["image"]
        state["ran"].append(" ".join([image.removeprefix("sha256:"), *command]))
        if command[0] == "auto-backup":
            print(json.dumps({{"backup_name": f"auto_{{len(state['ran'])}}"}}))
        leave(answers.get(command[0], 0))
elif words[0] == "tag":
    images[words[2]] = images.get(words[1], words[1])
elif words[:2] == ["image", "rm"]:
    images.pop(words[2], None)
elif words[0] == "image":
    print(images.get(words[-1], ""))
elif words[0] in ("stop", "exec"):
    leave(1)
elif words[0] == "inspect":
    for name, one in containers.items():
        told = {{"status": "running", "restarts": 0, "health": "healthy"}} | one
        if "Config.Image" in words[2]:
            rest = f"{{told['status']}}|{{told['image']}}|{{told.get('was', state['tag'])}}"
        elif "StartedAt" in words[2]:
            rest = f"{{told['status']}}|0|2020-01-01T00:00:00Z"
        elif ".Image" in words[2]:
            rest = told["image"]
        else:
            rest = f"{{told['status']}} {{told['restarts']}} {{told['health']}}"
        print(f"{{name}}|False|{{rest}}\\n" * one.get("count", 1), end="")
leave()
"""
UNHEALTHY = {"status": "running", "health": "unhealthy"}


class Machine:
    """A project whose services `backend` and `scheduler` run on the image `app:1`."""

    def __init__(self, folder: Path) -> None:
        self.project, self.programs = folder / "project", folder / "programs"
        (self.project / "backend").mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(WRAPPER, self.project)
        (self.project / "docker-compose.yml").write_text("services:\n")
        (self.project / "backend" / "backup_restore.py").write_text("")
        (self.programs / "docker").write_text(ENGINE)
        (self.programs / "docker").chmod(0o755)
        on_old = {"image": "sha256:old", "status": "running"}
        self.state: dict[str, Any] = {
            "tag": "app:1",
            "images": {"app:1": "sha256:old"},
            "containers": {"backend": dict(on_old), "scheduler": dict(on_old)},
            "answers": {},
            "ran": [],
        }
        self.ledger = self.project / ".backup-update" / "state"
        self.write()

    def write(self) -> None:
        (self.programs / "engine.json").write_text(json.dumps(self.state))

    def answer(self, **answers: Any) -> None:
        self.state["answers"] |= answers
        self.write()

    def run(self, *words: str, code: int = 0, **settings: str) -> tuple[str, str]:
        """Return stdout and stderr of `backup.sh`, and read the state that the engine has then."""
        done = subprocess.run(
            ["bash", str(self.project / "backup.sh"), *words],
            env={"PATH": f"{self.programs}:{os.environ['PATH']}", "HOME": str(self.project), **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        self.read()
        return done.stdout, done.stderr

    def read(self) -> None:
        self.state = json.loads((self.programs / "engine.json").read_text())

    def interrupted(self, step: str, image: str = "sha256:old", status: str = "exited") -> None:
        """Leave the project as a power cut in that step does."""
        self.ledger.parent.mkdir()
        self.ledger.write_text("\n".join([step, "sha256:old", "app:1", "app:1", "backend scheduler", "auto_2", ""]))
        (self.ledger.parent / "holder").write_text("999999\nThu Jan  1 00:00:00 1970\n")
        for one in self.state["containers"].values():
            one |= {"image": image, "status": status}
        self.state["images"]["app:1"] = "sha256:new"
        self.write()

    @property
    def ran(self) -> list[str]:
        """The toolkit's commands, each with the image that it ran on."""
        return [" ".join(word for word in one.split(" --note ")[0].split()) for one in self.state["ran"]]

    def runs_on(self, image: str) -> bool:
        """Return whether all services run on that image, and `app:1` names it."""
        told = self.state["containers"].values()
        return {(one["image"], one["status"]) for one in told} == {(image, "running")} and (
            self.state["images"]["app:1"] == image
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_good_image(machine: Machine) -> None:
    said, _ = machine.run("update", "--expect-loss", "comments")
    assert machine.ran == [
        "new migrate --dry-run --if-any --expect-loss comments",
        "old auto-backup",
        "old auto-backup",
        "new migrate --if-any --expect-loss comments",
        "new pin auto_3",
    ]
    assert machine.runs_on("sha256:new") and machine.state["images"]["app:before-update"] == "sha256:old"
    assert said == "Updated. auto_3 has the data of before, and app:before-update is the image of before.\n"
    assert not machine.ledger.exists()
    machine.answer(new="sha256:newer")
    machine.run("update")
    assert machine.ran[-1] == "newer unpin auto_3"


def test_what_is_no_update_leaves_the_name_of_the_image_before_the_last_one(machine: Machine) -> None:
    machine.run("update")
    machine.run("update")  # there is nothing new
    machine.answer(new="sha256:newer")
    machine.run("update", "--dry-run")
    machine.answer(build=1)
    machine.run("update", code=1)
    images = {"app:1": "sha256:new", "app:before-update": "sha256:old"}
    assert machine.state["images"] == images and machine.runs_on("sha256:new")


def test_the_programs_of_bsd_are_enough(machine: Machine) -> None:
    programs = bsd.Programs(machine.programs)
    machine.run("update")
    machine.answer(new="sha256:newer")
    machine.run("update")
    machine.answer(new="sha256:newest", **{"backend on sha256:newest": UNHEALTHY})
    machine.run("update", code=1)
    assert {"head", "ps", "sync"} <= programs.used()
    assert {one.partition(" @")[0] for one in programs.refused()} == {"date -u -d"}


@pytest.mark.parametrize(("failing", "code", "ran"), [("build", 1, 0), ("migrate", 14, 1)])
def test_what_fails_before_anything_stops(machine: Machine, failing: str, code: int, ran: int) -> None:
    machine.answer(**{failing: code})
    machine.run("update", code=code)
    assert len(machine.ran) == ran and machine.runs_on("sha256:old") and not machine.ledger.exists()


@pytest.mark.parametrize(
    "sick", [{"backend on sha256:new": UNHEALTHY}, {"scheduler on sha256:new": {"status": "restarting"}}]
)
def test_what_does_not_come_up(machine: Machine, sick: dict[str, Any]) -> None:
    machine.answer(**sick)
    _, said = machine.run("update", code=1)
    assert machine.ran[-1] == "old restore auto_3 --yes"
    assert machine.runs_on("sha256:old") and "does not come up" in said and not machine.ledger.exists()


def test_an_old_image_that_does_not_come_up_either_is_not_forgotten(machine: Machine) -> None:
    machine.answer(**{"backend on sha256:new": UNHEALTHY, "backend on sha256:old": UNHEALTHY})
    _, said = machine.run("update", code=1)
    assert "runs again" not in said and "on the old image" in said and machine.ledger.exists()
    machine.run("recover", code=1)
    machine.answer(**{"backend on sha256:old": {"status": "running", "health": "healthy"}})
    machine.run("recover")
    assert not machine.ledger.exists() and machine.ran.count("old restore auto_3 --yes") == 1


def test_data_that_does_not_come_back_keeps_the_services_stopped(machine: Machine) -> None:
    machine.answer(**{"backend on sha256:new": UNHEALTHY, "restore": 12})
    _, said = machine.run("update", code=12)
    assert {one["status"] for one in machine.state["containers"].values()} == {"exited"}
    assert machine.ledger.exists() and "recover" in said


@pytest.mark.parametrize("command", ["recover", "update"])
def test_a_killed_update_goes_back(machine: Machine, command: str) -> None:
    machine.interrupted("migrating")
    machine.run(command)
    assert machine.ran[0] == "old restore auto_2 --yes" and not machine.ledger.exists()
    assert machine.runs_on("sha256:new" if command == "update" else "sha256:old")


def test_a_killed_update_whose_new_image_runs_is_done(machine: Machine) -> None:
    machine.interrupted("starting", "sha256:new", "running")
    _, said = machine.run("recover")
    assert machine.ran == ["new pin auto_2", "new recover"] and machine.runs_on("sha256:new")
    assert (
        machine.state["images"]["app:before-update"] == "sha256:old"
        and not machine.ledger.exists()
        and "auto_2" in said
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [(("update", "--help"), 0), (("recover", "--help"), 0), (("update", "--dry-run"), 1), (("update", "--typo"), 2)],
)
def test_a_question_takes_nothing_back(machine: Machine, words: tuple[str, ...], code: int) -> None:
    machine.interrupted("migrating")
    machine.run(*words, code=code)
    assert not [one for one in machine.ran if "restore" in one] and machine.ledger.exists()


def test_every_command_says_that_an_update_is_unfinished(machine: Machine) -> None:
    machine.interrupted("migrating")
    for words in (("list",), ("auto-backup", "--quiet")):
        assert "An update was interrupted" in machine.run(*words)[1]
    assert "Start the engine" in machine.run("recover", code=1, BACKUP_RUNNER="local")[1]


def test_a_dry_run_with_another_tag_leaves_that_the_new_images(machine: Machine) -> None:
    machine.state["tag"] = "app:2"
    for one in machine.state["containers"].values():
        one["was"] = "app:1"
    machine.write()
    machine.run("update", "--dry-run")
    assert machine.state["images"] == {"app:1": "sha256:old", "app:2": "sha256:new"}
    assert machine.ran == ["new migrate --dry-run --if-any"]


def test_migrations_that_could_not_be_run_are_refused(machine: Machine) -> None:
    machine.state["containers"]["backup"] = {"image": "sha256:kit", "status": "running", "name": "kit:1"}
    machine.write()
    _, said = machine.run("update", code=2, BACKUP_SERVICE="backup", BACKUP_APP_SERVICE="backend")
    assert "another image" in said and machine.ran == []


def test_an_update_goes_back_when_its_terminal_has_gone(machine: Machine) -> None:
    """Ctrl-C in `update | tee log` ends tee too, so that nobody reads the output any more."""
    machine.answer(**{"backend on sha256:new": {"status": "running", "health": "starting"}})
    process = subprocess.Popen(
        ["bash", "-c", f"'{machine.project}/backup.sh' update 2>&1 | head -n 6 >/dev/null"],
        env={"PATH": f"{machine.programs}:{os.environ['PATH']}", "HOME": str(machine.project)},
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (machine.ledger.exists() and machine.ledger.read_text().startswith("starting\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.wait()
    while machine.ledger.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    machine.read()
    assert "old restore auto_3 --yes" in machine.ran
    assert machine.runs_on("sha256:old")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["build", "run", "exec", "stop", "up"])
def test_an_update_that_is_interrupted_says_only_that_and_goes_back(machine: Machine, step: str, number: int) -> None:
    machine.answer(slow=step)
    with subprocess.Popen(
        ["bash", str(machine.project / "backup.sh"), "update"],
        env={"PATH": f"{machine.programs}:{os.environ['PATH']}", "HOME": str(machine.project)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        while not (machine.programs / "slow").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, number)
        said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    assert said[-1] == "backup.sh: Interrupted. What ran before runs again."
    assert not [line for line in said if "(see above)" in line or "does not come up" in line]
    machine.read()
    assert machine.runs_on("sha256:old") and not machine.ledger.exists()
    assert bool(machine.ran) == (step != "build")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("moment", "code"), [("stop", 15), ("up", 1)])
def test_a_full_disk_leaves_the_old_image_running(machine: Machine, moment: str, code: int) -> None:
    machine.answer(full=moment, **{"backend on sha256:new": UNHEALTHY})
    _, said = machine.run("update", code=code)
    assert said.endswith("What ran before runs again.\n")
    assert machine.runs_on("sha256:old") and not machine.ledger.exists()


def test_a_pull_that_fails_leaves_the_names_as_they_were_found(machine: Machine) -> None:
    """An image that somebody loaded may have the name by now."""
    machine.state["images"]["app:1"] = "sha256:loaded"
    machine.answer(pull=1)
    machine.run("update", code=1)
    assert machine.state["images"] == {"app:1": "sha256:loaded"} and machine.ran == []


def test_a_service_keeps_the_number_of_its_containers(machine: Machine) -> None:
    machine.state["containers"]["backend"]["count"] = 2
    machine.write()
    _, said = machine.run("update")
    assert "'backend scheduler' starts" in said and machine.state["scales"] == ["backend=2"]


def test_without_ps_a_holder_that_is_gone_holds_nothing(machine: Machine) -> None:
    machine.interrupted("migrating")
    (machine.ledger.parent / "holder").write_text("999999\n\n")
    (machine.programs / "ps").write_text("#!/bin/sh\nexit 127\n")
    (machine.programs / "ps").chmod(0o755)
    machine.run("recover")
    assert machine.runs_on("sha256:old")
