"""Air quality indices of PM2.5. Concentrations in µg/m³, any shape; NaN stays NaN."""

from __future__ import annotations

import numpy as np

from citybrain_serving.indices.standards import HJ_633_2012, HJ_633_2026, Standard

IAQI = (0, 50, 100, 150, 200, 300, 400, 500)
CHINESE: dict[Standard, tuple[int, ...]] = {
    HJ_633_2012: (0, 35, 75, 115, 150, 250, 350, 500),
    HJ_633_2026: (0, 35, 60, 115, 150, 250, 350, 500),
}
"""PM2.5 at each of :data:`IAQI`, daily means; forecasts by the hour apply them to hourly means."""

AMERICAN = (
    (0.0, 9.0, 0, 50),
    (9.1, 35.4, 51, 100),
    (35.5, 55.4, 101, 150),
    (55.5, 125.4, 151, 200),
    (125.5, 225.4, 201, 300),
    (225.5, 325.4, 301, 500),
)
"""Lowest and highest concentration and index of each category of the US rule of May 2024."""

LEVELS = (50, 100, 150, 200, 300)
"""Highest index of the first five of six levels, the same in China and the United States."""


def aqi_cn(pm25: np.ndarray, standard: Standard = HJ_633_2026) -> np.ndarray:
    """Index by HJ 633, float64 with whole values: the concentration rounded to an integer (half to even, GB/T 8170),
    the index always rounded up, 500 at most.

    Computed in integers, since rounding up turns the smallest error of a float into a wrong index.
    """
    known = np.isfinite(pm25)
    points = np.asarray(CHINESE[standard])
    whole = np.rint(np.where(known, pm25, 0)).astype(np.int64).clip(0, points[-1])
    band = np.searchsorted(points[1:-1], whole, side="left")
    low, high = points[band], points[band + 1]
    below, above = np.asarray(IAQI)[band], np.asarray(IAQI)[band + 1]
    index = below - (-(above - below) * (whole - low)) // (high - low)
    return np.where(known, index, np.nan)


def aqi_us(pm25: np.ndarray) -> np.ndarray:
    """Index by the US rule, float64 with whole values: the concentration cut to 0.1, the index rounded to the nearest
    integer, 500 at most. The rule is for 24 h means and for NowCast."""
    known = np.isfinite(pm25)
    # A hair is added before cutting: 9.1 as a float is 9.0999….
    tenths = np.floor(np.where(known, pm25, 0).astype(np.float64) * 10 + 1e-4).clip(0, 3254) / 10
    table = np.asarray(AMERICAN)
    band = np.searchsorted(np.rint(table[:-1, 1] * 10), np.rint(tenths * 10), side="left")
    low, high, below, above = table[band].T
    exact = ((above - below) * (tenths.T - low) / (high - low) + below).T
    return np.where(known, np.floor(exact + 0.5), np.nan)


def nowcast(hours: np.ndarray) -> np.ndarray:
    """NowCast of PM2.5 from the last hours, ``hours [hour, node]`` oldest first; of more than 12 the last 12 count.

    Weighted by ``w^age`` with ``w = max(0.5, min/max)``; NaN unless two of the last three hours were measured
    (US EPA, Technical Assistance Document for the Reporting of Daily Air Quality).
    """
    recent = hours[-12:][::-1].astype(np.float64)
    known = np.isfinite(recent)
    enough = known[:3].sum(axis=0) >= 2
    high = np.where(known, recent, -np.inf).max(axis=0, initial=-np.inf)
    low = np.where(known, recent, np.inf).min(axis=0, initial=np.inf)
    ratio = np.where(enough & (high > 0), low / np.where(high > 0, high, 1), 1)
    weight = np.maximum(0.5, ratio) ** np.arange(len(recent))[:, None] * known
    total = (weight * np.where(known, recent, 0)).sum(axis=0)
    return np.where(enough, total / np.where(enough, weight.sum(axis=0), 1), np.nan)


def level(index: np.ndarray) -> np.ndarray:
    """Level 1 (best) to 6 of an index, int; 0 where it is NaN."""
    return np.where(np.isfinite(index), np.searchsorted(LEVELS, np.nan_to_num(index), side="left") + 1, 0)
