"""Ways in which a feed breaks, as changes of the windows a forecast is made from. Outcomes stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.features import Features, Window
from citybrain_datasets.windows import WindowSource

Corruption = Callable[[Window], Window]


@dataclass(frozen=True)
class Broken:
    """A corruption by name, and the target's nodes it hits, bool ``[node]``."""

    name: str
    change: Corruption
    hit: np.ndarray


class BrokenSource:
    """A :class:`WindowSource` whose windows are corrupted and whose answers are not."""

    def __init__(self, source: WindowSource, broken: Broken):
        self.source = source
        self.broken = broken
        self.task = source.task

    def window(self, issue: pd.DatetimeIndex) -> Window:
        return self.broken.change(self.source.window(issue))

    def answer(self, issue: pd.DatetimeIndex) -> np.ndarray:
        return self.source.answer(issue)


def dead(features: Features, hit: np.ndarray, name: str) -> Broken:
    """Sensors ``hit`` are silent for as long as a forecast looks back: the worst case of any outage."""
    return Broken(name, lambda window: _silenced(features, window, hit), hit)


def stuck(features: Features, hit: np.ndarray, name: str) -> Broken:
    """Sensors ``hit`` have repeated the value at the start of the history ever since, as if it were measured."""
    task = features.task

    def change(window: Window) -> Window:
        values = dict(window.values)
        for signal in _own(features):
            offsets = features.offsets(signal)
            frozen = np.flatnonzero(offsets > -task.history)
            first = values[signal][:, np.flatnonzero(offsets == -task.history + 1)[:1]]
            changed = values[signal].copy()
            changed[:, frozen] = np.where(hit, first, changed[:, frozen])
            values[signal] = changed
        return Window(window.issue, values, window.future)

    return Broken(name, change, hit)


def late(features: Features, by: pd.Timedelta, nodes: int, name: str) -> Broken:
    """The whole feed, every signal of it, is ``by`` behind: nothing newer has come yet."""
    steps = int(np.ceil(by / features.task.step))

    def change(window: Window) -> Window:
        values = {}
        for signal, measured in window.values.items():
            unseen = features.offsets(signal) > -steps
            values[signal] = np.where(unseen[:, None], np.float32(np.nan), measured)
        return Window(window.issue, values, window.future)

    return Broken(name, change, np.ones(nodes, bool))


def share_of(nodes: int, share: float, seed: int = 0) -> np.ndarray:
    """A random ``share`` of the nodes, at least one, bool ``[node]``."""
    chosen = np.random.default_rng(seed).permutation(nodes)[: max(1, round(share * nodes))]
    return np.isin(np.arange(nodes), chosen)


def corridor(city: City, node: str, share: float = 0.1) -> np.ndarray | None:
    """A connected stretch of about ``share`` of the nodes, bool ``[node]``: grown breadth first, along the edges and
    against them, from the node with the most within reach. None where no two nodes are connected."""
    relation = city.edges.get(f"{node}-{node}")
    ids = pd.Index(city.ids(node))  # type: ignore[arg-type]  # a node type
    if relation is None:
        return None
    ends = [ids.get_indexer(pd.Index(relation[end].astype(str))) for end in ("source", "target")]
    around: list[set[int]] = [set() for _ in ids]
    for a, b in zip(*ends, strict=True):
        if a != b:
            around[a].add(int(b))
            around[b].add(int(a))
    wanted = max(2, round(share * len(ids)))
    best = max((_grown(around, start, wanted) for start in range(len(ids))), key=len, default=[])
    return np.isin(np.arange(len(ids)), best) if len(best) > 1 else None


def _grown(around: list[set[int]], start: int, wanted: int) -> list[int]:
    reached = [start]
    for place in reached:
        reached += [n for n in sorted(around[place]) if n not in reached]
        if len(reached) >= wanted:
            return reached[:wanted]
    return reached


def _own(features: Features) -> list[str]:
    """Signals measured at the target's nodes."""
    return [name for name in features.signals if features.placing[name] == features.task.node]


def _silenced(features: Features, window: Window, hit: np.ndarray) -> Window:
    values = dict(window.values)
    for name in _own(features):
        values[name] = np.where(hit, np.float32(np.nan), values[name])
    return Window(window.issue, values, window.future)
