"""What training learns about the data before any network sees it: scales and weekly profiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.neighbourhood import Neighbourhood
from citybrain_datasets.signals import Signal
from citybrain_datasets.task import GASES, Task

LOGARITHMIC = frozenset({"pm25", *GASES, "precipitation"})
"""Signals scaled as log(1 + x): their errors grow with their level."""

WEEK_SHRINKAGE = 2.0
"""Observations that the mean over days of the same type counts for in a slot of the week. Two or three weeks of
data leave two or three values a slot; alone they are noise."""


@dataclass(frozen=True)
class Scaler:
    """Standardises one signal: ``(f(x) - mean) / std`` with f the identity or log(1 + x)."""

    transform: Literal["identity", "log1p"]
    mean: float
    std: float

    @staticmethod
    def fit(values: np.ndarray, transform: Literal["identity", "log1p"]) -> Scaler:
        seen = values[np.isfinite(values)].astype(np.float64)
        if transform == "log1p":
            seen = np.log1p(np.maximum(seen, 0))
        if not len(seen):
            return Scaler(transform, 0.0, 1.0)
        return Scaler(transform, float(seen.mean()), float(max(seen.std(), 1e-3)))

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Standardised float32; NaN stays NaN."""
        plain = np.log1p(np.maximum(values, 0)) if self.transform == "log1p" else values
        return ((plain - np.float32(self.mean)) / np.float32(self.std)).astype(np.float32, copy=False)

    def unscale(self, values: np.ndarray) -> np.ndarray:
        plain = values * np.float32(self.std) + np.float32(self.mean)
        return np.expm1(plain) if self.transform == "log1p" else plain


