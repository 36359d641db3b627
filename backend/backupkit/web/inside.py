"""Pages that browse a backup: its uploads, one folder at a time, and its tables, one page of rows at a time."""

from __future__ import annotations

import base64
import io
import json
import mimetypes
from collections.abc import Mapping
from pathlib import PurePosixPath

from backupkit.cli.session import of_database
from backupkit.config.settings import Settings
from backupkit.model.backup import MAIN_DATABASE
from backupkit.model.errors import Refused
from backupkit.model.patterns import literal
from backupkit.sqlite.rows import Key, Value
from backupkit.verify import browse
from backupkit.verify.files import list_files
from backupkit.web.site import Answer, Content, Handler, Page, Visit, require_owner

_NAMES, _ROWS, _FOUND = 200, 50, 500
_TICKED = "key."  # prefix of a row's checkbox name, before its key
_LARGEST = 512 * 1024 * 1024  # bytes of the largest file that a page sends; `extract` takes out larger ones
# No PDF: Chromium's viewer shows nothing in a sandbox, and without one it would parse a stranger's file.
_SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "text/plain")


def show_uploads(visit: Visit) -> Answer:
    """Show one folder of the uploads."""
    require_owner(visit)
    name, path = visit.place["name"], visit.query.get("path", "")
    start = _number(visit.query.get("start", "0"))
    found = browse.look_into(visit.settings, name, path, start, _NAMES)
    parts = path.split("/") if path else []
    above = [(part, "/".join(parts[: place + 1])) for place, part in enumerate(parts)]
    return Page("uploads.html", {"name": name, "folder": found, "above": above, "step": _NAMES})


def find_uploads(visit: Visit) -> Answer:
    """List the uploads whose name contains the text, and whether the live ones are the same, changed or missing."""
    require_owner(visit)
    name, words = visit.place["name"], visit.query.get("find", "").strip()
    if not words:
        raise Refused("Nothing was typed.", hint="Type a part of the file's name.")
    pattern = "*" + literal(words).removeprefix("/") + "*"
    _, found = list_files(visit.settings, name, [pattern])
    return Page("found.html", {"name": name, "find": words, "files": found[:_FOUND], "total": len(found)})


def show_file(visit: Visit) -> Answer:
    """Send one file after comparing it with its checksum: to show if a browser can, else to save."""
    require_owner(visit)
    path = visit.query.get("path", "")
    out = io.BytesIO()
    browse.write_out(visit.settings, visit.place["name"], [literal(path)], _Bounded(out))  # type: ignore[arg-type]
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    is_shown = visit.query.get("show") == "1" and kind in _SHOWN
    return Content(PurePosixPath(path).name, kind if is_shown else "application/octet-stream", out.getvalue(), is_shown)


class _Bounded:
    """An in-memory file that raises `Refused` beyond `_LARGEST` bytes."""

    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def write(self, data: bytes) -> int:
        if self._out.tell() + len(data) > _LARGEST:
            raise Refused("The file is too large to be sent by this page.", hint="`extract` takes it out.")
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()


def show_tables(visit: Visit) -> Answer:
    """List the tables of the database."""
    require_owner(visit)
    name, (settings, about) = visit.place["name"], _database(visit)
    return Page("tables.html", {"name": name, "tables": browse.tables(settings, name)} | about)


def _database(visit: Visit) -> tuple[Settings, dict[str, object]]:
    """Return the settings of the chosen database, and the template values for choosing another."""
    wanted = visit.query.get("database", MAIN_DATABASE)
    names = (MAIN_DATABASE, *visit.settings.databases)
    return of_database(visit.settings, wanted), {"database": wanted, "databases": names if len(names) > 1 else ()}


def show_rows(visit: Visit) -> Answer:
    """Show a page of rows, or the rows that meet the typed condition."""
    require_owner(visit)
    name, table, where = visit.place["name"], visit.query.get("table", ""), visit.query.get("where", "").strip()
    settings, about = _database(visit)
    values = about | {"name": name, "table": table, "where": where, "page": None, "selection": None, "box_of": box_of}
    if where:
        values["selection"] = browse.select_rows(settings, name, table, where, most=_FOUND)
    else:
        after, before = (key_of(visit.query.get(side, "")) for side in ("after", "before"))
        page = browse.read_page(settings, name, table, _ROWS, after, before)
        values |= {"page": page, "first": "", "last": ""}
        if page.rows:
            values |= {"first": key_text(page.rows[0].key), "last": key_text(page.rows[-1].key)}
    return Page("rows.html", values)


def compare_rows(visit: Visit) -> Answer:
    """Show how the live rows of a table differ from the backup's."""
    require_owner(visit)
    name, table = visit.place["name"], visit.query.get("table", "")
    settings, about = _database(visit)
    found = browse.compare_table(settings, name, table)
    return Page("compared.html", {"name": name, "table": table, "found": found, "box_of": box_of} | about)


def box_of(key: Key) -> str:
    """Return the name of the row's checkbox."""
    return f"{_TICKED}{key_text(key)}"


def ticked(form: Mapping[str, str]) -> tuple[Key, ...]:
    """Return the keys of the ticked rows."""
    found = (key_of(name.removeprefix(_TICKED)) for name in form if name.startswith(_TICKED))
    return tuple(key for key in found if key)


def key_text(key: Key) -> str:
    """Return a row's key as URL-safe base64 of JSON; bytes become hexadecimal."""
    values = [{"bytes": one.hex()} if isinstance(one, bytes) else one for one in key]
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def key_of(text: str) -> Key | None:
    """Return the key that `key_text` made, or None for an empty text. Raise `Refused` for anything else."""
    if not text:
        return None
    try:
        return tuple(map(_part, json.loads(base64.urlsafe_b64decode(text))))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused("This is not the key of a row.", hint="Open the table again.") from error


def _part(value: object) -> Value:
    """Return the value as SQLite takes it; raise `ValueError` or `TypeError` for any other."""
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])
    if isinstance(value, str):
        value.encode()  # raises for a lone surrogate, which SQLite cannot store
    is_number = isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63)
    if value is None or is_number or isinstance(value, str):
        return value  # type: ignore[return-value]
    raise ValueError(value)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


GET: Mapping[str, Handler] = {
    "uploads/{name}": show_uploads,
    "uploads/{name}/find": find_uploads,
    "uploads/{name}/file": show_file,
    "tables/{name}": show_tables,
    "rows/{name}": show_rows,
    "rows/{name}/compare": compare_rows,
}
