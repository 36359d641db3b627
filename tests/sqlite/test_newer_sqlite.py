"""The image's build step for a newer SQLite installs that one package or none, and the build goes on either way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from small_app import BACKEND

# Stands in for apt-get: records its arguments, and fails at the step that the test names.
APT_GET = """#!/bin/sh
echo "$*" >>"$HERE/calls"
case $1 in
indextargets) [ "$FAILS" = mirror ] || echo "trixie http://mirror/debian/" ;;
update) [ "$FAILS" != update ] || [ ! -e "$APT_FOLDER"/sources.list.d/*.sources ] ;;
install)
    cat "$APT_FOLDER"/sources.list.d/* "$APT_FOLDER"/preferences.d/* >"$HERE/told"
    [ "$FAILS" != install ]
    ;;
esac
"""


def run_step(folder: Path, base: str = "trixie", fails: str = "") -> tuple[str, list[str]]:
    """Return what the step printed, and the calls of apt-get."""
    (folder / "bin").mkdir()
    stub = folder / "bin" / "apt-get"
    stub.write_text(APT_GET)
    stub.chmod(0o755)
    (folder / "os-release").write_text(f"ID=debian\nVERSION_CODENAME={base}\n")
    for name in ("sources.list.d", "preferences.d"):
        (folder / "apt" / name).mkdir(parents=True)
    (folder / "apt" / "sources.list.d" / "theirs.list").write_text("theirs\n")
    (folder / "calls").touch()
    told = {"HERE": folder, "FAILS": fails, "APT_FOLDER": folder / "apt", "OS_RELEASE": folder / "os-release"}
    environment = {**os.environ, **{name: str(value) for name, value in told.items()}, "LISTS": str(folder / "lists")}
    environment["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(BACKEND / "newer_sqlite.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, (folder / "calls").read_text().splitlines()


def assert_as_before(folder: Path) -> None:
    left = sorted(str(path.relative_to(folder / "apt")) for path in (folder / "apt").rglob("*") if path.is_file())
    assert left == ["sources.list.d/theirs.list"]


def test_nothing_but_sqlite_comes_from_the_next_release(tmp_path: Path) -> None:
    said, calls = run_step(tmp_path)
    assert calls[-1] == "install --yes --no-install-recommends libsqlite3-0"
    told = (tmp_path / "told").read_text()
    assert "URIs: http://mirror/debian/\nSuites: forky\n" in told
    assert "Package: *\nPin: release n=forky\nPin-Priority: -1\n" in told
    assert "Package: libsqlite3-0\nPin: release n=forky\nPin-Priority: 990\n" in told
    assert "keeps its own" not in said
    assert_as_before(tmp_path)  # later packages come from the base release again


@pytest.mark.parametrize("fails", ["mirror", "update", "install"])
def test_where_it_is_not_to_be_had_the_build_goes_on_with_the_bases_own(tmp_path: Path, fails: str) -> None:
    said, _ = run_step(tmp_path, fails=fails)
    assert "The base keeps its own SQLite" in said
    assert_as_before(tmp_path)


@pytest.mark.parametrize("base", ["bookworm", "forky", ""])
def test_on_another_base_nothing_is_asked_for(tmp_path: Path, base: str) -> None:
    said, calls = run_step(tmp_path, base=base)
    assert "not Debian 13" in said and calls == []


def test_the_image_takes_that_step() -> None:
    assert "RUN sh newer_sqlite.sh" in (BACKEND / "Dockerfile").read_text()
