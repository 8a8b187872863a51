"""Where training begins: the network's linear part solved by ridge regression instead of learned step by step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from citybrain_models.nn.citynet import CityNet
from citybrain_models.nn.ensemble import Ensemble
from citybrain_training.batches import Collate
from citybrain_training.preparation import Preparation

ROWS, HELD_ROWS = 400_000, 50_000
"""Most rows (window × node) of the training part solved from, and of the validation part that chooses the penalties."""

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties tried, as shares of the features' mean sum of squares."""


def start_linear(network: CityNet | Ensemble, preparation: Preparation) -> bool:
    """Sets the shortcut from features to leads to the ridge regression of what the even blend of last value, recent
    mean and profile leaves over, so that training starts from the best linear forecast; whether it did.

    Each lead has the penalty that is best on the validation windows, and none of the solution where the blend alone
    does better there; nothing is done where that is so at every lead.
    """
    parts = preparation.split
    gram, cross = np.zeros((1, 1)), np.zeros((1, 1))
    for x, rest in _rows(preparation, parts.train, ROWS, training=True):
        gram, cross = gram + x.T @ x, cross + x.T @ rest
    held = _rows(preparation, parts.validate, HELD_ROWS, training=False)
    x, rest = (np.concatenate(part) for part in zip(*held, strict=True))
    if not gram.any() or not len(x):
        return False
    best, solution = np.abs(rest).mean(axis=0), np.zeros_like(cross)
    for penalty in PENALTIES:
        ridge = penalty * np.diag(gram).mean() * np.eye(len(gram))
        tried = np.linalg.solve(gram + ridge, cross)
        error = np.abs(rest - x @ tried).mean(axis=0)
        better = error < best
        best, solution = np.where(better, error, best), np.where(better, tried, solution)
    if not solution.any():
        return False
    for member in network.nets if isinstance(network, Ensemble) else [network]:
        with torch.no_grad():
            member.shortcut.weight.copy_(torch.from_numpy(solution.T))
            for zeroed in (member.blend.weight, member.blend.bias, member.head.weight, member.head.bias):
                zeroed.zero_()
    return True


def _rows(
    preparation: Preparation, issues: pd.DatetimeIndex, most: int, *, training: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features ``[row, feature]`` and what the even blend leaves over ``[row, lead]``, standardised, at sensors all of
    whose leads were measured; with failing sensors among those of the training part, as the network will see them."""
    task, config = preparation.task, preparation.config
    collate = Collate(preparation, issues, training=training, seed=config.seed)
    scaler = preparation.statistics.scalers[task.target]
    order = np.random.default_rng(config.seed).permutation(len(issues))
    chosen = order[: max(1, most // len(preparation.sensed))]
    for first in range(0, len(chosen), config.fit.batch):
        arrays, answer = collate(np.sort(chosen[first : first + config.fit.batch]).tolist())
        x, anchor = arrays[f"x_{task.node}"].numpy(), arrays["anchor"].numpy()
        even = (anchor[..., :1] + anchor[..., 1:2] + anchor[..., 2:]) / 3
        rest = scaler.scale(answer.numpy()) - even
        usable = np.isfinite(rest).all(axis=-1) & preparation.sensed
        if "phantom" in arrays:
            usable &= ~arrays["phantom"].numpy()
        yield x[usable].astype(np.float64), rest[usable].astype(np.float64)
