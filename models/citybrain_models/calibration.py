"""Conformal calibration of quantiles, fitted on held-out windows and kept true online as outcomes arrive."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.task import Task

PARTS = 8
"""Parts of the local day, three hours each, whose quantiles are kept true on their own beside the whole's."""

ENOUGH = 50
"""Windows of a part of the day at which its own shift, fitted, counts half; with fewer it leans on the whole's."""

RATE = 0.03
"""How far an outcome moves the shift of an outer quantile where nothing else is said."""

PACE = 5
"""How much farther than the whole's an outcome moves the shift of its part of the day, which sees only one in eight."""


def parts_of_day(task: Task, calendar: Calendar, issue: pd.DatetimeIndex) -> np.ndarray:
    """The part of the local day in which each step ahead ends, int ``[batch, horizon]``, 0 … :data:`PARTS` − 1."""
    leads = np.arange(1, task.horizon + 1) * task.step.to_numpy()
    ends = pd.DatetimeIndex((issue.tz_convert(None).to_numpy()[:, None] + leads).ravel(), tz="UTC")
    return (calendar.of(ends).minute_of_day * PARTS // 1440).reshape(len(issue), task.horizon)


@dataclass(frozen=True)
class Calibration:
    """Shifts of each quantile at each lead, in units of the forecast's own width.

    Conformalised quantile regression (Romano, Patterson & Candès 2019) with a score scaled by the distance between
    the outer quantiles, so that one number serves calm and busy nodes: ``q' = q + shift · width`` with
    ``shift[horizon, quantile]`` and, on top of it, ``by_part[part, horizon, quantile]`` for the part of the local day
    in which the outcome falls: rush hours err otherwise than nights. ``by_part`` without parts leaves all hours alike.
    The median is never moved: a shift of it would trade accuracy on the calibration months for the next ones.
    """

    quantiles: tuple[float, ...]
    shift: np.ndarray
    by_part: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))

    @staticmethod
    def none(task: Task, parts: int = 0) -> Calibration:
        shape = (task.horizon, len(task.quantiles))
        return Calibration(task.quantiles, np.zeros(shape, np.float32), np.zeros((parts, *shape), np.float32))

    @staticmethod
    def fit(task: Task, forecast: np.ndarray, truth: np.ndarray, part: np.ndarray | None = None) -> Calibration:
        """``forecast [batch, node, horizon, quantile]`` uncalibrated, ``truth [batch, node, horizon]``, NaN unknown,
        ``part [batch, horizon]`` of :func:`parts_of_day`; all hours alike where it is left out."""
        calibration = Calibration.none(task, 0 if part is None else PARTS)
        width = _width(forecast)
        for horizon in range(task.horizon):
            known = np.isfinite(truth[..., horizon])
            if not known.any():
                continue
            for index, level in enumerate(task.quantiles):
                if index == task.median:
                    continue
                score = (truth[..., horizon] - forecast[..., horizon, index]) / width[..., horizon]
                whole = np.quantile(score[known], level)
                calibration.shift[horizon, index] = whole
                for place in range(len(calibration.by_part)):
                    assert part is not None
                    rows = part[:, horizon] == place
                    own = score[rows][known[rows]]
                    if len(own):
                        windows = known[rows].any(axis=1).sum()
                        trust = windows / (windows + ENOUGH)
                        calibration.by_part[place, horizon, index] = trust * (np.quantile(own, level) - whole)
        return calibration

    def apply(self, forecast: np.ndarray, part: np.ndarray | None = None) -> np.ndarray:
        """Calibrated quantiles ``[batch, node, horizon, quantile]``, rising, and not below zero: no unit here has
        negative values. ``part [batch, horizon]`` as :func:`parts_of_day` says; the whole's shifts without it."""
        shift = self.shift
        if part is not None and len(self.by_part):
            shift = (shift + self.by_part[part, np.arange(len(shift))])[:, None]
        moved = forecast + shift * _width(forecast)[..., None]
        middle = self.quantiles.index(0.5)
        median = forecast[..., middle : middle + 1]
        below = np.minimum(np.maximum.accumulate(moved[..., :middle], axis=-1), median)
        above = np.maximum(np.maximum.accumulate(moved[..., middle + 1 :], axis=-1), median)
        return np.maximum(np.concatenate([below, median, above], axis=-1), 0).astype(np.float32)

    def plus(self, learnt: Calibration) -> Calibration:
        """The same with every shift moved by what ``learnt`` holds; where one of both has no parts, the other's."""
        by_part = learnt.by_part if not len(self.by_part) else self.by_part
        if len(self.by_part) and len(learnt.by_part):
            by_part = self.by_part + learnt.by_part
        return Calibration(self.quantiles, (self.shift + learnt.shift).astype(np.float32), by_part)

    def updated(
        self, published: np.ndarray, truth: np.ndarray, rate: float = RATE, part: np.ndarray | None = None
    ) -> Calibration:
        """One online step after outcomes: adaptive conformal inference (Gibbs & Candès 2021), lead by lead.

        ``published`` are the quantiles that went out, calibrated, ``[node, horizon, quantile]``, ``truth [node,
        horizon]`` with NaN for unknown, ``part [horizon]``. Each shift moves by ``rate`` times how far the share of
        outcomes below its quantile is from its level, that of the part of the day :data:`PACE` times as far; the median
        stays. Inner quantiles move less, by the spread of that share, √(τ (1 − τ)), as scale-free online learning has
        it (Bhatnagar et al. 2023): chance alone shakes each of them alike.
        """
        known = np.isfinite(truth) & np.isfinite(published).all(axis=-1)
        count = known.sum(axis=0)[:, None]
        # Not ≤: a quantile cut off at zero has no outcome below it, or streets empty at night would lower it for ever.
        below = ((truth[..., None] < published) & known[..., None]).sum(axis=0)
        levels = np.asarray(self.quantiles)
        spread = np.sqrt(levels * (1 - levels))
        step = rate * spread.min() / spread * (levels - below / np.maximum(count, 1)) * (count > 0)
        step[:, self.quantiles.index(0.5)] = 0
        by_part = self.by_part.copy()
        if part is not None and len(by_part):
            by_part[part, np.arange(len(step))] += (PACE * step).astype(np.float32)
        return Calibration(self.quantiles, (self.shift + step).astype(np.float32), by_part)


def _width(forecast: np.ndarray) -> np.ndarray:
    """Distance of the outer quantiles ``[…, horizon]``, never zero."""
    return np.maximum(forecast[..., -1] - forecast[..., 0], 1e-3)
