"""LightGBM on lags: models by lead, the same features as our network but no graph."""

from __future__ import annotations

import time
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from citybrain_datasets.features import Window
from citybrain_training.peers.conformal import residual_spread, with_spread
from citybrain_training.peers.peer import Budget, Cost
from citybrain_training.preparation import Preparation

TRAIN_ROWS, VALIDATION_ROWS = 150_000, 30_000
"""Most rows (window × node) learned from and stopped by: neighbouring windows differ little, and rows cost time."""

MODELS = 24
"""Most models; between the leads that have one, the forecast change is interpolated."""

ROUNDS, PATIENCE = 1_000, 30

PARAMETERS: dict[str, Any] = {"objective": "l1", "metric": "l1", "feature_fraction": 0.7, "verbosity": -1}
"""The library's defaults beside the loss and fewer features a tree, which there are many of."""


class LightGBM:
    """Forecasts the standardised change from the last seen value, which trees could not extrapolate themselves."""

    note = "reads our features (lags, mask, profile, longer history, clock) and the node's number; no graph"

    def fit(self, preparation: Preparation, budget: Budget) -> Cost:
        began = time.process_time()
        self.preparation, self.task = preparation, preparation.task
        self.scaler = preparation.statistics.scalers[self.task.target]
        self.threads = budget.threads
        random = np.random.default_rng(budget.seed)
        rows, change = self._sample(preparation.split.train, TRAIN_ROWS, random, training=True)
        held, held_change = self._sample(preparation.split.validate, VALIDATION_ROWS, random, training=False)
        node = [rows.shape[1] - 1]
        options: dict[str, Any] = {"categorical_feature": node, "params": {"verbosity": -1}}
        train = lgb.Dataset(rows, np.zeros(len(rows)), **options)
        valid = lgb.Dataset(held, np.zeros(len(held)), reference=train, **options)
        train.construct()
        valid.construct()
        self.models: list[lgb.Booster] = []
        leads = np.unique(np.linspace(0, self.task.horizon - 1, min(self.task.horizon, MODELS)).round().astype(int))
        every = np.arange(self.task.horizon)
        self.weights = np.stack([np.interp(every, leads, one) for one in np.eye(len(leads))])
        for index, lead in enumerate(leads):
            share = (budget.seconds - (time.process_time() - began)) / (len(leads) - index)
            parts = _labelled(train, change[:, lead]), _labelled(valid, held_change[:, lead])
            self.models.append(self._lead(*parts, share, budget.seed))
        issues = preparation.split.validate[:: max(1, len(preparation.split.validate) // 500)]
        truth = self.scaler.scale(preparation.source.answer(issues))
        self.spread = residual_spread(self.task, truth - self._point(preparation.source.window(issues)))
        leaves = sum(tree["num_leaves"] for m in self.models for tree in m.dump_model()["tree_info"])
        rounds = float(np.mean([m.best_iteration for m in self.models]))
        return Cost(time.process_time() - began, rounds, leaves)

    def forecast(self, window: Window) -> np.ndarray:
        """Quantiles float32 ``[batch, node, horizon, quantile]``."""
        return with_spread(self._point(window), self.spread, self.scaler)

    def _lead(self, train: lgb.Dataset, valid: lgb.Dataset, seconds: float, seed: int) -> lgb.Booster:
        end = time.process_time() + seconds

        def within_budget(env: lgb.callback.CallbackEnv) -> None:
            if time.process_time() >= end:
                raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list or [])

        return lgb.train(
            {**PARAMETERS, "seed": seed, "num_threads": self.threads}, train, ROUNDS, valid_sets=[valid],
            callbacks=[lgb.early_stopping(PATIENCE, verbose=False), within_budget],
        )  # fmt: skip

    def _sample(
        self, issues: pd.DatetimeIndex, count: int, random: np.random.Generator, *, training: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``[row, feature]`` and the standardised change from the last seen value ``[row, lead]``."""
        nodes = len(self.preparation.city.ids(self.task.node))
        wanted = min(len(issues), max(1, count // nodes))
        chosen = issues[np.sort(random.permutation(len(issues))[:wanted])]
        rows, change = [], []
        for first in range(0, wanted, 512):
            part = chosen[first : first + 512]
            answer = self.preparation.source.answer(part)
            window = self.preparation.source.window(part)
            own = self.preparation.features.own(window, answer) if training else None
            features, last = self._features(window, own)
            truth = self.scaler.scale(answer).transpose(0, 2, 1).reshape(len(last), -1)
            known = np.isfinite(truth).any(axis=1)
            rows.append(features[known])
            change.append((truth - last[:, None])[known])
        return np.concatenate(rows), np.concatenate(change)

    def _features(self, window: Window, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        arrays = self.preparation.features(window, own)
        own_rows = arrays[f"x_{self.task.node}"]
        batch, nodes, _ = own_rows.shape
        clock = np.broadcast_to(arrays["time"][:, None], (batch, nodes, arrays["time"].shape[1]))
        number = np.broadcast_to(np.arange(nodes, dtype=np.float32)[None, :, None], (batch, nodes, 1))
        rows = np.concatenate([own_rows, arrays["anchor"], clock, number], axis=2).reshape(batch * nodes, -1)
        return rows, arrays["anchor"][..., 0].reshape(-1)

    def _point(self, window: Window) -> np.ndarray:
        rows, last = self._features(window)
        changes = [m.predict(rows, num_iteration=m.best_iteration, num_threads=self.threads) for m in self.models]
        points = last[:, None] + np.stack(changes, axis=1) @ self.weights
        return points.reshape(len(window.issue), -1, self.task.horizon).transpose(0, 2, 1)


def _labelled(dataset: lgb.Dataset, label: np.ndarray) -> lgb.Dataset:
    """The same binned rows with another label; rows whose label is unknown weigh nothing."""
    known = np.isfinite(label)
    return dataset.set_label(np.where(known, label, 0)).set_weight(known.astype(np.float32))
