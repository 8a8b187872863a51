"""From emission on road segments to concentration at receptors: a steady-state Gaussian line-source model.

A segment is a row of ``ELEMENTS`` finite line sources, as in CALINE3 (Benson 1979, FHWA/CA/TL-79/23). Each
has the downwind distance x of its middle, is integrated exactly across the wind, and is reflected at the
ground and at the lid of the mixed layer:

    C = q/u · [Φ(y₂/σy) − Φ(y₁/σy)] / (y₂ − y₁) · Σₙ Σ± exp(−(z ± h + 2nH)² / 2σz²) / (√2π σz)

with q the element's emission, u the wind speed, y₁ and y₂ the crosswind distances of its ends, Φ the normal
distribution, h the height of release and H the mixing height. σy(x) and σz(x) are the urban curves of
Briggs (1973, ATDL contribution 79; also in Vallero, *Fundamentals of Air Pollution*, table 19-6), fitted
for 100 m to 10 km and used below that as well; a plume starts with the size of the turbulent zone above the
carriageway. Where σz exceeds 2H the vertical term is 1/H, the well-mixed box. Lighter winds count as
``CALM``, because a plume has no meaning without wind. Concentrations are linear in emissions: the model is
one matrix per weather.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

CALM = 1.0
"""Lowest wind speed the model uses, m/s."""
RELEASE_HEIGHT = 0.5
"""Height of exhaust pipes and tyres, metres."""
BREATHING_HEIGHT = 1.5
INITIAL_SPREAD_Y = 3.5
INITIAL_SPREAD_Z = 1.5
"""Spread over the carriageway through the turbulence of the vehicles themselves, metres."""
ELEMENTS = 24
REFLECTIONS = 4
_G_PER_H_TO_UG_PER_S = 1e6 / 3600

# Stability from the depth of the mixed layer: deep is a convective afternoon, and only a very shallow night is
# stable, because a city stays warm and rough. Our thresholds.
# Columns: σy = a·x / √(1 + 0.0004x); σz = b·x·(1 + c·x)^d.
_BRIGGS_URBAN = {
    "E-F": (0.11, 0.08, 0.0015, -0.5),
    "D": (0.16, 0.14, 0.0003, -0.5),
    "C": (0.22, 0.20, 0.0, 1.0),
    "A-B": (0.32, 0.24, 0.001, 0.5),
}


def stability(mixing_height: float) -> str:
    """Pasquill class of the Briggs curves for a mixing height in metres."""
    return next((name for name, top in (("E-F", 160), ("D", 700), ("C", 1300)) if mixing_height < top), "A-B")


def spread(downwind: np.ndarray, mixing_height: float) -> tuple[np.ndarray, np.ndarray]:
    """σy and σz in metres at ``downwind`` metres, initial spread included."""
    a, b, c, d = _BRIGGS_URBAN[stability(mixing_height)]
    x = np.maximum(downwind, 0.0)
    return np.hypot(INITIAL_SPREAD_Y, a * x / np.sqrt(1 + 0.0004 * x)), np.hypot(
        INITIAL_SPREAD_Z, b * x * (1 + c * x) ** d
    )


def vertical(
    sigma_z: np.ndarray,
    mixing_height: float,
    height: float | np.ndarray = BREATHING_HEIGHT,
    release: float = RELEASE_HEIGHT,
) -> np.ndarray:
    """Vertical factor of the plume, 1/m. Its integral over 0 … ``mixing_height`` is 1: nothing is lost."""
    total = np.zeros_like(sigma_z)
    for n in range(-REFLECTIONS, REFLECTIONS + 1):
        for sign in (-1, 1):
            total += np.exp(-0.5 * ((height + sign * release + 2 * n * mixing_height) / sigma_z) ** 2)
    return np.where(sigma_z > 2 * mixing_height, 1 / mixing_height, total / (np.sqrt(2 * np.pi) * sigma_z))


def source_receptor(
    receptors: np.ndarray,
    ends: np.ndarray,
    wind_speed: float,
    wind_direction: float,
    mixing_height: float,
    height: float = BREATHING_HEIGHT,
) -> np.ndarray:
    """What one g/h on each segment adds at each receptor: µg/m³ per (g/h), ``[receptor, segment]``.

    ``receptors`` ``[receptor, 2]`` and ``ends`` ``[segment, 4]`` (x0, y0, x1, y1) are metres east and north;
    ``wind_speed`` m/s, ``wind_direction`` degrees the wind blows *from*, ``mixing_height`` m. Emission is
    even along a segment.
    """
    if not (np.isfinite([wind_speed, wind_direction]).all() and mixing_height > 0):
        raise ValueError("dispersion needs a wind speed, a wind direction and a positive mixing height")
    bounds = np.linspace(0, 1, ELEMENTS + 1)
    east = receptors[:, 0, None, None] - (ends[:, 0, None] + bounds * (ends[:, 2] - ends[:, 0])[:, None])
    north = receptors[:, 1, None, None] - (ends[:, 1, None] + bounds * (ends[:, 3] - ends[:, 1])[:, None])
    towards = np.deg2rad(wind_direction + 180)
    downwind = east * np.sin(towards) + north * np.cos(towards)
    crosswind = east * np.cos(towards) - north * np.sin(towards)
    x = (downwind[..., 1:] + downwind[..., :-1]) / 2
    sigma_y, sigma_z = spread(x, mixing_height)
    first, last = crosswind[..., :-1] / sigma_y, crosswind[..., 1:] / sigma_y
    width = last - first
    # An element along the wind has no width: there the mean of the bell curve is its value in the middle.
    narrow = np.abs(width) < 1e-3
    middle = np.exp(-0.125 * (first + last) ** 2) / np.sqrt(2 * np.pi)
    bell = np.where(narrow, middle, (ndtr(last) - ndtr(first)) / np.where(narrow, 1, width))
    plume = np.where(x > 0, bell / sigma_y * vertical(sigma_z, mixing_height, height), 0.0)
    return _G_PER_H_TO_UG_PER_S / max(wind_speed, CALM) * plume.mean(axis=2)


def concentrations(
    emission: np.ndarray,
    receptors: np.ndarray,
    ends: np.ndarray,
    wind_speed: np.ndarray,
    wind_direction: np.ndarray,
    mixing_height: np.ndarray,
) -> np.ndarray:
    """µg/m³ ``[hour, receptor]`` of ``emission`` in g/h ``[hour, segment]``; each hour in steady state."""
    result = np.empty((len(emission), len(receptors)))
    for hour, q in enumerate(emission):
        weather = float(wind_speed[hour]), float(wind_direction[hour]), float(mixing_height[hour])
        result[hour] = source_receptor(receptors, ends, *weather) @ q
    return result
