"""Nobody gains rights: root works on another's folders as that user, and reads no settings that others can change."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backupkit.config.settings import load_settings
from backupkit.model.errors import Refused, SourceUnreadable
from backupkit.restore.restore import plan_restore
from others import USER, as_other, as_root, give, owners
from small_app import Result, SmallApp

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who has rights to lose: run the tests as root")

THIRD = 4343
WHO = {"BACKUP_TEST_COMMAND": 'echo "test command of $(id -u):$(id -g) at $HOME" >"$BACKUP_TEST_UPLOADS/../../who"'}


@pytest.fixture
def app(templates: Path) -> Iterator[SmallApp]:
    """An app owned by root whose data, uploads and backups belong to another user."""
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        app = SmallApp.create(Path(open_to_all, "app"), templates)
        give(USER, app.database.parent, app.uploads, app.backups)
        yield app


@pytest.fixture
def secret(app: SmallApp) -> Path:
    """A database that only root can read."""
    path = app.folder.parent / "roots" / "secret.db"
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE salaries (name)")
    return path


# Root becomes the owner of the database's folder


def test_root_works_as_the_owner_of_the_databases_folder_and_says_so(app: SmallApp) -> None:
    done = as_root(app, "backup", "one")
    assert (done.code, done.err.splitlines()[0]) == (
        0,
        f"Working as uid {USER}, who owns {app.database.parent}, instead of root.",
    )
    assert owners(app.backups, app.database.parent, app.uploads) == {USER}
    assert as_root(app, "verify", "one", "--test-restore", env=WHO).code == 0
    assert (app.backups / "who").read_text() == f"test command of {USER}:{USER} at /\n"


def test_under_the_wrapper_nothing_is_said_of_it(app: SmallApp) -> None:
    done = as_root(app, "list", env={"BACKUP_RUNNER_IN_USE": "exec"})
    assert (done.code, done.err) == (0, "")


def test_a_folder_given_away_by_its_user_alone_does_not_lend_roots_group(app: SmallApp) -> None:
    os.chown(app.database.parent, USER, 0)
    as_root(app, "backup", "one")
    assert as_root(app, "verify", "one", "--test-restore", env=WHO).code == 0
    assert (app.backups / "who").read_text() == f"test command of {USER}:{USER} at /\n"


def test_a_folder_keeps_the_bit_that_gives_new_uploads_its_group(app: SmallApp) -> None:
    """The system takes the bit from whoever sets the mode of a folder, the same mode even, and is not in its group."""
    shared = app.uploads / "2"
    os.chown(shared, USER, 1234)
    shared.chmod(0o2775)
    as_root(app, "backup", "one")
    (shared / "letter.txt").unlink()
    assert as_root(app, "restore", "one", "--force").code == 0
    assert (shared / "letter.txt").exists()
    assert (shared.stat().st_mode & 0o7777, shared.stat().st_gid) == (0o2775, 1234)


def test_roots_own_folder_is_worked_on_as_root(app: SmallApp) -> None:
    give(0, app.database.parent, app.uploads, app.backups)
    assert as_root(app, "backup", "one").err == ""
    assert owners(app.backups) == {0}


def test_roots_folder_in_another_users_folder_is_that_users(app: SmallApp) -> None:
    """The owner of a folder above it can replace it at any time."""
    give(0, app.database.parent)
    os.chown(app.folder, USER, USER)
    done = as_root(app, "list")
    assert done.err == f"Working as uid {USER}, who owns {app.database.parent}, instead of root.\n"


def test_a_root_that_may_not_become_the_owner_does_nothing(app: SmallApp) -> None:
    done = as_root(app, "backup", "one", prefix=("setpriv", "--bounding-set=-setuid,-setgid"))
    assert done.code == 2
    assert done.err == (
        f"Error: {app.database.parent} belongs to uid {USER}, whom root may not become here.\n"
        "  Next: Give the container the capabilities SETUID and SETGID, or start it as that user.\n"
    )
    assert list(app.backups.iterdir()) == []


def test_an_owner_who_cannot_reach_the_data_is_told_of_and_root_does_nothing(app: SmallApp) -> None:
    app.folder.parent.chmod(0o700)
    done = as_root(app, "backup", "one")
    assert (done.code, done.err.splitlines()[1:]) == (
        2,
        [
            f"Error: uid {USER}, who owns {app.database.parent}, cannot reach {app.database.parent};"
            " as root nothing is done there.",
            "  Next: Open the folder above it that is closed to that user, or move it elsewhere: "
            f"namei -l {app.database.parent}",
        ],
    )


def test_the_scheduler_becomes_the_owner_too(app: SmallApp) -> None:
    done = as_root(app, "schedule", "--list")
    assert done.err.startswith(f"Working as uid {USER}")


# A folder that is gone, in one that root owns


def install_line(folder: Path) -> str:
    return f"sudo install -d -o {USER} -g {USER} {folder}"


def typed(line: str) -> None:
    """Type the line as root."""
    subprocess.run(line.removeprefix("sudo "), shell=True, check=True)


@pytest.mark.parametrize("options", [("--dry-run",), ("--yes",)])
def test_lost_uploads_that_their_user_cannot_make_are_refused_by_the_plan(
    app: SmallApp, options: tuple[str, ...]
) -> None:
    as_root(app, "backup", "one")
    shutil.rmtree(app.uploads)
    done = as_root(app, "restore", "one", *options)
    assert (done.code, done.err.splitlines()[-2:]) == (
        13,
        [
            f"Error: {app.uploads} is missing, and uid {USER} cannot make it in {app.uploads.parent};"
            " nothing was changed.",
            f"  Next: Make it: {install_line(app.uploads)}",
        ],
    )
    assert [path.name for path in app.backups.iterdir() if not path.name.startswith(".")] == ["one"]
    typed(install_line(app.uploads))
    assert as_root(app, "restore", "one", "--yes").code == 0
    assert as_root(app, "restore", "one", "--yes", "--only", "database").code == 0


def test_a_lost_data_folder_is_named_with_the_line_that_makes_it(app: SmallApp) -> None:
    as_root(app, "backup", "one")
    shutil.rmtree(app.database.parent)
    for command in (("backup", "two"), ("restore", "one", "--yes"), ("undo", "--yes")):
        done = as_root(app, *command)
        assert (done.code, done.err.splitlines()) == (
            2,
            [
                f"Error: {app.database.parent} is missing, and {app.backups} belongs to uid {USER}: root does not work"
                " there.",
                f"  Next: If the data are that user's: {install_line(app.database.parent)} If they are root's: "
                f"sudo chown -R 0:0 {app.backups}",
            ],
        )
    typed(install_line(app.database.parent))
    assert as_root(app, "restore", "one", "--yes").code == 0
    assert owners(app.database.parent, app.backups) == {USER}


def test_a_lost_data_folder_that_was_roots_comes_back_after_the_other_line(app: SmallApp) -> None:
    as_root(app, "backup", "one")
    shutil.rmtree(app.database.parent)
    typed(f"sudo chown -R 0:0 {app.backups} {app.uploads}")
    assert as_root(app, "restore", "one", "--yes").code == 0
    assert owners(app.database.parent, app.backups) == {0}


def test_a_lost_data_folder_that_its_user_cannot_make_is_refused_by_the_plan(app: SmallApp) -> None:
    as_root(app, "backup", "one")
    shutil.rmtree(app.database.parent)
    settings = app.settings

    def plan() -> None:
        with pytest.raises(SourceUnreadable, match=f"{app.database.parent} is missing, and uid {USER}") as refused:
            plan_restore(settings, "one")
        assert refused.value.hint == f"Make it: {install_line(app.database.parent)}"

    as_other(plan)


# Links in the place of data


def test_a_database_that_is_a_link_to_anothers_is_not_read(app: SmallApp, secret: Path) -> None:
    app.database.unlink()
    as_other(lambda: app.database.symlink_to(secret))
    done = as_root(app, "backup", "one")
    assert done.code in (1, 13) and str(secret.parent) in done.err and "Traceback" not in done.err
    assert not (app.backups / "one").exists()


def test_a_data_folder_that_is_a_link_to_roots_is_not_followed(app: SmallApp, secret: Path) -> None:
    shutil.rmtree(app.database.parent)
    os.chown(app.folder, USER, USER)
    as_other(lambda: app.database.parent.symlink_to(secret.parent))
    (secret.parent / app.database.name).symlink_to(secret)
    done = as_root(app, "backup", "one")
    assert (done.code, done.err.splitlines()[0]) == (
        2,
        f"Error: {app.database.parent}, on the way to {app.database.parent}, is a link that another user made:"
        " root does not follow it.",
    )
    assert list(app.backups.iterdir()) == []


def test_a_link_of_roots_on_the_way_to_the_data_is_followed(app: SmallApp) -> None:
    moved = app.database.parent.rename(app.folder / "moved")
    app.database.parent.symlink_to(moved.name)
    assert as_root(app, "backup", "one").code == 0
    assert owners(app.backups) == {USER}


# The settings


def write_settings(app: SmallApp, text: str, user: int = USER, mode: int = 0o644) -> Path:
    path = app.folder / "backup.toml"
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, user, user)
    return path


def test_a_command_in_settings_of_another_user_runs_with_that_users_rights(app: SmallApp) -> None:
    write_settings(app, f"test_command = '''{WHO['BACKUP_TEST_COMMAND']}'''\n")
    as_root(app, "backup", "one")
    assert as_root(app, "verify", "one", "--test-restore").code == 0
    assert (app.backups / "who").read_text() == f"test command of {USER}:{USER} at /\n"


def test_settings_of_a_third_user_direct_neither_root_nor_the_owner(app: SmallApp, secret: Path) -> None:
    write_settings(app, 'timezone = "Europe/Berlin"\n', THIRD)
    done = as_root(app, "backup", "one")
    assert done.code == 2
    assert done.err.splitlines()[1:] == [
        f"Error: {app.folder / 'backup.toml'} belongs to uid {THIRD}, but {app.database.parent} to uid {USER}.",
        f"  Next: Give the settings to root or to the data's owner: sudo chown {USER} {app.folder / 'backup.toml'}",
    ]


def test_settings_of_another_user_make_root_read_nothing_for_him(app: SmallApp, secret: Path) -> None:
    write_settings(app, f'database = "{secret}"\n')
    done = as_root(app, "backup", "one")
    assert done.code in (1, 13) and str(secret.parent) in done.err and "Traceback" not in done.err
    assert not (app.backups / "one").exists()


@pytest.mark.parametrize(
    ("mode", "group", "is_taken"),
    [
        (0o644, THIRD, True),
        (0o664, 0, True),
        (0o664, USER, True),
        (0o664, THIRD, False),
        (0o646, USER, False),
    ],
)
def test_settings_that_others_can_change_are_not_read(app: SmallApp, mode: int, group: int, is_taken: bool) -> None:
    path = write_settings(app, "keep_daily = 9\n", USER, mode)
    os.chown(path, USER, group)
    done = as_root(app, "config", "--json")
    assert done.code == (0 if is_taken else 2)
    if not is_taken:
        assert f"{path} can be changed by other users (mode {mode:04o}); it is not read." in done.err
        assert f"chmod go-w {path}" in done.err


def test_roots_settings_that_others_can_change_are_not_read_by_root(app: SmallApp) -> None:
    write_settings(app, "keep_daily = 9\n", 0, 0o666)
    done = as_root(app, "config")
    assert done.code == 2 and "it is not read" in done.err


def test_settings_that_are_a_link_of_another_user_are_not_read(app: SmallApp) -> None:
    own = write_settings(app, "keep_daily = 9\n", 0)
    own.rename(app.folder / "elsewhere.toml")
    os.chown(app.folder, THIRD, THIRD)
    as_other(lambda: own.symlink_to("elsewhere.toml"), THIRD)
    done = as_root(app, "config")
    assert done.code == 2 and f"belongs to uid {THIRD}" in done.err
    with pytest.raises(Refused, match=f"belongs to user {THIRD}"):
        load_settings(app.folder)


@pytest.mark.needs("unshare", "mount")
def test_settings_on_a_read_only_mount_are_read_whoever_owns_them(app: SmallApp) -> None:
    path = write_settings(app, "keep_daily = 9\n", THIRD)
    mount = f'mount --bind "{path}" "{path}" && mount -o remount,bind,ro "{path}" && exec "$@"'
    done = as_root(app, "config", "--json", prefix=("unshare", "--mount", "sh", "-c", mount, "sh"))
    assert done.code == 0, done.err
    assert done.json["keep_daily"] == {"value": 9, "origin": "backup.toml"}


def test_a_fifo_in_the_place_of_settings_is_named_and_not_waited_for(app: SmallApp) -> None:
    os.mkfifo(app.folder / "backup.toml")
    done = as_root(app, "config")
    assert (done.code, done.err.splitlines()[0]) == (2, f"Error: {app.folder / 'backup.toml'} is not a plain file.")


def test_settings_are_changed_as_their_owner(app: SmallApp, secret: Path) -> None:
    path = write_settings(app, "keep_daily = 9\n")
    os.chown(app.folder, USER, USER)
    assert as_root(app, "config", "set", "keep_daily", "8").code == 0
    assert (path.read_text(), path.stat().st_uid) == ("keep_daily = 8\n", USER)
    path.unlink()
    roots = secret.with_name("roots.toml")
    roots.write_text("keep_daily = 7\n")
    as_other(lambda: path.symlink_to(roots))
    done = as_root(app, "config", "set", "keep_daily", "8")
    assert done.code != 0 and roots.read_text() == "keep_daily = 7\n"


# Forged state


def test_a_forged_state_gains_nothing(app: SmallApp, secret: Path) -> None:
    """Root once followed a link in place of a folder of marks, and emptied the folder behind it."""
    as_root(app, "backup", "one")
    precious = secret.parent / "precious"
    precious.write_text("kept")
    held = app.backups / ".state" / "held"
    as_other(lambda: held.symlink_to(secret.parent))
    done = as_root(app, "backup", "two")
    assert precious.read_text() == "kept", done
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700


# A separate user for the backups


def test_backups_of_a_user_of_their_own_are_safe_from_the_app_and_can_be_restored(app: SmallApp) -> None:
    """The app shares its files with a group that this user is in; see docs/security.md."""
    give(THIRD, app.backups)
    app.backups.chmod(0o700)
    for top in (app.database.parent, app.uploads):
        for path in (top, *top.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o2770 if path.is_dir() else 0o660)

    def command(*words: str) -> Result:
        with_group = ("setpriv", f"--reuid={THIRD}", f"--regid={USER}", "--clear-groups")
        return as_root(app, *words, prefix=(*with_group, "sh", "-c", 'umask 002; exec "$@"', "sh"))

    def lose_data() -> None:
        (app.uploads / "1" / "letter.txt").unlink()
        app.execute("DELETE FROM documents")

    def attack() -> None:
        for act in (lambda: shutil.rmtree(app.backups / "good"), lambda: (app.backups / "good").rename("gone")):
            with pytest.raises(PermissionError):
                act()

    def write_on() -> None:
        (app.uploads / "1" / "letter.txt").write_text("Dear all")
        app.execute("DELETE FROM documents")

    assert command("backup", "good").code == 0
    before = app.rows("documents")
    as_other(lose_data)
    as_other(attack)
    done = command("restore", "good", "--yes")
    assert done.code == 3 and "belongs to another user" in done.err
    assert app.rows("documents") == before and (app.uploads / "1" / "letter.txt").exists()
    as_other(write_on)
