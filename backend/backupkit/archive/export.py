"""Export a backup as one file, plain or encrypted, and import one, which is treated as untrusted input."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from msgspec import Struct

from backupkit.archive import age_keys, encryption, packing
from backupkit.archive.encryption import Identities, Recipients
from backupkit.config.secrets import revealed
from backupkit.config.settings import Settings
from backupkit.fs import compression, disk
from backupkit.model.backup import CHECKSUM_FILE, Backup
from backupkit.model.errors import BackupError, Damaged, Refused
from backupkit.model.events import EventListener, Progress, Step, Warned, collecting, silence
from backupkit.model.names import check_name
from backupkit.repository import flags, manifest, store
from backupkit.repository.operation import locked_operation
from backupkit.restore.recovery import recover_under_lock

_SUFFIXES = (".tar.zst", ".tar.gz", ".tar")
_UNTRUSTED = "Copy it again from where it was made, or take another one."


class Exported(Struct, frozen=True):
    """The exported backup, the file and its size, and whether a key is needed to read it."""

    backup: Backup
    path: Path
    size_bytes: int
    encrypted: bool
    warnings: tuple[str, ...] = ()


class Imported(Struct, frozen=True):
    """The backup that is here now, and warnings about the archive."""

    backup: Backup
    warnings: tuple[str, ...] = ()


def export_path(settings: Settings, file: str) -> Path:
    """Return the path of an archive: a bare name is in the backups folder, anything else is a path."""
    return store.file_named(settings, file)


def export_backup(
    settings: Settings, name: str, target: Path, closing: Recipients | None = None, emit: EventListener = silence
) -> Exported:
    """Write the backup to one new file of mode 0600: complete and on disk, or not there. Its suffix says the format.

    Raises `NoSuchBackup`; `Refused` if the file exists or its suffix does not fit; `Damaged` if the backup is not as it
    was sealed; `NoSpace`.
    """
    closing = closing or Recipients()
    check_suffix(target.name, closing)
    store.require(settings.dir)
    store.require_free(target)
    warnings: list[str] = []
    with locked_operation(settings, f"export of {name}", emit, names=[name]) as work:
        recover_under_lock(settings, work.emit)
        with disk.atomic_file(target) as draft, compression.open_for_writing(draft, "plain") as raw:
            backup = export_to(settings, name, raw, target.name, closing, collecting(work.emit, warnings))
        work.about(backup)
    return Exported(backup, target, target.stat().st_size, bool(closing), tuple(warnings))


def export_to(
    settings: Settings, name: str, out: BinaryIO, form: str, closing: Recipients, emit: EventListener = silence
) -> Backup:
    """Write the backup to an open stream, in the format of the suffix of `form`; the caller closes the stream.

    Takes no lock: the reader of the stream may take hours, and a sealed backup does not change.
    """
    check_suffix(form, closing)
    backup = store.find(settings, name, emit)
    metadata = store.require_metadata(backup)
    if not manifest.has_checksums(backup.path):
        emit(Warned(f"{backup.name} has no checksums (unchecked): it is exported as it lies there."))
    inner = form.removesuffix(encryption.SUFFIX)
    sealing = encryption.encrypting(out, closing) if closing else contextlib.nullcontext(out)
    with sealing as plain, compression.compressing(plain, inner) as packed:
        packing.pack(backup.path, metadata, backup.size_bytes, packed, emit)
    return backup


def recipients_for(
    settings: Settings, name: str, recipients: Iterable[str], files: Iterable[Path], ask: Callable[[], str]
) -> Recipients:
    """Return the recipients of a file of that name: keys before a passphrase, given keys before those in the settings.

    Each text and each file must hold a key: raise `Refused` for one that has none, as from a variable that is not set.
    `ask` is called for a passphrase if the name says encrypted and there is no key or passphrase.
    """
    texts = [*(("--recipient", text) for text in recipients), *((str(file), _text_of(file)) for file in files)]
    if not texts and settings.export_recipients:
        texts = [("BACKUP_EXPORT_RECIPIENTS", settings.export_recipients)]
    if texts:
        return Recipients(recipients=tuple(key for where, text in texts for key in _keys_in(text, where)))
    passphrase = revealed(settings.export_passphrase)
    return Recipients(passphrase=passphrase or (ask() if name.endswith(encryption.SUFFIX) else ""))


def identities_for(settings: Settings, files: Iterable[Path], ask: Callable[[], str]) -> Identities:
    """Return what may open an archive: keys of the files, else the settings' key; and the passphrase, set or asked."""
    found = [key for file in files for key in age_keys.identities(_text_of(file), str(file))]
    if not found and (key := revealed(settings.export_identity)):
        found = age_keys.identities(key, "BACKUP_EXPORT_IDENTITY")
    return Identities(tuple(found), lambda: revealed(settings.export_passphrase) or ask())


def _keys_in(text: str, where: str) -> list[bytes]:
    """Return the public keys in the text; raise `Refused` if there are none: an encryption was asked for."""
    if keys := age_keys.recipients(text):
        return keys
    raise Refused(
        f"{where} holds no key of age.",
        hint="Give it a public key, age1…; for a file that is not encrypted leave the option out.",
    )


