"""What the demo plays on: the narrator, the commands as real processes, the folder that is gone at the end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backupkit.config.deployment import Deployment, deployment_from
from backupkit.fs import disk
from backupkit.model.errors import ExitCode
from backupkit.model.names import first_of
from demo.app import DEADLINE, ScratchApp

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class CannotGoOn(Exception):
    """A command did not end as it had to: what follows would prove nothing. The failed proof is noted already."""


class Narrator:
    """Tells the story on stdout, in colour where there is a terminal, and keeps the count of the proofs."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
        self._begun = time.monotonic()
        self._steps = 0
        self.interrupted = False
        self.proofs = 0
        self.failures: list[str] = []
        self.result = ""

    def step(self, title: str) -> None:
        """The next step begins."""
        self._steps += 1
        self._put(f"\n{self._steps}. {title}", "bold cyan")

    def say(self, text: str) -> None:
        """A sentence of the step."""
        self._put(f"   {text}")

    def announce(self, text: str) -> None:
        """A line that belongs to no step, and is said in any case."""
        self._console.print(text)

    def typed(self, command: str) -> None:
        """A command, as a person would type it."""
        self._put(f"   $ {command}", "bold")

    def output(self, text: str) -> None:
        """What a command printed."""
        for line in text.splitlines():
            self._put(f"       {line}".rstrip(), "dim")

    def prove(self, claim: str, problems: list[str]) -> None:
        """The claim holds where there are no problems; otherwise the demo fails, and goes on."""
        self.proofs += 1
        if not problems:
            return self._put(f"   ok      {claim}", "green")
        self.failures.append(f"{claim}: {first_of(problems)}")
        self._put(f"   FAILED  {self.failures[-1]}", "bold red")

    def interrupt(self, _number: int, _frame: object) -> None:
        """The handler of Ctrl-C and its like: the story ends here, or at its next line."""
        self.interrupted = True
        raise KeyboardInterrupt

    def _put(self, text: str, style: str | None = None) -> None:
        # Python loses what is raised while it collects garbage, and SQLAlchemy leaves much of that.
        if self.interrupted:
            raise KeyboardInterrupt
        self._console.print(text, style=style)

    def seconds(self) -> str:
        """How long the story has taken."""
        return f"{time.monotonic() - self._begun:.1f} s"


@dataclass(frozen=True)
class Stage:
    """A scratch app, the program that acts on it, and the one who tells of it."""

    narrator: Narrator
    script: Path
    app: ScratchApp

    def run(self, *words: str, code: int = ExitCode.DONE, results_only: bool = False) -> str:
        """What the command printed; it has ended with that code, or the story is over."""
        self.narrator.typed(own_deployment().tool(shlex.join(words)))
        return self._finish([sys.executable, str(self.script), *words], code, results_only)

    def run_line(self, line: str) -> None:
        """A line that the toolkit told the person to type, run by a shell as it stands."""
        self.narrator.typed(line)
        self._finish(["sh", "-c", line], ExitCode.DONE, False)

    def _finish(self, command: list[str], code: int, results_only: bool) -> str:
        ended, results, everything = _run(command, self.app.folder)
        self.narrator.output(results if results_only and ended == code else everything)
        if ended != code:
            self.narrator.prove(f"the command ends with exit code {int(code)}", [f"it ended with {ended}"])
            raise CannotGoOn
        return everything


def _run(command: list[str], app: Path) -> tuple[int, str, str]:
    """Exit code, results, and notices and results together; the process and its children are gone."""
    process = subprocess.Popen(
        command,
        cwd=app,
        env=_clean_environment(app),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with process:
        try:
            results, notices = process.communicate(timeout=DEADLINE)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it may have ended just now
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return -1, "", f"It had not ended after {DEADLINE} seconds."
            raise
    return process.returncode, results, notices + results


def _clean_environment(app: Path) -> dict[str, str]:
    """The caller's environment without its settings, which would point at the caller's own data."""
    names = [name for name in os.environ if not name.upper().startswith(("BACKUP_", "DATABASE_URL"))]
    reach = {"BACKUP_RUNNER_IN_USE": "local", "BACKUP_HOST_COMMAND": own_deployment().wrapper}
    # A line that is told to be typed calls Alembic by its name: an app's shell has it, the caller's may not.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    return {**{name: os.environ[name] for name in names}, **reach, "BACKUP_APP_DIR": str(app), "PATH": path}


def own_deployment() -> Deployment:
    """How the person came here, and would come here with a command for their own app."""
    return deployment_from(os.environ, "", Path())


@contextlib.contextmanager
def scratch_folder(keep: bool, narrator: Narrator) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="backup-demo-")).resolve()
    try:
        with _on_signals(narrator.interrupt):
            yield folder
    finally:
        with _on_signals(signal.SIG_IGN):  # a second Ctrl-C must not end the cleaning up
            if keep:
                narrator.announce(f"\nThe throw-away data are left in {folder}")
            else:
                disk.remove_tree(folder)


@contextlib.contextmanager
def _on_signals(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier or signal.SIG_DFL)
