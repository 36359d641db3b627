"""Compressed dumps: they come back, they are streamed, and every cut or change is noticed."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import scripts
from backupkit.fs.compression import compressing, decompressing, open_for_reading, open_for_writing
from backupkit.model.errors import Damaged, NoSuchBackup

SUFFIXES = ["", ".gz", ".zst"]
CONTENT = b"INSERT INTO t VALUES('it''s');\n" * 20_000 + os.urandom(5000)


def written(path: Path, content: bytes = CONTENT) -> Path:
    with open_for_writing(path) as out:
        for start in range(0, len(content), 10_007):
            assert out.write(content[start : start + 10_007]) > 0
    return path


def read(path: Path) -> bytes:
    with open_for_reading(path) as stream:
        return b"".join(iter(lambda: stream.read(9_001), b""))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_comes_back(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"dump.sql{suffix}")
    assert read(path) == CONTENT
    assert (path.stat().st_size < len(CONTENT) / 5) == bool(suffix)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_content_comes_back(tmp_path: Path, suffix: str) -> None:
    assert read(written(tmp_path / f"dump.sql{suffix}", b"")) == b""


def test_the_common_tools_read_it(tmp_path: Path) -> None:
    assert gzip.decompress(written(tmp_path / "a.gz").read_bytes()) == CONTENT
    assert zstandard.ZstdDecompressor().decompressobj().decompress(written(tmp_path / "a.zst").read_bytes()) == CONTENT


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_content_makes_the_same_file(tmp_path: Path, suffix: str) -> None:
    first, second = written(tmp_path / f"first{suffix}"), written(tmp_path / f"second{suffix}")
    os.utime(first, (0, 0))
    assert first.read_bytes() == second.read_bytes()


def test_a_draft_is_compressed_as_its_name_to_be_says(tmp_path: Path) -> None:
    with open_for_writing(tmp_path / ".draft-1", name="dump.sql.gz") as out:
        out.write(b"x")
    assert gzip.decompress((tmp_path / ".draft-1").read_bytes()) == b"x"


def test_nothing_is_written_over(tmp_path: Path) -> None:
    written(tmp_path / "a.sql")
    with pytest.raises(FileExistsError), open_for_writing(tmp_path / "a.sql"):
        pass
    assert read(tmp_path / "a.sql") == CONTENT


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_was_broken_off_never_looks_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ZeroDivisionError), open_for_writing(path) as out:
        out.write(CONTENT)
        raise ZeroDivisionError
    with pytest.raises(Damaged):
        read(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_cut_anywhere_is_damaged(tmp_path: Path, suffix: str) -> None:
    whole = written(tmp_path / f"a{suffix}", b"SELECT 'hello';\n" * 40).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(Damaged, match=f"cut{suffix}"):
            read(cut)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_an_altered_file_never_gives_other_content(tmp_path: Path, suffix: str) -> None:
    whole = bytearray(written(tmp_path / f"a{suffix}", b"SELECT 'hello';\n" * 40).read_bytes())
    altered, noticed = tmp_path / f"altered{suffix}", 0
    for place in range(len(whole)):
        altered.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert read(altered) == b"SELECT 'hello';\n" * 40
        except Damaged:
            noticed += 1
    assert noticed > len(whole) - 12, "only the time and the system in a gzip header may go unnoticed"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_garbage_behind_the_end_is_damaged_and_padding_is_not(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", b"hello")
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(1000))
    assert read(path) == b"hello"
    path.write_bytes(whole + b"garbage")
    with pytest.raises(Damaged):
        read(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_files_joined_with_cat_are_read_through(tmp_path: Path, suffix: str) -> None:
    first, second = written(tmp_path / f"1{suffix}", b"one\n"), written(tmp_path / f"2{suffix}", CONTENT)
    first.write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    assert read(first) == b"one\n" + CONTENT + b"one\n"


def test_a_file_that_is_not_what_its_name_says_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.sql.gz").write_bytes(b"BEGIN;")
    with pytest.raises(Damaged, match=r"a\.sql\.gz is not a gzip file"):
        read(tmp_path / "a.sql.gz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pipe_is_read_by_its_first_bytes_and_stays_open(tmp_path: Path, suffix: str) -> None:
    pipe = io.BytesIO(written(tmp_path / f"a{suffix}").read_bytes())
    stream = decompressing(pipe)
    assert stream.read() == CONTENT
    stream.close()
    del stream
    assert not pipe.closed


@pytest.mark.parametrize("name", ["-", "a.gz", "a.zst"])
def test_what_is_written_to_stays_open(name: str) -> None:
    pipe = io.BytesIO()
    with compressing(pipe, name) as out:
        out.write(CONTENT)
    assert decompressing(io.BytesIO(pipe.getvalue())).read() == CONTENT


@pytest.mark.parametrize("name", ["missing.sql", "folder", "missing/a.sql"])
def test_a_missing_dump_is_no_such_backup(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(NoSuchBackup, match=name), open_for_reading(tmp_path / name):
        pass


@given(st.binary(max_size=300), st.sampled_from(["-", "a.gz", "a.zst"]), st.integers(1, 64))
def test_any_content_comes_back_in_any_bites(content: bytes, name: str, bite: int) -> None:
    pipe = io.BytesIO()
    with compressing(pipe, name) as out:
        for start in range(0, len(content), bite):
            out.write(content[start : start + bite])
    if name == "-" and content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        return  # plain content that starts like a compressed file is read as one
    stream = decompressing(io.BytesIO(pipe.getvalue()))
    assert b"".join(iter(lambda: stream.read(bite), b"")) == content


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_bomb_is_read_in_little_memory(tmp_path: Path, kind: str) -> None:
    bomb = tmp_path / f"bomb.{kind}"
    with open_for_writing(bomb) as out:
        for _ in range(300):
            out.write(bytes(1024 * 1024))
    assert bomb.stat().st_size < 400_000
    script = """
        import resource, sys
        from pathlib import Path
        from backupkit.fs.compression import open_for_reading
        import zstandard
        before, total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
        with open_for_reading(Path(sys.argv[1])) as stream:
            while piece := stream.read(1024 * 1024):
                total += len(piece)
        print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = scripts.run(script, None, str(bomb))
    total, kilobytes = (int(number) for number in done.stdout.split())
    assert total == 300 * 1024 * 1024
    assert kilobytes < 80_000
