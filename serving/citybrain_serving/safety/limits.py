"""How fast one caller may ask: a token bucket each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cachetools import LRUCache

MOST_CALLERS = 50_000


class Buckets:
    """``rate`` requests a second for each caller, ``burst`` at once. Used from the event loop alone."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float] = time.monotonic):
        self.rate = rate
        self.burst = burst
        self.now = now
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(MOST_CALLERS)

    def take(self, caller: str) -> float:
        """Takes one token; 0 where there was one, else the seconds until there is."""
        now = self.now()
        left, then = self._left.get(caller, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.rate)
        if left >= 1:
            self._left[caller] = (left - 1, now)
            return 0.0
        self._left[caller] = (left, now)
        return (1 - left) / self.rate if self.rate else math.inf