def _text_of(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Refused(f"There is no key file {file}.", hint="`age-keygen -o FILE` makes one.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"The key file {file} cannot be read: {error}.", hint=f"Look at it: ls -l {file}") from error


def check_suffix(name: str, closing: Recipients) -> None:
    """Raise `Refused` if the suffix is not an archive format, or says encrypted without recipients, or the reverse."""
    if not name.removesuffix(encryption.SUFFIX).endswith(_SUFFIXES):
        raise Refused(
            f"The name {name} does not say which kind of archive to write.",
            hint=f"End it in {', '.join(_SUFFIXES)}, followed by {encryption.SUFFIX} to encrypt it.",
        )
    if name.endswith(encryption.SUFFIX) and not closing:
        raise Refused(
            f"{name} is to be encrypted, but no recipient is given.",
            hint="Give --recipient age1…, or set BACKUP_EXPORT_PASSPHRASE_FILE, or type a passphrase at a terminal.",
        )
    if closing and not name.endswith(encryption.SUFFIX):
        raise Refused(
            f"The name {name} does not show that the file is encrypted.",
            hint=f"Name it {name}{encryption.SUFFIX}; for a plain file give no recipient, and unset BACKUP_EXPORT_….",
        )


def import_backup(
    settings: Settings,
    source: Path | BinaryIO,
    keys: Identities | None = None,
    name: str | None = None,
    trust: bool = False,
    emit: EventListener = silence,
) -> Imported:
    """Import the backup in an archive, sealed as it was: complete and on disk, or not there.

    `trust` accepts what a person must vouch for. Raises `NoSuchBackup` if the file does not exist; `Refused` if the
    name is taken or no key fits; `Damaged` if the archive is altered, incomplete or hostile; `NoSpace`. Nothing is left
    behind then.
    """
    if name is not None:
        check_name(name)
    if isinstance(source, Path):
        missing = f"There is no archive at {source}."
        store.require_file(settings, source, missing, "*.tar*", "If it is a backup, copy it to the backups folder.")
    store.require(settings.dir)
    warnings: list[str] = []
    with locked_operation(settings, "import", emit) as work:
        listener = collecting(work.emit, warnings)
        recover_under_lock(settings, listener)
        with _opened(source, keys or Identities(), listener) as plain:
            archived, members = packing.read_name(plain)
            final = _free_name(settings, name, archived)
            with store.draft_folder(settings, final) as draft:
                packing.unpack(archived, members, draft, settings.zone, trust, listener)
                _refuse_untrusted(settings, draft, archived, listener)
        flags.forget(settings.dir, final)
        imported = store.read(settings, final)
        work.about(imported)
    return Imported(imported, tuple(warnings))


def _free_name(settings: Settings, wanted: str | None, archived: str) -> str:
    try:
        name = wanted or check_name(archived)
    except Refused as error:
        raise Damaged(
            f"The archive is refused: {archived[:100]!r} is not a name for a backup.", hint=_UNTRUSTED
        ) from error
    if name in store.taken_names(settings):
        raise Refused(
            f"There is a {name} in {settings.dir} already.", hint="Give it another name: `import FILE --name NAME`"
        )
    if name == store.LATEST:
        raise Refused("'latest' means the newest backup, and cannot be a name.", hint="Choose another: --name NAME")
    return name


def _refuse_untrusted(settings: Settings, draft: Path, archived: str, emit: EventListener) -> None:
    """Raise `Damaged` unless the draft is a sound backup; warn if it has no checksums to check it by."""
    found = store.read(settings, draft.name)
    if found.metadata is None or found.state == "damaged":
        reason = found.error.replace(str(draft), archived).rstrip(".")
        raise Damaged(f"The archive is refused: {reason}.", hint=_UNTRUSTED)
    if found.state == "unchecked":
        emit(Warned(f"The archive has no {CHECKSUM_FILE}: what is in it could not be checked."))


@contextlib.contextmanager
def _opened(source: Path | BinaryIO, keys: Identities, emit: EventListener) -> Iterator[BinaryIO]:
    """Yield the tar in the file, decrypted and decompressed as its first bytes require."""
    if not isinstance(source, Path):
        emit(Step("Importing"))
        yield _plain(_ProgressReader(source, "The archive on standard input", emit), keys)
        return
    try:
        raw = disk.NamedFile(os.open(source, os.O_RDONLY | os.O_CLOEXEC), source)
    except OSError as error:
        raise BackupError(f"Cannot read {source}: {error.strerror}.", hint=f"Look at it: ls -l {source}") from error
    with raw:
        emit(Step("Importing", os.fstat(raw.fileno()).st_size))
        yield _plain(_ProgressReader(cast(BinaryIO, raw), str(source), emit), keys)


def _plain(raw: _ProgressReader, keys: Identities) -> BinaryIO:
    buffered = io.BufferedReader(raw, disk.CHUNK)
    start = buffered.peek()
    if start.startswith(encryption.ARMOR):
        raise Refused(f"{raw.name} is an age file written as text.", hint="Decrypt it first: age -d FILE > b.tar.zst")
    if start.startswith(encryption.MAGIC):
        return compression.decompressing(encryption.decrypting(cast(BinaryIO, buffered), keys, raw.name))
    if raw.name.endswith(encryption.SUFFIX):
        raise Damaged(f"{raw.name} is not an age file.", hint=_UNTRUSTED)
    return compression.decompressing(cast(BinaryIO, buffered))


class _ProgressReader(io.RawIOBase):
    """A stream that emits how far it was read; its first read is long enough to identify the format, even of a pipe."""

    def __init__(self, raw: BinaryIO, name: str, emit: EventListener) -> None:
        self._raw, self.name, self._tell, self._done = raw, name, emit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        count, wanted = 0, min(len(target), len(encryption.ARMOR))
        while count < wanted and (data := self._raw.read(len(target) - count)):
            target[count : count + len(data)] = data
            count += len(data)
        self._done += count
        self._tell(Progress(self._done))
        return count
