"""Settings: environment over `backup.toml` over defaults, every path absolute, and no value that causes a traceback."""

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

from backupkit.config.settings import Settings, load_settings, secret_names
from backupkit.config.table import fields
from backupkit.model.errors import Refused
from refusals import refused, run_here
from small_app import SmallApp, clean_environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app folder with nothing in it, and an environment without settings."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app").mkdir()
    return tmp_path / "app"


# Sources of values


def test_a_link_to_settings_that_are_not_there_is_not_taken_for_none(app: SmallApp) -> None:
    (app.folder / "backup.toml").symlink_to("mounted/backup.toml")
    refused(app, "backup", code=2, names="backup.toml is a link to mounted/backup.toml", hint="Mount")
    refused(app, "list", code=2, names="which is not there", hint="Mount")
    (app.folder / "mounted").mkdir()
    (app.folder / "mounted" / "backup.toml").write_text('timezone = "Europe/Berlin"')
    told = run_here(app, "config", "--json", check=0).json
    assert told["timezone"] == {"value": "Europe/Berlin", "origin": "backup.toml"}


def test_the_app_folder_cannot_be_set_in_the_file_that_lies_in_it(app: SmallApp) -> None:
    (app.folder / "backup.toml").write_text('app_dir = "elsewhere"\n')
    refused(app, "backup", code=2, names="app_dir is where this file is", hint="config unset app_dir")
    run_here(app, "config", "unset", "app_dir", check=0)
    run_here(app, "backup", check=0)


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
    assert set(told) == set(fields(Settings))
    assert told["service"] == {"value": "api", "origin": "environment BACKUP_SERVICE"}
    assert told["timezone"] == {"value": "Europe/Berlin", "origin": "backup.toml"}
    assert told["runner"] == {"value": "auto", "origin": "default"}
    lines = run_here(app, "config", check=0).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(fields(Settings))


def test_an_app_folder_that_the_wrapper_found_is_the_default(app: SmallApp) -> None:
    found = {"BACKUP_APP_DIR": str(app.folder)}
    assert run_here(app, "config", "--json", env=found).json["app_dir"]["origin"] == "environment BACKUP_APP_DIR"
    found["BACKUP_HOST_FOUND_APP_DIR"] = "yes"
    assert run_here(app, "config", "--json", env=found).json["app_dir"] == {
        "value": str(app.folder),
        "origin": "default",
    }


def test_the_callers_folder_has_no_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "backup.toml").write_text('database = "db/a.sqlite"\nuploads = "../media"\ndir = "../safe"\n')
    here = load_settings(folder)
    monkeypatch.chdir("/")
    assert load_settings(folder) == here
    assert here.database == folder / "db" / "a.sqlite"
    assert here.uploads == folder.parent / "media"
    assert here.dir == folder.parent / "safe"


@pytest.mark.parametrize("value", [".", "./", " . "])
def test_a_dot_is_the_app_folder_and_not_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    (folder.parent / "backup.sh").touch()
    (folder / "backup.toml").write_text(f'uploads = ""\ndir = "{value}"\n')
    assert load_settings(folder).dir == folder
    (folder / "backup.toml").write_text('uploads = ""\ndir = "safe"\n')
    monkeypatch.setenv("BACKUP_DIR", value)
    assert load_settings(folder).dir == folder
    monkeypatch.setenv("BACKUP_DIR", "")
    assert load_settings(folder).dir == folder.parent / "backups"


def test_a_backup_goes_to_the_app_folder_if_a_dot_says_so(app: SmallApp) -> None:
    here = {"BACKUP_DIR": ".", "BACKUP_UPLOADS": ""}
    run_here(app, "backup", "one", env=here, check=0)
    assert (app.folder / "one" / "backup_metadata.json").is_file()
    assert [one["backup_name"] for one in run_here(app, "list", "--json", env=here, check=0).json] == ["one"]


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
    refused(app, "backup", code=2, names="BACKUP_DATABASE", hint="type: unset BACKUP_", env={"BACKUP_DATABASE": value})


