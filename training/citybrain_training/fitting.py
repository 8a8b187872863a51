"""Fit: a network trained by Lightning, with early stopping, checkpoints that resume and averaged weights."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from citybrain_datasets.errors import CityBrainError, ConfigError
from citybrain_training.averaging import MovingAverage
from citybrain_training.batches import Windows
from citybrain_training.config import TrainConfig
from citybrain_training.deadline import Deadline
from citybrain_training.interruption import told_as_stopped
from citybrain_training.linear_start import start_linear
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.preparation import Preparation
from citybrain_training.progress import told_by
from citybrain_training.weights import WeightsError, read_weights, start_from

# Its notes on hardware and products are nothing a person can act on; warnings and errors stay.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class DivergedError(CityBrainError):
    """A training has no validation error that is a number."""


@dataclass(frozen=True)
class Fitted:
    """A trained module with its best weights, and what the training cost."""

    module: ForecastModule
    checkpoint: Path
    epochs: int
    steps: int
    """Optimiser steps."""
    cpu_seconds: float
    wall_seconds: float
    best_validation_mae: float

    @property
    def parameters(self) -> int:
        """Trainable numbers of the network, node embeddings included."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)


def fit(
    preparation: Preparation,
    folder: Path,
    *,
    resume: bool = False,
    warm_start: Path | None = None,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Fitted:
    """Trains into ``folder``, which receives ``last.ckpt`` after every epoch and ``best.ckpt``.

    ``resume`` goes on from ``last.ckpt`` if there is one; ``warm_start`` begins with another training's weights, as
    :func:`~citybrain_training.weights.start_from` takes them. What another training left in ``folder`` is taken away
    unless it is gone on with. Raises :class:`DivergedError`, :class:`ConfigError` for options of the trainer that it
    cannot have, and :class:`~citybrain_training.weights.WeightsError` for weights of another network.
    """
    config = preparation.config
    torch.set_num_threads(config.threads)
    pl.seed_everything(config.seed, verbose=False)
    module = ForecastModule(build_network(preparation), preparation)
    last = folder / "last.ckpt"
    goes_on = resume and last.exists()
    if warm_start is not None:
        start_from(module, preparation, warm_start)
    elif config.fit.linear_start and not goes_on:
        start_linear(module.network, preparation)
    folder.mkdir(parents=True, exist_ok=True)
    if goes_on:
        load_weights(module, last)  # tells what Lightning would tell in a page: that it is another network's
    else:
        # A later call that is to go on would go on from them, were this training stopped in its first epoch.
        for left in (last, folder / "best.ckpt"):
            left.unlink(missing_ok=True)
    best = _Kept(folder, "best", monitor="val_mae", enable_version_counter=False)
    latest = _Kept(folder, "last", monitor=None, enable_version_counter=False)  # every epoch, better or not
    trainer = _trainer(
        config,
        logger=logger or False,
        callbacks=[best, latest, *_callbacks(preparation, progress), *callbacks],
        default_root_dir=folder,
        enable_progress_bar=progress,
    )
    wall, cpu = time.perf_counter(), _cpu_seconds()
    with warnings.catch_warnings(), told_as_stopped(trainer):
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own use of torch
        trainer.fit(module, datamodule=Windows(preparation), ckpt_path=last if goes_on else None)
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    if trainer.global_rank:
        # Started beside the first process to train alone; what is left to do with the result is done once, by that one.
        raise SystemExit(0)
    if not best.best_model_path:
        raise ConfigError(f"{folder}: no epoch was trained and validated; is that what trainer: {config.trainer} says?")
    load_weights(module, Path(best.best_model_path))
    module.eval()
    # Where processes were spawned, this one's trainer has seen nothing; the checkpoint knows.
    ended: dict[str, Any] = torch.load(last, map_location="cpu", weights_only=True)
    score = float(ended["callbacks"][best.state_key]["best_model_score"])
    if not math.isfinite(score):
        raise DivergedError(f"{folder}: the validation error is no number; does a smaller fit.learning_rate help?")
    return Fitted(module, Path(best.best_model_path), ended["epoch"] + 1, ended["global_step"], cpu, wall, score)


class _Kept(ModelCheckpoint):
    """Checkpoints that are known again where their folder was moved: else the best so far would be forgotten, and the
    next epoch written over it."""

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {**state_dict, "dirpath": self.dirpath}
        for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
            moved[name] = here(state_dict.get(name) or "")
        moved["best_k_models"] = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict(moved)


def _trainer(config: TrainConfig, **given: Any) -> pl.Trainer:
    """Raises :class:`ConfigError` for options that Lightning does not know or cannot have here."""
    options = {
        "accelerator": "cpu",
        "devices": 1,
        "gradient_clip_val": 1.0,
        "max_epochs": config.fit.epochs,
        "num_sanity_val_steps": 0,
        "reload_dataloaders_every_n_epochs": int(config.fit.windows_per_epoch is not None),
        "enable_model_summary": False,
        "enable_progress_bar": given.pop("enable_progress_bar"),
        **config.trainer,
    }
    try:
        return pl.Trainer(**options, **given)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {error}") from None


def _cpu_seconds() -> float:
    """CPU time of this process and of the children it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def load_weights(module: ForecastModule, checkpoint: Path) -> None:
    """Loads the weights of a checkpoint; its code is never run (``weights_only``).

    Raises :class:`~citybrain_training.weights.WeightsError` for a file that holds none, or those of another network.
    """
    state = read_weights(checkpoint)["state_dict"]
    try:
        module.load_state_dict({k: v for k, v in state.items() if not k.startswith("val_error")})
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()  # the line before it names a class
        raise WeightsError(f"{checkpoint}: belongs to another network ({first[:200]})") from None


def _callbacks(preparation: Preparation, progress: bool) -> list[Callback]:
    fit_config, trainer = preparation.config.fit, preparation.config.trainer
    callbacks: list[Callback] = [EarlyStopping("val_mae", patience=fit_config.patience, strict=False)]
    if fit_config.minutes is not None:
        callbacks.append(Deadline(60 * fit_config.minutes, cpu=trainer.get("accelerator", "cpu") == "cpu"))
    if fit_config.average:
        callbacks.append(MovingAverage(fit_config.average))
    return [*callbacks, told_by(progress, "val_mae")]


class NetworkForecaster:
    """A trained module as a :class:`~citybrain_models.forecaster.Forecaster`, uncalibrated."""

    def __init__(self, module: ForecastModule, preparation: Preparation):
        self.module = module.eval()
        self.preparation = preparation
        self.task = preparation.task

    @torch.inference_mode()
    def forecast(self, window: Any) -> np.ndarray:
        arrays = self.preparation.features(window)
        return self.module({name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()
