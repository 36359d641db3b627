"""Run the migrations on one SQLite file: all of those asked for, or none.

The file is, in this order of precedence:

1. the connection in `Config.attributes["connection"]`; its owner commits;
2. `-x url=sqlite:///…` or `-x database=PATH` on the command line;
3. `sqlalchemy.url`, as set by `Config.set_main_option`;
4. the environment: `BACKUP_DATABASE` (a path or a URL), then `DATABASE_URL`;
5. `data/pats.db` beside alembic.ini.

Relative paths of 4 and 5 start in the folder of alembic.ini, those of 2 and 3 where the caller stands.
"""

from __future__ import annotations

from logging.config import fileConfig
from pathlib import Path
from typing import Any

from alembic import context
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.pool import NullPool

from backupkit import back_up_before_upgrade
from models import FOLDER, Base, database_path

config = context.config


def app_folder() -> Path:
    """The folder of alembic.ini."""
    return Path(config.config_file_name).resolve().parent if config.config_file_name else FOLDER


def database_url() -> URL:
    """The file to migrate, where the caller has brought no connection."""
    chosen = context.get_x_argument(as_dictionary=True)
    if url := chosen.get("url"):
        return make_url(url)
    if path := chosen.get("database"):
        return URL.create("sqlite", database=path)
    if url := config.get_main_option("sqlalchemy.url"):
        return make_url(url)
    return URL.create("sqlite", database=str(database_path(app_folder())))


def transactional_engine(url: URL) -> Engine:
    """An engine whose transactions hold CREATE and DROP too, so that a failing migration leaves nothing behind.

    Foreign keys stay unenforced, SQLite's default: with them, the DROP in a batch migration would cascade.
    """
    engine = create_engine(url, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def run(connection: Connection) -> None:
    """Run what Alembic was asked for on this connection."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_server_default=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline() -> None:
    """Print the SQL instead (`alembic upgrade --sql`)."""
    context.configure(url=database_url(), target_metadata=Base.metadata, render_as_batch=True, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Run on the caller's connection, else on one of our own."""
    if brought := config.attributes.get("connection"):
        return run(brought)
    url = database_url()
    back_up_before_upgrade(context, url)
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    with transactional_engine(url).connect() as connection:
        run(connection)


if config.cmd_opts is not None and config.config_file_name:  # only the command line may touch logging
    fileConfig(config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    run_offline()
else:
    run_online()
