"""Where copies of backups are kept off this machine."""
