"""Access control: accounts with a password, a one-time link, and persistent sessions that can all be ended at once.

A password is stored in `.state/` as its Argon2id hash, a session as the SHA-256 of its key; neither can be reversed.

A browser sends a cookie to every port of a host, and so to any other program that listens there. A session therefore
has two secrets. One is the cookie. The other is the first segment of every path of that session, and the cookie is
limited to that path: the browser sends it nowhere else, and a request needs both.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec import Struct, to_builtins

from backupkit.config.settings import Settings
from backupkit.fs import disk, own_folder
from backupkit.model.errors import BackupError, Refused
from backupkit.monitoring import log
from backupkit.repository import flags

Role = Literal["owner", "viewer"]
ROLES: tuple[Role, ...] = ("owner", "viewer")
COOKIE, MARK_COOKIE = "backupkit", "backupkit-known"
SESSION_SECONDS = 30 * 24 * 3600.0  # seconds that a session lasts
MIN_PASSWORD_LENGTH = 10  # characters of the shortest password
_FOLDER = "web"  # below .state
_SESSIONS, _MARK_KEY = "sessions.json", "known"
_FREE_GUESSES, _LONGEST_WAIT = 5, 300.0
_MOST_SESSIONS = 50


class Session(Struct, frozen=True):
    """A signed-in browser session, identified by its `path` and the hash of its key. `until` is a Unix time in seconds.

    `accounts` is a hash over the password hashes at sign-in: the session ends when a password changes.
    """

    path: str
    key_hash: str
    role: Role
    until: float
    accounts: str


@dataclass
class _Guesses:
    """Consecutive wrong passwords for an account, and the clock time before which no other is accepted."""

    failures: int = 0
    not_before: float = 0.0

    def count(self, now: float) -> None:
        """Record one wrong password; from the fifth on, double the wait each time, up to `_LONGEST_WAIT` seconds."""
        self.failures += 1
        if self.failures >= _FREE_GUESSES:
            self.not_before = now + min(2.0 ** (self.failures - _FREE_GUESSES + 1), _LONGEST_WAIT)


class Access:
    """The accounts, the sessions and the one-time link of one server. Thread-safe."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._backups = settings.dir
        given = {"owner": settings.web_password, "viewer": settings.web_viewer_password}
        self._given = {
            role: self._hash_from_settings(role, one.get_secret_value()) for role, one in given.items() if one
        }
        self._seen: dict[str, str] = {}
        self._clock = clock
        self._lock, self._sign_in_lock = threading.Lock(), threading.Lock()
        self._guesses: dict[tuple[Role, str], _Guesses] = {}  # by account and mark; "": browsers without one
        self._mark_key = _read(settings.dir, _MARK_KEY) or self._new_mark_key()
        self._link = ""
        self._sessions = _read_sessions(_read(settings.dir, _SESSIONS))

    # Passwords

    def has_password(self) -> bool:
        """Return whether the owner's account has a password."""
        return bool(self._password_hash("owner"))

    def set_password(self, role: Role, password: str) -> None:
        """Store the hash of the password and end every session. Raise `Refused` if the password is too short."""
        if len(password) < MIN_PASSWORD_LENGTH:
            raise Refused(
                f"The password is shorter than {MIN_PASSWORD_LENGTH} characters.", hint="Choose a longer one."
            )
        _put(self._backups, role, _hash_password(password))
        self.end()

    def sign_in(self, password: str, mark: str = "") -> tuple[Session, str] | None:
        """Return a new session and its key, or None if no account has this password.

        After five wrong passwords in a row, each further attempt must wait longer: raise `Refused` with the seconds
        left. A browser with one of our marks has a count of its own; otherwise any stranger could lock its user out.

        Each account has its own count. A viewer's sign-in does not reset the owner's count: otherwise whoever has the
        viewer's password could guess the owner's without a wait.
        """
        with self._sign_in_lock:  # one at a time: each hash takes 64 MiB, and parallel guesses must not evade the wait
            counts = {one: self._guesses_of(one, mark) for one in ROLES if self._password_hash(one)}
            tried = [one for one in counts if counts[one].not_before <= self._clock()]
            role = next((one for one in tried if _is_right(password, self._password_hash(one))), None)
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
        """Return the count for the account: the browser's own if it signed in before as this account or as owner."""
        is_known = self.is_mark(mark, "owner") or self.is_mark(mark, role)
        return self._guesses.setdefault((role, mark if is_known else ""), _Guesses())

    def new_mark(self, role: Role) -> str:
        """Return a signed mark by which a browser that signed in is recognized later; it grants no access."""
        name = secrets.token_urlsafe(12)
        return f"{name}.{self._signature(role, name)}"

    def is_mark(self, mark: str, role: Role) -> bool:
        """Return whether this server signed `mark` for a sign-in to that account."""
        name, _, signature = mark.partition(".")
        return hmac.compare_digest(signature.encode(), self._signature(role, name).encode())

    def mark_of(self, marks: Iterable[str]) -> str:
        """Return the first valid mark, the owner's before the viewer's; empty if this server signed none of them."""
        marks = list(marks)
        return next((mark for role in ROLES for mark in marks if self.is_mark(mark, role)), "")

    def _signature(self, role: Role, name: str) -> str:
        return hmac.new(self._mark_key.encode(), f"{role} {name}".encode(), "sha256").hexdigest()

    def _new_mark_key(self) -> str:
        made = secrets.token_hex(32)
        with contextlib.suppress(OSError, BackupError):  # then marks are valid only until this server stops
            _put(self._backups, _MARK_KEY, made)
        return made

    def _password_hash(self, role: Role) -> str:
        """Return the account's password hash, empty if there is none; the last one if its file cannot be read now."""
        if role in self._given:
            return self._given[role]
        if found := _read(self._backups, role):
            self._seen[role] = found
        return self._seen.get(role, "")

    def _hash_from_settings(self, role: str, password: str) -> str:
        """Return the hash of a password from the settings: the stored one if it still fits, to keep sessions valid."""
        if len(password) < MIN_PASSWORD_LENGTH:
            raise Refused(
                f"The {role}'s password in the settings is shorter than {MIN_PASSWORD_LENGTH} characters.",
                hint="Choose a longer one.",
            )
        kept = _read(self._backups, f"given-{role}")
        if _is_right(password, kept):
            return kept
        made = _hash_password(password)
        with contextlib.suppress(OSError, BackupError):
            _put(self._backups, f"given-{role}", made)
        return made

    def _accounts(self) -> str:
        return _hash("\n".join(map(self._password_hash, ROLES)))

    # The one-time link

    def new_link(self) -> str:
        """Return a token that lets one browser in, once, and invalidate the token before it."""
        self._link = secrets.token_urlsafe(24)
        return self._link

    def follow_link(self, token: str) -> tuple[Session, str] | None:
        """Return a new session of the owner and its key, or None if the token is not valid; the token is then used."""
        with self._lock:
            if not self._link or not hmac.compare_digest(token.encode(), self._link.encode()):
                return None
            self._link = ""
        return self._begin("owner")

    # Sessions

    def session(self, path: str, key: str) -> Session | None:
        """Return the session of that path if the key opens it and no password has changed since, else None."""
        found = self.knows(path, key)
        return found if found and found.accounts == self._accounts() else None

    def knows(self, path: str, key: str) -> Session | None:
        """Return the session as it began, at once: a password may have changed since."""
        found = self._sessions.get(path)
        if not found or not hmac.compare_digest(_hash(key), found.key_hash):
            return None
        return found if time.time() < found.until else None

    def end(self, session: Session | None = None) -> None:
        """Sign this session out, or every one."""
        with self._lock:
            self._sessions = {path: one for path, one in self._sessions.items() if session and path != session.path}
            self._write()

    def _begin(self, role: Role) -> tuple[Session, str]:
        key = secrets.token_urlsafe(32)
        session = Session(secrets.token_urlsafe(16), _hash(key), role, time.time() + SESSION_SECONDS, self._accounts())
        with self._lock:
            lasting = [one for one in self._sessions.values() if time.time() < one.until]
            self._sessions = {one.path: one for one in (*lasting[1 - _MOST_SESSIONS :], session)}
            try:
                self._write()
            except (OSError, BackupError) as error:  # sign-in must work on a full disk; it ends with the server
                log.error(f"web: the session is not kept: {error}")
        return session, key

    def _write(self) -> None:
        _put(self._backups, _SESSIONS, json.dumps([to_builtins(one) for one in self._sessions.values()]))


