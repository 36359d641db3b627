"""Who may come in: accounts with a password, a link that opens once, and sessions that last and can all be ended.

A password is kept as its Argon2id hash in `.state/`, a session as the SHA-256 of its key; neither can be read back.

A browser sends a cookie to every port of a host, and so to any other program that is served there. So a session has two
keys. One is the cookie. The other is the first part of every path of that session, and the cookie is bound to that
path: a browser sends the cookie nowhere else, and who knows neither comes to nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backupkit.config.settings import Settings
from backupkit.fs import disk, own_folder
from backupkit.model.errors import BackupError, Refused
from backupkit.monitoring import log
from backupkit.repository import flags

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

Role = Literal["owner", "viewer"]
ROLES: tuple[Role, ...] = ("owner", "viewer")
COOKIE, KNOWN = "backupkit", "backupkit-known"
LASTS = 30 * 24 * 3600.0  # seconds that a session lasts
SHORTEST = 10  # characters of a password
_FOLDER = "web"  # below .state
_SESSIONS, _MARKS = "sessions.json", "known"
_FREE_GUESSES, _LONGEST_WAIT = 5, 300.0
_MOST_SESSIONS = 50


@dataclass(frozen=True)
class Session:
    """Somebody who was let in. `path` and the key's hash tell it from others; `until` is seconds since 1970.

    `accounts` are the hashes of the passwords as they were then: with another password it ends.
    """

    path: str
    key_hash: str
    role: Role
    until: float
    accounts: str

    def is_opened_by(self, key: str) -> bool:
        """Whether that is the key of this session, which still lasts."""
        return hmac.compare_digest(_hash(key), self.key_hash) and time.time() < self.until


@dataclass
class _Guesses:
    """Wrong passwords for an account in a row, and when the next one may be tried."""

    failures: int = 0
    not_before: float = 0.0

    def count(self, now: float) -> None:
        """One more was wrong."""
        self.failures += 1
        if self.failures >= _FREE_GUESSES:
            self.not_before = now + min(2.0 ** (self.failures - _FREE_GUESSES + 1), _LONGEST_WAIT)


class Access:
    """The accounts, the sessions and the link of one server. Safe to use from several threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._backups = settings.dir
        given = {"owner": settings.web_password, "viewer": settings.web_viewer_password}
        self._given = {role: self._of_given(role, one.get_secret_value()) for role, one in given.items() if one}
        self._seen: dict[str, tuple[tuple[int, ...], str]] = {}
        self._clock = clock
        self._lock, self._guessing = threading.Lock(), threading.Lock()
        self._guesses: dict[tuple[Role, str], _Guesses] = {}  # by account and mark; "" of all other browsers together
        self._mark_key = _read(settings.dir, _MARKS) or self._new_mark_key()
        self._link = ""
        self._sessions = {one.path: one for one in _read_sessions(_read(settings.dir, _SESSIONS))}

    # Passwords.

    def has_password(self, role: Role = "owner") -> bool:
        """Whether that account has a password."""
        return bool(self._encoded(role))

    def set_password(self, role: Role, password: str) -> None:
        """Keep the hash of the password and end every session. `Refused` for one that is too short."""
        if len(password) < SHORTEST:
            raise Refused(f"The password is shorter than {SHORTEST} characters.", hint="Choose a longer one.")
        _put(self._backups, role, _encode(password))
        self.end_all()

    def sign_in(self, password: str, mark: str = "") -> tuple[Session, str] | None:
        """A new session and its key, where the password is that of an account; None where it is not.

        After five wrong ones in a row each further one has to wait longer: `Refused` says how long. A browser with a
        mark of ours waits for its own guesses alone: else any stranger could keep its person out.

        Each account has its own count, which a sign-in to one that may less does not end: else whoever has the
        viewer's password could guess the owner's without a wait.
        """
        with self._guessing:  # one at a time: each takes 64 MiB, and none may overtake the wait
            counts = {one: self._guesses_of(one, mark) for one in ROLES if self._encoded(one)}
            tried = [one for one in counts if counts[one].not_before <= self._clock()]
            role = next((one for one in tried if _is_right(password, self._encoded(one))), None)
            if role:
                for one in counts if role == "owner" else (role,):
                    counts[one].failures = 0
                return self._begin(role)
            for one in tried:
                counts[one].count(self._clock())
            if len(tried) < len(counts):
                left = max(one.not_before for one in counts.values()) - self._clock()
                raise Refused(f"Too many wrong passwords. The next one can be tried in {left:.0f} seconds.")
        return None

    def _guesses_of(self, role: Role, mark: str) -> _Guesses:
        """The count for that account: of the browser alone where it was let in as that, or as the owner."""
        is_known = self.is_mark(mark, "owner") or self.is_mark(mark, role)
        return self._guesses.setdefault((role, mark if is_known else ""), _Guesses())

    def new_mark(self, role: Role) -> str:
        """What a browser keeps that was let in, to be known by; it opens nothing."""
        name = secrets.token_urlsafe(12)
        return f"{name}.{self._signature(role, name)}"

    def is_mark(self, mark: str, role: Role) -> bool:
        """Whether a browser has that from us, for a sign-in to that account."""
        name, _, signature = mark.partition(".")
        return hmac.compare_digest(signature.encode(), self._signature(role, name).encode())

    def mark_of(self, marks: Iterable[str]) -> str:
        """The one of a browser's marks that tells most; empty where it has none of ours."""
        marks = list(marks)
        return next((mark for role in ROLES for mark in marks if self.is_mark(mark, role)), "")

    def _signature(self, role: Role, name: str) -> str:
        return hmac.new(self._mark_key.encode(), f"{role} {name}".encode(), "sha256").hexdigest()

    def _new_mark_key(self) -> str:
        made = secrets.token_hex(32)
        with contextlib.suppress(OSError, BackupError):  # marks last as long as this server then
            _put(self._backups, _MARKS, made)
        return made

    def _encoded(self, role: Role) -> str:
        """Read where it is another file than before, for another program may set it; else what was read last."""
        if role in self._given:
            return self._given[role]
        stamp = _stamp(self._backups, role)
        if stamp and stamp != self._seen.get(role, ((), ""))[0] and (found := _read(self._backups, role)):
            self._seen[role] = stamp, found
        return self._seen.get(role, ((), ""))[1]

    def _of_given(self, role: str, password: str) -> str:
        """The hash of a password of the settings: that of the last time while it is the same, so that sessions last."""
        if len(password) < SHORTEST:
            raise Refused(
                f"The {role}'s password in the settings is shorter than {SHORTEST} characters.",
                hint="Choose a longer one.",
            )
        kept = _read(self._backups, f"given-{role}")
        if _is_right(password, kept):
            return kept
        made = _encode(password)
        with contextlib.suppress(OSError, BackupError):
            _put(self._backups, f"given-{role}", made)
        return made

    def _accounts(self) -> str:
        return _hash("\n".join(map(self._encoded, ROLES)))

    # A link that opens once.

    def new_link(self) -> str:
        """A token that lets one browser in, once; an earlier one opens nothing any more."""
        self._link = secrets.token_urlsafe(24)
        return self._link

    def follow_link(self, token: str) -> tuple[Session, str] | None:
        """A new session of the owner, where the token is the right one."""
        with self._lock:
            if not self._link or not hmac.compare_digest(token.encode(), self._link.encode()):
                return None
            self._link = ""
        return self._begin("owner")

    # Sessions.

    def session(self, path: str, key: str) -> Session | None:
        """The session of that path, where the key is its own."""
        found = self._sessions.get(path)
        return found if found and found.is_opened_by(key) and found.accounts == self._accounts() else None

    def end(self, session: Session) -> None:
        """Sign one out."""
        with self._lock:
            self._sessions.pop(session.path, None)
            self._write()

    def end_all(self) -> None:
        """Sign everybody out, everywhere."""
        with self._lock:
            self._sessions = {}
            self._write()

    def _begin(self, role: Role) -> tuple[Session, str]:
        key = secrets.token_urlsafe(32)
        session = Session(secrets.token_urlsafe(16), _hash(key), role, time.time() + LASTS, self._accounts())
        with self._lock:
            lasting = [one for one in self._sessions.values() if time.time() < one.until]
            self._sessions = {one.path: one for one in (*lasting[1 - _MOST_SESSIONS :], session)}
            try:
                self._write()
            except (OSError, BackupError) as error:  # a full disk is what one comes in for; it lasts as long as this
                log.error(f"web: the session is not kept: {error}")
        return session, key

    def _write(self) -> None:
        _put(self._backups, _SESSIONS, json.dumps([asdict(one) for one in self._sessions.values()]))


