"""A synthetic city of any size: one grid of streets, measured for some days, repeated side by side.

Its forecasts mean nothing, but cost what forecasts of a real city of that size cost.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.features import Features, Window
from citybrain_datasets.signals import Signal
from citybrain_datasets.statistics import Profile, Statistics
from citybrain_training.config import TrainConfig
from citybrain_training.preparation import Preparation, prepare

SIDE = 23
"""Segments along one side of the grid: 529 in all."""

BLOCK_M = 250.0
STEP = pd.Timedelta(minutes=15)
DAYS = 10
"""More than the week that the inputs look back."""


def grid_city(side: int = SIDE, seed: int = 0) -> City:
    """``side`` × ``side`` segments, each followed by its four neighbours, with a rush hour twice a day."""
    random = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(side * side), side)
    names = np.array([f"s{i}" for i in range(side * side)])
    table = pd.DataFrame(
        {"lat": 31.2 + row * BLOCK_M / 111_200, "lon": 121.5 + column * BLOCK_M / 95_000, "name": "", "name_zh": ""},
        index=pd.Index(names, name="id"),
    ).assign(owner="", cell="", length_m=BLOCK_M, free_speed_kmh=60.0, lanes=2.0)
    edges = []
    for down, right, bearing in ((1, 0, 180.0), (-1, 0, 0.0), (0, 1, 90.0), (0, -1, 270.0)):
        there = (row + down) % side * side + (column + right) % side
        distance = BLOCK_M * (1 + random.random(side * side))
        edges.append(
            pd.DataFrame({"source": names, "target": names[there], "distance_m": distance, "bearing_deg": bearing})
        )
    ticks = DAYS * 96
    hour = np.arange(1, ticks + 1)[:, None] / 4 % 24
    rush = np.exp(-((hour - 8) ** 2) / 4) + np.exp(-((hour - 18) ** 2) / 4)
    speed = 60 - 30 * rush + 3 * random.normal(size=(ticks, side * side))
    speed[random.random(speed.shape) < 0.03] = np.nan
    start = pd.Timestamp("2026-03-02", tz="UTC") + STEP
    return City(
        name="grid",
        timezone="UTC",
        nodes={"road": table},
        edges={"road-road": pd.concat(edges, ignore_index=True)},
        signals={"speed": Signal("speed", "road", start, STEP, speed.astype(np.float32))},
        synthetic=True,
    )


def prepared(side: int = SIDE) -> Preparation:
    """The grid made ready for the network that the configuration's defaults describe."""
    return prepare(grid_city(side), "congestion", TrainConfig(threads=1))


def enlarged_graph(graph: Mapping[str, np.ndarray], nodes: int) -> dict[str, np.ndarray]:
    """Fixed inputs ``[node, …]`` of the grid for ``nodes`` segments: copies, neighbours within their own copy."""
    large = {}
    for name, array in graph.items():
        size = len(array)
        rows = np.arange(nodes)
        large[name] = array[rows % size]
        if name.endswith("_index"):
            # In the last copy, which may be cut short, a neighbour beyond the end is some other segment.
            large[name] = (large[name] + (rows // size * size)[:, None]) % nodes
    return large


def enlarged_features(preparation: Preparation, nodes: int) -> Features:
    """Features for ``nodes`` segments, with the grid's statistics repeated."""
    rows = np.arange(nodes) % len(preparation.city.ids("road"))
    statistics = preparation.statistics
    profiles = {name: Profile(p.slot_minutes, p.mean[:, rows]) for name, p in statistics.profiles.items()}
    known = preparation.features
    return Features(known.task, Statistics(statistics.scalers, profiles), known.calendar, known.placing)


def enlarged_window(preparation: Preparation, nodes: int, windows: int = 1) -> tuple[Window, np.ndarray]:
    """The newest ``windows`` of the grid repeated over ``nodes`` segments, and their outcomes
    ``[batch, horizon, node]``."""
    source, issues = preparation.source, preparation.split.train[-windows:]
    rows = np.arange(nodes) % len(preparation.city.ids("road"))
    window = source.window(issues)
    values = {name: array[..., rows] for name, array in window.values.items()}
    return Window(issues, values), source.answer(issues)[..., rows]
