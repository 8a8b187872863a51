"""The seam of the benchmark: anything that can be fitted within a budget and then forecasts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np

from citybrain_datasets.features import Window
from citybrain_datasets.task import Task
from citybrain_datasets.windows import WindowSource
from citybrain_models.forecaster import Forecaster
from citybrain_training.preparation import Preparation


@dataclass(frozen=True)
class Budget:
    """What every model of a comparison may spend on learning.

    ``minutes`` are CPU minutes of the process (minutes on the clock where ``device`` is no CPU); None trains in
    full, each model for the epochs of its own publication.
    """

    minutes: float | None = None
    seed: int = 1
    threads: int = 1
    device: str = "cpu"

    def shared(self, share: float, seed: int) -> Budget:
        """A share of this budget, with a seed."""
        return replace(self, minutes=None if self.minutes is None else share * self.minutes, seed=seed)

    @property
    def seconds(self) -> float:
        return float("inf") if self.minutes is None else 60 * self.minutes


@dataclass(frozen=True)
class Cost:
    """What a fit took. ``seconds`` counts as :class:`Budget` does, validation and probing included.

    ``curve`` are the seconds spent, and the mean absolute error on the validation windows in the target's unit, at the
    end of every epoch; empty for what does not learn in epochs.
    """

    seconds: float
    epochs: float
    parameters: int
    details: dict[str, float] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()


@runtime_checkable
class LearnsOnline(Protocol):
    """A peer that can also go on learning its intervals while it is tested."""

    def online(self, source: WindowSource) -> Forecaster: ...


class Peer(Protocol):
    """A :class:`~citybrain_models.forecaster.Forecaster` that can be fitted.

    ``note`` is what the table must say of it: where it departs from its publication, and why.
    """

    note: str

    @property
    def task(self) -> Task: ...

    def fit(self, preparation: Preparation, budget: Budget) -> Cost:
        """Learns from the train windows, chooses by the validation windows, never sees the test windows."""
        ...

    def forecast(self, window: Window) -> np.ndarray:
        """Quantiles float32 ``[batch, node, horizon, quantile]`` in the target's unit, rising along the quantiles."""
        ...
