"""Metres around a city's centre ↔ degrees: a plane good to a few centimetres per kilometre at city size."""

from __future__ import annotations

import numpy as np

from citybrain_datasets.geo import EARTH_RADIUS_M


def to_degrees(x: np.ndarray, y: np.ndarray, latitude: float, longitude: float) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of points ``x`` metres east and ``y`` metres north of the centre."""
    scale = np.degrees(1 / EARTH_RADIUS_M)
    return latitude + np.asarray(y) * scale, longitude + np.asarray(x) * scale / np.cos(np.radians(latitude))


def to_metres(lat: np.ndarray, lon: np.ndarray, latitude: float, longitude: float) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of :func:`to_degrees`: metres east and north of the centre."""
    scale = np.radians(1) * EARTH_RADIUS_M
    return (np.asarray(lon) - longitude) * scale * np.cos(np.radians(latitude)), (np.asarray(lat) - latitude) * scale
