"""A backup sent to the browser as one file, and one taken in from it; neither is ever a file on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Generator

from backupkit.archive import export
from backupkit.archive.export import Imported
from backupkit.cli import render
from backupkit.cli.task import Task
from backupkit.model.events import EventListener
from backupkit.repository import store
from backupkit.web.jobs import Job
from backupkit.web.site import Visit

_CHUNK = 256 * 1024
_LOOK = 0.3  # seconds between two looks at the job while nothing arrives


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
    """The page of the job that takes the archive in; it has arrived, or the job has ended."""
    settings, passphrase, name = visit.settings, visit.form.get("passphrase", ""), visit.form.get("name", "").strip()
    keys = await asyncio.to_thread(export.keys_for, settings, (), lambda: passphrase)
    read, write = os.pipe()

    def act(emit: EventListener) -> Imported:
        with open(read, "rb") as stream:
            return export.import_backup(settings, stream, keys, name or None, emit=emit)

    task = Task("Taking in a backup", act, lambda done: render.imported(settings.reach, done))
    job = visit.site.jobs.start(task, visit.actor)
    with contextlib.suppress(BrokenPipeError, TimeoutError), open(write, "wb", buffering=0) as pipe:
        while chunk := await _next(arriving, job):
            await asyncio.to_thread(_write_all, pipe.fileno(), chunk)
    return f"job/{job.number}"


async def _next(arriving: AsyncIterator[bytes], job: Job) -> bytes:
    """What arrives next; nothing at the end, or where the job is cancelled: it waits for what may never come."""
    coming = asyncio.ensure_future(anext(arriving, b""))
    try:
        while not coming.done() and not job.run.wants_to_end and job.ended is None:
            await asyncio.wait([coming], timeout=_LOOK)
        return await coming if coming.done() else b""
    finally:
        coming.cancel()


def _write_all(handle: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(handle, view) :]
