"""What an index is now, at every node, from what was measured, the way its standard takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from citybrain_serving.indices import air
from citybrain_serving.indices.catalogue import Index
from citybrain_serving.snapshot import Forecast

Basis = Literal["observed", "hour", "nowcast", "forecast"]
BASES: tuple[Basis, ...] = ("observed", "hour", "nowcast", "forecast")
"""``observed`` the newest reading where that is of the present, ``hour`` the mean of the last full hour, ``nowcast``
the last twelve hours weighted, ``forecast`` the median of the next step, where nothing was measured lately."""


@dataclass(frozen=True)
class Current:
    """``value [node]`` of the index, float64, NaN where it is unknown; ``basis [node]`` positions in :data:`BASES`."""

    value: np.ndarray
    basis: np.ndarray


def current(
    index: Index, forecast: Forecast, free: np.ndarray, hours: Callable[[], np.ndarray], stale_steps: int
) -> Current:
    """``free`` are free-flow speeds ``[node]``, ``hours`` gives hourly means ``[hour, node]``, oldest first; a reading
    of more than ``stale_steps`` steps is not of the present.

    A NowCast stands for nothing but itself: without two of the last three hours there is none.
    """
    if index.now == "nowcast":
        measured = air.nowcast(hours())
        return Current(index.compute(measured, free), np.full(len(measured), BASES.index("nowcast")))
    if index.taken is not None:  # of what is to come at the next step: what was measured has no quantiles
        ahead = index.at_level(forecast.values[:, 0], forecast.task.quantiles, free)
        return Current(ahead.astype(float), np.full(len(ahead), BASES.index("forecast")))
    measured, basis = newest(forecast, stale_steps)
    if index.now == "hour":
        hour = hours()[-1]
        known = np.isfinite(hour)
        measured, basis = np.where(known, hour, measured), np.where(known, BASES.index("hour"), basis)
    return Current(index.compute(measured, free).astype(float), basis)


def newest(forecast: Forecast, stale_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The newest measured value of the target, or the median of the next step where there is none of at most
    ``stale_steps`` steps, ``[node]``; and which of the two it is."""
    seen = forecast.fresh(stale_steps)
    values = np.where(seen, forecast.observed, forecast.values[:, 0, forecast.task.median])
    return values, np.where(seen, BASES.index("observed"), BASES.index("forecast"))
