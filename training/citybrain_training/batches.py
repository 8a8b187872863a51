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
from citybrain_training.preparation import Preparation


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

    def __init__(self, preparation: Preparation, issues: pd.DatetimeIndex, *, training: bool, seed: int = 0):
        self.preparation = preparation
        self.issues = issues
        self.training = training
        self.random = np.random.default_rng(seed)

    def __call__(self, rows: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        source = self.preparation.source
        issue = self.issues[np.asarray(rows)]
        window, answer = source.window(issue), source.answer(issue)
        if self.training and self.preparation.config.fit.sensor_dropout:
            window = silence(window, self.preparation, self.random)
        arrays = self.preparation.features(window, answer if self.training else None)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return tensors, torch.from_numpy(np.ascontiguousarray(answer.transpose(0, 2, 1)))


def silence(window: Window, preparation: Preparation, random: np.random.Generator) -> Window:
    """The window with some sensors silent from some step of the recent history on, as when a feed breaks.

    The share of silent sensors differs from window to window, 0 in half of them, so that both the whole and the
    broken city are learned.
    """
    task, rate = preparation.task, preparation.config.fit.sensor_dropout
    batch = len(window.issue)
    share = np.where(random.random(batch) < 0.5, 0.0, np.minimum(random.exponential(2 * rate, batch), 0.6))
    values = dict(window.values)
    for node in {task.node, task.context_node} - {None}:
        names = [n for n in preparation.features.signals if preparation.features.placing[n] == node]
        nodes = values[names[0]].shape[2]
        silent = random.random((batch, nodes)) < share[:, None]
        since = random.integers(0, task.history, (batch, nodes))
        for name in names:
            history = values[name][:, : task.history]
            gone = silent[:, None] & (np.arange(task.history)[:, None] >= since[:, None])
            values[name] = np.concatenate(
                [np.where(gone, np.float32(np.nan), history), values[name][:, task.history :]], axis=1
            )
    return Window(window.issue, values, window.future)


class Windows(pl.LightningDataModule):
    """Train, validation and test batches of one preparation."""

    def __init__(self, preparation: Preparation):
        super().__init__()
        self.preparation = preparation

    def train_dataloader(self) -> DataLoader:
        config, issues = self.preparation.config, self.preparation.split.train
        dataset: Dataset[int] = Issues(len(issues))
        limit = config.fit.windows_per_epoch
        if limit is not None and limit < len(issues):
            epoch = self.trainer.current_epoch if self.trainer else 0
            chosen = np.random.default_rng((config.seed, epoch)).permutation(len(issues))[:limit]
            dataset = Subset(dataset, chosen.tolist())
        return self._loader(dataset, issues, training=True)

    def val_dataloader(self) -> DataLoader:
        issues = self.preparation.split.validate
        return self._loader(Issues(len(issues)), issues, training=False)

    def _loader(self, dataset: Dataset[int], issues: pd.DatetimeIndex, *, training: bool) -> DataLoader:
        """Each of several processes takes its share of a batch, so that a step sees as many windows as alone."""
        config = self.preparation.config
        processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        collate = Collate(self.preparation, issues, training=training, seed=config.seed + 1_000 * rank)
        return DataLoader(
            dataset,
            batch_size=max(1, config.fit.batch // processes) if training else 4 * config.fit.batch,
            shuffle=training,
            drop_last=training and len(issues) > config.fit.batch,
            collate_fn=collate,
        )
