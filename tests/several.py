"""An app with three databases and two trees, backed up as of one moment.

data/pats.db and uploads/          as in any other small app
[databases.cache]                  data/cache.sqlite3, in WAL mode
[databases.queue]                  storage/queue.sqlite3, with a rollback journal; may be missing
[trees.media]                      media/, with a database in it that no setting names: media/inner.sqlite3
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from backupkit.config.settings import Settings, load_settings
from small_app import SmallApp, tree

TABLES = """
[databases.cache]
path = "data/cache.sqlite3"

[databases.queue]
path = "storage/queue.sqlite3"
optional = true

[trees.media]
path = "media"
"""


class SeveralApp(SmallApp):
    """The small app with these databases and trees."""

    @property
    def cache(self) -> Path:
        return self.folder / "data" / "cache.sqlite3"

    @property
    def queue(self) -> Path:
        return self.folder / "storage" / "queue.sqlite3"

    @property
    def inner(self) -> Path:
        return self.media / "inner.sqlite3"

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def settings(self) -> Settings:
        """The settings in `backup.toml`, with short waits for locks."""
        return load_settings(self.folder, busy_timeout=self.patience, lock_timeout=1)

    def put(self, path: Path, value: str) -> None:
        """Add a row to one of the other databases."""
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as live, live:
            live.execute("INSERT INTO entries (value) VALUES (?)", (value,))

    def values(self, path: Path) -> list[str] | None:
        """Return the rows of one of the other databases, or None if it is missing."""
        if not path.exists():
            return None
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as live:
            return [value for (value,) in live.execute("SELECT value FROM entries ORDER BY id")]

    def everything(self) -> tuple[object, ...]:
        """Return a snapshot of everything; two are equal only if nothing differs."""
        media = {path: one for path, one in tree(self.media).items() if "inner.sqlite3" not in path}
        return self.contents(), self.values(self.cache), self.values(self.queue), media, self.values(self.inner)


def extend(app: SmallApp) -> SeveralApp:
    """Return the same app, extended by the other databases and trees."""
    several = SeveralApp(app.folder, app.templates)
    (app.folder / "backup.toml").write_text(TABLES)
    for path, mode in ((several.cache, "WAL"), (several.queue, "DELETE"), (several.inner, "WAL")):
        path.parent.mkdir(exist_ok=True)
        with contextlib.closing(sqlite3.connect(path)) as live, live:
            live.execute(f"PRAGMA journal_mode={mode}")
            live.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, value TEXT)")
        several.put(path, "before")
    (several.media / "deep").mkdir(parents=True)
    (several.media / "deep" / "film.bin").write_bytes(bytes(range(256)) * 64)
    (several.media / "title.txt").write_text("a title")
    return several


def change_all(app: SeveralApp) -> None:
    """Change every database and every tree."""
    app.execute("DELETE FROM documents")
    app.put(app.cache, "after")
    app.put(app.queue, "after")
    app.put(app.inner, "after")
    app.write_upload("new/one.txt", b"came later")
    (app.media / "title.txt").write_text("another title")
    (app.media / "deep" / "film.bin").unlink()
    (app.media / "came.txt").write_text("came later")
