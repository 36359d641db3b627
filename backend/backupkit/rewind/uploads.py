"""Compare the live uploads with the state of the newest point, and write new content into the next point."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import attributes, disk, tree
from backupkit.fs.stamps import RACY, change_stamp
from backupkit.repository.files_cache import ParentBackup
from backupkit.rewind.point import Change, Content, Entry, Writer
from backupkit.rewind.state import KnownUpload, entry_of
from backupkit.upload_files import live_file, marked, selection, walk

_ATTEMPTS = 3


@dataclass
class Scan:
    """One walk through the live uploads: the changes, the change stamp of each folder, and the unreadable paths.

    `stamps` are new change stamps of unchanged entries; they are not changes.
    """

    live: Path
    known: dict[str, KnownUpload]
    writer: Writer
    earlier: ParentBackup | None
    in_base: dict[str, str]
    changes: list[Change] = field(default_factory=list)
    stamps: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    excluded: tuple[str, ...] = ()
    """Folders left out because of a marker file in them."""

    def run(self, settings: Settings) -> None:
        """Walk the live uploads once, and fill the result attributes."""
        selected = selection.of(settings)
        skip = selected.leaves_out
        seen = {""}
        with closing(tree.Parents(self.live)) as parents:
            facts = os.fstat(parents.go(""))
            self.folders[""] = change_stamp(facts)
            self._compare("", entry_of(facts, attributes.of_open(parents.go(""))), self.folders[""])
            for entry in tree.walk(self.live, skip=skip, unreadable=lambda path, _error: self.unreadable.append(path)):
                if entry.form != "special" and self._compare_entry(entry, parents):
                    seen.add(entry.path)
        if self.unreadable:
            walk.require(
                self.live, settings.part
            )  # if the whole folder cannot be read now, it is not about single files
        self.excluded = tuple(sorted(map(marked.key, selected.marked.found)))
        hidden = tuple(f"{path}/" for path in self.unreadable)
        self.changes = [one for one in self.changes if not f"{one.path}/".startswith(hidden)]
        # Unreadable paths are not deleted ones: they keep their last known state.
        gone = [path for path in self.known.keys() - seen if not f"{path}/".startswith(hidden)]
        self.changes += [Change(path) for path in sorted(gone, reverse=True)]

    def _compare_entry(self, entry: tree.Entry, parents: tree.Parents) -> bool:
        """Compare one entry; return whether it exists and can be read."""
        stamp = change_stamp(entry.facts)
        if entry.form == "folder":
            self.folders[entry.path] = stamp
        before = self.known.get(entry.path)
        if before and before.stamp == stamp != RACY:
            return True
        below, _, name = entry.path.rpartition("/")
        try:
            folder = live_file.call(parents.go, below)
            if entry.form == "file":
                return self._compare_file(entry.path, name, folder)
            found = live_file.call(attributes.of_name, name, folder)
            self._compare(entry.path, replace(entry_of(entry.facts, found), target=entry.target), stamp)
            return True
        except (live_file.Gone, live_file.Unreadable):
            if _is_there(entry.path, parents):
                self.unreadable.append(entry.path)
            return False

    def _compare(self, path: str, entry: Entry, stamp: str) -> None:
        before = self.known.get(path)
        if before and before.is_as(entry):
            self.stamps[path] = stamp
        else:
            self.changes.append(Change(path, entry, stamp=stamp))

    def _compare_file(self, path: str, name: str, folder: int) -> bool:
        for attempt in range(_ATTEMPTS):
            with live_file.opened(name, folder) as handle, self.writer.content() as content:
                facts = live_file.facts_of(handle)
                if tree.form_of(facts.st_mode) != "file":
                    return False
                entry, stamp = entry_of(facts, live_file.call(attributes.of_open, handle)), change_stamp(facts)
                if checksum := self._unchanged_checksum(path, facts):
                    return self._record_file(path, replace(entry, sha256=checksum), content, stamp)
                for chunk in iter(partial(live_file.call, os.read, handle, disk.CHUNK), b""):
                    content.add(chunk)
                is_still = tree.signature(live_file.facts_of(handle)) == tree.signature(facts)
                if is_still or attempt == _ATTEMPTS - 1:
                    entry = replace(entry, sha256=content.sha256, size=content.size)
                    return self._record_file(path, entry, content, stamp if is_still else RACY)
        return False

    def _unchanged_checksum(self, path: str, facts: os.stat_result) -> str:
        """Return the checksum of a file that has not changed since the base backup read it, or an empty string."""
        if self.earlier is None or (before := self.known.get(path)) is None or not before.entry.sha256:
            return ""
        seen = self.earlier.find(path)
        return seen.checksum if seen and seen.still_matches(facts) and change_stamp(facts) != RACY else ""

    def _record_file(self, path: str, entry: Entry, content: Content, stamp: str) -> bool:
        before = self.known.get(path)
        if before and before.is_as(entry):
            self.stamps[path] = stamp
        elif before and before.entry.sha256 == entry.sha256 and before.entry.form == "file":
            self.changes.append(Change(path, entry, "before", stamp=stamp))
        elif source := self.in_base.get(entry.sha256, ""):
            self.changes.append(Change(path, entry, "base", source=source, stamp=stamp))
        else:
            content.is_kept = True
            self.changes.append(Change(path, entry, "here", content.offset, stamp=stamp))
        return True


def _is_there(path: str, parents: tree.Parents) -> bool:
    """Return whether anything has that path now, or may have it."""
    try:
        return parents.look(path) is not None
    except OSError:
        return True


def folders_are_as(live: Path, folders: dict[str, str]) -> bool:
    """Return whether no folder changed since these stamps: nothing was added, removed or renamed in it."""
    return all(stamp != RACY and stamp == _stamp_of_folder(f"{live}/{path}") for path, stamp in folders.items())


def _stamp_of_folder(folder: str) -> str:
    try:
        return change_stamp(os.stat(folder, follow_symlinks=folder.endswith("/")))
    except OSError:
        return ""


def by_checksum(known: dict[str, KnownUpload]) -> Iterator[tuple[str, str]]:
    """Yield checksum and path of each file of a backup."""
    return ((one.entry.sha256, path) for path, one in known.items() if one.entry.form == "file" and one.entry.sha256)
