"""Events people act on, as probabilities read off forecast quantiles: congestion that sets in or clears, PM2.5 above
a grade's limit. And how good such probabilities were."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from citybrain_datasets.features import Window
from citybrain_datasets.task import Task

CONGESTED_BELOW = 0.5
"""Share of the free-flow speed under which a road counts as congested where forecasts are scored, in benchmarks and by
the gate. The service tells of problems at another limit on purpose, 0.4 of it, where the moderate congestion of
GB/T 33171 begins: what somebody has to see to is rarer than what there is to foresee."""

WITHIN_MINUTES = 60
"""How far ahead congestion is looked for."""

PM25_LIMITS = (35, 60, 115, 150, 250)
"""µg/m³, upper ends of the first five grades of HJ 633-2026, in force since 2026-03-01, applied to hourly means."""

POLLUTED = 115
"""The one of them above which the air is moderately polluted, from where the service warns."""

ROUNDED = 0.5
"""µg/m³ from a limit to what is above it: the standard rounds to a whole number first; above 115 begins at 115.5."""

BINS = 10


def probability_below(forecast: np.ndarray, levels: ArrayLike, limit: ArrayLike) -> np.ndarray:
    """P(value ≤ limit), float64 ``[…]``, of quantiles ``[…, quantile]`` that rise, against ``limit […]``; NaN for a
    limit of NaN.

    Linear between the quantiles. Beyond the outer ones the tails are exponential, ``F(x) = τ₁ exp((x − q₁) f/τ₁)``
    with the density ``f`` of the outermost segment, so that the density is continuous and no event is ever called
    impossible; above, the mirror image.
    """
    forecast, levels = np.asarray(forecast), np.asarray(levels, np.float64)
    limit = np.broadcast_to(np.asarray(limit, np.float64), forecast.shape[:-1])[..., None]
    low = ((forecast <= limit).sum(axis=-1, keepdims=True) - 1).clip(0, len(levels) - 2)
    # A whole city's quantiles are not copied: four of each are enough as float64.
    left, right = (np.take_along_axis(forecast, at, axis=-1).astype(np.float64) for at in (low, low + 1))
    first, last = (forecast[..., at].astype(np.float64) for at in (slice(1), slice(-1, None)))
    density = (levels[low + 1] - levels[low]) / np.maximum(right - left, 1e-6)
    inside = levels[low] + (limit - left) * density
    under = levels[0] * np.exp(np.minimum((limit - first) * density / levels[0], 0))
    over = (1 - levels[-1]) * np.exp(np.minimum((last - limit) * density / (1 - levels[-1]), 0))
    chance = np.where(limit < first, under, np.where(limit >= last, 1 - over, inside))
    return chance[..., 0]


def probability_of_any(chance: np.ndarray, dependence: float) -> np.ndarray:
    """P(at least one), ``[…]``, of the marginal probabilities ``chance […, lead]``.

    Marginals do not say how often leads go together. ``1 − Π (1 − p)^θ`` with the extremal index θ (Leadbetter 1983):
    1 is independence; 0, leads that always go together, gives the lower bound ``max p``, below which no answer falls.
    """
    free = np.exp(dependence * np.log1p(-np.minimum(chance, 1 - 1e-12)).sum(axis=-1))
    return np.maximum(chance.max(axis=-1), 1 - free)


def fit_dependence(chance: np.ndarray, outcome: np.ndarray) -> float:
    """The θ of :func:`probability_of_any` with the least Brier score on past ``chance [case, lead]`` and
    ``outcome [case]``, to one hundredth; 0 where there is no case."""
    if not len(chance):
        return 0.0
    candidates = np.linspace(0, 1, 101)
    errors = [float(np.mean((probability_of_any(chance, theta) - outcome) ** 2)) for theta in candidates]
    return float(candidates[int(np.argmin(errors))])


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
        forecasting the base rate, and the base rate. Empty where the event never happened. Without any alarm there is
        no ratio of false ones: ``far`` is 0 then, and :func:`alarmed` tells it from a perfect one."""
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

    def reliability(self) -> list[list[float]]:
        """Rows of forecasts, their mean probability and the share that happened, for each tenth that was forecast."""
        return [[float(n), float(p / n), float(o / n)] for n, p, o in self.bins if n]


