"""ACLs, extended attributes, capabilities and hard links of uploads: kept if the file systems can, reported if not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backupkit.backup.create import create_backup
from backupkit.fs import stamps
from backupkit.model.backup import BackupRequest, Metadata
from backupkit.monitoring.doctor import examine
from backupkit.restore.restore import plan_restore, restore_backup
from backupkit.restore.undo import plan_undo
from killed import AMONG_THE_UPLOADS, kill
from small_app import COMMAND, SmallApp, clean_environment, tree

ACCESS, DEFAULT, CAPABILITY = "system.posix_acl_access", "system.posix_acl_default", "security.capability"
OWNER, USER, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
NOBODY = 0xFFFFFFFF
CAN_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
Extras = dict[str, tuple[dict[str, bytes], str]]


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL in the kernel's format: each entry is a tag, permissions, and a user or group id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


READ_BY_4711 = acl((OWNER, 6, NOBODY), (USER, 4, 4711), (GROUP, 4, NOBODY), (MASK, 6, NOBODY), (OTHER, 4, NOBODY))
FOR_NEW_FILES = acl((OWNER, 7, NOBODY), (USER, 7, 4712), (GROUP, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 0, NOBODY))


def extras(root: Path) -> Extras:
    """Return the attributes of every file and folder, and the first path that is the same file."""
    firsts: dict[int, str] = {}
    found: Extras = {}
    for path in sorted(root.rglob("*")):
        facts, below = path.lstat(), str(path.relative_to(root))
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            first = below if path.is_dir() else firsts.setdefault(facts.st_ino, below)
            found[below] = {name: os.getxattr(path, name) for name in os.listxattr(path)}, first
    return found


def attributes_of(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.fixture
def rich(app: SmallApp) -> SmallApp:
    """An app whose uploads have every kind of attribute, and hard links."""
    if os.geteuid() != 0 or not hasattr(os, "setxattr"):
        pytest.skip("needs root, on Linux")
    letter, other = app.uploads / "1/letter.txt", app.uploads / "2/letter.txt"
    try:
        os.setxattr(letter, "user.origin", b"scanned \0 twice")
        os.setxattr(letter, ACCESS, READ_BY_4711)
        os.setxattr(app.uploads / "2", DEFAULT, FOR_NEW_FILES)
        os.setxattr(other, CAPABILITY, CAN_BIND)
    except OSError as error:
        pytest.skip(f"the file system of the tests keeps no attributes: {error.strerror}")
    for number in range(4):
        os.link(letter, app.uploads / f"1/name {number}.txt")
    return app


def back_up(app: SmallApp, name: str) -> Path:
    return create_backup(app.settings, BackupRequest(name)).backup.path


def metadata_of(app: SmallApp, name: str) -> Metadata:
    from backupkit.repository import manifest

    return manifest.read_metadata(app.backups / name, app.settings.zone)


def restore(app: SmallApp, name: str) -> tuple[str, ...]:
    return restore_backup(app.settings, plan_restore(app.settings, name)).warnings


def test_a_backup_has_them_all(rich: SmallApp) -> None:
    created = create_backup(rich.settings, BackupRequest("one"))
    assert created.warnings == ()
    assert extras(rich.backups / "one/uploads") == extras(rich.uploads)
    assert tree(rich.backups / "one/uploads") == tree(rich.uploads)
    facts = metadata_of(rich, "one").uploads
    assert facts and (facts.attributes, facts.hard_links) == (12, 4)
    listed = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=rich.backups / "one", capture_output=True)
    assert listed.returncode == 0, listed.stderr


def lose_all(app: SmallApp) -> None:
    """Lose all attributes and hard links, as a careless copy does: it keeps contents, modes and times only."""
    for path in app.uploads.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content, facts = path.read_bytes(), path.stat()
            path.unlink()
            path.write_bytes(content)
            path.chmod(facts.st_mode)
            os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    for path in (app.uploads, *app.uploads.rglob("*")):
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name)


def change_content(app: SmallApp) -> None:
    (app.uploads / "1/letter.txt").write_bytes(b"changed, under five names")
    (app.uploads / "2/letter.txt").write_bytes(b"changed")


def change_attributes(app: SmallApp) -> None:
    os.setxattr(app.uploads / "1/letter.txt", "user.origin", b"typed")
    os.setxattr(app.uploads / "1/letter.txt", "user.more", b"and more")
    os.removexattr(app.uploads / "2", DEFAULT)
    os.removexattr(app.uploads / "2/letter.txt", CAPABILITY)


def all_gone(app: SmallApp) -> None:
    for path in app.uploads.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def one_name_gone(app: SmallApp) -> None:
    (app.uploads / "1/name 2.txt").unlink()


def one_name_a_file_of_its_own(app: SmallApp) -> None:
    (app.uploads / "1/name 2.txt").unlink()
    (app.uploads / "1/name 2.txt").write_bytes(b"its own")


def first_name_a_file_of_its_own(app: SmallApp) -> None:
    content = (app.uploads / "1/letter.txt").read_bytes()
    (app.uploads / "1/letter.txt").unlink()
    (app.uploads / "1/letter.txt").write_bytes(content)


def a_name_more(app: SmallApp) -> None:
    os.link(app.uploads / "1/letter.txt", app.uploads / "0 name.txt")
    os.unlink(app.uploads / "2/letter.txt")
    os.link(app.uploads / "1/letter.txt", app.uploads / "2/letter.txt")


def everything_for_new_files(app: SmallApp) -> None:
    """Make new files inherit an ACL from their folder, also in the staging area."""
    for path in (app.uploads, app.uploads / "1"):
        os.setxattr(path, DEFAULT, FOR_NEW_FILES)
    change_content(app)


CHANGES = (
    lose_all,
    change_content,
    change_attributes,
    all_gone,
    one_name_gone,
    one_name_a_file_of_its_own,
    first_name_a_file_of_its_own,
    a_name_more,
    everything_for_new_files,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_restore_brings_them_all_back_and_an_undo_takes_them_back(
    rich: SmallApp, change: Callable[[SmallApp], None]
) -> None:
    before, files = extras(rich.uploads), tree(rich.uploads)
    back_up(rich, "one")
    change(rich)
    after, changed_files = extras(rich.uploads), tree(rich.uploads)
    assert restore(rich, "one") == ()
    assert extras(rich.uploads) == before
    assert tree(rich.uploads) == files
    restore_backup(rich.settings, plan_undo(rich.settings))
    assert extras(rich.uploads) == after
    assert tree(rich.uploads) == changed_files


def test_the_group_gains_no_rights(rich: SmallApp) -> None:
    """The mode of a file with an ACL shows the mask in place of the group's rights."""
    letter = rich.uploads / "1/letter.txt"
    assert letter.stat().st_mode & 0o777 == 0o664
    back_up(rich, "one")
    letter.unlink()
    restore(rich, "one")
    entries = struct.iter_unpack("<HHI", os.getxattr(letter, ACCESS)[4:])
    assert {tag: rights for tag, rights, _ in entries}[GROUP] == 4


