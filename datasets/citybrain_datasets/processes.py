"""Worker processes that end with the one they work for, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType


def end_with_parent() -> None:
    """Called first in a spawned worker: it ends when its parent does, even by SIGKILL, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), name="end-with-parent", daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # nobody is left to be told


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, by which service managers and batch systems end a command, raises ``KeyboardInterrupt`` as Ctrl-C does.
    For the main thread; in any other it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
