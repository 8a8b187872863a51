"""The newest window of a task, cut from the store, and how complete it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from citybrain_datasets.features import Features, Window
from citybrain_datasets.signals import Signal, Ticks
from citybrain_datasets.task import Task


class Readable(Protocol):
    """What a window is cut from; see :class:`~citybrain_serving.store.ObservationStore`."""

    def read(self, signal: str, first: pd.Timestamp, last: pd.Timestamp) -> Signal: ...

    def ticks(self, signal: str) -> Ticks: ...


@dataclass(frozen=True)
class Outlook:
    """What was known of the weather over a horizon: ``future[signal]`` float32 ``[horizon, node]``, NaN where nothing
    was, and when it was ``issued``, the newest first; () where there is none."""

    future: Mapping[str, np.ndarray]
    issued: tuple[pd.Timestamp, ...]


@dataclass(frozen=True)
class WeatherHealth:
    """The weather forecasts that a forecast rests on: when they were ``issued``, the newest first, and the share of
    each signal's horizon that they tell."""

    issued: tuple[pd.Timestamp, ...]
    signals: Mapping[str, float]


@dataclass(frozen=True)
class TrafficHealth:
    """The forecast of the traffic ``signal`` that a forecast of the air rests on: when it was ``issued`` and by which
    ``bundle``, None and empty where there was none, and the ``share`` that it tells of what is read ahead."""

    issued: pd.Timestamp | None
    bundle: str
    signal: str
    share: float


@dataclass(frozen=True)
class InputHealth:
    """What a forecast had to go on.

    ``seen`` is the share of nodes whose target was measured at least once in the history, ``signals`` the
    share of each signal's history that was measured; ``newest`` the last tick of the target with a
    reading, None for none. ``weather`` is None for a model that reads no weather forecast, ``traffic`` for one that
    reads no congestion forecast; only where it is not does it enter the name of a forecast.
    """

    seen: float
    newest: pd.Timestamp | None
    signals: Mapping[str, float]
    weather: WeatherHealth | None = None
    traffic: TrafficHealth | None = field(default=None, repr=False)


def newest_window(store: Readable, features: Features, issue: pd.Timestamp, outlook: Outlook | None = None) -> Window:
    """The window issued at ``issue``, with a batch of one; equal to what training cuts from the same
    readings.

    Only ticks that a feature reads are fetched: a week of a large city is not loaded for two of its days.
    """
    times = pd.DatetimeIndex([issue])
    values = {name: _cut(store, features, name, issue)[None] for name in features.signals}
    return Window(times, values, {} if outlook is None else {n: told[None] for n, told in outlook.future.items()})


def health(features: Features, window: Window, outlook: Outlook | None = None) -> InputHealth:
    task = features.task
    share = {n: float(np.isfinite(v[:, : task.history]).mean()) for n, v in window.values.items() if v.size}
    measured = np.isfinite(window.values[task.target][0, : task.history])
    ticks = np.flatnonzero(measured.any(axis=1))
    newest = window.issue[0] - (task.history - 1 - int(ticks[-1])) * task.step if len(ticks) else None
    return InputHealth(float(measured.any(axis=0).mean()), newest, share, _weather(outlook))


def _weather(outlook: Outlook | None) -> WeatherHealth | None:
    if outlook is None:
        return None
    return WeatherHealth(outlook.issued, {n: float(np.isfinite(v).mean()) for n, v in outlook.future.items()})


def last_seen(features: Features, window: Window, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Newest measured value of a signal at each node and its age in steps, float32 ``[node]``, NaN for none in the
    history."""
    history = window.values[name][0, : features.task.history]
    seen = np.isfinite(history)
    age = np.argmax(seen[::-1], axis=0)
    newest = history[len(history) - 1 - age, np.arange(history.shape[1])]
    return newest, np.where(np.isfinite(newest), age, np.nan).astype(np.float32)


def _cut(store: Readable, features: Features, name: str, issue: pd.Timestamp) -> np.ndarray:
    """Values float32 ``[offset, node]`` of one signal, run of ticks by run."""
    task, offsets = features.task, features.offsets(name)
    wanted = np.unique(offsets)
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
    rows: dict[int, np.ndarray] = {}
    for run in runs:
        values = sampled(store, task, name, issue, int(run[0]), int(run[-1]))
        assert len(values) == len(run), f"{task.name}: {name} came in {len(values)} ticks, {len(run)} were asked for"
        rows |= zip(run.tolist(), values, strict=True)
    return np.stack([rows[offset] for offset in offsets.tolist()])


def sampled(store: Readable, task: Task, name: str, issue: pd.Timestamp, first: int, last: int) -> np.ndarray:
    """A signal at the steps ``first`` … ``last`` from the issue time as the task samples it, float32
    ``[step, node]``."""
    start, end = issue + first * task.step, issue + last * task.step
    if task.sampling == "last":
        signal = store.read(name, start, end)
        return signal.values[:: int(task.step / signal.step)]
    ticks = store.ticks(name)
    if ticks.step > task.step:
        held = store.read(name, ticks.floor(start), ticks.floor(end)).at(task.step)
        return held.between(start, end).values
    step = ticks.step
    return store.read(name, start - task.step + step, end).at(task.step).values
