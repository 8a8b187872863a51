"""Fine particles that traffic emits: SUMO's exhaust, and what tyres and brakes wear off."""

from __future__ import annotations

import numpy as np

TYRE = 10.7e-3 * 0.42
BRAKE = 7.5e-3 * 0.39
"""PM2.5 of a passenger car, g/km: all suspended particles × the PM2.5 share (EMEP/EEA, 1.A.3.b.vi–vii)."""

HEAVY = 3.0
FREIGHT_SHARE = 0.09
"""Our round figures: freight wears off three times a car and drives every eleventh kilometre."""


def wear(speed_kmh: np.ndarray, travelled: np.ndarray) -> np.ndarray:
    """PM2.5 of tyre and brake wear, g/h.

    ``speed_kmh`` is the mean speed and ``travelled`` the veh·km of an hour, any shape. Speed factors as in
    the EMEP/EEA guidebook: both fall as speed rises; below 40 km/h they are constant. NaN speed means no
    traffic.
    """
    v = np.nan_to_num(np.asarray(speed_kmh, float))
    tyre = np.where(v < 40, 1.39, np.where(v > 90, 0.902, 1.78 - 0.00974 * v))
    brake = np.where(v < 40, 1.67, np.where(v > 95, 0.185, 2.75 - 0.027 * v))
    fleet = 1 + FREIGHT_SHARE * (HEAVY - 1)
    return (TYRE * tyre + BRAKE * brake) * fleet * np.asarray(travelled, float)


def traffic_pm25(speed_kmh: np.ndarray, exhaust: np.ndarray, travelled: np.ndarray) -> np.ndarray:
    """PM2.5 of traffic in g/h ``[hour, segment]`` from five-minute speeds ``[12 · hour, segment]``.

    Exhaust particles are all finer than 2.5 µm, so SUMO's PM counts whole. ``exhaust`` g/h, ``travelled``
    veh·km/h.
    """
    per_hour = len(speed_kmh) // len(travelled)
    blocks = speed_kmh.reshape(len(travelled), per_hour, -1)
    seen = np.isfinite(blocks)
    mean = np.where(seen, blocks, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return exhaust + wear(mean, travelled)