def test_a_refusal_does_not_tell_the_password(app: SmallApp) -> None:
    url = {"BACKUP_DATABASE": "postgresql://user:secret@host/db"}
    assert "secret" not in run_here(app, "backup", env=url).err


@pytest.mark.parametrize("name", ["uploads", "SHA256SUMS", "RESTORE.md", "backup_metadata.json"])
def test_a_database_may_not_be_named_like_another_part_of_a_backup(app: SmallApp, name: str) -> None:
    refused(app, "backup", code=2, names=name, hint="type: unset BACKUP_", env={"BACKUP_DATABASE": f"data/{name}"})


def test_empty_uploads_mean_there_are_none(app: SmallApp) -> None:
    run_here(app, "backup", "one", env={"BACKUP_UPLOADS": ""}, check=0)
    assert not (app.backups / "one" / "uploads").exists()
    (app.folder / "backup.toml").write_text('uploads = ""\n')
    assert run_here(app, "config", "--json", check=0).json["uploads"]["value"] is None


@pytest.mark.parametrize("mark", ["backup.sh", ".git", "docker-compose.yml", "compose.yaml"])
def test_backups_lie_beside_the_app_folder_only_inside_its_project(folder: Path, mark: str) -> None:
    assert load_settings(folder).dir == folder / "backups"
    (folder.parent / mark).touch()
    assert load_settings(folder).dir == folder.parent / "backups"
    (folder / "backups").mkdir()
    assert load_settings(folder).dir == folder / "backups"


def test_an_app_that_is_a_project_of_its_own_keeps_its_backups_to_itself(folder: Path) -> None:
    (folder.parent / ".git").mkdir()
    (folder / "docker-compose.yml").touch()
    assert load_settings(folder).dir == folder / "backups"


def test_a_home_is_no_project_because_it_is_under_version_control(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / ".git").mkdir()
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_settings(folder).dir == folder / "backups"
    (folder.parent / "backup.sh").touch()
    assert load_settings(folder).dir == folder.parent / "backups"


def test_an_app_folder_that_is_set_to_nothing_is_the_scripts_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_APP_DIR", "")
    assert load_settings(folder).database == folder / "data" / "pats.db"


def test_an_app_folder_that_is_not_there_is_refused(app: SmallApp) -> None:
    refused(app, "backup", code=2, names="/nope", hint="BACKUP_APP_DIR", env={"BACKUP_APP_DIR": "/nope"})


# Secrets

URLS = "json://me:sesame@host/a?to=x,y, ntfy://sesame\n slack://sesame/sesame"
SHOWN = ["json://***", "ntfy://***", "slack://***"]


def values(found: Settings) -> list[str]:
    return [one.get_secret_value() for one in found.notify_urls]


def test_a_secret_is_told_in_the_environment_or_in_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "urls").write_text(f"{URLS}\n")
    wanted = ["json://me:sesame@host/a?to=x,y", "ntfy://sesame", "slack://sesame/sesame"]
    monkeypatch.setenv("BACKUP_NOTIFY_URLS", URLS)
    assert values(load_settings(folder)) == wanted
    monkeypatch.delenv("BACKUP_NOTIFY_URLS")
    for path in ("urls", str(folder / "urls"), "../app/urls"):
        monkeypatch.setenv("BACKUP_NOTIFY_URLS_FILE", path)
        assert values(load_settings(folder)) == wanted
    monkeypatch.delenv("BACKUP_NOTIFY_URLS_FILE")
    for line in ('notify_urls_file = "urls"', f"notify_urls = {json.dumps(URLS)}", f"notify_urls = {wanted}"):
        (folder / "backup.toml").write_text(line)
        assert values(load_settings(folder)) == wanted


