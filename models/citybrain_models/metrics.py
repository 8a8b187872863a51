"""Scores of forecasts, pooled over everything scored: sums over counts, never a mean of batch means."""

from __future__ import annotations

import numpy as np

from citybrain_datasets.task import Task


class Scores:
    """Collects errors lead by lead; what was not measured is not scored."""

    def __init__(self, task: Task):
        self.task = task
        self.levels = np.asarray(task.quantiles)
        shape = task.horizon
        self.count = np.zeros(shape)
        self.absolute, self.squared, self.inside, self.width = (np.zeros(shape) for _ in range(4))
        self.percent, self.percent_count = np.zeros(shape), np.zeros(shape)
        self.pinball = np.zeros((shape, len(self.levels)))

    def add(self, forecast: np.ndarray, truth: np.ndarray) -> None:
        """``forecast [batch, node, horizon, quantile]``, ``truth [batch, node, horizon]`` with NaN for unknown."""
        known = np.isfinite(truth)
        if not np.isfinite(forecast[known]).all():
            raise ValueError(
                "a forecast is not finite where the truth is known; a model may not choose what it is scored on"
            )
        truth0 = np.where(known, truth, 0).astype(np.float64)
        error = np.where(known[..., None], forecast - truth0[..., None], 0).astype(np.float64)
        median = error[..., self.task.median]
        axes = (0, 1)
        self.count += known.sum(axis=axes)
        self.absolute += np.abs(median).sum(axis=axes)
        self.squared += (median**2).sum(axis=axes)
        sizeable = known & (np.abs(truth0) >= 1)
        self.percent += np.where(sizeable, np.abs(median) / np.maximum(np.abs(truth0), 1), 0).sum(axis=axes)
        self.percent_count += sizeable.sum(axis=axes)
        self.pinball += np.maximum(-self.levels * error, (1 - self.levels) * error).sum(axis=axes)
        self.inside += (known & (error[..., 0] <= 0) & (error[..., -1] >= 0)).sum(axis=axes)
        self.width += (error[..., -1] - error[..., 0]).sum(axis=axes)

    def table(self) -> dict[str, dict[str, float]]:
        """``{lead: {metric: value}}`` for every lead and ``mean``, pooled over all leads.

        ``mae``, ``rmse`` and ``pinball`` (mean over the quantiles) in the target's unit, ``mape`` in % where
        \\|y\\| ≥ 1, ``coverage`` the share of outcomes between the outer quantiles, ``width`` their mean distance.
        """
        rows = {self.task.lead_label(i): self._row(slice(i, i + 1)) for i in range(self.task.horizon)}
        return rows | {"mean": self._row(slice(None))}

    def _row(self, leads: slice) -> dict[str, float]:
        count = self.count[leads].sum()
        if not count:
            return {}
        return {
            "mae": float(self.absolute[leads].sum() / count),
            "rmse": float(np.sqrt(self.squared[leads].sum() / count)),
            "mape": float(100 * self.percent[leads].sum() / max(self.percent_count[leads].sum(), 1)),
            "pinball": float(self.pinball[leads].sum() / (count * len(self.levels))),
            "coverage": float(self.inside[leads].sum() / count),
            "width": float(self.width[leads].sum() / count),
        }
