"""The City contract: places, how they are connected, and what was measured there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.signals import NodeType, Signal

RELATIONS: dict[str, tuple[NodeType, NodeType]] = {
    "road-road": ("road", "road"),
    "air-air": ("air", "air"),
    "road-air": ("road", "air"),
}
"""Edge tables by name. ``road-road`` runs with the traffic, from upstream to downstream; ``air-air`` from a
station to a neighbour; ``road-air`` from a road segment to a station that breathes its exhaust."""

NODE_COLUMNS = ("lat", "lon", "name", "name_zh", "owner", "cell")
"""Columns every node table has. ``lat`` and ``lon`` are WGS 84 degrees, NaN where the place is not published;
``cell`` is the H3 cell (resolution 8) of the place, the grid of 网格化管理; the others may be empty strings."""

ID_LENGTH = 200
"""Characters of a node's id; a store keeps no more."""

EDGE_COLUMNS = ("source", "target", "distance_m", "bearing_deg")
"""``bearing_deg`` is clockwise from north, from source to target; NaN where places are unknown."""

STATIC_ATTRIBUTES: dict[str, str] = {
    "length_m": "length of the segment",
    "lanes": "number of lanes",
    "free_speed_kmh": "free-flow speed",
    "capacity_veh_h": "capacity of the segment",
    "population": "people living nearest to this node",
    "height_m": "height above sea level",
}
"""Numeric attributes a node table may have; others are kept and ignored by the networks."""


@dataclass(frozen=True)
class City:
    """One city as one graph.

    ``nodes[type]`` is a table indexed by id (string), with :data:`NODE_COLUMNS` and any static attributes; its
    order is the node order of every signal of that type. ``edges[relation]`` has :data:`EDGE_COLUMNS`.
    """

    name: str
    timezone: str
    nodes: Mapping[NodeType, pd.DataFrame]
    edges: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    signals: Mapping[str, Signal] = field(default_factory=dict)
    title: str = ""
    country: str | None = None
    """ISO 3166 code (``CN``, or with a subdivision ``US-CA``) whose public holidays the calendar knows."""
    synthetic: bool = False
    attribution: str = ""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise CityError(problems)

    def ids(self, node: NodeType) -> list[str]:
        """Ids in node order; the single node of ``city`` signals is named ``city``."""
        if node == "city":
            return ["city"]
        table = self.nodes.get(node)
        return [] if table is None else [str(i) for i in table.index]

    def between(self, first: pd.Timestamp | None, last: pd.Timestamp | None) -> City:
        """The same city with every signal cut to ``first`` ≤ time ≤ ``last``."""
        return self.replace(signals={k: s.between(first, last) for k, s in self.signals.items()})

    def replace(self, **changes: object) -> City:
        return City(**{**self.__dict__, **changes})

    def fingerprint(self) -> str:
        """SHA-256 over ids, edges and every value: the same data give the same digest on every machine."""
        digest = hashlib.sha256(f"{self.name}|{self.timezone}".encode())
        for node in sorted(self.nodes):
            digest.update("\n".join(self.ids(node)).encode())
        for relation in sorted(self.edges):
            table = self.edges[relation]
            digest.update(table[["source", "target"]].to_csv(index=False).encode())
            digest.update(np.ascontiguousarray(table["distance_m"], dtype="<f8").tobytes())
        for name in sorted(self.signals):
            signal = self.signals[name]
            digest.update(f"{name}|{signal.node}|{signal.start.value}|{signal.step.value}|{signal.shape}".encode())
            for first in range(0, signal.shape[0], 4096):
                block = np.ascontiguousarray(signal.rows(first, first + 4096), dtype="<f4")
                digest.update(np.where(np.isnan(block), np.float32(np.nan), block).tobytes())
        return digest.hexdigest()

    def save(self, folder: Path | str) -> None:
        """Writes Parquet tables and ``city.yaml``, whole or not at all."""
        from citybrain_datasets.store import save_city

        save_city(self, Path(folder))

    @staticmethod
    def load(source: Path | str) -> City:
        """Reads a saved city from its folder, or the one that ships with the package by its name ``embedded``."""
        from citybrain_datasets.store import load_city

        return load_city(source)

    def _problems(self) -> Iterable[Problem]:
        yield from name_problems(self.name)
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            yield Problem("city", f"unknown time zone {self.timezone!r}")
        if not any(len(table) for table in self.nodes.values()):
            yield Problem("city", "has no road and no air node")
        for node, table in self.nodes.items():
            yield from _node_problems(node, table)
        for relation, table in self.edges.items():
            yield from self._edge_problems(relation, table)
        for name, signal in self.signals.items():
            yield from self._signal_problems(name, signal)

    def _edge_problems(self, relation: str, table: pd.DataFrame) -> Iterable[Problem]:
        where = f"edges {relation}"
        if relation not in RELATIONS:
            yield Problem(where, f"unknown relation; known are {', '.join(RELATIONS)}")
            return
        missing = [c for c in EDGE_COLUMNS if c not in table.columns]
        if missing:
            yield Problem(where, f"lacks the column(s) {', '.join(missing)}")
            return
        for column, node in zip(("source", "target"), RELATIONS[relation], strict=True):
            known = set(self.ids(node))
            for row, value in zip(table.index, table[column], strict=True):
                if str(value) not in known:
                    yield Problem(where, f"{value!r} is no {node} node", str(row), column)
        for row in table.index[~(table["distance_m"] >= 0)]:
            yield Problem(where, f"distance {table.at[row, 'distance_m']!s} must be ≥ 0 m", str(row), "distance_m")

    def _signal_problems(self, name: str, signal: Signal) -> Iterable[Problem]:
        where = f"signal {name}"
        if name != signal.name:
            yield Problem(where, f"is stored under another name than its own, {signal.name!r}")
        width = len(self.ids(signal.node))
        if signal.shape[1] != width:
            yield Problem(where, f"has {signal.shape[1]} columns for {width} {signal.node} nodes")
        if signal.step <= pd.Timedelta(0):
            yield Problem(where, f"step {signal.step} must be positive")


def name_problems(name: str) -> Iterable[Problem]:
    """What is wrong with the name of a city."""
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        yield Problem("city", f"name {name!r} must be letters, digits, '-' or '_'")


def _node_problems(node: str, table: pd.DataFrame) -> Iterable[Problem]:
    where = f"nodes {node}"
    if node not in ("road", "air"):
        yield Problem(where, "node type must be 'road' or 'air'")
        return
    missing = [c for c in NODE_COLUMNS if c not in table.columns]
    if missing:
        yield Problem(where, f"lacks the column(s) {', '.join(missing)}")
        return
    for duplicate in table.index[table.index.duplicated()].unique():
        yield Problem(where, "id stands twice", str(duplicate))
    for name in map(str, table.index):
        if name in ("", ".", "..") or len(name) > ID_LENGTH or not name.isprintable():
            what = f"an id is 1 to {ID_LENGTH} printable characters, and not '.' or '..', which no address can hold"
            yield Problem(where, what, repr(name[:80]))
    for column, limit in (("lat", 90.0), ("lon", 180.0)):
        for row in table.index[table[column].abs() > limit]:
            yield Problem(where, f"{table.at[row, column]!s} is no {column} (±{limit:g}°)", str(row), column)
