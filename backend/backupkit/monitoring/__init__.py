"""Is all well: status, doctor, metrics, the log, notifications, and what a recovery kit says."""

PUBLIC = ("doctor", "log", "notify", "overview", "preview", "prometheus", "recovery_kit", "report_facts", "status")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
