"""Sensors never seen in training: a bundle stretched over more places, and what their neighbours alone would say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.geo import nearest as nearest_places
from citybrain_datasets.graph import graph_arrays
from citybrain_datasets.signals import NodeType, Signal
from citybrain_datasets.statistics import Profile, Statistics
from citybrain_models.bundle import Bundle

NEAREST = 3
"""Sensors that stand in for one that is not there."""


def without(city: City, node: NodeType, gone: np.ndarray) -> City:
    """The city without the nodes ``gone``, bool ``[node]``, their edges and their measurements."""
    table = city.nodes[node]
    kept = table.loc[~gone]
    ids = set(kept.index.astype(str))
    edges = {}
    for relation, rows in city.edges.items():
        ends = relation.split("-")
        keep = np.ones(len(rows), bool)
        for end, side in zip(("source", "target"), ends, strict=True):
            if side == node:
                keep &= rows[end].astype(str).isin(ids).to_numpy()
        edges[relation] = rows.loc[keep].reset_index(drop=True)
    signals = {
        name: Signal(name, s.node, s.start, s.step, s.values[:, ~gone]) if s.node == node else s
        for name, s in city.signals.items()
    }
    return city.replace(nodes={**city.nodes, node: kept}, edges=edges, signals=signals)


def silent(city: City, node: NodeType, hit: np.ndarray) -> City:
    """The city with nothing ever measured at the nodes ``hit``, bool ``[node]``."""
    signals = {
        name: Signal(name, s.node, s.start, s.step, np.where(hit, np.float32(np.nan), s.values))
        if s.node == node
        else s
        for name, s in city.signals.items()
    }
    return city.replace(signals=signals)


def stretched(bundle: Bundle, city: City) -> Bundle:
    """``bundle`` for a ``city`` with more nodes of the target's type: the network is the same.

    A place it was not trained on has no embedding (zero, which training withholds often enough) and, for the weekly
    profile it cannot have, the distance-weighted one of its nearest trained sensors. Forecasts there are virtual
    sensing: estimates for segments without a sensor. Raises :class:`CityError` where a place is not known.
    """
    task, node = bundle.task, bundle.task.node
    old = pd.Index(bundle.city.ids(node)).get_indexer(pd.Index(city.ids(node)))
    near, weight = nearest(city, node, old >= 0)
    profiles = dict(bundle.statistics.profiles)
    for name, profile in profiles.items():
        if bundle.placing[name] == node:
            mean = profile.mean[:, old]
            borrowed = (profile.mean[:, old[near]] * weight.astype(np.float32)).sum(axis=2)
            profiles[name] = Profile(profile.slot_minutes, np.where(old >= 0, mean, borrowed))
    statistics = Statistics(bundle.statistics.scalers, profiles)
    width = max((array.shape[1] for name, array in bundle.graph.items() if name.endswith("_index")), default=1)
    fresh = graph_arrays(city, task, statistics, width)
    graph = {name: fresh.get(name, array) for name, array in bundle.graph.items()}
    embedding = bundle.graph[f"embedding_{node}"]
    graph[f"embedding_{node}"] = np.where((old >= 0)[:, None], embedding[old], np.float32(0))
    return dataclasses.replace(bundle, city=city.replace(signals={}), statistics=statistics, graph=graph, digest="")


def nearest(city: City, node: NodeType, among: np.ndarray, count: int = NEAREST) -> tuple[np.ndarray, np.ndarray]:
    """For every node the ``count`` nearest others for which ``among``, bool ``[node]``, holds, as rows int
    ``[node, count]``, and weights by inverse distance that sum to 1.

    Raises :class:`CityError` where the place of a node is not known.
    """
    table = city.nodes[node]
    lost = table.index[table[["lat", "lon"]].isna().any(axis=1)]
    if len(lost):
        raise CityError([Problem(f"nodes {node}", "has no lat and lon, so it has no neighbours", str(lost[0]))])
    lat, lon = table["lat"].to_numpy(float), table["lon"].to_numpy(float)
    # Those that do not count have no place, so that they are nobody's neighbours.
    there, east = np.where(among, lat, np.nan), np.where(among, lon, np.nan)
    found, metres = nearest_places(lat, lon, there, east, count, skip_self=True)
    weight = np.where(found >= 0, 1 / (np.nan_to_num(metres) + 1), 0)
    return found.clip(0), weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
