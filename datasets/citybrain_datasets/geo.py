"""Places on the globe: distances, bearings, nearest neighbours and grid cells.

Everything is vectorised numpy on WGS 84 degrees; a place that is not published is NaN and stays NaN.
"""

from __future__ import annotations

import h3
import numpy as np

EARTH_RADIUS_M = 6_371_008.8
"""Mean earth radius (IUGG, R₁), metres."""

CELL_RESOLUTION = 8
"""H3 resolution of the grid of 网格化管理: cells of about 0.7 km²."""


def great_circle_m(
    lat: np.ndarray | float, lon: np.ndarray | float, to_lat: np.ndarray | float, to_lon: np.ndarray | float
) -> np.ndarray:
    """Metres along the great circle (haversine formula); inputs broadcast."""
    a, b = np.deg2rad(lat), np.deg2rad(to_lat)
    half = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(np.deg2rad(np.subtract(to_lon, lon)) / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(half, 0, 1))))


def bearing_deg(
    lat: np.ndarray | float, lon: np.ndarray | float, to_lat: np.ndarray | float, to_lon: np.ndarray | float
) -> np.ndarray:
    """Initial bearing from the first place to the second, degrees clockwise from north, 0 ≤ b < 360."""
    a, b, turn = np.deg2rad(lat), np.deg2rad(to_lat), np.deg2rad(np.subtract(to_lon, lon))
    east = np.sin(turn) * np.cos(b)
    north = np.cos(a) * np.sin(b) - np.sin(a) * np.cos(b) * np.cos(turn)
    # The second modulo turns the 360.0 that rounding makes of a tiny negative angle back into 0.
    return np.asarray(np.rad2deg(np.arctan2(east, north)) % 360 % 360)


def nearest(
    lat: np.ndarray,
    lon: np.ndarray,
    to_lat: np.ndarray,
    to_lon: np.ndarray,
    k: int,
    *,
    skip_self: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest targets of each place.

    Returns index and metres, both ``[place, min(k, targets)]``, nearest first; index −1 and NaN where there
    are fewer. ``skip_self`` leaves out target ``i`` for place ``i``, for neighbours inside one table. Places
    without coordinates have no neighbours and are nobody's. Which of two is nearer is decided to about 0.2 m.
    """
    known = np.flatnonzero(np.isfinite(to_lat) & np.isfinite(to_lon))
    k = min(k, len(to_lat))
    index = np.full((len(lat), k), -1)
    metres = np.full((len(lat), k), np.nan)
    keep = min(k + skip_self, len(known))
    if keep == 0:
        return index, metres
    targets = _unit(np.asarray(to_lat)[known], np.asarray(to_lon)[known])
    places = _unit(lat, lon)
    chunk = max(1, 4_000_000 // len(known))  # bounds memory to tens of MB, whatever the size of the city
    for first in range(0, len(lat), chunk):
        closeness = places[first : first + chunk] @ targets.T
        picked = known[np.argpartition(-closeness, keep - 1, axis=1)[:, :keep]]
        rows = np.arange(first, first + len(picked))[:, None]
        away = great_circle_m(np.asarray(lat)[rows], np.asarray(lon)[rows], to_lat[picked], to_lon[picked])
        if skip_self:
            away = np.where(picked == rows, np.inf, away)
        # Ties (two sensors on one pole) are broken by position, so that every machine builds the same graph.
        order = np.lexsort((picked, away), axis=1)[:, :k]
        picked, away = np.take_along_axis(picked, order, 1), np.take_along_axis(away, order, 1)
        found = np.isfinite(away)
        index[first : first + chunk, : order.shape[1]] = np.where(found, picked, -1)
        metres[first : first + chunk, : order.shape[1]] = np.where(found, away, np.nan)
    return index, metres


def cell(lat: float, lon: float) -> str:
    """H3 cell of a place, or an empty string where the place is unknown."""
    if not (np.isfinite(lat) and np.isfinite(lon)):
        return ""
    return str(h3.latlng_to_cell(lat, lon, CELL_RESOLUTION))


def _unit(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, ``[place, 3]``."""
    a, b = np.deg2rad(lat), np.deg2rad(lon)
    return np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=1)
