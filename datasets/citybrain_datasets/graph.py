"""The city's graph as arrays a network reads: static attributes, and each node's incoming neighbours, padded.

Padded neighbour lists (``[node, neighbour]``) rather than edge lists: a gather and a weighted sum is the form
of message passing that inference engines run fastest, and its shapes stay regular.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.neighbourhood import Neighbourhood
from citybrain_datasets.signals import NodeType
from citybrain_datasets.statistics import Statistics
from citybrain_datasets.task import Task

EDGE_CHANNELS = ("present", "log_distance", "nearness", "bearing_sin", "bearing_cos", "bearing_known")
"""Channels of an edge. ``bearing`` is from the sender to the receiver; absent edges are all zero."""

NEARBY_CHANNELS = (
    "present", "log_distance", "nearness",
    "ahead", "ahead_log_distance", "behind", "behind_log_distance", "speeds_known", "speed_gap",
)  # fmt: skip
"""Channels of a neighbour that is near, linked or not. ``ahead`` says that a link leads from it to the node, ``behind``
that one leads back; ``speed_gap`` is how far apart their given free-flow speeds are, in 100 km/h."""

STATIC_SCALES = {
    "length_m": 1_000.0,
    "lanes": 4.0,
    "free_speed_kmh": 100.0,
    "capacity_veh_h": 4_000.0,
    "population": 10_000.0,
    "height_m": 500.0,
}


@dataclass(frozen=True)
class Messages:
    """One kind of message: along which relation, and whether with (source → target) or against its direction."""

    name: str
    relation: str
    sender: NodeType
    receiver: NodeType
    against: bool = False


def messages_of(task: Task, city_relations: frozenset[str]) -> tuple[Messages, ...]:
    """The kinds of message a task passes on a city's relations, in a fixed order."""
    every = (
        Messages("downstream", "road-road", "road", "road"),
        Messages("upstream", "road-road", "road", "road", against=True),
        Messages("between_stations", "air-air", "air", "air"),
        Messages("road_to_air", "road-air", "road", "air"),
    )
    present = {task.node} | ({task.context_node} if task.context_node else set())
    return tuple(m for m in every if {m.sender, m.receiver} <= present and m.relation in city_relations)


