"""Published units to the one unit that each signal is stored in."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from citybrain_datasets.signals import KINDS

Linear = tuple[float, float]
"""stored = published * factor + offset."""

MOLAR_VOLUME_25C = 24.465
"""Litres per mole of an ideal gas at 25 °C and 1,013.25 hPa, the reference of the US EPA (40 CFR 50) and of
GB 3095; ``ppb`` is converted in it."""

_MOLAR_MASS = {"no2": 46.0055, "no": 30.0061, "nox": 46.0055, "o3": 47.9982, "so2": 64.064, "co": 28.010}

_MASS: dict[str, Linear] = {"µg/m³": (1, 0), "mg/m³": (1000, 0)}

UNITS: dict[str, dict[str, Linear]] = {
    "speed": {"km/h": (1, 0), "mph": (1.609344, 0), "m/s": (3.6, 0)},
    "flow": {"veh/h": (1, 0), "veh/s": (3600, 0), "veh/day": (1 / 24, 0)},
    "occupancy": {"1": (1, 0), "%": (0.01, 0)},
    "pm25": _MASS,
    "pm10": _MASS,
    **{
        gas: {**_MASS, "ppb": (m / MOLAR_VOLUME_25C, 0), "ppm": (1000 * m / MOLAR_VOLUME_25C, 0)}
        for gas, m in _MOLAR_MASS.items()
    },
    "co": {
        "mg/m³": (1, 0),
        "µg/m³": (0.001, 0),
        "ppm": (_MOLAR_MASS["co"] / MOLAR_VOLUME_25C, 0),
        "ppb": (_MOLAR_MASS["co"] / MOLAR_VOLUME_25C / 1000, 0),
    },
    **{name: {"°C": (1, 0), "K": (1, -273.15), "°F": (5 / 9, -160 / 9)} for name in ("temperature", "dew_point")},
    "pressure": {
        "hPa": (1, 0),
        "Pa": (0.01, 0),
        "kPa": (10, 0),
        "mmHg": (1.33322387415, 0),
        "inHg": (33.86389, 0),
    },
    "humidity": {"%": (1, 0), "1": (100, 0)},
    "wind_speed": {"m/s": (1, 0), "km/h": (1 / 3.6, 0), "mph": (0.44704, 0), "kn": (1852 / 3600, 0)},
    "wind_direction": {"°": (1, 0), "rad": (180 / np.pi, 0)},
    "precipitation": {"mm/h": (1, 0), "m/h": (1000, 0), "in/h": (25.4, 0)},
    "mixing_height": {"m": (1, 0), "km": (1000, 0), "ft": (0.3048, 0)},
}
"""Linear conversions by signal and published unit. Besides these: flow as ``veh/step`` or ``veh/15min``,
precipitation as ``mm/step``, ``m/step`` or ``in/step``, and wind direction as ``compass`` words."""

_ASCII = {"ug/m3": "µg/m³", "µg/m3": "µg/m³", "ug/m³": "µg/m³", "μg/m³": "µg/m³", "mg/m3": "mg/m³"}
_ASCII |= {"C": "°C", "degC": "°C", "F": "°F", "deg": "°", "kmh": "km/h", "kph": "km/h", "knots": "kn"}

_WORDS = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
COMPASS: dict[str, float] = {word: 22.5 * i for i, word in enumerate(_WORDS)}
"""The sixteen winds, degrees clockwise from north. Calm and variable winds (``cv``) have no direction."""

_CALM = {"", "CV", "CALM", "C", "VAR", "VRB"}


def spelling(unit: str) -> str:
    """The unit as it is written here: ``ug/m3`` is ``µg/m³``. One that has no other spelling stays as it is."""
    return _ASCII.get(unit, unit)


def conversion(signal: str, unit: str, step: pd.Timedelta) -> Linear | None:
    """How ``unit`` becomes the stored unit of ``signal``; ``None`` for compass words. ``ValueError`` if
    unknown."""
    unit = spelling(unit)
    if signal == "wind_direction" and unit == "compass":
        return None
    if unit in UNITS[signal]:
        return UNITS[signal][unit]
    hours = step / pd.Timedelta(hours=1)
    if signal == "flow" and (found := re.fullmatch(r"veh/(step|\d+ ?(?:s|min|h))", unit)):
        return 1 / (hours if found[1] == "step" else pd.Timedelta(found[1]) / pd.Timedelta(hours=1)), 0
    if signal == "precipitation" and unit.endswith("/step") and f"{unit[:-5]}/h" in UNITS[signal]:
        factor, _ = conversion(signal, f"{unit[:-5]}/h", step) or (1, 0)
        return factor / hours, 0
    known = ", ".join(UNITS[signal])
    more = {"flow": ", veh/step, veh/5min", "precipitation": ", mm/step", "wind_direction": ", compass"}
    raise ValueError(
        f"unknown unit {unit!r} for {signal} (stored in {KINDS[signal].unit}); known are {known}" + more.get(signal, "")
    )


def from_compass(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of compass ``words``, and where a word was none of them. Missing and calm are NaN."""
    series = pd.Series(words.reshape(-1), dtype="object")
    text = series.where(series.notna(), "").astype(str).str.strip().str.upper()
    degrees = text.map(COMPASS)
    unknown = degrees.isna() & ~text.isin(_CALM)
    return degrees.to_numpy(np.float64).reshape(words.shape), unknown.to_numpy().reshape(words.shape)
