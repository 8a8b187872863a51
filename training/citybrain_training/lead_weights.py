"""How much each lead of the forecast counts in the loss."""

from __future__ import annotations

import numpy as np

from citybrain_training.batches import spread
from citybrain_training.preparation import Preparation

USUAL_POWER = {"air": 3.0}
"""By the target's node where the configuration leaves it out; 0 elsewhere."""

FORETOLD_POWER = 1.0
"""The same at stations that read the weather ahead: with it distant leads can be known, and are to be learnt."""

WINDOWS = 500
"""Windows of the training part that the leads' difficulty is read from."""


def lead_weights(preparation: Preparation) -> np.ndarray:
    """Weights float32 ``[horizon]`` of mean 1: each lead's difficulty to minus the power ``fit.lead_power``.

    Difficulty is the mean absolute error of persistence or of the weekly profile, whichever errs less at that lead, on
    windows of the training part. The error of distant leads is mostly what nobody could have known: weighed as that of
    near ones is, it makes most of the gradient, and is learnt by heart before near leads have learnt what they can.
    Leads without anything measured count as the others on average.
    """
    power, horizon = preparation.config.fit.lead_power, preparation.task.horizon
    if power is None:
        power = USUAL_POWER.get(preparation.task.node, 0.0)
        if preparation.task.known_future:
            power = min(power, FORETOLD_POWER)
    if not power:
        return np.ones(horizon, dtype=np.float32)
    issues = spread(preparation.split.train, WINDOWS)
    window, answer = preparation.source.window(issues), preparation.source.answer(issues)
    anchor = preparation.features(window, preparation.features.own(window, answer))["anchor"]
    truth = preparation.statistics.scalers[preparation.task.target].scale(answer).transpose(0, 2, 1)
    known = np.isfinite(truth)
    count = known.sum(axis=(0, 1))
    persistence, profile = (
        np.where(known, np.abs(truth - base), 0).sum(axis=(0, 1)) for base in (anchor[..., :1], anchor[..., 2:])
    )
    difficulty = np.minimum(persistence, profile) / np.maximum(count, 1)
    told = difficulty > 0
    weights = np.ones(horizon)
    if told.any():
        weights[told] = (difficulty[told] / difficulty[told].max()) ** -power
        weights[told] /= weights[told].mean()
    return weights.astype(np.float32)
