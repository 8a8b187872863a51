"""Persistence and the weekly profile as subjects of the benchmark."""

from __future__ import annotations

import time

import numpy as np

from citybrain_datasets.features import Window
from citybrain_models.baselines import Baseline, Persistence, WeeklyProfile
from citybrain_training.peers.peer import Budget, Cost
from citybrain_training.preparation import Preparation


class _Baseline:
    note = ""
    kind: type[Baseline]

    def fit(self, preparation: Preparation, budget: Budget) -> Cost:
        self.task = preparation.task
        began = time.process_time()
        self.model = self.kind(preparation.features).fit(preparation.source, preparation.split.validate)
        return Cost(time.process_time() - began, 0, 0)

    def forecast(self, window: Window) -> np.ndarray:
        return self.model.forecast(window)


class PersistencePeer(_Baseline):
    """The last measured value goes on."""

    kind = Persistence


class WeeklyProfilePeer(_Baseline):
    """The mean of the same time of the week in training."""

    kind = WeeklyProfile
