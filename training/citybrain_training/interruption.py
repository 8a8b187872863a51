"""How a training ends that somebody stops."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException


@contextmanager
def told_as_stopped(trainer: pl.Trainer) -> Iterator[None]:
    """Around ``trainer.fit``: a stop by SIGTERM ends the command with exit code 143, one by Ctrl-C is a
    :class:`KeyboardInterrupt`.

    Lightning ends the process itself, after SIGTERM with exit code 0: whoever waits for the command, a scheduler or
    ``&&``, would take half a training for a finished one.
    """
    try:
        yield
    except SIGTERMException as stopped:
        raise SystemExit(128 + signal.SIGTERM) from stopped
    except SystemExit as stopped:
        if trainer.interrupted:
            raise KeyboardInterrupt from stopped
        raise
