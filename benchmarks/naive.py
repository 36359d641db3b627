"""The Python of many a project: `copytree`, `Connection.backup`, `iterdump`, `executescript`. Run as a program."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path

DATABASE = Path("data", "pats.db")


def back_up(app: Path, target: Path) -> None:
    copy_database(app / DATABASE, target / DATABASE)
    shutil.copytree(app / "uploads", target / "uploads")


def restore(source: Path, app: Path) -> None:
    copy_database(source / DATABASE, app / DATABASE)
    shutil.copytree(source / "uploads", app / "uploads", dirs_exist_ok=True)


def copy_database(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


def dump(database: Path, file: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as live, open(file, "w", encoding="utf-8") as out:
        for statement in live.iterdump():
            out.write(f"{statement}\n")


def load(file: Path, database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as new:
        new.executescript(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    {"backup": back_up, "restore": restore, "dump": dump, "load": load}[sys.argv[1]](*map(Path, sys.argv[2:]))
