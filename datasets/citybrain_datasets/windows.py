"""Windows cut from signals: in training from a city's history, in serving from the newest observations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.features import Features, Window
from citybrain_datasets.signals import Signal
from citybrain_datasets.statistics import clocked


class WindowSource:
    """Windows and answers at any issue time; what lies outside the signals is NaN.

    ``signals`` are as :func:`~citybrain_datasets.statistics.clocked` gives them. ``forecasts`` are
    known-future signals; where a test uses observed weather as a stand-in for a perfect forecast, they are the
    observations themselves. A forecast of the context (``context_ahead``) no city keeps: windows come without.
    """

    def __init__(
        self, features: Features, signals: Mapping[str, Signal], forecasts: Mapping[str, Signal] | None = None
    ):
        self.features = features
        self.task = features.task
        self.signals = dict(signals)
        self.forecasts = dict(forecasts or {})
        for name in features.signals:
            if self.task.step % self.signals[name].step != pd.Timedelta(0):
                raise ValueError(f"{name} has step {self.signals[name].step}, which does not divide {self.task.step}")
        self._check_ticks()
        self._offsets = {name: features.offsets(name) for name in features.signals}
        self._leads = np.arange(1, self.task.horizon + 1)

    @staticmethod
    def of_city(features: Features, city: City) -> WindowSource:
        task = features.task
        signals = {name: clocked(city, task, name) for name in features.signals}
        return WindowSource(features, signals, {n: clocked(city, task, n) for n in task.known_future})

    @property
    def target(self) -> Signal:
        return self.signals[self.task.target]

    def window(self, issue: pd.DatetimeIndex) -> Window:
        """The windows issued at ``issue``, UTC ends of intervals."""
        values = {name: self._take(self.signals[name], issue, offsets) for name, offsets in self._offsets.items()}
        future = {name: self._take(signal, issue, self._leads) for name, signal in self.forecasts.items()}
        return Window(issue, values, future)

    def answer(self, issue: pd.DatetimeIndex) -> np.ndarray:
        """What was measured over the horizon, float32 ``[batch, horizon, node]``."""
        return self._take(self.target, issue, self._leads)

    def issues(self) -> pd.DatetimeIndex:
        """Every measured time with a whole recent history before it and a whole horizon after it inside the signal."""
        times, stride = self.target.times, self.task.step // self.target.step
        return times[(self.task.history - 1) * stride : len(times) - self.task.horizon * stride]

    def _check_ticks(self) -> None:
        """Raises :class:`CityError` for a signal that is measured between the ticks of the target."""
        for name, signal in {**self.signals, **self.forecasts}.items():
            if (apart := (signal.start - self.target.start) % min(signal.step, self.target.step)) != pd.Timedelta(0):
                what = f"ticks {apart} past {self.target.name}, on the task's clock of {self.task.step}"
                raise CityError([Problem(f"signal {name}", f"{what}; both must be measured at the same times")])

    def _take(self, signal: Signal, issue: pd.DatetimeIndex, offsets: np.ndarray) -> np.ndarray:
        """Values float32 ``[batch, offset, node]`` at ``issue + offset * step``."""
        row = ((issue - signal.start) / signal.step).to_numpy()
        if not np.all(row == np.round(row)):
            raise ValueError(f"issue times are not on the clock of {signal.name}")
        rows = row.astype(np.int64)[:, None] + offsets * (self.task.step // signal.step)
        inside = (rows >= 0) & (rows < signal.shape[0])
        values = signal.values[rows.clip(0, max(signal.shape[0] - 1, 0))]
        if not inside.all():
            values[~inside] = np.nan
        return values
