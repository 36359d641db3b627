"""The seal of a backup: metadata are checked before they are believed, and `sha256sum` understands the checksums."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from backupkit.backup.create import create_backup
from backupkit.cli import json_, render
from backupkit.fs import disk, stamps
from backupkit.model import documents
from backupkit.model.backup import BackupRequest, GitFacts, Metadata
from backupkit.model.errors import Damaged
from backupkit.repository import integrity, manifest, store
from refusals import run_here
from small_app import HEAD, NOON, SmallApp, tree

STRANGE_NAMES = [
    b"new\nline",
    b"back\\slash",
    b"\\n",
    b"\r",
    b"  two spaces",
    b" *star",
    b"\xff\xfe",
    b"x" * 255,
    b"a  b",
]
READ = (
    "import json, sqlite3; m = json.load(open('backup_metadata.json'));"
    "d = sqlite3.connect('file:' + m['database_file'] + '?mode=ro', uri=True);"
    "print(d.execute('select version_num from alembic_version').fetchone()[0] == m['alembic_revision'])"
)


def sealed(app: SmallApp, name: str = "one", **order: Any) -> Path:
    return create_backup(app.settings, BackupRequest(name, **order), clock=lambda: NOON).backup.path


# Checksums


def test_sha256sum_understands_every_name(app: SmallApp) -> None:
    for name in STRANGE_NAMES:
        Path(os.fsdecode(os.fsencode(app.uploads) + b"/" + name)).write_bytes(name)
    backup = sealed(app)
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=backup, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == b""
    lines = (backup / "SHA256SUMS").read_bytes().splitlines()
    files = [path for path in backup.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(lines) == len(files) - 1  # every file but SHA256SUMS itself


def test_sha256sum_sees_a_flipped_byte_in_a_file_with_a_strange_name(app: SmallApp) -> None:
    for name in STRANGE_NAMES:
        Path(os.fsdecode(os.fsencode(app.uploads) + b"/" + name)).write_bytes(name)
    backup = sealed(app)
    Path(os.fsdecode(os.fsencode(backup) + b"/uploads/new\nline")).write_bytes(b"flipped")
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=backup, capture_output=True, check=False)
    assert checked.returncode == 1
    assert [flaw.text for flaw in manifest.verify_checksums(backup)] == [
        "'uploads/new\\nline' is not as it was written"
    ]


def test_behind_a_list_in_another_order_folders_and_links_are_looked_at_all_the_same(
    app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app.uploads / "9" / "empty").mkdir(parents=True)
    backup = sealed(app)
    metadata = manifest.read_metadata(backup, app.settings.zone)
    assert list(integrity.file_flaws(backup, metadata, manifest_digest)) == []
    lines = (backup / "SHA256SUMS").read_bytes().splitlines(keepends=True)
    (backup / "SHA256SUMS").write_bytes(b"".join(reversed(lines)))
    monkeypatch.setattr(manifest, "_MOST_AHEAD", 1)
    in_order, empty = "SHA256SUMS is in another order", "a folder or a link below uploads is not as it was written"
    (flaw,) = integrity.file_flaws(backup, metadata, manifest_digest)
    assert flaw.text.startswith(in_order)
    (backup / "uploads" / "9" / "empty").rmdir()
    first, second = integrity.file_flaws(backup, metadata, manifest_digest)
    assert first.text.startswith(in_order) and second.text.startswith(empty)


def manifest_digest(path: str, _facts: os.stat_result) -> str:
    return disk.hash_file(path)


@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(min_size=1, max_size=80).filter(lambda raw: b"\0" not in raw and b"/" not in raw))
@example(b"\\n")
@example(b"\n")
@example(b"\\")
@example(b"\\\\n\r")
def test_any_name_comes_back_from_the_list_of_checksums(folder: Path, raw: bytes) -> None:
    if raw in (b".", b".."):
        return
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    writer = manifest.ChecksumWriter(folder)
    writer.record(os.fsdecode(raw), "a" * 64)
    writer.close()
    assert manifest.read_checksums(folder) == ({os.fsdecode(raw): "a" * 64}, [])


@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200) | st.tuples(st.binary(max_size=40)).map(lambda raw: b"a" * 64 + b"  " + raw[0] + b"\n"))
@example(b"a" * 64 + b"  ../x\n")
@example(b"a" * 64 + b"  /x\n")
@example(b"\\" + b"a" * 64 + b"  ..\\n\n")
def test_whatever_the_list_says_no_path_leads_outside(folder: Path, raw: bytes) -> None:
    (folder / "SHA256SUMS").write_bytes(raw)
    for path in manifest.read_checksums(folder)[0]:
        assert not os.path.isabs(path) and not os.path.relpath(path).startswith("../")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("sums")


# Reading a backup without this toolkit


@pytest.mark.parametrize("python", [[sys.executable], [sys.executable, "-I", "-S"]])
def test_the_standard_library_reads_a_backup_and_leaves_it_as_it_was(app: SmallApp, python: list[str]) -> None:
    app.use_and_crash()
    backup = sealed(app)
    before = tree(backup)
    read = subprocess.run([*python, "-c", READ], cwd=backup, capture_output=True, text=True, check=False)
    assert read.stdout == "True\n", read.stderr
    assert tree(backup) == before


def test_a_sealed_backup_is_changed_by_no_command(app: SmallApp) -> None:
    backup = sealed(app)
    before = tree(backup)
    for command in (("list",), ("show", "one"), ("restore", "one", "--dry-run"), ("restore", "one", "--force")):
        run_here(app, *command, check=0)
        assert tree(backup) == before, command


def test_the_metadata_are_plain_ascii_whatever_the_note(app: SmallApp) -> None:
    backup = sealed(app, note="Grüße\n— 日本 🎉 \x1b[2J\0")
    raw = (backup / "backup_metadata.json").read_bytes()
    assert raw.isascii()
    assert json.loads(raw)["note"] == "Grüße\n— 日本 🎉 \x1b[2J\0"


@pytest.mark.parametrize("text", ["caf\udce9", "\udcff\udcfe", "\ud800"])
def test_bytes_that_are_no_text_do_not_make_a_damaged_backup(app: SmallApp, text: str) -> None:
    git = GitFacts("abc1234", "abc1234", text, text, tag=text)
    made = create_backup(app.settings, BackupRequest("one", note=text, git=git)).backup
    assert made.metadata is not None, made.error
    run_here(app, "restore", "one", "--force", check=0)
    found = run_here(app, "show", "one", "--json", check=0).json
    assert "caf" in found["note"] or text != "caf\udce9"


# Metadata from elsewhere

SEVEN = {
    "backup_name": "by_hand",
    "timestamp": "20241201_120000",
    "created_at": "2024-12-01T12:00:00",
    "alembic_revision": HEAD,
    "database_file": "pats.db",
    "uploads_included": True,
    "backup_version": "1.0",
}


def by_hand(app: SmallApp, **changes: Any) -> Path:
    """Make a backup as the user's documents describe it: copies, and seven fields."""
    backup = app.backups / "by_hand"
    sealed(app, "one")
    backup.mkdir()
    shutil.copy(app.backups / "one" / "pats.db", backup / "pats.db")
    shutil.copytree(app.uploads, backup / "uploads", symlinks=True)
    (backup / "backup_metadata.json").write_text(json.dumps(SEVEN | changes))
    return backup


