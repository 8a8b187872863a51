"""Weather forecasts in: every value is accepted, found already there, or refused with its row and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from citybrain_datasets.task import WEATHER
from citybrain_serving.clock import Clock
from citybrain_serving.ingest import Ingest
from citybrain_serving.readings import FAULTS, Fault, Readings
from citybrain_serving.store import Partial
from citybrain_serving.weather.store import WeatherForecasts

FARTHEST = pd.Timedelta(days=16)
"""How far ahead a value may lie: as far as the weather services forecast day by day."""


class _Issue:
    """The store as seen by one forecast."""

    def __init__(self, forecasts: WeatherForecasts, issued: int):
        self.forecasts = forecasts
        self.issued = issued

    def merge(self, partials: Sequence[Partial]) -> list[np.ndarray]:
        return self.forecasts.merge(self.issued, partials)

    def newest(self) -> Mapping[str, pd.Timestamp]:
        return {}


class WeatherIngest(Ingest):
    """Checks the values of one weather forecast, ``issued`` in seconds since 1970 UTC, and stores the sound ones."""

    def __init__(self, forecasts: WeatherForecasts, clock: Clock, issued: int):
        channels = {name: channel for name, channel in forecasts.channels.items() if name in WEATHER}
        super().__init__(channels, _Issue(forecasts, issued), None, clock, forecasts.lasting)
        self.issued = issued

    def _check_times(self, readings: Readings) -> None:
        latest, now, every = self.clock.latest(), self.clock.now(), np.ones(len(readings), bool)
        if latest is not None and self.issued > latest.timestamp():
            readings.refuse(every, Fault.FROM_THE_FUTURE)
        if now is not None and self.issued < (now - self.oldest).timestamp():
            readings.refuse(every, Fault.TOO_OLD)
        readings.refuse(readings.times < self.issued, Fault.NOT_AHEAD)
        readings.refuse(readings.times > self.issued + FARTHEST.total_seconds(), Fault.TOO_FAR_AHEAD)

    def _detail(self, readings: Readings, row: int) -> str:
        """What is wrong with one row, in words."""
        texts = {
            Fault.UNKNOWN_SIGNAL: f"signal {str(readings.signals[row])[:80]!r} is no weather of this city;"
            f" known are {', '.join(self.channels) or 'none'}",
            Fault.FROM_THE_FUTURE: f"issued is later than {self.clock.latest()}, the newest accepted",
            Fault.TOO_OLD: f"issued is more than {self.oldest} before now; no forecast reads it",
            Fault.NOT_AHEAD: "time is before issued: what has been is no forecast",
            Fault.TOO_FAR_AHEAD: f"time is more than {FARTHEST} after issued",
        }
        return texts.get(FAULTS[readings.fault[row]]) or super()._detail(readings, row)
