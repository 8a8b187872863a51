"""Congestion indices from speeds, km/h, and free-flow speeds of the same segments. NaN stays NaN."""

from __future__ import annotations

import numpy as np

SLOWEST = 1.0
"""Speed, km/h, below which a travel time is not told apart: a standing queue has none."""

DELAY = (0.0, 0.3, 0.5, 0.6, 0.7, 1.0)
PERFORMANCE = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
"""GB/T 33171-2016, Annex C: share of delay at the edges of the bands, and the index there."""

SERVICE = (0.80, 0.67, 0.50, 0.40, 0.30)
"""HCM 6, urban streets: share of the base free-flow speed above which the level of service is A, B, C, D, E."""


def performance(speed: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Traffic performance index 0–10 of GB/T 33171-2016: the share of delay d = 1 − v/v_f, linear in each band."""
    delay = np.clip(1 - speed / free, 0, 1)
    return np.where(np.isfinite(delay), np.interp(np.nan_to_num(delay), DELAY, PERFORMANCE), np.nan)


def performance_level(index: np.ndarray) -> np.ndarray:
    """Level 1 (free) to 5 (severely congested) of a performance index, int; 0 where it is NaN."""
    return np.where(np.isfinite(index), np.searchsorted(PERFORMANCE[1:-1], np.nan_to_num(index), side="right") + 1, 0)


def speed_at(index: float, free: np.ndarray) -> np.ndarray:
    """The speed at which :func:`performance` is ``index``."""
    return (1 - np.interp(index, PERFORMANCE, DELAY)) * free


def travel_time_index(speed: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Travel time over that at free flow, T/T₀ = v_f/v, at least 1."""
    return np.maximum(free / np.maximum(speed, SLOWEST), 1)


def service_level(speed: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Level of service 1 (A) to 6 (F), int; 0 where unknown."""
    share = speed / free
    grade = 6 - np.searchsorted(SERVICE[::-1], np.nan_to_num(share), side="left")
    return np.where(np.isfinite(share), grade, 0)


def network_performance(index: np.ndarray, weight: np.ndarray) -> float:
    """Mean of segments' performance indices weighted by vehicle-kilometres (or, without flows, by length)."""
    known = np.isfinite(index) & np.isfinite(weight)
    total = weight[known].sum()
    return float((index[known] * weight[known]).sum() / total) if total > 0 else float("nan")
