"""Real servers for the tests of remotes, on this machine only, and a connection to them that can be cut."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = "127.0.0.1"
SSHD = "/usr/sbin/sshd"  # sshd must be started by its absolute path
SSHD_CONFIG = """\
ListenAddress {here}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/id_ed25519.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""


@contextlib.contextmanager
def s3(**environment: str) -> Iterator[int]:
    """Run an empty server of the S3 API; yield its port."""
    port = free_port()
    with running([sys.executable, "-m", "moto.server", "-H", HERE, "-p", str(port)], port, **environment):
        yield port


@contextlib.contextmanager
def guarded_s3() -> Iterator[tuple[int, str, str]]:
    """Run a server of the S3 API that checks keys; yield its port, and the keys of a user who may do nothing."""
    import boto3

    with s3(INITIAL_NO_AUTH_ACTION_COUNT="3") as port:
        root = {"aws_access_key_id": "root", "aws_secret_access_key": "root", "region_name": "us-east-1"}
        s3_of, iam = (boto3.client(kind, endpoint_url=f"http://{HERE}:{port}", **root) for kind in ("s3", "iam"))
        s3_of.create_bucket(Bucket="backups")
        iam.create_user(UserName="someone")
        key = iam.create_access_key(UserName="someone")["AccessKey"]
        yield port, key["AccessKeyId"], key["SecretAccessKey"]


@contextlib.contextmanager
def rest(folder: Path, *options: str) -> Iterator[int]:
    """Serve `folder/served` by restic's REST API; yield the port."""
    port = free_port()
    command = ["rclone", "serve", "restic", *options, "--addr", f"{HERE}:{port}", str(folder / "served")]
    with running(command, port, RCLONE_CONFIG=str(folder / "rclone.conf")):
        yield port


@dataclass(frozen=True)
class Ssh:
    """A running SSH server that accepts the tests' user by the key in `folder`."""

    folder: Path
    port: int
    user: str

    @property
    def address(self) -> str:
        return f"{self.user}@{HERE}:{self.port}"

    def keys_for(self, home: Path) -> Path:
        """Create a `.ssh` folder as a person would: the user's key, and the server's key as a known host."""
        home.mkdir(mode=0o700)
        shutil.copy(self.folder / "id_ed25519", home)
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        (home / "known_hosts").write_text(f"[{HERE}]:{self.port} {kind} {key}\n")
        return home


@contextlib.contextmanager
def ssh(folder: Path) -> Iterator[Ssh]:
    """Run Debian's sshd with its own keys and settings."""
    folder.mkdir()
    for name in ("host_key", "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # root's sshd needs this folder for its privilege separation
    port = free_port()
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(here=HERE, port=port, folder=folder))
    with running([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], port):
        yield Ssh(folder, port, pwd.getpwuid(os.geteuid()).pw_name)


@contextlib.contextmanager
def running(command: Sequence[str], port: int, **environment: str) -> Iterator[None]:
    """Run the server while the block lasts; enter the block once the port answers."""
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        wait_for(server, port)
        yield
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.create_server((HERE, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((HERE, port), 1).close()
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, f"{server.args!r} did not start"
            time.sleep(0.05)


class Line:
    """A relay to a server that can be cut, together with its open connections, and fixed."""

    def __init__(self, target: int) -> None:
        self._target, self._is_cut = target, False
        self._ends: list[socket.socket] = []
        self._door = socket.create_server((HERE, 0))
        self.port: int = self._door.getsockname()[1]

    @classmethod
    @contextlib.contextmanager
    def to(cls, target: int) -> Iterator[Line]:
        line = cls(target)
        threading.Thread(target=line._serve, daemon=True).start()
        try:
            yield line
        finally:
            line.cut()
            line._door.close()

    def cut(self) -> None:
        self._is_cut = True
        while self._ends:
            with contextlib.suppress(OSError):
                self._ends.pop().shutdown(socket.SHUT_RDWR)

    def fix(self) -> None:
        self._is_cut = False

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                if self._is_cut:
                    near.close()
                    continue
                far = socket.create_connection((HERE, self._target))
                self._ends += [near, far]
                for one, two in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, two), daemon=True).start()

    def _pump(self, one: socket.socket, two: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                two.sendall(data)
            two.shutdown(socket.SHUT_WR)
