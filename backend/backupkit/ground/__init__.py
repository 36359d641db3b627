"""The only modules that change the world: disk and processes.

What they did is on disk when they return, unless their docstring says otherwise. They know no backup and no SQLite, and
follow no link.
"""
