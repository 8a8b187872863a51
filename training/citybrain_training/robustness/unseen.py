"""Sensors never seen in training: a city without them, and a bundle stretched over more places."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.graph import graph_arrays
from citybrain_datasets.neighbourhood import Neighbourhood
from citybrain_datasets.signals import NodeType, Signal
from citybrain_datasets.statistics import Statistics
from citybrain_models.bundle import Bundle
from citybrain_training.preparation import without_measured_speed


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
    """The city with nothing ever measured at the nodes ``hit``, bool ``[node]``, nor learnt from it."""
    signals = {
        name: Signal(name, s.node, s.start, s.step, np.where(hit, np.float32(np.nan), s.values))
        if s.node == node
        else s
        for name, s in city.signals.items()
    }
    kept = without_measured_speed(city, hit) if node == "road" else city
    return kept.replace(signals=signals)


def stretched(bundle: Bundle, city: City) -> Bundle:
    """``bundle`` for a ``city`` with more nodes of the target's type: the network is the same.

    A place it was not trained on has no embedding (zero), is marked as one without a sensor, and borrows its weekly
    profile from the nearest trained sensors, as the phantoms of the training do. Forecasts there are virtual sensing:
    estimates for segments without a sensor.
    """
    task, node = bundle.task, bundle.task.node
    old = pd.Index(bundle.city.ids(node)).get_indexer(pd.Index(city.ids(node)))
    flags = bundle.graph.get(f"sensed_{node}", np.ones(len(bundle.city.ids(node))))
    sensed = (old >= 0) & (flags[old] > 0)
    width = max((array.shape[1] for name, array in bundle.graph.items() if name.endswith("_index")), default=1)
    profile = bundle.statistics.profiles[task.target]
    known = {**bundle.statistics.profiles, task.target: profile.changed(profile.mean[:, old])}
    near = Neighbourhood.of(city, node, width)
    statistics = Statistics(bundle.statistics.scalers, known).lent(task.target, near, ~sensed, sensed)
    fresh = graph_arrays(city, task, statistics, width, sensed)
    graph = {name: fresh.get(name, array) for name, array in bundle.graph.items()}
    embedding = bundle.graph[f"embedding_{node}"]
    graph[f"embedding_{node}"] = np.where((old >= 0)[:, None], embedding[old], np.float32(0))
    return dataclasses.replace(bundle, city=city.replace(signals={}), statistics=statistics, graph=graph, digest="")
