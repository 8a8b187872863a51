"""What instruments make of the truth: noise, gaps, and a few that are broken."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

RESOLUTION = {"speed": 0.5, "flow": 12.0, "occupancy": 1 / 256, "pm25": 1.0}
"""Smallest step an instrument reports, in the unit of its signal; powers of two compress well."""


def observe_roads(
    truth: Mapping[str, np.ndarray], seed: int, seconds: int = 300
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Readings of road detectors, and the list of faults.

    ``truth`` holds ``speed``, ``flow`` and ``occupancy``, ``[step, segment]``. Speed is a mean over the
    vehicles that passed, so its noise falls with their number; counts miss 2 % of them. About 1 % of readings
    are lost singly, and each detector is down for some hours now and then. One detector is dead, one stuck,
    one reads speeds a fifth too low.
    """
    rng = np.random.default_rng([seed, 8])
    speed, flow, occupancy = (np.asarray(truth[n], float) for n in ("speed", "flow", "occupancy"))
    passed = np.maximum(flow * seconds / 3600, 1)
    counted = rng.binomial(np.round(flow * seconds / 3600).astype(int), 0.98) * 3600 / seconds
    values = {
        "speed": np.clip(
            speed * (1 + rng.normal(0, 1, speed.shape) * np.minimum(0.06 / np.sqrt(passed), 0.04)), 0, None
        ),
        "flow": counted,
        "occupancy": np.clip(occupancy * (1 + rng.normal(0, 0.05, occupancy.shape)), 0, 1),
    }
    dead, stuck, biased = rng.choice(speed.shape[1], 3, replace=False)
    values["speed"][:, biased] *= 0.8
    frozen = slice(len(speed) // 5, len(speed) // 5 + min(len(speed) // 7, 4 * 288))
    for name in values:
        block = values[name][frozen, stuck]
        seen = block[np.isfinite(block)]
        values[name][frozen, stuck] = seen[0] if len(seen) else np.nan
    lost = rng.random(speed.shape) < 0.01
    outages = _outages(rng, speed.shape, per_thousand=0.25, longest=72)
    lost |= outages
    lost[len(speed) // 3 :, dead] = True
    for name in values:
        values[name][lost] = np.nan
    faults = pd.DataFrame(
        {
            "node": "road",
            "column": [dead, stuck, biased],
            "fault": ["dead from a third of the time on", "stuck for up to four days", "speed 20 % too low"],
        }
    )
    return {name: quantise(name, v) for name, v in values.items()}, faults


def observe_air(truth: np.ndarray, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Readings of the stations, ``[hour, station]`` in µg/m³, and the list of faults.

    5 % noise and 1.5 µg/m³, single gaps of 1 % and outages of up to a day; the last station drifts upwards by
    30 % over the whole time.
    """
    rng = np.random.default_rng([seed, 9])
    read = truth * (1 + rng.normal(0, 0.05, truth.shape)) + rng.normal(0, 1.5, truth.shape)
    read[:, -1] *= np.linspace(1, 1.3, len(read))
    lost = (rng.random(truth.shape) < 0.01) | _outages(rng, truth.shape, per_thousand=1.5, longest=24)
    read[lost] = np.nan
    faults = pd.DataFrame({"node": "air", "column": [truth.shape[1] - 1], "fault": ["drifts to 30 % too high"]})
    return quantise("pm25", np.clip(read, 0, None)), faults


def quantise(signal: str, values: np.ndarray) -> np.ndarray:
    """``values`` at the resolution of the instrument, float32."""
    unit = RESOLUTION[signal]
    return np.asarray(np.round(np.asarray(values, float) / unit) * unit, np.float32)


def _outages(rng: np.random.Generator, shape: tuple[int, ...], per_thousand: float, longest: int) -> np.ndarray:
    lost = np.zeros(shape, bool)
    for start, place in zip(*np.nonzero(rng.random(shape) < per_thousand / 1000), strict=True):
        lost[start : start + int(rng.integers(2, longest + 1)), place] = True
    return lost
