"""The SurrogateBundle: a trained surrogate and the road network it is applied to, complete."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.scenarios.actions import Window
from citybrain_models.city_files import city_from, facts_of, tables_of
from citybrain_models.files import (
    BundleError,
    from_npz,
    read_folder,
    refuse_external_data,
    to_json,
    write_folder,
)
from citybrain_models.surrogate.network import Base, RoadNetwork
from citybrain_models.surrogate.reach import Reach

FORMAT = "surrogate-3"


@dataclass(frozen=True)
class SurrogateBundle:
    """``model`` is ONNX; ``city`` has nodes and edges but no signals; ``usual`` is the traffic of a working day in
    ``window``; ``air`` what the air step needs, by name; ``margins`` how far either way each outcome's change may
    lie, in units of the surrogate's own width (see :mod:`unsure`)."""

    city: City
    window: Window
    network: RoadNetwork
    usual: Base
    model: bytes
    quantiles: tuple[float, ...]
    reach: Reach
    margins: Mapping[str, float]
    fingerprint: str
    """SHA-256 of the simulated runs that it was trained on."""
    created: str
    """ISO 8601, UTC."""
    air: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    digest: str = ""
    """SHA-256 of the manifest; set when the bundle is written or read. Names the bundle."""

    @property
    def version(self) -> str:
        """Short name of this very bundle."""
        return self.digest[:12]

    def write(self, folder: Path | str) -> SurrogateBundle:
        """Writes the bundle whole or not at all, and returns it with its digest.

        Raises :class:`BundleError` where ``folder`` exists and is no bundle.
        """
        about = {"format": FORMAT, "city": self.city.name, "created": self.created}
        return SurrogateBundle(**{**self.__dict__, "digest": write_folder(Path(folder), self._files(), about)})

    @staticmethod
    def read(folder: Path | str) -> SurrogateBundle:
        """Reads and verifies every file from its bytes. Nothing is unpickled, no link is followed.

        Raises :class:`BundleError`, naming the file, for anything missing, altered, foreign or malformed.
        """
        files, digest = read_folder(Path(folder), {"format": FORMAT})
        try:
            return _from_files(files, digest)
        except BundleError:
            raise
        except Exception as error:  # whatever is wrong with bytes from elsewhere, it is the bundle that is refused
            raise BundleError(f"{folder}: verified but malformed: {error!r}") from error

    def _files(self) -> dict[str, bytes]:
        usual = {n: a for n in ("flow", "vehicles", "emission", "worn") if (a := getattr(self.usual, n)) is not None}
        return {
            "model.onnx": self.model,
            "network.npz": _packed(self.network.arrays()),
            "usual.npz": _packed(usual),
            "reach.npz": _packed(self.reach.arrays()),
            "air.npz": _packed(self.air),
            "surrogate.json": to_json(
                {
                    "city": facts_of(self.city),
                    "window": self.window.model_dump(mode="json"),
                    "slot_seconds": self.usual.slot_seconds,
                    "quantiles": self.quantiles,
                    "margins": self.margins,
                    "fingerprint": self.fingerprint,
                    "created": self.created,
                }
            ),
            "metrics.json": to_json(dict(self.metrics)),
            "card.md": self.card.encode(),
            **tables_of(self.city),
        }


def _from_files(files: dict[str, bytes], digest: str) -> SurrogateBundle:
    refuse_external_data(files["model.onnx"])
    about = json.loads(files["surrogate.json"])
    usual: dict[str, Any] = from_npz(files["usual.npz"], "usual.npz")
    return SurrogateBundle(
        city=city_from(files, about["city"]),
        window=Window.model_validate(about["window"]),
        network=RoadNetwork.from_arrays(from_npz(files["network.npz"], "network.npz")),
        usual=Base(**usual, slot_seconds=about["slot_seconds"]),
        model=files["model.onnx"],
        quantiles=tuple(about["quantiles"]),
        reach=Reach.from_arrays(from_npz(files["reach.npz"], "reach.npz")),
        margins=about["margins"],
        fingerprint=about["fingerprint"],
        created=about["created"],
        air=from_npz(files["air.npz"], "air.npz"),
        metrics=json.loads(files["metrics.json"]),
        card=files["card.md"].decode(),
        digest=digest,
    )


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """As :func:`to_npz`, compressed: matrices between segments are mostly zero."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes allow_pickle for an array name
    return buffer.getvalue()
