"""The documents stay true: what they say of commands, settings, codes and messages is what the code has, both ways.

What they tell a person to type is typed here, on a small real app.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import backup_restore
from backupkit.words.errors import BackupError, ExitCode
from backupkit.words.settings import Settings, secret_names
from small_app import BACKEND, DOCUMENTS, HEAD, SmallApp, clean_environment

ROOT = BACKEND.parent
GUIDE, DESIGN, README = ROOT / "BACKUP_GUIDE.md", ROOT / "docs" / "design.md", ROOT / "README.md"
DOCUMENTS_OF_OURS = [README, GUIDE, DESIGN, ROOT / "CHANGELOG.md", ROOT / "BENCHMARKS.md"]
WRAPPER, ENTRYPOINT = ROOT / "backup.sh", BACKEND / "entrypoint.sh"
HERE = {"BACKUP_RUNNER_IN_USE": "local"}  # or the tests would take themselves for a container where they run in one


# What the documents say.


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def section(title: str, path: Path = GUIDE) -> str:
    """What stands below the first heading that begins so, its own subsections included."""
    found = re.search(rf"^(#+) {re.escape(title)}.*?\n(.*?)(?=^#+ |\Z)", outside_blocks(path), re.M | re.S)
    assert found, f"{path.name} has no section {title!r}"
    level = len(found[1])
    whole = re.search(
        rf"^#{{{level}}} {re.escape(title)}[^\n]*\n(.*?)(?=^#{{1,{level}}} |\Z)", marked(text(path)), re.M | re.S
    )
    assert whole
    return unmarked(whole[1])


def marked(content: str) -> str:
    """Comments in code blocks do not look like headings."""
    return re.sub(r"^```.*?^```", lambda block: block[0].replace("\n#", "\n\x00#"), content, flags=re.M | re.S)


def unmarked(content: str) -> str:
    return content.replace("\x00", "")


def outside_blocks(path: Path) -> str:
    return re.sub(r"^( *)```.*?^\1```", "", text(path), flags=re.M | re.S)


def blocks(content: str, language: str = "sh") -> list[str]:
    """The code blocks of that language that stand at the left margin."""
    return re.findall(rf"^```{language}\n(.*?)^```", content, re.M | re.S)


def cells(content: str, column: int = 0) -> list[str]:
    """One column of every table in it, heads apart."""
    rows = [line.strip("| \n").split(" | ") for line in content.splitlines() if line.startswith("| ")]
    heads = {
        index
        for index, line in enumerate(line for line in content.splitlines() if line.startswith("|"))
        if line.startswith("|-")
    }
    lines = [line for line in content.splitlines() if line.startswith("|")]
    wanted = [line for index, line in enumerate(lines) if index not in heads and index + 1 not in heads]
    assert rows
    return [line.strip("| ").split("|")[column].strip() for line in wanted]


def in_backticks(content: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", content))


# What the code has.


@dataclass(frozen=True)
class Command:
    name: str
    options: frozenset[str]
    arguments: tuple[str, ...]


def commands() -> dict[str, Command]:
    return dict(commands_of(get_command(backup_restore.app)))


def commands_of(group: Any, before: str = "") -> Iterator[tuple[str, Command]]:
    for word, command in group.commands.items():
        yield before + word, described(before + word, command)
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{word} ")


def described(name: str, command: Any) -> Command:
    shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    options = [option for one in shown for option in one.opts]
    arguments = [one.name.upper() for one in command.params if one.param_type_name == "argument"]
    return Command(name, frozenset(options), tuple(arguments))


COMMANDS = commands()
ALWAYS = {"--help", "-h"}


def modules() -> list[Path]:
    return sorted((BACKEND / "backupkit").rglob("*.py"))


def error_classes() -> set[type[BackupError]]:
    for path in modules():
        name = ".".join(path.relative_to(BACKEND).with_suffix("").parts).removesuffix(".__init__")
        if not path.stem.endswith("writer"):  # run as a program, never imported
            importlib.import_module(name)
    return {BackupError, *below(BackupError)}


def below(kind: type[BackupError]) -> Iterator[type[BackupError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def sentence(node: ast.expr) -> str:
    """A string of the code, with … for what is put in; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        pieces = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        return re.sub("…+", "…", "".join(pieces))
    return ""


