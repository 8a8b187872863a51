"""Memory that is free and that the C library keeps, given back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Each thread takes memory of its own, and glibc keeps what it frees for it. Other C libraries give it back by
    themselves, or not at all. Takes milliseconds: for moments after which much is free."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
