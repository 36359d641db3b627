"""Remotes."""
