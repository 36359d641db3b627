"""Remotes: where copies of backups are carried. A module a kind; all keep to `base.Remote`."""
