"""Our own network as a subject of the benchmark: trained, calibrated and exported, then scored as it is served."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from citybrain_datasets.features import Window
from citybrain_datasets.windows import WindowSource
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.batches import spread
from citybrain_training.export import make_bundle
from citybrain_training.fitting import NetworkForecaster, fit
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.peers.online import OnlineForecaster
from citybrain_training.peers.peer import Budget, Cost
from citybrain_training.preparation import Preparation

PROBED = 128
"""Validation windows forecast to learn how long a validation takes."""

ASIDE_S = 12.0
"""Seconds that the ridge regression before the training and the export after it take."""

LEAST = 0.2
"""Share of the budget that training gets in any case."""


class _Curve(Callback):
    """Seconds spent and validation error after each epoch."""

    def __init__(self, spent: Callable[[], float]):
        self.spent = spent
        self.points: list[tuple[float, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.points.append((self.spent(), float(trainer.callback_metrics["val_mae"])))


class CityNetPeer:
    """:class:`~citybrain_models.nn.citynet.CityNet` as ``citybrain train`` trains it, within a budget."""

    note = ""

    def fit(self, preparation: Preparation, budget: Budget) -> Cost:
        clock = time.process_time if budget.device == "cpu" else time.perf_counter
        self.task = preparation.task
        began = clock()
        torch.set_num_threads(budget.threads)
        changes: dict = {"seed": budget.seed, "threads": budget.threads}
        if budget.device != "cpu":
            changes["trainer"] = {"accelerator": "gpu"}
        if budget.minutes is not None:
            changes["fit"] = {"minutes": self._minutes(preparation, budget)}
        planned = dataclasses.replace(preparation, config=preparation.config.merged(changes))
        with tempfile.TemporaryDirectory() as folder:
            curve = _Curve(lambda: clock() - began)
            fitted = fit(planned, Path(folder), callbacks=[curve], progress=False)
        self.model = OnnxForecaster(make_bundle(fitted.module.cpu(), planned), budget.threads)
        epochs = fitted.steps * planned.config.fit.batch / len(planned.split.train)
        details = {"validation_mae": fitted.best_validation_mae}
        return Cost(clock() - began, epochs, fitted.parameters, details, tuple(curve.points))

    def forecast(self, window: Window) -> np.ndarray:
        return self.model.forecast(window)

    def online(self, source: WindowSource) -> OnlineForecaster:
        """The same network with intervals that learn from the outcomes in ``source`` as they arrive."""
        return OnlineForecaster(self.model, source)

    def _minutes(self, preparation: Preparation, budget: Budget) -> float:
        """What of the budget is left for training when the last validation, calibration and export have theirs."""
        module = ForecastModule(build_network(preparation), preparation)
        validate = preparation.split.validate
        probe = spread(validate, PROBED)
        began = time.process_time()
        NetworkForecaster(module, preparation).forecast(preparation.source.window(probe))
        window = (time.process_time() - began) / len(probe)
        aside = window * (len(validate) + min(len(validate), preparation.config.fit.validation_windows)) + ASIDE_S
        return max(budget.seconds - aside, LEAST * budget.seconds) / 60