def test_a_secret_of_the_environment_wins_over_one_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "page").write_text("https://in.a/file")
    for line in ('ping_url = "https://in.toml/x"', 'ping_url_file = "nowhere"'):
        (folder / "backup.toml").write_text(line)
        monkeypatch.setenv("BACKUP_PING_URL", "https://in.environment/x")
        assert str(load_settings(folder).ping_url) == "https://in.environment/***"
        monkeypatch.setenv("BACKUP_PING_URL", "")  # Compose passes unset variables like this
        assert load_settings(folder).ping_url is None
        monkeypatch.setenv("BACKUP_PING_URL_FILE", "page")
        assert str(load_settings(folder).ping_url) == "https://in.a/***"
        monkeypatch.delenv("BACKUP_PING_URL")
        monkeypatch.setenv("BACKUP_PING_URL_FILE", "")
        assert load_settings(folder).ping_url is None
        monkeypatch.delenv("BACKUP_PING_URL_FILE")


def test_config_shows_where_a_secret_is_from_and_not_what_it_is(app: SmallApp) -> None:
    (app.folder / "urls").write_text(URLS)
    (app.folder / "backup.toml").write_text('ping_url_file = "urls-of-pings"\nnotify_urls = []\n')
    (app.folder / "urls-of-pings").write_text("https://sesame@hc-ping.com/sesame")
    there = {"BACKUP_NOTIFY_URLS_FILE": "urls"}
    told = run_here(app, "config", "--json", env=there, check=0)
    assert told.json["notify_urls"] == {"value": SHOWN, "origin": "environment BACKUP_NOTIFY_URLS_FILE"}
    assert told.json["ping_url"] == {"value": "https://hc-ping.com/***", "origin": "backup.toml"}
    shown = run_here(app, "config", env=there, check=0)
    assert ", ".join(SHOWN) in shown.out
    assert "sesame" not in told.out + shown.out


def test_a_secret_is_in_no_text_of_the_settings(folder: Path) -> None:
    found = Settings(app_dir=folder, notify_urls=URLS, ping_url="https://hc-ping.com/sesame")
    assert "sesame" not in f"{found} {found!r} {found.values()} {found.secrets}"
    assert {one.get_secret_value() for one in found.secrets} == {*values(found), "https://hc-ping.com/sesame"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("notify_urls", "sesame"),
        ("notify_urls", "json://a /sesame"),
        ("notify_urls", "json:// sesame"),
        ("ping_url", "sesame"),
        ("ping_url", "file:///sesame"),
        ("ping_url", "https://a/b sesame"),
        ("ping_url", "https:///sesame"),
    ],
)
def test_a_refusal_does_not_tell_the_secret(app: SmallApp, setting: str, value: str) -> None:
    name = f"BACKUP_{setting.upper()}"
    assert "sesame" not in refused(app, "backup", code=2, names=name, hint="type: unset BACKUP_", env={name: value}).err
    (app.folder / "secret").write_text(value)
    there = {f"{name}_FILE": "secret"}
    assert (
        "sesame" not in refused(app, "backup", code=2, names=f"{name}_FILE", hint="type: unset BACKUP_", env=there).err
    )
    (app.folder / "backup.toml").write_text(f"{setting} = {json.dumps(value)}")
    assert "sesame" not in refused(app, "backup", code=2, names=setting, hint="config init --stdout").err
    (app.folder / "backup.toml").write_text(f"{setting} = [[{json.dumps(value)}], 7]")
    assert "sesame" not in refused(app, "backup", code=2, names=setting, hint="config init --stdout").err


@pytest.mark.parametrize("content", [None, b"\xff\xfesesame", b"sesame" * 200_000], ids=["none", "bytes", "large"])
def test_a_file_that_holds_no_secret_is_refused_and_can_be_done_without(app: SmallApp, content: bytes | None) -> None:
    secret = app.folder / "secret"
    secret.mkdir() if content is None else secret.write_bytes(content)
    without = "BACKUP_PING_URL_FILE= before the command"
    there = {"BACKUP_PING_URL_FILE": "secret"}
    assert "sesame" not in refused(app, "backup", code=2, names="BACKUP_PING_URL_FILE", hint=without, env=there).err
    (app.folder / "backup.toml").write_text('ping_url_file = "secret"')
    refused(app, "backup", code=2, names="ping_url_file", hint=without)
    run_here(app, "backup", env={"BACKUP_PING_URL_FILE": ""}, check=0)


