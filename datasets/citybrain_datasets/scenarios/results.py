"""Tables of what scenarios came to: one row each, the difference to the base with its noise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.language import TRAFFIC_LEVERS, Scenario
from citybrain_datasets.scenarios.outcomes import Grade, Place, air_outcomes, traffic_outcomes
from citybrain_datasets.scenarios.site import Site
from citybrain_datasets.scenarios.truth import Truth

LEVEL = 0.9
"""Of the intervals."""


def grade(scenario: Scenario) -> Grade:
    """``simulated`` where a measure acts on traffic or its exhaust, else ``literature``."""
    simulated = any(lever in TRAFFIC_LEVERS or lever == "vehicles" for lever in scenario.levers)
    return "simulated" if simulated or not scenario.measures else "literature"


def summarise(truth: Truth, place: Place) -> dict[str, object]:
    """One row: names and units as in ``outcomes.OUTCOMES``, means over the replications.

    ``NAME_noise`` is the standard error of the paired difference; the interval is Student's, 90 %. Both are NaN with
    one replication: a single run knows no noise.
    """
    (road, corridor), (road_base, _) = (traffic_outcomes(t, place) for t in (truth.traffic, truth.base))
    (air, district), (air_base, _) = (air_outcomes(p, place) for p in (truth.pm25, truth.base_pm25))
    row: dict[str, object] = {"scenario": truth.scenario.id, "title": truth.scenario.title}
    for name, value in (road | air).items():
        change = value - (road_base | air_base)[name]
        noise = _standard_error(change)
        reach = noise * float(student.ppf((1 + LEVEL) / 2, max(len(change) - 1, 1)))
        mean = float(change.mean())
        row |= {name: float(value.mean()), f"{name}_change": mean, f"{name}_noise": noise,
                f"{name}_change_low": mean - reach, f"{name}_change_high": mean + reach}  # fmt: skip
    return row | {
        "worst_corridor": place.corridors[_most(corridor)],
        "worst_district": place.districts[_most(district)],
        "cost": float("nan") if truth.scenario.cost is None else truth.scenario.cost,
        "replications": len(truth.traffic.speed),
        "evidence": grade(truth.scenario),
        "out_of_range": False,
    }


def by_segment(truth: Truth) -> pd.DataFrame:
    """Change on each segment, means over replications and steps: ``scenario segment speed flow emission`` and, each
    with ``_change``, less the base; km/h, veh/h, g/h."""
    columns: dict[str, np.ndarray] = {}
    for name in ("speed", "flow", "emission"):
        value, base = (np.asarray(getattr(t, name), float).mean(axis=(0, 1)) for t in (truth.traffic, truth.base))
        columns |= {name: value, f"{name}_change": value - base}
    return pd.DataFrame(columns).astype("float32").assign(scenario=truth.scenario.id)


def by_receptor(truth: Truth, place: Place) -> pd.DataFrame:
    """PM2.5 at each station and cell, means over replications and hours: ``receptor``, ``kind``, ``pm25``,
    ``pm25_change``."""
    value, base = truth.pm25.mean(axis=(0, 1)), truth.base_pm25.mean(axis=(0, 1))
    kind = ["station"] * len(place.stations) + ["cell"] * len(place.cells)
    table = pd.DataFrame({"pm25": value, "pm25_change": value - base}).astype("float32")
    return table.assign(scenario=truth.scenario.id, receptor=[*place.stations, *place.cells], kind=kind)


def write_results(truths: Sequence[Truth], site: Site, out: Path) -> pd.DataFrame:
    """Writes ``outcomes.parquet``, ``segments.parquet`` and ``receptors.parquet`` to ``out``; returns the first."""
    place = place_of(site.city)
    outcomes = pd.DataFrame([summarise(t, place) for t in truths])
    out.mkdir(parents=True, exist_ok=True)
    segments = [by_segment(t).assign(segment=place.segments) for t in truths]
    _write(pd.concat(segments, ignore_index=True), out / "segments.parquet")
    _write(pd.concat([by_receptor(t, place) for t in truths], ignore_index=True), out / "receptors.parquet")
    _write(outcomes, out / "outcomes.parquet")
    return outcomes


def _standard_error(change: np.ndarray) -> float:
    if len(change) < 2:
        return float("nan")
    return float(change.std(ddof=1) / np.sqrt(len(change)))


def _most(positions: np.ndarray) -> int:
    """The position named by most replications."""
    return int(np.bincount(np.atleast_1d(positions)).argmax())


def _write(table: pd.DataFrame, path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    table.to_parquet(part, index=False, compression="zstd")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
