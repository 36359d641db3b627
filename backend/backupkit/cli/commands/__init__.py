"""The commands, a module for each heading of `--help`.

Each command reads its options, calls a function of the library, and shows the result. To add one, write a function here
with its examples; the help, the reference and the hints include it automatically.
"""

from backupkit.cli.commands import back_up, check, copies, restore, set_up

__all__ = ["back_up", "check", "copies", "restore", "set_up"]
