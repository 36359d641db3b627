"""`backup.sh` from a clone, and the wheel, work on Debian 13 without an engine, with its Python and git."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from combinations import DEBIAN_13
from engine import BUNDLE, PROGRAMS, RECIPE, REPOSITORY, certificates, debian, is_for_downloads, run
from people import AS_PERSON, PERSON
from test_service import KILLED_RESTORE

from small_app import WRITE, SmallApp

pytestmark = pytest.mark.needs("unshare")
COMBINATIONS = (DEBIAN_13,)
# A separate process namespace, whose first process cannot be killed from within; the machine's devices and network.
ENTER = """
root=$1 folder=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
chroot "$root" env --chdir="$folder" "$@" || exit
exit 0
"""
HOME = "/home/person"


class Host:
    """The files of a Debian 13 system, and a person who types in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run(["tar", "--extract", f"--file={debian(RECIPE, 'base')}", f"--directory={folder}"], os.environ)
        with (folder / "etc" / "passwd").open("a") as users:
            users.write(f"person:x:{PERSON}:{PERSON}::{HOME}:/bin/sh\n")
        if bundle := certificates():
            shutil.copy(bundle, f"{folder}{BUNDLE}")
        self.path(HOME).mkdir()
        self.give(HOME)
        for words in (("update",), ("install", "--yes", "--no-install-recommends", "git")):
            quick = ("-o", "Acquire::Languages=none", "-o", "Dpkg::Options::=--force-unsafe-io")
            self.run("apt-get", "-q", *quick, *words, person=(), DEBIAN_FRONTEND="noninteractive")

    def path(self, inside: str) -> Path:
        """Return where a path inside that system is on this machine."""
        return Path(f"{self.folder}{inside}")

    def give(self, inside: str) -> None:
        run(["chown", "--recursive", f"{PERSON}:{PERSON}", str(self.path(inside))], os.environ)

    def command(self, *words: str, folder: str = HOME, person: Sequence[str] = AS_PERSON, **settings: str) -> list[str]:
        given = {name: value for name, value in os.environ.items() if is_for_downloads(name)}
        given |= {"PIP_CERT": BUNDLE, "PIP_COMPILE": "0", "HOME": HOME, "PATH": PROGRAMS, "LANG": "C.UTF-8", **settings}
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private", "sh", "-ec", ENTER]
        variables = [f"{name}={value}" for name, value in given.items()]
        return [*enter, "sh", str(self.folder), folder, "--ignore-environment", *variables, *person, *words]

    def run(self, *words: str, code: int = 0, **more: Any) -> str:
        """Run the command, which must end with that code; return what it printed."""
        command = self.command(*words, **more)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A Debian 13 system, with a clone of the repository in the person's home."""
    folder = Path(tempfile.mkdtemp(prefix="backup-host-"))
    folder.chmod(0o755)
    try:
        made = Host(folder)
        for name in run(["git", "-C", str(REPOSITORY), "ls-files"], os.environ).stdout.splitlines():
            target = made.path(f"{HOME}/origin/{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target)
        made.give(HOME)
        origin = ("git", "-C", "origin", "-c", "user.name=A Tester", "-c", "user.email=tester@example.org")
        made.run(*origin, "init", "--quiet")
        made.run(*origin, "add", "--all")
        made.run(*origin, "commit", "--quiet", "--message=All of it")
        made.run("git", "clone", "--quiet", "origin", "clone")
        yield made
    finally:
        run(["rm", "--recursive", str(folder)], os.environ)


def test_backup_sh_runs_the_demo_from_a_clone(host: Host) -> None:
    clone = f"{HOME}/clone"
    assert "9. Cleaned up" in host.run("./backup.sh", "demo", folder=clone)
    (python,) = host.path(f"{clone}/.backup-venv").glob("made.*/venv/lib/python*")
    assert python.name == "python3.13"
    assert 'VERSION_ID="13"' in host.path("/etc/os-release").read_text()


@pytest.fixture
def app(host: Host, templates: Path) -> Iterator[SmallApp]:
    """An app in the person's home."""
    made = SmallApp.create(host.path(f"{HOME}/app"), templates)
    host.give(f"{HOME}/app")
    yield made
    shutil.rmtree(made.folder)


@pytest.mark.shows("backup beside a writer", "restore", "kill, recover")
def test_the_wheel_is_built_installed_and_works(host: Host, app: SmallApp) -> None:
    host.run("python3", "-m", "venv", "venv")
    host.run("venv/bin/pip", "wheel", "--quiet", "--no-deps", "--wheel-dir=wheels", "./clone")
    (wheel,) = host.path(f"{HOME}/wheels").iterdir()
    host.run("venv/bin/pip", "install", "--quiet", f"wheels/{wheel.name}")
    host.run("venv/bin/pip", "check")

    def typed(*words: str) -> str:
        return host.run(f"{HOME}/venv/bin/backup-restore", *words, folder=f"{HOME}/app")

    before = app.contents()
    pipe = subprocess.PIPE
    writes = host.command("python3", "-c", WRITE, f"{HOME}/app/data/pats.db")
    with subprocess.Popen(writes, stdin=pipe, stdout=pipe, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "writing\n"
        typed("backup", "good")
        app.execute("DELETE FROM documents")
        (app.uploads / "1" / "letter.txt").unlink()
        typed("restore", "good", "--yes")
        said = writer.communicate()[0]
    assert '"errors": []' in said
    now = app.contents()
    assert (now.uploads, now.rows["documents"]) == (before.uploads, before.rows["documents"])
    typed("verify", "good", "--test-restore")
    app.execute("DELETE FROM documents")
    host.run(f"{HOME}/venv/bin/python", "-c", KILLED_RESTORE, folder=f"{HOME}/app", code=137)
    assert app.contents().rows["documents"] == []
    typed("recover")
    assert app.contents().rows["documents"] == before.rows["documents"]
