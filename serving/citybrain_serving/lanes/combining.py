"""Lanes become their road: one reading of all of them, or none.

Flows are added up; occupancy is the mean of the lanes; speed is, too, weighted by flow where every lane tells its own.
A set that lacks a lane is no reading of the road, and which lane came first must not decide what its speed was. What
one message does not tell may come in others: :mod:`citybrain_serving.lanes.waiting`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from citybrain_datasets.city import City
from citybrain_serving.fleet import Channel
from citybrain_serving.readings import FINE, parse_time

LaneCount = Callable[[str], int | None]
"""How many lanes a road is known to have; None where that is not known."""

Key = tuple[str, str, int]
"""Signal, place and seconds since 1970 UTC."""

NAME = 20
"""Characters of a lane's name, and of a direction, that tell it from others."""

SUMMED, AVERAGED = ("flow",), ("speed", "occupancy")


class Lane(NamedTuple):
    """A number, or whatever its sender calls it, and the direction where one is told."""

    name: str
    direction: str = ""

    @staticmethod
    def called(name: object, direction: str = "") -> Lane:
        """Of whatever a message calls it, cut to what is kept."""
        return Lane(*(text.replace("\0", "")[:NAME] for text in (str(name), direction)))


@dataclass(frozen=True)
class OfLane:
    channel: Channel
    place: str
    time: str
    value: float
    source: str
    lane: Lane


@dataclass
class LaneSet:
    """What one message tells of the lanes of one road: one signal at one time. ``again`` is of lanes told already."""

    readings: dict[Lane, OfLane] = field(default_factory=dict)
    again: list[OfLane] = field(default_factory=list)
    named: set[Lane] = field(default_factory=set)
    """All lanes, with those whose reading is not sound."""

    def __len__(self) -> int:
        return len(self.readings) + len(self.again)

    @property
    def split(self) -> bool:
        """Whether it tells of lanes of both directions."""
        return len({lane.direction for lane in self.named}) > 1

    @property
    def time(self) -> str:
        return next(iter(self.readings.values())).time

    @property
    def source(self) -> str:
        return " + ".join(reading.source for reading in self.readings.values())


class Lanes:
    """Collects readings of lanes, in the units that are stored."""

    def __init__(self, count: LaneCount):
        self.count = count
        self._sets: dict[Key, LaneSet] = {}
        self._flows: dict[tuple[str, int], dict[Lane, float]] = {}
        self._taken = 0

    def __len__(self) -> int:
        return self._taken

    def take(self, channel: Channel, place: str, time: Any, value: Any, source: str, lane: Lane) -> bool:
        """Whether it can be part of a reading of the road; if not, it is refused by itself."""
        told = self.named(channel, place, time, lane)
        if told is None or type(value) not in (int, float) or not channel.kind.low <= value <= channel.kind.high:
            return False
        reading = OfLane(channel, place, time, float(value), source, lane)
        if told.readings.setdefault(lane, reading) is not reading:
            told.again.append(reading)
        elif channel.signal in SUMMED:
            self.weigh(place, time, reading.value, lane)
        self._taken += 1
        return True

    def named(self, channel: Channel, place: str, time: Any, lane: Lane) -> LaneSet | None:
        """The set of a lane, which is known from now on to be one of the road's; None for what has no lanes."""
        seconds = seconds_of(time)
        if channel.signal not in (*SUMMED, *AVERAGED) or seconds is None:
            return None
        told = self._sets.setdefault((channel.signal, place, seconds), LaneSet())
        told.named.add(lane)
        return told

    def weigh(self, place: str, time: Any, flow: Any, lane: Lane) -> None:
        """The flow of a lane, by which its speed counts; also where flow is not stored."""
        seconds = seconds_of(time)
        if seconds is not None and type(flow) in (int, float) and flow >= 0:
            self._flows.setdefault((place, seconds), {}).setdefault(lane, float(flow))

    def sets(self) -> Iterator[tuple[Key, LaneSet]]:
        return ((key, told) for key, told in self._sets.items() if told.readings)

    def known(self, place: str, told: LaneSet) -> int:
        """How many lanes the road of a set has at least."""
        return max(self.count(place) or 0, len(told.named), *(_number(lane) for lane in told.named))

    def flows(self) -> Iterator[tuple[str, int, Lane, float]]:
        """Place, seconds since 1970 UTC, lane and flow of roads whose speed may yet be told by other messages: it is
        not told whole here, and the flow is not alone here either."""
        stored = {key[1:]: told for key, told in self._sets.items() if key[0] == "flow" and told.readings}
        for place, seconds in self._flows.keys() | stored.keys():
            speeds, flows = self._sets.get(("speed", place, seconds)), stored.get((place, seconds))
            if speeds is not None and speeds.readings:
                whole = self.missing(("speed", place, seconds), speeds) is None
            else:
                whole = flows is not None and self.missing(("flow", place, seconds), flows) is None
            if not whole and flows is not None:  # all of them as stored, or all of them as they came: in one unit
                yield from ((place, seconds, lane, reading.value) for lane, reading in flows.readings.items())
            elif not whole:
                yield from ((place, seconds, lane, flow) for lane, flow in self._flows[place, seconds].items())

    def missing(self, key: Key, told: LaneSet) -> str | None:
        """What keeps a set from being a reading of its road, in words."""
        signal, place, seconds = key
        if told.split:
            return f"{signal} of {place[:80]!r} is told of lanes of both directions; a road has one"
        known = self.known(place, told)
        flows = self._flows.get((place, seconds), {}) if signal == "speed" else {}
        empty = {lane for lane, flow in flows.items() if flow == 0}  # where nobody drives there is no speed
        if len(told.readings.keys() | empty) >= known:
            return None
        names = ", ".join(sorted(lane.name for lane in told.readings))
        return f"{signal} of {place[:80]!r} is told of lane {names[:80]} alone; its {known} lanes are taken together"

    def value(self, key: Key, told: LaneSet) -> float:
        """The reading of the road."""
        signal, place, seconds = key
        values = [reading.value for reading in told.readings.values()]
        if signal in SUMMED:
            return math.fsum(values)
        flows = self._flows.get((place, seconds), {}) if signal == "speed" else {}
        weights = [flows.get(lane, math.nan) for lane in told.readings]
        total = math.fsum(weights)
        if not total > 0:
            return math.fsum(values) / len(values)
        return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def _number(lane: Lane) -> int:
    """At least so many lanes has the road of one that is numbered so."""
    return int(lane.name) if lane.name.isdecimal() and len(lane.name) < 3 else 0


def lane_count(city: City) -> LaneCount:
    """As the city tells it, in ``lanes`` of its roads."""
    roads = city.nodes.get("road")
    column: Mapping[Any, Any] = {} if roads is None or "lanes" not in roads else roads["lanes"]  # type: ignore[assignment]

    def count(place: str) -> int | None:
        lanes = column.get(place)
        return int(lanes) if lanes is not None and math.isfinite(lanes) else None

    return count


def seconds_of(time: Any) -> int | None:
    """Seconds since 1970 UTC; None for what is no time."""
    if type(time) is not str:
        return None
    seconds, fault = parse_time(time)
    return seconds if fault == FINE else None
