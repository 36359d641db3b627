"""The contract with other programs is frozen: documents, metadata, settings, commands, files, log, metrics, exit codes.

A small app goes through a story by the real commands. The keys and types of what they print and write are compared
with the golden files in `tests/contract/`; `tests/golden.py` says how to rewrite them.
"""

from __future__ import annotations

import json
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints
from zoneinfo import ZoneInfo

import pytest
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from msgspec import structs
from test_contract import GIT
from typer.main import get_command

import backup_restore
import golden
from backupkit import AppFolder, protected
from backupkit.cli import json_
from backupkit.config.remotes import FolderTable
from backupkit.config.schema import json_schema
from backupkit.config.settings import load_settings
from backupkit.model import backup
from backupkit.model import operation as operations
from backupkit.model.backup import (
    AppMigrations,
    DatabaseFacts,
    Flaw,
    GitFacts,
    Metadata,
    ReferenceFacts,
    References,
    SchemaVerdict,
    SealedDatabase,
    SealedTree,
    UploadsFacts,
)
from backupkit.model.errors import ExitCode
from backupkit.model.events import silence
from backupkit.model.operation import Operation, TimedStep, Who
from backupkit.monitoring import overview
from backupkit.monitoring.doctor import Finding
from backupkit.monitoring.notify.sender import Address
from backupkit.monitoring.status import Level
from backupkit.remotes import listing_cache
from backupkit.remotes.base import RemoteBackup
from backupkit.repository import history, lock, manifest, verification
from backupkit.restore import journal
from backupkit.restore.journal import Journal, JournalPart
from backupkit.rewind.take import Rewinder
from backupkit.scheduling import planner, run, scheduler_lock
from backupkit.sqlite import query, row_rescue
from backupkit.verify.files import Standing
from docs.make_reference import value_form
from documents import REFERENCE
from killed import AMONG_THE_UPLOADS, kill
from listener import listening_service
from refusals import run_here
from several import change_all, extend
from small_app import DOCUMENTS, HEAD, MERGED, NOON, SmallApp

pytestmark = pytest.mark.xdist_group("golden")  # one process runs the story
Compare = Callable[[str, Any], None]
SCHEMAS = json.loads((REFERENCE / "schemas" / "documents.json").read_text())
OF_SEVERAL = {"databases", "databases_gap_ms", "trees", "others"}  # present only if an app has more than one
WORDS = (
    *(
        backup.Kind,
        backup.State,
        Standing,
        operations.Outcome,
        operations.Through,
        run.State,
        Level,
        overview.Mark,
        planner.Task,
        query.Kind,
        row_rescue.Why,
    ),
    *(
        get_type_hints(one)[field]
        for one, field in ((SchemaVerdict, "relation"), (Finding, "level"), (Address, "kind"))
    ),
)


@dataclass
class Story:
    """Everything printed and written while a small app goes through the story."""

    app: SmallApp
    documents: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """By the document's name in the schema: every output of `--json`."""
    commands: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    """By the same name: the commands that print it, in order."""
    files: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """By path: every content seen."""
    metrics: str = ""

    def types(self, document: str, typed: str, *values: str, code: int | None = 0, **env: str) -> Any:
        """Run the command with `--json`, for a document of that name; `values` replace the words in capitals."""
        rest = iter(values)
        arguments = [next(rest) if word.isupper() else word for word in typed.split()]
        result = run_here(self.app, *arguments, "--json", env=env, check=code)
        self.commands[document].setdefault(typed)
        self.documents[document].append(result.json)
        return result.json

    def looks(self) -> None:
        """Record the toolkit's own files that exist now."""
        for top in (self.app.backups, self.app.database.parent, self.app.uploads, self.app.folder.parent / "disk"):
            for path in sorted(top.rglob("*")):
                if path.is_file() and (name := _name_of(*path.relative_to(top).parts)):
                    self.files[f"{top.name}/{name}"].append(path.read_bytes())


