"""What a peer reads: the recent history of the nodes that are measured, a mask, the clock, and the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.features import Features, Window
from citybrain_datasets.windows import WindowSource
from citybrain_training.preparation import Preparation

KERNEL_THRESHOLD = 0.1
"""Edges with less weight are left out, as in DCRNN (Li et al. 2018)."""

LINKS_ONLY = 4
"""A table with fewer edges a node lists the links of the road itself. Sets published so (PEMS08, SZ-taxi) are used
with 0/1 weights in the field: the kernel would cut half the links."""


@dataclass(frozen=True)
class Inputs:
    """Arrays of a batch. ``node`` counts only nodes measured in the training period.

    - ``value`` float32 ``[batch, step, node]``: standardised target, 0 where missing;
    - ``mask`` float32 ``[batch, step, node]``: 1 where measured;
    - ``other`` float32 ``[batch, step, node, channel]``: the task's other inputs, standardised, 0 where missing;
    - ``clock`` float32 ``[batch, step, 9]``: sine and cosine of the local time of day, weekday as seven flags;
    - ``slot`` int64 ``[batch, 2]``: step of the local day and weekday at the issue time.
    """

    value: np.ndarray
    mask: np.ndarray
    other: np.ndarray
    clock: np.ndarray
    slot: np.ndarray


class InputMaker:
    """Cuts and scales the peers' inputs by the preparation's own windows, masks and scalers."""

    def __init__(self, preparation: Preparation):
        self.preparation = preparation
        # The peers' publications know no seasonal lags; cutting those would only cost their budget.
        left_out = {"seasonal_days": (), "coarse": (0, 0), "known_future": (), "context": (), "context_ahead": None}
        self.task = preparation.task.model_copy(update=left_out)
        full = preparation.features
        features = Features(self.task, full.statistics, full.calendar, full.placing)
        self.source = WindowSource(features, preparation.source.signals)
        self.scaler = preparation.statistics.scalers[self.task.target]
        until = preparation.split.train[-1]
        self.nodes = np.flatnonzero(np.isfinite(self.source.target.between(None, until).values).any(axis=0))
        self.others = self.task.inputs

    @property
    def channels(self) -> int:
        """Width of ``other``."""
        return len(self.others) + ("wind_direction" in self.others)

    def __call__(self, window: Window) -> Inputs:
        history = self.task.history
        scaled = self.scaler.scale(window.values[self.task.target][:, :history][..., self.nodes])
        mask = np.isfinite(scaled)
        clock, slot = self._clock(window.issue)
        return Inputs(_filled(scaled), mask.astype(np.float32), self._other(window), clock, slot)

    def batch(self, issue: pd.DatetimeIndex) -> Inputs:
        return self(self.source.window(issue))

    def answer(self, issue: pd.DatetimeIndex) -> np.ndarray:
        """Float32 ``[batch, horizon, node]`` in the target's unit, NaN where nothing was measured."""
        return self.source.answer(issue)[..., self.nodes]

    def _other(self, window: Window) -> np.ndarray:
        parts = []
        for name in self.others:
            values = window.values[name][:, : self.task.history]
            own = self.preparation.features.placing[name] == self.task.node
            values = values[..., self.nodes] if own else np.repeat(values, len(self.nodes), axis=2)
            if name == "wind_direction":
                angle = np.deg2rad(values)
                parts += [np.sin(angle), np.cos(angle)]
            else:
                parts.append(self.preparation.statistics.scalers[name].scale(values))
        if not parts:
            return np.zeros((len(window.issue), self.task.history, len(self.nodes), 0), np.float32)
        return _filled(np.stack(parts, axis=-1))

    def _clock(self, issue: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
        steps = np.arange(-self.task.history + 1, 1) * self.task.step.to_numpy()
        ticks = issue.tz_convert(None).to_numpy()[:, None] + steps
        now = self.preparation.features.calendar.of(pd.DatetimeIndex(ticks.ravel(), tz="UTC"))
        shape = ticks.shape
        angle = (2 * np.pi * now.minute_of_day / 1440).reshape(shape)
        weekday = now.weekday.reshape(shape)
        clock = np.concatenate([np.sin(angle)[..., None], np.cos(angle)[..., None], np.eye(7)[weekday]], axis=-1)
        slot = np.stack([now.minute_of_day.reshape(shape)[:, -1] // self.task.step_minutes, weekday[:, -1]], axis=-1)
        return clock.astype(np.float32), slot.astype(np.int64)


def adjacency(preparation: Preparation, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges among ``nodes``: int64 ``[2, edge]`` from source to target, and float32 weights ``[edge]``.

    The weight is DCRNN's kernel, exp(−(d/σ)²) with σ the standard deviation of the distances, without the edges
    below :data:`KERNEL_THRESHOLD`; 1 for every edge of a table that lists links alone. A node without any edge gets
    a loop, so that no library meets an empty graph.
    """
    node = preparation.task.node
    table = preparation.city.edges.get(f"{node}-{node}")
    place = np.full(len(preparation.city.ids(node)), -1)
    place[nodes] = np.arange(len(nodes))
    ends, weight = np.zeros((2, 0), np.int64), np.zeros(0)
    if table is not None:
        ids = pd.Index(preparation.city.ids(node))
        ends = np.stack([place[ids.get_indexer(pd.Index(table[side].astype(str)))] for side in ("source", "target")])
        distance = table["distance_m"].to_numpy(float)
        spread = distance.std()
        links = spread == 0 or len(table) < LINKS_ONLY * len(place)
        weight = np.ones(len(distance)) if links else np.exp(-((distance / spread) ** 2))
        keep = (ends >= 0).all(axis=0) & (ends[0] != ends[1]) & (weight >= KERNEL_THRESHOLD)
        ends, weight = ends[:, keep], weight[keep]
    alone = np.setdiff1d(np.arange(len(nodes)), ends)
    ends = np.concatenate([ends, np.stack([alone, alone])], axis=1)
    return ends.astype(np.int64), np.concatenate([weight, np.ones(len(alone))]).astype(np.float32)


def _filled(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0).astype(np.float32)
