"""Values: backups, metadata, operations, errors, events, names, times, documents. They import nothing of ours."""
