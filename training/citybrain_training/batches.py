"""Batches for Lightning: windows cut, thinned and turned into features a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from citybrain_datasets.features import Window
from citybrain_training.foresight import foretold, kept_back
from citybrain_training.preparation import Preparation
from citybrain_training.traffic_ahead import TrafficAhead

MOST_FAILING = 0.6
"""Most sensors that fail in a training window, as a share."""


class Issues(Dataset[int]):
    """Row numbers of issue times; what belongs to a row is computed for a whole batch at once."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> int:
        if not 0 <= row < self.count:
            raise IndexError(row)
        return row


class Collate:
    """Turns rows into ``(features, answer)``; ``answer`` is ``[batch, node, horizon]`` with NaN for unknown."""

    def __init__(
        self, preparation: Preparation, issues: pd.DatetimeIndex, *, training: bool, seed: int | Sequence[int] = 0
    ):
        self.preparation = preparation
        self.issues = issues
        self.training = training
        self.random = np.random.default_rng(seed)

    def __call__(self, rows: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        source = self.preparation.source
        issue = self.issues[np.asarray(rows)]
        window, answer = source.window(issue), source.answer(issue)
        if self.training:
            withheld = self.preparation.config.fit.weather_withheld
            window = foretold(window, self.preparation, self.random, withheld=withheld)
            if isinstance(source, TrafficAhead):
                share = self.preparation.config.fit.traffic_withheld
                window = source.shown(window, self.random, kept_back(self.random, len(issue), source.steps, share))
        if not self.training:
            arrays = self.preparation.features(window)
        elif self.random.random() < self.preparation.config.fit.disturbed:
            arrays = self._disturbed(window, answer)
        else:
            arrays = self.preparation.features(window, self.preparation.features.own(window, answer))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return tensors, torch.from_numpy(np.ascontiguousarray(answer.transpose(0, 2, 1)))

    def _disturbed(self, window: Window, answer: np.ndarray) -> dict[str, np.ndarray]:
        """Features of a window in which sensors fail and some pass for places that never had one, ``phantom``."""
        prepared, config = self.preparation, self.preparation.config.fit
        share = 2 * config.phantoms * self.random.random()
        phantom = prepared.sensed & (self.random.random(len(prepared.sensed)) < share)
        # Left out of the profile is what was measured, not what a failing sensor would have told.
        own = prepared.features.own(window, answer)
        window = broken(window, prepared, self.random, phantom)
        strange, known = phantom | ~prepared.sensed, prepared.sensed & ~phantom
        arrays = prepared.features(window, own, lambda usual: prepared.neighbourhood.lent(usual, strange, known))
        return {**arrays, "phantom": phantom}


def broken(window: Window, preparation: Preparation, random: np.random.Generator, phantom: np.ndarray) -> Window:
    """The window with some sensors failing: silent or stuck at one value from some step of the recent history on, or
    silent for as long as the window looks back, as those of the target's nodes ``phantom`` always are.

    The share of failing sensors differs from window to window; in a few the whole feed is late.
    """
    task, rate, features = preparation.task, preparation.config.fit.sensor_dropout, preparation.features
    batch = len(window.issue)
    share = np.minimum(random.exponential(rate, batch), MOST_FAILING)
    late = random.random((batch, 1)) < rate
    late_since = random.integers(1 - task.history, 1, (batch, 1))
    values, future = dict(window.values), dict(window.future)
    for node in {task.node, task.context_node} - {None}:
        names = [n for n in features.signals if features.placing[n] == node]
        nodes = values[names[0]].shape[2]
        fails, how = random.random((batch, nodes)) < share[:, None], random.random((batch, nodes))
        dead, stuck = fails & (how < 0.6), fails & (how > 0.9) & ~late
        if node == task.node:
            dead |= phantom
        silent = (fails | late) & ~stuck
        # Offsets are at most 0, and the first of the history is 1 - history.
        since = np.where(late, late_since, random.integers(1 - task.history, 1, (batch, nodes)))
        for name in names:
            offsets = features.offsets(name)
            changed = np.where(dead[:, None], np.float32(np.nan), values[name])
            first = np.take_along_axis(values[name], (since + task.history - 1)[:, None], axis=1)
            for column in np.flatnonzero(offsets > -task.history):
                failed = offsets[column] >= since
                held = np.where(stuck & failed, first[:, 0], changed[:, column])
                changed[:, column] = np.where((silent | dead) & failed, np.float32(np.nan), held)
            values[name] = changed
    for name in future:
        if features.placing[name] == task.node:
            future[name] = np.where(phantom, np.float32(np.nan), future[name])
    return Window(window.issue, values, future)


def spread(issues: pd.DatetimeIndex, most: int) -> pd.DatetimeIndex:
    """At most so many of the windows, evenly spread from the first to the last."""
    if len(issues) <= most:
        return issues
    return issues[np.linspace(0, len(issues) - 1, most).round().astype(int)]


class Windows(pl.LightningDataModule):
    """Train, validation and test batches of one preparation."""

    def __init__(self, preparation: Preparation):
        super().__init__()
        self.preparation = preparation

    def train_dataloader(self) -> DataLoader:
        config, issues = self.preparation.config, self.preparation.split.train
        dataset: Issues | Subset[int] = Issues(len(issues))
        limit = config.fit.windows_per_epoch
        if limit is not None and limit < len(issues):
            epoch = self.trainer.current_epoch if self.trainer else 0
            chosen = np.random.default_rng((config.seed, epoch)).permutation(len(issues))[:limit]
            dataset = Subset(dataset, chosen.tolist())
        return self._loader(dataset, issues, training=True)

    def val_dataloader(self) -> DataLoader:
        issues = spread(self.preparation.split.validate, self.preparation.config.fit.validation_windows)
        return self._loader(Issues(len(issues)), issues, training=False)

    def _loader(self, dataset: Issues | Subset[int], issues: pd.DatetimeIndex, *, training: bool) -> DataLoader:
        """Each of several processes takes its share of a batch, so that a step sees as many windows as alone."""
        config = self.preparation.config
        processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        # A loader may be made anew for each epoch, and is for one that goes on: what it disturbs must not come again.
        seed = (config.seed, rank, self.trainer.current_epoch if self.trainer else 0)
        collate = Collate(self.preparation, issues, training=training, seed=seed)
        return DataLoader(
            dataset,
            batch_size=max(1, config.fit.batch // processes) if training else 4 * config.fit.batch,
            shuffle=training,
            drop_last=training and len(dataset) > config.fit.batch,
            collate_fn=collate,
        )
