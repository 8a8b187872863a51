"""Observations in: every reading is accepted, found already there, or refused with its row and the reason. Of the
accepted some are doubted, and said to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import pandas as pd

from citybrain_datasets.units import spelling
from citybrain_serving.clock import Clock
from citybrain_serving.fleet import Channel
from citybrain_serving.outcome import Doubt, Outcome, Remark
from citybrain_serving.readings import FAULTS, FINE, Fault, Readings
from citybrain_serving.store import CONFLICT, NEW, SAME, Partial
from citybrain_serving.stuck import PLAUSIBLE, Steadiness

LISTED = 1_000
"""Refused or doubted rows told in full; beyond them only the counts by reason are."""


@dataclass(frozen=True)
class Stored:
    """What the store made of sound rows: positions of those ``accepted`` and, among them, ``stuck``; how many were
    there already, and how many are older than the newest of their signal."""

    accepted: np.ndarray
    stuck: np.ndarray
    repeated: int
    late: int


class Mergeable(Protocol):
    """What :class:`Ingest` takes of a store; see :class:`~citybrain_serving.store.ObservationStore`."""

    def merge(self, partials: Sequence[Partial]) -> list[np.ndarray]: ...

    def newest(self) -> Mapping[str, pd.Timestamp]: ...


class Ingest:
    """Checks readings against what the city measures and merges the sound ones into the store. Without ``steadiness``
    none of them is doubted."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        store: Mergeable,
        steadiness: Steadiness | None,
        clock: Clock,
        oldest: pd.Timedelta,
    ):
        self.channels = channels
        self.store = store
        self.steadiness = steadiness
        self.clock = clock
        self.oldest = oldest

    def take(self, readings: Readings) -> Outcome:
        """Stores what is sound, in one transaction. ``readings.fault`` is filled in on the way.

        Raises :class:`~citybrain_serving.errors.StoreUnavailable`; then nothing was stored.
        """
        nodes = np.full(len(readings), -1)
        self._check_times(readings)
        for name in pd.unique(readings.signals):
            self._check_signal(readings, name, nodes)
        return self._outcome(readings, self._merge(readings, nodes))

    def _check_times(self, readings: Readings) -> None:
        latest, now = self.clock.latest(), self.clock.now()
        if latest is not None:
            readings.refuse(readings.times > latest.timestamp(), Fault.FROM_THE_FUTURE)
        if now is not None:
            readings.refuse(readings.times < (now - self.oldest).timestamp(), Fault.TOO_OLD)

    def _check_signal(self, readings: Readings, name: str, nodes: np.ndarray) -> None:
        rows = np.flatnonzero(readings.signals == name)
        mine = np.zeros(len(readings), bool)
        mine[rows] = True
        channel = self.channels.get(name)
        if channel is None:
            readings.refuse(mine, Fault.UNKNOWN_SIGNAL)
            return
        nodes[rows] = channel.ids.get_indexer(pd.Index(readings.ids[rows]))
        values, kind = readings.values, channel.kind
        other = {unit for unit in readings.units[rows] if unit is not None and spelling(unit) != kind.unit}
        wrong_unit = np.array([unit in other for unit in readings.units[rows]], bool)
        readings.refuse(_among(mine, rows, wrong_unit), Fault.WRONG_UNIT)
        readings.refuse(_among(mine, rows, nodes[rows] < 0), Fault.UNKNOWN_SENSOR)
        readings.refuse(mine & ~np.isfinite(values), Fault.NOT_A_NUMBER)
        readings.refuse(mine & ~((values >= kind.low) & (values <= kind.high)), Fault.OUT_OF_RANGE)
        readings.refuse(mine & ~channel.ticks.on(readings.times), Fault.OFF_THE_CLOCK)

    def _merge(self, readings: Readings, nodes: np.ndarray) -> Stored:
        """Stores sound rows. ``readings.fault`` is filled in where they contradict what is known."""
        rows = np.flatnonzero(readings.fault == FINE)
        if not len(rows):
            return Stored(rows, rows, 0, 0)
        before = {name: int(time.timestamp()) for name, time in self.store.newest().items()}
        codes, names = pd.factorize(readings.signals[rows])
        order = np.lexsort((rows, nodes[rows], readings.times[rows], codes))
        rows, codes = rows[order], codes[order]
        times, where = readings.times[rows], nodes[rows]
        values = readings.values[rows].astype(np.float32)
        new_frame = np.r_[True, (codes[1:] != codes[:-1]) | (times[1:] != times[:-1])]
        new_reading = new_frame | np.r_[True, where[1:] != where[:-1]]
        # Among rows about one sensor and tick the first counts; the others repeat or contradict it.
        first = np.flatnonzero(new_reading)[np.cumsum(new_reading) - 1]
        kept = np.flatnonzero(new_reading)
        bounds = np.append(np.flatnonzero(new_frame[kept]), len(kept))
        partials = [
            Partial(names[codes[kept[a]]], int(times[kept[a]]), where[kept[a:b]], values[kept[a:b]])
            for a, b in pairwise(bounds)
        ]
        verdict, stuck = np.full(len(rows), SAME, np.int8), np.zeros(len(rows), bool)
        merged = self.store.merge(partials)
        verdict[kept] = np.concatenate(merged)
        stuck[kept] = np.concatenate([self._stuck(p, found == NEW) for p, found in zip(partials, merged, strict=True)])
        verdict[~new_reading & ((values != values[first]) | (verdict[first] == CONFLICT))] = CONFLICT
        conflict = np.zeros(len(readings), bool)
        conflict[rows[verdict == CONFLICT]] = True
        readings.refuse(conflict, Fault.CONFLICT)
        late = sum(
            int((found == NEW).sum())
            for p, found in zip(partials, merged, strict=True)
            if p.time < before.get(p.signal, p.time)
        )
        return Stored(rows[verdict == NEW], np.sort(rows[stuck]), int((verdict == SAME).sum()), late)

    def _stuck(self, partial: Partial, new: np.ndarray) -> np.ndarray:
        """Which readings of a partial are accepted and stuck; what was not accepted changes nothing."""
        stuck = np.zeros(len(new), bool)
        if self.steadiness is None:
            return stuck
        stuck[new] = self.steadiness.observe(partial.signal, partial.time, partial.nodes[new], partial.values[new])
        return stuck

    def _outcome(self, readings: Readings, stored: Stored) -> Outcome:
        refused = np.flatnonzero(readings.fault != FINE)
        counts = Counter(FAULTS[code] for code in readings.fault[refused])
        refusals = [
            Remark(int(row), FAULTS[readings.fault[row]], self._detail(readings, int(row))) for row in refused[:LISTED]
        ]
        return Outcome(
            accepted=len(stored.accepted),
            repeated=stored.repeated,
            late=stored.late,
            refused={str(k): n for k, n in counts.items()},
            refusals=refusals,
            doubted={str(Doubt.STUCK): len(stored.stuck)} if len(stored.stuck) else {},
            doubts=[Remark(int(row), Doubt.STUCK, _repeats(readings, int(row))) for row in stored.stuck[:LISTED]],
            by_signal=Counter(readings.signals[stored.accepted].tolist()),
            stuck=Counter(readings.signals[stored.stuck].tolist()),
        )

    def _detail(self, readings: Readings, row: int) -> str:
        """What is wrong with one row, in words."""
        sensor, signal, value = (
            str(readings.ids[row])[:80],
            str(readings.signals[row])[:80],
            readings.values[row],
        )
        channel = self.channels.get(signal)
        known = ", ".join(self.channels)
        texts = {
            Fault.MALFORMED: readings.broken.get(row, "needs strings id, signal, time and a number value"),
            Fault.UNKNOWN_SIGNAL: f"signal {signal!r} is not measured here; known are {known}",
            Fault.NOT_A_NUMBER: "value is no finite number; a reading that is missing is left out",
            Fault.BAD_TIME: "time is no ISO 8601 date and time",
            Fault.NAIVE_TIME: "time has no zone; end it with Z or an offset",
            Fault.FROM_THE_FUTURE: f"time is later than {self.clock.latest()}, the newest accepted",
            Fault.TOO_OLD: f"time is more than {self.oldest} before now",
            Fault.CONFLICT: f"{signal} of {sensor!r} was given before with another value, which stays",
            Fault.PARTIAL: readings.broken.get(row, "is of a part of the road; its lanes are taken together"),
        }
        if channel is not None:
            kind, ticks = channel.kind, channel.ticks
            texts |= {
                Fault.UNKNOWN_SENSOR: f"{sensor!r} is no {channel.node} node of the city",
                Fault.WRONG_UNIT: f"unit {str(readings.units[row])[:40]!r}; {signal} is given in {kind.unit}",
                Fault.OUT_OF_RANGE: f"{signal} {value:g} {kind.unit} lies outside {kind.low:g}–{kind.high:g}",
                Fault.OFF_THE_CLOCK: f"time is no tick of {signal}, measured every {ticks.step_minutes} min",
            }
        return texts.get(FAULTS[readings.fault[row]], "time is no tick of any clock here")


def _repeats(readings: Readings, row: int) -> str:
    """Why a row is doubted, in words."""
    sensor, signal = str(readings.ids[row])[:80], str(readings.signals[row])
    return f"{signal} of {sensor!r} has been {readings.values[row]:g} for over {PLAUSIBLE[signal].hours:g} hours"


def _among(mine: np.ndarray, rows: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """``flags`` of ``rows`` spread over all rows."""
    out = np.zeros_like(mine)
    out[rows] = flags
    return out
