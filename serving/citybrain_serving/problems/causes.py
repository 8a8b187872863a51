"""Probable causes of trouble at a node, each with the inputs that it is read from.

These are readings of the present, not proofs: a cause is named where its sign is there, with the values that show it,
so that whoever acts can judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from citybrain_datasets.city import EDGE_COLUMNS, City
from citybrain_datasets.signals import KINDS
from citybrain_serving.encoding import utc
from citybrain_serving.indices import traffic
from citybrain_serving.problems.trouble import CONGESTED

Kind = Literal["spillback", "upstream", "usual", "unusual_drop", "rain", "stagnation", "transport", "traffic_nearby"]

RAIN_MM_H = 0.5
CALM_M_S = 1.5
SHALLOW_M = 300.0
"""Rain that slows traffic; wind and mixing height below which what is emitted stays."""

DROP = 0.6
"""Share of the usual speed below which a speed is an unusual drop."""

UPWIND_DEG = 45.0
"""A station is upwind where the wind comes from its direction, give or take."""

NAMED = 5
"""Neighbours told of for one cause."""


@dataclass(frozen=True)
class Cause:
    """``inputs`` are what it is read from: each has signal, id, value, unit, kind and time. Those of the kind
    ``measured`` are readings of the place with that id, the city as a whole for what is measured once for all; those of
    the kind ``usual`` are the weekly profile's for that time."""

    kind: Kind
    inputs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """What is known at the moment ``issued``: newest values of the present by signal, NaN for none, and when each was
    measured, datetime64[s], both ``[node]``; where each signal is measured, free-flow speeds and what is usual for the
    target at this time ``[node]``."""

    city: City
    issued: pd.Timestamp
    latest: Mapping[str, np.ndarray]
    measured: Mapping[str, np.ndarray]
    placing: Mapping[str, str]
    free: np.ndarray
    usual: np.ndarray

    def value(self, signal: str, row: int, node: str) -> float:
        """Newest value at a node, or for the whole city; NaN where there is none."""
        values = self.latest.get(signal)
        placed = self.placing.get(signal)
        if values is None or not len(values) or placed not in (node, "city"):
            return float("nan")
        return float(values[0 if placed == "city" else row])

    def reading(self, signal: str, row: int, name: str) -> dict[str, Any]:
        """The newest value as it is told, of the node ``name`` or of the whole city."""
        shared = self.placing[signal] == "city"
        at = 0 if shared else row
        value, time = float(self.latest[signal][at]), f"{self.measured[signal][at]}Z"
        return _told(signal, "city" if shared else name, value, "measured", time)

    def usually(self, signal: str, row: int, name: str) -> dict[str, Any]:
        """What is usual for the target now, as it is told."""
        return _told(signal, name, float(self.usual[row]), "usual", utc(self.issued))


def _told(signal: str, name: str, value: float, kind: Literal["measured", "usual"], time: str) -> dict[str, Any]:
    unit = KINDS[signal].unit
    return {"signal": signal, "id": name, "value": round(value, 2), "unit": unit, "kind": kind, "time": time}


class Neighbours:
    """Edges of one relation, found by the node at one end."""

    def __init__(self, city: City, relation: str, at: Literal["source", "target"]):
        table = city.edges.get(relation, pd.DataFrame(columns=list(EDGE_COLUMNS)))
        codes, names = pd.factorize(table[at].astype(str))
        order = np.argsort(codes, kind="stable")
        table = table.iloc[order]
        # The edges of one node lie side by side, from its first to that of the next.
        self.first = dict(zip(names, np.searchsorted(codes[order], np.arange(len(names))).tolist(), strict=True))
        self.count = dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))
        self.others = table["target" if at == "source" else "source"].astype(str).to_numpy(dtype=object)
        self.metres = table["distance_m"].to_numpy(float)
        self.bearings = table["bearing_deg"].to_numpy(float)

    def of(self, node: str) -> Iterator[tuple[str, float, float]]:
        """The node at the other end, metres, and the bearing from source to target."""
        first = self.first.get(node, 0)
        for row in range(first, first + self.count.get(node, 0)):
            if self.others[row] != node:
                yield self.others[row], float(self.metres[row]), float(self.bearings[row])


