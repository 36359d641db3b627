"""A separate project for one test: the repository's files as in a clone, with its own data and its own service."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from engine import IMAGE, REPOSITORY, Engine, run, wait_until
from people import PERSON

LISTENS = f":{8000:04X} 00000000:0000 0A"  # as /proc/net/tcp writes it
GIT = ["git", "-c", "user.name=A Tester", "-c", "user.email=tester@example.org"]
NOT_CLONED = shutil.ignore_patterns("__pycache__", "*.egg-info", "data", "uploads", "build")

OVERRIDE: dict[str, Any] = {
    "image": IMAGE,
    "build": {"network": "host"},
    "network_mode": "none",
}

QUICK = {"interval": "1s"}  # for tests that wait for the health check; each check starts a process
# The scheduler starts with the app only in the tests that are about it.
SCHEDULER: dict[str, Any] = {"image": IMAGE, "network_mode": "none", "profiles": ["scheduler"]}
WEB: dict[str, Any] = {"image": IMAGE, "network_mode": "none"}

CALL = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
connection.request(sys.argv[1], sys.argv[2], sys.argv[3] or None)
answer = connection.getresponse()
print(answer.read().decode())
sys.exit(answer.status != 200)
"""

# Writes rows and documents until its input ends, then prints how many answers there were of each status.
WRITER = """
import collections, http.client, json, select, sys
answers = collections.Counter()
def post(path, body):
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
    connection.request("POST", path, body)
    answer = connection.getresponse()
    answers[answer.status] += 1
    return json.loads(answer.read())
print("writing", flush=True)
while not select.select([sys.stdin], [], [], float(sys.argv[1]))[0]:
    made = post("/applications", json.dumps({"company": "Busy", "position": "writer"}))
    if answers[200] % 10 == 0:
        post("/documents?application=1&name=busy.txt", "busy" * 1000)
print(json.dumps(answers))
"""