@pytest.mark.parametrize("file", ["~nobody-at-all/x", "a\\u0000b", "nowhere"])
def test_a_path_that_leads_to_no_secret_is_refused(app: SmallApp, file: str) -> None:
    (app.folder / "backup.toml").write_text(f'ping_url_file = "{file}"')
    refused(app, "backup", code=2, names="ping_url_file", hint="Correct it")


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_a_file_of_a_secret_that_is_empty_is_refused(app: SmallApp, content: str) -> None:
    (app.folder / "secret").write_text(content)
    for name in secret_names():
        there = {f"BACKUP_{name.upper()}_FILE": "secret"}
        refused(app, "backup", code=2, names="secret, which is empty", hint="= before the command", env=there)
    (app.folder / "backup.toml").write_text('notify_urls_file = "/dev/null"')
    refused(app, "backup", code=2, names="/dev/null, which is empty", hint="BACKUP_NOTIFY_URLS_FILE=")


def test_a_secret_that_is_told_twice_is_refused(app: SmallApp) -> None:
    both = {"BACKUP_PING_URL": "https://sesame/x", "BACKUP_PING_URL_FILE": "secret"}
    result = refused(app, "backup", code=2, names="BACKUP_PING_URL and BACKUP_PING_URL_FILE", hint="Keep one", env=both)
    assert "sesame" not in result.err
    (app.folder / "backup.toml").write_text('ping_url = "https://sesame/x"\nping_url_file = "x"')
    refused(app, "backup", code=2, names="ping_url_file", hint="Keep one")


def test_only_a_secret_may_be_in_a_file(app: SmallApp) -> None:
    (app.folder / "backup.toml").write_text('timezone_file = "zone"')
    refused(app, "backup", code=2, names="timezone_file", hint="")


@pytest.mark.parametrize(
    ("value", "wanted"), [("", ()), ("failure", ("failure",)), (" success,failure ", ("success", "failure"))]
)
def test_what_is_told_of_is_a_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str, wanted: tuple[str, ...]
) -> None:
    assert load_settings(folder).notify_on == ("failure", "warning")
    monkeypatch.setenv("BACKUP_NOTIFY_ON", value)
    assert load_settings(folder).notify_on == wanted


# Wrong values


@pytest.mark.parametrize(
    ("line", "named", "hint"),
    [
        ('databse = "x"', "databse", "database"),
        ('colour = "blue"', "colour", "config init --stdout"),
        ("[section]\nx = 1", "section", "config init --stdout"),
        ('timezone = "Mars/Olympus"', "timezone", "config unset timezone`"),
        ("timezone = 5", "timezone", "config unset timezone`"),
        ('busy_timeout = "soon"', "busy_timeout", "config unset busy_timeout`"),
        ("busy_timeout = -1", "busy_timeout", "config unset busy_timeout`"),
        ("busy_timeout = nan", "busy_timeout", "config unset busy_timeout`"),
        ('runner = "kubernetes"', "runner", "config unset runner`"),
        ('notify_on = "sucess"', "notify_on", "config unset notify_on`"),
        ("notify_on = 7", "notify_on", "config unset notify_on`"),
        ("notify_timeout = 0", "notify_timeout", "config unset notify_timeout`"),
        ("database = [1, 2]", "database", "config unset database`"),
        ('database = "a\\u0000b"', "database", "config unset database`"),
        ('database = "~nobody-at-all/x"', "database", "config unset database`"),
        ('dir = "~nobody-at-all/x"', "dir", "config unset dir`"),
    ],
)
def test_a_wrong_line_of_the_file_is_named(app: SmallApp, line: str, named: str, hint: str) -> None:
    (app.folder / "backup.toml").write_text(line)
    result = refused(app, "backup", code=2, names=named, hint=hint)
    assert str(app.folder / "backup.toml") in result.err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\nkeep_daily = -1", "keep_daily = -1 (FILE, line 2): must be a whole number of at least 0."),
        (
            "backup_time = 02:00:00",
            'backup_time = 02:00:00 (FILE, line 1): must be text in quotes: backup_time = "02:00".',
        ),
        ('keep_daily = ""', "keep_daily (FILE, line 1) is empty."),
        (
            '[remotes.a]\ntype = "folder"\npath = "x"\n[remotes.nas]\ntype = "folder"\npath = "y"\nkeep_daily = -1',
            "remotes (FILE, line 7): nas.keep_daily must be a whole number of at least 0.",
        ),
        ('[databases.log]\n\npath = ""', "databases (FILE, line 3): log.path must be text of length at least 1."),
    ],
)
def test_a_wrong_value_is_shown_as_the_line_says_it(app: SmallApp, text: str, sentence: str) -> None:
    file = app.folder / "backup.toml"
    file.write_text(text)
    refused(app, "backup", code=2, names=sentence.replace("FILE", str(file)), hint="config (unset|init)")


