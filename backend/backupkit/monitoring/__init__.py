"""Is all well: status, doctor, metrics, the log, notifications, and what a recovery kit says."""