def test_a_backup_made_by_hand_lists_as_unchecked_and_restores(app: SmallApp) -> None:
    by_hand(app)
    before = app.contents()
    app.add_rows(5)
    (app.uploads / "1" / "letter.txt").unlink()
    (one,) = (each for each in run_here(app, "list", "--json", check=0).json if each["backup_name"] == "by_hand")
    assert one["state"] == "unchecked" and one["checked_at"] is None
    assert one["created_at"] == "2024-12-01T12:00:00+00:00"
    assert "unchecked" in run_here(app, "restore", "by_hand", "--force", check=0).err
    assert app.contents().rows == before.rows
    assert app.contents().uploads.keys() == before.uploads.keys()


def test_a_time_without_an_offset_is_in_the_configured_zone(app: SmallApp) -> None:
    by_hand(app)
    shown = run_here(app, "show", "by_hand", "--json", env={"BACKUP_TIMEZONE": "Asia/Kolkata"}, check=0).json
    assert shown["created_at"] == "2024-12-01T12:00:00+05:30"


@pytest.mark.parametrize("version", ["1.0", "1", "1.1", "1.99", "0.9"])
def test_every_format_up_to_this_one_is_read(app: SmallApp, version: str) -> None:
    by_hand(app, backup_version=version)
    assert run_here(app, "restore", "by_hand", "--force", check=0).out


def test_fields_that_are_not_known_are_left_alone(app: SmallApp) -> None:
    by_hand(app, host="db1", nested={"deep": [1, {"a": None}]}, created_by="cron")
    assert run_here(app, "restore", "by_hand", "--force", check=0).out
    assert run_here(app, "show", "by_hand", "--json", check=0).json["state"] == "unchecked"


def test_a_field_that_is_missing_is_made_up_from_the_others(app: SmallApp) -> None:
    backup = by_hand(app)
    zone = ZoneInfo("UTC")
    for missing in ("backup_name", "timestamp", "created_at", "uploads_included", "backup_version"):
        values = {name: value for name, value in SEVEN.items() if name != missing}
        (backup / "backup_metadata.json").write_text(json.dumps(values))
        found = manifest.read_metadata(backup, zone)
        assert documents.metadata(found) | SEVEN | {"created_at": 0} == documents.metadata(found) | {"created_at": 0}


