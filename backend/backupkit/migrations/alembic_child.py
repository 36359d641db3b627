"""Run Alembic in the app's Python: `python alembic_child.py REQUEST`, where REQUEST is JSON.

It reads the migrations, finds the version table, or upgrades a database. It needs only Alembic, since the app's Python
may be another one than ours. Its answer is the line of stdout that begins with MARK.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

MARK = "backupkit-answer: "
REFUSAL, REFUSAL_OF_UPLOADS = "opened the live database", "changed the live uploads"  # in errors of app_guard.py
_START = os.getcwd()  # the app's code may change the working directory
WAYS = ("url", "async", "connection")  # ways to point env.py to a database, in the order in which they are tried
Request = dict[str, Any]
Answer = dict[str, Any]


def _read(request: Request) -> Answer:
    """Return every revision, newest first, with those that it depends on; with a target, also the steps to it."""
    scripts = _scripts(_config(request))
    found = list(scripts.walk_revisions())
    files = {scripts.dir, *_version_folders(scripts), *(one.path for one in found)}
    answer: Answer = {
        "heads": list(scripts.get_heads()),
        "revisions": [[one.revision, list(one._all_down_revisions), one.doc or ""] for one in found],
        "files": [[file, os.stat(file).st_mtime_ns] for file in (os.path.join(_START, one) for one in files)],
    }
    return {**answer, **_steps(scripts, request)} if "target" in request else answer


def _version_folders(scripts: ScriptDirectory) -> set[str]:
    return {folder for place in scripts._version_locations for folder, _, _ in os.walk(str(place))}


def _steps(scripts: ScriptDirectory, request: Request) -> Answer:
    """Return the steps of `alembic upgrade TARGET`, oldest first, or what TARGET names, or why Alembic refuses it."""
    from alembic.script.revision import RevisionError
    from alembic.util import CommandError

    current, target = tuple(request["revisions"]), request["target"]
    try:
        steps = scripts._upgrade_revs(target, current)  # type: ignore[arg-type]
        asked = [] if steps else [one.revision for one in scripts.get_revisions(target)]
    except (CommandError, RevisionError, AssertionError) as error:  # Alembic asserts that it is not empty, nor is `a@`
        return {"refusal": str(error) or "Alembic cannot read it"}
    return {"steps": [one.revision.revision for one in steps], "asked": asked}


def _find_version_table(request: Request) -> Answer:
    """Run env.py on an empty database, and return the table in which it keeps the revisions."""
    from alembic.runtime.environment import EnvironmentContext

    found: Answer = {}

    def ask(_revision: object, context: Any) -> list[Any]:
        found.update(table=context.version_table, schema=context.version_table_schema)
        return []

    def run(config: Config) -> None:
        scripts = _scripts(config)
        with EnvironmentContext(config, scripts, fn=ask, destination_rev="heads"):
            scripts.run_env()

    _try_ways(request, run)
    return found


def _upgrade(request: Request) -> Answer:
    """Upgrade the database to the target; return the way in which env.py found it."""
    from alembic import command

    return {"way": _try_ways(request, lambda config: command.upgrade(config, request["target"]))}


def _try_ways(request: Request, run: Callable[[Config], None]) -> str:
    """Call `run` on the requested database in the first way that works for env.py; return that way."""
    way, *others = request["ways"]
    while True:
        try:
            _run(request, way, run)
            return str(way)
        except Exception as error:
            others = [one for one in others if _may_help(one, request, _traceback(error))]
            if not others:
                raise
        way = others.pop(0)


def _may_help(way: str, request: Request, error: str) -> bool:
    """Return whether this way may work: an async driver, or a connection if the URL is in the code of env.py."""
    if way == "async":
        return "async driver" in error
    with open(os.path.join(_START, _scripts(_config(request)).dir, "env.py"), errors="replace") as file:
        return REFUSAL in error and "attributes" in file.read()


def _run(request: Request, way: str, run: Callable[[Config], None]) -> None:
    config, url = _config(request), request["url"]
    if way == "async":
        url = "sqlite+aiosqlite" + url[url.index(":") :]
    _set_url(config, url)
    if way != "connection":
        return run(config)
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    with create_engine("sqlite" + url[url.index(":") :], poolclass=NullPool).connect() as connection:
        config.attributes["connection"] = connection
        run(config)
        connection.commit()


def _set_url(config: Config, url: str) -> None:
    escaped = url.replace("%", "%%")
    config.set_main_option("sqlalchemy.url", escaped)
    databases = [name.strip() for name in (config.get_main_option("databases") or "").split(",") if name.strip()]
    if len(databases) > 1:
        raise ValueError(f"it migrates several databases at once ({', '.join(databases)}), and only one can be copied")
    for name in databases:
        config.set_section_option(name, "sqlalchemy.url", escaped)


def _config(request: Request) -> Config:
    from alembic.config import CommandLine, Config

    ini, toml = request["ini"], request["toml"]
    try:
        config = Config(ini, toml_file=toml) if toml else Config(ini)
    except TypeError:  # an Alembic before 1.16
        config = Config(ini)
    if ini:  # Alembic inserts the folder unescaped, and then fails on a % in it
        defaults: Any = config.file_config.defaults()
        defaults["here"] = os.path.dirname(ini).replace("%", "%%")
    if request["script_location"]:
        config.set_main_option("script_location", request["script_location"].replace("%", "%%"))
    if extra := request.get("x"):
        typed = [word for one in extra for word in ("-x", one)]
        config.cmd_opts = CommandLine().parser.parse_args([*typed, "upgrade", request.get("target", "heads")])
    return config


def _scripts(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


def _explained(error: BaseException) -> Answer:
    """Return the error in one line, and the last of the app's files in its traceback."""
    frames = [one.filename for one in traceback.extract_tb(error.__traceback__)]
    own = [one for one in frames if os.sep + "site-packages" + os.sep not in one]
    own = [one for one in own if one != __file__ and os.path.basename(one) != "sitecustomize.py"]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return {
        "error": text,
        "file": own[-1] if own and os.path.exists(own[-1]) else "",
        "missing": getattr(error, "name", "") if isinstance(error, ModuleNotFoundError) else "",
        "refused": refused_in(_traceback(error)),
    }


def refused_in(said: str) -> str:
    """Return what the app's code was kept from, by what it said; empty for nothing."""
    return next((one for one in (REFUSAL, REFUSAL_OF_UPLOADS) if one in said), "")


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


_ACTIONS: dict[str, Callable[[Request], Answer]] = {
    "read": _read,
    "version_table": _find_version_table,
    "upgrade": _upgrade,
}


def _main(request: Request) -> int:
    answers = os.dup(1)  # kept, whatever the app's code does to its stdout
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.getcwd(), *(one for one in sys.path if os.path.abspath(one) != here), *request["search"]]
    try:
        answer = _ACTIONS[request["action"]](request)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        answer = _explained(error)
    sys.stdout.flush()
    os.write(answers, f"\n{MARK}{json.dumps(answer)}\n".encode())
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