class Project:
    """What a person at a terminal in the project's folder can do and see."""

    def __init__(self, folder: Path, engine: Engine, settings: dict[str, str]) -> None:
        self.folder, self.engine = folder, engine
        self.environment = engine.environment | settings
        self.service: dict[str, Any] = dict(OVERRIDE)
        self.scheduler: dict[str, Any] = dict(SCHEDULER)
        self.web: dict[str, Any] = dict(WEB)
        self.uploads, self.backups = folder / "backend" / "uploads", folder / "backups"
        self.database = folder / "backend" / "data" / "pats.db"
        self.clone()
        self.override()

    def clone(self) -> None:
        shutil.copytree(REPOSITORY / "backend", self.folder / "backend", ignore=NOT_CLONED)
        for name in ("backup.sh", "docker-compose.yml"):
            shutil.copy(REPOSITORY / name, self.folder / name)
        for place in (self.database.parent, self.uploads, self.backups):
            place.mkdir()
        (self.folder / ".gitignore").write_text("/backend/data/\n/backend/uploads/\n/backups/\n__pycache__/\n")
        for command in (["init", "-q", "-b", "feature/search"], ["add", "-A"], ["commit", "-qm", 'Say "hello"']):
            run([*GIT, "-C", str(self.folder), *command], os.environ)
        if self.engine.rootless:
            run(["chown", "--recursive", f"{PERSON}:{PERSON}", str(self.folder)], os.environ)

    def override(self, **service: Any) -> None:
        """Write the override of the compose file, with what this test changes in the app's service."""
        self.service |= service
        services = {"backend": self.service, "scheduler": self.scheduler, "web": self.web}
        text = json.dumps({"services": services}, indent=2)
        (self.folder / "docker-compose.override.yml").write_text(text)

    # --- the service

    @property
    def client(self) -> Sequence[str]:
        """The words that start the client where the engine is."""
        return self.engine.client

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*self.client, "compose", "--project-directory", str(self.folder)]
        for name in ("docker-compose.yml", "docker-compose.override.yml"):
            command += ["-f", str(self.folder / name)]
        return run([*command, *arguments], self.environment, check=check)

    def up(self) -> None:
        """Start the service, and return when the app answers."""
        self.compose("up", "--detach", "--no-build")
        assert wait_until(self.answers), f"it does not answer:\n{self.logs()}"

    def answers(self) -> bool:
        """Return whether something listens on the app's port, as the kernel says: other ways would cost a process."""
        lines = Path(f"/proc/{self.inspect('State.Pid')}/net/tcp")
        return lines.exists() and LISTENS in lines.read_text()

    def down(self) -> None:
        for container in self._ids(project=self.name):
            self.engine.ask("DELETE", f"/containers/{container}", force=True, v=True, timeout=5)

    def container(self) -> str:
        """Return the service's container, not the one-off container of a command."""
        (container,) = self.containers("False")
        return container

    def containers(self, one_off: str, service: str = "backend") -> list[str]:
        return self._ids(project=self.name, oneoff=one_off, service=service)

    def running(self, one_off: str, service: str = "backend") -> list[str]:
        """Return the containers that run, not those that are being made or removed."""
        return self._ids("running", project=self.name, oneoff=one_off, service=service)

    def _ids(self, *states: str, **labels: str) -> list[str]:
        wanted = {"label": [f"com.docker.compose.{name}={value}" for name, value in labels.items()]}
        wanted |= {"status": list(states)} if states else {}
        return [str(one["Id"]) for one in self.engine.ask("GET", "/containers/json", all=True, filters=wanted)]

    @property
    def name(self) -> str:
        return self.environment["COMPOSE_PROJECT_NAME"]

    def inspect(self, path: str, container: str = "") -> Any:
        """Return what the engine knows of that container (default: the service's), like `State.Health.Status`."""
        told = self.engine.ask("GET", f"/containers/{container or self.container()}/json")
        for name in path.split("."):
            told = told[name]
        return told

    def state(self) -> str:
        return str(self.inspect("State.Status"))

    def logs(self, container: str = "") -> str:
        """Return what that container (default: the service's) has printed."""
        done = self.engine.docker("logs", container or self.container())
        return done.stdout + done.stderr

    def inside(self, *command: str) -> str:
        return self.engine.docker("exec", self.container(), *command).stdout

    # --- the app

    def call(self, method: str, address: str, body: str = "") -> Any:
        return json.loads(self.inside("python", "-c", CALL, method, address, body))

    def add_application(self, company: str) -> int:
        return int(self.call("POST", "/applications", json.dumps({"company": company, "position": "x"}))["id"])

    def add_document(self, application: int, content: str) -> Path:
        made = self.call("POST", f"/documents?application={application}&name=letter.txt", content)
        return self.uploads / str(made["path"])

    def companies(self) -> set[str]:
        """Return the companies applied to, read from the database file, whether the service is up or down."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            return {str(name) for (name,) in connection.execute("SELECT name FROM companies")}

    @contextmanager
    def writing(self, pause: float = 0.01) -> Iterator[dict[str, int]]:
        """Write rows and documents through the app until the block ends; then the dict has the answers by status."""
        command = [*self.engine.client, "exec", "--interactive", self.container(), "python", "-c", WRITER, str(pause)]
        pipe = subprocess.PIPE
        answers: dict[str, int] = {}
        with subprocess.Popen(command, env=self.environment, stdin=pipe, stdout=pipe, text=True) as writer:
            assert writer.stdout and writer.stdout.readline() == "writing\n"
            try:
                yield answers
            finally:
                answers |= json.loads(writer.communicate(timeout=60)[0] or "{}")

    # --- the toolkit

    def backup_sh(
        self,
        *arguments: str,
        code: int = 0,
        or_code: int | None = None,
        prefix: Sequence[str] = (),
        content: bytes = b"",
        **settings: str,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `./backup.sh …` without a terminal; it must end with one of the given codes."""
        done = subprocess.run(
            [*self.engine.place, *prefix, str(self.folder / "backup.sh"), *arguments],
            env=self.environment | settings,
            input=content,
            capture_output=True,
            cwd="/",
        )
        said = f"{done.stdout.decode(errors='replace')[-3000:]}\n{done.stderr.decode()[-3000:]}"
        assert done.returncode in (code, or_code), f"{arguments} ended with {done.returncode}, not {code}:\n{said}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.backup_sh(*arguments, "--json").stdout)

    def names(self) -> list[str]:
        return [one["backup_name"] for one in self.json("list")]
