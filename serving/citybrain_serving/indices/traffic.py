"""Congestion indices from speeds, km/h, and free-flow speeds of the same segments. NaN stays NaN."""

from __future__ import annotations

import numpy as np

from citybrain_datasets.congestion import PERFORMANCE, SLOWEST, performance, speed_at

__all__ = [
    "SLOWEST",
    "network_performance",
    "performance",
    "performance_level",
    "service_level",
    "speed_at",
    "travel_time_index",
]

SERVICE = (0.80, 0.67, 0.50, 0.40, 0.30)
"""HCM 6, urban streets: share of the base free-flow speed above which the level of service is A, B, C, D, E."""


def performance_level(index: np.ndarray) -> np.ndarray:
    """Level 1 (free) to 5 (severely congested) of a performance index, int; 0 where it is NaN."""
    return np.where(np.isfinite(index), np.searchsorted(PERFORMANCE[1:-1], np.nan_to_num(index), side="right") + 1, 0)


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
