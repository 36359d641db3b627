"""Hostile archives are refused and leave nothing; harmless ones are imported, whoever made them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from backupkit.archive import tar
from backupkit.archive.export import import_backup
from backupkit.fs import disk
from backupkit.model.errors import BackupError, Damaged, NoSpace
from backupkit.repository import manifest
from refusals import picture
from small_app import COMMAND, SmallApp, clean_environment

Entry = tuple[tarfile.TarInfo, bytes]
FILE, FOLDER, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE


def entry(path: str, content: bytes = b"", kind: bytes = FILE, **more: Any) -> Entry:
    info = tarfile.TarInfo(path)
    info.type, info.size, info.mode = kind, len(content), 0o755 if kind == FOLDER else 0o644
    for name, value in more.items():
        setattr(info, name, value)
    return info, content


def harmless(*extra: Entry, **metadata: Any) -> list[Entry]:
    """Return the entries of a small valid backup; `extra` is sealed with it, and can be the only cause of a refusal."""
    facts = {"size": 4, "sha256": hashlib.sha256(b"data").hexdigest()}
    uploads = {"files": 2 + len(extra), "bytes": 1000, "folders": 1 + len(extra), "links": len(extra)}
    told = {
        "backup_name": "good",
        "timestamp": "20261121_120000",
        "created_at": "2026-11-21T12:00:00+00:00",
        "alembic_revision": None,
        "database_file": "pats.db",
        "uploads_included": True,
        "tool_version": "1",
        "database": facts,
        "uploads": uploads,
    }
    content = [entry("good/backup_metadata.json", json.dumps(told | metadata).encode())]
    content += [entry("good/pats.db", b"data"), entry("good/uploads", kind=FOLDER), entry("good/uploads/a", b"first")]
    content += [entry("good/uploads/d", kind=FOLDER), entry("good/uploads/d/b", b"second"), *extra]
    lines = {
        info.name.removeprefix("good/"): hashlib.sha256(body).hexdigest() for info, body in content if sealed(info)
    }
    sums = "".join(f"{checksum}  {path}\n" for path, checksum in lines.items()).encode("utf-8", "surrogateescape")
    return [entry("good", kind=FOLDER), entry("good/SHA256SUMS", sums), *content]


def sealed(info: tarfile.TarInfo) -> bool:
    name = info.name.removeprefix("good/")
    return info.type in (FILE, tarfile.LNKTYPE) and name != info.name and manifest.is_inside(name) and "\0" not in name


def archive(entries: list[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as packed:
        for info, content in entries:
            packed.addfile(info, io.BytesIO(content))
    return out.getvalue()


def take(app: SmallApp, content: bytes, **more: Any) -> Path:
    return import_backup(app.settings, io.BytesIO(content), **more).backup.path


def refused(app: SmallApp, content: bytes, kind: type[BackupError] = Damaged) -> str:
    """Return the message of the refusal; assert that nothing was written anywhere."""
    before, around = picture(app), entries_around(app)
    with pytest.raises(kind) as refusal:
        take(app, content)
    assert picture(app) == before
    assert entries_around(app) == around
    return refusal.value.message


def entries_around(app: SmallApp) -> list[Path]:
    """Return every path except the lock's and the history's."""
    everything = sorted(app.folder.parent.rglob("*"))
    return [path for path in everything if path.name != ".lock" and ".state" not in path.parts]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_means_no_harm_is_taken_in_every_form_and_order(app: SmallApp, form: int) -> None:
    entries = harmless()
    first = take(app, archive(entries, form))
    assert (first / "uploads/d/b").read_bytes() == b"second"
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    shuffled = [entries[0], *sorted(entries[1:], key=lambda one: one[0].name == "good/SHA256SUMS")]
    assert take(app, archive(shuffled, form), name="second").name == "second"


HOSTILE: dict[str, tuple[str, Entry]] = {
    "absolute": ("not a path below", entry("/tmp/escaped", b"x")),
    "absolute inside": ("not a path below", entry("/good/uploads/x", b"x")),
    "up": ("not a path below", entry("good/uploads/../../../escaped", b"x")),
    "up at the end": ("not a path below", entry("good/uploads/d/..", kind=FOLDER)),
    "a dot in between": ("not a path below", entry("good/./uploads/x", b"x")),
    "two slashes": ("not a path below", entry("good//uploads/x", b"x")),
    "beside the folder": ("not in the one folder", entry("evil/uploads/x", b"x")),
    "the folder as a file": ("not in the one folder", entry("good", b"x")),
    "the folder again": ("not in the one folder", entry("good", kind=FOLDER)),
    "a link up": ("leads out of the uploads", entry("good/uploads/x", kind=LINK, linkname="../../..")),
    "a link to the backup": ("leads out of the uploads", entry("good/uploads/x", kind=LINK, linkname="../pats.db")),
    "a link through another": (
        "leads out of the uploads",
        entry("good/uploads/d/x", kind=LINK, linkname="../d/../../.."),
    ),
    "an absolute link": ("leads out of the uploads", entry("good/uploads/x", kind=LINK, linkname="/etc/passwd")),
    "a link to nowhere": ("link to nowhere", entry("good/uploads/x", kind=LINK, linkname="")),
    "a link beside uploads": ("where a backup has a file", entry("good/x", kind=LINK, linkname="uploads")),
    "a hard link": ("is a hard link", entry("good/uploads/x", kind=tarfile.LNKTYPE, linkname="good/pats.db")),
    "a hard link out": ("not a path below", entry("good/uploads/x", kind=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "a hard link up": ("not a path below", entry("good/uploads/x", kind=tarfile.LNKTYPE, linkname="good/uploads/../a")),
    "a hard link to another backup": (
        "is not an upload before it",
        entry("good/uploads/x", kind=tarfile.LNKTYPE, linkname="evil/uploads/a"),
    ),
    "a hard link to nothing": (
        "is not an upload before it",
        entry("good/uploads/x", kind=tarfile.LNKTYPE, linkname="good/uploads/later"),
    ),
    "a hard link to a folder": (
        "is not an upload before it",
        entry("good/uploads/x", kind=tarfile.LNKTYPE, linkname="good/uploads/d"),
    ),
    "a hard link beside uploads": (
        "where a backup has a file",
        entry("good/x", kind=tarfile.LNKTYPE, linkname="good/uploads/a"),
    ),
    "a hard link for a file": (
        "not as it was written",
        entry("good/uploads/d/b", kind=tarfile.LNKTYPE, linkname="good/uploads/a"),
    ),
    "file capabilities": (
        "file capabilities",
        entry("good/uploads/x", b"x", pax_headers={"SCHILY.xattr.security.capability": "x" * 20}),
    ),
    "a fifo": ("is a fifo", entry("good/uploads/x", kind=tarfile.FIFOTYPE)),
    "a disk": ("is a device", entry("good/uploads/x", kind=tarfile.BLKTYPE, devmajor=8)),
    "a terminal": ("is a device", entry("good/uploads/x", kind=tarfile.CHRTYPE, devmajor=5)),
    "contiguous": ("unknown kind", entry("good/uploads/x", kind=tarfile.CONTTYPE)),
    "of no kind": ("unknown kind", entry("good/uploads/x", kind=b"Z")),
    "sparse, GNU": ("sparse", entry("good/uploads/x", kind=tarfile.GNUTYPE_SPARSE)),
    "sparse, POSIX": (
        "sparse",
        entry("good/uploads/x", b"x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": "9" * 12}),
    ),
    "a global header": ("header for all", entry("good", kind=tarfile.XGLTYPE)),
    "a file twice": ("not as it was written", entry("good/uploads/a", b"x")),
    "a folder twice": ("there twice", entry("good/uploads/d", kind=FOLDER)),
    "a file for a folder": ("there twice", entry("good/uploads/d", b"x")),
    "a link for a file": ("there twice", entry("good/uploads/a", kind=LINK, linkname="d")),
    "below a file": ("no folder that came before", entry("good/uploads/a/x", b"x")),
    "below nothing": ("no folder that came before", entry("good/uploads/none/x", b"x")),
    "a folder beside uploads": ("where a backup has a file", entry("good/more", kind=FOLDER)),
    "setuid": ("setuid", entry("good/uploads/x", b"x", mode=0o4755)),
    "setgid": ("setuid", entry("good/uploads/x", b"x", mode=0o2755)),
    "nobody's": ("not an owner", entry("good/uploads/x", b"x", uid=2**32 - 1)),
    "a negative owner": ("a uid is not a number", entry("good/uploads/x", b"x", uid=-5)),
    "the end of time": ("a time is not a number", entry("good/uploads/x", b"x", mtime=10**15)),
    "the metadata again": ("is there twice", entry("good/backup_metadata.json", b"{}")),
    "the metadata in capitals": ("is there twice", entry("good/Backup_Metadata.JSON", b"{}")),
    "the checksums again": ("is there twice", entry("good/SHA256SUMS", b"")),
    "the checksums in small": ("is there twice", entry("good/sha256sums", b"")),
    "uploads in capitals": ("is there twice", entry("good/UPLOADS", kind=FOLDER)),
    "a name too long": ("too long", entry("good/uploads/" + "x" * 300, b"x")),
    "a file at the top, named as a terminal": ("not a path below", entry("good/\x1b[2J/..", b"x")),
    "a path with a NUL": ("not a path below", entry("good/uploads/x", b"x", pax_headers={"path": "good/uploads/a\0b"})),
    "a path that says up in its header": (
        "not a path below",
        entry("good/uploads/x", b"x", pax_headers={"path": "good/uploads/../../../e"}),
    ),
    "a link that says out in its header": (
        "leads out",
        entry("good/uploads/x", kind=LINK, linkname="a", pax_headers={"linkpath": "/etc/passwd"}),
    ),
    "a negative size": ("a size is not a number", entry("good/uploads/x", b"x", pax_headers={"size": "-1"})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_entry_is_refused_and_nothing_is_written(app: SmallApp, name: str) -> None:
    reason, one = HOSTILE[name]
    said = refused(app, archive(harmless(one)))
    assert said.startswith("The archive is refused: ") and reason in said
    assert "\x1b" not in said and ".draft-" not in said


def test_a_link_that_leads_into_the_uploads_is_taken(app: SmallApp) -> None:
    extra = entry("good/uploads/d/x", kind=LINK, linkname=".././a")
    assert (take(app, archive(harmless(extra))) / "uploads/d/x").read_bytes() == b"first"


def test_no_entry_is_written_through_a_link(app: SmallApp, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = entry("good/uploads/x", kind=LINK, linkname=str(outside))
    content = archive(harmless(link, entry("good/uploads/x/y", b"x")))
    with pytest.raises(Damaged, match="in no folder that came before"):
        take(app, content, trust=True)
    assert list(outside.iterdir()) == []


def test_two_names_that_differ_in_capitals_are_two_files_below_uploads(app: SmallApp) -> None:
    taken = take(app, archive(harmless(entry("good/uploads/A", b"another"))))
    assert (taken / "uploads/a").read_bytes() == b"first"
    assert (taken / "uploads/A").read_bytes() == b"another"


@pytest.mark.parametrize(
    ("kind", "size"), [(b"x", 1 << 30), (b"L", 1 << 30), (b"K", 1 << 30), (b"x", 8**11 - 1)], ids=str
)
def test_a_header_that_claims_to_be_huge_is_not_read(app: SmallApp, kind: bytes, size: int) -> None:
    whole = archive(harmless())
    at = whole.index(b"good/pats.db\0")
    block = tarfile.TarInfo("x")
    block.type, block.size = kind, size
    huge = block.tobuf(tarfile.GNU_FORMAT) + b"x" * 4096
    assert "claims to have" in refused(app, whole[:at] + huge + whole[at:])


def swollen(content: int, told: int) -> bytes:
    """Return an archive with a file of `content` zeros, whose metadata announce `told` bytes."""
    uploads = {"files": 3, "bytes": told, "folders": 1, "links": 0}
    return archive(harmless(entry("good/uploads/big", bytes(content)), uploads=uploads))


def test_an_archive_that_holds_more_than_it_says_is_refused(app: SmallApp) -> None:
    assert "more bytes than" in refused(app, swollen(5 << 20, told=1000))


def test_an_archive_with_more_entries_than_it_says_is_refused(app: SmallApp) -> None:
    folders = [entry(f"good/uploads/d/{number}", kind=FOLDER) for number in range(100)]
    uploads = {"files": 2, "bytes": 1000, "folders": 1, "links": 0}
    assert "more entries than" in refused(app, archive(harmless(*folders, uploads=uploads)))


def test_an_archive_that_says_more_than_the_disk_has_is_refused_before_it_is_unpacked(app: SmallApp) -> None:
    assert "nothing was changed" in refused(app, swollen(10, told=10**17), NoSpace)


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(app: SmallApp) -> None:
    """There are no metadata yet, but the entry's own header says how large it is."""
    info, _ = entry("good/big")
    info.size = disk.free_space(app.backups) * 2
    folder = entry("good", kind=FOLDER)[0].tobuf(tarfile.PAX_FORMAT)
    assert "needs" in refused(app, folder + info.tobuf(tarfile.GNU_FORMAT) + bytes(4096), NoSpace)


