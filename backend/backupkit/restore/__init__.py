"""Restore: plan, safety copy, staging, journal, apply, check; and recovery, undo, and a copy beside the live data."""

PUBLIC = (
    "apart",
    "clone",
    "copy_beside",
    "extract",
    "journal",
    "lay_out",
    "recovery",
    "rescue",
    "restore",
    "staging",
    "undo",
    "unfinished",
)
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
