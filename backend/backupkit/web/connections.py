"""The listening socket of the pages: where all places for connections are taken, the one that waits longest is closed.

A connection waits until a whole request of it has come; one on which somebody signed in is answered is never closed.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, Literal, NamedTuple

_MOST = 64
Rank = Literal[0, 1, 2]
WAITS: Rank = 0
ANSWERED: Rank = 1
SIGNED_IN: Rank = 2


class _Open(NamedTuple):
    connection: socket.socket
    rank: Rank


class BoundedSocket(socket.socket):
    """A listening socket with at most `_MOST` open connections."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.family, listening.type, listening.proto, listening.detach())
        self._opened: dict[int, _Open] = {}
        """By descriptor; the one that was heard of last comes last."""

    def accept(self) -> tuple[socket.socket, Any]:
        connection, peer = super().accept()
        self._opened = {handle: one for handle, one in self._opened.items() if one.connection.fileno() >= 0}
        if len(self._opened) >= _MOST and not self._makes_room():
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "too many connections")
        self._opened[connection.fileno()] = _Open(connection, WAITS)
        return connection, peer

    def _makes_room(self) -> bool:
        """End a connection; return False if somebody signed in uses each of them."""
        handle = self._first()
        if handle is None:
            return False
        with contextlib.suppress(OSError):  # the other side has closed it
            self._opened.pop(handle).connection.shutdown(socket.SHUT_RDWR)  # asyncio reads the end, and closes it
        return True

    def _first(self) -> int | None:
        """Return the first that waits; or the first stranger who is answered, if these take more than half of all."""
        waiting, answered = ([at for at, one in self._opened.items() if one.rank == rank] for rank in (WAITS, ANSWERED))
        return next(iter(answered if len(answered) > _MOST // 2 or not waiting else waiting), None)

    def note(self, handle: int, rank: Rank) -> None:
        """Note that the connection with this descriptor was heard of, and its rank."""
        if found := self._opened.pop(handle, None):
            self._opened[handle] = found._replace(rank=rank)
