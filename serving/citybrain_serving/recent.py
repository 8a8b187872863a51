"""The last hours as they were measured: what indices of the present are made from."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
from cachetools import LRUCache

from citybrain_serving.snapshot import Forecast
from citybrain_serving.store import ObservationStore

HOURS = 12
"""As many as a NowCast weighs."""

MEASURED = 0.75
"""Share of an hour that has to be measured for a mean of it: 45 minutes, as GB 3095 has it."""

KEPT = 8

_HOUR = pd.Timedelta(hours=1)


def nothing(forecast: Forecast) -> np.ndarray:
    """The last hours of which nothing is known, as :meth:`Recent.hours` has them."""
    return np.full((HOURS, len(forecast.observed)), np.nan, np.float32)


class Recent:
    """Hourly means, read from the store once a forecast and held for whoever asks next."""

    def __init__(self, store: ObservationStore):
        self.store = store
        self._held: LRUCache[str, np.ndarray] = LRUCache(KEPT)
        self._lock = threading.Lock()

    def hours(self, forecast: Forecast) -> np.ndarray:
        """Means of the target over the last hours before the issue time, float32 ``[hour, node]``, oldest first, NaN
        where too little was measured. Raises :class:`~citybrain_serving.errors.StoreUnavailable`."""
        with self._lock:
            held = self._held.get(forecast.digest)
        if held is None:
            held = self._read(forecast)
            with self._lock:
                self._held[forecast.digest] = held
        return held

    def _read(self, forecast: Forecast) -> np.ndarray:
        name, ticks = forecast.task.target, self.store.ticks(forecast.task.target)
        unknown = nothing(forecast)
        if ticks.step > _HOUR or _HOUR % ticks.step:
            return unknown
        last = ticks.floor(forecast.issued) if ticks.step == _HOUR else forecast.issued.floor(_HOUR)
        measured = self.store.read(name, last - HOURS * _HOUR + ticks.step, last)
        means = measured.at(_HOUR, coverage=MEASURED).values
        return means if means.shape == unknown.shape else unknown