def _name_of(first: str, *rest: str) -> str:
    """Return the path of one of the toolkit's own files without names of backups; empty for any other file."""
    if first == ".rewind":
        return ".rewind/NAME/NUMBER-TIME.point"
    if first.startswith("."):
        names = [first, *rest]
        if first == ".state" and len(names) == 3 and names[1] not in ("scheduler", "remotes"):
            names[2] = "NAME" + Path(names[2]).suffix * (names[1] == "operations")
        return "/".join(names)
    if not rest:
        return _steady(first) if first.startswith("database_dump_") else ""
    return f"NAME/{rest[0]}" if rest[0] in ("backup_metadata.json", "SHA256SUMS", "RESTORE.md") else ""


def _form(path: str, contents: list[bytes]) -> Any:
    """Return the form of one of the toolkit's own files: JSON's keys and types, or lines without what varies."""
    try:
        texts = [one.decode() for one in contents]
    except UnicodeDecodeError:
        return "binary"
    if path.endswith((".md", ".sql")):
        return "text"
    try:
        if path.endswith(".jsonl"):
            return [golden.shape(*(json.loads(line) for text in texts for line in text.splitlines()))]
        values = [json.loads(text) for text in texts]
        if path.endswith("/sizes.json"):  # its keys are names of backups
            return {"*": golden.shape(*(one for value in values for one in value.values()))}
        return golden.shape(*values)
    except ValueError:
        return sorted({_line(line) for text in texts for line in text.splitlines()})


def _line(line: str) -> str:
    if line.startswith("{"):
        return f"JSON with {', '.join(json.loads(line))}"
    if line.startswith("["):
        return f"JSON of {json.loads(line)[0]}, and {len(json.loads(line)) - 1} values"
    return _steady(line)


def _steady(text: str) -> str:
    """Return the text with placeholders for what varies in each run."""
    volatile = (
        (r"\d{8}_\d{6}(_\d+)?", "TIME"),
        (r"\b[0-9a-f]{32,64}\b", "HEX"),
        (r"^(- - - -|\d+ \d+ \d+ \d+)\t", "STAMP\t"),
        (r"\b\d{20}\b", "OFFSET"),
        (r"\b[0-9a-f]{16}\b", "SEED"),
    )
    for pattern, word in volatile:
        text = re.sub(pattern, word, text)
    return text


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("golden")
    story = Story(SmallApp.create(folder / "app", templates))
    with listening_service() as service:
        (story.app.folder / "backup.toml").write_text(
            f"""
            notify_urls = ["{service.notify()}"]
            keep_last = 2
            exclude = ["*.never"]
            exclude_marked = [".nobackup"]
            [references]
            "documents.path" = "uploads/{{value}}"
            [remotes.disk]
            type = "folder"
            path = "{folder / "disk"}"
            keep_last = 50
            """
        )
        (folder / "disk").mkdir()
        _makes_backups(story)
        _checks_them(story)
        _restores(story)
        _migrates(story)
        _carries_away(story)
        _asks(story)
        _changes_settings(story)
        _removes(story)
        _salvages(story)
        _protects(story)
        _rewinds(story)
        story.types("error", "show NAME", "nothing", code=10)
        story.types("error", "list --none", code=2)
        story.types("deliveries", "notify-test", code=1, BACKUP_NOTIFY_URLS=service.notify("500"))
    story.looks()
    yield story


def _makes_backups(story: Story) -> None:
    story.types("created", "backup NAME", "one", **GIT)
    story.types("created", "backup NAME --note TEXT --pin", "two", "noted", **GIT)
    story.types("created", "auto-backup", **GIT)
    story.types("created", "backup NAME --no-uploads", "part")
    story.types("backup", "backup --if-needed")
    story.types("backup", "backup --if-needed")
    story.types("dumped", "dump FILE", "text.sql")
    story.types("dumped", "dump")
    story.types("exported", "export NAME FILE", "one", "one.tar.gz")
    story.types("created", "import FILE --name NAME", "one.tar.gz", "imported")


