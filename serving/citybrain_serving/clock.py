"""What time it is: the system's clock, or the newest observation when the past is replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pandas as pd

REPLAY_LEAP = pd.Timedelta(days=1)
"""How far one observation may move a replayed clock: a single wrong date must not end the replay."""


class Clock(Protocol):
    def now(self) -> pd.Timestamp | None:
        """The present, UTC; None while it is unknown."""
        ...

    def latest(self) -> pd.Timestamp | None:
        """The newest time an observation may have, UTC; None for no limit."""
        ...


class SystemClock:
    """The machine's clock. ``tolerance`` is how far ahead of it an observation may lie."""

    def __init__(self, tolerance: pd.Timedelta):
        self.tolerance = tolerance

    def now(self) -> pd.Timestamp:
        return pd.Timestamp.now("UTC")

    def latest(self) -> pd.Timestamp:
        return self.now() + self.tolerance


class ObservationClock:
    """The newest observation is the present, so that a recorded day runs as if it were today."""

    def __init__(self, newest: Callable[[], pd.Timestamp | None]):
        self.now = newest

    def latest(self) -> pd.Timestamp | None:
        now = self.now()
        return None if now is None else now + REPLAY_LEAP
