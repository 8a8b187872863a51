"""What goes wrong on the roads: incidents of minutes, roadworks of days, and rain everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.simulation.plan import Plan


@dataclass(frozen=True)
class Disruption:
    """A segment that works worse for a while. Times are seconds since the first local midnight.

    ``speed_factor`` multiplies the free speed. ``lanes_closed`` counts from the right; all lanes close the
    road. Traffic creeping past the place lowers capacity as well: in SUMO's mesoscopic model the headway
    grows as speed falls.
    """

    segment: str
    begin: float
    end: float
    speed_factor: float
    lanes_closed: int
    kind: str


def draw_disruptions(plan: Plan, segments: pd.DataFrame) -> list[Disruption]:
    """All incidents and roadworks of the plan's days, each day from its own draw, sorted by begin.

    Incidents fall where and when there is traffic: by length and lanes, mostly by day, for 20–90 minutes.
    Roadworks take one lane of an arterial or expressway for two to five days, all day.
    """
    size = len(segments) / 200
    exposure = (segments["length_m"] * segments["lanes"]).to_numpy(float)
    exposure = exposure / exposure.sum()
    ids, lanes = segments.index.to_numpy(), segments["lanes"].to_numpy()
    wide = np.flatnonzero(segments["road_class"].isin(["arterial", "expressway"]).to_numpy())
    hourly = np.interp(np.arange(24), [0, 5, 7, 9, 12, 17, 19, 23], [1, 1, 6, 5, 4, 7, 5, 2.0])
    found: list[Disruption] = []
    for day in range(plan.days):
        rng = np.random.default_rng([plan.seed, 4, day])
        for _ in range(rng.poisson(plan.incidents_per_day * size)):
            place = rng.choice(len(ids), p=exposure)
            begin = day * 86400 + (rng.choice(24, p=hourly / hourly.sum()) + rng.random()) * 3600
            length = rng.uniform(20, 90) * 60
            closed = int(rng.integers(1, lanes[place])) if lanes[place] > 1 else 0
            factor = round(rng.uniform(0.08, 0.35), 3)
            found.append(Disruption(str(ids[place]), round(begin), round(begin + length), factor, closed, "incident"))
        for _ in range(rng.poisson(plan.roadworks_per_week / 7 * size)):
            place = rng.choice(wide)
            morning = day * 86400 + 6 * 3600
            evening = morning + int(rng.integers(2, 6)) * 86400 - 8 * 3600
            found.append(Disruption(str(ids[place]), morning, evening, 0.5, 1, "roadworks"))
    return sorted(found, key=lambda d: (d.begin, d.segment))


def rain_factor(rain_mm_h: np.ndarray) -> np.ndarray:
    """Factor on free speed in rain: −5 % at 1 mm/h, −13 % at 5 mm/h. A choice, not a measurement."""
    return 1 - 0.14 * (1 - np.exp(-np.asarray(rain_mm_h, float) / 2.0))


def speed_steps(
    segments: pd.DataFrame, disruptions: list[Disruption], rain_mm_h: np.ndarray, begin: float, end: float
) -> dict[str, list[tuple[float, float]]]:
    """Speed limits that change: for each segment its (second, km/h) steps in ``begin`` ≤ second < ``end``.

    ``rain_mm_h`` holds one value an hour from second 0. Where several causes meet, their factors multiply.
    """
    hours = np.arange(int(begin // 3600), int(np.ceil(end / 3600)))
    wet = rain_factor(rain_mm_h[np.clip(hours, 0, len(rain_mm_h) - 1)])
    marks = {max(begin, h * 3600.0) for h in hours}
    by_segment: dict[str, list[Disruption]] = {}
    for d in disruptions:
        if d.end > begin and d.begin < end:
            by_segment.setdefault(d.segment, []).append(d)
    steps: dict[str, list[tuple[float, float]]] = {}
    for segment, free in segments["free_speed_kmh"].items():
        own = by_segment.get(str(segment), [])
        if not own and (wet == 1).all():
            continue
        times = sorted(marks | {t for d in own for t in (d.begin, d.end) if begin <= t < end})
        series: list[tuple[float, float]] = []
        for t in times:
            factor = float(wet[int(t // 3600) - hours[0]])
            for d in own:
                if d.begin <= t < d.end:
                    factor *= d.speed_factor
            value = round(float(free) * factor, 3)
            if not series or series[-1][1] != value:
                series.append((t, value))
        if any(value != round(float(free), 3) for _, value in series):
            steps[str(segment)] = series
    return steps
