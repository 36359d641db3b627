"""The app that is backed up, and what happens to it. The same seed gives the same rows and files.

Like life: tables with text and indexes; files whose sizes are log-normal, many small and a few large, in nested
folders; one half of them text, the other incompressible as photographs are.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.measure import prepare, step

BACKEND = Path(__file__).resolve().parent.parent / "backend"
MEGABYTE = 1_000_000

_SPREAD = 1.5  # sigma of the sizes' logarithm: half of the bytes are in a fifteenth of the files
_BATCH = 2000  # applications
_STATUSES = ("draft", "applied", "interview", "offer", "rejected", "withdrawn")
_MOMENT = "2026-01-31 12:00:00"
_YEAR = 31_536_000
_YEARS_AGO = 1_500_000_000  # seconds since 1970; older than any run

Rows = list[tuple[object, ...]]


@dataclass(frozen=True)
class Sizes:
    """How much data: the database and the uploads in megabytes, and in how many files the uploads are."""

    database_mb: float
    files: int
    uploads_mb: float

    @property
    def bytes(self) -> int:
        """On disk, where a small file takes a block."""
        return int((self.database_mb + self.uploads_mb) * MEGABYTE) + self.files * 4096


@dataclass(frozen=True)
class App:
    """An app folder: alembic.ini, alembic/, models.py, data/pats.db in WAL mode, uploads/."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "data" / "pats.db"

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"


def build(folder: Path, sizes: Sizes, seed: int) -> App:
    """A new app of these sizes; the database is closed, its WAL empty."""
    app = App(folder)
    for wanted in (app.database.parent, app.uploads):
        wanted.mkdir(parents=True)
    for name in ("alembic.ini", "models.py"):
        shutil.copy2(BACKEND / name, folder)
    shutil.copytree(BACKEND / "alembic", folder / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    chance = random.Random(seed)
    _migrate(app)
    _fill_uploads(app, sizes, chance)
    _fill_database(app, sizes, chance)
    return app


# What happens to it.


def change_one_percent(app: App, seed: int) -> None:
    """One per cent of the rows and of the files: half of those files rewritten, half removed and new ones added."""
    chance = random.Random(seed)
    _rewrite_rows(app, 100, chance)
    chosen = _every(app, 100, chance)
    for number, path in enumerate(chosen):
        size = path.stat().st_size
        if number % 2:
            path.unlink()
            path = path.with_name(f"new-{seed}-{number}{path.suffix}")
        path.write_bytes(_content(path.suffix, size + number % 7, chance))


def damage(app: App, seed: int) -> None:
    """A bad afternoon: one row in a thousand, and as many uploads as `damage_uploads` takes."""
    _rewrite_rows(app, 1000, random.Random(seed))
    damage_uploads(app, seed)


def damage_uploads(app: App, seed: int) -> None:
    """One file in a thousand, a few at least; half of them are lost."""
    chance = random.Random(seed)
    for number, path in enumerate(_every(app, 1000, chance, at_least=4)):
        path.unlink() if number % 2 else path.write_bytes(b"scribbled over")


def lose(app: App) -> None:
    """No database, and an empty uploads folder: what is left after a volume was lost."""
    lose_database(app)
    for path in app.uploads.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def lose_database(app: App) -> None:
    for path in app.database.parent.glob(f"{app.database.name}*"):
        path.unlink()


# The uploads.


def _fill_uploads(app: App, sizes: Sizes, chance: random.Random) -> None:
    weights = array("d", (chance.lognormvariate(0, _SPREAD) for _ in range(sizes.files)))
    share = sizes.uploads_mb * MEGABYTE / (sum(weights) or 1)
    for number, weight in enumerate(weights):
        path = app.uploads / upload_path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(path.suffix, int(weight * share), chance))
        moment = _YEARS_AGO + chance.randrange(7 * _YEAR)
        os.utime(path, ns=(moment * 10**9, moment * 10**9 + number))


def upload_path(number: int) -> str:
    """Below uploads: year/month/case/document, about fifty files to a folder."""
    year, month, case = 2017 + number % 7, number // 7 % 12 + 1, number // 4200
    return f"{year}/{month:02}/case-{case:04}/document-{number:07}.{'jpg' if number % 2 else 'txt'}"


def _content(suffix: str, size: int, chance: random.Random) -> bytes:
    return chance.randbytes(size) if suffix == ".jpg" else _text(size, chance).encode()


