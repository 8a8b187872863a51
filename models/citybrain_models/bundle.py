"""The Bundle: what training hands over and all that serving takes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityBrainError, CityError
from citybrain_datasets.features import Features
from citybrain_datasets.signals import Ticks
from citybrain_datasets.statistics import Profile, Scaler, Statistics
from citybrain_datasets.task import Task
from citybrain_models.calibration import Calibration

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST_FILE = 4 * 1024**3
"""Bytes; a larger file is refused before it is read."""


class BundleError(CityBrainError):
    """A bundle is damaged, incomplete, of another format or not what it claims."""


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
        folder = Path(folder)
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise BundleError(f"{folder}: exists and is no bundle; it is left as it is")
        folder.parent.mkdir(parents=True, exist_ok=True)
        files = self._files()
        manifest = {
            "format": FORMAT,
            "city": self.city.name,
            "task": self.task.name,
            "created": self.created,
            "files": {name: {"sha256": _sha(data), "bytes": len(data)} for name, data in sorted(files.items())},
        }
        files[MANIFEST] = _json(manifest)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, data in files.items():
                with open(work / name, "wb") as out:
                    out.write(data)
                    out.flush()
                    os.fsync(out.fileno())
            work.chmod(0o755)
            if folder.exists():
                old = work.with_name(work.name + ".old")
                folder.rename(old)
                work.rename(folder)
                shutil.rmtree(old)
            else:
                work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return Bundle(**{**self.__dict__, "digest": _sha(files[MANIFEST])})

    @staticmethod
    def read(folder: Path | str) -> Bundle:
        """Reads and verifies every file from its bytes. Nothing is unpickled, no link is followed.

        Raises :class:`BundleError`, naming the file, for anything missing, altered, foreign or malformed.
        """
        folder = Path(folder)
        if not folder.is_dir() or folder.is_symlink():
            raise BundleError(f"{folder}: is no bundle folder")
        raw = _read(folder / MANIFEST)
        try:
            manifest = json.loads(raw)
            entries: dict[str, dict[str, Any]] = manifest["files"]
            found_format = manifest["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{folder / MANIFEST}: is no bundle manifest ({error})") from None
        if found_format != FORMAT:
            raise BundleError(f"{folder / MANIFEST}: format {found_format!r}; this version reads format {FORMAT}")
        present = {path.name for path in folder.iterdir()} - {MANIFEST}
        if present != set(entries):
            odd = sorted(present ^ set(entries))
            raise BundleError(f"{folder}: files and manifest disagree about {', '.join(odd)}")
        files = {}
        for name, entry in entries.items():
            if Path(name).name != name or not isinstance(entry, dict):
                raise BundleError(f"{folder / MANIFEST}: {name!r} is no plain file name")
            data = _read(folder / name)
            if _sha(data) != entry.get("sha256"):
                raise BundleError(
                    f"{folder / name}: SHA-256 does not match the manifest; the file was damaged or changed"
                )
            files[name] = data
        try:
            return Bundle._from_files(files, _sha(raw))
        except BundleError:
            raise
        except (KeyError, ValueError, TypeError, OSError, EOFError, ValidationError, CityError) as error:
            raise BundleError(f"{folder}: verified but malformed: {error!r}") from error

    def _files(self) -> dict[str, bytes]:
        city = {key: getattr(self.city, key) for key in _CITY_FIELDS}
        clocks = {name: vars(ticks) for name, ticks in self.clocks.items()}
        files = {
            "model.onnx": self.model,
            "task.json": _json(self.task.model_dump(mode="json")),
            "city.json": _json(
                {**city, "placing": dict(self.placing), "clocks": clocks, "fingerprint": self.fingerprint}
            ),
            "scalers.json": _json({name: vars(scaler) for name, scaler in self.statistics.scalers.items()}),
            "profiles.npz": _npz({f"{n}.{p.slot_minutes}": p.mean for n, p in self.statistics.profiles.items()}),
            "graph.npz": _npz(self.graph),
            "calibration.json": _json(
                {"quantiles": self.calibration.quantiles, "shift": self.calibration.shift.astype(float).tolist()}
            ),
            "metrics.json": _json({"created": self.created, **self.metrics}),
            "card.md": self.card.encode(),
        }
        for kind, tables in (("nodes", self.city.nodes), ("edges", self.city.edges)):
            for name, table in tables.items():
                files[f"{kind}.{name}.parquet"] = table.to_parquet(compression="zstd")
        return files

    @staticmethod
    def _from_files(files: dict[str, bytes], digest: str) -> Bundle:
        refuse_external_data(files["model.onnx"])
        task = Task.model_validate_json(files["task.json"])
        about = json.loads(files["city.json"])
        tables: dict[str, dict[Any, pd.DataFrame]] = {"nodes": {}, "edges": {}}
        for name, data in files.items():
            if name.endswith(".parquet"):
                kind, key, _ = name.split(".")
                tables[kind][key] = pd.read_parquet(io.BytesIO(data))
        city = City(nodes=tables["nodes"], edges=tables["edges"], **{key: about[key] for key in _CITY_FIELDS})
        profiles = {}
        for key, mean in _arrays(files["profiles.npz"]).items():
            name, slot_minutes = key.rsplit(".", 1)
            profiles[name] = Profile(int(slot_minutes), mean)
        scalers = {name: Scaler(**values) for name, values in json.loads(files["scalers.json"]).items()}
        calibration = json.loads(files["calibration.json"])
        metrics = json.loads(files["metrics.json"])
        return Bundle(
            task=task,
            city=city,
            placing=about["placing"],
            statistics=Statistics(scalers, profiles),
            graph=_arrays(files["graph.npz"]),
            model=files["model.onnx"],
            calibration=Calibration(
                tuple(calibration["quantiles"]), np.asarray(calibration["shift"], np.float32).reshape(task.horizon, -1)
            ),
            fingerprint=about["fingerprint"],
            clocks={name: Ticks(**ticks) for name, ticks in about["clocks"].items()},
            created=metrics.pop("created"),
            metrics=metrics,
            card=files["card.md"].decode(),
            digest=digest,
        )


_CITY_FIELDS = ("name", "timezone", "title", "country", "synthetic", "attribution")


def refuse_external_data(model: bytes) -> None:
    """Raises :class:`BundleError` unless ``model`` is an ONNX graph whose every tensor lies in these bytes.

    A tensor that names a file would let a bundle read whatever the server can.
    """
    import onnx  # heavy, and only reading a bundle needs it
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    try:
        proto = onnx.load_model_from_string(model)
        onnx.checker.check_model(proto)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise BundleError(f"model.onnx: is no valid ONNX model: {error}") from None
    for tensor in _get_all_tensors(proto):
        if uses_external_data(tensor) or len(tensor.external_data):
            raise BundleError(f"model.onnx: tensor {tensor.name!r} refers to data outside the file")


def _read(path: Path) -> bytes:
    """Bytes of a plain file, opened without following links."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None
    with os.fdopen(handle, "rb") as source:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: is no plain file")
        if status.st_size > LARGEST_FILE:
            raise BundleError(f"{path}: {status.st_size} bytes; at most {LARGEST_FILE} are read")
        return source.read()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes the keyword allow_pickle for an array name
    return buffer.getvalue()


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