def _checks_them(story: Story) -> None:
    story.types("verified", "verify NAME", "two")
    story.types("verified", "verify NAME --test-restore", "one")
    story.types("verified_file", "verify FILE", str(story.app.backups / "one" / "pats.db"))
    broken = story.app.folder / "broken.db"
    broken.write_bytes((story.app.backups / "one" / "pats.db").read_bytes()[:-4096])
    story.types("verified_file", "verify FILE", str(broken), code=12)
    story.types("created", "backup NAME", "damaged")
    (story.app.backups / "damaged" / "uploads" / "1" / "letter.txt").unlink()  # other backups share this file
    story.types("verified", "verify NAME", "damaged", code=12)
    story.types("verified_backups", "verify --all", code=12)


def _restores(story: Story) -> None:
    app = story.app
    app.add_rows(2)
    app.write_upload("new.txt", b"new")
    app.write_upload("cache/.nobackup", b"")
    story.types("rows", "rows NAME TABLE", "one", "companies")
    story.types("row_differences", "rows NAME TABLE --diff", "one", "companies")
    story.types("plan", "restore NAME --dry-run", "one")
    story.types("restored", "restore NAME --yes", "one")
    story.types("files", "files NAME", "one")
    story.types("files", "files NAME PATTERN", "two", "*.txt")
    story.types("layout", "restore NAME --to DIR --dry-run", "one", str(app.folder.parent / "look"))
    story.types("laid_out", "restore NAME --to DIR", "one", str(app.folder.parent / "look"))
    story.types("layout", "restore NAME --to DIR --only uploads --dry-run", "one", str(app.folder.parent / "half"))
    story.types("laid_out", "restore NAME --to DIR --only uploads", "one", str(app.folder.parent / "half"))
    story.types("plan", "undo --dry-run")
    story.types("restored", "undo --yes")
    app.execute("DELETE FROM documents")
    story.types("rescue_plan", "rescue NAME TABLE --missing --dry-run", "one", "documents")
    story.types("rescued", "rescue NAME TABLE --missing --yes", "one", "documents")
    story.types("rescue_plan", "rescue NAME TABLE --where EXPR --dry-run", "one", "companies", "1")
    story.types("plan", "restore-dump FILE --dry-run", "text.sql")
    story.types("restored", "restore-dump FILE --yes", "text.sql")
    story.types("recovered", "recover")
    kill(app, AMONG_THE_UPLOADS, "restore", "two", "--yes")
    story.looks()
    story.types("recovered", "recover")
    app.database.write_bytes(b"no database at all" * 1000)
    story.types("plan", "restore NAME --dry-run", "one")
    story.types("restored", "restore NAME --yes", "one", code=None)
    app.write_upload("1/letter.txt", b"overwritten")
    story.types("plan", "extract NAME PATTERN --dry-run", "one", "1/letter.txt")
    story.types("restored", "extract NAME PATTERN --yes", "one", "1/letter.txt")
    story.types("laid_out", "extract NAME PATTERN --to DIR", "one", "*.txt", str(app.folder.parent / "out"))


def _migrates(story: Story) -> None:
    app = story.app
    app.at_revision(DOCUMENTS)
    story.types("created", "backup NAME", "old")
    story.types("plan", "restore NAME --dry-run", "old")
    story.types("plan", "restore NAME --migrate --dry-run", "old")
    story.types("migrated", "migrate")
    story.looks()  # while something is pinned until the next backup
    story.types("migrated", "migrate")
    story.types("restored", "restore NAME --yes", "old")
    story.types("migrated", "migrate")


def _carries_away(story: Story) -> None:
    story.types("remotes", "remotes --init REMOTE", "disk", code=None)
    story.types("pushes", "push NAME", "one")
    story.types("remotes", "remotes", code=3)
    story.types("pushes", "push --yes")
    story.types("remotes", "remotes")
    story.types("remote_backups", "list --remote NAME", "disk")
    story.types("remote_verified", "verify --remote NAME", "disk")
    story.types("prune_plan", "prune --remote NAME --dry-run", "disk")
    story.types("pruned", "prune --remote NAME", "disk")
    away = story.app.folder.parent / "disk"
    away.rename(away.with_name("away"))
    no_patience = json.dumps({"disk": {"type": "folder", "path": str(away), "retry_for": 0}})
    story.types("remotes", "remotes", code=16, BACKUP_REMOTES=no_patience)
    story.types("pushes", "push --yes", code=16, BACKUP_REMOTES=no_patience)
    away.with_name("away").rename(away)
    story.types("backup", "delete NAME --yes", "one")
    story.types("backup", "pull NAME", "one")


