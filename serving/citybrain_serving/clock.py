"""What time it is: the system's clock, or the newest observation when the past is replayed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import pandas as pd

REPLAY_LEAP = pd.Timedelta(days=1)
"""How far one observation may move a replayed clock: a single wrong date must not end the replay."""


class Clock(Protocol):
    def now(self) -> pd.Timestamp | None:
        """The present, UTC; None while it is unknown."""
        ...

    def seconds(self) -> float | None:
        """The present in seconds since 1970 UTC, told quickly: every read asks."""
        ...

    def latest(self) -> pd.Timestamp | None:
        """The newest time an observation may have, UTC; None for no limit."""
        ...

    def refresh(self) -> None:
        """Looks at what the clock goes by, where asking each time would be too slow for a read."""
        ...


class SystemClock:
    """The machine's clock. ``tolerance`` is how far ahead of it an observation may lie."""

    def __init__(self, tolerance: pd.Timedelta):
        self.tolerance = tolerance

    def now(self) -> pd.Timestamp:
        return pd.Timestamp.now("UTC")

    def seconds(self) -> float:
        return time.time()

    def latest(self) -> pd.Timestamp:
        return self.now() + self.tolerance

    def refresh(self) -> None:
        """The machine keeps its clock by itself."""


class ObservationClock:
    """The newest observation is the present, so that a recorded day runs as if it were today."""

    def __init__(self, newest: Callable[[], pd.Timestamp | None]):
        self._newest = newest
        self._now = newest()

    def now(self) -> pd.Timestamp | None:
        return self._now

    def seconds(self) -> float | None:
        return None if self._now is None else self._now.timestamp()

    def refresh(self) -> None:
        self._now = self._newest()

    def latest(self) -> pd.Timestamp | None:
        return None if self._now is None else self._now + REPLAY_LEAP
