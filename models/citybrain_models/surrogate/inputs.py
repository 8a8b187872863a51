"""What the network reads of a place, whatever the scenario: one function for training, export and serving."""

from __future__ import annotations

import numpy as np

from citybrain_models.surrogate.network import NEIGHBOURS, Base, RoadNetwork

EDGE_CHANNELS = ("present", "turning", "inflow", "receiver_load", "sender_load")
"""Of a connection: it is there; part of the upstream segment's traffic that takes it; part of the downstream segment's
traffic that came by it; demand over capacity at either end."""
RELATIONS = ("takes_over", "takes_over_flow", "came_from", "goes_to")
"""``[receiver, sender]``: what the receiver takes over for each vehicle turned away, and for the sender's usual traffic
as a part of the receiver's capacity; the part of the receiver's traffic that uses the sender as well, and the
reverse."""


def graph_inputs(network: RoadNetwork) -> dict[str, np.ndarray]:
    """``relation [kind, segment, segment]`` and padded neighbour lists ``downstream_…`` and ``upstream_…``, float32 but
    the int64 indices; the same whatever the traffic."""
    flow = network.demand.sum(axis=0).mean(axis=0)
    capacity = network.capacity_veh_h
    over = network.diversion.T
    shared = network.sharing.T * flow[None, :] / np.maximum(flow, 1.0)[:, None]
    relation = np.stack([over, over * flow[None, :] / capacity[:, None], np.clip(shared, 0, 1), network.sharing])
    arrays = {"relation": np.clip(relation, -1.5, 1.5), **_neighbours(network, flow)}
    return {n: np.ascontiguousarray(a, np.int64 if n.endswith("_index") else np.float32) for n, a in arrays.items()}


def base_inputs(network: RoadNetwork, base: Base) -> dict[str, np.ndarray]:
    """``context [segment, attribute]``, ``base`` and ``unit [segment, slot, signal]``, float32."""
    signals, units = base.signals, network.units[:, None, :]
    pace = np.divide(base.flow, base.vehicles, out=np.zeros_like(base.flow), where=base.vehicles > 0)
    speed = pace * (network.length_m / 1000)[:, None]
    swift = np.where(base.vehicles > 0, speed / network.free_speed_kmh[:, None], 1.0)
    starting, ending = (np.bincount(c, minlength=len(network.ids)) for c in network.connections.T)
    place = [
        np.log1p(network.length_m / 1000), network.lanes / 4, network.free_speed_kmh / 100,
        np.log1p(network.capacity_veh_h / 1000), starting / 4, ending / 4,
        network.diversion.clip(0).sum(axis=1) / 10, network.sharing.sum(axis=1) / 20,
    ]  # fmt: skip
    context = np.concatenate([np.stack(place, axis=-1), (signals / units).reshape(len(signals), -1), swift], axis=1)
    unit = np.broadcast_to(units, signals.shape)
    return {n: a.astype(np.float32) for n, a in (("context", context), ("base", signals), ("unit", unit))}


def _neighbours(network: RoadNetwork, flow: np.ndarray) -> dict[str, np.ndarray]:
    source, target = network.connections.T
    load = flow / network.capacity_veh_h
    turning = network.turning[source, target]
    inflow = np.clip(turning * flow[source] / np.maximum(flow[target], 1e-9), 0, 1)
    arrays: dict[str, np.ndarray] = {}
    for name, sender, receiver in (("downstream", source, target), ("upstream", target, source)):
        order = np.lexsort((sender, -turning, receiver))
        s, r = sender[order], receiver[order]
        rank = np.arange(len(r)) - np.searchsorted(r, r)
        near = rank < NEIGHBOURS
        order, s, r, rank = order[near], s[near], r[near], rank[near]
        width = int(rank.max(initial=0)) + 1
        index: np.ndarray = np.zeros((len(network.ids), width), np.int64)
        edge: np.ndarray = np.zeros((len(network.ids), width, len(EDGE_CHANNELS)))
        index[r, rank] = s
        edge[r, rank] = np.stack([np.ones(len(s)), turning[order], inflow[order], load[r], load[s]], axis=-1)
        arrays[f"{name}_index"], arrays[f"{name}_edge"] = index, edge
    return arrays