class Profile:
    """Mean of a signal in each slot of the local week, ``mean[slot, node]``, holidays counted as Sundays.

    A slot's mean is shrunk toward the mean of the same time of day over all days of its type (working day,
    Saturday, Sunday or holiday), and that toward the node's mean. The sums behind it, kept while training, let
    :meth:`at` leave a window's own values out: a profile that contains the answer would be trusted too much. Of a
    logarithmic signal the mean is that of log(1 + x): nearer its median, which is what a typical day has. One that is
    not ``weekly`` has the node's mean in every slot.
    """

    def __init__(self, slot_minutes: int, mean: np.ndarray, sums: _Sums | None = None, logarithmic: bool = False):
        self.slot_minutes = slot_minutes
        self._mean = mean
        self._sums = sums
        self._logarithmic = logarithmic

    @property
    def mean(self) -> np.ndarray:
        """All of it, float32 ``[slot, node]``."""
        return self._mean

    @staticmethod
    def fit(
        values: np.ndarray, slots: np.ndarray, slot_minutes: int, logarithmic: bool = False, *, weekly: bool = True
    ) -> Profile:
        """``values`` float ``[time, node]``, ``slots`` int ``[time]`` from :func:`week_slots`."""
        sums = _Sums(np.log1p(values) if logarithmic else values, slots, 7 * 1440 // slot_minutes, weekly=weekly)
        mean = sums.mean(np.arange(sums.size)).astype(np.float32)
        return Profile(slot_minutes, np.expm1(mean) if logarithmic else mean, sums, logarithmic)

    def changed(self, mean: np.ndarray) -> Profile:
        """The same weeks with another ``mean``; answers can still be left out of what was measured."""
        return Profile(self.slot_minutes, mean, self._sums, self._logarithmic)

    def at(self, slots: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Profile float32 ``[batch, step, node]`` at ``slots`` int ``[batch, step]``, without the values ``own``."""
        if own is None or self._sums is None:
            return self.mean[slots]
        mean = self._sums.mean(slots, np.log1p(own) if self._logarithmic else own).astype(np.float32)
        return np.expm1(mean) if self._logarithmic else mean

    def of(self, nodes: np.ndarray | slice) -> np.ndarray:
        """The whole week at some nodes, float32 ``[slot, node]``."""
        return self.mean[:, nodes]


class _Sums:
    """Totals and counts by slot of the week and by (day type, time of day), and the shrunk mean they give."""

    def __init__(self, values: np.ndarray, slots: np.ndarray, size: int, *, weekly: bool):
        self.size, self.weekly = size, weekly
        seen = np.isfinite(values)
        self.total, self.count = (np.zeros((size, values.shape[1]), np.float32) for _ in range(2))
        np.add.at(self.total, slots, np.where(seen, values, 0))
        np.add.at(self.count, slots, seen)
        self.day_total, self.day_count = self._by_day_type(self.total), self._by_day_type(self.count)
        overall = self.total.sum(dtype=np.float64) / max(self.count.sum(), 1)
        self.node_mean = ((self.total.sum(axis=0) + overall) / (self.count.sum(axis=0) + 1)).astype(np.float32)

    def mean(self, slots: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        if not self.weekly:
            return np.broadcast_to(self.node_mean, (*slots.shape, len(self.node_mean)))
        held = 0 if own is None else np.isfinite(own)
        value = 0 if own is None else np.where(held, own, 0)
        typed = self._day_type_slot(slots)
        day = (self.day_total[typed] - value + self.node_mean) / (self.day_count[typed] - held + 1)
        return (self.total[slots] - value + WEEK_SHRINKAGE * day) / (self.count[slots] - held + WEEK_SHRINKAGE)

    def _day_type_slot(self, slots: np.ndarray) -> np.ndarray:
        per_day = self.size // 7
        day = slots // per_day
        return np.where(day < 5, 0, day - 4) * per_day + slots % per_day

    def _by_day_type(self, sums: np.ndarray) -> np.ndarray:
        week = sums.reshape(7, self.size // 7, sums.shape[1])
        return np.concatenate([week[:5].sum(axis=0), week[5], week[6]])


def week_slots(calendar: Calendar, times: pd.DatetimeIndex, slot_minutes: int) -> np.ndarray:
    """Slot of the local week, int ``[time]``, in which intervals that *end* at ``times`` lie."""
    local = calendar.of(times - pd.Timedelta(seconds=1))
    day = np.where(local.holiday, 6, local.weekday)
    return day * (1440 // slot_minutes) + local.minute_of_day // slot_minutes


@dataclass(frozen=True)
class Statistics:
    """Scalers of every signal a task reads, and profiles of its target and context, fitted on training data."""

    scalers: dict[str, Scaler]
    profiles: dict[str, Profile]

    @staticmethod
    def fit(
        city: City, task: Task, until: pd.Timestamp, slot_minutes: int | None = None, *, weekly: bool = True
    ) -> Statistics:
        """Fits on values up to and including ``until``; nothing later is looked at."""
        calendar = Calendar(city.timezone, city.country)
        scalers, profiles = {}, {}
        for name in dict.fromkeys((task.target, *task.context, *task.inputs, *task.known_future)):
            signal = clocked(city, task, name).between(None, until)
            transform: Literal["identity", "log1p"] = "log1p" if name in LOGARITHMIC else "identity"
            scalers[name] = Scaler.fit(signal.values, transform)
            if name == task.target or name in task.context:
                minutes = slot_minutes or int(signal.step / pd.Timedelta(minutes=1))
                slots = week_slots(calendar, signal.times, minutes)
                profiles[name] = Profile.fit(signal.values, slots, minutes, transform == "log1p", weekly=weekly)
        return Statistics(scalers, profiles)

    def lent(self, name: str, near: Neighbourhood, to: np.ndarray, among: np.ndarray) -> Statistics:
        """The same with the weekly profile of ``name`` at the nodes ``to`` lent to them by the nearest ``among``, both
        bool ``[node]``."""
        profile = self.profiles[name]
        return Statistics(self.scalers, {**self.profiles, name: profile.changed(near.lent(profile.mean, to, among))})


def clocked(city: City, task: Task, name: str) -> Signal:
    """A signal as the task samples it: interval means on the task's clock, or, where the task takes the value at
    the tick (``last``), as measured, so that windows may start at any measured time."""
    signal = city.signals[name]
    return signal if task.sampling == "last" else signal.at(task.step)
