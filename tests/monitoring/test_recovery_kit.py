"""The recovery sheet has what is needed on the day; its commands work on a new machine, and it holds no secret."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backupkit.cli.host import Host
from backupkit.config.remotes import FolderTable
from backupkit.model.backup import Backup, GitFacts
from backupkit.monitoring.recovery_kit import recovery_kit
from backupkit.verify.verify import verify_backups
from backupkit.web.report import sheet
from refusals import refused, run_here
from small_app import BACKEND, HEAD, NOON, SmallApp, clean_environment

WRAPPED = {
    "BACKUP_RUNNER_IN_USE": "exec",
    "BACKUP_COMPOSE": "docker compose",
    "BACKUP_HOST_COMMAND": "./backup.sh",
    "BACKUP_HOST_NAME": "the-old-machine",
    "BACKUP_HOST_FOLDER": "/srv/our pats",
    "BACKUP_HOST_ORIGIN": "https://someone:sesame@example.org/pats.git",
    "BACKUP_GIT_COMMIT": "0123456789abcdef0123456789abcdef01234567",
}


def printed(app: SmallApp, **environment: str) -> str:
    return run_here(app, "recovery-kit", env=WRAPPED | environment, check=0).out


def test_the_sheet_has_what_is_needed_on_the_day(app: SmallApp) -> None:
    run_here(app, "backup", "good", env=WRAPPED, check=0)
    run_here(app, "verify", "good", "--test-restore", env=WRAPPED, check=0)
    text = printed(app, BACKUP_EXPORT_RECIPIENTS="age1first age1second", BACKUP_TIMEZONE="Europe/Berlin")
    for wanted in (
        "the-old-machine",
        "/srv/our pats",
        str(app.database),
        str(app.uploads),
        str(app.backups),
        "time zone Europe/Berlin",
        f"schema revision {HEAD}",
        "age1first",
        "age1second",
        "git clone 'https://***@example.org/pats.git' 'our pats'",
        "git checkout 0123456789abcdef0123456789abcdef01234567",
        "./backup.sh restore latest",
        "docker compose up -d",
    ):
        assert wanted in text
    assert re.search(r"last proven by a test restore: `good` on \d{4}-\d\d-\d\d \d\d:\d\d, in \d+\.\d s", text)


def test_the_first_step_installs_restic_where_a_remote_needs_it(app: SmallApp, tmp_path: Path) -> None:
    assert "restic" not in printed(app)
    (app.folder / "backup.toml").write_text(f'[remotes.cloud]\ntype = "restic"\nrepository = "{tmp_path}/none"\n')
    (step,) = (line for line in printed(app).splitlines() if line.startswith("1. "))
    assert "and restic" in step


def test_a_set_up_in_which_nothing_was_done_says_so(app: SmallApp) -> None:
    text = printed(app)
    assert "newest backup: none" in text
    assert "last proven by a test restore: **never**; do it now: `./backup.sh verify --latest --test-restore`" in text
    assert "knows of no copy off the machine" in text
    assert "None is needed" in text


def test_no_secret_is_on_the_sheet_but_that_it_is_needed(app: SmallApp) -> None:
    (app.folder / "key").write_text("AGE-SECRET-KEY-SESAME")
    (app.folder / "backup.toml").write_text('export_identity_file = "key"\n')
    text = printed(app, BACKUP_PING_URL="https://sesame.example.org/sesame", BACKUP_EXPORT_PASSPHRASE="sesame")
    assert "sesame" not in text.lower()
    assert "`export_identity` is set (backup.toml)" in text
    assert "`export_passphrase` is set (environment BACKUP_EXPORT_PASSPHRASE)" in text


def test_the_last_proof_is_told_though_a_later_backup_has_none(app: SmallApp) -> None:
    run_here(app, "backup", "older", check=0)
    verify_backups(app.settings, [one for one in [newest(app)] if one], test_restore=True)
    run_here(app, "backup", "newer", check=0)
    kit = recovery_kit(app.settings)
    assert (kit.newest and kit.newest.name, kit.proven and kit.proven.name) == ("newer", "older")


def newest(app: SmallApp) -> Backup | None:
    return recovery_kit(app.settings).newest


def test_a_safety_copy_and_a_damaged_backup_are_not_what_to_restore(app: SmallApp) -> None:
    run_here(app, "backup", "good", check=0)
    run_here(app, "backup", "bad", check=0)
    (app.backups / "bad" / "SHA256SUMS").unlink()
    run_here(app, "restore", "good", "--force", check=0)
    found = newest(app)
    assert found and found.name == "good"


def test_copies_elsewhere_are_on_the_sheet_with_what_fetches_them(app: SmallApp) -> None:
    remotes = {"nas": FolderTable(type="folder", path="/mnt/nas/pats")}
    lines = list(sheet(recovery_kit(app.settings.replaced(remotes=remotes), lambda: NOON), Host(), None))
    assert "- nas: `/mnt/nas/pats`" in lines
    assert "       ./backup.sh pull latest --remote nas" in lines
    assert "Printed 2026-06-15 12:00 (UTC)" in "\n".join(lines)
    assert not any("no copy off the machine" in line for line in lines)


def test_without_a_wrapper_the_sheet_asks_for_the_address(app: SmallApp) -> None:
    text = "\n".join(sheet(recovery_kit(app.settings), Host(), GitFacts("abc", "abc")))
    assert "git clone ADDRESS-OF-THE-REPOSITORY app" in text
    assert "git checkout abc" in text


# The file


def test_a_file_is_written_and_never_overwritten(app: SmallApp, tmp_path: Path) -> None:
    target = tmp_path / "sheet.md"
    assert str(target) in run_here(app, "recovery-kit", str(target), check=0).out
    assert target.read_text().startswith("# Recovery sheet of pats\n")
    before = target.read_bytes()
    refused(app, "recovery-kit", str(target), code=2, names=str(target), hint="another name")
    assert target.read_bytes() == before


def test_a_bare_name_goes_to_the_backups_folder(app: SmallApp) -> None:
    run_here(app, "recovery-kit", "sheet.md", check=0)
    assert (app.backups / "sheet.md").read_text() == run_here(app, "recovery-kit", "-", check=0).out
    assert run_here(app, "list", "--json", check=0).json == []
    refused(app, "recovery-kit", str(app.folder / "nowhere" / "x"), code=2, names="nowhere", hint="bare")


# Its commands


@pytest.mark.needs("git")
def test_the_commands_of_the_sheet_bring_the_app_back_on_a_new_machine(app: SmallApp, tmp_path: Path) -> None:
    """The tool itself replaces the wrapper, which would look for an engine; `import` and `status` are left out."""
    origin = tmp_path / "origin"
    commit = published(origin)
    environment = {
        "BACKUP_RUNNER_IN_USE": "local",
        "BACKUP_GIT_COMMIT": commit,
        "BACKUP_HOST_ORIGIN": str(origin),
        "BACKUP_HOST_FOLDER": "/x/pats",
    }
    run_here(app, "backup", "good", env=environment, check=0)
    text = run_here(app, "recovery-kit", env=environment, check=0).out
    before = app.contents()
    copies = tmp_path / "copies"
    shutil.move(app.backups, copies)
    shutil.rmtree(app.folder)

    commands = [line.replace("/path/to/copy", str(copies)) for line in re.findall(r"^       (.*)$", text, re.M)]
    clone, enter, checkout, copy, _import, verify, restore, _status = commands
    folders = "mkdir -p backend/data backend/uploads"
    (tmp_path / "new").mkdir()
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join([clone, enter, checkout, folders, copy, verify, restore])],
        cwd=tmp_path / "new",
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    there = SmallApp(tmp_path / "new" / "pats" / "backend", app.templates)
    assert there.contents() == before


def published(origin: Path) -> str:
    """Make a repository to clone, with the app and a wrapper that runs the tool at once; return its commit."""
    shutil.copytree(BACKEND, origin / "backend", ignore=shutil.ignore_patterns("data", "uploads", "__pycache__"))
    (origin / "backups").mkdir()
    (origin / "backups" / ".gitkeep").write_text("")
    wrapper = origin / "backup.sh"
    wrapper.write_text('#!/bin/sh\ncd backend\ncase $1 in restore) set -- "$@" --force ;; esac\n')
    with wrapper.open("a") as text:
        text.write(f'exec {sys.executable} backup_restore.py "$@"\n')
    wrapper.chmod(0o755)
    git = ["git", "-C", str(origin), "-c", "user.name=A Tester", "-c", "user.email=tester@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all of it"]):
        subprocess.run([*git, *words], check=True)
    told = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return told.stdout.strip()


def test_the_sheet_tells_of_the_remotes_and_of_their_passwords_by_name_only(app: SmallApp) -> None:
    (app.folder / "backup.toml").write_text(
        '[remotes.nas]\ntype = "folder"\npath = "/srv/nas"\n'
        '[remotes.cloud]\ntype = "restic"\nrepository = "rest:https://someone:sesame@example.org/pats"\n'
    )
    text = printed(app, BACKUP_REMOTE_CLOUD_PASSWORD="correct horse")
    assert "- nas: `/srv/nas`" in text
    assert "- cloud: `rest:https://***@example.org/pats`" in text
    assert "./backup.sh pull latest --remote cloud" in text
    assert "`remotes.cloud.password` is set (environment BACKUP_REMOTE_CLOUD_PASSWORD)" in text
    assert "sesame" not in text and "correct horse" not in text


def test_the_sheet_says_what_it_takes_to_reach_a_remote_besides_its_settings(app: SmallApp) -> None:
    person = 'user_name = "B"\nuser_email = "b@example.com"\n'
    (app.folder / "backup.toml").write_text(
        f'[remotes.host]\ntype = "git"\nurl = "git@example.org:me/pats.git"\n{person}'
        '[remotes.cellar]\ntype = "restic"\nrepository = "sftp://b@example.org//srv/pats"\n'
        f'[remotes.disk]\ntype = "git"\nurl = "./host.git"\n{person}'
    )
    text = printed(app)
    assert "to reach the remote host: an ssh key, or other credentials that git uses;" in text
    assert "to reach the remote cellar: an ssh key that the server accepts, and known_hosts;" in text
    assert "to reach the remote disk" not in text and "None is needed" not in text


def test_the_sheet_names_no_latest_where_the_uploads_are_not(app: SmallApp) -> None:
    table = '[remotes.{name}]\ntype = "git"\nurl = "./host.git"\nuser_name = "B"\nuser_email = "b@example.com"\n'
    whole = 'include = ["dump", "metadata", "uploads"]\n'
    (app.folder / "backup.toml").write_text(table.format(name="text") + table.format(name="whole") + whole)
    text = printed(app)
    assert "       ./backup.sh list --remote text " in text and "       ./backup.sh pull NAME --remote text\n" in text
    assert "       ./backup.sh pull latest --remote whole\n" in text and "list --remote whole" not in text
    assert "`./backup.sh verify NAME`, `./backup.sh restore NAME`" in text
    (app.folder / "backup.toml").write_text(table.format(name="whole") + whole)
    assert "NAME" not in printed(app)