def _asks(story: Story) -> None:
    story.types("run", "run", code=None)
    (auto,) = (one for one in story.app.backups.glob("auto_*"))  # others share its files: sizes are counted again
    story.types("backup", "delete NAME --yes", auto.name)
    story.types("backup", "pin NAME", "old")
    story.types("backup", "unpin NAME", "old")
    story.types("verified", "verify NAME --accept", "old")
    story.types("verified", "verify NAME --test-restore", "old")
    story.types("backups", "list")
    for one in story.documents["backups"][0]:
        story.types("backup", "show NAME", one["backup_name"])
    with (story.app.backups / ".state" / "history.jsonl").open("a") as history:
        history.write("no JSON\n")
    story.types("history", "history")
    with scheduler_lock.on(story.app.backups, 0):
        story.types("status", "status", code=None)
        story.types("report", "report", code=None)
        story.types("schedule", "schedule --list")
        story.metrics = run_here(story.app, "status", "--prometheus", "-").out
        story.looks()
    story.types("findings", "doctor", code=None)
    story.types("deliveries", "notify-test")


def _changes_settings(story: Story) -> None:
    story.types("config", "config")
    story.types("setting", "config set KEY VALUE", "timezone", "Europe/Berlin")
    story.types("setting", "config unset KEY", "timezone", BACKUP_TIMEZONE="UTC")
    (story.app.folder / "backup.toml").rename(story.app.folder / "kept.toml")
    story.types("settings_file", "config init")
    (story.app.folder / "kept.toml").rename(story.app.folder / "backup.toml")


def _removes(story: Story) -> None:
    story.types("prune_plan", "prune --dry-run")
    story.types("pruned", "prune --force")


def _salvages(story: Story) -> None:
    story.types("salvaged", "salvage --dry-run", code=None)
    story.types("salvaged", "salvage", code=None)
    story.types("salvaged", "salvage FILE", str(story.app.folder / "broken.db"), code=None)


def _protects(story: Story) -> None:
    with protected("bulk import", on=AppFolder(story.app.folder)):
        story.app.add_rows(1)


def _rewinds(story: Story) -> None:
    rewinder = Rewinder(load_settings(story.app.folder))
    assert rewinder.look() == "taken"
    story.app.add_rows(1)
    assert rewinder.look() == "taken"
    story.types("timeline", "rewind")
    story.types("point", "show --at TIME", "0 seconds ago")
    story.types("plan", "restore --at TIME --dry-run", "0 seconds ago")


@pytest.fixture
def same(request: pytest.FixtureRequest) -> Compare:
    """Return a function that compares with a golden file, or writes it."""
    return lambda name, found: golden.compare(name, found, request.config.getoption("--write-golden"))


def test_every_document_has_the_same_keys_and_types(story: Story, same: Compare) -> None:
    backup, found = story.documents["backup"][0].keys() - {"schema_version"}, dict[str, Any]()
    for document, printed in story.documents.items():
        values = printed if document == "backup" else golden.folded(printed, backup)
        found[document] = {"printed by": list(story.commands[document]), "document": golden.shape(*values)}
    same("documents", found)


def test_every_document_is_as_its_published_schema_says(story: Story) -> None:
    metadata = [json.loads(one) for one in story.files["backups/NAME/backup_metadata.json"]]
    for document, printed in {**story.documents, "metadata": metadata}.items():
        for one in printed:
            _refuse_flaws(document, one)


