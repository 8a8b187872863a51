"""Hourly PM2.5 at the stations: what blows in, what the city burns, and what its traffic adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.simulation.dispersion import CALM, concentrations
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.simulation.weather import autoregression

URBAN_EMISSION = 1500.0
"""PM2.5 of homes and works, µg/(m²·h)."""
URBAN_LENGTH = 7000.0
"""Length of the built-up area along the wind, metres."""

_SITES = [
    ("Drum Square", "鼓楼广场"), ("Willow Bridge", "柳桥"), ("Ferry Pier", "轮渡码头"),
    ("North Gate", "北门"), ("Stadium", "体育场"), ("University", "大学城"),
    ("Botanical Garden", "植物园"), ("Steel Works", "钢铁厂"), ("Harbour", "港区"),
    ("Tea Hill", "茶山"), ("Reservoir", "水库"), ("Railway Station", "火车站"),
]  # fmt: skip


@dataclass(frozen=True)
class Air:
    """PM2.5 in µg/m³, ``[hour, station]``, by origin; their sum is the truth."""

    background: np.ndarray
    urban: np.ndarray
    traffic: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.background + self.urban + self.traffic


def place_stations(plan: Plan, segments: pd.DataFrame) -> pd.DataFrame:
    """Station sites: index ``id``, columns ``x y`` (metres), ``name name_zh``, ``height_m``.

    Every second one stands 40–90 m beside a busy road, the others 150–350 m from any, spread over the city by
    taking each time the candidate farthest from those already chosen.
    """
    rng = np.random.default_rng([plan.seed, 6])
    town = segments[~segments["road_class"].isin(["motorway"])]
    busy = town["road_class"].isin(["arterial", "expressway", "collector"]).to_numpy()
    middle = np.c_[(town["x0"] + town["x1"]) / 2, (town["y0"] + town["y1"]) / 2]
    along = np.c_[town["x1"] - town["x0"], town["y1"] - town["y0"]] / town["length_m"].to_numpy()[:, None]
    chosen: list[np.ndarray] = []
    for number in range(plan.stations):
        at_kerb = number % 2 == 0
        pool = np.flatnonzero(busy if at_kerb else ~busy)
        if chosen:
            gap = np.min([np.hypot(*(middle[pool] - c).T) for c in chosen], axis=0)
            pick = pool[np.argmax(gap)]
        else:
            pick = pool[np.argmin(np.hypot(*middle[pool].T))]
        aside = rng.uniform(40, 90) if at_kerb else rng.uniform(150, 350)
        normal = np.array([-along[pick, 1], along[pick, 0]]) * rng.choice([-1, 1])
        chosen.append(middle[pick] + along[pick] * rng.uniform(-150, 150) + normal * aside)
    xy = np.round(np.array(chosen), 1)
    names = [_SITES[i % len(_SITES)] for i in range(plan.stations)]
    serial = ["" if i < len(_SITES) else f" {i // len(_SITES) + 1}" for i in range(plan.stations)]
    return pd.DataFrame(
        {
            "x": xy[:, 0],
            "y": xy[:, 1],
            "name": [n + s for (n, _), s in zip(names, serial, strict=True)],
            "name_zh": [z + s for (_, z), s in zip(names, serial, strict=True)],
            "height_m": np.round(8 + 0.002 * np.hypot(xy[:, 0], xy[:, 1]) + rng.uniform(0, 10, len(xy)), 0),
        },
        index=pd.Index([f"A{i + 1:02d}" for i in range(plan.stations)], name="id"),
    )


def simulate_air(
    plan: Plan, weather: pd.DataFrame, stations: pd.DataFrame, ends: np.ndarray, emission: np.ndarray
) -> Air:
    """PM2.5 at ``stations`` for each hour of ``weather``.

    *Background*: haze that builds up over days while the air stagnates, is carried off by wind, and is washed
    out by rain at 0.03 per mm (the order of below-cloud scavenging of fine particles, Seinfeld & Pandis, 3rd
    ed., ch. 20); it comes with the wind, more from inland in the north-west than from the sea. *Urban*: homes
    and works spread over the city, a box model C = Q·L/(u·H) with a daily course and a share per station.
    *Traffic*: ``emission`` (g/h, ``[hour, segment]``) × ``plan.traffic_scale`` through :mod:`dispersion`.
    """
    rng = np.random.default_rng([plan.seed, 7])
    hours, count = len(weather), len(stations)
    wind = weather["wind_speed"].to_numpy()
    mixing = weather["mixing_height"].to_numpy()
    from_inland = 0.5 + 0.5 * np.cos(np.deg2rad(weather["wind_direction"].to_numpy() - 300))
    source = 6 + 46 * weather["stagnation"].to_numpy() ** 1.5 + 14 * from_inland
    level, haze = float(source[0]), np.empty(hours)
    for t in range(hours):
        level += (source[t] - level) * min(1.0, (0.5 + wind[t] / 3) / 22)
        level *= np.exp(-0.03 * weather["precipitation"].iloc[t])
        haze[t] = level
    haze = haze * np.exp(autoregression(rng, hours, 8, 0.10))
    regional = np.stack([haze * np.exp(autoregression(rng, hours, 5, 0.05)) for _ in range(count)], axis=1)

    hour = np.arange(1, hours + 1) % 24
    homes = 0.7 + 0.5 * np.exp(-(((hour - 19.5) / 2.5) ** 2)) + 0.3 * np.exp(-(((hour - 7) / 2) ** 2))
    box = URBAN_EMISSION * homes / 3600 * URBAN_LENGTH / (np.maximum(wind, CALM) * mixing)
    near = np.exp(-np.hypot(*stations[["x", "y"]].to_numpy().T) / 6000) * rng.uniform(0.7, 1.3, count)
    traffic = concentrations(
        plan.traffic_scale * emission, stations[["x", "y"]].to_numpy(), ends, wind,
        weather["wind_direction"].to_numpy(), mixing,
    )  # fmt: skip
    return Air(regional, box[:, None] * near, traffic)
