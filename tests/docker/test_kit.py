"""The toolkit's own image, as a second service, backs up an app whose image has nothing of the toolkit."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from engine import BASE, KIT, REPOSITORY, Engine, run, wait_until
from test_service import give, owners

PERSON = 1000
# An unrelated app, which writes rows and files without end.
APP = """
import pathlib, sqlite3, time
base = sqlite3.connect("/srv/data/app.db", timeout=30, isolation_level=None)
base.execute("PRAGMA journal_mode=WAL")
base.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)")
while True:
    made = base.execute("INSERT INTO notes (text) VALUES ('busy')").lastrowid
    if made % 50 == 0:
        pathlib.Path(f"/srv/media/{made}.txt").write_text("busy" * 100)
    time.sleep(0.005)
"""


class Beside:
    """A project whose compose file is the one of docs/adopt.md."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder, self.engine = folder, engine
        self.environment = engine.environment | {"COMPOSE_PROJECT_NAME": "kit"}
        self.database, self.media, self.backups = folder / "data" / "app.db", folder / "media", folder / "backups"
        for place in (self.database.parent, self.media, self.backups):
            place.mkdir()
            give(place, PERSON)
        shutil.copy(REPOSITORY / "backup.sh", folder)
        text = (REPOSITORY / "docs" / "adopt.md").read_text()
        found = re.search(r"```yaml\n(services:\n  app:\n    image: my-app .*?)```", text, re.DOTALL)
        settings = re.search(r"printf '(.*)' > backup\.toml", text)
        assert found and settings
        (folder / "docker-compose.yml").write_text(found[1])
        (folder / "backup.toml").write_text(settings[1].replace("\\n", "\n"))
        (folder / "app.py").write_text(APP)
        app = {"image": BASE, "command": ["python3", "/srv/app.py"], "user": f"{PERSON}:{PERSON}", "init": True}
        app |= {"volumes": ["./app.py:/srv/app.py:ro"], "network_mode": "none"}
        services = {"app": app, "backup": {"image": KIT, "network_mode": "none"}}
        (folder / "docker-compose.override.yml").write_text(json.dumps({"services": services}))

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(
            [*self.engine.client, "compose", "--project-directory", str(self.folder), *arguments], self.environment
        )

    def backup_sh(self, *arguments: str) -> str:
        return run([str(self.folder / "backup.sh"), *arguments], self.environment).stdout

    def rows(self) -> int:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            return int(connection.execute("SELECT count(*) FROM notes").fetchone()[0])

    def started(self) -> str:
        container = self.compose("ps", "--quiet", "app").stdout.strip()
        return self.engine.docker("inspect", "--format", "{{.State.StartedAt}}", container).stdout


@pytest.fixture
def beside(engine: Engine, tmp_path: Path) -> Iterator[Beside]:
    project = Beside(tmp_path, engine)
    yield project
    project.compose("down", "--volumes", "--timeout", "5")


def test_the_kit_backs_up_and_restores_an_app_that_knows_nothing_of_it(beside: Beside) -> None:
    beside.compose("up", "--detach")
    assert wait_until(lambda: beside.database.exists() and len(list(beside.media.iterdir())) > 2)
    with pytest.raises(AssertionError):
        beside.compose("exec", "-T", "app", "ls", "/app/backup_restore.py")
    beside.backup_sh("backup", "good")
    backup = json.loads(beside.backup_sh("show", "good", "--json"))
    assert backup["uploads"]["files"] > 0 and backup["alembic_revision"] is None
    then = backup["database"]["rows"]["notes"]
    assert wait_until(lambda: beside.rows() > then + 50)
    started = beside.started()
    beside.backup_sh("restore", "good", "--yes", "--stop")
    assert beside.started() > started
    assert wait_until(lambda: beside.rows() > then), "the app does not write any more"
    assert owners(beside.media) == owners(beside.database.parent) == owners(beside.backups) == {PERSON}
    beside.backup_sh("verify", "good", "--test-restore")
    assert wait_until(lambda: list(beside.backups.glob("scheduled_*"))), "its scheduler makes none by itself"


def test_the_kit_has_neither_the_app_nor_what_builds_it(engine: Engine, beside: Beside) -> None:
    def has(image: str, path: str) -> bool:
        done = engine.docker("run", "--rm", "--network=none", "--entrypoint=ls", image, path, check=False)
        return done.returncode == 0

    assert has(KIT, "/app/backupkit/py.typed")
    assert not [path for path in ("/app/app.py", "/app/models.py", "/app/alembic.ini") if has(KIT, path)]
    assert not [path for path in ("/usr/bin/gcc", "/opt/venv/bin/pip", "/var/cache/apt/pkgcache.bin") if has(KIT, path)]
