"""Files, folders and processes. What a function did is on disk when it returns, unless its docstring says otherwise.

Nothing here knows what a backup is, and no link is followed.
"""
