"""Who is near whom: from whom a place without a sensor borrows what is usual there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.geo import nearest
from citybrain_datasets.signals import NodeType

LENDERS = 3
"""Nearest sensors whose weekly profiles, weighted by inverse distance, stand in for one that is not there."""


@dataclass(frozen=True)
class Neighbourhood:
    """The nodes near each node, never itself: ``index`` int64 ``[node, neighbour]``, nearest first and −1 where there
    are fewer, and ``metres`` ``[node, neighbour]``, NaN there."""

    index: np.ndarray
    metres: np.ndarray

    @staticmethod
    def of(city: City, node: NodeType, count: int) -> Neighbourhood:
        """The ``count`` nearest in a straight line; of a node whose place is not known, the nearest along its links."""
        table = city.nodes[node]
        lat, lon = table["lat"].to_numpy(float), table["lon"].to_numpy(float)
        index, metres = nearest(lat, lon, lat, lon, count, skip_self=True)
        lost = np.flatnonzero((index < 0).all(axis=1))
        links = city.edges.get(f"{node}-{node}")
        if len(lost) and links is not None:
            linked, away = _along(city, node, links, count)
            index[lost], metres[lost] = linked[lost, : index.shape[1]], away[lost, : index.shape[1]]
        return Neighbourhood(index.astype(np.int64), metres)

    def lenders(self, to: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Who stands in for the nodes ``to``: rows int64 ``[to, neighbour]`` and weights ``[to, neighbour]`` that sum
        to 1, by inverse distance over the :data:`LENDERS` nearest ``among``; 0 for all where none of those is near.
        ``to`` and ``among`` are bool ``[node]``."""
        rows = self.index[to]
        lends = (rows >= 0) & among[rows]
        lends &= lends.cumsum(axis=1) <= LENDERS
        weight = np.where(lends, 1 / (np.nan_to_num(self.metres[to]) + 1), 0)
        total = weight.sum(axis=1, keepdims=True)
        return rows.clip(0), weight / np.where(total > 0, total, 1)

    def lent(self, values: np.ndarray, to: np.ndarray, among: np.ndarray) -> np.ndarray:
        """``values`` float ``[..., node]`` with those of the nodes ``to`` replaced by their lenders' weighted mean, or
        by the mean of all of ``among`` where they have none."""
        if not to.any() or not among.any():
            return values
        rows, weight = self.lenders(to, among)
        share = weight.astype(values.dtype)
        # Neighbour by neighbour: a week of profiles times every neighbour of every node would not fit a large city.
        near = sum(values[..., column] * part for column, part in zip(rows.T, share.T, strict=True))
        everywhere = values[..., among].mean(axis=-1, keepdims=True)
        changed = values.copy()
        changed[..., to] = np.where(share.any(axis=1), near, everywhere)
        return changed


def _along(city: City, node: NodeType, links: pd.DataFrame, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``index`` and ``metres`` as of :class:`Neighbourhood`, by the length of links in either direction."""
    ids = pd.Index(city.ids(node))
    ends = [ids.get_indexer(pd.Index(links[side].astype(str))) for side in ("source", "target")]
    pairs = pd.DataFrame({"here": np.concatenate(ends), "there": np.concatenate(ends[::-1])})
    pairs["metres"] = np.tile(links["distance_m"].to_numpy(float), 2)
    pairs = pairs[pairs["here"] != pairs["there"]].sort_values(["here", "metres", "there"])
    pairs = pairs.drop_duplicates(["here", "there"])
    rank = pairs.groupby("here").cumcount().to_numpy()
    here, there, away = (pairs[name].to_numpy()[rank < count] for name in ("here", "there", "metres"))
    rank = rank[rank < count]
    index, metres = np.full((len(ids), count), -1), np.full((len(ids), count), np.nan)
    index[here, rank], metres[here, rank] = there, away
    return index, metres
