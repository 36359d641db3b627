"""Copies beside the live data, made from the pages: planned, refused as by the command, and checked on disk."""

from __future__ import annotations

import html
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backupkit.backup.create import create_backup
from backupkit.fs import mounts
from backupkit.model.backup import BackupRequest
from backupkit.repository import history
from backupkit.restore import lay_out
from several import change_all, extend
from small_app import BACKEND, SmallApp, clean_environment, tree
from web.test_web import (
    VIEWER,
    Browser,
    Served,
    driver,
    enter,
    found_by_axe,
    owner,
    press_in,
    says_in,
    served,
    serving,
    text_of,
    until,
)

__all__ = ["driver", "owner", "served"]


def rows_of(file: Path, table: str = "companies") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as found:
        return list(found.execute(f"SELECT * FROM {table} ORDER BY id"))


def everything_below(folder: Path) -> list[Path]:
    """Return every path in the folder but the files that SQLite keeps beside an open database."""
    return sorted(path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm")))


def plan_of(browser: Browser, **form: str) -> tuple[str, str]:
    """Return the text of the plan, and the address that confirms it."""
    page = browser.done("/restore/beside", **form)
    (go,) = re.findall(r'action="[^"]*(/restore/beside/\d+)"', page.text)
    return page.words, go


def test_a_copy_is_planned_and_made_and_nothing_live_changes(app: SmallApp, owner: Browser, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    uploads, rows = tree(app.uploads), app.rows("companies")
    app.add_rows(3)
    app.write_upload("1/letter.txt", b"later")
    live, target = app.contents(), tmp_path / "look"
    plan, go = plan_of(owner, name="kept", to=str(target))
    assert not target.exists() and f"{target}/data/pats.db" in plan
    assert re.search(r"\d+ rows in \d+ tables", plan) and re.search(r"\d+ files, ", plan) and "at most" in plan
    done = owner.done(go)
    assert "✓ Done" in done.words and "Undo" not in done.words
    (lines,) = re.findall(r"<pre>(.*?)</pre>", done.text, re.S)
    last = html.unescape(lines).strip().splitlines()[-1]
    assert last.startswith("To start the app on it") and f"BACKUP_DATABASE={target}/data/pats.db" in last
    assert tree(target / "uploads") == uploads and rows_of(target / "data" / "pats.db") == rows
    assert app.contents() == live and not list(tmp_path.glob(".draft*"))
    (made, *_) = history.read(app.backups).operations
    assert made.command == "restore" and "laid out in" in made.note and "owner" in str(made.who)
    again = owner.ask("GET", f"{owner.base}{go}")
    assert again.code == 303 and "/job/" in again.headers["Location"]  # a second click leads to the finished job
    assert "BACKUP_DATABASE=" in owner.ask("GET", again.headers["Location"]).words


def test_one_part_alone_is_laid_out(app: SmallApp, owner: Browser, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    plan, go = plan_of(owner, name="kept", to=str(tmp_path / "look"), only="uploads")
    assert "pats.db" not in plan
    assert "Look at it" in owner.done(go).words
    assert tree(tmp_path / "look" / "uploads") == tree(app.uploads) and not (tmp_path / "look" / "data").exists()


def test_where_no_copy_can_be_the_form_comes_back_as_it_was_filled_in(
    app: SmallApp, owner: Browser, tmp_path: Path
) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    create_backup(app.settings, BackupRequest("newer"))
    full, link, file = tmp_path / "full", tmp_path / "link", tmp_path / "file"
    (full / "in it").mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    file.write_text("x")
    live, before = app.contents(), everything_below(tmp_path)
    for place, why in (
        (str(full), "is not empty"),
        (str(link), "is a link"),
        (str(file), "is not a folder"),
        (str(app.uploads / "new"), "in live data"),
        (str(app.database.parent / "new"), "in live data"),
        (str(app.backups / "new"), "in the backups folder"),
        (str(app.backups / "kept" / "new"), "in a backup"),
        (str(app.folder.parent), "in live data"),
        (str(tmp_path / "no" / "new"), "There is no folder"),
        ("look", "No folder was named"),
        ("", "No folder was named"),
        ("/srv/\0x", "No folder was named"),
    ):
        answer = owner.post("/restore/beside", name="kept", only="database", to=place)
        assert answer.code == 400 and why in answer.words, (place, answer.words)
        assert re.search(r'value="kept" checked', answer.text) and re.search(r'value="database" checked', answer.text)
        assert "\0" in place or f'name="to" value="{html.escape(place)}"' in answer.text
    for form, why in (
        ({"migrate": "1"}, "not run on a copy"),
        ({"at": "yesteryear"}, "yesteryear"),
        ({"name": "gone"}, "gone"),
        ({"only": "nothing"}, "There is no nothing"),
    ):
        answer = owner.post("/restore/beside", **{"name": "kept", "to": str(tmp_path / "look"), **form})
        assert answer.code == 400 and why in answer.words and f'value="{tmp_path / "look"}"' in answer.text
    assert "checked" in re.findall(r'name="migrate"[^>]*', owner.post("/restore/beside", migrate="1").text)[0]
    assert everything_below(tmp_path) == before and app.contents() == live


def test_markup_in_the_folder_stays_text(app: SmallApp, owner: Browser) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    answer = owner.post("/restore/beside", name="kept", to='/no/"><script>alert(1)</script>')
    assert answer.code == 400 and "<script>alert" not in answer.text


def test_what_is_another_than_was_shown_is_not_laid_out(app: SmallApp, owner: Browser, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    target = tmp_path / "look"
    _, go = plan_of(owner, name="kept", to=str(target))
    app.add_rows(2)
    (app.backups / "kept").rename(tmp_path / "away")
    create_backup(app.settings, BackupRequest("kept"))
    assert "is not what the plan has shown" in owner.done(go).words and not target.exists()
    _, go = plan_of(owner, name="kept", to=str(target))
    target.mkdir()
    (target / "mine").write_text("mine")
    assert "is not empty" in owner.done(go).words
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_a_damaged_backup_leaves_no_folder(app: SmallApp, owner: Browser, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    _, go = plan_of(owner, name="kept", to=str(tmp_path / "look"))
    sealed = app.backups / "kept" / "pats.db"
    content = bytearray(sealed.read_bytes())
    content[-100] ^= 1
    sealed.write_bytes(content)
    assert "It failed" in owner.done(go).words
    assert not (tmp_path / "look").exists() and not list(tmp_path.glob(".draft*"))


def test_the_data_of_a_time_are_laid_out_beside_too(app: SmallApp, tmp_path: Path) -> None:
    from rewind.test_commands import Past

    Past(app)
    live = app.contents()
    with serving(app, BACKUP_REWIND="7d") as served:
        browser = served.browser()
        browser.come_in(token=served.token)
        plan, go = plan_of(browser, name="base", at="75 minutes ago", to=str(tmp_path / "look"))
        assert "The point of" in plan and "point_" in plan
        back = re.findall(r'href="[^"]*(/restore\?[^"]*)"', browser.get(go).text)[0]
        kept = browser.get(html.unescape(back)).text
        assert f'value="{tmp_path / "look"}"' in kept and re.search(r'name="at" value="20', kept)
        assert "✓ Done" in browser.done(go).words
    assert {path.name for path in (tmp_path / "look" / "uploads" / "at").iterdir()} == {"119", "90"}
    assert len(rows_of(tmp_path / "look" / "data" / "pats.db")) == len(app.rows("companies")) - 3
    assert app.contents() == live


def test_all_databases_and_trees_are_laid_out(app: SmallApp, tmp_path: Path) -> None:
    several = extend(app)
    create_backup(several.settings, BackupRequest("kept"))
    media = {path: one for path, one in tree(several.media).items() if "inner" not in path}
    change_all(several)
    live = several.everything()
    with serving(several) as served:
        browser = served.browser()
        browser.come_in(token=served.token)
        plan, go = plan_of(browser, name="kept", to=str(tmp_path / "look"))
        assert all(
            f"{tmp_path}/look/{path}" in plan for path in ("data/cache.sqlite3", "storage/queue.sqlite3", "media")
        )
        assert "✓ Done" in browser.done(go).words
    assert several.values(tmp_path / "look" / "storage" / "queue.sqlite3") == ["before"]
    assert {path: one for path, one in tree(tmp_path / "look" / "media").items() if "inner" not in path} == media
    assert several.everything() == live


def test_who_only_looks_lays_nothing_out(app: SmallApp, tmp_path: Path) -> None:
    create_backup(app.settings, BackupRequest("kept"))
    with serving(app, BACKUP_WEB_VIEWER_PASSWORD=VIEWER) as served:
        viewer, owner = served.browser(), served.browser()
        owner.come_in(token=served.token)
        viewer.come_in(password=VIEWER)
        _, go = plan_of(owner, name="kept", to=str(tmp_path / "look"))
        for answer in (
            viewer.post("/restore/beside", name="kept", to=str(tmp_path / "look")),
            viewer.post(go),
            viewer.get(go),
        ):
            assert answer.code == 400 and "only looks" in answer.words
    assert not (tmp_path / "look").exists()


def test_in_a_container_the_page_says_which_folders_outlast_it(
    app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "look").mkdir()
    (tmp_path / "passing").mkdir()
    places = {"look": "ext4", "passing": "tmpfs", "app/uploads": "ext4", "app/backups": "ext4", "file": "ext4"}
    (tmp_path / "file").write_text("x")
    found = [mounts.Mount(n, 1, str(tmp_path / one), kind) for n, (one, kind) in enumerate(places.items(), 2)]
    monkeypatch.setattr(mounts, "read", lambda: [mounts.Mount(1, 0, "/", "overlay"), *found])
    monkeypatch.setattr(lay_out, "_CONTAINERS", ())
    assert lay_out.kept_folders(app.settings, {}) is None
    inside = {"BACKUP_RUNNER_IN_USE": "exec"}
    assert lay_out.kept_folders(app.settings, inside) == [tmp_path / "look"]
    create_backup(app.settings, BackupRequest("kept"))
    with serving(app, **inside, BACKUP_HOST_COMMAND="./backup.sh") as served:
        browser = served.browser()
        browser.come_in(token=served.token)
        assert "These pages run in a container" in browser.get("/restore").words


MOUNTED = """
import sys
from pathlib import Path
from backupkit.config.settings import load_settings
from backupkit.restore.lay_out import kept_folders
print(*kept_folders(load_settings(Path(sys.argv[1])), {"BACKUP_RUNNER_IN_USE": "exec"}), sep="\\n")
"""


@pytest.mark.needs("unshare", "mount")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may mount")
def test_a_folder_that_is_mounted_is_among_them_and_the_apps_own_are_not(app: SmallApp, tmp_path: Path) -> None:
    (tmp_path / "look").mkdir()
    own = (app.uploads, app.backups, app.database.parent, tmp_path / "look")
    script = "".join(f"mount --bind '{one}' '{one}' && " for one in own) + 'exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", MOUNTED, str(app.folder)]
    environment = {**clean_environment(), "PYTHONPATH": str(BACKEND)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert [one for one in done.stdout.splitlines() if one.startswith(str(tmp_path))] == [str(tmp_path / "look")]


@pytest.mark.needs("chromium", "chromedriver")
@pytest.mark.slow
def test_a_copy_is_made_on_a_screen_and_on_a_phone(app: SmallApp, served: Served, driver: Any, tmp_path: Path) -> None:
    from browser import console, look

    press, says = partial(press_in, driver), partial(says_in, driver)
    create_backup(app.settings, BackupRequest("kept"))
    uploads, rows = tree(app.uploads), app.rows("companies")
    app.add_rows(2)
    live = app.contents()
    base = enter(driver, served)
    for width, scheme in ((1280, "light"), (390, "dark")):
        look(driver, width, 844, scheme)
        driver.get(f"{base}/backup/kept")
        press("Restore")
        until(lambda: says("New folder"))
        driver.find_element("name", "to").send_keys(str(app.uploads / "look"))
        press("Show the plan of the copy")
        until(lambda: says("in live data"))  # refused, and the form keeps its values
        entry = driver.find_element("name", "to")
        assert entry.get_property("value") == str(app.uploads / "look")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert found_by_axe(driver) == [], width
        target = tmp_path / f"look{width}"
        entry.clear()
        entry.send_keys(str(target))
        press("Show the plan of the copy")
        until(lambda: says("Nothing live is touched"))
        assert says(str(target)) and not target.exists()
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert found_by_axe(driver) == [], width
        press("Lay it out")
        until(lambda: says("✓ Done"))
        assert says("To start the app on it"), text_of(driver)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert tree(target / "uploads") == uploads and rows_of(target / "data" / "pats.db") == rows
    assert app.contents() == live
    unexpected = [one for one in console(driver) if "400" not in str(one)]
    assert unexpected == []
