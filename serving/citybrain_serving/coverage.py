"""Whether outcomes still fall where forecasts say they will: judged as they are measured, step by step.

Scores (:mod:`citybrain_serving.quality`) wait until a whole forecast is over; a control room is told within hours that
the intervals before it cannot be relied on. The median may still be the best there is, so the forecast is published,
and said to be doubted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from citybrain_datasets.task import Task
from citybrain_serving.snapshot import Forecast

RECENT = 12
"""Measured steps that count."""

COLLAPSED, SOUND = 0.5, 0.65
"""Shares of what the interval promises: below the first a forecast is doubted, from the second on no longer."""

ENOUGH = 200
"""Outcomes below which nothing is said."""

JUDGED = 2_000
"""Nodes, evenly taken, that are judged."""


@dataclass(frozen=True)
class Interval:
    """The outer quantiles of a forecast, float32 ``[node, horizon, 2]``."""

    issued: pd.Timestamp
    bounds: np.ndarray


def looks_back(task: Task) -> pd.Timedelta:
    """How old a forecast may be that still matters to :class:`Coverage`."""
    return (RECENT + task.horizon) * task.step


class Coverage:
    """Follows the forecasts of one task. Told by the thread that publishes, and by nobody else."""

    def __init__(self) -> None:
        self.doubted = False
        self._kept: deque[Interval] = deque()
        self._steps: dict[pd.Timestamp, tuple[int, int]] = {}
        self._seen: np.ndarray | None = None
        self._bundle: str | None = None

    @property
    def share(self) -> float | None:
        """Share of recent outcomes inside the interval, None while there are too few."""
        inside, count = (sum(step[part] for step in self._steps.values()) for part in (0, 1))
        return inside / count if count >= ENOUGH else None

    def judged(self, forecast: Forecast) -> Forecast:
        """The forecast as it is to be published: doubted or not. What it observed is the outcome of those before; by
        those of another model no model is judged."""
        if forecast.source == "model" and forecast.bundle != self._bundle:
            self._bundle, self.doubted = forecast.bundle, False
            self._kept.clear()
            self._steps.clear()
        self._judge(forecast)
        share, promised = self.share, forecast.task.quantiles[-1] - forecast.task.quantiles[0]
        if share is not None:
            self.doubted = share < promised * (SOUND if self.doubted else COLLAPSED)
        if forecast.source != "model":
            return forecast
        self._keep(forecast)
        if not self.doubted or share is None:
            return forecast
        reason = f"only {share:.0%} of recent outcomes lay inside the interval; {promised:.0%} should"
        return replace(forecast, doubted=True, reason=reason)

    def recall(self, past: Iterable[Forecast]) -> None:
        """Takes up what was published before, oldest first."""
        for forecast in past:
            self.judged(forecast)

    def _judge(self, forecast: Forecast) -> None:
        task, nodes = forecast.task, _sample(forecast)
        outcome = forecast.observed[nodes]
        # Each observation counts once, however often it is the newest.
        steps_ago = forecast.observed_age[nodes]
        fresh = np.isfinite(outcome) & np.isfinite(steps_ago)  # of unknown age is the outcome of nothing in particular
        steps_ago = np.where(fresh, steps_ago, 0).astype(np.int64)
        seconds = int(forecast.issued.timestamp()) - steps_ago * int(task.step.total_seconds())
        if self._seen is not None and len(self._seen) == len(nodes):
            fresh &= seconds > self._seen
            self._seen = np.where(fresh, seconds, self._seen)
        else:
            self._seen = np.where(fresh, seconds, 0)
        inside, count = self._steps.get(forecast.issued, (0, 0))
        for kept in self._kept:
            ahead = int((forecast.issued - kept.issued) / task.step) - steps_ago - 1
            known = fresh & (ahead >= 0) & (ahead < kept.bounds.shape[1])
            low, high = kept.bounds[np.flatnonzero(known), ahead[known]].T
            inside += int(((outcome[known] >= low) & (outcome[known] <= high)).sum())
            count += int(known.sum())
        if count:
            self._steps[forecast.issued] = (inside, count)
            for old in sorted(self._steps)[:-RECENT]:
                del self._steps[old]

    def _keep(self, forecast: Forecast) -> None:
        bounds = forecast.values[_sample(forecast)][..., [0, -1]]
        oldest = forecast.issued - forecast.task.horizon * forecast.task.step
        later = [kept for kept in self._kept if oldest <= kept.issued < forecast.issued]
        if any(kept.bounds.shape != bounds.shape for kept in later):
            later = []  # another horizon or another city: what was promised before is no measure of it
        self._kept = deque([*later, Interval(forecast.issued, bounds)])


def _sample(forecast: Forecast) -> np.ndarray:
    count = len(forecast.observed)
    return np.arange(0, count, max(1, count // JUDGED))
