"""A real container engine for the tests, with its own socket and data; the machine's network stays untouched."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE, KIT, BASE = "backup-test-app", "backup-test-kit", "backup-test-base"
RECIPE = ("mmdebstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "trixie")
# Compose v2 is a plugin of the docker command. Debian 12 has no package of it, but that of Debian 13 runs there too.
PLUGIN_RECIPE = ("mmdebstrap", "--variant=extract", "--include=docker-compose", "trixie")
PLUGIN = "usr/libexec/docker/cli-plugins/docker-compose"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
NO_NETWORK = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
PROGRAMS = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"))


class Engine:
    """One `dockerd`, from `start` to `stop`; `environment` is what a client needs to reach it."""

    place: Sequence[str] = ()  # the prefix that runs a command where the engine is
    client: Sequence[str] = ("docker",)
    rootless = False  # whether an ordinary user runs it and types the commands

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "engine.sock"
        self.log = folder / "engine.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "PATH": PROGRAMS,
            "HOME": str(folder),
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(folder / "client"),
            "DOCKER_BUILDKIT": "0",  # BuildKit would need another plugin
            "BASE_IMAGE": BASE,
        }

    def start(self) -> None:
        """Start the engine, and return when it answers; if the kernel has no overlay file system, use plain folders."""
        for driver in ("overlay2", "vfs"):
            self.process = self._launch(driver)
            if wait_until(lambda: self.answers() or not self.runs()) and self.runs():
                return
        raise RuntimeError(f"dockerd did not start:\n{self.log.read_text()[-2000:]}")

    def add_compose(self, archive: Path) -> None:
        """Give the client Compose v2."""
        place = self.folder / "client" / "cli-plugins" / "docker-compose"
        place.parent.mkdir(parents=True)
        with tarfile.open(archive) as packed:
            found = packed.extractfile(f"./{PLUGIN}")
            assert found
            place.write_bytes(found.read())
        place.chmod(0o755)

    def command(self, driver: str) -> list[str]:
        command = ["dockerd", f"--storage-driver={driver}", *NO_NETWORK, f"--host=unix://{self.socket}"]
        command += [f"--data-root={self.folder / 'data'}", f"--exec-root={self.folder / 'exec'}"]
        return [*command, f"--pidfile={self.folder / 'engine.pid'}"]

    def _launch(self, driver: str) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                self.command(driver),
                env=os.environ | {"PATH": PROGRAMS},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        return self.socket.exists() and self.docker("version", check=False).returncode == 0

    def stop(self) -> None:
        """End the engine and its containers, and delete its folder."""
        if self.runs() and self.process:
            self.docker("ps", "--quiet", check=False)
            for container in self.docker("ps", "--all", "--quiet", check=False).stdout.split():
                self.docker("rm", "--force", "--volumes", container, check=False)
            self.process.terminate()
            self.process.wait(60)
        for mount in reversed(mounts_below(self.folder)):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run([*self.client, *arguments], self.environment, check=check)

    def ask(self, method: str, path: str, **query: Any) -> Any:
        """Return the engine's answer to one request, or None if it is empty, without starting a client."""
        written = {key: value if isinstance(value, str) else json.dumps(value) for key, value in query.items()}
        with Line(self.socket) as line:
            line.request(method, f"{path}?{urllib.parse.urlencode(written)}")
            answer = line.getresponse()
            body = answer.read()
            assert answer.status < 400, f"{method} {path}: {body.decode()}"
            return json.loads(body) if body else None

    def load(self, archive: Path) -> None:
        """Load images that another engine built; the user who runs this one need not be able to read the file."""
        with archive.open("rb") as images:
            subprocess.run([*self.client, "load"], env=self.environment, stdin=images, check=True, capture_output=True)

    def load_base(self, archive: Path) -> None:
        """Import the base image, and add what builds on this machine need to reach a package index."""
        self.docker("import", str(archive), "plain-base")
        container = self.docker("create", "plain-base", "true").stdout.strip()
        changes = []
        if bundle := certificates():
            self.docker("cp", "--follow-link", str(bundle), f"{container}:{BUNDLE}")
            changes = [f"ENV PIP_CERT={BUNDLE} SSL_CERT_FILE={BUNDLE}"]
        changes += [f"ENV {name}={value}" for name, value in os.environ.items() if is_for_downloads(name)]
        options = [option for change in changes for option in ("--change", change)]
        self.docker("commit", *options, container, BASE)
        self.docker("rm", container)


class Line(http.client.HTTPConnection):
    """A connection to an engine's socket."""

    def __init__(self, place: Path) -> None:
        super().__init__("engine", timeout=60)
        self.place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.place))

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def certificates() -> Path | None:
    """Return this machine's list of certificate authorities, or None."""
    places = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), BUNDLE)
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def is_for_downloads(name: str) -> bool:
    wanted = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return name.upper() in wanted


def debian(recipe: tuple[str, ...], name: str) -> Path:
    """Return the tar that the recipe makes; it is made once, while other processes wait, and kept between runs."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("BACKUP_TEST_CACHE") or home / "backup-tests")
    archive = cache / f"{name}-{hashlib.sha256(' '.join(recipe).encode()).hexdigest()[:16]}.tar"
    cache.mkdir(parents=True, exist_ok=True)
    with made_once(archive) as draft:
        if draft:
            run([*recipe, str(draft)], {**os.environ, "PATH": PROGRAMS})
    return archive


Kind = TypeVar("Kind", bound=Engine)


@contextmanager
def started(engine: Kind) -> Iterator[Kind]:
    """Run the engine, without images, until the block ends."""
    try:
        engine.start()
        engine.add_compose(debian(PLUGIN_RECIPE, "compose"))
        yield engine
    finally:
        engine.stop()


@contextmanager
def made_once(archive: Path) -> Iterator[Path | None]:
    """Yield the path at which the first process must make the archive; None to later processes, once it exists."""
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if archive.exists():
            yield None
            return
        draft = archive.with_name(f"draft-{archive.name}")
        yield draft
        draft.rename(archive)


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [place for place in (line.split()[1] for line in lines) if place.startswith(f"{folder}/")]


def run(command: list[str], environment: Mapping[str, str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; if it had to succeed and did not, raise an error that shows its output."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def wait_until(happened: Callable[[], object], seconds: float = 60) -> bool:
    """Wait for it, and return whether it happened before the deadline."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
