"""Observations in: every reading is accepted, found already there, or refused with its row and the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd

from citybrain_serving.clock import Clock
from citybrain_serving.fleet import Channel
from citybrain_serving.readings import FAULTS, FINE, Fault, Readings
from citybrain_serving.store import CONFLICT, NEW, SAME, ObservationStore, Partial

LISTED = 1_000
"""Refused rows told in full; beyond them only the counts by reason are."""


@dataclass(frozen=True)
class Refusal:
    row: int
    reason: Fault
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What became of a body. ``repeated`` readings were there already with the same value."""

    accepted: int
    repeated: int
    refused: Mapping[str, int]
    refusals: list[Refusal]
    by_signal: Mapping[str, int] = field(default_factory=dict)
    """Accepted readings of each signal."""

    @property
    def refused_count(self) -> int:
        return sum(self.refused.values())


class Ingest:
    """Checks readings against what the city measures and merges the sound ones into the store."""

    def __init__(self, channels: Mapping[str, Channel], store: ObservationStore, clock: Clock, oldest: pd.Timedelta):
        self.channels = channels
        self.store = store
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
        accepted, repeated = self._merge(readings, nodes)
        return self._outcome(readings, accepted, repeated)

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
        wrong_unit = np.array([unit is not None and unit != kind.unit for unit in readings.units[rows]], bool)
        readings.refuse(_among(mine, rows, wrong_unit), Fault.WRONG_UNIT)
        readings.refuse(_among(mine, rows, nodes[rows] < 0), Fault.UNKNOWN_SENSOR)
        readings.refuse(mine & ~np.isfinite(values), Fault.NOT_A_NUMBER)
        readings.refuse(mine & ~((values >= kind.low) & (values <= kind.high)), Fault.OUT_OF_RANGE)
        readings.refuse(mine & ~channel.ticks.on(readings.times), Fault.OFF_THE_CLOCK)

    def _merge(self, readings: Readings, nodes: np.ndarray) -> tuple[np.ndarray, int]:
        """Stores sound rows; returns the rows accepted and how many were there already."""
        rows = np.flatnonzero(readings.fault == FINE)
        if not len(rows):
            return rows, 0
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
        verdict = np.full(len(rows), SAME, np.int8)
        verdict[kept] = np.concatenate(self.store.merge(partials))
        verdict[~new_reading & ((values != values[first]) | (verdict[first] == CONFLICT))] = CONFLICT
        conflict = np.zeros(len(readings), bool)
        conflict[rows[verdict == CONFLICT]] = True
        readings.refuse(conflict, Fault.CONFLICT)
        return rows[verdict == NEW], int((verdict == SAME).sum())

    def _outcome(self, readings: Readings, accepted: np.ndarray, repeated: int) -> Outcome:
        refused = np.flatnonzero(readings.fault != FINE)
        counts = Counter(FAULTS[code] for code in readings.fault[refused])
        refusals = [
            Refusal(int(row), FAULTS[readings.fault[row]], self._detail(readings, int(row))) for row in refused[:LISTED]
        ]
        by_signal = Counter(readings.signals[accepted].tolist())
        return Outcome(len(accepted), repeated, {str(k): n for k, n in counts.items()}, refusals, by_signal)

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
            Fault.MALFORMED: "needs strings id, signal, time and a number value; only unit may be added",
            Fault.UNKNOWN_SIGNAL: f"signal {signal!r} is not measured here; known are {known}",
            Fault.NOT_A_NUMBER: "value is no finite number; a reading that is missing is left out",
            Fault.BAD_TIME: "time is no ISO 8601 date and time",
            Fault.NAIVE_TIME: "time has no zone; end it with Z or an offset",
            Fault.FROM_THE_FUTURE: f"time is later than {self.clock.latest()}, the newest accepted",
            Fault.TOO_OLD: f"time is more than {self.oldest} before now",
            Fault.CONFLICT: f"{signal} of {sensor!r} was given before with another value, which stays",
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


def _among(mine: np.ndarray, rows: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """``flags`` of ``rows`` spread over all rows."""
    out = np.zeros_like(mine)
    out[rows] = flags
    return out
