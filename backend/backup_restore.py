#!/usr/bin/env python3
"""Back up and restore the app in this folder: its SQLite database and its uploads.

The commands are in `backupkit/cli/commands/`. Results go to stdout, everything else to stderr. Exit codes are listed
in `backupkit/model/errors.py`.
"""

from __future__ import annotations

import gc
import signal
import sys

if __name__ == "__main__":
    gc.set_threshold(50_000)  # what the imports make stays: the search for garbage in it is a tenth of their time
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # during the imports there is nothing to clean up

from pathlib import Path

try:
    from backupkit.cli.commands import back_up, check, copies, restore, set_up
    from backupkit.cli.program import assembled, run
except ModuleNotFoundError as missing:
    if missing.name and missing.name.startswith("backupkit"):
        raise
    sys.exit(
        f"Error: The package {missing.name} is not installed in {sys.executable}.\n"
        f"  Next: {sys.executable} -m pip install -r {Path(__file__).with_name('requirements.txt')}; "
        "or type ./backup.sh, which brings its own."
    )

app = assembled(
    Path(__file__),
    back_up.commands,
    restore.commands,
    check.commands,
    copies.commands,
    set_up.commands,
)


def main() -> None:
    """Run the program."""
    run(app)


if __name__ == "__main__":
    main()
