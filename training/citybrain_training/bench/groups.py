"""Scores apart: by part of the day, by group of nodes, and by regime, which is the state at the issue time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.features import Window
from citybrain_datasets.task import Task
from citybrain_models.events import CONGESTED_BELOW, PM25_LIMITS, ROUNDED
from citybrain_training.events import free_speed
from citybrain_training.node_groups import node_groups

PARTS_OF_DAY = ("00–06", "06–12", "12–18", "18–24")
HOURS = tuple(f"{hour:02d}–{hour + 1:02d}" for hour in range(24))

FREE_ABOVE = 0.8
"""Share of the free-flow speed above which a road counts as free."""

MEASURES = ("mae", "pinball", "coverage", "width")

Table = dict[str, dict[str, dict[str, float]]]
"""``[kind of group][group][measure]``."""


class Groups:
    """Sums of one forecaster's test. ``per`` is how many of our units one of the protocol's is."""

    def __init__(self, task: Task, city: City, per: float = 1.0):
        self.task = task
        self.per = per
        self.nodes = node_groups(city.nodes[task.node])
        self.names, self._edges = _regimes(task, city)
        width = len(MEASURES) + 1
        self._by_hour = np.zeros((width, len(HOURS)))
        self._by_node = np.zeros((width, len(city.ids(task.node))))
        self._by_regime = np.zeros((width, len(self.names) + 1))

    def add(self, window: Window, forecast: np.ndarray, truth: np.ndarray, hour: np.ndarray) -> None:
        """``forecast [batch, node, horizon, quantile]`` and ``truth [batch, node, horizon]`` in the target's unit,
        ``hour [batch, horizon]`` of the local day."""
        known, levels = np.isfinite(truth), np.asarray(self.task.quantiles)
        error = np.where(known[..., None], forecast - np.where(known, truth, 0)[..., None], 0).astype(np.float64)
        sums = np.stack([
            np.abs(error[..., self.task.median]) / self.per,
            np.maximum(-levels * error, (1 - levels) * error).mean(axis=-1) / self.per,
            known & (error[..., 0] <= 0) & (error[..., -1] >= 0),
            (error[..., -1] - error[..., 0]) / self.per,
            known,
        ])  # fmt: skip
        self._by_node += sums.sum(axis=(1, 3))
        by_window, by_place = sums.sum(axis=2), sums.sum(axis=3)
        now = window.values[self.task.target][:, self.task.history - 1]
        regime = (now[..., None] >= self._edges).sum(axis=-1)
        regime = np.where(np.isfinite(now) & np.isfinite(self._edges).all(axis=-1), regime, len(self.names))
        for total, parts, ids in (
            (self._by_hour, by_window, hour),
            (self._by_regime, by_place, regime),
        ):
            for measure, values in enumerate(parts):
                total[measure] += np.bincount(ids.ravel(), values.ravel(), total.shape[1])

    def table(self) -> Table:
        """Means by kind (``part of the day``, ``hour``, ``nodes``, ``regime``) and group; of groups with an outcome
        alone."""
        by_part = self._by_hour.reshape(len(self._by_hour), len(PARTS_OF_DAY), -1).sum(axis=-1)
        by_group = {name: self._by_node[:, rows].sum(axis=1) for name, rows in self.nodes.items()}
        kinds: dict[str, Iterator[tuple[str, np.ndarray]]] = {
            "part of the day": zip(PARTS_OF_DAY, by_part.T, strict=True),
            "hour": zip(HOURS, self._by_hour.T, strict=True),
            "nodes": iter(by_group.items()),
            "regime": zip((*self.names, "not measured"), self._by_regime.T, strict=True),
        }
        return {kind: {name: _means(sums) for name, sums in found if sums[-1]} for kind, found in kinds.items()}


def _means(sums: np.ndarray) -> dict[str, float]:
    means = {name: float(total / sums[-1]) for name, total in zip(MEASURES, sums[:-1], strict=True)}
    return means | {"count": float(sums[-1])}


def _regimes(task: Task, city: City) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and the values ``[node, …]`` at which the second and later ones begin; one regime where nobody defined
    any."""
    count = len(city.ids(task.node))
    free = free_speed(city) if task.target == "speed" else None
    if free is not None:
        return ("congested", "slow", "free"), free[:, None] * np.array([CONGESTED_BELOW, FREE_ABOVE])
    if task.target == "pm25":
        limits = np.array(PM25_LIMITS) + ROUNDED
        names = tuple(f"up to {limit} µg/m³" for limit in PM25_LIMITS)
        return (*names, f"above {PM25_LIMITS[-1]} µg/m³"), np.tile(limits, (count, 1))
    return ("measured",), np.zeros((count, 0))
