"""One simulated window on disk: NPZ with ``speed``, ``flow``, ``emission`` ``[step, segment]``, and what was run."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np

from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.outcomes import Traffic


def save_traffic(path: Path, traffic: Traffic, scenario: Scenario, replication: int, window: Window) -> None:
    """Writes one simulated window to ``path``, whole or not at all."""
    about = {
        "scenario": scenario.model_dump(mode="json"),
        "replication": replication,
        "window": window.model_dump(mode="json"),
    }
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(
            file, about=np.array(json.dumps(about, ensure_ascii=False)), speed=traffic.speed, flow=traffic.flow,
            emission=traffic.emission,
        )  # fmt: skip
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_traffic(path: Path) -> tuple[Scenario, int, Window, Traffic]:
    """Reads one simulated window; :class:`CityError` names a file that is cut short."""
    try:
        with np.load(path) as kept:
            about = json.loads(str(kept["about"]))
            traffic = Traffic(kept["speed"], kept["flow"], kept["emission"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error
    scenario, window = Scenario.model_validate(about["scenario"]), Window.model_validate(about["window"])
    return scenario, int(about["replication"]), window, traffic
