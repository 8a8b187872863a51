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
from citybrain_serving.lanes.waiting import Gathered, WaitingLanes
from citybrain_serving.outcome import Doubt, Outcome, Remark
from citybrain_serving.readings import FAULTS, FINE, HELD, Fault, Readings
from citybrain_serving.store import CONFLICT, NEW, SAME, Partial
from citybrain_serving.stuck import PLAUSIBLE, Steadiness

LISTED = 1_000
"""Refused or doubted rows told in full; beyond them only the counts by reason are."""


@dataclass(frozen=True)
class Entries:
    """What goes into the store, columns of equal length: ``rows`` of the body that they are of, -1 for none, which may
    be that of another lane; ``nodes`` are positions, ``times`` seconds since 1970 UTC, ``values`` float32."""

    rows: np.ndarray
    signals: np.ndarray
    nodes: np.ndarray
    times: np.ndarray
    values: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> Entries:
        return Entries(*(column[chosen] for column in vars(self).values()))


@dataclass(frozen=True)
class Stored:
    """What the store made of sound entries: those ``accepted`` and those ``stuck`` among them, how many were there
    already, and how many are older than the newest of their signal."""

    accepted: Entries
    stuck: Entries
    repeated: int
    late: int


class Mergeable(Protocol):
    """What :class:`Ingest` takes of a store; see :class:`~citybrain_serving.store.ObservationStore`."""

    def merge(self, partials: Sequence[Partial]) -> list[np.ndarray]: ...

    def newest(self) -> Mapping[str, pd.Timestamp]: ...


