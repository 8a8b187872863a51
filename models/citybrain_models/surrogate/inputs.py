"""What the network reads of a place, whatever the scenario: one function for training, export and serving."""

from __future__ import annotations

import numpy as np

from citybrain_models.surrogate.network import NEIGHBOURS, Base, RoadNetwork

EDGE_CHANNELS = ("present", "turning", "inflow", "receiver_load", "sender_load", "receiver_speed", "sender_speed")
"""Of a connection: it is there; part of the upstream segment's traffic that takes it; part of the downstream
segment's traffic that came by it; usual flow over capacity, and speed over free speed, at either end."""
RELATIONS = ("takes_over", "takes_over_flow", "came_from", "goes_to")


def network_inputs(network: RoadNetwork, base: Base) -> dict[str, np.ndarray]:
    """``context [segment, attribute]``, ``base`` and ``unit [segment, slot, signal]``, ``relation [kind, segment,
    segment]`` and padded neighbour lists ``downstream_…`` and ``upstream_…``; all float32 but the int64 indices."""
    signals, units = base.signals, network.units[:, None, :]
    unit = np.broadcast_to(units, signals.shape)
    relative = signals / units
    load = base.flow.mean(axis=1) / network.capacity_veh_h
    pace = np.divide(base.flow, base.vehicles, out=np.zeros_like(base.flow), where=base.vehicles > 0)
    speed = pace * (network.length_m / 1000)[:, None]
    swift = np.where(base.vehicles > 0, speed / network.free_speed_kmh[:, None], 1.0)
    out_degree = np.bincount(network.connections[:, 0], minlength=len(network.ids))
    in_degree = np.bincount(network.connections[:, 1], minlength=len(network.ids))
    context = np.concatenate(
        [
            np.stack(
                [
                    np.log1p(network.length_m / 1000), network.lanes / 4, network.free_speed_kmh / 100,
                    np.log1p(network.capacity_veh_h / 1000), out_degree / 4, in_degree / 4,
                    network.diversion.clip(0).sum(axis=1) / 10, network.sharing.sum(axis=1) / 20,
                ],
                axis=-1,
            ),
            relative.reshape(len(relative), -1),
            swift,
        ],
        axis=1,
    )  # fmt: skip
    arrays = {
        "context": context,
        "base": signals,
        "unit": unit,
        "relation": _relation(network, base),
        **_neighbours(network, base, load, swift.mean(axis=1)),
    }
    return {n: np.ascontiguousarray(a, np.int64 if n.endswith("_index") else np.float32) for n, a in arrays.items()}


def _relation(network: RoadNetwork, base: Base) -> np.ndarray:
    """``[kind, receiver, sender]``: per vehicle turned away, per unit of the sender's flow as a part of the receiver's
    capacity; the part of the receiver's traffic that uses the sender as well, and of the sender's the receiver."""
    flow = base.flow.mean(axis=1)
    over = network.diversion.T
    scaled = over * flow[None, :] / network.capacity_veh_h[:, None]
    shared = network.sharing.T * flow[None, :] / np.maximum(flow, 1.0)[:, None]
    relation = np.stack([over, scaled, np.clip(shared, 0, 1), network.sharing])
    # Whatever the size of a city, a segment hears the sum of a few strong ties, not of thousands.
    return np.clip(relation, -1.5, 1.5)


def _neighbours(network: RoadNetwork, base: Base, load: np.ndarray, swift: np.ndarray) -> dict[str, np.ndarray]:
    flow = np.maximum(base.flow.mean(axis=1), 1e-9)
    source, target = network.connections.T
    turning = network.turning[source, target]
    inflow = np.clip(turning * flow[source] / flow[target], 0, 1)
    arrays = {}
    for name, sender, receiver in (("downstream", source, target), ("upstream", target, source)):
        order = np.lexsort((sender, -turning, receiver))
        s, r = sender[order], receiver[order]
        rank = np.arange(len(r)) - np.searchsorted(r, r)
        near = rank < NEIGHBOURS
        order, s, r, rank = order[near], s[near], r[near], rank[near]
        width = int(rank.max(initial=0)) + 1
        index = np.zeros((len(network.ids), width), np.int64)
        edge = np.zeros((len(network.ids), width, len(EDGE_CHANNELS)))
        index[r, rank] = s
        edge[r, rank] = np.stack(
            [np.ones(len(s)), turning[order], inflow[order], load[r], load[s], swift[r], swift[s]], axis=-1
        )
        arrays[f"{name}_index"], arrays[f"{name}_edge"] = index, edge
    return arrays
