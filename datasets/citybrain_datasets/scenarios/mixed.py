"""Random scenarios of mixed measures for any city: what a surrogate learns from and is tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.scenarios.actions import STEP_MINUTES, Window
from citybrain_datasets.scenarios.geography import corridors
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.places import clock
from citybrain_datasets.scenarios.resolve import districts

_COUNTS = (0.45, 0.3, 0.15, 0.1)
"""Chance of one, two, three and four measures."""
_CIRCLE = np.linspace(0, 2 * np.pi, 12, endpoint=False)


def random_scenario(city: City, window: Window, seed: int, number: int, purposes: bool = True) -> Scenario:
    """Scenario ``number`` of ``seed``: one to four measures at random places, times and strengths.

    The same arguments give the same scenario; its id is ``mixed-NUMBER``. What the city does not know is not asked for:
    districts, street names and classes that are blank, and, without ``purposes``, why people travel.
    """
    rng = np.random.default_rng([seed, number])
    levers = list(_STRENGTH)
    measures = []
    for _ in range(int(rng.choice(4, p=_COUNTS)) + 1):
        lever = levers[int(rng.integers(len(levers)))]
        measure: dict[str, Any] = {"lever": lever, "where": _place(city, rng, lever), **_STRENGTH[lever](rng)}
        if not purposes:
            measure.pop("purposes", None)
        if lever != "signal_retiming" and rng.random() < 0.35:
            measure["when"] = _time(window, rng)
        measures.append(measure)
    return Scenario.model_validate({"id": f"mixed-{number:06d}", "measures": measures})


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 3)


def _pick(rng: np.random.Generator, *values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _demand(rng: np.random.Generator) -> dict[str, Any]:
    strength: dict[str, Any] = {
        "factor": _uniform(rng, 0.6, 1.25),
        "end": _pick(rng, "origin", "destination", "either"),
    }
    if rng.random() < 0.4:
        strength["purposes"] = [_pick(rng, "to_work", "errand", "freight", "through")]
    return strength


_STRENGTH: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "closure": lambda r: {},
    "lane_closure": lambda r: {},
    "speed_limit": lambda r: (
        {"kmh": float(_pick(r, 20, 30, 40, 50, 60))} if r.random() < 0.6 else {"factor": _uniform(r, 0.6, 1.25)}
    ),
    "demand": _demand,
    "odd_even": lambda r: {"compliance": _uniform(r, 0.5, 1), "exempt_electric": bool(r.random() < 0.5)},
    "heavy_ban": lambda r: {"vans": bool(r.random() < 0.3)},
    "low_emission_zone": lambda r: {"replaced": _uniform(r, 0.3, 1)},
    "charge_zone": lambda r: {"reduction": _uniform(r, 0.05, 0.4)},
    "electric_share": lambda r: {
        "share": _uniform(r, 0.2, 0.9),
        "types": _pick(r, ["car", "diesel_car"], ["van", "truck"]),
    },
    "signal_retiming": lambda r: {"reduction": _uniform(r, 0.05, 0.3)},
    "rerouting_advice": lambda r: {"share": _uniform(r, 0.75, 1)},
    "vehicles": lambda r: {"reduction": _uniform(r, 0.1, 0.6)},
}


def _place(city: City, rng: np.random.Generator, lever: str) -> dict[str, Any]:
    roads = city.nodes["road"]
    if lever in ("closure", "lane_closure"):
        # Nobody closes a district; a few segments, or a street from end to end.
        kind = _pick(rng, "segments", "segments", "segments", "corridor") if lever == "closure" else "few"
        if kind == "few":
            kind = _pick(rng, "segments", "corridor", "disc")
    elif lever == "charge_zone":
        kind = _pick(rng, "district", "disc")  # who pays on entering must come from somewhere else
    else:
        kind = _pick(rng, "segments", "corridor", "class", "district", "district", "disc", "disc", "city")
    kind = _known(kind, roads)
    if kind == "city":
        return {}
    if kind == "segments":
        chosen = rng.choice(roads.index.astype(str).to_numpy(), size=int(rng.integers(1, 4)), replace=False)
        return {"segments": sorted(map(str, chosen))}
    if kind == "corridor":
        member, names = corridors(city)
        return {"segments": [str(i) for i in roads.index[member == int(rng.integers(len(names)))]]}
    if kind == "class":
        return {"road_class": [str(_pick(rng, *sorted(set(roads["road_class"]))))]}
    if kind == "district":
        return {"district": [str(_pick(rng, *sorted(set(districts(roads)))))]}
    return {"polygon": _disc(roads["lat"].to_numpy(float), roads["lon"].to_numpy(float), rng)}


def _known(kind: str, roads: pd.DataFrame) -> str:
    """``kind`` of place, or another where the roads have no names, classes or districts to tell it by."""
    blank = {
        "corridor": lambda: not roads["name"].astype(bool).any(),
        "class": lambda: not roads["road_class"].astype(bool).any(),
        "district": lambda: set(districts(roads)) == {""},
    }
    instead = {"corridor": "segments", "class": "disc", "district": "disc"}
    return instead[kind] if kind in blank and blank[kind]() else kind


def _disc(lat: np.ndarray, lon: np.ndarray, rng: np.random.Generator) -> list[tuple[float, float]]:
    """A twelve-cornered polygon of 0.6–2.5 km around a road."""
    centre = int(rng.integers(len(lat)))
    reach = rng.uniform(600, 2500) / 111_000
    x = lon[centre] + reach * np.cos(_CIRCLE) / np.cos(np.radians(lat[centre]))
    y = lat[centre] + reach * np.sin(_CIRCLE)
    return [(round(float(a), 5), round(float(b), 5)) for a, b in zip(x, y, strict=True)]


def _time(window: Window, rng: np.random.Generator) -> dict[str, str]:
    """At least half an hour of the window."""
    first = int(rng.integers(0, window.steps - 1))
    last = int(rng.integers(first + 2, window.steps + 1))
    return {"begin": clock(window.begin + first * STEP_MINUTES), "end": clock(window.begin + last * STEP_MINUTES)}