def _refuse_flaws(document: str, printed: Any) -> None:
    """Assert that it follows its schema, with every required key and no unknown one."""
    schema = {"$ref": f"#/$defs/{document}", "$defs": SCHEMAS["$defs"]}
    tight = {**schema, "unevaluatedProperties": False, "$defs": _nothing_more(SCHEMAS["$defs"])}
    flaw = best_match(_errors(schema, printed)) or best_match(_errors(tight, printed))
    assert flaw is None, f"{document} at {flaw.json_path}: {flaw.message}"


def _errors(schema: dict[str, Any], value: Any) -> Iterator[ValidationError]:
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).iter_errors(value)


def _nothing_more(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the same definitions, closed to unknown keys, except for those that others extend."""
    bases = {base["$ref"].rpartition("/")[2] for one in definitions.values() for base in one.get("allOf", ())}
    tight = {"unevaluatedProperties": False}
    return {
        name: one | (tight if "properties" in one and name not in bases else {}) for name, one in definitions.items()
    }


def test_every_document_says_the_version_of_its_schema(story: Story) -> None:
    for document in story.documents.keys() - {"config"}:
        for printed in story.documents[document]:
            for one in printed if isinstance(printed, list) else [printed]:
                assert one is None or next(iter(one.items())) == ("schema_version", json_.SCHEMA_VERSION), document


def test_the_schemas_are_sound_and_every_key_is_always_there() -> None:
    Draft202012Validator.check_schema(SCHEMAS)
    assert SCHEMAS["$id"].endswith(f":{json_.SCHEMA_VERSION}")
    sometimes = {"schema_version", *OF_SEVERAL}
    for name, one in SCHEMAS["$defs"].items():
        assert one.get("required", []) == [key for key in one.get("properties", ()) if key not in sometimes], name


def test_the_documents_of_an_app_with_several_databases_are_as_their_schemas_say(app: SmallApp, tmp_path: Path) -> None:
    change_all(extend(app))
    for document, arguments in (
        ("created", ("backup", "good")),
        ("backup", ("show", "good")),
        ("plan", ("restore", "good", "--dry-run")),
        ("restored", ("restore", "good", "--yes")),
        ("plan", ("undo", "--dry-run")),
        ("layout", ("restore", "good", "--to", str(tmp_path / "look"), "--dry-run")),
        ("laid_out", ("restore", "good", "--to", str(tmp_path / "look"))),
    ):
        printed = run_here(app, *arguments, "--json", check=0).json
        assert printed.keys() & OF_SEVERAL, document
        _refuse_flaws(document, printed)
    _refuse_flaws("metadata", json.loads((app.backups / "good" / "backup_metadata.json").read_text()))


def test_the_words_in_the_schemas_are_those_of_the_code() -> None:
    said = {tuple(one["enum"]) for one in _enums(SCHEMAS)}
    assert said == {get_args(one) for one in WORDS}


def _enums(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and "enum" in value:
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _enums(one)


def test_the_page_on_json_names_every_schema_and_the_command_that_prints_it(story: Story) -> None:
    page = (REFERENCE / "json.md").read_text()
    for document, commands in story.commands.items():
        (row,) = (line for line in page.splitlines() if line.endswith(f"| `{document}` |"))
        assert all(f"`{command.split()[0]}" in row for command in commands), document


def test_every_file_has_the_same_name_and_form(story: Story, same: Compare) -> None:
    same("files", {path: _form(path, contents) for path, contents in sorted(story.files.items())})


# Round trips: a reader must know every key that is written, also after a field was renamed.

_FACTS = DatabaseFacts(1, "1" * 64, 2, "wal", "UTF-16le", 3, 4, {"one": 5}, 6, ("seven",), "3.8.9", 0o640, True)
_GIT = GitFacts("abc1234", "abc", "main", "a subject", True, "v1")
_UPLOADS = UploadsFacts(1, 2, 3, 4, 5, 6, 7, "8" * 64, ("nine",), ("ten",))
_CACHE = SealedDatabase(
    "cache", "cache.db", HEAD, (HEAD, MERGED), "versions", AppMigrations("Django", "last", 1), "3" * 64, _FACTS
)
_FLAWS = (Flaw("uploads/x", "uploads/x is missing"),)


def test_metadata_are_read_as_they_were_written(app: SmallApp) -> None:
    written = Metadata(
        *("one", "20260615_120000", NOON, HEAD, "pats.db", True, "1.0", "auto", "noted", (HEAD, MERGED), "versions"),
        *(
            AppMigrations("Django", "last", 1),
            "2" * 64,
            _FACTS,
            _UPLOADS,
            _GIT,
            "pats",
            "0.1",
            1.5,
            "two",
            3,
            ("less",),
            ("*.tmp",),
            (".nobackup",),
            ("cache",),
            References((ReferenceFacts("a.b", "uploads/{value}", 4, 1, 1, 1, ("c",), "d"),), 5, ("e",)),
            (SealedDatabase("database", "pats.db"), _CACHE),
            (SealedTree("uploads", _UPLOADS), SealedTree("media", _UPLOADS, ("cache",))),
            0.5,
        ),
    )
    _no_default(_CACHE)
    _no_default(written)
    manifest.write_metadata(app.folder, written)
    assert manifest.read_metadata(app.folder, ZoneInfo("UTC")) == written


def test_an_operation_is_read_as_it_was_written(app: SmallApp) -> None:
    step = TimedStep("Copying the database", 1.5)
    who = Who("somebody", 1, "a host", "scheduler", "born then")
    written = Operation(
        "id", "backup", NOON, who, NOON, "warning", 3, ("one",), 1, 2, 3, 4.5, "noted", "bad", ("less",), (step,)
    )
    _no_default(written)
    history.write(app.backups, written)
    assert history.read(app.backups).operations == (written,)


def test_what_is_known_of_a_backup_is_read_as_it_was_written(app: SmallApp) -> None:
    written = verification.Record(NOON, NOON, NOON, NOON, 1.5, "it failed", _FLAWS)
    _no_default(written)
    verification.write(app.backups, "one", written)
    metadata = Metadata("one", "20260615_120000", NOON, None, None, False)
    assert verification.read(app.backups, "one", metadata) == written


def test_what_a_remote_held_is_read_as_it_was_written(app: SmallApp) -> None:
    there = [RemoteBackup("one", NOON, "auto", 1, "pats", HEAD, False, 7)]
    _no_default(there[0])
    remotes = {"disk": FolderTable(type="folder", path=str(app.folder))}
    written = listing_cache.remember(app.settings.replaced(remotes=remotes), "disk", there, NOON)
    assert written == listing_cache.CachedListing(NOON, tuple(there), own=(), found=("one",))
    assert listing_cache.recall(app.backups, "disk") == written


def test_a_journal_is_read_as_it_was_written(app: SmallApp) -> None:
    more = {"back": True, "part": "database", "copies": ("three",), "kept": ("four",), "sealed": "one"}
    further = JournalPart("media", "five", True, True, "one", _FACTS, (HEAD,))
    more |= {"name": "cache", "others": (further,), "origins": (".draft-rewind-a_1/point_2", "five")}
    written = Journal("one", "two", "0" * 32, "then", True, True, facts=_FACTS, revisions=(HEAD,), **more)
    _no_default(written)
    journal.write(app.backups, written)
    assert journal.read(app.backups) == written


def _no_default(value: Any) -> None:
    """Assert that no field has its default value, since a field that is not read would have it too."""
    for one in structs.fields(value):
        assert getattr(value, one.name) != one.default or one.name == "backup_version", one.name


# Tests without the story


def test_the_commands_and_their_options_are_the_same(same: Compare) -> None:
    found = dict(_commands(get_command(backup_restore.app)))
    known = json.loads((golden.FOLDER / "commands.json").read_text())  # in the file's order, not in that of the help
    same("commands", {name: found[name] for name in sorted(found, key=[*known, *found].index)})


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        yield before + word, [_parameter(one) for one in command.params]
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{word} ")


def _parameter(one: Any) -> str:
    """Return how it is typed: `[x]` may be left out, `x…` may be repeated."""
    if one.param_type_name == "argument":
        return one.name.upper() if one.required else f"[{one.name.upper()}]"
    value = "" if one.is_flag else f" {value_form(one)}"
    several = "…" if "list[" in str(one.type_descriptor.annotation) else ""
    return f"[{', '.join(one.opts)}{value}{several}]"


def test_the_settings_their_types_and_defaults_are_the_same(same: Compare) -> None:
    said = {name: _without_text(one) for name, one in json_schema()["properties"].items()}
    same("settings", said)


def _without_text(described: Any) -> Any:
    if isinstance(described, dict):
        return {key: _without_text(one) for key, one in described.items() if not _is_text(key, one)}
    return [_without_text(one) for one in described] if isinstance(described, list) else described


def _is_text(key: str, value: Any) -> bool:
    return key in ("description", "title") and isinstance(value, str)


def test_the_exit_codes_are_the_same(app: SmallApp, same: Compare) -> None:
    socket.socket(socket.AF_UNIX).bind(str(app.uploads / "socket"))
    found = {
        "list": run_here(app, "list").code,
        "backup of a socket too": run_here(app, "backup", "one").code,
        "backup under a taken name": run_here(app, "backup", "one").code,
        "backup under a name that is none": run_here(app, "backup", "../x").code,
        "show of what is not there": run_here(app, "show", "two").code,
        "restore without a terminal": run_here(app, "restore", "one").code,
        "an option that is none": run_here(app, "list", "--none").code,
        "status": run_here(app, "status").code,
        "pull from what is not there": run_here(app, "pull", "one", env={"BACKUP_REMOTES": _NOWHERE}).code,
    }
    app.execute("UPDATE alembic_version SET version_num = 'unknown'")
    run_here(app, "backup", "unknown")
    app.at_revision(HEAD)
    found["restore of a schema that is unknown"] = run_here(app, "restore", "unknown", "--yes").code
    with lock.held(app.backups, "a test", 0, silence, app.backups):
        found["backup beside another run"] = app.command("backup", env={"BACKUP_LOCK_TIMEOUT": "0"}).code
    (app.backups / "one" / "uploads" / "1" / "letter.txt").unlink()
    found["verify of what is damaged"] = run_here(app, "verify", "one").code
    app.database.unlink()
    found["backup of no database"] = run_here(app, "backup").code
    found["status of no database"] = run_here(app, "status").code
    same("exit_codes", {"all": sorted(ExitCode), "by what was typed": found})


_NOWHERE = json.dumps({"disk": {"type": "folder", "path": "nowhere", "retry_for": 0}})


@pytest.mark.parametrize("form", ["plain", "json"])
def test_the_lines_of_the_log_have_the_same_form(app: SmallApp, same: Compare, form: str) -> None:
    log = app.folder / "backup.log"
    environment = {"BACKUP_LOG_FILE": str(log), "BACKUP_LOG_FORMAT": form}
    app.command("backup", "one", env=environment, check=0)
    app.command("verify", "one", env=environment, check=0)
    app.command("backup", "one", env=environment, check=2)
    lines = log.read_text().splitlines()
    if form == "json":
        return same("log_json", [golden.shape(*(json.loads(line) for line in lines))])
    same("log_plain", [_plain(line) for line in lines])


def _plain(line: str) -> str:
    line = re.sub(r"^\S+ \S+ (\w+) \[\d+\]", r"TIME \1 [PID]", line)
    line = re.sub(r"in \d+\.\d s", "in SECONDS s", line)
    line = re.sub(r"\d+ bytes, by [^,]+", "BYTES bytes, by USER", line)
    line = re.sub(r"by [^,]+, .*", "by USER, SENTENCE", line)
    return re.sub(r"exit code (\d+): .*", r"exit code \1: SENTENCE", line)


def test_the_metrics_have_the_same_names_and_labels(story: Story, same: Compare) -> None:
    lines = [line for line in story.metrics.splitlines() if not line.startswith("# HELP")]
    same("metrics", [line if line.startswith("#") else line.rpartition(" ")[0] for line in lines])