def form_token(key: str) -> str:
    """Return the token that every form of the session with this key contains; another site cannot know it."""
    return hmac.new(key.encode(), b"form", "sha256").hexdigest()


def is_form_token(given: str, key: str) -> bool:
    """Return whether `given` is the form token of the session with this key."""
    return hmac.compare_digest(given.encode(), form_token(key).encode())


def _put(backups: Path, name: str, text: str) -> None:
    with own_folder.made(backups, flags.STATE_FOLDER, _FOLDER) as folder:
        disk.write_file(folder / name, text.encode())


def _read(backups: Path, name: str) -> str:
    """Return the stored text; empty if the file is missing, unreadable or not a plain file."""
    try:
        with own_folder.existing(backups, flags.STATE_FOLDER, _FOLDER) as folder:
            return disk.read_plain(folder / name, disk.MOST_STATE).decode() if folder else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _read_sessions(text: str) -> dict[str, Session]:
    """Return the sessions that have not expired, by path; none from a malformed file, so that everybody signs in."""
    try:
        sessions = [Session(**one) for one in json.loads(text or "[]")]
        return {one.path: one for one in sessions if one.role in ROLES and time.time() < one.until}
    except (ValueError, TypeError):
        return {}


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _hash_password(password: str) -> str:
    """Return the hash by Argon2id with the second recommended parameters of RFC 9106: 64 MiB, three passes."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    salt = secrets.token_bytes(16)
    made = Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=64 * 1024)
    return made.derive_phc_encoded(password.encode())


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
