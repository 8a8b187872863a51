"""One simulated day: its demand, its mishaps, SUMO; and a cache, so that a broken-off run can go on."""

from __future__ import annotations

import os
import zipfile
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.simulation.demand import Day, draw_trips, is_day_off
from citybrain_datasets.simulation.disruptions import Disruption, speed_steps
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.simulation.traffic import Measured, run_window

WARM_UP = 1800
"""Seconds before midnight with which a day begins, so that its streets are not empty."""


@dataclass(frozen=True)
class Scene:
    """Everything a day's traffic depends on.

    ``zones`` names the district of each segment; ``rain_mm_h`` has a value for every hour of the plan's days;
    ``disruptions`` are those of all days.
    """

    plan: Plan
    network: Path
    segments: pd.DataFrame
    zones: pd.Series
    rain_mm_h: np.ndarray
    disruptions: list[Disruption]


def simulate_day(scene: Scene, day: int) -> Measured:
    """Traffic of local day ``day``: 288 five-minute steps, 24 hours of emissions."""
    plan = scene.plan
    trips = draw_trips(plan, scene.segments, scene.zones, day_of(scene, day), WARM_UP)
    begin = day * 86400 - WARM_UP
    limits = speed_steps(scene.segments, scene.disruptions, scene.rain_mm_h, begin, (day + 1) * 86400)
    return run_window(
        scene.network,
        scene.segments,
        trips,
        seconds=86400,
        warm_up=WARM_UP,
        speed_limits={s: [(t - begin, v) for t, v in steps] for s, steps in limits.items()},
        closures=[
            replace(d, begin=max(0.0, d.begin - begin), end=d.end - begin)
            for d in scene.disruptions
            if d.lanes_closed and d.begin < begin + WARM_UP + 86400 and d.end > begin
        ],
        informed_share=plan.informed_share,
        seed=plan.seed * 1000 + day,
    )


def day_of(scene: Scene, day: int) -> Day:
    """The demand side of a day: whether people work, how it rains, and which quarter has an evening event."""
    rng = np.random.default_rng([scene.plan.seed, 5, day])
    factors = []
    if rng.random() < 0.25:
        # A match or a fair somewhere: one district's visitors all go home late.
        zone = str(rng.choice(sorted(set(scene.zones))))
        factors.append((zone, "errand_back", round(float(rng.uniform(1.5, 2.5)), 2)))
    rain = scene.rain_mm_h[day * 24 : day * 24 + 24]
    return Day(day, is_day_off(scene.plan, day), rain, tuple(factors))


def cached_day(scene: Scene, day: int, folder: Path) -> Measured:
    """``simulate_day``, kept in ``folder`` by plan and SUMO version; a day is written whole or not at all."""
    path = folder / f"{scene.plan.digest()}-sumo{version('eclipse-sumo')}-day{day:03d}.npz"
    if path.exists():
        try:
            with np.load(path) as kept:
                return Measured(**kept)
        except (OSError, ValueError, TypeError, zipfile.BadZipFile):
            path.unlink()  # cut short by a full or failing disk: simulate it again
    measured = simulate_day(scene, day)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **asdict(measured))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return measured
