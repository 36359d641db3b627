"""The backups folder: list, find, draft and publish by one rename, lock, and the state beside the backups."""
