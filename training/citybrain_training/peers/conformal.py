"""Quantiles for point forecasts: split conformal prediction, lead by lead."""

from __future__ import annotations

import numpy as np

from citybrain_datasets.statistics import Scaler
from citybrain_datasets.task import Task


def residual_spread(task: Task, error: np.ndarray) -> np.ndarray:
    """Offsets of the quantiles from the point, float64 ``[horizon, quantile]``, 0 for the median.

    ``error`` is truth − point ``[window, horizon, node]`` on held-out windows, NaN for unknown. The levels carry
    the finite-sample correction of split conformal prediction (Lei et al. 2018): upward above the median,
    downward below.
    """
    levels = np.asarray(task.quantiles)
    spread = np.zeros((task.horizon, len(levels)))
    for lead in range(task.horizon):
        seen = error[:, lead][np.isfinite(error[:, lead])]
        if not len(seen):
            continue
        rank = (len(seen) + 1) * levels
        corrected = np.where(levels > 0.5, np.ceil(rank), np.floor(rank)) / len(seen)
        spread[lead] = np.quantile(seen, corrected.clip(0, 1))
        spread[lead, : task.median] = np.minimum(spread[lead, : task.median], 0)
        spread[lead, task.median :] = np.maximum(spread[lead, task.median :], 0)
    spread[:, task.median] = 0
    return spread


def with_spread(point: np.ndarray, spread: np.ndarray, scaler: Scaler) -> np.ndarray:
    """Quantiles float32 ``[batch, node, horizon, quantile]`` in the target's unit from a standardised point forecast
    ``[batch, horizon, node]``; the offsets are standardised too, so that on a log scale they grow with the level."""
    scaled = point.transpose(0, 2, 1)[..., None] + spread
    return np.maximum(scaler.unscale(scaled), 0).astype(np.float32)  # no signal here has negative values
