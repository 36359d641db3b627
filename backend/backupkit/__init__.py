"""Back up and restore an app that is a SQLite database, Alembic migrations and a folder of uploads.

A *backup* is a folder under `backups/`. *Sources* fill it, a *manifest* seals it, the *store* finds it
again, the *verbs* act on it, and the *faces* let people and machines use the verbs.

The rooms, in the one direction in which imports go (`tests/test_layers.py` holds it):

    faces    print, ask, exit: the console, the demo
    verbs    one module a verb: create, restore, recover, undo, dump, inspect, doctor, status
    parts    manifest, journal, lock, history, schema, store, space, and the sources: database, uploads, sql
    ground   disk and process: the only modules that change the world; durable when they return
    words    settings, model, errors, events, names: values; import nothing of ours
"""

__version__ = "0.1.0"