class Causes:
    """Finds causes in one city."""

    def __init__(self, city: City):
        self.roads = {str(i): row for row, i in enumerate(city.ids("road"))}
        self.stations = {str(i): row for row, i in enumerate(city.ids("air"))}
        self.downstream = Neighbours(city, "road-road", "source")
        self.upstream = Neighbours(city, "road-road", "target")
        self.around = Neighbours(city, "air-air", "target")
        self.exhaust = Neighbours(city, "road-air", "target")

    def of_road(self, node: str, scene: Scene) -> list[Cause]:
        row = self.roads[node]
        found = []
        ahead = self._congested(self.downstream.of(node), scene)
        if ahead:
            found.append(Cause("spillback", ahead))
        behind = self._congested(self.upstream.of(node), scene)
        if behind:
            found.append(Cause("upstream", behind))
        rain = scene.value("precipitation", row, "road")
        if rain >= RAIN_MM_H:
            found.append(Cause("rain", [scene.reading("precipitation", row, node)]))
        speed, usual = scene.value("speed", row, "road"), float(scene.usual[row])
        limit = float(traffic.speed_at(CONGESTED, scene.free[row : row + 1])[0])
        if usual < limit:
            found.append(Cause("usual", [scene.usually("speed", row, node)]))
        elif speed < DROP * usual and not ahead:
            told = [scene.reading("speed", row, node), scene.usually("speed", row, node)]
            found.append(Cause("unusual_drop", told))
        return found

    def of_station(self, node: str, scene: Scene) -> list[Cause]:
        row = self.stations[node]
        found = []
        calm = [
            scene.reading(signal, row, node)
            for signal, bound in (("wind_speed", CALM_M_S), ("mixing_height", SHALLOW_M))
            if scene.value(signal, row, "air") < bound
        ]
        if calm:
            found.append(Cause("stagnation", calm))
        upwind = self._upwind(node, row, scene)
        if upwind:
            found.append(Cause("transport", upwind))
        roads = self._congested(self.exhaust.of(node), scene)
        if roads:
            found.append(Cause("traffic_nearby", roads))
        if scene.usual[row] > 0 and scene.value("pm25", row, "air") <= scene.usual[row]:
            found.append(Cause("usual", [scene.reading("pm25", row, node), scene.usually("pm25", row, node)]))
        return found

    def _congested(self, neighbours: Iterator[tuple[str, float, float]], scene: Scene) -> list[dict[str, Any]]:
        told = []
        for other, metres, _ in neighbours:
            row = self.roads[other]
            speed, free = scene.value("speed", row, "road"), scene.free[row : row + 1]
            if traffic.performance(np.array([speed]), free)[0] >= CONGESTED:
                told.append({**scene.reading("speed", row, other), "distance_m": round(metres)})
        return sorted(told, key=lambda entry: entry["distance_m"])[:NAMED]

    def _upwind(self, node: str, row: int, scene: Scene) -> list[dict[str, Any]]:
        """Stations that the wind comes from and where the air is worse."""
        wind, here = scene.value("wind_direction", row, "air"), scene.value("pm25", row, "air")
        told = []
        for other, metres, bearing in self.around.of(node):
            place = self.stations[other]
            there = scene.value("pm25", place, "air")
            # An edge points from the neighbour to here; the neighbour lies the other way.
            away = abs((bearing + 180 - wind + 180) % 360 - 180)
            if away <= UPWIND_DEG and there > here:
                told.append({**scene.reading("pm25", place, other), "distance_m": round(metres)})
        if told:
            told.sort(key=lambda entry: -entry["value"])
            told = [scene.reading("wind_direction", row, node), *told[:NAMED]]
        return told