def _every(app: App, nth: int, chance: random.Random, at_least: int = 1) -> list[Path]:
    """One file in so many, chosen by chance; the same ones for the same tree."""
    paths = sorted(path for path in app.uploads.rglob("*") if path.is_file())
    return sorted(chance.sample(paths, min(len(paths), max(at_least, len(paths) // nth))))


# The database.


def _migrate(app: App) -> None:
    """The reference app's schema, made by its own migrations."""
    url = f"url=sqlite:///{app.database}"
    alembic = (sys.executable, "-m", "alembic", "-x", url, "upgrade", "head")
    prepare([step(*alembic, folder=app.folder, PYTHONPATH=str(BACKEND))], app.folder.parent)


def _fill_database(app: App, sizes: Sizes, chance: random.Random) -> None:
    with contextlib.closing(sqlite3.connect(app.database)) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("PRAGMA synchronous=OFF")
        _add_documents(live, app, sizes.files)
        first = 1
        while _size(live) < sizes.database_mb * MEGABYTE or first <= 1:
            _add_applications(live, first, chance)
            first += _BATCH


def _size(live: sqlite3.Connection) -> int:
    pages, page_size = (live.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages * page_size)


def _add_documents(live: sqlite3.Connection, app: App, files: int) -> None:
    paths = (upload_path(number) for number in range(files))
    rows = ((1 + number % _BATCH, path.rpartition("/")[2], path, 0, _MOMENT) for number, path in enumerate(paths))
    with live:
        live.executemany(
            "INSERT INTO documents (application_id, name, path, size_bytes, created_at) VALUES (?, ?, ?, ?, ?)", rows
        )


def _add_applications(live: sqlite3.Connection, first: int, chance: random.Random) -> None:
    """A batch of applications, a company and a contact to every tenth, an interview to every third."""
    numbers = range(first, first + _BATCH)
    with live:
        live.executemany("INSERT INTO companies (id, name, website) VALUES (?, ?, ?)", _companies(numbers))
        live.executemany("INSERT INTO contacts (company_id, name, email) VALUES (?, ?, ?)", _contacts(numbers))
        live.executemany(
            "INSERT INTO applications (id, company_id, position, status, applied_on, salary_min, salary_max, notes,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _applications(numbers, chance),
        )
        live.executemany(
            "INSERT INTO interviews (application_id, starts_at, notes) VALUES (?, ?, ?)", _interviews(numbers, chance)
        )
        live.executemany("INSERT INTO reminders (application_id, due_on, what) VALUES (?, ?, ?)", _reminders(numbers))


def _companies(numbers: range) -> Rows:
    return [(number, f"Company {number}", f"https://company-{number}.example") for number in numbers[::10]]


def _contacts(numbers: range) -> Rows:
    return [(number, f"Person {number}", f"person-{number}@company.example") for number in numbers[::10]]


def _applications(numbers: range, chance: random.Random) -> Rows:
    return [
        (
            number,
            number - (number - 1) % 10,
            f"Engineer {number % 97}",
            chance.choice(_STATUSES),
            _day(number),
            40_000 + number % 50 * 1000,
            95_000,
            _text(int(chance.lognormvariate(6.3, 0.8)), chance),
            _MOMENT,
        )
        for number in numbers
    ]


def _interviews(numbers: range, chance: random.Random) -> Rows:
    return [(number, f"{_day(number)} 10:00:00", _text(chance.randrange(1200), chance)) for number in numbers[::3]]


def _reminders(numbers: range) -> Rows:
    return [(number, _day(number), f"Call number {number}") for number in numbers[::5]]


def _day(number: int) -> str:
    return f"{2017 + number % 7}-{number % 12 + 1:02}-{number % 28 + 1:02}"


def _rewrite_rows(app: App, nth: int, chance: random.Random) -> None:
    """One application in so many, all over the table, gets other notes of the same length."""
    with contextlib.closing(sqlite3.connect(app.database)) as live, live:
        rest = chance.randrange(nth)
        chosen = live.execute("SELECT id, length(notes) FROM applications WHERE id % ? = ?", (nth, rest)).fetchall()
        values = [(_text(length, chance), number) for number, length in chosen]
        live.executemany("UPDATE applications SET notes = ? WHERE id = ?", values)


# Text.


def _text(size: int, chance: random.Random) -> str:
    """Sentences of that many letters; it compresses about as well as letters and notes do."""
    return " ".join(chance.choices(_SENTENCES, k=size // 50 + 1))[:size]


def _sentences(count: int) -> Iterator[str]:
    chance = random.Random("sentences")
    letters = "eeeeettttaaaooiinnsshhrrddlucmfwygpbvk"
    words = ["".join(chance.choices(letters, k=chance.randrange(2, 11))) for _ in range(4000)]
    while count := count - 1:
        yield " ".join(chance.choices(words, k=chance.randrange(8, 16))).capitalize() + "."


_SENTENCES = list(islice(_sentences(5000), 5000))