@pytest.mark.parametrize("padding", [b"x", bytes(2 << 20), archive(harmless())], ids=["a byte", "zeros", "another"])
def test_nothing_may_follow_the_end_of_an_archive(app: SmallApp, padding: bytes) -> None:
    assert "something follows its end" in refused(app, archive(harmless()) + padding)


def test_an_archive_cut_anywhere_is_refused(app: SmallApp) -> None:
    whole = archive(harmless())
    finish = whole.rindex(b"second") + 512 - whole.rindex(b"second") % 512
    for end in [*range(0, finish, 97), finish, finish + 512]:
        refused(app, whole[:end])
    take(app, whole[: finish + 1024])


def test_every_altered_byte_of_the_content_and_of_what_counts_in_a_header_is_noticed(app: SmallApp) -> None:
    whole = archive(harmless())
    for body in (b"data", b"first", b"second"):
        place = whole.index(body, whole.index(b"good/pats.db\0"))
        refused(app, whole[:place] + b"?" + whole[place + 1 :])
    header = whole.index(b"good/uploads/a")
    for place in range(header, header + 345, 11):
        altered = bytearray(whole)
        altered[place] ^= 1
        refused(app, bytes(altered))


def without(name: str) -> list[Entry]:
    return [one for one in harmless() if one[0].name != name]


