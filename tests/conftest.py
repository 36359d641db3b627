"""The fixtures that every test may use: `app`, a small real app, and `needs`, for tools that a machine may lack."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

import chance

# Hooks of the fault suite: the process that reports a run prints the suite's counts at its end.
from crash.points import CASES, pytest_runtest_logreport, pytest_terminal_summary
from small_app import SmallApp

# A script's background job ignores Ctrl-C, and so would every process that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["pytest_runtest_logreport", "pytest_terminal_summary"]

HOW_TO_GET = {
    "age": "apt install age, or brew install age",
    "age-keygen": "apt install age, or brew install age",
    "bash": "apt install bash",
    "borg": "apt install borgbackup, or brew install borgbackup",
    "catatonit": "apt install catatonit",
    "chromedriver": "apt install chromium-driver, or brew install chromedriver",
    "chromium": "apt install chromium, or brew install chromium",
    "crontab": "apt install cron",
    "crun": "apt install crun",
    "docker": "apt install docker.io, or https://docs.docker.com/engine/install",
    "docker-compose": "apt install docker-compose",
    "dockerd": "apt install docker.io, and run the tests as root",
    "fish": "apt install fish, or brew install fish",
    "git": "apt install git, or brew install git",
    "ip": "apt install iproute2 (Linux only)",
    "mmdebstrap": "apt install mmdebstrap",
    "mkfs.btrfs": "apt install btrfs-progs (Linux only)",
    "mkfs.ext4": "apt install e2fsprogs (Linux only)",
    "mkfs.exfat": "apt install exfatprogs (Linux only)",
    "mkfs.xfs": "apt install xfsprogs (Linux only)",
    "mkntfs": "apt install ntfs-3g (Linux only)",
    "mount.exfat-fuse": "apt install exfat-fuse (Linux only)",
    "newuidmap": "apt install uidmap",
    "ntfs-3g": "apt install ntfs-3g (Linux only)",
    "podman": "apt install podman, or brew install podman",
    "podman-compose": "apt install podman-compose",
    "rclone": "apt install rclone, or brew install rclone",
    "restic": "apt install restic, or brew install restic",
    "rootlesskit": "apt install rootlesskit (Linux only)",
    "rsync": "apt install rsync, or brew install rsync",
    "script": "apt install bsdutils",
    "slirp4netns": "apt install slirp4netns (Linux only)",
    "ssh": "apt install openssh-client; macOS has it",
    "sshfs": "apt install sshfs openssh-sftp-server",
    "sshd": "apt install openssh-server",
    "shellcheck": "apt install shellcheck, or brew install shellcheck",
    "systemd-analyze": "apt install systemd (Linux only)",
    "sqlite3": "apt install sqlite3, or brew install sqlite",
    "bsdtar": "apt install libarchive-tools; macOS has it",
    "tar": "apt install tar",
    "strace": "apt install strace (Linux only)",
    "unshare": "apt install util-linux (Linux only)",
    "zsh": "apt install zsh; macOS has it",
    "zstd": "apt install zstd, or brew install zstd",
}
REQUIRE_ALL = "BACKUP_TESTS_REQUIRE_ALL"
MEMORY = "BACKUP_TESTS_MEMORY"
# Thousands of small apps are made, synced and deleted in these areas; the disk itself is the matter of the others.
IN_MEMORY = {
    "api",
    "archive",
    "backup",
    "cli",
    "contract",
    "migrations",
    "monitoring",
    "remotes",
    "restore",
    "retention",
    "rewind",
    "scheduling",
    "sqlite",
    "verify",
}
SYSTEM_FOLDERS = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))


def require(*tools: str) -> None:
    """Skip the test if a tool is missing, and say how to get it; fail it if the run must leave nothing out."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), SYSTEM_FOLDERS))
    for tool in tools:
        if shutil.which(tool, path=path):
            continue
        reason = f"needs {tool}: {HOW_TO_GET[tool]}"
        if os.environ.get(REQUIRE_ALL) == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of one engine in one process, so that it is started once; other engines run in parallel.

    The first engine's tests come first, since they take longest and build the images. The tests of other engines would
    wait for these images, so they come after some of the rest.
    """
    others = {"test_podman": "podman", "test_debian13": "debian13"}
    first, later, rest = list[pytest.Item](), list[pytest.Item](), list[pytest.Item]()
    for item in items:
        if Path(__file__).parent / "docker" in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(others.get(item.path.stem, "docker")))
            (later if item.path.stem in others else first).append(item)
        else:
            rest.append(item)
    some = len(rest) // 8
    items[:] = [*first, *rest[:some], *later, *rest[some:]]


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of each later search for garbage: it is millions of objects."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties += [(CASES, told) for told in chance.told()]
    for marker in item.iter_markers("needs"):
        require(*marker.args)


@pytest.fixture(name="needs")
def needs_tools() -> Callable[..., None]:
    """Return `require`: `needs("strace")` in a test; as a decorator, `@pytest.mark.needs("strace")`."""
    return require


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The test's own folder: in memory if `tests/run` found room there, except for tests of disks and engines."""
    area = request.path.relative_to(Path(__file__).parent).parts[0]
    if MEMORY not in os.environ or area not in IN_MEMORY:
        yield request.getfixturevalue("tmp_path")
        return
    of_this_process = Path(os.environ[MEMORY], os.environ.get("PYTEST_XDIST_WORKER", "only"))
    of_this_process.mkdir(exist_ok=True)
    name, failed = re.sub(r"\W+", "_", request.node.name, flags=re.ASCII)[:30], request.session.testsfailed
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=of_this_process))
    yield folder
    if request.session.testsfailed == failed:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the migrated databases from which each test's app starts."""
    return tmp_path_factory.mktemp("templates")


@pytest.fixture
def app(tmp_path: Path, templates: Path) -> SmallApp:
    """A small real app, a new one for each test."""
    return SmallApp.create(tmp_path / "app", templates)


def pytest_configure(config: pytest.Config) -> None:
    """Take the seed from the commit, so that its runs make the same choices; --thorough leaves Hypothesis random."""
    if config.getoption("--thorough"):
        os.environ[chance.THOROUGH] = "1"
    os.environ[chance.SEED] = str(chance.seed())  # all worker processes must collect the same tests
    hypothesis.settings.register_profile("stable", derandomize=not chance.is_thorough())
    hypothesis.settings.load_profile("stable")


def pytest_report_header() -> str:
    return chance.header()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="Visit every fault point (see tests/chance.py).")
    parser.addoption("--write-golden", action="store_true", help="Write tests/contract/ anew (see tests/golden.py).")
