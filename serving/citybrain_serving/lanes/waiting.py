"""Lanes of a road that come in messages of their own: they wait on disk until all of them are there.

What they become is decided as within one message (:mod:`citybrain_serving.lanes.combining`), from all that is known of
a road and a time, whichever message told it: neither the order of lanes matters nor the replica that takes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
import sqlalchemy as sa

from citybrain_datasets.signals import Signal
from citybrain_serving.database import in_parts, transaction
from citybrain_serving.fleet import Channel
from citybrain_serving.lanes.combining import Key, Lane, LaneCount, Lanes
from citybrain_serving.readings import LaneFlow, OnLane, Readings
from citybrain_serving.tables import lanes


class Whole(NamedTuple):
    """A reading of a road, and the row of the body that completed it; None where a lane without traffic did, that is no
    row."""

    row: int | None
    signal: str
    place: str
    time: int
    value: float


@dataclass
class Gathered:
    """What became of rows that are of lanes; those that went into ``whole`` are in no other."""

    whole: list[Whole] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)
    alone: dict[int, str] = field(default_factory=dict)
    """Rows that wait for nothing, and why."""


class _Told(NamedTuple):
    value: float
    lanes: int


_Road = dict[tuple[str, Lane], _Told]
"""What is known of one road and time, by signal and lane."""


class WaitingLanes:
    """Lanes wait for each other until ``patience`` after the end of their interval; those that nobody completed until
    then are told to ``given_up``, how many of each signal. ``count`` is what the city knows of lanes, ``read`` what is
    stored of roads."""

    def __init__(
        self,
        engine: sa.Engine,
        channels: Mapping[str, Channel],
        count: LaneCount,
        read: Callable[[str, pd.Timestamp, pd.Timestamp], Signal],
        patience: pd.Timedelta,
        given_up: Callable[[Mapping[str, int]], object] = lambda _: None,
    ):
        self.engine = engine
        self.channels = channels
        self.count = count
        self.read = read
        self.patience = patience
        self.given_up = given_up

    def gather(
        self, readings: Readings, rows: Sequence[int], now: pd.Timestamp | None, latest: pd.Timestamp | None
    ) -> Gathered:
        """Takes up sound ``rows`` that are of lanes, durably, and tells what they make with those that were there.
        Flows later than ``latest`` are passed over, as rows were.

        Raises :class:`~citybrain_serving.errors.StoreUnavailable`; then nothing was taken up.
        """
        gathered = Gathered()
        oldest = -np.inf if now is None else (now - self.patience).timestamp()
        newest = np.inf if latest is None else latest.timestamp()
        flows = [flow for flow in readings.flows if oldest <= flow.time <= newest and self._measures(flow)]
        timely = [row for row in rows if readings.times[row] >= oldest]
        late = f" came later than the {self.patience.total_seconds() / 60:g} min that lanes wait for each other"
        gathered.alone |= {row: _of(readings, row) + late for row in rows if readings.times[row] < oldest}
        if not (timely or flows):
            return gathered
        with transaction(self.engine, write=True) as connection:
            wanted = {(str(readings.ids[row]), int(readings.times[row])) for row in timely}
            known = _known(connection, wanted | {(flow.place, flow.time) for flow in flows})
            added = self._add(known, readings, timely, flows, gathered)
            if added:
                connection.execute(lanes.insert(), added)
        return gathered

    def forget(self, now: pd.Timestamp) -> None:
        """Gives up what has waited long enough. Raises :class:`~citybrain_serving.errors.StoreUnavailable`."""
        over = lanes.c.time < int((now - self.patience).timestamp())
        with transaction(self.engine, write=True) as connection:
            query = sa.select(lanes.c.signal, lanes.c.time, lanes.c.node).where(over).order_by("signal", "time")
            left = [row for row in connection.execute(query).all() if row.signal in self.channels]
            connection.execute(lanes.delete().where(over))
        missing: Counter[str] = Counter()
        for (signal, time), rows in groupby(left, lambda row: (row.signal, row.time)):
            places = [row.node for row in rows]
            missing[signal] += len(places) - sum(self._have(signal, places, time))
        if missing.total():
            self.given_up(missing)

    def _measures(self, flow: LaneFlow) -> bool:
        """Whether the speed that a flow weighs could be a reading here."""
        channel = self.channels["speed"]
        return flow.place in channel.ids and bool(channel.ticks.on(np.array([flow.time]))[0])

    def _add(
        self,
        known: dict[tuple[str, int], _Road],
        readings: Readings,
        rows: Sequence[int],
        flows: Sequence[LaneFlow],
        gathered: Gathered,
    ) -> list[dict[str, object]]:
        """Sorts ``rows`` into ``gathered``; returns what is to be kept."""
        new: dict[tuple[str, int, str, Lane], _Told] = {}
        touched: dict[tuple[str, int], list[int]] = {}
        fresh = set()
        for row in rows:
            place, time, signal, lane, told = _read(readings, row)
            road = known.setdefault((place, time), {})
            before = road.get((signal, lane))
            if before is not None and before.value != told.value:
                gathered.conflicts.append(row)
                continue
            if any(other.direction != lane.direction for _, other in road):
                gathered.alone[row] = f"{signal} of {place[:80]!r} is told of lanes of both directions; a road has one"
                continue
            touched.setdefault((place, time), []).append(row)
            if before is None:
                fresh.add(row)
                road[signal, lane] = new[place, time, signal, lane] = told
        for flow in flows:
            lane, road = Lane(*flow.lane[:2]), known.setdefault((flow.place, flow.time), {})
            touched.setdefault((flow.place, flow.time), [])
            if ("flow", lane) not in road and all(other.direction == lane.direction for _, other in road):
                told = _Told(flow.flow, flow.lane.lanes)
                road["flow", lane] = new[flow.place, flow.time, "flow", lane] = told
        for (place, time), mine in touched.items():
            self._settle(place, time, known[place, time], readings, mine, fresh, gathered)
        for row in gathered.alone:  # what waits for nothing is not kept
            place, time, signal, lane, _ = _read(readings, row)
            if row in fresh:
                new.pop((place, time, signal, lane), None)
        return [
            {"time": time, "node": place, "signal": signal, "direction": lane.direction, "lane": lane.name,
             "value": told.value, "lanes": told.lanes}
            for (place, time, signal, lane), told in new.items()
        ]  # fmt: skip

    def _settle(
        self, place: str, time: int, road: _Road, readings: Readings, rows: list[int], fresh: set[int], out: Gathered
    ) -> None:
        """What the lanes of one road and time have become, of which a message told in ``rows``."""
        most = max(told.lanes for told in road.values())
        together = Lanes(lambda name: max(self.count(name) or 0, most))
        stamp = datetime.fromtimestamp(time, UTC).isoformat()
        for (signal, lane), told in road.items():
            if signal in self.channels:
                together.take(self.channels[signal], place, stamp, told.value, "", lane)
            else:
                together.weigh(place, stamp, told.value, lane)
        whole: set[Key] = set()
        for key, told_of in together.sets():
            mine = [row for row in rows if readings.signals[row] == key[0]]
            # A lane without traffic completes speeds, and tells none itself.
            if together.missing(key, told_of) is not None or not (mine or key[0] == "speed"):
                continue
            if fresh.isdisjoint(mine) and self._has(key[0], place, time):
                continue  # nothing new, and decided: flows that came since do not change it
            whole.add(key)
            row = next(iter(mine or rows), None)
            out.whole.append(Whole(row, key[0], place, time, together.value(key, told_of)))
        for row in rows:
            signal = str(readings.signals[row])
            if (signal, place, time) in whole:
                continue
            if row not in fresh:
                out.repeated.append(row)
            elif self._has(signal, place, time):
                out.alone[row] = f"{_of(readings, row)} came without the others, and its road was told of already"
            else:
                out.waiting.append(row)

    def _has(self, signal: str, place: str, time: int) -> bool:
        """Whether there is a reading of a road."""
        return self._have(signal, [place], time)[0]

    def _have(self, signal: str, places: Sequence[str], time: int) -> list[bool]:
        at = pd.Timestamp(time, unit="s", tz="UTC")
        where = self.channels[signal].ids.get_indexer(pd.Index(places))
        found = np.isfinite(self.read(signal, at, at).values).any(axis=0)
        return [bool(node >= 0 and found[node]) for node in where]


def _known(connection: sa.Connection, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], _Road]:
    found: dict[tuple[str, int], _Road] = {}
    for time in sorted({time for _, time in wanted}):
        places = sorted(place for place, at in wanted if at == time)
        for part in in_parts(places):
            for row in connection.execute(sa.select(lanes).where(lanes.c.time == time, lanes.c.node.in_(part))):
                road = found.setdefault((row.node, row.time), {})
                road[row.signal, Lane(row.lane, row.direction)] = _Told(row.value, row.lanes)
    return found


def _read(readings: Readings, row: int) -> tuple[str, int, str, Lane, _Told]:
    on: OnLane = readings.lanes[row]
    told = _Told(float(readings.values[row]), on.lanes)
    return str(readings.ids[row]), int(readings.times[row]), str(readings.signals[row]), Lane(*on[:2]), told


def _of(readings: Readings, row: int) -> str:
    return f"lane {readings.lanes[row].name} of {str(readings.ids[row])[:80]!r}"
