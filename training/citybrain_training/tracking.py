"""MLflow: runs, figures, bundles, and the registry with its champion and challenger."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
from lightning.pytorch.loggers import MLFlowLogger
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from citybrain_datasets.errors import CityBrainError
from citybrain_models.bundle import Bundle
from citybrain_training.config import TrainConfig
from citybrain_training.module import ForecastModule
from citybrain_training.preparation import Preparation
from citybrain_training.weights import save_weights

# A control room's network is closed: MLflow must not report usage home.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each file drowns what is told

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # what was registered is told by the command itself

ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Codes with which MLflow says that there is no such model, version or alias."""

CHAMPION, CHALLENGER = "champion", "challenger"
BUNDLE, WEIGHTS, CONFIG = "bundle", "weights.pt", "config.json"
"""Artifacts of a run: what serving takes, what a later training starts from, and how this one was told to train."""


_own_addresses: set[str] = set()


def given_address() -> str | None:
    """``MLFLOW_TRACKING_URI`` as somebody set it; MLflow itself writes there what it was pointed at last."""
    address = os.environ.get("MLFLOW_TRACKING_URI")
    return None if address in _own_addresses else address


def connect(home: Path) -> str:
    """Points MLflow at ``MLFLOW_TRACKING_URI`` where set, else at the database under ``home``; returns the address."""
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    address = given_address()
    if address is None:
        address = f"sqlite:///{home / 'mlflow.db'}"
        _own_addresses.add(address)
    mlflow.set_tracking_uri(address)
    return address


class Tracking:
    """One training's run. Uses ``MLFLOW_TRACKING_URI`` where set, else SQLite and artifacts under ``home``."""

    def __init__(self, home: Path, experiment: str):
        given = given_address()
        self.uri = connect(home)
        found = mlflow.get_experiment_by_name(experiment)
        if found is None:
            place = None if given else (home.resolve() / "artifacts" / experiment).as_uri()
            mlflow.create_experiment(experiment, artifact_location=place)
        mlflow.set_experiment(experiment)
        self.experiment = experiment

    @contextmanager
    def run(self, name: str) -> Iterator[MLFlowLogger]:
        """An MLflow run, and the Lightning logger that writes into it. It ends as failed when the body raises."""
        with mlflow.start_run(run_name=name) as active:
            yield MLFlowLogger(self.experiment, tracking_uri=self.uri, run_id=active.info.run_id)

    @staticmethod
    def parameters(values: Mapping[str, Any]) -> None:
        """Logs a nested configuration as dotted parameters."""
        mlflow.log_params(dict(_flat(values)))

    @staticmethod
    def scores(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """Logs test scores, ``test/<model>/<metric>/<lead>``."""
        metrics = {
            f"test/{model}/{metric}/{lead}".replace(" ", "_"): value
            for model, table in tables.items()
            for lead, row in table.items()
            for metric, value in row.items()
        }
        mlflow.log_metrics(metrics)

    @staticmethod
    def figures(figures: Mapping[str, Figure | None]) -> None:
        import matplotlib.pyplot as plt

        for name, figure in figures.items():
            if figure is not None:
                mlflow.log_figure(figure, f"figures/{name}.png", save_kwargs={"dpi": 110})
                plt.close(figure)

    @staticmethod
    def start_of_another(preparation: Preparation, module: ForecastModule, config: TrainConfig) -> None:
        """Logs what a later training needs to start from this one: weights and configuration."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / WEIGHTS
            save_weights(module, preparation, path)
            mlflow.log_artifact(str(path))
        mlflow.log_dict(config.model_dump(mode="json", by_alias=True), CONFIG)

    @staticmethod
    def register(bundle: Bundle, folder: Path, example: Mapping[str, np.ndarray]) -> tuple[str, str, str]:
        """Logs the bundle's files and its network in the ONNX flavour, and registers it.

        The first version of a model becomes ``champion``, later ones ``challenger`` until someone promotes them.
        Returns the registered name, its version and the alias.
        """
        mlflow.log_artifacts(str(folder), BUNDLE)
        name = registered_name(bundle)
        inputs = Schema([TensorSpec(a.dtype, (-1, *a.shape[1:]), n) for n, a in example.items()])
        outputs = Schema(
            [TensorSpec(np.dtype(np.float32), (-1, -1, bundle.task.horizon, len(bundle.task.quantiles)), "quantiles")]
        )
        logged = mlflow.onnx.log_model(
            onnx.load_model_from_string(bundle.model),
            name="model",
            signature=ModelSignature(inputs=inputs, outputs=outputs),
            registered_model_name=name,
            save_as_external_data=False,
            pip_requirements=["onnxruntime", "onnx", "numpy"],
            metadata={"bundle": bundle.digest, "city": bundle.city.name, "task": bundle.task.name},
        )
        client = MlflowClient()
        version = str(logged.registered_model_version)
        client.set_model_version_tag(name, version, BUNDLE, bundle.digest)
        alias = CHALLENGER if alias_version(name, CHAMPION) else CHAMPION
        client.set_registered_model_alias(name, alias, version)
        return name, version, alias


def registered_name(bundle: Bundle) -> str:
    return f"{bundle.city.name}-{bundle.task.name}"


class RegistryError(CityBrainError):
    """The registry has no such model, version or way back, or cannot be asked."""


def raise_unless_absent(error: MlflowException) -> None:
    """Raises :class:`RegistryError` unless the registry answered that it has no such thing: who cannot ask must not
    take that for a registry without a champion."""
    if error.error_code not in ABSENT:
        first = (str(error).splitlines() or [error.error_code])[0]
        raise RegistryError(f"the registry of models cannot be asked: {first[:300]}") from error


def alias_version(name: str, alias: str) -> str | None:
    """Version that an alias of a registered model points to, None where there is none."""
    try:
        return str(MlflowClient().get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        raise_unless_absent(error)
        return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)[:500]
