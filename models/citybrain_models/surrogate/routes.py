"""Who drives where: trips loaded onto shortest routes, and the relations between streets that follow from it.

Two relations tell a network what adjacency does not. *Sharing*: the part of a street's traffic that also uses another
one, so that what happens here is felt there. *Diversion*: who takes over a street's traffic when it is closed. Both
are computed once for a road network and its demand. Routes are shortest in travel time (Dijkstra); drivers who see
times differently are a few draws of lognormal noise on them (a Monte Carlo probit loading, Sheffi 1985, ch. 11).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

PERCEPTION = 0.2
"""Spread of the logarithm of perceived travel times, our choice."""


@dataclass(frozen=True)
class Streets:
    """A road network as routing sees it: ``successors [connection, 2]`` joins segment indices along the traffic,
    ``seconds [segment]`` is the time to drive each."""

    successors: np.ndarray
    seconds: np.ndarray

    def with_seconds(self, seconds: np.ndarray) -> Streets:
        return Streets(self.successors, seconds)


@dataclass(frozen=True)
class Trees:
    """Shortest routes from every segment: ``before [origin, segment]`` is the segment driven just before (−1: none),
    ``order [origin, rank]`` lists segments from the farthest to the nearest, ``reached [origin, segment]``."""

    before: np.ndarray
    order: np.ndarray
    reached: np.ndarray


def grow(streets: Streets, origins: np.ndarray, closed: int | None = None) -> Trees:
    """Shortest routes from ``origins`` that do not enter or leave the segment ``closed``."""
    count = len(streets.seconds)
    pairs = streets.successors
    if closed is not None:
        pairs = pairs[(pairs != closed).all(axis=1)]
    # The cost of a connection is the time on the segment it enters; every trip pays its first segment alike.
    costs = csr_array((np.maximum(streets.seconds[pairs[:, 1]], 1e-3), (pairs[:, 0], pairs[:, 1])), (count, count))
    distance, before = dijkstra(costs, indices=origins, return_predecessors=True)
    before = np.where(before < 0, -1, before)
    return Trees(before, np.argsort(-np.where(np.isfinite(distance), distance, -1), axis=1), np.isfinite(distance))


def load(trees: Trees, trips: np.ndarray) -> np.ndarray:
    """Traffic of each origin on each segment, ``[origin, segment, group]``, first and last segment included.

    ``trips [origin, destination, group]`` go along the trees; those that reach no destination are not made.
    """
    rows = np.arange(len(trips))
    flow = np.where(trees.reached[..., None], trips, 0.0)
    for rank in range(trees.order.shape[1]):
        node = trees.order[:, rank]
        parent = trees.before[rows, node]
        some = parent >= 0
        flow[rows[some], parent[some]] += flow[rows[some], node[some]]
    return flow


def perceived(streets: Streets, draws: int, seed: int = 0) -> list[Streets]:
    """The streets as different drivers see them."""
    noise = np.random.default_rng(seed).normal(-(PERCEPTION**2) / 2, PERCEPTION, (draws, len(streets.seconds)))
    return [streets.with_seconds(streets.seconds * np.exp(row)) for row in noise]


def relations(streets: Streets, trips: np.ndarray, draws: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(sharing, diversion, turning)``, each ``[segment, segment]`` and for ``trips [origin, destination]``.

    ``sharing[s, r]`` is the part of the traffic of ``s`` that also uses ``r``, 0–1. ``diversion[s, r]`` is what ``r``
    gains (or loses, negative) for each vehicle that finds ``s`` closed, −1 … about 1; it is 0 on the diagonal.
    ``turning[s, r]`` is the part of the traffic of ``s`` that goes on into its successor ``r``. Rows of segments
    without traffic are zero.
    """
    count = len(streets.seconds)
    origins = np.arange(count)
    used, shared, moved, turned = np.zeros(count), *(np.zeros((count, count)) for _ in range(3))
    for seen in perceived(streets, draws):
        trees = grow(seen, origins)
        flow = load(trees, trips[..., None])[..., 0]
        base = flow.sum(axis=0)
        used += base
        at, by = np.nonzero(trees.before >= 0)
        np.add.at(turned, (trees.before[at, by], by), flow[at, by])
        for street in range(count):
            through = _through(trees, trips, street)
            if not through.any():
                continue
            shared[street] += load(trees, through[..., None])[..., 0].sum(axis=0)
            touched = np.flatnonzero(through.any(axis=1))
            around = grow(seen, touched, closed=street)
            after = load(around, trips[touched][..., None])[..., 0].sum(axis=0)
            # Who starts or ends in the closed street stays at home and is no diversion.
            before = load(_only(trees, touched), _without(trips[touched], touched, street)[..., None])[..., 0]
            moved[street] += after - before.sum(axis=0)
    scale = np.where(used > 0, used, np.inf)[:, None]
    np.fill_diagonal(moved, 0.0)
    np.fill_diagonal(shared, 0.0)
    return shared / scale, moved / scale, turned / scale


def _through(trees: Trees, trips: np.ndarray, street: int) -> np.ndarray:
    """The trips ``[origin, destination]`` whose route uses ``street``."""
    rows = np.arange(len(trips))
    uses = np.zeros(trips.shape, bool)
    uses[:, street] = trees.reached[:, street]
    for rank in range(trees.order.shape[1] - 1, -1, -1):  # from the nearest outwards
        node = trees.order[:, rank]
        parent = trees.before[rows, node]
        uses[rows, node] |= (parent >= 0) & uses[rows, np.maximum(parent, 0)]
    uses[street] = trees.reached[street]
    return np.where(uses, trips, 0.0)


def _only(trees: Trees, origins: np.ndarray) -> Trees:
    return Trees(trees.before[origins], trees.order[origins], trees.reached[origins])


def _without(trips: np.ndarray, origins: np.ndarray, street: int) -> np.ndarray:
    kept = trips.copy()
    kept[:, street] = 0.0
    kept[origins == street] = 0.0
    return kept
