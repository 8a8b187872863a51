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
from citybrain_training.batches import Collate
from citybrain_training.export import make_bundle
from citybrain_training.fitting import NetworkForecaster, fit
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.peers.online import OnlineForecaster
from citybrain_training.peers.peer import Budget, Cost
from citybrain_training.preparation import Preparation

PROBE_STEPS = 13
"""Training steps timed to learn how many epochs the budget holds; the first is warm-up and not counted."""

OVERHEAD = 1.25
"""What a training costs over its bare steps and validations: clipping, averaging, the linear start, the export."""


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
            changes["fit"] = self._plan(preparation, budget)
        planned = dataclasses.replace(preparation, config=preparation.config.merged(changes))
        with tempfile.TemporaryDirectory() as folder:
            curve = _Curve(lambda: clock() - began)
            fitted = fit(planned, Path(folder), callbacks=[curve], progress=False)
        self.model = OnnxForecaster(make_bundle(fitted.module.cpu(), planned), budget.threads)
        epoch = planned.config.fit.windows_per_epoch or len(planned.split.train)
        epochs = fitted.epochs * min(1.0, epoch / len(planned.split.train))
        details = {"validation_mae": fitted.best_validation_mae, "epochs_planned": float(planned.config.fit.epochs)}
        return Cost(clock() - began, epochs, fitted.parameters, details, tuple(curve.points))

    def forecast(self, window: Window) -> np.ndarray:
        return self.model.forecast(window)

    def online(self, source: WindowSource) -> OnlineForecaster:
        """The same network with intervals that learn from the outcomes in ``source`` as they arrive."""
        return OnlineForecaster(self.model, source)

    def _plan(self, preparation: Preparation, budget: Budget) -> dict[str, int]:
        """Epochs that use the budget up, each on a random part of the windows where whole ones would not fit."""
        config, train, validate = preparation.config.fit, preparation.split.train, preparation.split.validate
        start = time.process_time()
        module = ForecastModule(build_network(preparation), preparation)
        optimizer = torch.optim.AdamW(module.parameters(), config.learning_rate)
        collate = Collate(preparation, train, training=True)
        times = [time.process_time()]
        for index in range(PROBE_STEPS):
            arrays, answer = collate([(index + row) % len(train) for row in range(config.batch)])
            optimizer.zero_grad()
            module.loss(module(arrays), answer).backward()
            optimizer.step()
            times.append(time.process_time())
        step = (times[-1] - times[1]) / (PROBE_STEPS - 1)
        probe = validate[:: max(1, len(validate) // 128)]
        began = time.process_time()
        NetworkForecaster(module, preparation).forecast(preparation.source.window(probe))
        validation = (time.process_time() - began) / len(probe) * len(validate)
        # One more validation pass calibrates.
        left = (budget.seconds - (time.process_time() - start)) / OVERHEAD - validation
        most = min(len(train), config.windows_per_epoch or len(train))
        # As many epochs as would use the budget up, at least two if a validation leaves time for them, and each as long
        # as what is left allows.
        whole = most // config.batch * step + validation
        epochs = int(np.clip(np.ceil(left / whole), min(2, config.epochs), config.epochs))
        steps = max(1, int((left / epochs - validation) / step))
        shorter = {"windows_per_epoch": steps * config.batch} if (steps + 1) * config.batch < most else {}
        return {"epochs": epochs, **shorter}
