"""Monitoring: status, doctor, metrics, the log, notifications, reports and the recovery kit."""

PUBLIC = ("doctor", "log", "notify", "overview", "preview", "prometheus", "recovery_kit", "report_facts", "status")
"""Modules that other packages may import; the rest is private to this package (tests/system/test_layers.py)."""
