"""Files, folders and processes. Every change is on disk when the call returns, unless a docstring says otherwise.

Nothing here knows what a backup is, and nothing follows a symlink unless a docstring says so.
"""