def test_a_test_restore_compares_them(rich: SmallApp) -> None:
    back_up(rich, "one")
    rich.command("verify", "one", "--test-restore", check=0)


# Backups that share files


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the clock tick that must pass before a change is sure to show."""
    monkeypatch.setattr(stamps, "_TICK", 0)


@pytest.mark.usefixtures("settled")
def test_what_is_unchanged_is_linked_and_counted(rich: SmallApp) -> None:
    one, two, three = (back_up(rich, name) for name in ("one", "two", "three"))
    for path in ("1/letter.txt", "2/letter.txt", "1/name 3.txt"):
        assert len({(folder / "uploads" / path).stat().st_ino for folder in (one, two, three)}) == 1
    facts = metadata_of(rich, "three").uploads
    assert facts and (facts.attributes, facts.hard_links) == (12, 4)
    assert extras(three / "uploads") == extras(rich.uploads)


@pytest.mark.parametrize("path", ["1/letter.txt", "2/letter.txt"])
@pytest.mark.parametrize("tick", ["over", "not over"])
def test_a_file_whose_attributes_changed_is_not_linked(
    rich: SmallApp, monkeypatch: pytest.MonkeyPatch, path: str, tick: str
) -> None:
    if tick == "over":
        monkeypatch.setattr(stamps, "_TICK", 0)
    one = back_up(rich, "one")
    sealed = extras(one / "uploads")
    os.setxattr(rich.uploads / path, "user.origin", b"changed")
    two = back_up(rich, "two")
    assert extras(one / "uploads") == sealed
    assert extras(two / "uploads") == extras(rich.uploads)
    assert (one / "uploads" / path).stat().st_ino != (two / "uploads" / path).stat().st_ino


@pytest.mark.usefixtures("settled")
def test_an_index_that_knows_nothing_of_attributes_is_not_trusted_for_them(rich: SmallApp) -> None:
    """An earlier version of the toolkit left such an index, with copies that have no attributes."""
    one = back_up(rich, "one")
    for path in (one / "uploads").rglob("*"):
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name)
    forget_attributes(rich, "one")
    two = back_up(rich, "two")
    assert extras(two / "uploads") == extras(rich.uploads)


def forget_attributes(app: SmallApp, name: str) -> None:
    """Make the index of that backup no longer say that all attributes were kept."""
    import hashlib

    path = app.backups / ".state/index" / name
    lines = path.read_bytes().replace(b'"attributes": true', b'"attributes": false').splitlines(keepends=True)[:-1]
    body = b"".join(lines)
    path.write_bytes(body + f"{hashlib.sha256(body).hexdigest()} {len(body) - len(lines[-1]):020d}\n".encode())


def test_names_that_are_files_of_their_own_now_are_so_in_the_backup_too(rich: SmallApp) -> None:
    """The content and times are the same as before, so that each name could be linked to the same copy."""
    back_up(rich, "one")
    other = rich.uploads / "1/name 2.txt"
    facts, content = other.stat(), other.read_bytes()
    other.unlink()
    other.write_bytes(content)
    for name, value in attributes_of(rich.uploads / "1/letter.txt").items():
        os.setxattr(other, name, value)
    os.utime(other, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    two = back_up(rich, "two")
    assert extras(two / "uploads") == extras(rich.uploads)
    rich.command("verify", "two", check=0)


def test_a_file_that_has_its_other_name_elsewhere_is_one_file(rich: SmallApp, tmp_path: Path) -> None:
    os.link(rich.uploads / "2/letter.txt", tmp_path / "elsewhere")
    back_up(rich, "one")
    change_content(rich)
    assert restore(rich, "one") == ()
    assert (tmp_path / "elsewhere").read_bytes() == b"changed", "it was not written through"


def test_a_restore_that_is_killed_among_hard_links_is_finished(rich: SmallApp) -> None:
    before = extras(rich.uploads)
    back_up(rich, "one")
    for count in range(1, 7):
        change_content(rich)
        kill(rich, AMONG_THE_UPLOADS, "restore", "one", "--force", count=count)
        rich.command("recover", check=0)
        assert extras(rich.uploads) == before


# What cannot be kept


def without_attributes(app: SmallApp, *arguments: str) -> tuple[int, list[str]]:
    """Run the command on a file system without attributes; return its exit code and warnings."""
    refuse = ["-e", "trace=setxattr,fsetxattr,lsetxattr", "-e", "inject=setxattr,fsetxattr,lsetxattr:error=EOPNOTSUPP"]
    done = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", *refuse, sys.executable, str(COMMAND), *arguments],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]


@pytest.mark.needs("strace")
@pytest.mark.usefixtures("rich")
def test_a_backup_that_cannot_keep_attributes_says_how_many_once(app: SmallApp) -> None:
    for name in ("one", "two", "three"):
        code, (warning,) = without_attributes(app, "backup", name)
        assert code == 3
        assert warning.startswith("Warning: 4 ACLs, extended attributes or file capabilities of uploads cannot be kept")
    two, three = (app.backups / name / "uploads/2/letter.txt" for name in ("two", "three"))
    assert two.stat().st_ino != three.stat().st_ino or not attributes_of(three)
    before = extras(app.uploads)
    app.write_upload("later.txt", b"later")
    app.command("restore", "two", "--force", check=3)
    assert extras(app.uploads) == before, "what is live keeps its own"


@pytest.mark.needs("strace")
def test_a_restore_to_where_attributes_cannot_be_kept_says_how_many_once(rich: SmallApp) -> None:
    back_up(rich, "one")
    files = tree(rich.uploads)
    lose_all(rich)
    code, warnings = without_attributes(rich, "restore", "one", "--force")
    assert code == 3
    assert warnings and all("cannot be kept where the uploads are" in line for line in warnings)
    assert len(warnings) <= 2, "what is staged, and what is changed in its place"
    assert tree(rich.uploads).keys() == files.keys()


def test_where_files_cannot_be_linked_each_name_is_a_file_and_that_is_said(
    rich: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    created = create_backup(rich.settings, BackupRequest("one"))
    (warning,) = created.warnings
    assert warning.startswith("4 hard links are separate files in the backup")
    assert tree(rich.backups / "one/uploads") == tree(rich.uploads)
    before = extras(rich.uploads)
    of_the_safety_copy, of_the_backup = restore(rich, "one")
    assert of_the_safety_copy == warning
    assert "has 0 hard links where there were 4: what is live keeps its own" in of_the_backup
    assert extras(rich.uploads) == before


def test_a_backup_that_lost_them_on_its_way_takes_none_from_what_is_live(rich: SmallApp) -> None:
    folder = back_up(rich, "one")
    subprocess.run(["cp", "-r", "--preserve=mode,timestamps", folder, rich.backups / "copied"], check=True)
    shutil.rmtree(folder)
    (rich.backups / "copied").rename(folder)
    for path in (folder / "uploads").rglob("*"):
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name)
    before = extras(rich.uploads)
    rich.write_upload("2/letter.txt", b"changed")
    os.setxattr(rich.uploads / "2/letter.txt", CAPABILITY, CAN_BIND)
    done = rich.command("restore", "one", "--force", check=3)
    assert "0 ACLs and extended attributes where there were 12 and 0 hard links where there were 4" in done.err
    found = extras(rich.uploads)
    assert found["1/letter.txt"] == before["1/letter.txt"] and found["2"] == before["2"]
    assert (rich.uploads / "2/letter.txt").read_bytes() == b"Dear company 2\n"
    assert rich.command("verify", "one").code == 3


def test_names_that_another_program_made_one_file_of_in_the_backup_stay_apart(rich: SmallApp) -> None:
    """A program that saves space by linking equal files does this."""
    rich.write_upload("equal one", b"the same content")
    rich.write_upload("equal two", b"the same content")
    folder = back_up(rich, "one") / "uploads"
    (folder / "equal two").unlink()
    os.link(folder / "equal one", folder / "equal two")
    for name in ("equal one", "equal two"):
        (rich.uploads / name).unlink()
    rich.command("restore", "one", "--force", check=3)
    one, two = ((rich.uploads / name).stat().st_ino for name in ("equal one", "equal two"))
    assert one != two


def test_an_acl_that_an_admin_put_on_the_backups_does_not_go_live(rich: SmallApp) -> None:
    folder = back_up(rich, "one")
    before = extras(rich.uploads)
    for path in (folder / "uploads").rglob("*"):
        if not path.is_symlink():
            os.setxattr(path, ACCESS, READ_BY_4711)
    rich.command("restore", "one", "--force", check=3)
    assert extras(rich.uploads) == before


def test_a_plan_says_which_modes_an_admin_changed_in_the_backup(app: SmallApp) -> None:
    folder = back_up(app, "one")
    assert "with another mode" not in app.command("restore", "one", "--dry-run").out
    (folder / "uploads/2").chmod(0o777)
    (folder / "uploads/2/letter.txt").chmod(0o4666)
    plan = plan_restore(app.settings, "one")
    assert plan.uploads
    assert (plan.uploads.changed, plan.uploads.with_new_rights) == (0, 2)
    (note,) = (note for note in plan.notes if "mode and owner" in note)
    assert note.startswith(
        "Uploads and folders that get the mode and owner of the backup: 2; the first is 2: rwxr-xr-x"
    )
    assert "rwxrwxrwx" in note
    done = app.command("restore", "one", "--force")
    assert "the same as in the backup; 2 with another mode or owner" in done.out
    assert "with another mode" not in app.command("restore", "one", "--dry-run").out
    assert (app.uploads / "2/letter.txt").stat().st_mode & 0o7777 == 0o4666


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone restores owners")
def test_a_plan_says_whose_uploads_become_another_ones(app: SmallApp) -> None:
    folder = back_up(app, "one")
    os.chown(folder / "uploads/2/letter.txt", 4711, 4712)
    (note,) = (note for note in plan_restore(app.settings, "one").notes if "mode and owner" in note)
    live = (app.uploads / "2/letter.txt").stat()
    assert f": 1; the first is 2/letter.txt: rw-r--r-- of {live.st_uid}:{live.st_gid} now, " in note
    assert note.endswith("rw-r--r-- of 4711:4712 then.")


def test_a_backup_of_an_earlier_version_leaves_them_as_they_are(rich: SmallApp) -> None:
    """Its metadata do not say how many there were, because that version did not look."""
    folder = back_up(rich, "one")
    for path in (folder / "uploads").rglob("*"):
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name)
    values = json.loads((folder / "backup_metadata.json").read_text())
    for key in ("attributes", "hard_links"):
        del values["uploads"][key]
    (folder / "backup_metadata.json").write_text(json.dumps(values))
    seal_again(folder, "backup_metadata.json")
    before = extras(rich.uploads)
    (rich.uploads / "later.txt").write_bytes(b"later")
    assert restore(rich, "one") == ()
    assert extras(rich.uploads) == before


def seal_again(folder: Path, name: str) -> None:
    import hashlib

    lines = [line for line in (folder / "SHA256SUMS").read_text().splitlines() if not line.endswith(f"  {name}")]
    lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}")
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def test_a_backups_folder_that_gives_new_files_an_acl_gives_none_to_the_copies(rich: SmallApp) -> None:
    os.setxattr(rich.backups, DEFAULT, FOR_NEW_FILES)
    folder = back_up(rich, "one")
    assert extras(folder / "uploads") == extras(rich.uploads)
    assert tree(folder / "uploads") == tree(rich.uploads)
    assert restore(rich, "one") == ()


# Archives and remotes


def test_an_archive_takes_them_along(rich: SmallApp) -> None:
    os.setxattr(rich.uploads / "1", "user.with = and %", b"a name that tar has to quote")
    back_up(rich, "one")
    exported = rich.command("export", "one", "one.tar", check=0)
    assert "2/letter.txt has file capabilities" in exported.err
    refused = rich.command("import", "one.tar", "--name", "came", check=12)
    assert "file capabilities" in refused.err and "--trust" in refused.err
    rich.command("import", "one.tar", "--name", "came", "--trust", check=0)
    assert extras(rich.backups / "came/uploads") == extras(rich.uploads)
    assert tree(rich.backups / "came/uploads") == tree(rich.uploads)
    rich.command("verify", "came", "--test-restore", check=0)


@pytest.mark.needs("tar")
def test_an_archive_is_read_by_tar(rich: SmallApp, tmp_path: Path) -> None:
    back_up(rich, "one")
    rich.command("export", "one", "one.tar", check=0)
    unpack = ["tar", "--xattrs", "--xattrs-include=*", "-xpf", rich.backups / "one.tar", "-C", tmp_path]
    subprocess.run(unpack, check=True)
    assert extras(tmp_path / "one/uploads") == extras(rich.uploads)


@pytest.mark.needs("tar")
def test_what_tar_packed_with_them_is_imported_with_them(rich: SmallApp) -> None:
    back_up(rich, "one")
    pack = ["tar", "--xattrs", "--xattrs-include=*", "--format=posix", "--sort=name", "-cf", "one.tar", "one"]
    subprocess.run(pack, cwd=rich.backups, check=True)
    rich.command("import", "one.tar", "--name", "came", "--trust", check=0)
    assert extras(rich.backups / "came/uploads") == extras(rich.uploads)


def with_folder(app: SmallApp, folder: Path) -> None:
    folder.mkdir()
    (app.folder / "backup.toml").write_text(f'[remotes.nas]\ntype = "folder"\npath = "{folder}"\n')
    app.command("remotes", "--init", "nas", check=0)


def test_a_folder_keeps_them_and_gives_them_back(rich: SmallApp, tmp_path: Path) -> None:
    with_folder(rich, tmp_path / "nas")
    for name in ("one", "two"):
        back_up(rich, name)
        rich.command("push", name, check=0)
        assert extras(tmp_path / "nas" / name / "uploads") == extras(rich.uploads)
    one, two = (tmp_path / "nas" / name / "uploads/1/letter.txt" for name in ("one", "two"))
    assert one.stat().st_ino == two.stat().st_ino, "what is unchanged is linked there"
    rich.command("delete", "two", "--yes", check=0)
    refused = rich.command("pull", "two", check=12)
    assert "file capabilities" in refused.err
    rich.command("pull", "two", "--trust", check=0)
    assert extras(rich.backups / "two/uploads") == extras(rich.uploads)
    rich.command("verify", "two", check=0)


def test_a_folder_gets_names_that_are_files_of_their_own_as_such(rich: SmallApp, tmp_path: Path) -> None:
    with_folder(rich, tmp_path / "nas")
    back_up(rich, "one")
    rich.command("push", "one", check=0)
    first_name_a_file_of_its_own(rich)
    back_up(rich, "two")
    rich.command("push", "two", check=0)
    assert extras(tmp_path / "nas/two/uploads") == extras(rich.uploads)


@pytest.mark.needs("strace")
def test_a_folder_that_cannot_keep_them_says_how_many_once(rich: SmallApp, tmp_path: Path) -> None:
    with_folder(rich, tmp_path / "nas")
    back_up(rich, "one")
    refuse = ["-e", "trace=setxattr,fsetxattr,lsetxattr", "-e", "inject=setxattr,fsetxattr,lsetxattr:error=EOPNOTSUPP"]
    done = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", *refuse, sys.executable, str(COMMAND), "push", "one"],
        env={**clean_environment(), "BACKUP_APP_DIR": str(rich.folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot keep 4 ACLs, extended attributes, file capabilities or hard links") == 1


@pytest.mark.needs("git")
def test_git_says_how_many_it_cannot_keep(rich: SmallApp, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "there.git"], check=True)
    lines = [f'url = "{tmp_path}/there.git"', 'include = ["dump", "metadata", "database", "uploads"]']
    lines += ['user_name = "Backup"', 'user_email = "backup@example.com"']
    (rich.folder / "backup.toml").write_text("\n".join(["[remotes.there]", 'type = "git"', *lines, ""]))
    rich.command("remotes", "--init", "there")
    back_up(rich, "one")
    pushed = rich.command("push", "one", "--yes", check=0)
    assert pushed.err.count("cannot keep 16 ACLs, extended attributes, file capabilities or hard links") == 1


@pytest.mark.needs("restic")
def test_restic_keeps_them_itself(rich: SmallApp, tmp_path: Path) -> None:
    (rich.folder / "backup.toml").write_text(
        f'[remotes.there]\ntype = "restic"\nrepository = "{tmp_path}/repository"\npassword = "secret"\n'
    )
    rich.command("remotes", "--init", "there", check=0)
    back_up(rich, "one")
    rich.command("push", "one", check=0)
    rich.command("delete", "one", "--yes", check=0)
    rich.command("pull", "one", "--trust", check=0)
    assert extras(rich.backups / "one/uploads") == extras(rich.uploads)


# The doctor


def test_doctor_says_what_the_file_systems_keep(rich: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> list[str]:
        return [f"{one.level}: {one.text}" for one in examine(rich.settings) if "ACLs" in one.text]

    assert said() == ["fine: ACLs, extended attributes and hard links of uploads are kept."]
    real = os.getxattr

    def without_acls(path: str, name: str, **more: bool) -> bytes:
        if name == ACCESS and str(path).startswith(str(rich.backups)):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, name, **more)

    monkeypatch.setattr(os, "getxattr", without_acls)
    assert said() == [f"warning: The file system of {rich.backups} keeps no ACLs: those of uploads are in no backup."]


def test_doctor_says_that_hard_links_are_lost(rich: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    texts = [one.text for one in examine(rich.settings)]
    assert any("keeps no hard links" in text for text in texts)
    assert not list(rich.backups.glob(".draft*"))
