"""Events people act on, forecast as probabilities: congestion that sets in or clears, PM2.5 above a grade's limit."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from citybrain_datasets.features import Window
from citybrain_datasets.task import Task

CONGESTED_BELOW = 0.5
"""Share of the free-flow speed under which a road counts as congested."""

PM25_LIMITS = (35.0, 60.0, 115.0, 150.0)
"""µg/m³, IAQI 50, 100, 150 and 200 of HJ 633-2026, in force since 2026-03-01, applied to hourly means."""

BINS = 10


def probability_below(forecast: np.ndarray, levels: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """P(value < limit) of quantiles ``[…, quantile]`` against ``limit […]``: linear between the quantiles, the outer
    segments drawn out to 0 and 1."""
    limit = np.broadcast_to(limit, forecast.shape[:-1])[..., None]
    low = ((forecast <= limit).sum(axis=-1, keepdims=True) - 1).clip(0, len(levels) - 2)
    left, right = np.take_along_axis(forecast, low, axis=-1), np.take_along_axis(forecast, low + 1, axis=-1)
    slope = (levels[low + 1] - levels[low]) / np.maximum(right - left, 1e-6)
    return (levels[low] + (limit - left) * slope).clip(0, 1)[..., 0]


@dataclass
class EventCounts:
    """Sums over everything that was forecast and known. An alarm is a probability of at least one half."""

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    count: int = 0
    squared: float = 0.0
    bins: np.ndarray = field(default_factory=lambda: np.zeros((BINS, 3)))
    """For reliability, a row for each tenth of probability: forecasts, sum of probability, outcomes."""

    def add(self, probability: np.ndarray, outcome: np.ndarray, known: np.ndarray) -> None:
        """Arrays of one shape; ``outcome`` and ``known`` bool."""
        chance, happened = probability[known].astype(np.float64), outcome[known]
        alarm = chance >= 0.5
        self.hits += int((alarm & happened).sum())
        self.misses += int((~alarm & happened).sum())
        self.false_alarms += int((alarm & ~happened).sum())
        self.count += len(chance)
        self.squared += float(((chance - happened) ** 2).sum())
        place = np.minimum((chance * BINS).astype(int), BINS - 1)
        for column, weight in enumerate((np.ones_like(chance), chance, happened)):
            self.bins[:, column] += np.bincount(place, weight, BINS)

    def table(self) -> dict[str, float]:
        """Probability of detection, false alarm ratio, critical success index, Brier score, its skill over always
        forecasting the base rate, and the base rate. Empty where the event never happened."""
        happened = self.hits + self.misses
        if not happened:
            return {}
        rate = happened / self.count
        brier = self.squared / self.count
        alarms = self.hits + self.false_alarms
        return {
            "pod": self.hits / happened,
            "far": self.false_alarms / alarms if alarms else 0.0,
            "csi": self.hits / (happened + self.false_alarms),
            "brier": brier,
            "brier_skill": 1 - brier / max(rate * (1 - rate), 1e-12),
            "base_rate": rate,
        }


class Events:
    """Counts the events of one task. ``free_speed`` km/h ``[node]``, NaN where unknown, is needed for speeds alone."""

    def __init__(self, task: Task, free_speed: np.ndarray | None = None):
        self.task = task
        self.levels = np.asarray(task.quantiles)
        self.free_speed = free_speed
        self.counts: dict[str, EventCounts] = {}

    def add(self, window: Window, forecast: np.ndarray, truth: np.ndarray) -> None:
        """``forecast [batch, node, horizon, quantile]`` and ``truth [batch, node, horizon]`` in the target's unit."""
        if self.task.target == "pm25":
            for limit in PM25_LIMITS:
                above = 1 - probability_below(forecast, self.levels, np.asarray(limit))
                self._count(f"PM2.5 above {limit:g}", above, truth > limit, np.isfinite(truth))
        elif self.task.target == "speed" and self.free_speed is not None:
            self._congestion(window, forecast, truth)

    def _congestion(self, window: Window, forecast: np.ndarray, truth: np.ndarray) -> None:
        """Marginal quantiles do not tell the chance of *any* lead; the greatest of the leads' is its lower bound."""
        assert self.free_speed is not None
        limit = CONGESTED_BELOW * self.free_speed
        leads = max(1, 60 // self.task.step_minutes)
        now = window.values["speed"][:, self.task.history - 1]
        below = probability_below(forecast[:, :, :leads], self.levels, limit[:, None])
        measured = truth[:, :, :leads]
        slow = measured < limit[:, None]
        known = np.isfinite(now) & np.isfinite(limit)
        all_known = np.isfinite(measured).all(axis=2)
        some_slow = np.any(slow, axis=2)
        onset = known & (now >= limit) & (all_known | some_slow)
        self._count("congestion sets in", below.max(axis=2), some_slow, onset)
        clearing = known & (now < limit) & np.isfinite(measured[:, :, -1])
        self._count("congestion clears", 1 - below[:, :, -1], ~slow[:, :, -1], clearing)

    def _count(self, name: str, probability: np.ndarray, outcome: np.ndarray, known: np.ndarray) -> None:
        self.counts.setdefault(name, EventCounts()).add(probability, outcome, known)