def alarmed(pod: float, far: float) -> bool:
    """Whether any alarm was behind a probability of detection and a false alarm ratio: all of them hit or missed."""
    return pod > 0 or far > 0


@dataclass(frozen=True)
class Occasion:
    """Probabilities of one kind of event, what happened, and where both are known: arrays of one shape.

    ``leads […, lead]`` are the marginal probabilities behind an event of any lead, None for other events.
    """

    probability: np.ndarray
    outcome: np.ndarray
    known: np.ndarray
    leads: np.ndarray | None = None


ONSET, CLEARING = "congestion sets in", "congestion clears"


class Events:
    """Counts the events of one task. ``free_speed`` km/h ``[node]``, NaN where unknown, is needed for speeds alone.

    ``dependence`` is θ of :func:`probability_of_any`, from :func:`fit_dependence` on other windows.
    """

    def __init__(self, task: Task, free_speed: np.ndarray | None = None, dependence: float = 0.0):
        self.task = task
        self.levels = np.asarray(task.quantiles)
        self.free_speed = free_speed
        self.dependence = dependence
        self.counts: dict[str, EventCounts] = {}

    def add(self, window: Window, forecast: np.ndarray, truth: np.ndarray) -> None:
        """``forecast [batch, node, horizon, quantile]`` and ``truth [batch, node, horizon]`` in the target's unit."""
        for name, event in self.occasions(window, forecast, truth).items():
            self.counts.setdefault(name, EventCounts()).add(event.probability, event.outcome, event.known)

    def occasions(self, window: Window, forecast: np.ndarray, truth: np.ndarray) -> dict[str, Occasion]:
        """Every event of some windows by name; none for a target whose events nobody defined."""
        if self.task.target == "pm25":
            return self._grades(forecast, truth)
        if self.task.target == "speed" and self.free_speed is not None:
            return self._congestion(window, forecast, truth)
        return {}

    def _grades(self, forecast: np.ndarray, truth: np.ndarray) -> dict[str, Occasion]:
        known, whole = np.isfinite(truth), truth.round()
        found = {}
        for limit in PM25_LIMITS:
            above = 1 - probability_below(forecast, self.levels, limit + ROUNDED)
            found[f"PM2.5 above {limit}"] = Occasion(above, np.greater(whole, limit), known)
        return found

    def _congestion(self, window: Window, forecast: np.ndarray, truth: np.ndarray) -> dict[str, Occasion]:
        """Onset: free now, congested at any lead of the hour that was measured, which are those that are foretold: were
        all leads asked for where nothing happens, gaps would leave out the quiet hours alone. Clearing: congested now,
        free at the hour's end."""
        assert self.free_speed is not None
        limit = CONGESTED_BELOW * self.free_speed
        leads = min(max(1, WITHIN_MINUTES // self.task.step_minutes), self.task.horizon)
        now = window.values["speed"][:, self.task.history - 1]
        below = probability_below(forecast[:, :, :leads], self.levels, limit[:, None])
        measured = truth[:, :, :leads]
        below = np.where(np.isfinite(limit)[:, None] & np.isfinite(measured), below, 0)
        slow = measured < limit[:, None]
        some_slow = np.any(slow, axis=2)
        known = np.isfinite(now) & np.isfinite(limit)
        free_now = known & (now >= limit) & np.isfinite(measured).any(axis=2)
        slow_now = known & (now < limit) & np.isfinite(measured[:, :, -1])
        return {
            ONSET: Occasion(probability_of_any(below, self.dependence), some_slow, free_now, below),
            CLEARING: Occasion(1 - below[:, :, -1], ~slow[:, :, -1], slow_now),
        }