@pytest.mark.parametrize("name", ["SHA256SUMS", "backup_metadata.json", "pats.db", "uploads/a"])
def test_an_archive_with_something_missing_is_refused(app: SmallApp, name: str) -> None:
    assert refused(app, archive(without(f"good/{name}"))).startswith("The archive is refused: ")


def test_a_file_that_is_not_in_the_checksums_is_refused_wherever_they_stand(app: SmallApp) -> None:
    more = entry("good/uploads/more", b"x")
    assert "uploads/more is not in its SHA256SUMS" in refused(app, archive([*harmless(), more]))
    late = [harmless()[0], *without("good/SHA256SUMS")[1:], more, harmless()[1]]
    assert "uploads/more was added after the backup was made" in refused(app, archive(late))


@pytest.mark.parametrize("place", ["good/pats.db", "good/backup_metadata.json", "good/uploads/d/b"])
@pytest.mark.parametrize("is_late", [False, True], ids=["list first", "list last"])
def test_a_file_that_is_not_as_listed_is_refused_wherever_the_list_stands(
    app: SmallApp, place: str, is_late: bool
) -> None:
    altered = [
        entry(place, body.replace(b"e", b"3") + b" ") if one.name == place else (one, body) for one, body in harmless()
    ]
    if is_late:
        altered = [altered[0], *altered[2:], altered[1]]
    assert "is not as it was written" in refused(app, archive(altered)) or "metadata" in place


