"""The search: what may vary, what is minimised, and where it is kept so that it can go on after a stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import mlflow
import optuna
from lightning.pytorch.callbacks import Callback
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_training.config import TrainConfig
from citybrain_training.fitting import DivergedError, fit
from citybrain_training.preparation import prepare, task_of
from citybrain_training.tracking import Tracking

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
"""A trial that failed or was cut off does not count and is made up for."""


@dataclass(frozen=True)
class Found:
    """The best configuration, its validation error in the target's unit, and how many trials it took."""

    config: TrainConfig
    validation_mae: float
    trials: int
    study: str
    """The name by which Optuna keeps the search."""


def suggest(trial: optuna.Trial, config: TrainConfig) -> TrainConfig:
    """A configuration near ``config``: size and regularisation of the network, and how it is optimised."""
    network: dict[str, Any] = {
        "width": trial.suggest_categorical("width", [32, 48, 64, 96]),
        "blocks": trial.suggest_int("blocks", 1, 3),
        "hubs": trial.suggest_categorical("hubs", [0, 4, 8]),
        "embedding": trial.suggest_categorical("embedding", [4, 8, 16]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
    }
    rates: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", 5e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        "batch": trial.suggest_categorical("batch", [16, 32, 64, 128]),
        "disturbed": trial.suggest_float("disturbed", 0.0, 0.5),
    }
    return config.merged({"network": network, "fit": rates})


def what_is_searched(city: City, task: str, config: TrainConfig) -> dict[str, Any]:
    """All that an error depends on beside what a trial suggests: trials are compared where this is the same."""
    return {
        "task": task_of(city, task, config).model_dump(mode="json"),
        "config": config.model_dump(mode="json", by_alias=True),
        "data_fingerprint": city.fingerprint(),
    }


def search(
    city: City,
    task: str,
    config: TrainConfig,
    *,
    trials: int,
    home: Path,
    storage: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Found:
    """Runs trials until ``trials`` of them have ended, those of earlier calls included, and returns the best.

    The study is kept in ``storage``, a database address, by default SQLite under ``home``; every trial is an MLflow
    run. Earlier calls count where they searched the same: :func:`what_is_searched` is in the study's name. The error
    minimised is that of the validation windows; test windows are never cut. Raises :class:`ConfigError` for a
    ``storage`` that cannot be opened, and where every trial diverged.
    """
    searched = what_is_searched(city, task, config)
    digest = hashlib.sha256(json.dumps(searched, sort_keys=True).encode()).hexdigest()[:12]
    name = f"{city.name}-{task}-{digest}"
    tracking = Tracking(home, f"{city.name}-{task}-tuning")
    study = _study(name, storage or f"sqlite:///{home.resolve() / 'tuning.db'}")

    study.set_user_attr("searched", searched)

    # Another seed for a call that goes on: the same one would try again what the first call tried.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.get_trials(deepcopy=False)))

    def objective(trial: optuna.Trial) -> float:
        tried = suggest(trial, config)
        with tracking.run(f"trial-{trial.number}") as logger:
            tracking.parameters({"study": name, "network": tried.network.model_dump(), "fit": tried.fit.model_dump()})
            folder = home / "tuning" / name / str(trial.number)
            prepared = prepare(city, task, tried)
            try:
                fitted = fit(prepared, folder, logger=logger, callbacks=[_Report(trial)], progress=False)
            except DivergedError as diverged:
                # Not a failure, which would be made up for: the search knows now that this was no good.
                raise optuna.TrialPruned from diverged
            mlflow.log_metric("best_val_mae", fitted.best_validation_mae)
        if trial.should_prune():
            raise optuna.TrialPruned
        return fitted.best_validation_mae

    while (done := len(study.get_trials(deepcopy=False, states=COUNTED))) < trials:
        study.optimize(objective, n_trials=1)
        last = study.get_trials(deepcopy=False)[-1]
        tell(f"trial {last.number} ({done + 1} of {trials}): {_said(last)}")
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ConfigError(f"{name}: none of {done} trials came to an error that is a number; allow more of them")
    best = study.best_trial
    assert best.value is not None
    return Found(suggest(optuna.trial.FixedTrial(best.params), config), best.value, done, name)  # type: ignore[arg-type]  # a FixedTrial suggests as a Trial does


def _study(name: str, storage: str) -> optuna.Study:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    try:
        return optuna.create_study(
            study_name=name, storage=storage, load_if_exists=True, direction="minimize", pruner=pruner
        )
    except (SQLAlchemyError, ImportError, StorageInternalError) as error:
        raise ConfigError(f"--storage: is no database that can be opened ({str(error).splitlines()[0]})") from None


def _said(trial: optuna.trial.FrozenTrial) -> str:
    value = "no value" if trial.value is None else f"{trial.value:.4f}"
    return f"{value}, {trial.state.name.lower()}"


class _Report(Callback):
    """Tells Optuna the error of every epoch and stops a trial that is worse than most were by then."""

    def __init__(self, trial: optuna.Trial):
        self.trial = trial

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        error = trainer.callback_metrics.get("val_mae")
        if error is None or trainer.sanity_checking:
            return
        self.trial.report(float(error), trainer.current_epoch)
        if self.trial.should_prune():
            trainer.should_stop = True
