"""Business as usual: what would have been measured, by a model of weather and calendar learned before the measure.

The weather of the time itself is known to the model, its causes are not touched by the measure, and nothing that the
measure may have changed (traffic, other pollutants) is among its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.signals import NodeType

WEATHER = ("temperature", "humidity", "pressure", "precipitation", "wind_speed", "wind_direction", "mixing_height")
BLOCK_DAYS = 28
"""Blocks that are left out together, so that what is predicted is never between two hours that were learned."""


@dataclass(frozen=True)
class Counterfactual:
    """Hourly ``measured`` and ``expected`` after the date, and ``residual`` measured − expected before it, each
    predicted by a model that had not seen its block; all in the unit of the signal, indexed by UTC time."""

    measured: pd.Series
    expected: pd.Series
    residual: pd.Series
    before: pd.Series
    """Measured before the date."""


def inputs(city: City, node: str, kind: NodeType) -> pd.DataFrame:
    """Hourly inputs at ``node``, indexed by the UTC end of the hour.

    Weather of the hour and its means over the last 6 and 24 hours; wind as a vector to where it comes from, its
    directions averaged as vectors too, since 350° and 10° are north together; hour, weekday and day off in local
    time; and the season as the cosine of the day of the year, which is the same in December as in early January, so
    that a record of eleven months holds the twelfth.
    """
    columns: dict[str, pd.Series] = {}
    for name in WEATHER:
        signal = city.signals.get(name)
        if signal is None:
            continue
        column = _column(city, node, signal.node) if signal.node in (kind, "city", "air") else None
        if column is not None:
            columns[name] = pd.Series(signal.values[:, column].astype(float), signal.times)
    if not {"wind_speed", "temperature"} & columns.keys():
        raise CityError([Problem(f"city {city.name}", f"has no weather at {node}; the counterfactual needs it")])
    if "wind_direction" in columns:
        origin = np.deg2rad(columns.pop("wind_direction"))
        columns |= {"wind_east": np.sin(origin), "wind_north": np.cos(origin)}
    table = pd.DataFrame(columns).resample("1h", closed="right", label="right").mean()
    if {"wind_speed", "wind_east"} <= columns.keys():
        table[["wind_east", "wind_north"]] = table[["wind_east", "wind_north"]].mul(table["wind_speed"], axis=0)
    for name in [c for c in ("wind_speed", "temperature", "precipitation", "mixing_height") if c in table]:
        for hours in (6, 24):
            table[f"{name}_{hours}h"] = table[name].rolling(hours, min_periods=1).mean()
    middle = pd.DatetimeIndex(table.index) - pd.Timedelta(minutes=30)
    calendar = Calendar(city.timezone, city.country).of(middle)
    day = middle.tz_convert(city.timezone).day_of_year.to_numpy()
    return table.assign(
        hour=calendar.minute_of_day // 60,
        weekday=calendar.weekday,
        off=(calendar.weekday >= 5) | calendar.holiday,
        season=np.cos(2 * np.pi * (day - 1) / 365.25),
    )


def counterfactual(
    city: City, signal: str, node: str, date: pd.Timestamp, until: pd.Timestamp | None = None, folds: bool = True
) -> Counterfactual:
    """Learns ``signal`` at ``node`` from all before ``date`` and predicts from there to ``until``.

    ``folds`` also predicts each block of 28 days before the date from the others; without, ``residual`` is empty.
    Raises :class:`CityError` where fewer than 60 days before or 7 after were measured.
    """
    found = city.signals.get(signal)
    column = _column(city, node, found.node) if found is not None else None
    if found is None or column is None:
        raise CityError([Problem(f"city {city.name}", f"has no {signal} at {node}")])
    series = pd.Series(found.values[:, column].astype(float), found.times)
    hourly = series.resample("1h", closed="right", label="right").mean().dropna()
    table = inputs(city, node, found.node).reindex(hourly.index)
    past = np.asarray(hourly.index <= date)
    after = ~past & (np.asarray(hourly.index <= until) if until is not None else True)
    if past.sum() < 60 * 24 or after.sum() < 7 * 24:
        what = f"{signal} at {node}: {past.sum()} hours before {date:%Y-%m-%d}, {after.sum()} after"
        raise CityError([Problem(f"city {city.name}", f"{what}; 60 days and 7 days are needed")])
    x, y = table.to_numpy(float), hourly.to_numpy()
    expected = _fit(x[past], y[past]).predict(x[after])
    left = np.full(len(y), np.nan)
    if folds:
        age = (hourly.index[past][-1] - hourly.index[past]) // pd.Timedelta(days=BLOCK_DAYS)
        block = np.full(len(y), -1)
        block[past] = np.asarray(age)
        for number in np.unique(block[past]):
            out, learn = block == number, past & (block != number)
            left[out] = y[out] - _fit(x[learn], y[learn]).predict(x[out])
    return Counterfactual(
        measured=hourly[after],
        expected=pd.Series(expected, hourly.index[after]),
        residual=pd.Series(left, hourly.index)[past].dropna(),
        before=hourly[past],
    )


def _fit(x: np.ndarray, y: np.ndarray) -> HistGradientBoostingRegressor:
    model = HistGradientBoostingRegressor(
        max_iter=100, learning_rate=0.09, max_leaf_nodes=24, min_samples_leaf=40, l2_regularization=1.0,
        early_stopping=False, random_state=0,
    )  # fmt: skip
    return model.fit(x, y)


def _column(city: City, node: str, kind: NodeType) -> int | None:
    ids = city.ids(kind)
    if kind == "city":
        return 0
    return ids.index(node) if node in ids else None
