"""Restore: plan, safety copy, staging, journal, apply, proof; also recovery, undo, and copies outside the app."""

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
"""Modules that other packages may import; tests/system/test_layers.py checks it."""