LONG_LIST = r"""
import hashlib, io, json, sys, tarfile
whole = tarfile.open(sys.argv[1], "w:gz", compresslevel=1)
def put(name, body=None):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if body is None else tarfile.REGTYPE
    info.size, info.mode = len(body or b""), 0o700
    whole.addfile(info, io.BytesIO(body) if body else None)
metadata = {"backup_name": "good", "timestamp": "20260101_120000", "database_file": "pats.db", "tool_version": "1"}
metadata |= {"uploads_included": True, "uploads": {"files": 2_000_000, "bytes": 1, "folders": 0, "links": 0}}
metadata |= {"database": {"size": 4, "sha256": hashlib.sha256(b"data").hexdigest()}}
known = {"uploads/zzz": b"x", "pats.db": b"data", "backup_metadata.json": json.dumps(metadata).encode()}
sums = "".join(f"{'a' * 64}  uploads/{n:08}{'x' * 50}\n" for n in range(1_000_000))
sums += "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in known.items())
put("good")
put("good/SHA256SUMS", sums.encode())
put("good/backup_metadata.json", known["backup_metadata.json"])
put("good/pats.db", b"data")
put("good/uploads")
put("good/uploads/zzz", b"x")
whole.close()
"""


def test_a_list_of_a_million_files_that_are_not_there_costs_no_memory(app: SmallApp, tmp_path: Path) -> None:
    file = tmp_path / "long.tar.gz"
    subprocess.run([sys.executable, "-c", LONG_LIST, str(file)], check=True)
    peaks = []
    for name in (str(file), "nothing.tar"):  # the second one does nothing: its peak is the baseline
        child = subprocess.Popen(
            [sys.executable, str(COMMAND), "import", name],
            env={**clean_environment(), "BACKUP_APP_DIR": str(app.folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(child.pid, 0)
        peaks.append(usage.ru_maxrss)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode in (10, 12)
    assert peaks[0] - peaks[1] < 100_000, peaks  # kilobytes; the list is 120 MB, and took 430 MB as a table
    assert not list(app.backups.glob("[!.]*")) and not list(app.backups.glob(".draft*"))


def test_an_archive_whose_folders_and_links_are_not_those_it_was_sealed_with_is_refused(app: SmallApp) -> None:
    uploads = {"files": 2, "bytes": 1000, "folders": 1, "links": 0, "tree": "0" * 64}
    assert "a folder or a link below uploads" in refused(app, archive(harmless(uploads=uploads)))


@pytest.mark.parametrize("name", ["..", ".draft-x", "-x", "a b", "x" * 101])
def test_a_folder_with_a_name_that_no_backup_has_is_refused(app: SmallApp, name: str) -> None:
    entries = harmless()
    for info, _ in entries:
        info.name = info.name.replace("good", name, 1)
    refused(app, archive(entries))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", bytes(10240), b"x" * 2000, b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"age-encryption.org/v1\n"],
    ids=["nothing", "zip", "zeros", "text", "gzip", "zstd", "age"],
)
def test_what_is_no_archive_is_refused(app: SmallApp, content: bytes) -> None:
    refused(app, content)


def test_metadata_that_cannot_be_trusted_are_refused(app: SmallApp) -> None:
    assert "database_file" in refused(app, archive(harmless(database_file="../../etc/passwd")))
    assert "later" in refused(app, archive(harmless(backup_version="9.0")))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files may have any owner")
def test_owners_are_the_archives_below_uploads_and_the_folders_beside_them(app: SmallApp) -> None:
    os.chown(app.backups, 0, 1235)
    extra = entry("good/uploads/x", b"x", uid=2000, gid=2001)
    taken = take(app, archive(harmless(extra)))
    owners = {path: (taken / path).lstat() for path in ("", "pats.db", "SHA256SUMS", "uploads/x")}
    assert [(one.st_uid, one.st_gid) for one in owners.values()] == [(0, 1235)] * 3 + [(2000, 2001)]


# Arbitrary archives

WORD = some.sampled_from(
    ["good", "uploads", "a", "d", "..", ".", "", "/", "x", "A", "SHA256SUMS", "\x00", "pats.db", "é"]
)
PATH = some.lists(WORD, min_size=1, max_size=5).map("/".join)
KIND = some.sampled_from([FILE, FOLDER, LINK, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S", b"g", b"Z"])


@some.composite
def anything(draw: Callable[..., Any]) -> Entry:
    kind = draw(KIND)
    more = {"linkname": draw(PATH).replace("\0", ""), "mode": draw(some.integers(0, 0o7777))}
    content = draw(some.binary(max_size=600)) if kind == FILE else b""
    path = draw(PATH)
    if draw(some.booleans()):
        more["pax_headers"] = {draw(some.sampled_from(["path", "linkpath", "size", "mtime", "x"])): draw(PATH)}
    return entry(
        draw(some.sampled_from(["good/uploads/", "good/", ""])) + path.replace("\0", ""), content, kind, **more
    )


def below(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.name != ".lock")


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=some.lists(anything(), min_size=1, max_size=4), flip=some.integers(0, 1 << 14), cut=some.booleans())
def test_whatever_an_archive_holds_nothing_is_written_beside_the_backup(
    app: SmallApp, extra: list[Entry], flip: int, cut: bool
) -> None:
    content = bytearray(archive(harmless(*extra)))
    if cut:
        content[flip % len(content)] ^= 0xFF
    before, around = picture(app), entries_around(app)
    try:
        taken = take(app, bytes(content))
    except BackupError:
        assert picture(app) == before
    else:
        for path in below(taken):
            kind = path.lstat()
            assert stat.S_ISREG(kind.st_mode) or stat.S_ISDIR(kind.st_mode) or stat.S_ISLNK(kind.st_mode)
            assert kind.st_nlink == 1 or stat.S_ISDIR(kind.st_mode)
            if stat.S_ISLNK(kind.st_mode):
                assert Path(os.path.realpath(path)).is_relative_to(taken / "uploads")
        disk.remove_tree(taken)
    assert entries_around(app) == around


NAMES = some.text(some.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=80)
STEPS = NAMES.filter(lambda name: name not in (".", ".."))


@given(
    some.lists(STEPS, min_size=1, max_size=6).map("/".join),
    some.sampled_from(["file", "folder", "link"]),
    some.integers(0, 0o7777),
    some.tuples(some.integers(0, 2**32 - 2), some.integers(0, 2**32 - 2)),
    some.integers(-(10**19), 10**19),
    NAMES,
)
def test_what_is_written_is_read_back_the_same(
    path: str, form: tar.Form, mode: int, owner: tuple[int, int], changed: int, target: str
) -> None:
    content = b"content" if form == "file" else b""
    member = tar.Member(path, form, mode, owner, changed, len(content), target if form == "link" else "")
    whole = tar.written(member) + content + tar.padding(len(content))
    ((found, body),) = [(one, b"".join(chunks)) for one, chunks in tar.members(io.BytesIO(whole + tar.end(len(whole))))]
    assert (found, body) == (member, content)


def test_a_file_beyond_eight_gigabytes_has_its_size_written() -> None:
    member = tar.Member("x", "file", 0o600, (0, 0), 0, 8**11 + 5)
    headers = io.BytesIO(tar.written(member))
    (found, _) = next(tar.members(headers))
    assert found.size == 8**11 + 5
