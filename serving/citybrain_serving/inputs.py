"""The newest window of a task, cut from the store, and how complete it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.features import Features, Window
from citybrain_datasets.task import Task
from citybrain_serving.store import ObservationStore


@dataclass(frozen=True)
class InputHealth:
    """What a forecast had to go on.

    ``seen`` is the share of nodes whose target was measured at least once in the history, ``signals`` the
    share of each signal's history that was measured; ``newest`` the last tick of the target with a
    reading, None for none.
    """

    seen: float
    newest: pd.Timestamp | None
    signals: Mapping[str, float]


def newest_window(store: ObservationStore, features: Features, issue: pd.Timestamp) -> Window:
    """The window issued at ``issue``, with a batch of one; equal to what training cuts from the same
    readings.

    Only ticks that a feature reads are fetched: a week of a large city is not loaded for two of its days.
    """
    times = pd.DatetimeIndex([issue])
    return Window(times, {name: _cut(store, features, name, issue)[None] for name in features.signals})


def health(features: Features, window: Window) -> InputHealth:
    task = features.task
    share = {n: float(np.isfinite(v[:, : task.history]).mean()) for n, v in window.values.items() if v.size}
    measured = np.isfinite(window.values[task.target][0, : task.history])
    ticks = np.flatnonzero(measured.any(axis=1))
    newest = window.issue[0] - (task.history - 1 - int(ticks[-1])) * task.step if len(ticks) else None
    return InputHealth(float(measured.any(axis=0).mean()), newest, share)


def last_seen(features: Features, window: Window, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Newest measured value of a signal at each node and its age in steps, float32 ``[node]``, NaN for none in the
    history."""
    history = window.values[name][0, : features.task.history]
    seen = np.isfinite(history)
    age = np.argmax(seen[::-1], axis=0)
    newest = history[len(history) - 1 - age, np.arange(history.shape[1])]
    return newest, np.where(np.isfinite(newest), age, np.nan).astype(np.float32)


def _cut(store: ObservationStore, features: Features, name: str, issue: pd.Timestamp) -> np.ndarray:
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


def sampled(store: ObservationStore, task: Task, name: str, issue: pd.Timestamp, first: int, last: int) -> np.ndarray:
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
