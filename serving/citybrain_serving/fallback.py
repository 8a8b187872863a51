"""What answers when the network cannot: the weekly profile, with the spread of its own recent errors."""

from __future__ import annotations

import numpy as np

from citybrain_datasets.features import Features, Window
from citybrain_models.baselines import WeeklyProfile

ENOUGH = 200
"""Recent errors below which the spread is that of the profile over the week, which is wider."""

POOLED = 5_000
"""Nodes, evenly taken, whose ups and downs over the week stand for those of a larger city."""


def weekly_profile(features: Features, window: Window) -> np.ndarray:
    """Quantiles float32 ``[batch, node, horizon, quantile]`` that need no network and no observation.

    The quantiles are those of observed minus usual over the window's history, pooled over nodes; without
    enough observations, those of the profile's own ups and downs over the week.
    """
    task = features.task
    usual = features.profile(task.target, window.issue)[:, : task.history]
    errors = (window.values[task.target][:, : task.history] - usual).ravel()
    errors = errors[np.isfinite(errors)]
    if len(errors) < ENOUGH:
        mean = features.statistics.profiles[task.target].of(slice(None, None, 1 + usual.shape[-1] // POOLED))
        errors = (mean - mean.mean(axis=0)).ravel()
        errors = errors[np.isfinite(errors)]
    spread = np.quantile(errors, task.quantiles) if len(errors) else np.zeros(len(task.quantiles))
    spread = spread - spread[task.median]
    return WeeklyProfile(features, np.broadcast_to(spread, (task.horizon, len(spread)))).forecast(window)
