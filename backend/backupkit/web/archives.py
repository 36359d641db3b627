"""Download of a backup as one file, and import of an uploaded one; neither is ever stored as a named file."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
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
    """Return the file's name and its content in chunks; encrypted if the settings have a key for that.

    Raise `NoSuchBackup`. A later failure ends the content early, and the browser reports an incomplete file.
    """
    settings = visit.settings
    backup = store.find(settings, name)
    closing = export.recipients_for(settings, "", (), (), lambda: "")
    form = ".tar.zst.age" if closing else ".tar.zst"
    read, write = os.pipe()

    def pack() -> None:
        with open(write, "wb") as out:
            export.export_to(settings, backup.name, out, form, closing)

    def content() -> Generator[bytes, None, None]:
        executor = ThreadPoolExecutor(1)
        with open(read, "rb", buffering=0) as pipe:
            packing = executor.submit(pack)
            executor.shutdown(wait=False)  # its thread ends with its work, or once nobody reads the pipe
            while chunk := pipe.read(_CHUNK):
                yield chunk
        packing.result()

    return f"{backup.name}{form}", content()


async def import_upload(visit: Visit, arriving: AsyncIterator[bytes]) -> str:
    """Receive the whole archive, start the job that imports it, and return the path of the job's page.

    The archive is spooled to an unnamed temporary file first, so that a slow sender holds no lock.
    """
    settings, passphrase, name = visit.settings, visit.form.get("passphrase", ""), visit.typed("name")
    keys = await asyncio.to_thread(export.identities_for, settings, (), lambda: passphrase)
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

    task = Task("Taking in a backup", act, lambda done: render.imported(settings.deployment, done))
    return f"job/{visit.site.jobs.start(task, visit.actor).number}"


def _spool(backups: Path) -> BinaryIO:
    with own_folder.made(backups, flags.STATE_FOLDER) as folder:
        return tempfile.TemporaryFile(dir=folder)
