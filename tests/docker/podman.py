"""A real Podman for the tests, in its own namespaces: it touches no mount, network or setting of the machine."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import BASE, BUNDLE, IMAGE, PROGRAMS, REPOSITORY, Engine, certificates, is_for_downloads, run, wait_until
from people import AS_PERSON, MOUNT_TUN, MOUNT_USERS, PERSON, write_users
from project import Project

# Separate mounts, network and cgroups, because Podman moves each process of its root cgroup into another.
# When the input is closed, what is left in that cgroup is killed. The users are those of `write_settings`.
NAMESPACE = """
mkdir "$1/cgroup"
mount -t cgroup2 none "$1/cgroup"
own=$1/cgroup/${1##*/}
mkdir "$own"
leave() {
    echo $$ >"$1/cgroup/cgroup.procs"
    echo 1 >"$own/cgroup.kill"
    while [ -d "$own" ] && ! find "$own" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.1; done
}
trap 'leave "$1"' EXIT
for place in /etc/cni /var/lib/cni; do mkdir -p $place && mount -t tmpfs none $place; done
ip link set lo up
echo $$ >"$own/cgroup.procs"
unshare --cgroup sh -c 'umount --lazy /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; echo ready $$; exec cat'
"""
# A command that enters joins that cgroup.
ENTER = 'echo $$ >/sys/fs/cgroup/cgroup.procs && exec "$@"'


class Podman(Engine):
    """One Podman and its images, from `start` to `stop`; run by root, or by an ordinary user."""

    def __init__(self, folder: Path, *, rootless: bool = False) -> None:
        super().__init__(folder)
        self.rootless = rootless
        self.holder: subprocess.Popen[str] | None = None
        runtime = folder / "runtime"
        self.environment = {
            "PATH": PROGRAMS,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(runtime),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "DOCKER_HOST": f"unix://{folder}/no-docker.sock",
        }

    def start(self) -> None:
        self.write_settings()
        script = f"{MOUNT_USERS}; {MOUNT_TUN}; {NAMESPACE}"
        command = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-ec", script, "sh"]
        pipe = subprocess.PIPE
        self.holder = subprocess.Popen([*command, str(self.folder)], stdin=pipe, stdout=pipe, text=True)
        assert self.holder.stdout
        said, _, number = self.holder.stdout.readline().partition(" ")
        assert said == "ready", "no namespaces of its own"
        entry = f"/proc/{int(number)}/ns"
        self.place = ("nsenter", f"--mount={entry}/mnt", f"--net={entry}/net", f"--cgroup={entry}/cgroup")
        self.place += ("sh", "-c", ENTER, "sh")
        if self.rootless:
            self.place += AS_PERSON
        self.client = (*self.place, "podman")
        self.serve()

    def serve(self) -> None:
        """Serve the API on a socket too, on which the tests look at containers."""
        command = [*self.client, "system", "service", "--time=0", f"unix://{self.socket}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        if not wait_until(lambda: self.socket.exists() or not self.runs()) or not self.runs():
            raise RuntimeError(f"Podman does not answer:\n{self.log.read_text()[-2000:]}")

    def write_settings(self) -> None:
        _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
        settings = {
            "containers.conf": f"""
                [containers]
                cgroups = "disabled"
                default_ulimits = ["nofile=1024:{files}", "nproc=1024:2048"]
                init_path = "{shutil.which("catatonit", path=PROGRAMS)}"
                [engine]
                cgroup_manager = "cgroupfs"
                events_logger = "file"
                runtime = "crun"
                """,
            "storage.conf": f"""
                [storage]
                driver = "overlay"
                graphroot = "{self.folder}/data"
                rootless_storage_path = "{self.folder}/data"
                runroot = "{self.folder}/run"
                """,
        }
        for name, text in settings.items():
            (self.folder / name).write_text("\n".join(line.strip() for line in text.splitlines()) + "\n")
        write_users(self.folder)
        (self.folder / "runtime").mkdir(mode=0o700)
        self.folder.chmod(0o755)
        if self.rootless:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, PERSON, PERSON)

    def build(self, base: Path) -> None:
        """Build the image of the repository on that base, with Podman in the machine's network."""
        context = self.folder / "base"  # with what a build on this machine needs to reach a package index
        context.mkdir()
        (context / "ca.crt").write_bytes((certificates() or Path(BUNDLE)).read_bytes())
        lines = ["FROM plain-base", f"COPY ca.crt {BUNDLE}", f"ENV PIP_CERT={BUNDLE} SSL_CERT_FILE={BUNDLE}"]
        lines += [f"ENV {name}={value}" for name, value in os.environ.items() if is_for_downloads(name)]
        (context / "Dockerfile").write_text("\n".join(lines))
        self.docker("import", str(base), "plain-base")
        outside = [word for word in self.client if not word.startswith("--net=")]
        for tag, folder in ((BASE, context), (IMAGE, REPOSITORY / "backend")):
            words = ["build", "--isolation=chroot", "--network=host", f"--build-arg=BASE_IMAGE={BASE}"]
            run([*outside, *words, f"--tag={tag}", str(folder)], self.environment)

    def stop(self) -> None:
        """End its containers and delete its folder; its mounts end with its namespace."""
        if self.place:
            self.docker("rm", "--all", "--force", "--time=5", check=False)
        if self.holder and self.holder.stdin:
            self.holder.stdin.close()
            self.holder.wait(60)
        if self.process:
            self.process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


class ComposeProject(Project):
    """A project of a person who types `docker compose`, which talks to Podman's socket."""

    engine: Podman

    def __init__(self, folder: Path, engine: Podman, settings: dict[str, str]) -> None:
        docker = {"DOCKER_HOST": f"unix://{engine.socket}", "DOCKER_CONFIG": str(engine.folder / "client")}
        super().__init__(folder, engine, {**docker, "DOCKER_BUILDKIT": "0", **settings})

    @property
    def client(self) -> Sequence[str]:
        return (*self.engine.place, "docker")

    def override(self, **service: Any) -> None:
        """Set limits: Podman's service asks for more open files than a CI machine may give."""
        _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
        for one in (self.service, self.scheduler, self.web):
            one["ulimits"] = {"nofile": {"soft": 1024, "hard": files}, "nproc": 1024}
        super().override(**service)


class PodmanProject(Project):
    """A project of a person who types `podman-compose`: it is named after its folder, and has no profiles."""

    engine: Podman

    def override(self, **service: Any) -> None:
        """Drop `network_mode`: it conflicts with the project's network, which podman-compose adds to each service."""
        for one in (self.service, self.scheduler, self.web):
            one.pop("network_mode", None)
        super().override(**service)

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*self.engine.place, "env", f"--chdir={self.folder}", "podman-compose"]
        return run([*command, *arguments], self.environment, check=check)

    def up(self) -> None:
        self.compose("up", "--detach", "--no-build", "backend")
        assert wait_until(self.answers), f"it does not answer:\n{self.logs()}"

    @property
    def name(self) -> str:
        return self.folder.name.replace(" ", "")

    def containers(self, one_off: str, service: str = "backend") -> list[str]:
        """Return the one-off containers, or the others, to which podman-compose gives no such label."""
        ours = self._ids(project=self.name, oneoff="True", service=service)
        if one_off == "True":
            return ours
        return [one for one in self._ids(project=self.name, service=service) if one not in ours]
