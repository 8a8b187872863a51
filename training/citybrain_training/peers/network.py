"""Training of other people's torch networks: one loop for all, so that only the networks differ."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from citybrain_datasets.features import Window
from citybrain_training.peers.conformal import residual_spread, with_spread
from citybrain_training.peers.inputs import InputMaker, Inputs, adjacency
from citybrain_training.peers.peer import Budget, Cost
from citybrain_training.preparation import Preparation

PROBE_STEPS = 4
"""Training steps timed to learn how long an epoch may be; the first is warm-up and not counted."""

VALIDATION_WINDOWS = 1_000
"""Validation looks at about as many windows, evenly spaced, so that it does not eat the budget."""

SCALED_LIMIT = 8.0
"""Standardised output beyond which a log-scaled forecast is cut, lest one step of an untrained network overflow."""


@dataclass(frozen=True)
class Recipe:
    """How a publication trains its network."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 64
    clip: float | None = 5.0
    epochs: int = 100
    patience: int = 15


class NetworkPeer(ABC):
    """A published network with its published recipe.

    Same for all: masked mean absolute error in the target's unit, Adam, the epoch with the least validation error.
    The learning rate follows a cosine down to zero over the time of the budget, or over the epochs where they end
    first: the step schedules of the publications assume a hundred epochs and more.
    """

    recipe = Recipe()
    note = ""

    def __init__(self) -> None:
        self.network: nn.Module
        self.inputs: InputMaker
        self.spread: np.ndarray

    @abstractmethod
    def build(self, inputs: InputMaker, edges: Tensor, weight: Tensor) -> nn.Module:
        """A fresh network; ``edges`` int64 ``[2, edge]`` from source to target, ``weight`` ``[edge]``."""

    @abstractmethod
    def run(self, batch: dict[str, Tensor]) -> Tensor:
        """Standardised point forecast ``[batch, horizon, node]`` from the arrays of :class:`Inputs`."""

    def fit(self, preparation: Preparation, budget: Budget) -> Cost:
        torch.set_num_threads(budget.threads)
        torch.manual_seed(budget.seed)
        self.device = torch.device(budget.device)
        self.random = np.random.default_rng(budget.seed)
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        began = clock()
        self.preparation, self.task, self.inputs = preparation, preparation.task, InputMaker(preparation)
        edges, weight = adjacency(preparation, self.inputs.nodes)
        graph = torch.from_numpy(edges).to(self.device), torch.from_numpy(weight).to(self.device)
        self.network = self.build(self.inputs, *graph).to(self.device)
        issues = preparation.split.validate[:: max(1, len(preparation.split.validate) // VALIDATION_WINDOWS)]
        per_epoch, until = self._plan(budget, issues, clock)
        steps, curve = self._train(per_epoch, until, issues, lambda: clock() - began)
        truth = self.inputs.scaler.scale(self.inputs.answer(issues))
        self.spread = residual_spread(preparation.task, truth - self._points(issues))
        spent = clock() - began
        count = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        details = {"validation_mae": min((error for _, error in curve), default=float("inf"))}
        return Cost(spent, steps / self._steps, count, details, curve)

    def forecast(self, window: Window) -> np.ndarray:
        """Quantiles at every node; those never measured in training get the weekly profile, which is not scored."""
        preparation = self.preparation
        usual = preparation.features.profile(preparation.task.target, window.issue)[:, preparation.task.history :]
        point = self.inputs.scaler.scale(usual)
        point[..., self.inputs.nodes] = self._point(self.inputs(window))
        return with_spread(point, self.spread, self.inputs.scaler)

    @property
    def _steps(self) -> int:
        """Training steps in a whole epoch."""
        return max(1, len(self.preparation.split.train) // self.recipe.batch)

    def _plan(self, budget: Budget, issues: pd.DatetimeIndex, clock: Callable[[], float]) -> tuple[int, float]:
        """Steps in an epoch, fewer than all where the budget would not hold two, and the second at which training
        ends."""
        if budget.minutes is None:
            return self._steps, float("inf")
        start = copy.deepcopy(self.network.state_dict())
        optimizer = self._optimizer()
        batches = self._batches(PROBE_STEPS)
        self._step(optimizer, *next(batches))
        began = clock()
        for batch in batches:
            self._step(optimizer, *batch)
        step = (clock() - began) / (PROBE_STEPS - 1)
        began = clock()
        probe = issues[: 2 * self.recipe.batch]
        self._points(probe)
        validation = (clock() - began) / len(probe) * len(issues)
        self.network.load_state_dict(start)
        # One more validation pass than training needs is kept for the conformal spread.
        left = budget.seconds - validation
        return int(np.clip((left / 2 - validation) / step, 1, self._steps)), left - validation

    def _train(
        self, per_epoch: int, until: float, issues: pd.DatetimeIndex, spent: Callable[[], float]
    ) -> tuple[int, tuple[tuple[float, float], ...]]:
        """Steps made, and seconds spent and validation error after each epoch; the weights with the least error are
        kept."""
        optimizer = self._optimizer()
        total = self.recipe.epochs * per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + math.cos(math.pi * min(1.0, max(step / total, spent() / until)))) / 2
        )
        truth = self.inputs.answer(issues)
        best, kept, since = float("inf"), copy.deepcopy(self.network.state_dict()), 0
        steps, curve = 0, []
        for _ in range(self.recipe.epochs):
            for inputs, answer in self._batches(per_epoch):
                self._step(optimizer, inputs, answer)
                schedule.step()
                steps += 1
                if spent() >= until:
                    break
            error = float(np.nanmean(np.abs(self.inputs.scaler.unscale(self._points(issues)) - truth)))
            curve.append((spent(), error))
            since += 1
            if error < best:
                best, kept, since = error, copy.deepcopy(self.network.state_dict()), 0
            if since >= self.recipe.patience or spent() >= until:
                break
        self.network.load_state_dict(kept)
        return steps, tuple(curve)

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        return torch.optim.Adam(self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)

    def _batches(self, steps: int) -> Iterator[tuple[Inputs, np.ndarray]]:
        issues = self.preparation.split.train
        order = self.random.permutation(len(issues))
        rows = np.arange(min(self.recipe.batch, len(issues)))
        for index in range(steps):
            chosen = issues[order[(index * len(rows) + rows) % len(issues)]]
            yield self.inputs.batch(chosen), self.inputs.answer(chosen)

    def _step(self, optimizer: torch.optim.Optimizer, inputs: Inputs, answer: np.ndarray) -> None:
        self.network.train()
        point = self._unscaled(self.run(self._tensors(inputs)))
        truth = torch.from_numpy(answer).to(self.device)
        known = torch.isfinite(truth)
        loss = ((point - torch.nan_to_num(truth)).abs() * known).sum() / known.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        optimizer.step()

    def _unscaled(self, scaled: Tensor) -> Tensor:
        scaler = self.inputs.scaler
        if scaler.transform == "log1p":
            return torch.expm1(scaled.clamp(-SCALED_LIMIT, SCALED_LIMIT) * scaler.std + scaler.mean)
        return scaled * scaler.std + scaler.mean

    @torch.inference_mode()
    def _point(self, inputs: Inputs) -> np.ndarray:
        """Standardised point forecast, float32 ``[batch, horizon, node]``."""
        self.network.eval()
        return self.run(self._tensors(inputs)).clamp(-SCALED_LIMIT, SCALED_LIMIT).float().cpu().numpy()

    def _points(self, issues: pd.DatetimeIndex) -> np.ndarray:
        size = 2 * self.recipe.batch
        parts = [self._point(self.inputs.batch(issues[i : i + size])) for i in range(0, len(issues), size)]
        return np.concatenate(parts)

    def _tensors(self, inputs: Inputs) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self.device) for name, array in vars(inputs).items()}


def node_channels(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """``(value [batch, step, node, 1], covariates [batch, step, node, channel])``: mask, other inputs and clock."""
    value, mask = batch["value"].unsqueeze(-1), batch["mask"].unsqueeze(-1)
    clock = batch["clock"].unsqueeze(2).expand(-1, -1, value.shape[2], -1)
    return value, torch.cat([mask, batch["other"], clock], dim=-1)


def covariate_width(inputs: InputMaker) -> int:
    """Channels of :func:`node_channels`' second part."""
    return 1 + inputs.channels + 9
