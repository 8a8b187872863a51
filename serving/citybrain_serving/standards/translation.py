"""From somebody else's format to readings, with the place each one came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pandas as pd

from citybrain_datasets.signals import NodeType
from citybrain_datasets.units import conversion
from citybrain_serving.fleet import Channel
from citybrain_serving.lanes.combining import Key, Lane, LaneCount, Lanes, LaneSet, OfLane, seconds_of
from citybrain_serving.lanes.sites import Site
from citybrain_serving.readings import EXPLAINED, FAULTS, Fault, LaneFlow, OnLane, Readings, assembled, check_count

LONGEST = 3
"""Steps of a channel that a reading may be about at most: a feed may be somewhat coarser, quarters of an hour where
steps are of five minutes."""

Meaning = Literal["begin", "middle", "end"]
"""Which moment of its interval a time names."""


@dataclass(frozen=True)
class Translated:
    """``sources[row]`` says where in the document a reading stood; ``ignored`` counts what is not measured here or
    was marked as faulty by its sender. ``sites`` are those that the document describes."""

    readings: Readings
    sources: list[str]
    ignored: Mapping[str, int]
    sites: Mapping[str, Site] = field(default_factory=dict)


def no_count(_place: str) -> None:
    """How many lanes a road has, where nobody knows."""


class Rows:
    """Collects readings one by one. What a reading is worth is decided later, in one place: the ingest."""

    def __init__(self, channels: Mapping[str, Channel], most: int, count: LaneCount = no_count):
        self.channels = channels
        self.most = most
        self.lanes = Lanes(count)
        self.ignored: Counter[str] = Counter()
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [])
        self._sources: list[str] = []
        self._broken: dict[int, str] = {}
        self._faults: dict[int, Fault] = {}
        self._parts: set[int] = set()
        self._lanes: dict[int, OnLane] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def channel(self, signal: str, node: NodeType, place: str) -> Channel | None:
        """The channel a reading belongs to; None, and counted, where the city does not measure it there."""
        channel = self.channels.get(signal)
        if channel is not None and (channel.node == node or (channel.node == "city" and place == "city")):
            return channel
        self.ignored[f"{signal} is not measured at {node} nodes here"] += 1
        return None

    def too_long(self, channel: Channel, seconds: float | None) -> bool:
        """Whether a value is about so much more than a step of its channel that it is none of its readings: the mean
        of a day is not that of its last hour. It is counted."""
        step = channel.ticks.step.total_seconds()
        if seconds is None or seconds <= LONGEST * step:
            return False
        self.ignored[f"values of {channel.signal} over more than {LONGEST} of its steps of {step / 60:g} min"] += 1
        return True

    def add(
        self,
        channel: Channel,
        place: str,
        time: Any,
        value: Any,
        unit: str | None,
        source: str,
        lane: Lane | None = None,
    ) -> None:
        """A reading in the unit that its sender names, None for the one stored here; of one lane, or of the whole.

        An unknown unit, or what is no number, is handed on as it is: the ingest refuses it by name.
        """
        if unit is not None and type(value) in (int, float):
            try:
                linear = conversion(channel.signal, unit, channel.ticks.step)
            except ValueError:
                linear = None
            if linear is not None:
                value, unit = value * linear[0] + linear[1], None
        known = value if unit is None else None
        if lane is None or not self.lanes.take(channel, place, time, known, source, lane):
            if lane is not None:
                self._parts.add(len(self))
            self._append(place, channel.signal, time, value, unit, source)
        self._check()

    def broken(self, source: str, why: str) -> None:
        """Something that should have been a reading and is none."""
        self._explain(why)
        self._append(None, None, None, None, None, source)
        self._check()

    def partial(self, channel: Channel, place: str, time: Any, value: float, source: str, why: str) -> None:
        """A reading of a part of a road, which does not pass for the whole."""
        self._refuse(Fault.PARTIAL, (place, channel.signal, time, value, None, source), why)
        self._check()

    def translated(self) -> Translated:
        whole = self._wholes() if self.lanes else set()
        for key, told in self.lanes.sets():
            self._road(key, told, key in whole)
        readings = assembled(*self._columns)
        readings.broken |= self._broken
        for row, fault in self._faults.items():
            readings.fault[row] = FAULTS.index(fault)
        readings.lanes = self._lanes
        if "speed" in self.channels:
            readings.flows = [
                LaneFlow(place, seconds, OnLane(*lane, lanes=1), flow)
                for place, seconds, lane, flow in self.lanes.flows()
            ]
        return Translated(readings, self._sources, dict(self.ignored))

    def _wholes(self) -> set[Key]:
        """What is told of roads as such."""
        places, signals, times, *_ = self._columns
        return {
            (signal, place, seconds)
            for row, (place, signal, time) in enumerate(zip(places, signals, times, strict=True))
            if row not in self._parts
            for seconds in [seconds_of(time)]
            if seconds is not None
        }

    def _road(self, key: Key, told: LaneSet, whole: bool) -> None:
        """One reading of the road from those of its lanes, or a refusal of each, unless others come for the rest."""
        if whole:
            self.ignored["values of single lanes beside that of their road"] += len(told)
            return
        missing = self.lanes.missing(key, told)
        if missing is None:
            signal, place, _ = key
            self._append(place, signal, told.time, self.lanes.value(key, told), None, told.source)
        else:
            for lane, reading in told.readings.items():
                if not told.split:
                    self._lanes[len(self)] = OnLane(*lane, lanes=self.lanes.known(key[1], told))
                self._refuse(Fault.PARTIAL, _row(reading), missing)
        for reading in told.again:
            if reading.value == told.readings[reading.lane].value:
                self.ignored["values of lanes that were told already"] += 1
            else:
                self._refuse(Fault.CONFLICT, _row(reading))

    def _explain(self, why: str) -> None:
        """Says of the next row what is wrong with it."""
        if len(self._broken) < EXPLAINED:
            self._broken[len(self)] = why

    def _refuse(self, fault: Fault, row: tuple[Any, ...], why: str | None = None) -> None:
        if why is not None:
            self._explain(why)
        self._faults[len(self)] = fault
        self._append(*row)

    def _check(self) -> None:
        check_count(len(self) + len(self.lanes), self.most)

    def _append(self, *row: Any) -> None:
        *values, source = row
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self._sources.append(source)


def _row(reading: OfLane) -> tuple[Any, ...]:
    return reading.place, reading.channel.signal, reading.time, reading.value, None, reading.source


def end_of(time: Any, meaning: Meaning, step: pd.Timedelta) -> Any:
    """The end of an interval of length ``step`` of which ``time`` is the ``meaning``; what cannot be read as a time
    is handed on, for the ingest to refuse."""
    if meaning == "end" or not isinstance(time, str):
        return time
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return time
    if moment.tzinfo is None:
        return time
    share = {"begin": 1.0, "middle": 0.5}[meaning]
    try:
        return (moment.astimezone(UTC) + timedelta(seconds=share * step.total_seconds())).isoformat()
    except OverflowError:
        return time