def test_what_was_read_before_is_read_again_when_it_has_changed(app: SmallApp, monkeypatch: pytest.MonkeyPatch) -> None:
    backup, zone = by_hand(app), ZoneInfo("UTC")
    written = backup / "backup_metadata.json"
    for database in ("old.db", "new.db"):  # equally long, written as close together as possible
        written.write_text(json.dumps(SEVEN | {"database_file": database}))
        assert manifest.read_metadata(backup, zone).database_file == database
    later = time.time_ns() + 3 * 10**9
    monkeypatch.setattr(stamps.time, "time_ns", lambda: later)  # what is older than a tick of the clock is cached
    first = manifest.read_metadata(backup, zone)
    assert manifest.read_metadata(backup, zone) is first
    facts = written.stat()
    written.write_text(json.dumps(SEVEN | {"database_file": "its.db"}))
    os.utime(written, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert manifest.read_metadata(backup, zone).database_file == "its.db"
    written.unlink()
    with pytest.raises(Damaged):
        manifest.read_metadata(backup, zone)


# Any metadata: every command goes on

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.datetimes().map(str) | st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat())
LIKELY = {
    "created_at": TIMES | st.dates().map(str) | st.integers(-(10**20), 10**20).map(str) | st.integers() | st.floats(),
    "timestamp": st.datetimes().map(lambda moment: moment.strftime("%Y%m%d_%H%M%S")) | st.text(max_size=20),
    "backup_version": st.text(max_size=5) | st.from_regex(r"\d{1,3}\.\d{1,3}", fullmatch=True),
    "database": st.fixed_dictionaries(
        {"size": st.integers(), "sha256": st.text(max_size=5)},
        optional={
            "rows": st.dictionaries(st.text(max_size=9), st.integers(), max_size=2),
            "journal_mode": st.text(max_size=9),
        },
    ),
    "uploads": st.fixed_dictionaries(
        {"files": st.integers(), "bytes": st.integers()},
        optional={"warnings": st.lists(st.text(max_size=9), max_size=2)},
    ),
    "git": st.fixed_dictionaries(
        {"commit": st.text(max_size=9), "short": st.text(max_size=9)},
        optional={"branch": st.text(max_size=9), "subject": st.text(max_size=9)},
    ),
    "duration_seconds": st.floats(),
    "alembic_revision": st.text(max_size=9) | st.just("\x1b[2J"),
    "alembic_revisions": st.lists(st.text(max_size=9), max_size=2),
}
CHANGES = st.fixed_dictionaries(
    {}, optional={name: likely | JSON for name, likely in LIKELY.items()}
) | st.dictionaries(st.sampled_from(sorted(Metadata.__struct_fields__)), JSON, max_size=3)


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[SmallApp]:
    """An app with one hand-made backup, whose metadata the tests replace again and again."""
    app = SmallApp.create(tmp_path_factory.mktemp("strange") / "app", templates)
    by_hand(app)
    shutil.rmtree(app.backups / "one")
    yield app


@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(changes=CHANGES, zone=st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Niue"]))
@example(changes={"created_at": "0001-01-01T00:00:00+14:00"}, zone="Pacific/Niue")
@example(changes={"created_at": "9999-12-31T23:59:59-14:00"}, zone="Pacific/Kiritimati")
@example(changes={"created_at": "1733054400"}, zone="UTC")
@example(changes={"duration_seconds": float("nan")}, zone="UTC")
@example(changes={"alembic_revision": "\x1b[2J"}, zone="UTC")
@example(changes={"alembic_revision": "\ud800"}, zone="UTC")
@example(changes={"git": {"commit": "x", "short": "\x1b[2J", "branch": "\x1b[2J\n"}}, zone="UTC")
@example(changes={"database": {"size": 1, "sha256": "", "rows": {"\x1b[2J": 1}, "journal_mode": "\n"}}, zone="UTC")
@example(changes={"database": {"size": 0, "sha256": "", "rows": {"\x1f": -1}}}, zone="UTC")
@example(changes={"uploads": {"files": 1, "bytes": 1, "warnings": ["\x1b[2J\nx"]}}, zone="UTC")
@example(changes={"database": {"size": 10**400, "sha256": ""}}, zone="UTC")
def test_whatever_metadata_say_they_can_be_listed_and_shown(
    strange: SmallApp, changes: dict[str, Any], zone: str
) -> None:
    (strange.backups / "by_hand" / "backup_metadata.json").write_text(json.dumps(SEVEN | changes))
    settings = strange.settings.replaced(timezone=zone)
    (found,) = store.all_backups(settings)
    for line in (*render.listing(settings, [found]), *render.details(settings, found)):
        assert line.isprintable(), ascii(line)
    json.loads(json.dumps(json_.backup(found), allow_nan=False, default=str))


@hypothesis(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_lies_in_the_file_of_the_metadata_the_list_goes_on(strange: SmallApp, raw: bytes) -> None:
    (strange.backups / "by_hand" / "backup_metadata.json").write_bytes(raw)
    (found,) = store.all_backups(strange.settings)
    assert found.metadata or found.error


def test_a_list_that_is_not_read_to_its_end_is_closed_at_once(app: SmallApp) -> None:
    """Else the disk of the backups could not be unmounted until the process collects its memory."""
    folder = sealed(app, "one")
    gc.disable()
    try:
        before = set(os.listdir("/dev/fd"))
        checksum_of = manifest.checksums_in_order(folder)
        assert checksum_of("uploads/1/letter.txt")
        del checksum_of
        assert set(os.listdir("/dev/fd")) == before
    finally:
        gc.enable()
