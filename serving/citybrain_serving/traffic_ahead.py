"""The congestion forecast that a forecast of the air reads ahead: the newest that could be known when it was issued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from citybrain_datasets.features import Features
from citybrain_datasets.signals import Signal, Ticks
from citybrain_datasets.task import Task
from citybrain_serving.fleet import Fleet
from citybrain_serving.inputs import TrafficHealth, sampled
from citybrain_serving.snapshot import Forecast


class Issued(Protocol):
    """Forecasts as they were issued; see :class:`~citybrain_serving.history.History`."""

    def latest(self, task: str, first: pd.Timestamp, last: pd.Timestamp) -> Forecast | None: ...


@dataclass(frozen=True)
class TrafficOutlook:
    """What was forecast of the traffic, float32 ``[step, node]``, NaN where nothing was, and by which forecast."""

    values: np.ndarray
    health: TrafficHealth


class TrafficForecasts:
    """Finds them among what is published, and where that was issued later, in the history."""

    def __init__(self, fleet: Fleet, history: Issued):
        self.fleet = fleet
        self.history = history

    def source(self, task: Task) -> Task | None:
        """The task whose forecast ``task`` reads; None where it reads none, or nobody here forecasts that signal."""
        if task.context_ahead is None:
            return None
        tasks = (bundle.task for bundle in self.fleet.bundles.values())
        return next((other for other in tasks if other.target == task.context_ahead[0]), None)

    def outlook(
        self, features: Features, issue: pd.Timestamp, published: Mapping[str, Forecast]
    ) -> TrafficOutlook | None:
        """What was known at ``issue`` of the traffic ahead; None where the task reads none.

        Its medians count, as the task samples the signal. A forecast that is not the model's tells nothing; where
        nothing is told the network goes by the weekly profile, which it reads in any case.
        """
        task = features.task
        if task.context_ahead is None:
            return None
        signal, steps = task.context_ahead
        forecast = self._newest(task, issue, published)
        if forecast is None:
            unknown = np.full((steps, len(self.fleet.channels[signal].ids)), np.nan, np.float32)
            return TrafficOutlook(unknown, TrafficHealth(None, "", signal, 0.0))
        values = sampled(_Told(forecast), task, signal, issue, 1, steps)
        share = float(np.isfinite(values).mean())
        return TrafficOutlook(values, TrafficHealth(forecast.issued, forecast.bundle, signal, share))

    def _newest(self, task: Task, issue: pd.Timestamp, published: Mapping[str, Forecast]) -> Forecast | None:
        source = self.source(task)
        if source is None:
            return None
        found = published.get(source.name)
        if found is None or found.issued > issue:
            found = self.history.latest(source.name, issue - source.horizon * source.step, issue)
        return found if found is not None and found.source == "model" else None


class _Told:
    """A forecast's medians, to be read as observations are."""

    def __init__(self, forecast: Forecast):
        self.forecast = forecast

    def ticks(self, signal: str) -> Ticks:
        step = self.forecast.task.step_minutes
        return Ticks(step, int(self.forecast.issued.timestamp()) // 60 % step)

    def read(self, signal: str, first: pd.Timestamp, last: pd.Timestamp) -> Signal:
        task, medians = self.forecast.task, self.forecast.values[:, :, self.forecast.task.median].T
        values = np.full((max(0, (last - first) // task.step + 1), medians.shape[1]), np.nan, np.float32)
        row, off_the_clock = divmod(self.forecast.times[0] - first, task.step)
        rows = np.arange(row, row + task.horizon)
        inside = (rows >= 0) & (rows < len(values)) & (not off_the_clock)
        values[rows[inside]] = medians[inside]
        return Signal(signal, task.node, first, task.step, values)
