"""`config init`, `set`, `unset` and `schema`: the file keeps its comments, and never holds what would be refused."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest

import disk_images
from backupkit.config import editor, schema
from backupkit.config.settings import Settings, check_file, load_settings, secret_names
from backupkit.config.table import fields
from backupkit.fs import disk
from backupkit.model.errors import Locked, Refused
from refusals import another_process, refused, refused_to_user, run_here
from small_app import BACKEND, SmallApp, clean_environment

NAMES = [name for name in fields(Settings) if name != "app_dir"]

OWN = """\
# Ours since the spring.
timezone = "Europe/Berlin"   # where we are
notify_on = [
    "failure",  # always
]

# service = "backend"
"""


@pytest.fixture
def file(app: SmallApp) -> Path:
    """A `backup.toml` that a person wrote."""
    path = app.folder / "backup.toml"
    path.write_text(OWN)
    path.chmod(0o640)
    return path


def configured(app: SmallApp, *words: str, **environment: str) -> str:
    return run_here(app, "config", *words, env=environment, check=0).out


# init


def test_init_writes_every_setting_with_what_it_means_and_sets_none(app: SmallApp) -> None:
    assert str(app.folder / "backup.toml") in configured(app, "init")
    text = (app.folder / "backup.toml").read_text()
    assert tomllib.loads(text) == {}
    for name in NAMES:
        described = fields(Settings)[name].description
        assert described
        assert described.split()[0] in text
        spelled = f"{name}_file" if name in secret_names() else name
        assert re.search(rf"^# ({spelled} = |\[{spelled}\]$)", text, re.M), name
    assert "a whole number from 0 to 1,000,000" in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_every_default_that_init_tells_is_one(app: SmallApp) -> None:
    uncommented = re.sub(r"^# (?=[a-z_]+ = )", "", schema.template(app.folder), flags=re.M)
    told = check_file(app.folder, uncommented)
    assert {**told.values(), "dir": None, "app_id": ""} == {
        **check_file(app.folder, "").values(),
        "dir": None,
        "app_id": "",
    }
    assert (told.dir, told.app_id) == (app.backups, "pats")


def test_init_never_overwrites(app: SmallApp, file: Path) -> None:
    refused(app, "config", "init", code=2, names=str(file), hint="config set")
    assert file.read_text() == OWN
    file.unlink()
    file.symlink_to("nowhere")
    refused(app, "config", "init", code=2, names=str(file), hint="config set")
    assert not file.exists()


def test_init_can_print_instead(app: SmallApp, file: Path) -> None:
    assert configured(app, "init", "--stdout") == schema.template(app.folder)
    assert file.read_text() == OWN
    refused(app, "config", "init", "--stdout", "--json", code=2, names="--stdout", hint="--json")


def test_the_reference_apps_file_is_what_init_writes() -> None:
    """The file is mounted into the container, so it has to exist."""
    assert (BACKEND / "backup.toml").read_text() == schema.template(BACKEND)


# set


def test_set_changes_one_value_and_keeps_everything_else(app: SmallApp, file: Path) -> None:
    owner = file.stat().st_uid
    assert "timezone is UTC" in configured(app, "set", "timezone", "UTC")
    assert file.read_text() == OWN.replace("Europe/Berlin", "UTC")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.stat().st_uid == owner
    assert load_settings(app.folder).timezone == "UTC"


def test_a_new_value_goes_below_the_comment_that_stands_for_it(app: SmallApp, file: Path) -> None:
    configured(app, "set", "BACKUP_SERVICE", "web")
    assert file.read_text() == OWN + 'service = "web"\n'
    configured(app, "set", "keep_daily", "7")
    assert tomllib.loads(file.read_text())["keep_daily"] == 7


def test_set_begins_a_file_where_there_is_none(app: SmallApp) -> None:
    configured(app, "set", "keep_last", "5")
    path = app.folder / "backup.toml"
    assert path.read_text() == "keep_last = 5\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("busy_timeout", "5", 5),
        ("busy_timeout", "2.5", 2.5),
        ("backup_before_migrations", "no", False),
        ("notify_on", "failure, success", ["failure", "success"]),
        ("notify_on", "", []),
        ("uploads", "", ""),
        ("warning_age", "", ""),
        ("database", 'data/new "one".db', 'data/new "one".db'),
        ("keep_within", "1y2m", "1y2m"),
        ("test_command", "grep -c '#' data", "grep -c '#' data"),
        ("runner", "local", "local"),
    ],
)
def test_a_value_is_written_as_the_kind_that_it_is(app: SmallApp, name: str, text: str, written: object) -> None:
    configured(app, "init")
    result = json.loads(configured(app, "set", name, text, "--json"))
    assert result == {
        "schema_version": 1,
        "setting": name,
        "value": written,
        "file": str(app.folder / "backup.toml"),
        "overridden_by": "",
    }
    assert tomllib.loads((app.folder / "backup.toml").read_text()) == {name: written}


@pytest.mark.parametrize(
    ("name", "text", "named", "allowed"),
    [
        ("timezone", "Mars", "timezone = 'Mars': is not a time zone", "config init --stdout"),
        ("runner", "kubernetes", "runner = 'kubernetes'", "auto, docker or local"),
        ("keep_daily", "many", "keep_daily = 'many'", "a whole number from 0 to 1,000,000"),
        ("keep_daily", "-1", "keep_daily = '-1'", "from 0"),
        ("notify_timeout", "0", "notify_timeout = '0'", "a number above 0 to 600"),
        ("notify_on", "sucess", "notify_on", "a list of failure, warning or success"),
        ("backup_before_migrations", "perhaps", "backup_before_migrations", "true or false"),
        ("timezon", "UTC", "timezon is not a setting", "timezone"),
        ("colour", "blue", "colour is not a setting", "config init --stdout"),
        ("app_dir", "elsewhere", "app_dir", "BACKUP_APP_DIR"),
        ("ping_url_file", "nowhere", "nowhere", "config set ping_url_file PATH"),
        ("critical_age", "1", "critical_age = '1': is below", "config init --stdout"),
    ],
)
def test_a_value_that_cannot_be_changes_nothing(app: SmallApp, name: str, text: str, named: str, allowed: str) -> None:
    path = app.folder / "backup.toml"
    path.write_text(f"{OWN}\nwarning_age = 5\n")
    refused(app, "config", "set", "--", name, text, code=2, names=named, hint=allowed)
    assert path.read_text() == f"{OWN}\nwarning_age = 5\n"


@pytest.mark.parametrize("command", ["set", "unset"])
def test_a_key_of_a_remote_is_not_taken_for_a_setting_of_this_machine(app: SmallApp, command: str) -> None:
    value = ["3"] if command == "set" else []
    told = "remotes.nas.keep_daily is in a table of its own"
    hint = r"keep_daily below \[remotes.nas\]"
    refused(app, "config", command, "remotes.nas.keep_daily", *value, code=2, names=told, hint=hint)


def test_what_the_environment_hides_is_refused_too(app: SmallApp) -> None:
    there = {"BACKUP_TIMEZONE": "UTC"}
    refused(
        app,
        "config",
        "set",
        "timezone",
        "Mars",
        code=2,
        names="timezone = 'Mars'",
        hint="config init --stdout",
        env=there,
    )


def test_a_variable_that_is_stronger_is_told_of(app: SmallApp) -> None:
    done = run_here(app, "config", "set", "timezone", "UTC", env={"BACKUP_TIMEZONE": "Asia/Tokyo"}, check=0)
    assert "BACKUP_TIMEZONE in the environment overrides this." in done.err
    assert "overrides" not in run_here(app, "config", "set", "timezone", "UTC", check=0).err
    (app.folder / "url").write_text("https://example.org/x")
    there = {"BACKUP_PING_URL": "https://example.org/y"}
    assert "BACKUP_PING_URL in" in run_here(app, "config", "set", "ping_url_file", "url", env=there, check=0).err


@pytest.mark.parametrize("name", secret_names())
def test_a_secret_is_not_taken_from_the_command_line(app: SmallApp, name: str) -> None:
    result = refused(app, "config", "set", name, "sesame", code=2, names=name, hint=f"{name}_file PATH")
    assert "sesame" not in result.err
    assert not (app.folder / "backup.toml").exists()


def test_a_wrong_value_in_the_file_can_be_set_right(app: SmallApp, file: Path) -> None:
    file.write_text(OWN.replace("Europe/Berlin", "Mars"))
    refused(app, "list", code=2, names=f"timezone = 'Mars' ({file}, line 2): is not", hint="config unset timezone`")
    refused(app, "config", "set", "keep_last", "1", code=2, names=f"{file}, line 2", hint="config unset timezone`")
    configured(app, "set", "timezone", "UTC")
    run_here(app, "list", check=0)


def test_what_a_wrong_value_says_to_type_can_be_typed(app: SmallApp, file: Path) -> None:
    file.write_text(OWN.replace("Europe/Berlin", "Mars"))
    assert "timezone" in configured(app, "init", "--stdout")
    refused(app, "config", code=2, names="timezone", hint="`config unset timezone`")
    configured(app, "unset", "timezone")
    run_here(app, "config", check=0)


def test_a_file_that_is_no_toml_is_left_alone(app: SmallApp, file: Path) -> None:
    file.write_text(f"{OWN}x = ")
    for words in (["set", "timezone", "UTC"], ["unset", "timezone"]):
        refused(app, "config", *words, code=2, names="line 8", hint="Mend")
    file.write_text(f'{OWN}x = "')
    refused(app, "config", "set", "timezone", "UTC", code=2, names="at its end, line 8", hint="Mend")
    assert file.read_text() == f'{OWN}x = "'


def test_a_table_of_somebodys_own_stays_behind_the_values(app: SmallApp, file: Path) -> None:
    """No value that is set may end up in a table."""
    text = editor._text_with(
        f"{OWN}[later]\nservice = 1\n", {**tomllib.loads(OWN), "later": {"service": 1}}, "dir", "x"
    )
    assert tomllib.loads(text) == {**tomllib.loads(OWN), "dir": "x", "later": {"service": 1}}


def test_a_file_that_is_not_there_is_named_with_its_whole_path_and_what_can_be_typed(app: SmallApp, file: Path) -> None:
    (app.folder.parent / "urls").write_text("json://host.example.org")
    (app.folder.parent / "urls").chmod(0o600)
    said = refused(
        app, "config", "set", "notify_urls_file", "urls", code=2, names=str(app.folder / "urls"), hint="config unset"
    )
    assert "before the command" not in said.err
    configured(app, "set", "notify_urls_file", str(app.folder.parent / "urls"))
    (app.folder.parent / "urls").unlink()
    refused(app, "config", "set", "service", "web", code=2, names="urls", hint="config unset notify_urls_file")
    configured(app, "unset", "notify_urls_file")
    configured(app, "set", "service", "web")


# unset


def test_unset_takes_the_line_away_and_nothing_else(app: SmallApp, file: Path) -> None:
    configured(app, "set", "service", "web")
    assert configured(app, "unset", "service").endswith("the default applies.\n")
    assert file.read_text() == OWN
    before = file.stat()
    assert "Nothing was changed." in configured(app, "unset", "service")
    assert file.stat() == before, "nothing was to be done"
    refused(app, "config", "unset", "servce", code=2, names="servce", hint="service")


def test_unset_removes_what_is_no_value_for_it(app: SmallApp, file: Path) -> None:
    file.write_text(f"{OWN}keep_last = -7\n")
    configured(app, "unset", "keep_last")
    assert file.read_text() == OWN


# Writing


def test_a_link_to_the_file_stays_one(app: SmallApp, file: Path, tmp_path: Path) -> None:
    file.rename(tmp_path / "elsewhere.toml")
    file.symlink_to(tmp_path / "elsewhere.toml")
    configured(app, "set", "timezone", "UTC")
    assert file.is_symlink()
    assert tomllib.loads((tmp_path / "elsewhere.toml").read_text())["timezone"] == "UTC"


def test_a_file_that_may_not_be_written_is_named(app: SmallApp, file: Path) -> None:
    app.folder.chmod(0o555)
    try:
        result = refused_to_user(app, "config", "set", "timezone", "UTC", code=1, names=str(file), hint="ls -ld")
    finally:
        app.folder.chmod(0o755)
    assert "Permission denied" in result.err
    assert file.read_text() == OWN


def test_a_file_that_the_disk_does_not_give_is_no_matter_of_rights(app: SmallApp, file: Path) -> None:
    file.unlink()
    file.symlink_to("/proc/self/mem")  # its first byte gives EIO to everybody
    result = refused(app, "list", code=2, names=f"{file} cannot be read: Input/output error", hint="dmesg")
    assert "chmod" not in result.err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may mount")
def test_a_full_disk_is_told_by_its_own_exit_code(app: SmallApp, file: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with disk_images.until_unmounted("tmpfs", ["mount", "-t", "tmpfs", "-o", "size=64k", "none", small]):
        file.unlink()
        file.symlink_to(small / file.name)
        file.write_text(OWN)
        with suppress(OSError), open(small / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        refused(app, "config", "set", "timezone", "UTC", code=15, names="The disk is full: ", hint="Make room")
        assert file.read_text() == OWN


def test_what_a_killed_run_left_is_cleared_by_the_next(app: SmallApp, file: Path) -> None:
    (app.folder / ".draft-backup.toml-0123").write_text("half of")
    configured(app, "set", "timezone", "UTC")
    assert [path.name for path in app.folder.iterdir() if "draft" in path.name] == []


def test_two_at_once_do_not_lose_each_others_values(app: SmallApp, file: Path) -> None:
    hold = "import fcntl, os; h = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(h, fcntl.LOCK_EX)"
    with another_process(hold, app.folder):
        refused(app, "config", "set", "timezone", "UTC", code=11, names=str(file), hint="again")
    assert file.read_text() == OWN
    configured(app, "set", "timezone", "UTC")


def test_a_file_that_changed_meanwhile_is_not_written_over(
    app: SmallApp, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_slowly(*given: object, **named: object) -> Settings:
        file.write_text(f"{OWN}keep_last = 1\n")
        return check_file(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(editor, "check_file", check_slowly)
    with pytest.raises(Locked):
        editor.set_value(app.folder, "timezone", "UTC")
    assert file.read_text() == f"{OWN}keep_last = 1\n"


def test_a_file_of_the_image_is_not_written(app: SmallApp, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_RUNNER_IN_USE", "exec")
    monkeypatch.setattr(disk, "mounts", lambda: {"/", str(app.folder / "data")})
    with pytest.raises(Refused, match="part of the image") as refusal:
        editor.set_value(app.folder, "timezone", "UTC")
    assert f"./backend/backup.toml:{file}" in refusal.value.hint
    assert file.read_text() == OWN
    monkeypatch.setattr(disk, "mounts", lambda: {"/", str(app.folder)})
    editor.set_value(app.folder, "timezone", "UTC")
    assert load_settings(app.folder).timezone == "UTC"


@pytest.mark.parametrize("value", ["UTC", "America/Argentina/ComodRivadavia"], ids=["shorter", "longer"])
def test_a_file_that_is_a_mount_is_written_in_place(
    app: SmallApp, file: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rename can replace a mounted file, and the folder around it belongs to the image."""
    monkeypatch.setenv("BACKUP_RUNNER_IN_USE", "exec")
    monkeypatch.setattr(disk, "mounts", lambda: {"/", str(file)})
    before = file.stat()
    editor.set_value(app.folder, "timezone", value)
    assert file.read_text() == OWN.replace("Europe/Berlin", value)
    assert (file.stat().st_ino, file.stat().st_mode) == (before.st_ino, before.st_mode)


