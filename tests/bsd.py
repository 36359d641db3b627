"""Stand-ins that refuse options only GNU programs understand, as macOS's do; this machine's programs do the work."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

# The options of each program in getopt's form: those that macOS and FreeBSD share. None has long options.
LETTERS = {
    "basename": "as:",
    "cat": "benstuv",
    "chmod": "HLPRfhv",
    "cksum": "o:",
    "cp": "HLPRafinpv",
    "date": "jnuf:r:v:",
    "dirname": "",
    "grep": "EFGHILRUVabchilnoqrsvwxzA:B:C:e:f:m:",
    "gzip": "123456789cdfhklLNnqrtVv",
    "head": "c:n:",
    "ln": "Ffhinsvw",
    "ls": "ABCFGHLOPRSTUWabcdfghiklmnopqrstuwx1",
    "mkdir": "m:pv",
    "mktemp": "dqt:u",
    "mv": "finvh",
    "ps": "AaCceEfhjLlMmO:o:p:rSTt:U:u:vwXx",
    "readlink": "n",
    "rm": "dfiPRrvW",
    "sleep": "",
    "sync": "",
    "tr": "Ccdsu",
}
PRIMARIES = {
    "-exec",
    "-maxdepth",
    "-mindepth",
    "-mmin",
    "-mtime",
    "-name",
    "-newer",
    "-path",
    "-print",
    "-prune",
    "-type",
}

PROGRAM = """#!{python} -IS
import getopt, json, os, sys
name, real, letters, words = {name!r}, {real!r}, {letters!r}, sys.argv[1:]

def is_understood():
    if name == "find":
        return {{word for word in words if word[:1] == "-" and word[1:2].isalpha()}} - {{"-rf"}} <= {primaries!r}
    try:
        options, operands = getopt.getopt(words, letters)  # like BSD's, it stops at the first that is not an option
    except getopt.GetoptError:
        return False
    return "--" in words or not any(len(word) > 1 and word[0] == "-" for word in operands)

with open({log!r}, "a") as log:
    print(json.dumps([name, is_understood(), words]), file=log)
if not is_understood():
    sys.exit(name + ": illegal option")
if name == "date":  # with GNU's, -r is a file
    words = [("-d@" + word) if before == "-r" else word for before, word in zip(["", *words], words) if word != "-r"]
os.execv(real, [name, *words])
"""


class Programs:
    """Stand-ins in that folder, for the programs of the same names."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "bsd.jsonl"
        for name, letters in {**LETTERS, "find": ""}.items():
            real = shutil.which(name)
            assert real, name
            facts = {"python": sys.executable, "log": str(self._log), "primaries": PRIMARIES}
            program = folder / name
            program.unlink(missing_ok=True)
            program.write_text(PROGRAM.format(name=name, real=real, letters=letters, **facts))
            program.chmod(0o755)

    def used(self) -> set[str]:
        return {name for name, _, _ in self._calls()}

    def refused(self) -> list[str]:
        """The calls that they did not understand."""
        return [" ".join([name, *words]) for name, is_understood, words in self._calls() if not is_understood]

    def _calls(self) -> list[tuple[str, bool, list[str]]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]
