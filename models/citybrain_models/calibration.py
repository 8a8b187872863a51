"""Conformal calibration of quantiles, fitted on held-out windows and kept true online as outcomes arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from citybrain_datasets.task import Task


@dataclass(frozen=True)
class Calibration:
    """Shifts of each quantile at each lead, in units of the forecast's own width.

    Conformalised quantile regression (Romano, Patterson & Candès 2019) with a score scaled by the distance between
    the outer quantiles, so that one number serves calm and busy nodes: ``q' = q + shift[horizon, quantile] · width``.
    The median is never moved: a shift of it would trade accuracy on the calibration months for the next ones.
    """

    quantiles: tuple[float, ...]
    shift: np.ndarray

    @staticmethod
    def none(task: Task) -> Calibration:
        return Calibration(task.quantiles, np.zeros((task.horizon, len(task.quantiles)), np.float32))

    @staticmethod
    def fit(task: Task, forecast: np.ndarray, truth: np.ndarray) -> Calibration:
        """``forecast [batch, node, horizon, quantile]`` uncalibrated, ``truth [batch, node, horizon]``, NaN unknown."""
        calibration = Calibration.none(task)
        width = _width(forecast)
        for horizon in range(task.horizon):
            known = np.isfinite(truth[..., horizon])
            if not known.any():
                continue
            for index, level in enumerate(task.quantiles):
                if index == task.median:
                    continue
                score = (truth[..., horizon] - forecast[..., horizon, index])[known] / width[..., horizon][known]
                calibration.shift[horizon, index] = np.quantile(score, level)
        return calibration

    def apply(self, forecast: np.ndarray) -> np.ndarray:
        """Calibrated quantiles ``[batch, node, horizon, quantile]``, rising, and not below zero: no unit here has
        negative values."""
        moved = forecast + self.shift * _width(forecast)[..., None]
        middle = self.quantiles.index(0.5)
        median = forecast[..., middle : middle + 1]
        below = np.minimum(np.maximum.accumulate(moved[..., :middle], axis=-1), median)
        above = np.maximum(np.maximum.accumulate(moved[..., middle + 1 :], axis=-1), median)
        return np.maximum(np.concatenate([below, median, above], axis=-1), 0).astype(np.float32)

    def shifted(self, by: np.ndarray) -> Calibration:
        """The same with every shift moved by ``by [horizon, quantile]``, as learnt from outcomes."""
        return Calibration(self.quantiles, (self.shift + by).astype(np.float32))

    def updated(self, published: np.ndarray, truth: np.ndarray, rate: float = 0.02) -> Calibration:
        """One online step after outcomes: adaptive conformal inference (Gibbs & Candès 2021), lead by lead.

        ``published`` are the quantiles that went out, calibrated, ``[node, horizon, quantile]``, ``truth [node,
        horizon]`` with NaN for unknown. Each shift moves by ``rate`` times how far the share of outcomes below its
        quantile is from its level; the median stays.
        """
        known = np.isfinite(truth) & np.isfinite(published).all(axis=-1)
        count = known.sum(axis=0)[:, None]
        below = ((truth[..., None] <= published) & known[..., None]).sum(axis=0)
        step = rate * (np.asarray(self.quantiles) - below / np.maximum(count, 1)) * (count > 0)
        step[:, self.quantiles.index(0.5)] = 0
        return self.shifted(step)


def _width(forecast: np.ndarray) -> np.ndarray:
    """Distance of the outer quantiles ``[…, horizon]``, never zero."""
    return np.maximum(forecast[..., -1] - forecast[..., 0], 1e-3)