def test_a_variable_that_is_set_to_nothing_is_called_empty(app: SmallApp) -> None:
    there = {"BACKUP_KEEP_DAILY": ""}
    refused(app, "backup", code=2, names="BACKUP_KEEP_DAILY is empty.", hint="unset BACKUP_KEEP_DAILY", env=there)


@pytest.mark.parametrize("content", [b"timezone = ", b"\xff\xfe", b'a = "', b"a = 1\na = 2", b"[" * 5000, b"\0"])
def test_a_file_that_is_no_toml_is_refused(app: SmallApp, content: bytes) -> None:
    (app.folder / "backup.toml").write_bytes(content)
    refused(app, "backup", code=2, names=str(app.folder / "backup.toml"), hint="[Mm]end|UTF-8|`")


def test_a_file_that_is_a_folder_is_refused(app: SmallApp) -> None:
    (app.folder / "backup.toml").mkdir()
    refused(app, "backup", code=2, names=str(app.folder / "backup.toml"), hint="")


@pytest.mark.parametrize(
    "slip",
    ["BACKUP_DATABSE", "BACKUP_UPLOAD", "BACKUP_TIMEZON", "BACKUP_DIRS", "BACKUP_NOTIFY_URL_FILE", "BACKUP_PING_URLS"],
)
def test_a_slip_of_the_pen_in_the_environment_is_refused(app: SmallApp, slip: str) -> None:
    refused(app, "backup", code=2, names=slip, hint="Did you mean BACKUP_", env={slip: "x"})


def test_a_variable_of_another_tool_is_left_alone_and_told_of(app: SmallApp) -> None:
    run_here(app, "backup", "one", env={"BACKUP_S3_SECRET_OF_ANOTHER_TOOL": "x"}, check=0)
    assert (
        "BACKUP_S3_SECRET_OF_ANOTHER_TOOL" in run_here(app, "doctor", env={"BACKUP_S3_SECRET_OF_ANOTHER_TOOL": "x"}).out
    )


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe", "UTC\n", "/etc/localtime"])
def test_an_unknown_time_zone_is_refused(app: SmallApp, zone: str) -> None:
    refused(app, "backup", code=2, names="BACKUP_TIMEZONE", hint="type: unset BACKUP_", env={"BACKUP_TIMEZONE": zone})


# No text causes a traceback

FIELDS = [name for name in fields(Settings) if name != "app_dir"]
NAMES = st.sampled_from([*FIELDS, *(f"{name}_file" for name in secret_names())])
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
    value = os.fsdecode(raw.replace(b"\0", b""))  # a variable cannot hold a zero byte
    found = tried(bare, {f"BACKUP_{name.upper()}": value})
    if found:
        assert found.database.is_absolute() and found.dir.is_absolute()
        assert found.zone and found.busy_timeout >= 0


@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(name=NAMES | st.text(max_size=20), value=VALUES)
@example(name="database", value="a\0b")
@example(name="uploads", value=False)
@example(name="dir", value=["x"])
@example(name="self", value=1)
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


@pytest.mark.parametrize("name", ["self", "", "given", "_given", "values"])
def test_a_key_that_python_uses_itself_is_no_setting(folder: Path, name: str) -> None:
    (folder / "backup.toml").write_text(f"{json.dumps(name)} = 1\n")
    with pytest.raises(Refused, match="is not a setting"):
        load_settings(folder)
