"""How unsure the surrogate is of an outcome, in a unit that means the same in another city."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_models.surrogate.network import Base

AIR = ("pm25_stations", "pm25_people", "exceedance_h", "worst_district_pm25")
"""Outcomes of the air."""
EMITTED = ("emission_kg", *AIR)
"""Outcomes that follow from what traffic emits; the others follow from how many vehicles stand on the roads."""


def widths(width: np.ndarray) -> dict[str, np.ndarray]:
    """Of each outcome ``[scenario]``: the root of the summed squares of the surrogate's own widths
    ``[scenario, segment, slot, 2]``, of emission for what is emitted and breathed, else of vehicles."""
    vehicles, emission = np.sqrt(np.square(width).sum(axis=(1, 2), dtype=float)).T
    return {name: emission if name in EMITTED else vehicles for name in OUTCOMES}


def units(base: Base, usual: Mapping[str, np.ndarray], carless: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What one unit of width is worth in each outcome, up to a factor that calibration finds.

    ``usual`` are the outcomes of the base, each of one element, and ``carless`` those of the air if traffic emitted
    nothing. What adds up over vehicles is left as it is; an index is a mean over all of them, distance is what a
    vehicle drives, and PM2.5 is what a gram emitted here comes to there: so a margin that was found in one city, or
    in usual weather, holds its meaning in others.
    """
    standing, emitted = (max(float(a.sum(dtype=float)), 1e-9) for a in (base.vehicles, base.emission))
    breathed = {name: float(usual[name][0] - carless[name][0]) / emitted for name in AIR}
    return {
        "delay_veh_h": 1.0,
        "tpi": 1 / standing,
        "worst_corridor_tpi": 1 / standing,
        "travelled_veh_km": float(usual["travelled_veh_km"][0]) / standing,
        "emission_kg": 1.0,
        **breathed,
        "exceedance_h": breathed["pm25_stations"],  # hours are counted by a threshold on it
    }
