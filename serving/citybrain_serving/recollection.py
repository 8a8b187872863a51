"""Frames that were decoded lately: from one cycle to the next a window changes by one tick of hundreds."""

from __future__ import annotations

import threading

import numpy as np
from cachetools import LRUCache

Key = tuple[str, int]
"""Signal and time."""


class Recollection:
    """Decoded frames of at most ``most`` bytes, each beside the bytes that it was decoded from.

    What a database holds may change without this process knowing. A frame is therefore taken from here only for the
    very bytes it was made of; comparing them costs a hundredth of decoding.
    """

    def __init__(self, most: int):
        self._frames: LRUCache[Key, tuple[bytes, np.ndarray]] = LRUCache(most, getsizeof=_bytes)
        self._lock = threading.Lock()

    def get(self, key: Key, data: bytes) -> np.ndarray | None:
        with self._lock:
            found = self._frames.get(key)
        return found[1] if found is not None and found[0] == data else None

    def keep(self, key: Key, data: bytes, values: np.ndarray) -> None:
        values.setflags(write=False)
        with self._lock:
            if _bytes((data, values)) <= self._frames.maxsize:
                self._frames[key] = (data, values)


def _bytes(frame: tuple[bytes, np.ndarray]) -> int:
    return len(frame[0]) + frame[1].nbytes
