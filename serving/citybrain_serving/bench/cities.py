"""A city of any size, from a bundle of a small one: the same streets over and over, side by side.

Network, statistics and task stay those of the bundle; what grows is what grows with a city: nodes, edges, the fixed
inputs of the network, the weekly profile and the readings. Forecasts of such a city mean nothing, but cost what
forecasts of a real one of that size cost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.signals import KINDS
from citybrain_datasets.statistics import Profile, Statistics
from citybrain_models.bundle import Bundle
from citybrain_serving.fleet import Channel, Fleet
from citybrain_serving.store import Partial, SqlStore

SIDE = 0.05
"""Degrees from one copy of the streets to the next."""

MEASURED = 0.97
"""Share of sensors that tell something at a tick."""


def enlarged(bundle: Bundle, segments: int) -> Bundle:
    """``bundle`` for a city of ``segments`` road segments, to be written under a digest of its own.

    Raises :class:`CityBrainError` for a bundle that reads more than the roads of its city.
    """
    task, roads = bundle.task, bundle.city.nodes["road"]
    read = bundle.features().signals
    if task.node != "road" or {bundle.placing[name] for name in read} - {"road", "city"}:
        raise CityBrainError(f"only a forecast of roads from roads can be enlarged, not one of {task.name}")
    row = np.arange(segments) % len(roads)
    copy = np.arange(segments) // len(roads)
    table = roads.iloc[row].copy()
    table.index = pd.Index([f"{name}.{k}" for name, k in zip(table.index, copy, strict=True)], name="id")
    across = max(1, int(np.ceil(np.sqrt(copy.max() + 1))))
    table["lat"] += SIDE * (copy // across)
    table["lon"] += SIDE * (copy % across)
    city = bundle.city.replace(
        name=f"{bundle.city.name}-{segments}",
        nodes={"road": table},
        edges={"road-road": _edges(bundle.city.edges["road-road"], table.index, copy.max() + 1)},
        signals={},
        synthetic=True,
    )
    profiles = {
        name: Profile(profile.slot_minutes, profile.mean[:, row])
        for name, profile in bundle.statistics.profiles.items()
    }
    return replace(
        bundle,
        city=city,
        placing={name: bundle.placing[name] for name in read},
        clocks={name: ticks for name, ticks in bundle.clocks.items() if name in read},
        statistics=Statistics(bundle.statistics.scalers, profiles),
        graph={name: _graph(name, array, row, copy, len(roads)) for name, array in bundle.graph.items()},
        fingerprint="0" * 64,
        card="An enlarged city, to measure the service with. Its forecasts mean nothing.",
        digest="",
    )


def _edges(edges: pd.DataFrame, ids: pd.Index, copies: int) -> pd.DataFrame:
    parts = [edges.assign(source=edges["source"] + f".{k}", target=edges["target"] + f".{k}") for k in range(copies)]
    every = pd.concat(parts, ignore_index=True)
    return every[every["source"].isin(ids) & every["target"].isin(ids)].reset_index(drop=True)


def _graph(name: str, array: np.ndarray, row: np.ndarray, copy: np.ndarray, size: int) -> np.ndarray:
    """A fixed input ``[node, …]`` of the small city for the large one; neighbour lists point into their own copy."""
    if array.shape[0] != size:
        raise CityBrainError(f"graph input {name} has {array.shape[0]} rows for {size} road segments")
    if not name.endswith("_index"):
        return array[row]
    # In the last copy, which may be cut short, a neighbour beyond the end is another segment: no cheaper to look up.
    return ((array[row] + (copy * size)[:, None]) % len(row)).astype(array.dtype)


def fill(bundle: Bundle, store: str | Path, until: pd.Timestamp) -> None:
    """Writes into an empty store every reading that a forecast issued at ``until`` looks at."""
    fleet, features = Fleet.of([bundle]), bundle.features()
    opened = SqlStore(str(store), fleet.channels)
    random = np.random.default_rng(7)
    try:
        for name in features.signals:
            channel = fleet.channels[name]
            # Within a step of the task lie several ticks of a finer clock; of a coarser one, the last holds on.
            finer = max(1, bundle.task.step // channel.ticks.step)
            times = {
                channel.ticks.floor(until + offset * bundle.task.step) - k * channel.ticks.step
                for offset in features.offsets(name).tolist()
                for k in range(finer)
            }
            for time in sorted(times):
                opened.merge([readings(bundle, channel, time, random)])
    finally:
        opened.close()


def readings(bundle: Bundle, channel: Channel, time: pd.Timestamp, random: np.random.Generator) -> Partial:
    """What the sensors of one signal tell at a tick: its usual level and spread, kept within what can be."""
    scaler, kind = bundle.statistics.scalers[channel.signal], KINDS[channel.signal]
    count = len(channel.ids)
    nodes = np.flatnonzero(random.random(count) < MEASURED) if count > 1 else np.arange(count)
    values = scaler.unscale(random.normal(0, 0.5, len(nodes)).astype(np.float32))
    values = np.clip(values, max(kind.low, 0), kind.high).round(2).astype(np.float32)
    return Partial(channel.signal, int(time.timestamp()), nodes, values)
