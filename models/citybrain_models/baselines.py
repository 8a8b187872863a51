"""Persistence and the weekly profile: the dullest honest models, baselines and test doubles of every other one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pandas as pd

from citybrain_datasets.features import Features, Window
from citybrain_datasets.windows import WindowSource


class Baseline(ABC):
    """A point forecast, with quantiles from the spread of its own past errors at each lead."""

    name: str

    def __init__(self, features: Features, spread: np.ndarray | None = None):
        self.features = features
        self.task = features.task
        shape = (self.task.horizon, len(self.task.quantiles))
        self.spread = np.zeros(shape, np.float32) if spread is None else spread.astype(np.float32)

    @abstractmethod
    def point(self, window: Window) -> np.ndarray:
        """Float32 ``[batch, horizon, node]`` in the target's unit."""

    def fit(self, source: WindowSource, issues: pd.DatetimeIndex, batch: int = 256) -> Baseline:
        """Learns the spread, ``[horizon, quantile]``, from errors at ``issues``; the median is left as it is."""
        errors = []
        for first in range(0, len(issues), batch):
            chosen = issues[first : first + batch]
            errors.append(source.answer(chosen) - self.point(source.window(chosen)))
        pooled = np.concatenate(errors).transpose(1, 0, 2).reshape(self.task.horizon, -1)
        spread = np.nanquantile(pooled, self.task.quantiles, axis=1).T
        spread -= spread[:, self.task.median, None]
        self.spread = spread.astype(np.float32)
        return self

    def forecast(self, window: Window) -> np.ndarray:
        point = self.point(window).transpose(0, 2, 1)[..., None]
        return np.maximum(point + self.spread, 0)  # no signal here has negative values


class Persistence(Baseline):
    """The last measured value goes on; where the history has none, the weekly profile."""

    name = "persistence"

    def point(self, window: Window) -> np.ndarray:
        history = window.values[self.task.target][:, : self.task.history]
        filled = pd.DataFrame(history.transpose(1, 0, 2).reshape(self.task.history, -1)).ffill().to_numpy()
        last = filled[-1].reshape(history.shape[0], 1, history.shape[2])
        usual = self.features.profile(self.task.target, window.issue)[:, self.task.history :]
        return np.where(np.isfinite(last), last, usual).astype(np.float32)


class WeeklyProfile(Baseline):
    """The mean of the same time of the local week in the training data."""

    name = "weekly profile"

    def point(self, window: Window) -> np.ndarray:
        return self.features.profile(self.task.target, window.issue)[:, self.task.history :]
