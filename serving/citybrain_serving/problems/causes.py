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
    """``inputs`` are the observations it is read from: each has signal, id, value and unit."""

    kind: Kind
    inputs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """What is known at the moment: newest values by signal ``[node]``, where each is measured, free-flow speeds and
    what is usual for the target at this time ``[node]``."""

    city: City
    latest: Mapping[str, np.ndarray]
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

    def told(self, signal: str, node: str, value: float) -> dict[str, Any]:
        return {"signal": signal, "id": node, "value": round(value, 2), "unit": KINDS[signal].unit}


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
            found.append(Cause("rain", [scene.told("precipitation", node, rain)]))
        speed, usual = scene.value("speed", row, "road"), float(scene.usual[row])
        limit = float(traffic.speed_at(CONGESTED, scene.free[row : row + 1])[0])
        if usual < limit:
            found.append(Cause("usual", [scene.told("speed", node, usual)]))
        elif speed < DROP * usual and not ahead:
            found.append(Cause("unusual_drop", [scene.told("speed", node, speed), scene.told("speed", node, usual)]))
        return found

    def of_station(self, node: str, scene: Scene) -> list[Cause]:
        row = self.stations[node]
        found = []
        calm = [
            scene.told(signal, node, value)
            for signal, bound in (("wind_speed", CALM_M_S), ("mixing_height", SHALLOW_M))
            if (value := scene.value(signal, row, "air")) < bound
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
            found.append(Cause("usual", [scene.told("pm25", node, float(scene.usual[row]))]))
        return found

    def _congested(self, neighbours: Iterator[tuple[str, float, float]], scene: Scene) -> list[dict[str, Any]]:
        told = []
        for other, metres, _ in neighbours:
            row = self.roads[other]
            speed, free = scene.value("speed", row, "road"), scene.free[row : row + 1]
            if traffic.performance(np.array([speed]), free)[0] >= CONGESTED:
                told.append({**scene.told("speed", other, speed), "distance_m": round(metres)})
        return sorted(told, key=lambda entry: entry["distance_m"])[:NAMED]

    def _upwind(self, node: str, row: int, scene: Scene) -> list[dict[str, Any]]:
        """Stations that the wind comes from and where the air is worse."""
        wind, here = scene.value("wind_direction", row, "air"), scene.value("pm25", row, "air")
        told = []
        for other, metres, bearing in self.around.of(node):
            there = scene.value("pm25", self.stations[other], "air")
            # An edge points from the neighbour to here; the neighbour lies the other way.
            away = abs((bearing + 180 - wind + 180) % 360 - 180)
            if away <= UPWIND_DEG and there > here:
                told.append({**scene.told("pm25", other, there), "distance_m": round(metres)})
        if told:
            told.sort(key=lambda entry: -entry["value"])
            told = [scene.told("wind_direction", node, wind), *told[:NAMED]]
        return told
