"""features(window): from measured values to what a network reads. Training and serving call this one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.statistics import Statistics, week_slots
from citybrain_datasets.task import Task

TRAILING = (1, 3, 6, 12, 24, 48)
"""Steps over which the trailing means of inputs other than the target are taken."""


@dataclass(frozen=True)
class Window:
    """Measured values around issue times, in the units of :data:`~citybrain_datasets.signals.KINDS`.

    ``values[signal]`` is float32 ``[batch, offset, node]`` at the steps :meth:`Features.offsets` asks for, relative
    to the issue time; NaN where nothing was measured. ``future[signal]`` is float32 ``[batch, horizon, node]``, that of
    the context as many steps as the task reads of it; what nobody forecast is NaN, or left out.
    """

    issue: pd.DatetimeIndex
    values: Mapping[str, np.ndarray]
    future: Mapping[str, np.ndarray] = field(default_factory=dict)


class Features:
    """Turns windows into the named float32 arrays of a network.

    - ``x_<type>`` ``[batch, node, feature]`` for the target's and the context's node type;
    - ``anchor`` ``[batch, node, 2 + horizon]``: last seen value, mean of the history and weekly profile at each lead,
      standardised;
    - ``time`` ``[batch, feature]``: calendar and city-wide signals;
    - ``seen_<type>`` ``[batch, node]``: share of the history that was measured;
    - ``wind`` ``[batch, node, 2]``: the wind's eastward and northward speed in 10 m/s at the target's nodes, 0 if
      unknown.

    ``placing`` says where each signal is measured (``road``, ``air`` or ``city``).
    """

    def __init__(self, task: Task, statistics: Statistics, calendar: Calendar, placing: Mapping[str, str]):
        self.task = task
        self.statistics = statistics
        self.calendar = calendar
        self.placing = dict(placing)
        self.trailing = tuple(n for n in TRAILING if n <= task.history)
        self.node_inputs = [s for s in task.inputs if self.placing[s] == task.node]
        self.city_inputs = [s for s in task.inputs if self.placing[s] == "city"]

    def offsets(self, name: str) -> np.ndarray:
        """Steps relative to the issue time that ``name`` is read at, int ``[offset]``, all ≤ 0."""
        task = self.task
        history = np.arange(-task.history + 1, 1)
        if name != task.target:
            return history
        parts = [history]
        parts += [np.arange(1, task.horizon + 1) - day * task.day_steps for day in task.seasonal_days]
        parts.append(np.arange(-task.coarse[0] * task.coarse[1] + 1, 1))
        return np.concatenate(parts)

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals a window must hold."""
        return (self.task.target, *self.task.inputs, *self.task.context)

    def __call__(
        self,
        window: Window,
        own: np.ndarray | None = None,
        lend: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes the arrays. Given in training only: ``own`` float32 ``[batch, history + horizon, node]``, what was
        really measured of the target, which the profile must leave out, and ``lend``, which changes the target's
        profile ``[batch, step, node]`` at nodes that are to pass for places without a sensor."""
        task, scalers = self.task, self.statistics.scalers
        values = {name: self._checked(name, window.values[name]) for name in self.signals}
        target = values[task.target]
        history = target[:, : task.history]
        profile = scalers[task.target].scale(self.profile(task.target, window.issue, own))
        profile = profile if lend is None else lend(profile)
        scaled = scalers[task.target].scale(history)
        arrays: dict[str, np.ndarray] = {}

        seen = np.isfinite(scaled)
        last, age = _last_seen(scaled, seen)
        last = np.where(np.isnan(last), profile[:, task.history - 1], last)
        parts = [_filled(scaled), seen.astype(np.float32), profile, age[:, None]]
        cursor = task.history
        for _ in task.seasonal_days:
            lag = scalers[task.target].scale(target[:, cursor : cursor + task.horizon])
            parts += [_filled(lag), np.isfinite(lag).astype(np.float32)]
            cursor += task.horizon
        if task.coarse[1]:
            parts += _block_means(scalers[task.target].scale(target[:, cursor:]), task.coarse)
        for name in self.node_inputs:
            parts += self._summary(name, values)
        for name in task.known_future:
            if self.placing[name] == task.node:
                parts += self._future(name, window)
        arrays[f"x_{task.node}"] = _nodes_first(parts)
        arrays[f"seen_{task.node}"] = seen.mean(axis=1, dtype=np.float32)
        mean = _trailing_mean(scaled, task.history)
        mean = np.where(np.isnan(mean), profile[:, : task.history].mean(axis=1, keepdims=True), mean)
        arrays["anchor"] = _nodes_first([last[:, None], mean, profile[:, task.history :]])
        arrays["time"] = self._time(window, values)
        arrays["wind"] = self._wind(window, target.shape[2])

        if task.context_node is not None:
            parts = []
            for name in task.context:
                context = scalers[name].scale(values[name])
                ahead = scalers[name].scale(self.profile(name, window.issue))[:, task.history :]
                parts += [_filled(context), np.isfinite(context).astype(np.float32), ahead]
                if task.context_ahead is not None and task.context_ahead[0] == name:
                    parts += self._departure(name, window, ahead[:, : task.context_ahead[1]])
            arrays[f"x_{task.context_node}"] = _nodes_first(parts)
            measured = np.isfinite(values[task.context[0]])
            arrays[f"seen_{task.context_node}"] = measured.mean(axis=1, dtype=np.float32)
        return arrays

    def own(self, window: Window, answer: np.ndarray) -> np.ndarray:
        """What was measured of the target in ``window``, followed by its ``answer [batch, horizon, node]``."""
        return np.concatenate([window.values[self.task.target][:, : self.task.history], answer], axis=1)

    def profile(self, name: str, issue: pd.DatetimeIndex, own: np.ndarray | None = None) -> np.ndarray:
        """Weekly profile over history and horizon, ``[batch, history + horizon, node]``, in the signal's unit."""
        task, profile = self.task, self.statistics.profiles[name]
        offsets = np.arange(-task.history + 1, task.horizon + 1)
        ticks = issue.tz_convert(None).to_numpy()[:, None] + offsets * task.step.to_numpy()
        times = pd.DatetimeIndex(ticks.ravel(), tz="UTC")
        slots = week_slots(self.calendar, times, profile.slot_minutes)
        return profile.at(slots.reshape(len(issue), -1), own)

    def _checked(self, name: str, values: np.ndarray) -> np.ndarray:
        expected = len(self.offsets(name))
        if values.ndim != 3 or values.shape[1] != expected:
            raise ValueError(f"window of {name} must be [batch, {expected}, node], got {list(values.shape)}")
        return values

    def _summary(self, name: str, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Trailing means of an input and the share of its history that was measured."""
        if name == "wind_direction":
            speed = values.get("wind_speed")
            channels = _wind_vector(speed, values[name])
        else:
            channels = [self.statistics.scalers[name].scale(values[name])]
        parts = []
        for channel in channels:
            parts += [_filled(_trailing_mean(channel, n)) for n in self.trailing]
        return [*parts, np.isfinite(channels[0]).mean(axis=1, keepdims=True, dtype=np.float32)]

    def _future(self, name: str, window: Window) -> list[np.ndarray]:
        given = window.future.get(name)
        if given is None:
            nodes = 1 if self.placing[name] == "city" else window.values[self.task.target].shape[2]
            given = np.full((len(window.issue), self.task.horizon, nodes), np.nan, np.float32)
        if name == "wind_direction":
            channels = _wind_vector(window.future.get("wind_speed"), given)
        else:
            channels = [self.statistics.scalers[name].scale(given)]
        return [*map(_filled, channels), np.isfinite(channels[0]).astype(np.float32)]

    def _departure(self, name: str, window: Window, usual: np.ndarray) -> list[np.ndarray]:
        """How far the forecast of a context signal departs from the weekly profile beside it, 0 where there is none:
        then the profile is the forecast."""
        given = window.future.get(name)
        told = np.full_like(usual, np.nan) if given is None else self.statistics.scalers[name].scale(given) - usual
        return [_filled(told), np.isfinite(told).astype(np.float32)]

    def _time(self, window: Window, values: Mapping[str, np.ndarray]) -> np.ndarray:
        task = self.task
        now = self.calendar.of(window.issue)
        end = self.calendar.of(window.issue + task.horizon * task.step)
        angle = 2 * np.pi * now.minute_of_day / 1440
        parts = [f(k * angle)[:, None] for k in (1, 2) for f in (np.sin, np.cos)]
        parts += [np.eye(7)[now.weekday], now.holiday[:, None], end.holiday[:, None]]
        for name in self.city_inputs:
            parts += [part.reshape(len(window.issue), -1) for part in self._summary(name, values)]
        for name in task.known_future:
            if self.placing[name] == "city":
                parts += [part.reshape(len(window.issue), -1) for part in self._future(name, window)]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _wind(self, window: Window, nodes: int) -> np.ndarray:
        shape = (len(window.issue), nodes)
        if not {"wind_speed", "wind_direction"} <= set(self.task.inputs):
            return np.zeros((*shape, 2), np.float32)
        speed, direction = (window.values[s][:, -3:] for s in ("wind_speed", "wind_direction"))
        vector = [_filled(_trailing_mean(v, v.shape[1]))[:, 0] for v in _wind_vector(speed, direction)]
        return np.stack([np.broadcast_to(v, shape) for v in vector], axis=-1).astype(np.float32)


def _wind_vector(speed: np.ndarray | None, direction: np.ndarray) -> list[np.ndarray]:
    """Eastward and northward components in 10 m/s; a unit wind where the speed is not measured."""
    angle = np.deg2rad(direction)
    strength = np.float32(0.1) if speed is None else speed / 10
    return [(-strength * np.sin(angle)).astype(np.float32), (-strength * np.cos(angle)).astype(np.float32)]


def _filled(values: np.ndarray) -> np.ndarray:
    """Zero, the mean of a standardised signal, where nothing was measured; the mask beside it tells which."""
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _last_seen(scaled: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newest measured value ``[batch, node]``, NaN if none, and its age as a share of log(1 + history)."""
    steps = seen.shape[1]
    age = np.where(seen.any(axis=1), np.argmax(seen[:, ::-1], axis=1), steps)
    row = np.minimum(steps - 1 - age, steps - 1).clip(0)
    last = np.take_along_axis(scaled, row[:, None], axis=1)[:, 0]
    return last, (np.log1p(age) / np.log1p(steps)).astype(np.float32)


def _trailing_mean(values: np.ndarray, steps: int) -> np.ndarray:
    """Mean of the last ``steps`` measured values, ``[batch, 1, node]``, NaN where there are none."""
    tail = values[:, -steps:]
    seen = np.isfinite(tail)
    count = seen.sum(axis=1, keepdims=True)
    total = np.where(seen, tail, 0).sum(axis=1, keepdims=True)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _block_means(values: np.ndarray, coarse: tuple[int, int]) -> list[np.ndarray]:
    size, blocks = coarse
    block = values.reshape(values.shape[0], blocks, size, values.shape[2])
    seen = np.isfinite(block)
    count = seen.sum(axis=2)
    mean = np.where(seen, block, 0).sum(axis=2) / np.maximum(count, 1)
    return [mean.astype(np.float32), (count / size).astype(np.float32)]


def _nodes_first(parts: list[np.ndarray]) -> np.ndarray:
    """``[batch, feature, node]`` parts joined and turned to ``[batch, node, feature]``, contiguous."""
    return np.ascontiguousarray(np.concatenate(parts, axis=1).transpose(0, 2, 1), dtype=np.float32)
