"""Does the graph know the nodes by the same order as the signals?

A matrix by position, or an array without ids, can be in another order than the places. No file says so, but
the values do: neighbours in the graph behave more alike than any two nodes, unless the order is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from citybrain_datasets.city import RELATIONS, City
from citybrain_datasets.report import Finding
from citybrain_datasets.signals import Signal

DAYS = 28
MOST_PAIRS = 4000
FEWEST_PAIRS = 30


def node_order(city: City) -> Iterator[Finding]:
    """A warning for each graph whose neighbours are no more alike than chance, by two standard errors."""
    for relation, name in (("road-road", "speed"), ("road-road", "flow"), ("air-air", "pm25")):
        table, signal = city.edges.get(relation), city.signals.get(name)
        if table is None or signal is None or signal.node != RELATIONS[relation][0]:
            continue
        position = {node: i for i, node in enumerate(city.ids(signal.node))}
        ends = [table[side].astype(str).map(position).to_numpy() for side in ("source", "target")]
        pairs = np.stack(ends, axis=1)
        rest, seen = _departures(signal)
        alike = _correlations(rest, seen, pairs[pairs[:, 0] != pairs[:, 1]][:MOST_PAIRS])
        by_chance = _correlations(rest, seen, _any_pairs(signal.shape[1]))
        if min(len(alike), len(by_chance)) < FEWEST_PAIRS:
            continue
        doubt = 2 * float(alike.std() / np.sqrt(len(alike)))
        if alike.mean() < by_chance.mean() + doubt:
            what = (
                f"neighbours in {relation} are no more alike ({alike.mean():.2f}) than any two nodes "
                f"({by_chance.mean():.2f}): is the node order that of the graph?"
            )
            yield Finding("warning", "node-order", f"signal {name}", what)


def _departures(signal: Signal) -> tuple[np.ndarray, np.ndarray]:
    """The last weeks less the usual day, ``[time, node]``, and where they were measured."""
    rows = min(signal.shape[0], int(pd.Timedelta(days=DAYS) / signal.step))
    block = signal.rows(signal.shape[0] - rows, signal.shape[0]).astype(np.float64)
    day = max(1, int(pd.Timedelta(days=1) / signal.step))
    slots = np.arange(rows) % day
    seen = np.isfinite(block)
    total = np.zeros((day, block.shape[1]))
    count = np.zeros((day, block.shape[1]))
    np.add.at(total, slots, np.where(seen, block, 0))
    np.add.at(count, slots, seen)
    usual = total / np.maximum(count, 1)
    return np.where(seen, block - usual[slots], 0), seen


def _correlations(rest: np.ndarray, seen: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Correlation of each pair of nodes that both measured something, ``[pair]``."""
    found = []
    for first, second in pairs:
        both = seen[:, first] & seen[:, second]
        a, b = rest[both, first], rest[both, second]
        spread = float(np.sqrt((a @ a) * (b @ b)))
        if spread > 0:
            found.append(float(a @ b) / spread)
    return np.array(found)


def _any_pairs(width: int) -> np.ndarray:
    if width * width <= MOST_PAIRS:
        pairs = np.argwhere(np.ones((width, width), dtype=bool))
    else:
        pairs = np.random.default_rng(0).integers(0, width, size=(MOST_PAIRS // 2, 2))
    return pairs[pairs[:, 0] != pairs[:, 1]]
