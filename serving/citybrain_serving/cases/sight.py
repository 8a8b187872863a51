"""What a forecast sees that those before it did not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_serving.snapshot import Forecast


class Sight:
    """Follows when each node was measured. Each observation counts once: a forecast from the same one is no second sign
    of anything."""

    def __init__(self, stale_steps: int):
        self.stale_steps = stale_steps
        self._measured: dict[str, np.ndarray] = {}

    def anew(self, forecast: Forecast, now: pd.Timestamp) -> np.ndarray:
        """Nodes, bool ``[node]``, that a forecast sees and that were measured since what :meth:`counted` was told."""
        seen = forecast.sees(now, self.stale_steps)
        before = self._measured.get(forecast.task.name)
        return seen if before is None else seen & ~(forecast.observed_times <= before)

    def counted(self, forecast: Forecast, seen: np.ndarray) -> None:
        """Notes that ``seen`` was made use of."""
        before = self._measured.get(forecast.task.name, np.datetime64("NaT", "s"))
        self._measured[forecast.task.name] = np.where(seen, forecast.observed_times, before)
