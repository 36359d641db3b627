"""The tar format: folders, files, hard links and symbolic links, and nothing else that a tar can hold.

Written in the POSIX format (pax), with times in nanoseconds and names of any bytes. Read strictly, because an archive
from outside is untrusted input: what `tar` writes for plain trees is accepted, in the POSIX and the GNU format; every
other type of entry, every ambiguity and every header that would cost memory is refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO, Literal

from msgspec import Struct, field

from backupkit.fs import attributes
from backupkit.fs.attributes import Attributes
from backupkit.model.errors import Damaged
from backupkit.model.names import printable

Form = Literal["file", "folder", "link", "name"]
"""Types of entries; a `name` is a hard link to a file earlier in the archive."""

_BLOCK, _RECORD = 512, 20 * 512
_CHUNK = 1 << 20
_FORMS: dict[bytes, Form] = {b"0": "file", b"\0": "file", b"5": "folder", b"2": "link", b"1": "name"}
_TYPES: dict[Form, bytes] = {"file": b"0", "folder": b"5", "link": b"2", "name": b"1"}
_OTHERS = {
    b"3": "a device",
    b"4": "a device",
    b"6": "a fifo",
    b"S": "a sparse file in GNU's form",
    b"g": "a header for all that follows",
}
_PAX, _LONG_NAME, _LONG_LINK = b"x", b"L", b"K"
LONGEST_HEADER = 1 << 20  # a path has a few thousand bytes at most; extended attributes may have more
_XATTR = "SCHILY.xattr."  # as GNU tar, star and bsdtar call extended attributes, ACLs and file capabilities
_MOST_PADDING = 1 << 20
_DIGITS = 18
_AGAIN = "Copy it again from where it was made, or take another one."


class Member(Struct, frozen=True):
    """One entry: its path with slashes, of any bytes (surrogateescape); `changed` in nanoseconds.

    `target` is where a link leads, or the path of the file that a `name` links to.
    """

    path: str
    form: Form
    mode: int
    owner: tuple[int, int]
    changed: int
    size: int = 0
    target: str = ""
    attributes: Attributes = field(default_factory=dict)


# Writing


def written(member: Member) -> bytes:
    """Return the member's headers; write its content, `size` bytes, after them, and then `padding(size)`."""
    fields = {"mtime": _decimal(member.changed)}
    name = os.fsencode(member.path + ("/" if member.form == "folder" else ""))
    texts = {"path": (name, 100), "linkpath": (os.fsencode(member.target), 100)}
    extended = {key: value for key, (value, most) in texts.items() if len(value) > most}
    numbers = {"uid": (member.owner[0], 7), "gid": (member.owner[1], 7), "size": (member.size, 11)}
    fields |= {key: str(value).encode() for key, (value, digits) in numbers.items() if value >= 8**digits}
    fields |= {f"{_XATTR}{_quoted(name)}": value for name, value in member.attributes.items()}
    records = b"".join(_record(os.fsencode(key), value) for key, value in (fields | extended).items())
    header = _header(b"PaxHeaders/entry", _PAX, size=len(records))
    return header + records + padding(len(records)) + _header(
        name[:100],
        _TYPES[member.form],
        mode=member.mode,
        owner=tuple(min(number, 8**7 - 1) for number in member.owner),
        size=member.size if member.size < 8**11 else 0,
        changed=max(0, member.changed // 10**9),
        target=os.fsencode(member.target)[:100],
    )  # fmt: skip


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of a content of that size."""
    return bytes(-size % _BLOCK)


def end(written_so_far: int) -> bytes:
    """Return the end of the archive, padded to a full record of 20 blocks."""
    return bytes(2 * _BLOCK + -(written_so_far + 2 * _BLOCK) % _RECORD)


def _header(
    name: bytes,
    form: bytes,
    mode: int = 0o600,
    owner: tuple[int, ...] = (0, 0),
    size: int = 0,
    changed: int = 0,
    target: bytes = b"",
) -> bytes:
    numbers = b"".join(_octal(number, 8) for number in (mode, *owner)) + _octal(size, 12) + _octal(changed, 12)
    before, after = name.ljust(100, b"\0") + numbers, form + target.ljust(100, b"\0") + b"ustar\00000"
    block = (before + b" " * 8 + after).ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, min(number, 8 ** (width - 1) - 1))


def _decimal(nanoseconds: int) -> bytes:
    sign, amount = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    return f"{sign}{amount // 10**9}.{amount % 10**9:09}".encode()


def _quoted(name: str) -> str:
    return name.replace("%", "%25").replace("=", "%3D")


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


# Reading


class _Extra(Struct):
    """The fields from the extra headers before a member, and which types of them were seen."""

    fields: dict[str, bytes] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set)


def members(stream: BinaryIO) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield every member with its content, which must be read before the next one is asked for; the rest is skipped.

    Raises `Damaged` for anything but folders, files, hard links and symbolic links; for paths that lead out of the
    target folder; and for an archive that is cut short, or that does not end where the stream ends.
    """
    while (found := _next_member(stream)) is not None:
        content = _content(stream, found.size)
        yield found, content
        for _ in content:
            continue
        _exactly(stream, -found.size % _BLOCK)
    _read_end(stream)


def _next_member(stream: BinaryIO) -> Member | None:
    extra = _Extra()
    while any(block := _exactly(stream, _BLOCK)):
        form = _checked(block)
        if form in (_PAX, _LONG_NAME, _LONG_LINK):
            _add(extra, form, _exactly(stream, _header_size(block)), stream)
        elif form in _FORMS:
            return _member(block, _FORMS[form], extra.fields)
        else:
            kind = _OTHERS.get(form, f"an entry of the unknown kind {form.decode('latin-1')!a}")
            raise _refused(f"{printable(os.fsdecode(_until_nul(block[:100])))} is {kind}")
    if extra.seen:
        raise _refused("it ends with a header that no entry follows")
    return None


def _checked(block: bytes) -> bytes:
    """Return the type of a header; raise `Damaged` if its checksum is wrong."""
    if block[257:262] != b"ustar":
        raise _refused("a header is not one of tar's")
    if _number(block[148:156], "checksum") != sum(block[:148] + b" " * 8 + block[156:]):
        raise _refused("a header was altered")
    return block[156:157]


def _header_size(block: bytes) -> int:
    size = _number(block[124:136], "size")
    if size > LONGEST_HEADER:
        raise _refused(f"a header claims to have {size} bytes")
    return size


def _add(extra: _Extra, form: bytes, content: bytes, stream: BinaryIO) -> None:
    _exactly(stream, -len(content) % _BLOCK)
    found = dict(_pax_fields(content)) if form == _PAX else {}
    if form != _PAX:
        found = {"path" if form == _LONG_NAME else "linkpath": content.removesuffix(b"\0")}
    if form in extra.seen or found.keys() & extra.fields.keys():
        raise _refused("two headers describe the same entry")
    extra.seen.add(form)
    extra.fields |= found


def _pax_fields(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the key and value of each record, `LENGTH KEY=VALUE` and a line end; refuse a repeated key."""
    place, keys = 0, set()
    while place < len(content):
        found = re.compile(rb"([1-9][0-9]{0,6}) ([^=]+)=").match(content, place)
        finish = place + int(found[1]) if found else 0
        if not found or finish > len(content) or found.end() >= finish or content[finish - 1 : finish] != b"\n":
            raise _refused("an extended header is not sound")
        key = os.fsdecode(found[2])
        if key.startswith("GNU.sparse"):
            raise _refused("it holds a sparse file in GNU's form")
        if key in keys:
            raise _refused(f"an extended header says {printable(key)} twice")
        keys.add(key)
        yield key, content[found.end() : finish - 1]
        place = finish


def _member(block: bytes, form: Form, extra: dict[str, bytes]) -> Member:
    path = _path(extra["path"] if "path" in extra else _plain_name(block))
    size = _sized(extra, "size", block[124:136])
    if form != "file" and size:
        raise _refused(f"{printable(path)} is a {form} with content")
    target = _target(path, form, extra.get("linkpath", _until_nul(block[157:257])))
    owner = (_owner(extra, "uid", block[108:116]), _owner(extra, "gid", block[116:124]))
    mode, changed = stat.S_IMODE(_number(block[100:108], "mode")), _changed(extra, block)
    return Member(path, form, mode, owner, changed, size, target, _attributes(extra))


def _target(path: str, form: Form, raw: bytes) -> str:
    """Return where a link leads, which may be anywhere, or a hard link's path in the archive; else empty."""
    if form == "name":
        return _path(raw)
    target = os.fsdecode(raw) if form == "link" else ""
    if form == "link" and (not target or "\0" in target):
        raise _refused(f"{printable(path)} is a link to nowhere")
    return target


def _attributes(extra: dict[str, bytes]) -> Attributes:
    """Return the extended attributes that backups keep; leave out others that a system stores there."""
    found = ((key.removeprefix(_XATTR), value) for key, value in extra.items() if key.startswith(_XATTR))
    plain = ((name.replace("%3D", "=").replace("%25", "%"), value) for name, value in found)
    return {name: value for name, value in plain if attributes.is_kept(name)}


def _plain_name(block: bytes) -> bytes:
    """Return the name in the header itself, joined as POSIX says; the GNU format has other data in the prefix field."""
    name, before = _until_nul(block[:100]), _until_nul(block[345:500])
    return before + b"/" + name if before and block[257:265] == b"ustar\00000" else name


def _path(raw: bytes) -> str:
    """Return the normalised path; raise `Damaged` if it could lead out of the folder that it is unpacked in."""
    path = os.fsdecode(raw)
    plain = path.removeprefix("./").rstrip("/")
    if not plain or path.startswith("/") or "\0" in path or {"", ".", ".."} & set(plain.split("/")):
        raise _refused(f"{printable(path) or 'an empty name'} is not a path below one folder")
    return plain


def _sized(extra: dict[str, bytes], key: str, plain: bytes) -> int:
    if key not in extra:
        return _number(plain, key)
    if not re.fullmatch(rb"[0-9]{1,18}", extra[key]):
        raise _refused(f"a {key} is not a number")
    return int(extra[key])


def _owner(extra: dict[str, bytes], key: str, plain: bytes) -> int:
    if (number := _sized(extra, key, plain)) < 2**32 - 1:  # 2**32 - 1 tells chown to change nothing
        return number
    raise _refused(f"a {key} is not an owner")


def _changed(extra: dict[str, bytes], block: bytes) -> int:
    if "mtime" not in extra:
        if abs(seconds := _number(block[136:148], "time", signed=True)) >= 10**11:
            raise _refused("a time is out of range")
        return seconds * 10**9
    found = re.fullmatch(rb"(-?)([0-9]{1,11})(?:\.([0-9]{1,30}))?", extra["mtime"])
    if not found:
        raise _refused("a time is not a number")
    amount = int(found[2]) * 10**9 + int((found[3] or b"").ljust(9, b"0")[:9])
    return -amount if found[1] else amount


def _number(raw: bytes, what: str, signed: bool = False) -> int:
    """Parse octal digits, or GNU's form for large numbers: binary, marked by a first bit that is set."""
    if raw[0] & 0x80:
        number = int.from_bytes(raw, "big", signed=True) if raw[0] == 0xFF else int.from_bytes(raw[1:], "big")
        if (number < 0 and not signed) or abs(number) >= 10**_DIGITS or raw[0] not in (0x80, 0xFF):
            raise _refused(f"a {what} is not a number")
        return number
    digits = raw.strip(b" \0")
    if digits.strip(b"01234567"):
        raise _refused(f"a {what} is not a number")
    return int(digits or b"0", 8)


def _content(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise Damaged("The archive ends in the middle.", hint=_AGAIN)
        size -= len(chunk)
        yield chunk


def _read_end(stream: BinaryIO) -> None:
    """Read the second block of zeros; raise `Damaged` if anything but zeros, or too many of them, follow."""
    if any(_exactly(stream, _BLOCK)):
        raise _refused("something follows its end")
    rest = 0
    while chunk := stream.read(_CHUNK):
        rest += len(chunk)
        if any(chunk) or rest > _MOST_PADDING:
            raise _refused("something follows its end")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    return b"".join(_content(stream, size))


def _until_nul(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _refused(reason: str) -> Damaged:
    return Damaged(f"The archive is refused: {reason}.", hint=_AGAIN)
