"""A backup sent to the browser as one file, and one taken in from it; neither is ever a file with a name."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import BinaryIO

from backupkit.archive import export
from backupkit.archive.export import Imported
from backupkit.cli import render
from backupkit.cli.task import Task
from backupkit.fs import own_folder
from backupkit.model.errors import from_os_error
from backupkit.model.events import EventListener
from backupkit.repository import flags, store
from backupkit.web.site import Visit

_CHUNK = 256 * 1024


def packed(visit: Visit, name: str) -> tuple[str, Generator[bytes, None, None]]:
    """The file's name, and its content piece by piece; encrypted where the settings have a key for that.

    Raises `NoSuchBackup`. What fails later ends the content early, and the browser says that the file is incomplete.
    """
    settings = visit.settings
    backup = store.find(settings, name)
    closing = export.closing_for(settings, "", (), (), lambda: "")
    form = ".tar.zst.age" if closing else ".tar.zst"
    read, write = os.pipe()
    failed: list[BaseException] = []

    def pack() -> None:
        try:
            with open(write, "wb") as out:
                export.export_to(settings, backup.name, out, form, closing)
        except BaseException as error:
            failed.append(error)

    def content() -> Generator[bytes, None, None]:
        thread = threading.Thread(target=pack, name=f"download of {backup.name}")
        with open(read, "rb", buffering=0) as pipe:
            thread.start()
            while chunk := pipe.read(_CHUNK):
                yield chunk
        thread.join()
        if failed:
            raise failed[0]

    return f"{backup.name}{form}", content()


async def take_in(visit: Visit, arriving: AsyncIterator[bytes]) -> str:
    """The page of the job that takes the archive in, when all of it has arrived.

    It arrives in a file without a name, of which nothing stays: whoever sends slowly holds no lock.
    """
    settings, passphrase, name = visit.settings, visit.form.get("passphrase", ""), visit.form.get("name", "").strip()
    keys = await asyncio.to_thread(export.keys_for, settings, (), lambda: passphrase)
    spool = await asyncio.to_thread(_spool, settings.dir)
    try:
        async for chunk in arriving:
            await asyncio.to_thread(spool.write, chunk)
    except BaseException as error:
        spool.close()
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise from_os_error(error) from error
        raise

    def act(emit: EventListener) -> Imported:
        with spool:
            spool.seek(0)
            return export.import_backup(settings, spool, keys, name or None, emit=emit)

    task = Task("Taking in a backup", act, lambda done: render.imported(settings.reach, done))
    return f"job/{visit.site.jobs.start(task, visit.actor).number}"


def _spool(backups: Path) -> BinaryIO:
    with own_folder.made(backups, flags.STATE_FOLDER) as folder:
        return tempfile.TemporaryFile(dir=folder)
