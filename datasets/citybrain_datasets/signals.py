"""Signals: what is measured, in which unit, and the arrays that hold it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

NodeType = Literal["road", "air", "city"]
"""Where a signal is measured: on road segments, at air stations, or once for the whole city."""


@dataclass(frozen=True)
class SignalKind:
    """A physical quantity. Values outside ``low``–``high`` cannot be measurements of it.

    ``combine`` is how finer steps become coarser ones: the mean of an intensity, the sum of an amount, the
    circular mean of an angle.
    """

    name: str
    unit: str
    low: float
    high: float
    title: str
    combine: Literal["mean", "circular"] = "mean"


KINDS: dict[str, SignalKind] = {
    kind.name: kind
    for kind in (
        SignalKind("speed", "km/h", 0, 250, "mean speed of vehicles"),
        SignalKind("flow", "veh/h", 0, 300_000, "vehicles passing in an hour"),
        SignalKind("occupancy", "1", 0, 1, "share of time a detector is covered"),
        SignalKind("pm25", "µg/m³", 0, 2_000, "fine particles, PM2.5"),
        SignalKind("pm10", "µg/m³", 0, 10_000, "particles, PM10"),
        SignalKind("no2", "µg/m³", 0, 2_000, "nitrogen dioxide"),
        SignalKind("no", "µg/m³", 0, 3_000, "nitrogen monoxide"),
        SignalKind("nox", "µg/m³", 0, 5_000, "nitrogen oxides"),
        SignalKind("o3", "µg/m³", 0, 1_500, "ozone"),
        SignalKind("so2", "µg/m³", 0, 3_000, "sulphur dioxide"),
        SignalKind("co", "mg/m³", 0, 100, "carbon monoxide"),
        SignalKind("temperature", "°C", -60, 60, "air temperature at 2 m"),
        SignalKind("dew_point", "°C", -80, 40, "dew point at 2 m"),
        SignalKind("pressure", "hPa", 500, 1_100, "air pressure at the station"),
        SignalKind("humidity", "%", 0, 105, "relative humidity"),
        SignalKind("wind_speed", "m/s", 0, 100, "wind speed at 10 m"),
        SignalKind("wind_direction", "°", 0, 360, "direction the wind blows from, clockwise from north", "circular"),
        SignalKind("precipitation", "mm/h", 0, 300, "precipitation"),
        SignalKind("mixing_height", "m", 0, 6_000, "height of the mixed layer"),
    )
}
"""Every signal a city may have. The unit here is the only one stored; importers convert."""


@dataclass(frozen=True)
class Ticks:
    """A regular clock: ticks ``offset_minutes`` past every whole multiple of ``step_minutes`` since 1970 UTC.

    The offset is 0 almost everywhere; an hourly feed of a city half an hour off UTC ticks at 30.
    """

    step_minutes: int
    offset_minutes: int = 0

    @staticmethod
    def of(signal: Signal) -> Ticks:
        """The clock a signal was measured on."""
        minute = pd.Timedelta(minutes=1)
        step = int(signal.step / minute)
        return Ticks(step, int((signal.start - pd.Timestamp(0, tz="UTC")) / minute) % step)

    @property
    def step(self) -> pd.Timedelta:
        return pd.Timedelta(minutes=self.step_minutes)

    def on(self, seconds: np.ndarray) -> np.ndarray:
        """Whether times, int64 seconds since the epoch, are ticks."""
        return (seconds - 60 * self.offset_minutes) % (60 * self.step_minutes) == 0

    def floor(self, time: pd.Timestamp) -> pd.Timestamp:
        """The newest tick that is not after ``time``."""
        offset = pd.Timedelta(minutes=self.offset_minutes)
        return (time - offset).floor(self.step) + offset


class Signal:
    """One quantity at every node of one type, on a regular clock.

    Values are float32 ``[time, node]`` in the unit of :data:`KINDS`; missing is NaN. Time ``i`` *ends* its
    interval and is ``start + i * step``, in UTC. The values may be given, or read on demand by ``read(first,
    last)``, so that a year of a large city need not fit in memory.
    """

    def __init__(
        self,
        name: str,
        node: NodeType,
        start: pd.Timestamp,
        step: pd.Timedelta,
        values: np.ndarray | None = None,
        *,
        shape: tuple[int, int] | None = None,
        read: Callable[[int, int], np.ndarray] | None = None,
    ):
        if name not in KINDS:
            raise KeyError(f"unknown signal {name!r}; known are {', '.join(KINDS)}")
        if values is None and (read is None or shape is None):
            raise TypeError("a signal needs values, or a shape and a reader")
        self.name = name
        self.node = node
        self.start = start.tz_convert("UTC") if start.tzinfo else start.tz_localize("UTC")
        self.step = pd.Timedelta(step)
        if values is not None:
            self.values = np.asarray(values, dtype=np.float32)
            shape = (self.values.shape[0], self.values.shape[1])
        assert shape is not None
        self.shape: tuple[int, int] = shape
        self._read = read

    @property
    def kind(self) -> SignalKind:
        return KINDS[self.name]

    @cached_property
    def values(self) -> np.ndarray:
        """Every value, float32 ``[time, node]``; read once when the signal is stored on disk."""
        assert self._read is not None
        return self._read(0, self.shape[0])

    def rows(self, first: int, last: int) -> np.ndarray:
        """Values of the steps ``first`` ≤ i < ``last``, float32 ``[time, node]``, without loading the rest."""
        if "values" in self.__dict__ or self._read is None:
            return self.values[first:last]
        return self._read(first, last)

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """UTC ends of the intervals."""
        return pd.date_range(self.start, periods=self.shape[0], freq=self.step)

    @property
    def end(self) -> pd.Timestamp:
        return self.start + (self.shape[0] - 1) * self.step

    def at(self, step: pd.Timedelta, how: Literal["mean", "last"] = "mean", coverage: float = 0.5) -> Signal:
        """This signal on another clock whose ticks are whole multiples of ``step`` since midnight UTC.

        ``mean`` averages the steps inside each interval and is NaN where fewer than ``coverage`` of them
        have a value; ``last`` takes the value at the tick. On a finer clock the newest value holds until the next:
        what is measured hourly is known hourly.
        """
        step = pd.Timedelta(step)
        if step == self.step:
            return self
        if self.step % step == pd.Timedelta(0):
            held = np.repeat(self.values, int(self.step / step), axis=0)
            return Signal(self.name, self.node, self.start, step, held)
        if step % self.step != pd.Timedelta(0):
            raise ValueError(f"{self.name}: step {step} is no multiple of the measured step {self.step}")
        group = int(step / self.step)
        # The first tick whose whole interval was measured.
        lead = int(((-(self.start - self.step).value) % step.value) // self.step.value)
        if how == "last":
            lead = int(((-self.start.value) % step.value) // self.step.value)
            picked = self.values[lead::group]
            return Signal(self.name, self.node, self.start + lead * self.step, step, picked)
        count = (self.shape[0] - lead) // group
        block = self.values[lead : lead + count * group].reshape(count, group, self.shape[1])
        seen = np.isfinite(block)
        enough = seen.sum(axis=1) >= max(1, int(np.ceil(coverage * group)))
        if self.kind.combine == "circular":
            angle = np.deg2rad(np.where(seen, block, 0))
            east, north = ((f(angle) * seen).sum(axis=1) for f in (np.sin, np.cos))
            mean = np.rad2deg(np.arctan2(east, north)) % 360
        else:
            mean = np.where(seen, block, 0).sum(axis=1, dtype=np.float64) / np.maximum(seen.sum(axis=1), 1)
        start = self.start + (lead + group - 1) * self.step
        return Signal(self.name, self.node, start, step, np.where(enough, mean, np.nan).astype(np.float32))

    def between(self, first: pd.Timestamp | None, last: pd.Timestamp | None) -> Signal:
        """The part with ``first`` ≤ time ≤ ``last``; an open end keeps everything on that side."""
        low = 0 if first is None else int(np.clip(-((self.start - first) // self.step), 0, self.shape[0]))
        high = self.shape[0] if last is None else int(np.clip((last - self.start) // self.step + 1, 0, self.shape[0]))
        return Signal(self.name, self.node, self.start + low * self.step, self.step, self.rows(low, max(low, high)))