def error_messages() -> set[str]:
    """Every sentence with which the code fails, and every reason that is put into one."""
    kinds = {kind.__name__ for kind in error_classes()}
    found = set()
    for path in [*modules(), BACKEND / "backup_restore.py"]:
        for function in ast.walk(ast.parse(text(path))):
            if isinstance(function, ast.FunctionDef):
                found |= set(messages_in(function, kinds))
    return {message for message in found if says_something(message)}


def messages_in(function: ast.FunctionDef, kinds: set[str]) -> Iterator[str]:
    named = {
        target.id: sentence(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if called in kinds or any(keyword.arg == "hint" for keyword in node.keywords):
            first = node.args[0]
            yield named.get(first.id, "") if isinstance(first, ast.Name) else sentence(first)
        elif called in ("_damaged", "_fail"):
            yield sentence(node.args[-1])


def warnings() -> set[str]:
    """Every sentence that ends a run with 3."""
    found = set()
    for path in modules():
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.Call) and node.args:
                called = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
                if called == "Warned":
                    found.add(sentence(node.args[0]))
                elif called == "warn":
                    found.add(f"… {sentence(node.args[1])}")
    return {message for message in found if says_something(message)}


def says_something(message: str) -> bool:
    return len(re.sub(r"[^A-Za-z]", "", message)) > 4


def shell_messages(path: Path, words: str) -> set[str]:
    """What a script says with one of these words, with … for what is put in."""
    said = re.findall(rf'(?:{words}) "((?:[^"\\]|\\.)*)"', text(path))
    return {re.sub("…+", "…", re.sub(r"\$\{[^}]*\}|\$\w+|\$\([^)]*\)", "…", one)) for one in said}


# Commands and options.


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_has_its_section_with_every_option_and_argument(command: Command) -> None:
    heading = re.search(rf"^### `{re.escape(command.name)}( [^`]+)?`$", text(GUIDE), re.M)
    assert heading, f"the guide has no section for {command.name}"
    assert re.findall("[A-Z]+", heading[1] or "") == list(command.arguments)
    told = options_in(section(f"`{command.name}{heading[1] or ''}`"))
    assert command.options <= told
    assert told <= command.options | ALWAYS, "the guide has options that the command has not"


def options_in(content: str) -> set[str]:
    prose = re.sub(r"`[a-z][^`]*`|^```.*?^```", "", content, flags=re.M | re.S)  # other programs' commands
    return {word for code in in_backticks(prose) for word in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", code)}


def test_every_section_of_a_command_has_a_command() -> None:
    told = re.findall(r"^### `([a-z-]+(?: [a-z-]+)*)", section("Every command"), re.M)
    assert set(told) == set(COMMANDS)


def test_what_is_not_there_yet_is_not_there() -> None:
    planned = {word for word in in_backticks(section("What is not there yet")) if re.fullmatch("[a-z-]+", word)}
    assert planned.isdisjoint(COMMANDS)


OURS = re.compile(
    r"(?:^|(?<=[ /]))(?:[A-Z_]+=\S+ )*(?:\S*backup\.sh|backup-restore|python backup_restore\.py) +([^#|>`]+)"
)


def typed_lines(path: Path) -> list[str]:
    """Every line of ours that the document tells a person to type."""
    content = text(path)
    code = [*re.findall(r"^ *```(?:sh|console|crontab)\n(.*?)^ *```", content, re.M | re.S)]
    lines = [line for block in code for line in block.splitlines()]
    return [*lines, *(code for code in in_backticks(outside_blocks(path)) if OURS.match(code))]


@pytest.mark.parametrize("path", DOCUMENTS_OF_OURS, ids=lambda path: path.name)
def test_every_command_that_is_to_be_typed_exists(path: Path) -> None:
    for line in typed_lines(path):
        for words in (found[1].split() for found in OURS.finditer(line)):
            if words[0].startswith("-"):
                assert words[0] in {"--show-completion", "--install-completion", *ALWAYS}, line
            elif words[0] != "COMMAND":
                assert words[0] in COMMANDS, line
                options = {word for word in words[1:] if word.startswith("-") and word != "-"}
                command = COMMANDS.get(" ".join(words[:2]), COMMANDS[words[0]])
                assert options <= command.options | ALWAYS, line


def test_the_documents_have_commands_to_type() -> None:
    assert sum("backup.sh" in line for line in typed_lines(GUIDE)) > 30


# Settings, codes, messages.


def test_every_setting_is_in_the_table_and_nothing_else() -> None:
    told = cells(section("Settings").split("reads three more")[0])
    assert told == [f"`BACKUP_{name.upper()}`" for name in Settings.model_fields]


@pytest.mark.parametrize("name", ["database", "uploads", "alembic_ini", "timezone", "service", "runner"])
def test_the_default_of_a_setting_is_the_one_in_the_table(name: str) -> None:
    assert default_told(name) == f"`{Settings.model_fields[name].default}`"


NUMBERS = [name for name, field in Settings.model_fields.items() if type(field.default) in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_the_default_number_of_a_setting_is_the_one_in_the_table(name: str) -> None:
    assert float(default_told(name).strip("`")) == Settings.model_fields[name].default


def default_told(name: str) -> str:
    table = section("Settings")
    return dict(zip(cells(table), cells(table, 1), strict=True))[f"`BACKUP_{name.upper()}`"]


@pytest.mark.parametrize("path", DOCUMENTS_OF_OURS, ids=lambda path: path.name)
def test_every_variable_that_is_named_is_a_setting_or_the_wrappers(path: Path) -> None:
    known = {f"BACKUP_{name.upper()}" for name in Settings.model_fields}
    known |= {f"BACKUP_{name.upper()}_FILE" for name in secret_names()}
    known |= {"BACKUP_REMOTE_CLOUD_PASSWORD", "BACKUP_REMOTE_CLOUD_PASSWORD_FILE", "BACKUP_REMOTE_"}
    known |= set(re.findall(r"\bBACKUP_[A-Z_]+", text(WRAPPER)))
    known |= set(re.findall(r"\bBACKUP_[A-Z_]+", text(BACKEND / "backupkit" / "parts" / "trial.py")))
    assert set(re.findall(r"\bBACKUP_[A-Z][A-Z_]+\b", text(path))) - {"BACKUP_GUIDE"} <= known


def test_every_exit_code_is_in_the_table_and_nothing_else() -> None:
    assert cells(section("Exit codes")) == [str(int(code)) for code in ExitCode]


def test_every_error_is_in_the_design_with_its_code() -> None:
    table = section("Errors", DESIGN)
    told = dict(zip(cells(table), cells(table, 1), strict=True))
    assert told == {f"`{kind.__name__}`": str(int(kind.code)) for kind in error_classes()}


@pytest.mark.parametrize("message", sorted(error_messages()))
def test_every_message_of_an_error_is_in_the_guide(message: str) -> None:
    told = {" ".join(code.split()) for code in re.findall("`([^`]+)`", section("Troubleshooting"))}
    assert message in told, f"Troubleshooting in the guide needs: `{message}`"


def test_every_message_in_the_guide_is_one_of_the_codes() -> None:
    shell = shell_messages(WRAPPER, r"die \d+|say") | shell_messages(ENTRYPOINT, "say")
    known = {f"`{message}`" for message in error_messages() | warnings() | shell}
    tables = section("Troubleshooting").split("### Other signs")[0]
    assert [cell for cell in cells(tables) if cell not in known] == []


@pytest.mark.parametrize("message", sorted(shell_messages(WRAPPER, r"die \d+")))
def test_every_message_of_the_wrapper_is_in_the_guide(message: str) -> None:
    assert f"`{message}`" in cells(section("What `backup.sh` says"))


@pytest.mark.parametrize("message", sorted(warnings()))
def test_every_warning_is_in_the_guide(message: str) -> None:
    assert f"`{message}`" in cells(section("3: done, with warnings"))


# The documents themselves.


@pytest.mark.parametrize("path", DOCUMENTS_OF_OURS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(path)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def anchors(path: Path) -> set[str]:
    """The names that a heading gets: small letters, hyphens for spaces, no other marks."""
    titles = re.findall(r"^#+ (.+)$", outside_blocks(path), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_picture_is_small_and_shown_somewhere_and_every_one_shown_is_there() -> None:
    there = {path.name for path in (ROOT / "docs" / "screenshots").glob("*.png")}
    shown = {name for path in DOCUMENTS_OF_OURS for name in re.findall(r"docs/screenshots/([\w.-]+\.png)", text(path))}
    assert there == shown
    assert all((ROOT / "docs" / "screenshots" / name).stat().st_size < 150_000 for name in there)


@pytest.mark.parametrize("path", DOCUMENTS_OF_OURS, ids=lambda path: path.name)
def test_the_documents_name_no_place_of_a_machine_and_no_registry(path: Path) -> None:
    hosts = {"github.com", "keepachangelog.com", "semver.org", "hc-ping.com"}
    assert set(re.findall(r"https?://([^/\s)]+)", text(path))) <= hosts
    below_root = re.findall(r"(?<![\w.$}\])>…*/\"'`-])/([a-z]\w*)/", text(path))
    assert set(below_root) <= {"app", "srv", "mnt", "var", "proc", "root"}


def test_every_module_is_in_the_design_and_every_module_in_it_exists() -> None:
    package = BACKEND / "backupkit"
    there = {str(path.relative_to(package)) for path in modules() if path.name != "__init__.py"}
    assert {name.strip("`") for name in cells(section("Layers", DESIGN)) if name.endswith(".py`")} - {""} >= there
    named = set(re.findall(r"`((?:words|ground|parts|verbs|faces)/[\w/]+\.py)`", text(DESIGN)))
    assert named <= there


def test_the_changelog_has_every_command() -> None:
    assert set(COMMANDS) <= in_backticks(section("[Unreleased]", ROOT / "CHANGELOG.md"))


def test_the_transcript_in_the_readme_is_what_the_program_prints(app: SmallApp) -> None:
    app.command("backup", "pre_migration", env=CONTAINER, check=0)
    made = app.command("backup", "another", env=CONTAINER, check=0)
    app.execute("DROP TABLE documents")
    shutil.rmtree(app.uploads / "1")
    restored = app.command("restore", "pre_migration", "--force", env=CONTAINER, check=0)
    printed = {shape(line, app) for line in (made.out + restored.err + restored.out).splitlines()}
    (transcript,) = (block for block in blocks(text(README), "console") if "./backup.sh restore" in block)
    told = {shape(line, app) for line in transcript.splitlines() if not line.startswith("$ ")}
    assert len(told) > 15
    assert told <= printed


CONTAINER = {"BACKUP_RUNNER_IN_USE": "exec", "BACKUP_COMPOSE": "docker compose", "BACKUP_HOST_COMMAND": "./backup.sh"}


def shape(line: str, app: SmallApp) -> str:
    """The line without what differs from app to app: numbers, units, places, names."""
    line = line.replace(str(app.folder), "/app").replace("another", "pre_migration")
    line = re.sub(r"(?<![\w])\d[\d.,]*( bytes| [kMG]B)?(?!\w)", "#", line)
    return re.sub(r"_\d{8}_\d{6}", "_#", line).rstrip()


# What is told to be typed, typed.


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
    assert "pats.db: OK" in said
    assert said.rstrip().endswith("ok")
    assert app.contents() == before


def test_a_backups_own_page_keeps_what_was_there(app: SmallApp, tmp_path: Path) -> None:
    app.command("backup", "good", env=HERE, check=0)
    crash_with_a_hot_wal(app)
    ruined = app.rows("companies")
    shell("\n".join(blocks(text(app.backups / "good" / "RESTORE.md"))), app.backups / "good", TMPDIR=str(tmp_path))
    (kept,) = app.backups.glob("before_restore.*")
    app.database = kept / app.database.name
    assert app.rows("companies") == ruined


def test_a_backups_own_page_brings_its_schema_to_this_code(app: SmallApp, tmp_path: Path) -> None:
    app.at_revision(DOCUMENTS)
    app.command("backup", "older", env=HERE, check=0)
    app.at_revision(HEAD)
    page = text(app.backups / "older" / "RESTORE.md")
    steps = re.findall(r"^    (cd .* (?:stamp|upgrade) .*)$", page, re.M)
    assert len(steps) == 2
    shell("\n".join(blocks(page)), app.backups / "older", TMPDIR=str(tmp_path))
    assert app.revisions() == {DOCUMENTS}
    for step in steps:
        shell(f"({step})", tmp_path, PYTHONPATH=str(BACKEND))
    assert app.revisions() == {HEAD}
    assert len(app.rows("applications")) == 3


@pytest.fixture
def project(app: SmallApp) -> Path:
    """The small app in a folder like the repository: backup.sh, backend/, backups/ and an environment that is made."""
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
    steps = blocks(section("By hand, without this tool"))
    assert len(steps) == 4
    shell("\n".join(steps), project)
    assert app.contents() == before
    (kept,) = app.backups.glob("by_hand_*")
    assert disaster is lose_the_uploads or (kept / "uploads").is_dir()


def test_the_by_hand_section_keeps_the_database_with_its_wal(app: SmallApp, project: Path) -> None:
    app.command("backup", "pre_migration", env=HERE, check=0)
    crash_with_a_hot_wal(app)
    ruined = app.rows("companies")
    shell("\n".join(blocks(section("By hand, without this tool"))), project)
    (kept,) = app.backups.glob("by_hand_*")
    app.database = kept / app.database.name
    assert app.rows("companies") == ruined
    app.command("list", env=HERE, check=0)


def test_a_backup_can_be_read_with_what_the_guide_shows(app: SmallApp) -> None:
    app.command("backup", "good", env=HERE, check=0)
    (program,) = blocks(section("By hand, without this tool"), "python")
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
    (steps,) = (block for block in blocks(section("Is my backup good?")) if "SCRATCH" in block)
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
        # rsync leaves the time of a folder or a link that is of the same second
        os.utime(entry, ns=(0, 10**18), follow_symlinks=False)
    app.command("backup", "pre_migration", env=HERE, check=0)
    before = app.contents()
    lines = [line for block in blocks(section("Copies elsewhere"), "console") for line in block.splitlines()]
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
    (line,) = blocks(section("Schedule"), "crontab")
    command = line.split(maxsplit=5)[5].replace("/srv/pats", str(project)).replace("/var/log", str(project))
    for _ in range(2):
        subprocess.run(
            ["env", "-i", "PATH=/usr/bin:/bin", "BACKUP_RUNNER=local", "sh", "-c", command], cwd="/", check=True
        )
    assert len([path for path in app.backups.iterdir() if path.name.startswith("scheduled_")]) == 1


def test_the_report_is_made_by_what_the_guide_shows(app: SmallApp, project: Path) -> None:
    (steps,) = blocks(section("As a web page"))
    for _ in range(2):  # each time anew
        shell(steps.replace("/var/www", str(project / "backups")), project, BACKUP_RUNNER="local")
    pages = [text(project / "report.html"), text(app.backups / "pats.html")]
    assert all(page.startswith("<!doctype html>") and "Your data is at risk." in page for page in pages)


# Completion.


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
    assert COMMANDS["restore"].options - {"-f", "-y"} <= set(complete("backup-restore restore --"))


def test_the_completion_of_the_wrapper_is_set_up_by_the_line_in_the_guide(project: Path) -> None:
    (line,) = blocks(section("Shell completion"))
    asked = 'COMP_WORDS=(./backup.sh re) COMP_CWORD=1; _backupsh_completion ./backup.sh; echo "${COMPREPLY[*]}"'
    said = shell(f"{line}\n. ~/.bashrc\n{asked}", project, HOME=str(project), SHELL="/bin/bash")
    assert set(said.split()) == {name for name in COMMANDS if name.startswith("re")}
    assert "BACKUP_RUNNER=local COMP_WORDS" in text(project / ".bashrc"), "a container would not see COMP_WORDS"