def test_a_full_disk_leaves_a_mounted_file_as_it_was(
    app: SmallApp, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, tried = os.pwrite, []

    def no_room(handle: int, content: bytes, offset: int) -> int:
        tried.append(content)
        return really(handle, content[:10] if len(tried) == 1 else content, offset)

    monkeypatch.setattr(disk, "mounts", lambda: {str(file)})
    monkeypatch.setattr(os, "pwrite", no_room)
    with pytest.raises(OSError, match="No space"):
        disk.rewrite_file(file, b"x = 1\n" * 100)
    assert file.read_text() == OWN


def test_mounts_are_those_of_the_system() -> None:
    assert "/" in disk.mounts()
    assert all(place.startswith("/") for place in disk.mounts())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may mount")
@pytest.mark.needs("unshare")
def test_a_real_mount_is_written_in_place(app: SmallApp, file: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside of the container.toml"
    outside.write_text(OWN)
    outside.chmod(0o640)
    script = 'mount --bind "$1" "$2" && "$3" "$4" config set timezone UTC'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", outside, file, sys.executable, BACKEND / "backup_restore.py"],
        env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder), "BACKUP_RUNNER_IN_USE": "exec"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert outside.read_text() == OWN.replace("Europe/Berlin", "UTC")
    assert stat.S_IMODE(outside.stat().st_mode) == 0o640
    assert file.read_text() == OWN, "the file below the mount"


# The schema


def test_the_schema_beside_the_reference_app_is_what_the_command_prints(app: SmallApp) -> None:
    told = configured(app, "schema")
    assert (BACKEND / schema.SCHEMA_FILE).read_text() == told, "type: config schema > backup.schema.json"


def test_the_schema_has_every_setting_and_every_file_of_a_secret() -> None:
    wanted = {*NAMES, *(f"{name}_file" for name in secret_names())}
    properties = schema.json_schema()["properties"]
    assert set(properties) == wanted
    assert all(described["description"] for described in properties.values())
    assert properties["runner"]["enum"] == ["auto", "docker", "local"]
    assert "anyOf" not in json.dumps(properties)
    assert "#/$defs" not in json.dumps(properties), "a setting that is a table needs its definitions"


def test_the_file_names_the_schema_where_it_is(app: SmallApp) -> None:
    assert "#:schema" not in schema.template(app.folder)
    (app.folder / schema.SCHEMA_FILE).write_text("{}")
    assert schema.template(app.folder).startswith("#:schema ./backup.schema.json\n")


def test_config_alone_still_shows_the_settings(app: SmallApp, file: Path) -> None:
    assert json.loads(configured(app, "--json"))["timezone"] == {"value": "Europe/Berlin", "origin": "backup.toml"}
    assert configured(app).startswith("SETTING")
    assert run_here(app, "config", "bogus").code == 2
