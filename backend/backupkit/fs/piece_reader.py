"""A stream to read from whose content comes in pieces, each made of another stream's."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import Any


class PieceReader(io.RawIOBase):
    """A stream of pieces of any length; one may be empty."""

    _ready = memoryview(b"")

    @abstractmethod
    def _next_piece(self) -> bytes | None:
        """Return the next piece, or None at the end."""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        while not self._ready:
            piece = self._next_piece()
            if piece is None:
                return 0
            self._ready = memoryview(piece)
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
