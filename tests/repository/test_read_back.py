"""The JSON files that the toolkit writes are untrusted when they are read back: a value out of its range is refused.

One entry of a table is one change to a sound file. What was refused is refused as a whole, never half believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.model.backup import Metadata
from backupkit.model.errors import BackupError, Damaged
from backupkit.remotes import checks, listing_cache
from backupkit.remotes.checks import Checks
from backupkit.remotes.listing_cache import CachedListing
from backupkit.repository import history, manifest, sizes, verification
from backupkit.restore import journal
from backupkit.rewind import point

Json = dict[str, Any]
AT, ZERO = "2026-01-01T10:00:00Z", "0" * 64
FACTS: Json = {"size": 1, "sha256": "ab", "rows": {"t": 3}, "index_flaws": ["x"], "mode": 0o600}
UPLOADS: Json = {"files": 1, "bytes": 2, "attributes": None, "hard_links": 1, "warnings": ["w"]}
METADATA: Json = {
    "backup_name": "good",
    "timestamp": "20260101_100000",
    "created_at": "2026-01-01T10:00:00+00:00",
    "alembic_revision": "a1",
    "database_file": "pats.db",
    "uploads_included": True,
    "alembic_revisions": ["a1"],
    "migrations": {"tool": "django", "last": "0001", "count": 1},
    "database": FACTS,
    "uploads": UPLOADS,
    "git": {"commit": "c", "short": "s", "branch": None, "dirty": False},
    "duration_seconds": 1.5,
    "added_bytes": 5,
    "references": {"columns": [{"column": "a.b", "path": "p", "rows": 1}], "unnamed": None},
    "databases": [{"name": "database", "database_file": "pats.db", "database": FACTS}],
    "databases_gap_ms": 2.5,
    "trees": [{"name": "media", "uploads": UPLOADS}],
}
JOURNAL: Json = {
    "source": "good",
    "safety": "pre_1",
    "id": "a" * 32,
    "started": AT,
    "database": True,
    "uploads": True,
    "copies": ["one"],
    "sealed": None,
    "facts": FACTS,
    "revisions": ["a1"],
    "others": [
        {
            "name": "media/second.db",
            "safety": "pre_1",
            "database": True,
            "uploads": False,
            "sealed": None,
            "facts": FACTS,
            "revisions": None,
        }
    ],
}
DATABASE: Json = {
    "page_size": 4096,
    "pages": 1,
    "root": ZERO,
    "changed": 1,
    "length": 0,
    "compression": "zlib",
    "journal_mode": "wal",
}
ENTRY: Json = {"form": "file", "mode": 0o644, "changed": -5, "owner": [1, 2], "attributes": [["user.x", "00"]]}
HEADER: Json = {
    "at": AT,
    "since": AT,
    "interval": 60.0,
    "base": "good",
    "seal": ZERO,
    "base_state": ZERO,
    "parent": ZERO,
    "state": ZERO,
    "database": DATABASE,
    "uploads": ZERO,
    "changes": [{"path": "a/b", "entry": ENTRY, "content": "before"}],
    "packed": ZERO,
    "gap_ms": 2.5,
    "format": 2,
    "others": [{"name": "second", "database": DATABASE, "offset": 8}],
}
OPERATION: Json = {
    "id": "i",
    "command": "backup",
    "started_at": AT,
    "who": {"user": "u", "pid": 5, "host": "h"},
    "ended_at": "2026-01-01T10:00:00.123456Z",
    "outcome": "success",
    "exit_code": 0,
    "backups": ["good"],
    "duration_seconds": 1.5,
    "steps": [{"name": "s", "seconds": 0.5}],
}
SIZES: Json = {"good": {"made": AT, "older": "", "bytes": 4}}
RECORD: Json = {"made_at": AT, "proven_at": AT, "recovery_seconds": 1.5, "flaws": [{"path": "p", "text": "t"}]}
SEEN: Json = {
    "at": AT,
    "backups": [
        {
            "name": "good",
            "created_at": AT,
            "kind": "manual",
            "size_bytes": 1,
            "app_id": "a",
            "revision": "",
            "points": 0,
        }
    ],
    "other_disk": False,
    "own": ["good"],
}
CHECKED: Json = {"sound": [{"name": "good", "at": AT}], "damaged": [{"name": "bad", "text": "is missing"}]}


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def metadata(folder: Path, content: bytes) -> object:
    put(folder / "good" / "backup_metadata.json", content)
    return manifest.read_metadata(folder / "good", ZoneInfo("UTC"))


def restore_journal(folder: Path, content: bytes) -> object:
    put(folder / ".journal", content)
    return journal.read(folder)


def header(folder: Path, content: bytes) -> object:
    body = b"BKPOINT1" + content + len(content).to_bytes(8, "big") + hashlib.sha256(content).digest()
    return point.read_header(put(folder / "x.point", body + hashlib.sha256(body).digest()))


def operation(folder: Path, content: bytes) -> object:
    put(folder / ".state" / "history.jsonl", content + b"\n")
    return history.read(folder).operations or None


def cached_sizes(folder: Path, content: bytes) -> object:
    put(folder / ".state" / "sizes.json", content)
    return sizes._read(folder) or None


def proofs(folder: Path, content: bytes) -> object:
    put(folder / ".state" / "proofs" / "good", content)
    made = cast(Metadata, metadata(folder, json.dumps(METADATA).encode()))
    empty = verification.Record(made.created_at)
    found = verification.read(folder, "good", made)
    assert verification.is_broken(folder, "good") == (found == empty)
    return found if found != empty else None


def listing(folder: Path, content: bytes) -> object:
    put(folder / ".state" / "remotes" / "nas" / "seen.json", content)
    found = listing_cache.recall(folder, "nas")
    return found if found != CachedListing() else None


def checked(folder: Path, content: bytes) -> object:
    put(folder / ".state" / "remotes" / "nas" / "checked.json", content)
    found = checks.recall(cast(Settings, SimpleNamespace(dir=folder)), "nas")
    return found if found != Checks() else None


Read = Callable[[Path, bytes], object]
FILES: dict[Read, Json] = {
    metadata: METADATA,
    restore_journal: JOURNAL,
    header: HEADER,
    operation: OPERATION,
    cached_sizes: SIZES,
    proofs: RECORD,
    listing: SEEN,
    checked: CHECKED,
}


def is_read(read: Read, folder: Path, content: bytes) -> bool:
    try:
        return read(folder, content) is not None
    except (BackupError, Damaged):
        return False


def changed(document: Json, path: str, value: object) -> bytes:
    """Return the document as JSON, with the value in the place that the path names, `others.0.name`."""
    whole = place = json.loads(json.dumps(document))
    *steps, last = (int(step) if step.isdecimal() else step for step in path.split("."))
    for step in steps:
        place = place[step]
    place[last] = value
    return json.dumps(whole).encode()


NO_COUNT = (-1, 2**63, 10**400, "x", 1.5, None, [])
NO_SECONDS = (-0.5, float("nan"), float("inf"), "x", [])
NO_TEXT = (None, 5, True, [], {})
NO_TIME = ("yesterday", "", [], {}, True, "2026-13-01T10:00:00Z")
NO_DIGEST = ("", "0" * 63, ZERO + "\n", "A" * 64, "\n" + ZERO, None)
NO_NAME = ("", "..", "../x", "/x", ".x", "a/b", "good\n", "\ngood", "x" * 101, "ä", 5)
REFUSED: list[tuple[Read, str, tuple[object, ...]]] = [
    (metadata, "database.size", NO_COUNT),
    (metadata, "database.rows.t", NO_COUNT),
    (metadata, "database.rows", ([], "x", None)),
    (metadata, "database.user_version", (-(2**63) - 1, 2**63, "x", 1.5)),
    (metadata, "database.mode", (-1, 0o1000, "x")),
    (metadata, "uploads.files", NO_COUNT),
    (metadata, "uploads.attributes", (-1, 2**63, "x", 1.5, [])),
    (metadata, "migrations.count", NO_COUNT),
    (metadata, "references.columns.0.rows", NO_COUNT),
    (metadata, "databases.0.database.size", NO_COUNT),
    (metadata, "trees.0.uploads.bytes", NO_COUNT),
    (metadata, "added_bytes", (-1, 2**63, "x", 1.5)),
    (metadata, "duration_seconds", NO_SECONDS),
    (metadata, "databases_gap_ms", NO_SECONDS),
    (metadata, "backup_name", NO_TEXT),
    (metadata, "git.commit", NO_TEXT),
    (metadata, "git.dirty", ("perhaps", 2, None, [])),
    (metadata, "alembic_revisions", ("a1", {}, [1], None)),
    (metadata, "kind", ("hostile", "", None, 5)),
    (metadata, "created_at", ("yesterday", [2026], True, "2026-13-01T10:00:00Z")),
    (restore_journal, "safety", NO_NAME),
    (restore_journal, "sealed", NO_NAME),
    (restore_journal, "copies.0", (*NO_NAME, None)),
    (restore_journal, "others.0.safety", NO_NAME),
    (restore_journal, "name", ("..", "../x", "/x", "a/../b", "a//b", "a/.", "a\0", ".backupkit-staging/x", None, 5)),
    (restore_journal, "others.0.name", ("..", "../x", "/x", "a/../b", "a//b", "a\0", ".backupkit-staging", None)),
    (restore_journal, "id", ("", "a" * 31, "a" * 33, "A" * 32, "a" * 32 + "\n", "../" + "a" * 29, None, 5)),
    (restore_journal, "database", ("perhaps", 2, None, [])),
    (restore_journal, "revisions", ("a1", [1], {})),
    (restore_journal, "facts.size", NO_COUNT),
    (restore_journal, "others.0.facts.size", NO_COUNT),
    (restore_journal, "source", (*NO_TEXT, "\udcff")),
    (restore_journal, "path", ("/etc",)),
    (restore_journal, "others.0.path", ("/etc",)),
    (restore_journal, "facts.path", ("/etc",)),
    (restore_journal, "others.0.facts.path", ("/etc",)),
    (header, "seal", NO_DIGEST),
    (header, "uploads", NO_DIGEST),
    (header, "database.root", NO_DIGEST),
    (header, "database.page_size", (511, 65537, "x", None)),
    (header, "database.pages", (0, 2**32, "x")),
    (header, "database.changed", NO_COUNT),
    (header, "database.compression", ("lzma", "", None)),
    (header, "others.0.name", ("", "Second", "a b", "second\n", "../x", "9", "x" * 31, None)),
    (header, "others.0.uploads", (ZERO + "\n", "0" * 63, None)),
    (header, "others.0.offset", NO_COUNT),
    (header, "interval", (0, *NO_SECONDS)),
    (header, "gap_ms", NO_SECONDS),
    (header, "format", (0, 1, 3, "x", None)),
    (header, "at", (*NO_TIME, None, "2026-01-01T10:00:00")),
    (header, "changes.0.entry.form", ("socket", "", None)),
    (header, "changes.0.entry.mode", (-1, 0o10000, "x")),
    (header, "changes.0.entry.changed", (2**63, -(2**63) - 1, "x", 1.5)),
    (header, "changes.0.entry.owner", ([1], [1, 2, 3], [-1, 1], [1, 2**63], "12")),
    (header, "changes.0.entry.attributes", ([["a"]], [["a", "b", "c"]], "x", [[1, 2]])),
    (header, "changes.0.path", ("..", "../x", "/x", "a//b", "a\0", None, 5)),
    (header, "changes.0.content", ("there", "", None)),
    (operation, "id", (*NO_TEXT, "\udcff")),
    (operation, "started_at", (*NO_TIME, None, "2026-01-01T10:00:00", "2026-01-01")),
    (operation, "ended_at", (*NO_TIME, "2026-01-01T10:00:00")),
    (operation, "outcome", ("great", "", None)),
    (operation, "who", (None, {}, "u", {"user": "u", "pid": "x", "host": "h"})),
    (operation, "who.through", ("a tunnel", "", None)),
    (operation, "exit_code", ("x", 1.5, [])),
    (operation, "steps", ([{"name": "s"}], [5], {})),
    (cached_sizes, "good.bytes", ("x", 1.5, None, [])),
    (cached_sizes, "good.made", NO_TEXT),
    (cached_sizes, "good", (None, [], 5, {})),
    (proofs, "made_at", (*NO_TIME, None, "2026-01-01T10:00:00")),
    (proofs, "proven_at", (*NO_TIME, "2026-01-01T10:00:00")),
    (proofs, "recovery_seconds", NO_SECONDS),
    (proofs, "flaws", ("x", [5], [{"path": "p"}], None)),
    (proofs, "not_proven", NO_TEXT),
    (listing, "at", (*NO_TIME, "2026-01-01T10:00:00")),
    (listing, "backups", ("x", [5], [{"name": "good"}], None)),
    (listing, "backups.0.created_at", (*NO_TIME, None, "2026-01-01T10:00:00")),
    (listing, "backups.0.size_bytes", ("x", 1.5, None)),
    (listing, "own", ("x", [5], {})),
    (checked, "sound", ("x", [5], [{"name": "good"}], None)),
    (checked, "sound.0.at", (*NO_TIME, None)),
    (checked, "damaged.0.text", NO_TEXT),
]
ACCEPTED: list[tuple[Read, str, tuple[object, ...]]] = [
    (metadata, "later", (1, {"a": [{}]}, None)),
    (metadata, "database.later", (1, [[]])),
    (metadata, "database.size", (0, 2**63 - 1)),
    (metadata, "database.user_version", (-(2**63), 2**63 - 1)),
    (metadata, "database.rows", ({}, {"a.b": 0, "ä": 1, "\udcff": 2})),
    (metadata, "duration_seconds", (0, 3, None)),
    (metadata, "note", ("", "ä\n", "\udcff")),
    (metadata, "excluded_folders", ([], ["a/\udcff"])),
    (metadata, "created_at", ("2026-01-01 10:00:00", "2026-01-01", "2026-01-01T10:00:00.5+05:30", None)),
    (restore_journal, "name", ("", "second", "media/a.db")),
    (restore_journal, "safety", (None, "a", "x" * 100)),
    (restore_journal, "facts", (None,)),
    (restore_journal, "facts.rows", ({}, {"path": 1})),
    (restore_journal, "part", (None, "media")),
    (header, "later", (1, {})),
    (header, "changes.0.path", ("", "a/\udcff", "ä")),
    (header, "changes.0.entry.attributes", ([], [["user.\udcff", "00"]])),
    (header, "at", ("2026-01-01T10:00:00+00:00", "2026-01-01T10:00:00.000001-03:30")),
    (header, "before", (None, AT)),
    (header, "gap_ms", (0, 3)),
    (operation, "later", (1, {})),
    (operation, "note", ("ä", "")),
    (operation, "started_at", ("2026-01-01T10:00:00.5+05:30",)),
    (operation, "duration_seconds", (None, 0, 3)),
    (cached_sizes, "good.later", (1,)),
    (proofs, "later", (1,)),
    (proofs, "made_at", ("2026-01-01T11:00:00+01:00",)),
    (proofs, "flaws", ([], [{"path": "a/\udcff", "text": "\udcff is missing"}])),
    (listing, "own", (None, [])),
    (listing, "later", (1,)),
    (checked, "sound.0.at", ("2026-01-01T10:00:00.5+01:00",)),
    (checked, "damaged.0.text", ("\udcff",)),
]


def each(cases: list[tuple[Read, str, tuple[object, ...]]]) -> list[Any]:
    return [
        pytest.param(read, path, value, id=f"{read.__name__} {path} {number} {value!a:.30}")
        for read, path, values in cases
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize("read", FILES, ids=lambda read: read.__name__)
def test_a_sound_file_is_read(read: Read, tmp_path: Path) -> None:
    assert is_read(read, tmp_path, json.dumps(FILES[read]).encode())


@pytest.mark.parametrize(("read", "path", "value"), each(REFUSED))
def test_a_wrong_value_is_refused(read: Read, path: str, value: object, tmp_path: Path) -> None:
    assert not is_read(read, tmp_path, changed(FILES[read], path, value))


@pytest.mark.parametrize(("read", "path", "value"), each(ACCEPTED))
def test_a_value_that_the_toolkit_or_a_later_one_writes_is_accepted(
    read: Read, path: str, value: object, tmp_path: Path
) -> None:
    assert is_read(read, tmp_path, changed(FILES[read], path, value))


DEEP = b"[" * 100_000 + b"]" * 100_000
CONTENTS = {
    "nothing": b"",
    "torn": b'{"a": 1',
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"x"',
    "binary": bytes(range(256)),
    "deep": DEEP,
    "deep in a key": b'{"later": ' + DEEP + b"}",
}


@pytest.mark.parametrize("read", FILES, ids=lambda read: read.__name__)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_what_is_no_object_is_refused(read: Read, content: bytes, tmp_path: Path) -> None:
    assert not is_read(read, tmp_path, content)


@pytest.mark.parametrize("read", FILES, ids=lambda read: read.__name__)
@pytest.mark.parametrize("added", [b', "later": ' + DEEP, b', "later": "\xff"'], ids=["deep", "not UTF-8"])
def test_a_sound_file_with_something_that_is_no_json_of_ours_is_refused(
    read: Read, added: bytes, tmp_path: Path
) -> None:
    assert not is_read(read, tmp_path, json.dumps(FILES[read]).encode()[:-1] + added + b"}")


def test_a_wrong_field_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match=r"cannot be trusted: databases\.0\.database\.size: .*0\.$"):
        metadata(tmp_path, changed(METADATA, "databases.0.database.size", -1))


def test_a_journal_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = cast(journal.Journal, restore_journal(tmp_path, json.dumps(JOURNAL).encode()))
    for one in (written, replace(written, name="second"), replace(written, others=(), facts=None, revisions=None)):
        journal.write(tmp_path, one)
        assert journal.read(tmp_path) == one
