"""The documents stay true: their commands, settings, exit codes and messages are those of the program.

Commands that they tell a person to type are typed here, on a small real app.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import backup_restore
from backupkit.config.settings import TOLD_TO_HOOKS, Settings, secret_names
from backupkit.config.table import fields
from backupkit.model.errors import ExitCode
from backupkit.model.version import VERSION
from documents import (
    CHANGELOG,
    DOCS,
    DOCUMENTS,
    GUIDE,
    README,
    REFERENCE,
    ROOT,
    anchors,
    blocks,
    in_backticks,
    outside_blocks,
    rows,
    section,
    text,
)
from several import change_all, extend
from small_app import BACKEND, HEAD, SmallApp, clean_environment
from small_app import DOCUMENTS as DOCUMENTS_REVISION
from terminal import after_a_tab

WRAPPER, ENTRYPOINT = ROOT / "backup.sh", BACKEND / "entrypoint.sh"
HERE = {"BACKUP_RUNNER_IN_USE": "local"}  # the tests may run in a container
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


# The generated reference


def test_the_reference_says_what_the_program_says() -> None:
    subprocess.run([sys.executable, DOCS / "make_reference.py", "--check"], check=True)


def test_a_reference_that_is_out_of_date_is_noticed(tmp_path: Path) -> None:
    for name in ("docs", "backend"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.png", "__pycache__"))
    page = tmp_path / "docs" / "reference" / "settings.md"
    page.write_text(text(page).replace("| `02:00` |", "| `03:00` |"))
    command = [sys.executable, tmp_path / "docs" / "make_reference.py"]
    stale = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert (stale.returncode, "settings.md" in stale.stderr) == (1, True)
    subprocess.run(command, check=True)
    assert text(page) == text(REFERENCE / "settings.md")


# Commands and options to type


@dataclass(frozen=True)
class Command:
    name: str
    options: frozenset[str]


def commands_of(group: Any, before: str = "") -> Iterator[tuple[str, Command]]:
    for word, command in group.commands.items():
        shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
        yield before + word, Command(before + word, frozenset(option for one in shown for option in one.opts))
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{word} ")


COMMANDS = dict(commands_of(get_command(backup_restore.app)))
ALWAYS = {"--help", "-h"}
OURS = re.compile(
    r"(?:^|(?<=[ /]))(?:[A-Z_]+=\S+ )*(?:\S*backup\.sh|backup-restore|python backup_restore\.py) +([^#|>`]+)"
)


def typed_lines(path: Path) -> list[str]:
    """Return the lines that the document tells a person to type: lines of its blocks, and our commands in backticks."""
    code = re.findall(r"^ *```(?:sh|console|crontab)\n(.*?)^ *```", text(path), re.M | re.S)
    lines = [line for block in code for line in block.splitlines()]
    lines = [line for line in lines if not line.startswith("$ cp ")]
    return [*lines, *(code for code in in_backticks(outside_blocks(path)) if OURS.match(code))]


@each_document
def test_every_command_that_is_to_be_typed_exists(path: Path) -> None:
    for line in typed_lines(path):
        for words in (found[1].split() for found in OURS.finditer(line)):
            if words[0].startswith("-"):
                assert words[0] in {"--show-completion", "--install-completion", "--version", *ALWAYS}, line
            elif words[0] != "COMMAND":
                assert words[0] in COMMANDS, line
                options = {word for word in words[1:] if word.startswith("-") and word != "-"}
                command = COMMANDS.get(" ".join(words[:2]), COMMANDS[words[0]])
                assert options <= command.options | ALWAYS, line


def test_the_documents_have_commands_to_type() -> None:
    assert sum("backup.sh" in line for path in DOCUMENTS for line in typed_lines(path)) > 60


def test_the_changelog_has_every_command() -> None:
    assert {name.split()[0] for name in COMMANDS} <= in_backticks(text(CHANGELOG))


# Settings, codes, messages, JSON


@each_document
def test_every_variable_that_is_named_is_a_setting_or_the_wrappers(path: Path) -> None:
    known = {f"BACKUP_{name.upper()}" for name in fields(Settings)}
    known |= {f"BACKUP_{name.upper()}_FILE" for name in secret_names()}
    known |= {"BACKUP_REMOTE_CLOUD_PASSWORD", "BACKUP_REMOTE_CLOUD_PASSWORD_FILE", "BACKUP_REMOTE_"}
    known |= TOLD_TO_HOOKS | set(re.findall(r"\bBACKUP_[A-Z_]+", text(WRAPPER)))
    known |= set(re.findall(r"\bBACKUP_[A-Z_]+", text(BACKEND / "backupkit" / "verify" / "test_restore.py")))
    assert set(re.findall(r"\bBACKUP_(?!TESTS_|GUIDE\b)[A-Z][A-Z_]+\b", text(path))) <= known


@each_document
def test_every_setting_in_a_toml_example_is_one(path: Path) -> None:
    examples = "\n".join(re.findall(r"^ *```toml\n(.*?)^ *```", text(path), re.M | re.S))
    before_tables = re.split(r"^\[", examples, maxsplit=1, flags=re.M)[0]
    for line in re.findall(r"^([a-z_]+) *=", before_tables, re.M):
        assert line in fields(Settings) or line.removesuffix("_file") in secret_names(), line


def test_every_exit_code_is_in_the_table_and_nothing_else() -> None:
    assert [row[0] for row in rows(text(REFERENCE / "exit-codes.md"))] == [str(int(code)) for code in ExitCode]


MESSAGES = [row for row in rows(text(REFERENCE / "messages.md").split("## ")[0]) if row[0].startswith("`")]


def test_messages_are_sorted_by_their_text() -> None:
    first_letters = [re.sub(r"^[^A-Za-z]+", "", row[0]).lower() for row in MESSAGES]
    assert len(MESSAGES) > 200
    assert first_letters == sorted(first_letters)


@cache
def said_by_the_program() -> str:
    """Return every string in the code, and the shell scripts."""
    modules = [*(BACKEND / "backupkit").rglob("*.py"), BACKEND / "backup_restore.py", *ROOT.glob("examples/demo/*.py")]
    strings = [
        node.value
        for path in modules
        for node in ast.walk(ast.parse(text(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join([*strings, text(WRAPPER), text(ENTRYPOINT)])


@pytest.mark.parametrize("row", MESSAGES, ids=lambda row: row[0])
def test_a_message_in_the_reference_is_one_that_the_program_says(row: list[str]) -> None:
    pieces = [piece.strip() for piece in row[0].strip("`").split("…")]
    assert [piece for piece in pieces if len(piece) > 3 and piece not in said_by_the_program()] == []
    assert set(re.findall(r"\d+", row[1])) <= {str(int(code)) for code in ExitCode}


def keys_in(document: Any) -> set[str]:
    if isinstance(document, list):
        return {key for one in document for key in keys_in(one)}
    # The keys below these are names of tables, folders and days.
    inner = (
        "needs",
        "rows",
        "rows_after",
        "rehearsed",
        "by_kind",
        "by_state",
        "live",
        "source",
        "verdict",
        "who",
        "days",
        "sizes",
    )
    own = [(key, value) for key, value in document.items()] if isinstance(document, dict) else []
    below = [keys_in(value) for key, value in own if key not in inner]
    return {key for key, _ in own}.union(*below)


@pytest.mark.parametrize(
    "command",
    ["show good", "list", "verify good", "status", "history", "doctor", "restore good --dry-run", "prune --dry-run"],
)
def test_every_key_of_a_json_document_is_in_the_reference(app: SmallApp, command: str) -> None:
    app.command("backup", "good", env=HERE, check=0)
    printed = json.loads(app.command(*command.split(), "--json", env=HERE).out)
    assert keys_in(printed) <= in_backticks(text(REFERENCE / "json.md"))


def own_keys(schema: dict[str, Any], every: dict[str, Any]) -> set[str]:
    """Return the keys of the document, or of each one in the array, and of the remotes in it."""
    while "$ref" in schema or "items" in schema:
        schema = every[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema["items"]
    inner = schema.get("properties", {}).get("remotes", {})
    return {*schema.get("properties", {})} - {"schema_version"} | (own_keys(inner, every) if inner else set())


def test_each_row_of_the_reference_names_every_key_of_its_schema() -> None:
    every = json.loads(text(REFERENCE / "schemas" / "documents.json"))["$defs"]
    wanted = [row for row in rows(text(REFERENCE / "json.md")) if len(row) == 3 and row[2].strip("`") in every]
    alone = [row for row in wanted if not re.search(r"\(#|[Tt]he same|of these|Everything", row[1])]
    assert len(alone) > 25
    missing = {row[2]: own_keys(every[row[2].strip("`")], every) - {*re.findall(r"\w+", row[1])} for row in alone}
    assert {name: keys for name, keys in missing.items() if keys} == {}


# The documents themselves


@each_document
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(path)):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_every_document_is_found_from_the_guide_or_the_readme() -> None:
    linked = {
        (path.parent / target.partition("#")[0]).resolve()
        for path in (GUIDE, README)
        for target in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(path))
    }
    assert [path for path in DOCUMENTS if path not in (GUIDE, README) and path not in linked] == []


def test_the_guide_and_the_readme_are_short() -> None:
    assert len(text(GUIDE).splitlines()) <= 350
    assert len(text(README).splitlines()) <= 110


def test_every_picture_is_small_and_shown_somewhere_and_every_one_shown_is_there() -> None:
    there = {path.name for path in (DOCS / "screenshots").glob("*.png")}
    shown = {name for path in DOCUMENTS for name in re.findall(r"screenshots/([\w.-]+\.png)", text(path))}
    assert there == shown
    assert all((DOCS / "screenshots" / name).stat().st_size < 150_000 for name in there)


@each_document
def test_the_documents_name_no_place_of_a_machine_and_no_registry(path: Path) -> None:
    hosts = {"github.com", "keepachangelog.com", "semver.org", "hc-ping.com"}
    assert set(re.findall(r"https?://([^/\s)]+)", text(path))) <= hosts
    below_root = re.findall(r"(?<![\w.$}\])>…*/\"'`-])/([a-z]\w*)/", text(path))
    assert set(below_root) <= {"app", "srv", "mnt", "var", "proc", "root"}


def test_the_newest_version_in_the_changelog_is_the_package_s() -> None:
    newest = re.search(r"^## \[(\d[\d.]*)\] - \d{4}-\d\d-\d\d$", text(CHANGELOG), re.M)
    declared = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    assert newest and newest[1] == declared["version"] == VERSION


def test_the_ranges_in_the_readme_are_those_of_the_package() -> None:
    declared = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    (block,) = blocks(text(README), "text")
    optional = [one for extra in declared["optional-dependencies"].values() for one in extra]
    told = {line.partition("#")[0].strip() for line in block.splitlines()} - {""}
    assert set(declared["dependencies"]) <= told <= {*declared["dependencies"], *optional}


# Instructions that are carried out


def shell(script: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env={**clean_environment(), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def lose_rows_and_uploads(app: SmallApp) -> None:
    app.execute("DELETE FROM documents")
    app.execute("DROP TABLE reminders")
    shutil.rmtree(app.uploads / "1")
    (app.uploads / "2" / "letter.txt").write_text("scribbled over")


def crash_with_a_hot_wal(app: SmallApp) -> None:
    lose_rows_and_uploads(app)
    app.use_and_crash(300)


def lose_the_database(app: SmallApp) -> None:
    app.use_and_crash(300)
    app.database.unlink()


def break_the_database(app: SmallApp) -> None:
    app.use_and_crash(300)
    app.database.write_bytes(b"no database at all" * 1000)


def lose_the_uploads(app: SmallApp) -> None:
    shutil.rmtree(app.uploads)


@pytest.mark.parametrize(
    "disaster", [lose_rows_and_uploads, crash_with_a_hot_wal, lose_the_database], ids=lambda one: one.__name__
)
def test_a_backups_own_page_puts_it_back_by_hand(app: SmallApp, disaster: Any, tmp_path: Path) -> None:
    app.command("backup", "good", env=HERE, check=0)
    before, page = app.contents(), text(app.backups / "good" / "RESTORE.md")
    disaster(app)
    assert not app.database.exists() or app.contents() != before
    script = "\n".join([*re.findall(r"^    (cd .*|sha256sum .*)$", page.split("## 4.")[0], re.M), *blocks(page)])
    said = shell(script, tmp_path, TMPDIR=str(tmp_path))
    assert "pats.db: OK" in said and "What was there before is in" in said
    assert app.contents() == before


def test_the_own_page_of_a_backup_with_several_databases_puts_all_of_it_back_by_hand(
    app: SmallApp, tmp_path: Path
) -> None:
    several = extend(app)
    several.command("backup", "good", env=HERE, check=0)
    before, page = several.everything(), text(app.backups / "good" / "RESTORE.md")
    change_all(several)
    app.use_and_crash(3)
    shell("\n".join(blocks(page)), app.backups / "good", TMPDIR=str(tmp_path))
    shutil.rmtree(several.uploads / "new")  # what came later stays, as the page says
    (several.media / "came.txt").unlink()
    assert several.everything() == before


def test_a_backups_own_page_keeps_what_was_there(app: SmallApp, tmp_path: Path) -> None:
    app.command("backup", "good", env=HERE, check=0)
    crash_with_a_hot_wal(app)
    ruined = app.rows("companies")
    shell("\n".join(blocks(text(app.backups / "good" / "RESTORE.md"))), app.backups / "good", TMPDIR=str(tmp_path))
    (kept,) = app.database.parent.glob("before_restore.*")
    app.database = kept / app.database.name
    assert app.rows("companies") == ruined
    (kept,) = app.backups.glob("before_restore.*")
    assert (kept / "uploads" / "2" / "letter.txt").read_text() == "scribbled over"


def test_a_backups_own_page_brings_its_schema_to_this_code(app: SmallApp, tmp_path: Path) -> None:
    app.at_revision(DOCUMENTS_REVISION)
    app.command("backup", "older", env=HERE, check=0)
    app.at_revision(HEAD)
    page = text(app.backups / "older" / "RESTORE.md")
    steps = re.findall(r"^    (cd .* (?:stamp|upgrade) .*)$", page, re.M)
    assert len(steps) == 2
    shell("\n".join(blocks(page)), app.backups / "older", TMPDIR=str(tmp_path))
    assert app.revisions() == {DOCUMENTS_REVISION}
    for step in steps:
        shell(f"({step})", tmp_path, PYTHONPATH=str(BACKEND))
    assert app.revisions() == {HEAD}
    assert len(app.rows("applications")) == 3


@pytest.fixture
def project(app: SmallApp) -> Path:
    """The small app in a folder like the repository: backup.sh, backend/, backups/ and a ready environment."""
    project = app.folder.parent / "project"
    project.mkdir()
    shutil.copy2(WRAPPER, project)
    for name in ("backup_restore.py", "backupkit", "requirements.txt"):
        (app.folder / name).symlink_to(BACKEND / name)
    app.folder.rename(project / "backend")
    app.folder = project / "backend"
    app.database, app.uploads, app.backups = (app.folder / name for name in ("data/pats.db", "uploads", "backups"))
    (project / "backups").symlink_to(app.backups)
    requirements = project / "backend" / "requirements.txt"
    number = subprocess.run(["cksum"], stdin=requirements.open("rb"), capture_output=True, text=True, check=True).stdout
    (project / ".backup-venv").mkdir()
    (project / ".backup-venv" / number.strip().replace(" ", "-")).symlink_to(sys.prefix)
    return project


@pytest.mark.parametrize(
    "disaster",
    [lose_rows_and_uploads, crash_with_a_hot_wal, lose_the_database, break_the_database, lose_the_uploads],
    ids=lambda one: one.__name__,
)
def test_the_guide_puts_a_backup_back_by_hand(app: SmallApp, project: Path, disaster: Any) -> None:
    app.command("backup", "pre_migration", env=HERE, check=0)
    before = app.contents()
    disaster(app)
    steps = blocks(section("4. By hand, without this tool"))
    assert len(steps) == 4
    shell("\n".join(steps), project)
    assert app.contents() == before
    (kept,) = app.backups.glob("by_hand_*")
    assert disaster is lose_the_uploads or (kept / "uploads").is_dir()


def test_the_by_hand_section_keeps_the_database_with_its_wal(app: SmallApp, project: Path) -> None:
    app.command("backup", "pre_migration", env=HERE, check=0)
    crash_with_a_hot_wal(app)
    ruined = app.rows("companies")
    shell("\n".join(blocks(section("4. By hand, without this tool"))), project)
    (kept,) = app.backups.glob("by_hand_*")
    app.database = kept / app.database.name
    assert app.rows("companies") == ruined
    app.command("list", env=HERE, check=0)


def test_a_backup_can_be_read_with_what_the_guide_shows(app: SmallApp) -> None:
    app.command("backup", "good", env=HERE, check=0)
    (program,) = blocks(section("4. By hand, without this tool"), "python")
    folder = app.backups / "good"
    before = sorted(folder.iterdir())
    done = subprocess.run([sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert "'backup_name': 'good'" in done.stdout
    assert sorted(folder.iterdir()) == before


def test_a_restore_into_a_scratch_folder_touches_nothing_live(app: SmallApp, project: Path) -> None:
    app.command("backup", "pre_migration", env=HERE, check=0)
    saved = app.contents()
    lose_rows_and_uploads(app)
    before, backups = app.contents(), sorted(app.backups.rglob("*"))
    (steps,) = (block for block in blocks(section("3. Is my backup good?")) if "SCRATCH" in block)
    scratch = Path(shell(steps + 'echo "$SCRATCH"', project, TMPDIR=str(app.folder.parent)).splitlines()[-1])
    assert app.contents() == before
    assert [path for path in sorted(app.backups.rglob("*")) if path.name != ".lock"] == [
        path for path in backups if path.name != ".lock"
    ]
    app.database, app.uploads = scratch / "data" / "pats.db", scratch / "uploads"
    assert app.contents() == saved


@pytest.mark.needs("rsync")
def test_a_copy_elsewhere_comes_back_and_restores(app: SmallApp, project: Path, tmp_path: Path) -> None:
    for entry in [path for path in app.uploads.iterdir() if path.is_dir() or path.is_symlink()]:
        # rsync does not set the time of a folder or a link that is right to the second
        os.utime(entry, ns=(0, 10**18), follow_symlinks=False)
    app.command("backup", "pre_migration", env=HERE, check=0)
    before = app.contents()
    lines = [
        line
        for block in blocks(section("With other tools", DOCS / "copies-elsewhere.md"), "console")
        for line in block.splitlines()
    ]
    steps = [line.removeprefix("$ ") for line in lines if line.startswith(("$ rsync", "$ mv"))]
    assert len(steps) == 3
    elsewhere = tmp_path / "elsewhere"
    there, back, rename = (step.replace("other-machine:/srv/pats-backups", str(elsewhere)) for step in steps)
    shell(there, project)
    assert [path.name for path in elsewhere.iterdir()] == ["pre_migration"]
    shutil.rmtree(app.backups / "pre_migration")
    lose_rows_and_uploads(app)
    shell(f"{back}\n{rename}", project)
    app.command("restore", "pre_migration", "--force", env=HERE, check=0)
    assert app.contents() == before


def test_cron_s_line_is_one_that_runs_without_an_environment(app: SmallApp, project: Path) -> None:
    (line,) = blocks(section("By cron", DOCS / "schedule-and-retention.md"), "crontab")
    command = line.split(maxsplit=5)[5].replace("/srv/pats", str(project))
    for _ in range(2):
        subprocess.run(
            ["env", "-i", "PATH=/usr/bin:/bin", "BACKUP_RUNNER=local", "sh", "-c", command], cwd="/", check=True
        )
    assert len([path for path in app.backups.iterdir() if path.name.startswith("scheduled_")]) == 1


def test_the_unit_of_the_scheduler_starts_reads_its_settings_again_and_ends(app: SmallApp, project: Path) -> None:
    unit = text(ROOT / "deploy" / "scheduler.service").replace("/srv/pats", str(project))
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    variables = re.findall(r"^Environment=(.*)$", unit, re.MULTILINE)
    started = subprocess.Popen(
        ["env", "-i", "PATH=/usr/bin:/bin", *variables, *shlex.split(command)],
        cwd="/",
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr
    with started:
        assert any("Next backup: " in line for line in started.stderr)
        (app.folder / "backup.toml").write_text('schedule = ["0 5 * * *"]')
        started.send_signal(signal.SIGHUP)
        assert any("(0 5 * * *)" in line for line in started.stderr)
        started.terminate()
        assert "container" not in started.stderr.read()
    assert started.returncode == 0


def test_what_the_documents_make_of_secrets_and_code_stays_out_of_git(tmp_path: Path) -> None:
    (ignored,) = blocks(text(README), "gitignore")
    pages = (DOCS / "copies-elsewhere.md", DOCS / "monitoring.md")
    lines = re.findall(r"echo \S+ >> \.gitignore", "".join(map(text, pages)))
    assert len(lines) == 2
    (tmp_path / ".gitignore").write_text(ignored)
    shell("git init -q\n" + "\n".join(lines), tmp_path)
    for name in ("ssh/id_ed25519", "notify_urls.txt", "backend/__pycache__/app.pyc", "backend/data/app.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert shell("git status --porcelain --untracked-files=all", tmp_path) == "?? .gitignore\n"


def test_the_documents_name_no_password_file_in_the_app_s_folder() -> None:
    named = re.findall(r'(?:password_file = "|PASSWORD_FILE=)([^"\s]+)', "".join(map(text, DOCUMENTS)))
    assert len(named) >= 3 and all(path.startswith("/") for path in named)


def test_the_report_is_made_by_what_the_guide_shows(app: SmallApp, project: Path) -> None:
    (steps,) = blocks(section("The report page", DOCS / "monitoring.md"))
    for _ in range(2):  # the second replaces the first
        shell(steps.replace("/var/www", str(project / "backups")), project, BACKUP_RUNNER="local")
    pages = [text(project / "report.html"), text(app.backups / "pats.html")]
    assert all(page.startswith("<!doctype html>") and "Your data is at risk." in page for page in pages)


# Completion


def complete(words: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, BACKEND / "backup_restore.py"],
        env={
            **clean_environment(),
            "BACKUP_HOST_COMMAND": "backup-restore",
            "_BACKUP_RESTORE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


def test_the_shell_completes_commands_and_their_options() -> None:
    assert set(complete("backup-restore ")) == {name for name in COMMANDS if " " not in name}
    assert complete("backup-restore restore-") == ["restore-dump"]
    assert COMMANDS["restore"].options - {"-f", "-q", "-y"} <= set(complete("backup-restore restore --"))


def test_the_completion_of_the_wrapper_is_set_up_by_the_line_in_the_guide(project: Path) -> None:
    (line,) = blocks(section("Shell completion", DOCS / "adopt.md"))
    asked = 'COMP_WORDS=(./backup.sh re) COMP_CWORD=1; _backupsh_completion ./backup.sh; echo "${COMPREPLY[*]}"'
    said = shell(f"{line}\n. ~/.bashrc\n{asked}", project, HOME=str(project), SHELL="/bin/bash")
    assert set(said.split()) == {name for name in COMMANDS if name.startswith("re")}
    assert "BACKUP_RUNNER=local COMP_WORDS" in text(project / ".bashrc"), "a container would not see COMP_WORDS"


WITH_RE = {name for name in COMMANDS if name.startswith("re") and " " not in name}
SHOW_LINE = 'show-line() { print -r -- "<$BUFFER>" }; zle -N show-line; bindkey "^G" show-line\n'


@pytest.mark.needs("zsh")
def test_the_lines_in_the_guide_complete_the_wrapper_in_zsh(project: Path) -> None:
    (lines,) = blocks(section("Shell completion", DOCS / "adopt.md"), "zsh")
    (project / ".zshrc").write_text(f"autoload -U compinit && compinit -D -u\n{lines}{SHOW_LINE}")

    def tab(typed: str, folder: Path = project) -> str:
        return after_a_tab(typed, folder, HOME=str(project), ZDOTDIR=str(project))

    assert set(re.findall(r"^(\S+) +-- ", tab("./backup.sh re"), re.M)) == WITH_RE
    assert "<./backup.sh restore-dump >" in tab("./backup.sh restore-")
    assert "<~/backup.sh restore --migrate >" in tab("~/backup.sh restore --mi", project / "backend")
    assert "<./backup.sh dump backend/>" in tab("./backup.sh dump backe"), "no word of ours: a file"
    spaced = project / "a b"
    spaced.symlink_to(project)
    assert r"<a\ b/backup.sh restore-dump >" in tab(r"a\ b/backup.sh restore-")


@pytest.mark.needs("fish")
def test_the_lines_in_the_guide_complete_the_wrapper_in_fish(project: Path) -> None:
    (lines,) = blocks(section("Shell completion", DOCS / "adopt.md"), "fish")
    (project / ".config" / "fish").mkdir(parents=True)
    (project / ".config" / "fish" / "config.fish").write_text(lines)

    def tab(typed: str, folder: Path = project) -> list[str]:
        script = f"fish --command 'complete --do-complete \"{typed}\"'"
        return [line.split("\t")[0] for line in shell(script, folder, HOME=str(project)).splitlines()]

    assert set(tab("./backup.sh re")) == WITH_RE
    assert tab("~/backup.sh restore --mi", project / "backend") == ["--migrate"]
    assert tab("./backup.sh dump backe") == ["backend/"], "no word of ours: a file"


@pytest.mark.needs("zsh", "fish")
@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_the_installed_program_sets_up_its_completion(project: Path, name: str) -> None:
    """Typer installs its own script for the shell that it runs under. In zsh the first Tab only loads it."""
    programs = project / "bin"
    programs.mkdir()
    (programs / "backup-restore").write_text(f'#!/bin/sh\nexec {sys.executable} {BACKEND}/backup_restore.py "$@"\n')
    (programs / "backup-restore").chmod(0o755)
    facts = {"HOME": str(project), "ZDOTDIR": str(project), "PATH": f"{programs}:{os.environ['PATH']}"}
    facts["BACKUP_HOST_COMMAND"] = "backup-restore"
    assert f"{name} completion installed" in shell(
        f"{name} -c 'backup-restore --install-completion; true'", project, **facts
    )
    if name == "fish":
        assert "restore-dump\t" in shell("fish -c 'complete -C \"backup-restore restore-\"'", project, **facts)
    else:
        with (project / ".zshrc").open("a") as settings:
            settings.write(SHOW_LINE)
        assert "<backup-restore restore-dump >" in after_a_tab("backup-restore restore-\t", project, **facts)
