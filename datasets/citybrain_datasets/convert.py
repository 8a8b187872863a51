"""Raw values to stored ones: numbers, missing marks, units and the range of what can be measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from citybrain_datasets.configuration import SignalSource, UnitBy
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.readers.files import numbers
from citybrain_datasets.signals import KINDS
from citybrain_datasets.units import conversion, from_compass


def stored(
    raw: np.ndarray,
    name: str,
    source: SignalSource,
    unit: str,
    step: pd.Timedelta,
    where: str,
    first_row: int = 0,
) -> np.ndarray:
    """Raw values of any shape in the stored unit, float32; errors name the row of the first wrong value."""
    linear = _linear(name, unit, step, where)
    if linear is None:
        values, unknown = from_compass(raw)
        if unknown.any():
            _fail(where, name, unknown, f"{raw[unknown].flat[0]!r} is no compass word", first_row)
    else:
        values = _measured(raw, where, name, source)
        if source.zero_is_missing:
            values[values == 0] = np.nan
        values = values * linear[0] + linear[1]
    return within_range(values, name, source, where, first_row)


def wind(raw: Sequence[np.ndarray], name: str, source: SignalSource, where: str) -> np.ndarray:
    """Speed, or the direction the wind blows from, float32, of the raw eastward and northward components in m/s.

    Missing where one of both is; where zeros are, where both are zero.
    """
    east, north = (_measured(part, where, name, source) for part in raw)
    if source.zero_is_missing:
        east[(east == 0) & (north == 0)] = np.nan
    values = np.hypot(east, north) if name == "wind_speed" else np.rad2deg(np.arctan2(-east, -north)) % 360
    return within_range(values, name, source, where)


def within_range(values: np.ndarray, name: str, source: SignalSource, where: str, first_row: int = 0) -> np.ndarray:
    """float32 values; those that cannot be measurements are an error, or missing if the YAML says so."""
    kind = KINDS[name]
    outside = (values < kind.low) | (values > kind.high)
    if outside.any():
        if source.out_of_range == "error":
            what = (
                f"{values[outside].flat[0]:g} {kind.unit} is outside {kind.low:g}–{kind.high:g}, as are "
                f"{outside.sum() - 1} more: is the unit right? out_of_range: missing leaves such values out"
            )
            _fail(where, name, outside, what, first_row)
        values = np.where(outside, np.nan, values)
    return np.asarray(values, dtype=np.float32)


def units_by_row(unit: UnitBy, labels: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """For a unit that another column decides: which rows are in which unit. Empty labels belong to none."""
    series = pd.Series(labels)
    text = series.astype(str).where(series.notna(), "")
    unknown = set(text[text != ""]) - set(unit.units)
    if unknown:
        raise CityError([Problem(where, f"no unit is stated for {', '.join(sorted(unknown))}", column=unit.column)])
    return {label: (text == label).to_numpy() for label in unit.units}


def _linear(name: str, unit: str, step: pd.Timedelta, where: str) -> tuple[float, float] | None:
    try:
        return conversion(name, unit, step)
    except ValueError as error:
        raise CityError([Problem(f"{where}, signals.{name}.unit", str(error))]) from error


def _measured(raw: np.ndarray, where: str, name: str, source: SignalSource) -> np.ndarray:
    """float64, NaN at the marks of what is missing."""
    values = _numbers(raw, where, name)
    values[np.isin(values, source.missing)] = np.nan
    return values


def _numbers(raw: np.ndarray, where: str, name: str) -> np.ndarray:
    if raw.dtype.kind in "fiub":
        return np.array(raw, dtype=np.float64)
    return np.array(numbers(raw.reshape(-1), where, name)).reshape(raw.shape)


def _fail(where: str, name: str, wrong: np.ndarray, what: str, first_row: int) -> None:
    place = np.argwhere(wrong)[0]
    column = name if len(place) == 1 else f"{name} (column {place[1] + 1})"
    raise CityError([Problem(where, what, str(first_row + place[0] + 1), column)])
