"""The Bundle: what training hands over and all that serving takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.features import Features
from citybrain_datasets.signals import Ticks
from citybrain_datasets.statistics import Profile, Scaler, Statistics
from citybrain_datasets.task import Task
from citybrain_models.calibration import PARTS, Calibration
from citybrain_models.city_files import city_from, facts_of, tables_of
from citybrain_models.files import (
    MANIFEST,
    BundleError,
    from_npz,
    read_folder,
    refuse_external_data,
    to_json,
    to_npz,
    write_folder,
)

__all__ = ["MANIFEST", "Bundle", "BundleError", "refuse_external_data"]

FORMAT = 1

LEARNT_FROM = "learnt_from"
"""Among a bundle's metrics, where it is not older: the first and the last issue time, ISO 8601, of the windows that it
was trained with (``train``) and chosen and calibrated with (``validate``)."""


@dataclass(frozen=True)
class Bundle:
    """A trained forecast, complete: network, graph, node order, statistics, calibration, metrics and card.

    ``city`` has nodes and edges but no signals. ``placing`` says where each signal is measured. ``graph`` holds the
    network's fixed inputs (static attributes, embeddings, neighbour lists) by name. ``model`` is ONNX, in bytes.
    """

    task: Task
    city: City
    placing: Mapping[str, str]
    statistics: Statistics
    graph: Mapping[str, np.ndarray]
    model: bytes
    calibration: Calibration
    fingerprint: str
    """SHA-256 of the data that it was trained on."""
    created: str
    """ISO 8601, UTC."""
    clocks: Mapping[str, Ticks] = field(default_factory=dict)
    """The clock each signal is measured on, maybe finer than the task's; the task's own where it is not said."""
    learnt: Calibration | None = None
    """What the outcomes of the validation windows, in order of time, move on top of ``calibration``: where a service
    begins to learn. None in bundles written before it was kept."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    digest: str = ""
    """SHA-256 of the manifest; set when the bundle is written or read. Names the bundle."""

    @property
    def version(self) -> str:
        """Short name of this very bundle."""
        return self.digest[:12]

    def features(self) -> Features:
        return Features(self.task, self.statistics, Calendar(self.city.timezone, self.city.country), self.placing)

    def write(self, folder: Path | str) -> Bundle:
        """Writes the bundle whole or not at all, and returns it with its digest.

        Raises :class:`BundleError` where ``folder`` exists and is no bundle: nothing else is ever replaced.
        """
        about = {"format": FORMAT, "city": self.city.name, "task": self.task.name, "created": self.created}
        return Bundle(**{**self.__dict__, "digest": write_folder(Path(folder), self._files(), about)})

    @staticmethod
    def read(folder: Path | str) -> Bundle:
        """Reads and verifies every file from its bytes. Nothing is unpickled, no link is followed.

        Raises :class:`BundleError`, naming the file, for anything missing, altered, foreign or malformed.
        """
        files, digest = read_folder(Path(folder), {"format": FORMAT})
        try:
            return Bundle._from_files(files, digest)
        except BundleError:
            raise
        except Exception as error:  # whatever is wrong with bytes from elsewhere, it is the bundle that is refused
            raise BundleError(f"{folder}: verified but malformed: {error!r}") from error

    def _files(self) -> dict[str, bytes]:
        clocks = {name: vars(ticks) for name, ticks in self.clocks.items()}
        return {
            "model.onnx": self.model,
            "task.json": to_json(self.task.model_dump(mode="json")),
            "city.json": to_json(
                {
                    **facts_of(self.city),
                    "placing": dict(self.placing),
                    "clocks": clocks,
                    "fingerprint": self.fingerprint,
                }
            ),
            "scalers.json": to_json({name: vars(scaler) for name, scaler in self.statistics.scalers.items()}),
            "profiles.npz": to_npz({f"{n}.{p.slot_minutes}": p.mean for n, p in self.statistics.profiles.items()}),
            "graph.npz": to_npz(self.graph),
            "calibration.json": to_json(
                {
                    "quantiles": self.calibration.quantiles,
                    **_shifts(self.calibration),
                    **({} if self.learnt is None else {"learnt": _shifts(self.learnt)}),
                }
            ),
            "metrics.json": to_json({"created": self.created, **self.metrics}),
            "card.md": self.card.encode(),
            **tables_of(self.city),
        }

    @staticmethod
    def _from_files(files: dict[str, bytes], digest: str) -> Bundle:
        refuse_external_data(files["model.onnx"])
        task = Task.model_validate_json(files["task.json"])
        about = json.loads(files["city.json"])
        profiles = {}
        for key, mean in from_npz(files["profiles.npz"], "profiles.npz").items():
            name, slot_minutes = key.rsplit(".", 1)
            profiles[name] = Profile(int(slot_minutes), mean)
        scalers = {name: Scaler(**values) for name, values in json.loads(files["scalers.json"]).items()}
        metrics = json.loads(files["metrics.json"])
        shifts = json.loads(files["calibration.json"])
        return Bundle(
            task=task,
            city=city_from(files, about),
            placing=about["placing"],
            statistics=Statistics(scalers, profiles),
            graph=from_npz(files["graph.npz"], "graph.npz"),
            model=files["model.onnx"],
            calibration=_calibration(shifts, task, shifts["quantiles"]),
            learnt=_calibration(shifts["learnt"], task, shifts["quantiles"]) if "learnt" in shifts else None,
            fingerprint=about["fingerprint"],
            clocks={name: Ticks(**ticks) for name, ticks in about["clocks"].items()},
            created=metrics.pop("created"),
            metrics=metrics,
            card=files["card.md"].decode(),
            digest=digest,
        )


def _shifts(calibration: Calibration) -> dict[str, list[Any]]:
    return {key: getattr(calibration, key).astype(float).tolist() for key in ("shift", "by_part")}


def _calibration(found: Mapping[str, Any], task: Task, quantiles: Sequence[float]) -> Calibration:
    """Bundles written before the parts of the day were told apart hold none of them."""
    shift = np.asarray(found["shift"], np.float32).reshape(task.horizon, len(task.quantiles))
    parts = np.asarray(found.get("by_part", []), np.float32)
    if len(parts) not in (0, PARTS):
        raise BundleError(f"calibration.json: holds {len(parts)} parts of the day, expected {PARTS} or none")
    return Calibration(tuple(quantiles), shift, parts.reshape(-1, *shift.shape))