def form_token(key: str) -> str:
    """What every form of a session holds: another site cannot know it."""
    return hmac.new(key.encode(), b"form", "sha256").hexdigest()


def is_form_token(given: str, key: str) -> bool:
    """Whether that came from a form of the session with this key."""
    return hmac.compare_digest(given.encode(), form_token(key).encode())


def _put(backups: Path, name: str, text: str) -> None:
    with own_folder.made(backups, flags.STATE_FOLDER, _FOLDER) as folder:
        disk.write_file(folder / name, text.encode())


def _read(backups: Path, name: str) -> str:
    """What is kept there; empty where it is not there, or is no file of ours."""
    try:
        with own_folder.existing(backups, flags.STATE_FOLDER, _FOLDER) as folder:
            return disk.read_plain(folder / name, disk.MOST_STATE).decode() if folder else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _stamp(backups: Path, name: str) -> tuple[int, ...]:
    """Tells the file from another, and from what it was; empty where there is none."""
    try:
        found = os.lstat(backups / flags.STATE_FOLDER / _FOLDER / name)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read_sessions(text: str) -> list[Session]:
    """Those that last; a file that cannot be read is none: everybody signs in again."""
    try:
        found = json.loads(text or "[]")
        sessions = [
            Session(str(one["path"]), str(one["key_hash"]), one["role"], float(one["until"]), str(one["accounts"]))
            for one in found
        ]
    except (ValueError, TypeError, KeyError):
        return []
    return [one for one in sessions if one.role in ROLES and time.time() < one.until]


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _argon2(salt: bytes) -> Argon2id:
    """With the second recommendation of RFC 9106: 64 MiB of memory, three passes."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    return Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=64 * 1024)


def _encode(password: str) -> str:
    return _argon2(secrets.token_bytes(16)).derive_phc_encoded(password.encode())


def _is_right(password: str, encoded: str) -> bool:
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    if not encoded:
        return False
    try:
        Argon2id.verify_phc_encoded(password.encode(), encoded)
    except (InvalidKey, ValueError):
        return False
    return True
