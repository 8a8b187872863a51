"""Sensors that repeat themselves: how long the very same value is plausible, and which readings are past that.

A stuck reading is stored, for it may be true; it is told to whoever sent it, counted, and treated as missing wherever
a forecast, an index or a score is made from observations.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import structlog

from citybrain_datasets.signals import Signal, Ticks
from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.fleet import Channel
from citybrain_serving.store import ObservationStore


@dataclass(frozen=True)
class Steady:
    """The same value is believed for ``hours``; values at or beyond ``fair`` (``least`` or ``most``) for ever."""

    hours: float
    why: str
    least: float = -np.inf
    most: float = np.inf

    def fair(self, values: np.ndarray) -> np.ndarray:
        """Values that may last: the quantity has an end there."""
        return (values <= self.least) | (values >= self.most)


PLAUSIBLE: Mapping[str, Steady] = {
    "speed": Steady(8, "free flow reported at the limit lasts a night; detectors that hang are seen to for 10–31 h"),
    "flow": Steady(9, "counts repeat by chance only; the longest run among sound detectors was 8.7 h", least=0),
    "occupancy": Steady(9, "as flow", least=0),
    "pm25": Steady(18, "whole numbers in clean air repeated up to 14 h at sound stations, at stuck ones 34–41 h"),
    "pm10": Steady(18, "as PM2.5"),
    "no2": Steady(24, "whole numbers repeated up to 23 h at sound stations"),
    "nox": Steady(24, "as NO2"),
    "o3": Steady(96, "stays at the detection limit for days of winter smog: up to 86 h"),
    "temperature": Steady(24, "a day has a course; overcast days repeated a tenth of a degree up to 20 h"),
    "dew_point": Steady(24, "as temperature"),
    "pressure": Steady(24, "repeated up to 10 h"),
    "humidity": Steady(24, "repeated up to 16 h; fog is 100 % for longer", most=99),
    "wind_speed": Steady(24, "repeated up to 15 h; a calm lasts", least=0),
    "wind_direction": Steady(48, "sixteen directions repeated up to 33 h"),
    "precipitation": Steady(12, "rain varies; dry weather lasts", least=0),
    "mixing_height": Steady(48, "from a model, which may keep to its lowest value"),
}
"""By signal. The lengths are those of runs found in measured data: PEMS-BAY and PeMSD8 (5 min), The Hague (15 min),
Madrid and two data sets of Beijing (hourly). Of NO, SO2 and CO nothing is doubted: they rest at the detection limit
of their instruments for weeks (SO2 in Madrid: up to 347 h)."""

GAP = pd.Timedelta(hours=1)
"""Silence after which a repetition counts anew, and at least two steps: whoever was silent may have been repaired."""

KEPT_STEPS = 72
"""Steps whose doubts are found again after a start: the longest history that a forecast reads."""

KEPT = pd.Timedelta(days=8)
"""How long doubts are remembered: a forecast looks back a week."""


log = structlog.get_logger(__name__)


@dataclass
class _Runs:
    """For each node the newest ``value``, since when it is the same and when it was last given, seconds since 1970;
    ``upto`` is the last tick taken from the store, ``doubted`` holds positions by tick."""

    value: np.ndarray
    since: np.ndarray
    last: np.ndarray
    upto: int
    doubted: dict[int, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def none(count: int, upto: int) -> _Runs:
        long_ago = np.full(count, np.iinfo(np.int64).min // 2)
        return _Runs(np.full(count, np.nan, np.float32), long_ago.copy(), long_ago, upto)


class Steadiness:
    """Follows every sensor from reading to reading. A reading that comes after a newer one of its sensor is not
    judged. What is known is found again from the store after a start."""

    def __init__(self, channels: Mapping[str, Channel], store: ObservationStore):
        self.channels = channels
        self.store = store
        self._runs: dict[str, _Runs] = {}
        self._lock = threading.RLock()

    def observe(self, signal: str, time: int, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Which of the readings that were just stored are stuck, bool like ``nodes``; each node once. They are on disk
        and acknowledged whatever happens here: where the past cannot be read, none is."""
        if signal in PLAUSIBLE:
            try:
                with self._lock:
                    known = self._known(signal, self._before(signal, time))
                    return self._observe(signal, known, time, nodes, values)
            except StoreUnavailable:
                log.warning("whether sensors are stuck cannot be told now", signal=signal)
        return np.zeros(len(nodes), bool)

    def trusted(self, signal: Signal) -> Signal:
        """A signal as stored, without what is doubted."""
        if signal.name not in PLAUSIBLE or not signal.shape[0]:
            return signal
        start, step = int(signal.start.timestamp()), int(signal.step.total_seconds())
        with self._lock:
            runs = self._caught_up(signal.name, int(signal.end.timestamp()))
            rows = [(divmod(time - start, step), nodes) for time, nodes in runs.doubted.items()]
        inside = [(row, nodes) for (row, rest), nodes in rows if rest == 0 and 0 <= row < signal.shape[0]]
        if not inside:
            return signal
        values = signal.values.copy()
        for row, nodes in inside:
            values[row, nodes] = np.nan
        return Signal(signal.name, signal.node, signal.start, signal.step, values)

    def stuck(self, signal: str) -> int:
        """How many sensors are stuck by their newest reading."""
        rule, runs = PLAUSIBLE.get(signal), self._runs.get(signal)
        if rule is None or runs is None:
            return 0
        with self._lock:
            alive = runs.last >= runs.last.max(initial=0) - self._gap(signal)
            long = runs.last - runs.since >= rule.hours * 3600
            return int((alive & long & ~rule.fair(runs.value)).sum())

    def _observe(self, signal: str, runs: _Runs, time: int, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
        rule = PLAUSIBLE[signal]
        later = time > runs.last[nodes]
        same = later & (runs.value[nodes] == values) & (time - runs.last[nodes] <= self._gap(signal))
        changed = nodes[later & ~same]
        runs.value[changed] = values[later & ~same]
        runs.since[changed] = time
        runs.last[nodes[later]] = time
        stuck = same & (time - runs.since[nodes] >= rule.hours * 3600) & ~rule.fair(values)
        if stuck.any():
            runs.doubted[time] = np.union1d(runs.doubted.get(time, np.zeros(0, np.int64)), nodes[stuck])
            oldest = time - KEPT.total_seconds()
            for old in [t for t in runs.doubted if t < oldest]:
                del runs.doubted[old]
        return np.asarray(stuck)

    def _before(self, signal: str, time: int) -> int:
        """Until when the past is recalled for a first reading of ``time``: up to it, unless it is itself of the past,
        for whoever is silent between it and the newest would count anew."""
        if signal in self._runs:
            return time - 1
        newest = self.store.newest().get(signal)
        late = newest is not None and newest.timestamp() > time + self._gap(signal)
        return int(newest.timestamp()) if newest is not None and late else time - 1

    def _known(self, signal: str, before: int) -> _Runs:
        """Runs of a signal, the first time from what the store holds until ``before``."""
        if signal not in self._runs:
            runs = _Runs.none(len(self.channels[signal].ids), before)
            step = self.channels[signal].ticks.step
            look_back = pd.Timedelta(hours=PLAUSIBLE[signal].hours) + KEPT_STEPS * step
            self._read(signal, runs, before - int(look_back.total_seconds()), before)
            self._runs[signal] = runs
        return self._runs[signal]

    def _caught_up(self, signal: str, until: int) -> _Runs:
        """Runs with what other replicas have stored; the last ticks are read again, for they fill up late."""
        if signal not in self._runs:  # a window is read from its oldest part on; what is known begins at its end
            newest = self.store.newest().get(signal)
            until = until if newest is None else max(until, int(newest.timestamp()))
        runs = self._known(signal, until)
        if until >= runs.upto:
            two_steps = int(2 * self.channels[signal].ticks.step.total_seconds())
            self._read(signal, runs, runs.upto - two_steps, until)
            runs.upto = until
        return runs

    def _read(self, signal: str, runs: _Runs, after: int, until: int) -> None:
        ticks = self.channels[signal].ticks
        first, last = (ticks.floor(pd.Timestamp(t, unit="s", tz="UTC")) for t in (after, until))
        for time, values in _rows(self.store.read(signal, first, last)):
            nodes = np.flatnonzero(np.isfinite(values))
            self._observe(signal, runs, time, nodes, values[nodes])

    def _gap(self, signal: str) -> int:
        return int(max(GAP, 2 * self.channels[signal].ticks.step).total_seconds())


class Trusted:
    """A store whose doubted readings are missing."""

    def __init__(self, store: ObservationStore, steadiness: Steadiness):
        self.store = store
        self.steadiness = steadiness
        self.merge, self.newest, self.close = store.merge, store.newest, store.close

    def read(self, signal: str, first: pd.Timestamp, last: pd.Timestamp) -> Signal:
        return self.steadiness.trusted(self.store.read(signal, first, last))

    def ticks(self, signal: str) -> Ticks:
        return self.store.ticks(signal)


def _rows(signal: Signal) -> list[tuple[int, np.ndarray]]:
    start, step = int(signal.start.timestamp()), int(signal.step.total_seconds())
    return [(start + row * step, values) for row, values in enumerate(signal.values)]