class Ingest:
    """Checks readings against what the city measures and merges the sound ones into the store. Without ``steadiness``
    none of them is doubted; without ``lanes`` those of a lane are taken with those of the same body, or not at all."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        store: Mergeable,
        steadiness: Steadiness | None,
        clock: Clock,
        oldest: pd.Timedelta,
        lanes: WaitingLanes | None = None,
    ):
        self.channels = channels
        self.store = store
        self.steadiness = steadiness
        self.clock = clock
        self.oldest = oldest
        self.lanes = lanes

    def take(self, readings: Readings) -> Outcome:
        """Stores what is sound, in one transaction; lanes that wait for others in one before it, so that whoever is not
        answered and sends them again finds them repeated. ``readings.fault`` is filled in on the way.

        Raises :class:`~citybrain_serving.errors.StoreUnavailable`; then no reading of a road was stored.
        """
        nodes = np.full(len(readings), -1)
        apart = [] if self.lanes is None else sorted(readings.lanes)
        readings.fault[apart] = FINE  # partial, unless they are taken with what other bodies tell
        self._check_times(readings)
        for name in pd.unique(readings.signals):
            self._check_signal(readings, name, nodes)
        gathered = self._gather(readings, [row for row in apart if readings.fault[row] == FINE])
        return self._outcome(readings, self._merge(readings, self._entries(readings, nodes, gathered)), gathered)

    def _gather(self, readings: Readings, rows: list[int]) -> Gathered:
        """Takes up lanes that their body does not tell all of. What becomes of them is not decided row by row any more
        but for those that are refused."""
        if self.lanes is None or not (rows or readings.flows):
            return Gathered()
        gathered = self.lanes.gather(readings, rows, self.clock.now(), self.clock.latest())
        readings.fault[rows] = HELD
        for one in gathered.whole:
            kind = self.channels[one.signal].kind
            if one.row is not None and not kind.low <= one.value <= kind.high:
                readings.values[one.row], readings.fault[one.row] = one.value, FAULTS.index(Fault.OUT_OF_RANGE)
        readings.fault[gathered.conflicts] = FAULTS.index(Fault.CONFLICT)
        for row, why in gathered.alone.items():
            readings.fault[row] = FAULTS.index(Fault.PARTIAL)
            readings.broken[row] = why
        return gathered

    def _entries(self, readings: Readings, nodes: np.ndarray, gathered: Gathered) -> Entries:
        """Rows that are sound, and roads that their lanes completed."""
        rows = np.flatnonzero(readings.fault == FINE)
        given = Entries(rows, readings.signals[rows], nodes[rows], readings.times[rows], readings.values[rows])
        whole = [one for one in gathered.whole if one.row is None or readings.fault[one.row] == HELD]
        if whole:
            _, signals, places, times, values = (list(column) for column in zip(*whole, strict=True))
            of = [-1 if one.row is None else one.row for one in whole]
            where = [self.channels[s].ids.get_loc(place) for s, place in zip(signals, places, strict=True)]
            roads = (np.array(of), np.array(signals, object), np.array(where), np.array(times), np.array(values))
            given = Entries(*map(np.concatenate, zip(vars(given).values(), roads, strict=True)))
        return given

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

    def _merge(self, readings: Readings, entries: Entries) -> Stored:
        """Stores what is sound. ``readings.fault`` is filled in where they contradict what is known."""
        if not len(entries.rows):
            return Stored(entries, entries, 0, 0)
        before = {name: int(time.timestamp()) for name, time in self.store.newest().items()}
        codes, names = pd.factorize(entries.signals)
        order = np.lexsort((entries.rows, entries.nodes, entries.times, codes))
        entries, codes = entries[order], codes[order]
        times, where = entries.times, entries.nodes
        values = entries.values.astype(np.float32)
        new_frame = np.r_[True, (codes[1:] != codes[:-1]) | (times[1:] != times[:-1])]
        new_reading = new_frame | np.r_[True, where[1:] != where[:-1]]
        # Among entries about one sensor and tick the first counts; the others repeat or contradict it.
        first = np.flatnonzero(new_reading)[np.cumsum(new_reading) - 1]
        kept = np.flatnonzero(new_reading)
        bounds = np.append(np.flatnonzero(new_frame[kept]), len(kept))
        partials = [
            Partial(names[codes[kept[a]]], int(times[kept[a]]), where[kept[a:b]], values[kept[a:b]])
            for a, b in pairwise(bounds)
        ]
        verdict, stuck = np.full(len(order), SAME, np.int8), np.zeros(len(order), bool)
        merged = self.store.merge(partials)
        verdict[kept] = np.concatenate(merged)
        stuck[kept] = np.concatenate([self._stuck(p, found == NEW) for p, found in zip(partials, merged, strict=True)])
        verdict[~new_reading & ((values != values[first]) | (verdict[first] == CONFLICT))] = CONFLICT
        at_odds = entries.rows[verdict == CONFLICT]
        readings.fault[at_odds[at_odds >= 0]] = FAULTS.index(Fault.CONFLICT)
        late = sum(
            int((found == NEW).sum())
            for p, found in zip(partials, merged, strict=True)
            if p.time < before.get(p.signal, p.time)
        )
        return Stored(entries[verdict == NEW], entries[stuck], int((verdict == SAME).sum()), late)

    def _stuck(self, partial: Partial, new: np.ndarray) -> np.ndarray:
        """Which readings of a partial are accepted and stuck; what was not accepted changes nothing."""
        stuck = np.zeros(len(new), bool)
        if self.steadiness is None:
            return stuck
        stuck[new] = self.steadiness.observe(partial.signal, partial.time, partial.nodes[new], partial.values[new])
        return stuck

    def _outcome(self, readings: Readings, stored: Stored, gathered: Gathered) -> Outcome:
        refused = np.flatnonzero(readings.fault >= 0)
        counts = Counter(FAULTS[code] for code in readings.fault[refused])
        refusals = [
            Remark(int(row), FAULTS[readings.fault[row]], self._detail(readings, int(row))) for row in refused[:LISTED]
        ]
        told = np.argsort(stored.stuck.rows, kind="stable")
        told = told[stored.stuck.rows[told] >= 0][:LISTED]
        return Outcome(
            accepted=len(stored.accepted.rows),
            repeated=stored.repeated + len(gathered.repeated),
            late=stored.late,
            refused={str(k): n for k, n in counts.items()},
            refusals=refusals,
            doubted={str(Doubt.STUCK): len(stored.stuck.rows)} if len(stored.stuck.rows) else {},
            doubts=[_repeats(readings, stored.stuck, int(entry)) for entry in told],
            by_signal=Counter(stored.accepted.signals.tolist()),
            stuck=Counter(stored.stuck.signals.tolist()),
            waiting=len(gathered.waiting),
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


def _repeats(readings: Readings, stuck: Entries, entry: int) -> Remark:
    """Why a reading is doubted, in words."""
    row, signal, value = int(stuck.rows[entry]), str(stuck.signals[entry]), stuck.values[entry]
    sensor, hours = str(readings.ids[row])[:80], PLAUSIBLE[signal].hours
    return Remark(row, Doubt.STUCK, f"{signal} of {sensor!r} has been {value:g} for over {hours:g} hours")


def _among(mine: np.ndarray, rows: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """``flags`` of ``rows`` spread over all rows."""
    out = np.zeros_like(mine)
    out[rows] = flags
    return out
