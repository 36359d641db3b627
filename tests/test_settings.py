"""Settings: environment over `backup.toml` over defaults, every path absolute, no value that ends in a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from backupkit.words.errors import Refused
from backupkit.words.settings import Settings, load_settings
from refusals import refused, run_here
from small_app import SmallApp, clean_environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app folder with nothing in it, and an environment that says nothing of it."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app").mkdir()
    return tmp_path / "app"


# Where a value comes from.


def test_the_defaults_are_the_reference_apps(folder: Path) -> None:
    found = load_settings(folder)
    assert found.database == folder / "data" / "pats.db"
    assert found.uploads == folder / "uploads"
    assert found.alembic_ini == folder / "alembic.ini"
    assert (found.timezone, found.service, found.runner) == ("UTC", "backend", "auto")


def test_environment_over_file_over_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "backup.toml").write_text('timezone = "Europe/Berlin"\nservice = "web"\n')
    monkeypatch.setenv("BACKUP_SERVICE", "api")
    found = load_settings(folder)
    assert (found.timezone, found.service, found.runner) == ("Europe/Berlin", "api", "auto")


def test_config_tells_where_each_value_comes_from(app: SmallApp) -> None:
    (app.folder / "backup.toml").write_text('timezone = "Europe/Berlin"\nservice = "web"\n')
    told = run_here(app, "config", "--json", env={"BACKUP_SERVICE": "api"}, check=0).json
    assert set(told) == set(Settings.model_fields)
    assert told["service"] == {"value": "api", "origin": "environment BACKUP_SERVICE"}
    assert told["timezone"] == {"value": "Europe/Berlin", "origin": "backup.toml"}
    assert told["runner"] == {"value": "auto", "origin": "default"}
    lines = run_here(app, "config", check=0).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(Settings.model_fields)


def test_the_callers_folder_has_no_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "backup.toml").write_text('database = "db/a.sqlite"\nuploads = "../media"\ndir = "../safe"\n')
    here = load_settings(folder)
    monkeypatch.chdir("/")
    assert load_settings(folder) == here
    assert here.database == folder / "db" / "a.sqlite"
    assert here.uploads == folder.parent / "media"
    assert here.dir == folder.parent / "safe"


def test_relative_paths_of_the_environment_start_in_the_app_folder_too(app: SmallApp) -> None:
    told = run_here(app, "config", "--json", env={"BACKUP_DATABASE": "db/x.sqlite"}, check=0).json
    assert told["database"]["value"] == str(app.folder / "db" / "x.sqlite")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("sqlite:///data/x.db", "{app}/data/x.db"),
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite+aiosqlite:///data/x.db", "{app}/data/x.db"),
        ("sqlite+pysqlite:///./data/x.db?timeout=5", "{app}/data/x.db"),
        ("data/../data/x.db", "{app}/data/x.db"),
        ("/var/lib/x.db", "/var/lib/x.db"),
        ("~/x.db", "{home}/x.db"),
        ("data/with space é.db", "{app}/data/with space é.db"),
    ],
)
def test_a_database_is_a_path_or_a_url(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str, path: str) -> None:
    monkeypatch.setenv("BACKUP_DATABASE", value)
    assert str(load_settings(folder).database) == path.format(app=folder, home=folder.parent / "home")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "postgresql://user:secret@host/db",
        "mysql+pymysql://host/db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
    ],
)
def test_a_database_that_is_no_file_is_refused(app: SmallApp, value: str) -> None:
    refused(app, "backup", code=2, names="BACKUP_DATABASE", hint="`config`", env={"BACKUP_DATABASE": value})


def test_a_refusal_does_not_tell_the_password(app: SmallApp) -> None:
    url = {"BACKUP_DATABASE": "postgresql://user:secret@host/db"}
    assert "secret" not in run_here(app, "backup", env=url).err


@pytest.mark.parametrize("name", ["uploads", "SHA256SUMS", "RESTORE.md", "backup_metadata.json"])
def test_a_database_may_not_be_named_like_another_part_of_a_backup(app: SmallApp, name: str) -> None:
    refused(app, "backup", code=2, names=name, hint="`config`", env={"BACKUP_DATABASE": f"data/{name}"})


def test_empty_uploads_mean_there_are_none(app: SmallApp) -> None:
    run_here(app, "backup", "one", env={"BACKUP_UPLOADS": ""}, check=0)
    assert not (app.backups / "one" / "uploads").exists()
    (app.folder / "backup.toml").write_text('uploads = ""\n')
    assert run_here(app, "config", "--json", check=0).json["uploads"]["value"] is None


def test_backups_lie_in_the_app_folder_where_it_has_such_a_folder_and_else_beside_it(folder: Path) -> None:
    assert load_settings(folder).dir == folder.parent / "backups"
    (folder / "backups").mkdir()
    assert load_settings(folder).dir == folder / "backups"


def test_an_app_folder_that_is_set_to_nothing_is_the_scripts_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_APP_DIR", "")
    assert load_settings(folder).database == folder / "data" / "pats.db"


def test_an_app_folder_that_is_not_there_is_refused(app: SmallApp) -> None:
    refused(app, "backup", code=2, names="/nope", hint="BACKUP_APP_DIR", env={"BACKUP_APP_DIR": "/nope"})


# What is wrong with a value.


@pytest.mark.parametrize(
    ("line", "named", "hint"),
    [
        ('databse = "x"', "databse", "database"),
        ('colour = "blue"', "colour", "`config`"),
        ("[section]\nx = 1", "section", "`config`"),
        ('timezone = "Mars/Olympus"', "timezone", "`config`"),
        ("timezone = 5", "timezone", "`config`"),
        ('busy_timeout = "soon"', "busy_timeout", "`config`"),
        ("busy_timeout = -1", "busy_timeout", "`config`"),
        ("busy_timeout = nan", "busy_timeout", "`config`"),
        ('runner = "kubernetes"', "runner", "`config`"),
        ("database = [1, 2]", "database", "`config`"),
        ('database = "a\\u0000b"', "database", "`config`"),
        ('database = "~nobody-at-all/x"', "database", "`config`"),
        ('dir = "~nobody-at-all/x"', "dir", "`config`"),
    ],
)
def test_a_wrong_line_of_the_file_is_named(app: SmallApp, line: str, named: str, hint: str) -> None:
    (app.folder / "backup.toml").write_text(line)
    result = refused(app, "backup", code=2, names=named, hint=hint)
    assert str(app.folder / "backup.toml") in result.err


@pytest.mark.parametrize("content", [b"timezone = ", b"\xff\xfe", b'a = "', b"a = 1\na = 2", b"[" * 5000, b"\0"])
def test_a_file_that_is_no_toml_is_refused(app: SmallApp, content: bytes) -> None:
    (app.folder / "backup.toml").write_bytes(content)
    refused(app, "backup", code=2, names=str(app.folder / "backup.toml"), hint="[Mm]end|`")


def test_a_file_that_is_a_folder_is_refused(app: SmallApp) -> None:
    (app.folder / "backup.toml").mkdir()
    refused(app, "backup", code=2, names=str(app.folder / "backup.toml"), hint="")


@pytest.mark.parametrize("slip", ["BACKUP_DATABSE", "BACKUP_UPLOAD", "BACKUP_TIMEZON", "BACKUP_DIRS"])
def test_a_slip_of_the_pen_in_the_environment_is_refused(app: SmallApp, slip: str) -> None:
    refused(app, "backup", code=2, names=slip, hint="Did you mean BACKUP_", env={slip: "x"})


def test_a_variable_of_another_tool_is_left_alone_and_told_of(app: SmallApp) -> None:
    run_here(app, "backup", "one", env={"BACKUP_S3_SECRET_OF_ANOTHER_TOOL": "x"}, check=0)
    assert (
        "BACKUP_S3_SECRET_OF_ANOTHER_TOOL" in run_here(app, "doctor", env={"BACKUP_S3_SECRET_OF_ANOTHER_TOOL": "x"}).out
    )


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe", "UTC\n", "/etc/localtime"])
def test_an_unknown_time_zone_is_refused(app: SmallApp, zone: str) -> None:
    refused(app, "backup", code=2, names="BACKUP_TIMEZONE", hint="`config`", env={"BACKUP_TIMEZONE": zone})


# No text whatsoever leads to a traceback.

NAMES = st.sampled_from([name for name in Settings.model_fields if name != "app_dir"])
SCALARS = st.text() | st.integers() | st.floats() | st.booleans() | st.dates() | st.times()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("bare")


def tried(bare: Path, environment: dict[str, str]) -> Settings | None:
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(clean_environment()):
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            return load_settings(bare)
        except Refused as refusal:
            assert refusal.hint
            assert len(refusal.message.splitlines()) == 1, refusal.message
            return None


@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(name=NAMES, raw=st.binary(max_size=60) | st.text().map(os.fsencode))
@example(name="database", raw=b"~nobody-at-all/x")
@example(name="database", raw=b"sqlite:///\xff")
@example(name="uploads", raw=b"line\nbreak")
@example(name="timezone", raw=b"\xff")
@example(name="busy_timeout", raw=b"nan")
def test_no_text_in_the_environment_leads_to_a_traceback(bare: Path, name: str, raw: bytes) -> None:
    value = os.fsdecode(raw.replace(b"\0", b""))  # a variable cannot hold it
    found = tried(bare, {f"BACKUP_{name.upper()}": value})
    if found:
        assert found.database.is_absolute() and found.dir.is_absolute()
        assert found.zone and found.busy_timeout >= 0


@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(name=NAMES | st.text(max_size=20), value=VALUES)
@example(name="database", value="a\0b")
@example(name="uploads", value=False)
@example(name="dir", value=["x"])
def test_no_value_in_the_file_leads_to_a_traceback(bare: Path, name: str, value: Any) -> None:
    try:
        line = f"{json.dumps(name, ensure_ascii=False)} = {as_toml(value)}\n".encode()
    except UnicodeError:
        return
    (bare / "backup.toml").write_bytes(line)
    try:
        found = tried(bare, {})
    finally:
        (bare / "backup.toml").unlink()
    if found:
        for path in (found.database, found.dir, found.uploads):
            assert path is None or (path.is_absolute() and "\0" not in str(path))


def as_toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_toml(key)} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    return str(value)
