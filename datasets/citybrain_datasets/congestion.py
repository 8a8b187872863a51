"""GB/T 33171-2016, Annex C: how congested a road is, from its speed and its free-flow speed. NaN stays NaN."""

from __future__ import annotations

import numpy as np

SLOWEST = 1.0
"""km/h below which a travel time is not told apart: a standing queue has none."""

DELAY = (0.0, 0.3, 0.5, 0.6, 0.7, 1.0)
PERFORMANCE = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
"""Share of delay d = 1 − v/v_f at the edges of the bands, and the index there."""


def performance(speed: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Traffic performance index 0–10 of speeds, km/h, on segments of these free-flow speeds; linear in each band."""
    return np.interp(np.clip(1 - speed / free, 0, 1), DELAY, PERFORMANCE)


def speed_at(index: float, free: np.ndarray) -> np.ndarray:
    """The speed, km/h, at which :func:`performance` is ``index``."""
    return (1 - np.interp(index, PERFORMANCE, DELAY)) * free