def graph_arrays(
    city: City, task: Task, statistics: Statistics, neighbours: int = 16, sensed: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Arrays by name: ``static_<type>`` float32 ``[node, attribute]``; for each kind of message ``<name>_index``
    int64 ``[receiver, neighbour]`` and ``<name>_edge`` float32 ``[receiver, neighbour, len(EDGE_CHANNELS)]``; of the
    target's nodes ``nearby_index``, ``nearby_edge`` likewise with :data:`NEARBY_CHANNELS`, and ``sensed_<type>``
    float32 ``[node]``, 0 for a place where training knows no sensor (those that ``sensed``, bool ``[node]``, leaves
    out).

    Of a receiver with more than ``neighbours`` senders the nearest are kept. Self loops are dropped: a node knows
    itself.
    """
    arrays: dict[str, np.ndarray] = {}
    types: list[NodeType] = [task.node, *([task.context_node] if task.context_node else [])]
    for node in types:
        arrays[f"static_{node}"] = static_attributes(
            city, node, task, statistics, sensed if node == task.node else None
        )
    for kind in messages_of(task, frozenset(city.edges)):
        index, edge = _padded(city, kind, neighbours)
        arrays[f"{kind.name}_index"], arrays[f"{kind.name}_edge"] = index, edge
    arrays["nearby_index"], arrays["nearby_edge"] = _nearby(city, task.node, neighbours)
    count = len(city.ids(task.node))
    arrays[f"sensed_{task.node}"] = np.ones(count, np.float32) if sensed is None else sensed.astype(np.float32)
    return arrays


def static_attributes(
    city: City, node: NodeType, task: Task, statistics: Statistics, sensed: np.ndarray | None = None
) -> np.ndarray:
    """Float32 ``[node, attribute]``: place, each of :data:`STATIC_SCALES` and whether it is known, and the level and
    spread of the weekly profile.

    Of nodes that are not ``sensed``, bool ``[node]``, the coordinates are left out: what a network knows of a place by
    them it has learnt by heart, at the places that it was trained on.
    """
    table = city.nodes[node]
    columns: list[np.ndarray] = []
    placed = table[["lat", "lon"]].notna().all(axis=1).to_numpy()
    if sensed is not None:
        placed = placed & sensed
    if placed.any():
        lat, lon = table["lat"].to_numpy(float), table["lon"].to_numpy(float)
        north = (lat - np.nanmedian(lat)) * 111.2 / 10
        east = (lon - np.nanmedian(lon)) * 111.2 / 10 * np.cos(np.deg2rad(np.nanmedian(lat)))
        columns += [np.where(placed, north, 0), np.where(placed, east, 0), placed]
    else:
        columns += [np.zeros(len(table))] * 3
    for name, scale in STATIC_SCALES.items():
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(float) if name in table else np.nan
        values = np.broadcast_to(values, len(table)) / scale
        columns += [np.nan_to_num(values), np.isfinite(values)]
    for name in (task.target, *task.context):
        if (task.node if name == task.target else task.context_node) == node:
            profile = statistics.scalers[name].scale(statistics.profiles[name].mean)
            columns += [profile.mean(axis=0), profile.std(axis=0), profile.min(axis=0), profile.max(axis=0)]
    return np.stack(columns, axis=-1).astype(np.float32)


def _padded(city: City, kind: Messages, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    table = city.edges[kind.relation]
    source, target = ("target", "source") if kind.against else ("source", "target")
    senders = pd.Index(city.ids(kind.sender)).get_indexer(pd.Index(table[source].astype(str)))
    receivers = pd.Index(city.ids(kind.receiver)).get_indexer(pd.Index(table[target].astype(str)))
    distance = table["distance_m"].to_numpy(float)
    bearing = table["bearing_deg"].to_numpy(float) + (180.0 if kind.against else 0.0)
    keep = (senders != receivers) | (kind.sender != kind.receiver)
    order = np.lexsort((distance, receivers))
    order = order[keep[order]]
    senders, receivers, distance, bearing = (a[order] for a in (senders, receivers, distance, bearing))

    count = len(city.ids(kind.receiver))
    first = np.searchsorted(receivers, np.arange(count))
    rank = np.arange(len(receivers)) - first[receivers]
    near = rank < neighbours
    senders, receivers, distance, bearing, rank = (a[near] for a in (senders, receivers, distance, bearing, rank))
    width = int(rank.max()) + 1 if len(rank) else 1

    index = np.zeros((count, width), np.int64)
    edge = np.zeros((count, width, len(EDGE_CHANNELS)), np.float32)
    index[receivers, rank] = senders
    known = np.isfinite(bearing)
    angle = np.deg2rad(np.where(known, bearing, 0))
    km = distance / 1_000
    edge[receivers, rank] = np.stack(
        [np.ones_like(km), np.log1p(km), np.exp(-km / max(km.mean(), 0.05) if len(km) else km),
         np.sin(angle) * known, np.cos(angle) * known, known],
        axis=-1,
    )  # fmt: skip
    return index, edge


def _nearby(city: City, node: NodeType, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    near = Neighbourhood.of(city, node, neighbours)
    there, index = near.index >= 0, near.index.clip(0)
    km = np.nan_to_num(near.metres) / 1_000
    typical = max(float(km[there].mean()), 0.05) if there.any() else 1.0
    here = np.arange(len(index))[:, None]
    ahead, behind = (_linked_km(city, node, pair) for pair in ((index, here), (here, index)))
    speed = given_free_speed(city.nodes[node]) / 100
    gap = np.abs(speed[index] - speed[:, None])
    channels = [np.ones_like(km), np.log1p(km), np.exp(-km / typical)]
    for link in (ahead, behind, gap):
        channels += [np.isfinite(link), np.nan_to_num(link if link is gap else np.log1p(link))]
    edge = np.stack(channels, axis=-1) * there[..., None]
    return index, edge.astype(np.float32)


def _linked_km(city: City, node: NodeType, pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Kilometres of the link from the first of ``pair`` to the second, int arrays that broadcast; NaN without one."""
    sources, targets = np.broadcast_arrays(*pair)
    links = city.edges.get(f"{node}-{node}")
    if links is None:
        return np.full(sources.shape, np.nan)
    ids = pd.Index(city.ids(node))
    ends = [ids.get_indexer(pd.Index(links[side].astype(str))) for side in ("source", "target")]
    lengths = pd.Series(links["distance_m"].to_numpy(float) / 1_000, ends[0] * len(ids) + ends[1])
    lengths = lengths.groupby(level=0).min()
    return lengths.reindex((sources * len(ids) + targets).ravel()).to_numpy().reshape(sources.shape)


def given_free_speed(table: pd.DataFrame) -> np.ndarray:
    """Free-flow speed that a table of nodes states, km/h ``[node]``; NaN where it does not, or where it was derived
    from the sensor's own measurements (``free_speed_measured``)."""
    if "free_speed_kmh" not in table:
        return np.full(len(table), np.nan)
    speed = pd.to_numeric(table["free_speed_kmh"], errors="coerce").to_numpy(float)
    measured = table.get("free_speed_measured", pd.Series(False, table.index)).to_numpy(bool)
    return np.where(measured, np.nan, speed)
