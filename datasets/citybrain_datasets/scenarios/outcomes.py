"""What a scenario comes to: a few numbers from the traffic of each segment and the air at each receptor.

Simulator and surrogate hand in the same arrays and so are judged by the same sums. Leading axes (replications, a
batch of scenarios) are carried through: ``...`` below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from citybrain_datasets.congestion import SLOWEST, performance

EXCEEDANCE = 60.0
"""µg/m³: GB 3095-2026, class 2, 24 h; also IAQI 100 of HJ 633-2026, which hourly values are held against."""

Grade = Literal["simulated", "surrogate", "literature"]
"""Where a change comes from: SUMO ran it; a network trained on SUMO guessed it; nothing but the air changed, by shares
and factors out of the literature or assumed."""


@dataclass(frozen=True)
class Outcome:
    """One number of a scenario; the smaller the better, except where ``better`` is 0, which says neither."""

    name: str
    unit: str
    title: str
    better: Literal[-1, 0] = -1
    highest: float = math.inf


OUTCOMES = {
    o.name: o
    for o in (
        Outcome("delay_veh_h", "veh·h", "time lost against free flow, over all vehicles and the window"),
        Outcome(
            "tpi", "0–10", "traffic performance index (GB/T 33171-2016), weighted by vehicle-kilometres", highest=10
        ),
        Outcome("worst_corridor_tpi", "0–10", "traffic performance index of the worst corridor", -1, 10),
        Outcome("travelled_veh_km", "veh·km", "distance driven", 0),
        Outcome("emission_kg", "kg", "PM2.5 that traffic emits: exhaust, tyres and brakes"),
        Outcome("pm25_stations", "µg/m³", "PM2.5, mean over stations and hours"),
        Outcome("pm25_people", "µg/m³", "PM2.5, mean over people and hours"),
        Outcome("exceedance_h", "h", "hours above 60 µg/m³, summed over stations and days of the weather"),
        Outcome("worst_district_pm25", "µg/m³", "PM2.5 that people breathe in the worst-off district"),
    )
}
"""In a table each has four columns: ``NAME`` (the scenario), ``NAME_change`` (less the base), and the bounds of the
change ``NAME_change_low`` and ``NAME_change_high`` (90 %)."""


@dataclass(frozen=True)
class Traffic:
    """Traffic of a window, float32 ``[..., slot, segment]``.

    ``speed`` km/h, distance driven over time spent, free-flow speed where nobody drove; ``flow`` veh/h, distance
    driven over the segment's length, so that flow × length / speed is exactly the time spent; ``emission`` PM2.5 g/h.
    """

    speed: np.ndarray
    flow: np.ndarray
    emission: np.ndarray


@dataclass(frozen=True)
class Place:
    """What the sums need to know of a city. Arrays are ``[segment]`` or, for people, ``[cell]``.

    ``corridor`` and ``district`` are positions in ``corridors`` and ``districts``; ``population`` counts people, and
    need only be right in proportion. ``slot_seconds`` is the length of one slot of :class:`Traffic`.
    """

    segments: tuple[str, ...]
    length_m: np.ndarray
    free_speed_kmh: np.ndarray
    corridor: np.ndarray
    corridors: tuple[str, ...]
    stations: tuple[str, ...]
    cells: tuple[str, ...]
    population: np.ndarray
    district: np.ndarray
    districts: tuple[str, ...]
    slot_seconds: int = 900

    @cached_property
    def members(self) -> np.ndarray:
        """1 where a segment belongs to a corridor, ``[segment, corridor]``."""
        return (self.corridor[:, None] == np.arange(len(self.corridors))).astype(float)


def traffic_outcomes(traffic: Traffic, place: Place) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Outcomes of the road, each ``[...]``, and the position of the worst corridor, int ``[...]``.

    A corridor's index is weighted by vehicle-kilometres like the city's; one where nobody drove has index 0.
    """
    hours = place.slot_seconds / 3600
    # In the precision of the traffic, and summed in double: there may be many scenarios.
    free, length = (a.astype(traffic.speed.dtype) for a in (place.free_speed_kmh, place.length_m))
    driven = traffic.flow * (length / 1000 * hours).astype(length.dtype)
    lost = driven * np.maximum(1 / np.maximum(traffic.speed, SLOWEST) - 1 / free, 0)
    weighed = (performance(traffic.speed, free) * driven).sum(axis=-2, dtype=float)
    by_segment = driven.sum(axis=-2, dtype=float)
    corridor = _ratio(weighed @ place.members, by_segment @ place.members)
    outcomes = {
        "delay_veh_h": lost.sum(axis=(-2, -1), dtype=float),
        "tpi": _ratio(weighed.sum(axis=-1), by_segment.sum(axis=-1)),
        "worst_corridor_tpi": corridor.max(axis=-1),
        "travelled_veh_km": by_segment.sum(axis=-1),
        "emission_kg": traffic.emission.sum(axis=(-2, -1), dtype=float) * hours / 1000,
    }
    return outcomes, corridor.argmax(axis=-1)


def air_outcomes(pm25: np.ndarray, place: Place) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Outcomes of the air from ``pm25`` µg/m³ ``[..., hour, station then cell]``, each ``[...]``, and the position of
    the worst-off district, int ``[...]``."""
    stations, cells = np.split(np.asarray(pm25, float), [len(place.stations)], axis=-1)
    breathed = cells.mean(axis=-2) * place.population
    member = place.district[:, None] == np.arange(len(place.districts))
    district = _ratio(breathed @ member, place.population @ member)
    nowhere = np.full(stations.shape[:-2], np.nan)
    outcomes = {
        "pm25_stations": stations.mean(axis=(-2, -1)) if place.stations else nowhere,
        "pm25_people": breathed.sum(axis=-1) / place.population.sum(),
        "exceedance_h": (stations > EXCEEDANCE).sum(axis=(-2, -1)).astype(float) if place.stations else nowhere,
        "worst_district_pm25": district.max(axis=-1),
    }
    return outcomes, district.argmax(axis=-1)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, 0 where there is nothing to divide by."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0)
