"""The weather a scenario is judged in, from the city's own record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.language import Weather

SEASONS = {"winter": (12, 1, 2), "spring": (3, 4, 5), "summer": (6, 7, 8), "autumn": (9, 10, 11)}
"""Months in the northern hemisphere."""
_NEEDED = ("wind_speed", "wind_direction", "mixing_height")


@dataclass(frozen=True)
class Hours:
    """The hours of a window on some days: m/s, degrees the wind blows from, m, mm/h; all ``[day, hour]``.

    ``times`` are the UTC ends of the hours, ``[day, hour]``, or None where nothing is on record.
    """

    wind_speed: np.ndarray
    wind_direction: np.ndarray
    mixing_height: np.ndarray
    precipitation: np.ndarray
    times: np.ndarray | None = None


def weather_hours(city: City, weather: Weather, window: Window, fallback: Hours | None = None) -> Hours:
    """The hours of ``window`` on the days that ``weather`` asks for.

    Days that lack wind or mixing height in one of the hours are passed over. Raises :class:`CityError` where the record
    has no such day; a city without any record takes ``fallback``, if given.
    """
    table = _record(city)
    if table is None:
        if fallback is None:
            lacks = ", ".join(n for n in _NEEDED if n not in city.signals)
            raise CityError([Problem(f"city {city.name}", f"has no record of {lacks}; state the weather with --air")])
        return fallback
    # A value ends its hour: 08:00 holds what happened from 07:00 on.
    local = pd.DatetimeIndex(table.index).tz_convert(city.timezone) - pd.Timedelta(hours=1)
    inside = (local.hour * 60 >= window.begin) & (local.hour * 60 < window.end)
    table, days = table[inside], pd.Index(local[inside].date)
    whole = table[list(_NEEDED)].notna().all(axis=1).groupby(days).agg(["all", "size"])
    found = whole.index[whole["all"] & (whole["size"] == window.steps // 4)]
    chosen = _choose(found, weather, city)
    blocks = [table[days == day] for day in chosen]
    column = {n: np.stack([b[n].to_numpy(float) for b in blocks]) for n in (*_NEEDED, "precipitation")}
    return Hours(**column, times=np.stack([b.index.to_numpy(dtype="datetime64[ns]") for b in blocks]))


def months_of(season: str, city: City) -> tuple[int, ...]:
    """The months of a season where ``city`` lies; where no place of it is known, those of the north."""
    latitudes = [table["lat"].to_numpy(float) for table in city.nodes.values() if "lat" in table]
    known = np.concatenate(latitudes) if latitudes else np.zeros(0)
    south = bool((known < 0).sum() > (known > 0).sum())
    return tuple((month + 5) % 12 + 1 if south else month for month in SEASONS[season])


def has_weather(city: City) -> bool:
    """Whether the city has any record that :func:`weather_hours` can choose from."""
    return all(name in city.signals for name in _NEEDED)


def _choose(days: pd.Index, weather: Weather, city: City) -> list[object]:
    if weather.case is not None:
        chosen = [d for d in days if d == weather.case]
    elif weather.season is not None:
        months = months_of(weather.season, city)
        chosen = [d for d in days if d.month in months]
    else:
        rng = np.random.default_rng([weather.seed, 17])
        size = min(weather.ensemble or 1, len(days))
        chosen = [days[i] for i in sorted(rng.choice(len(days), size, replace=False))] if len(days) else []
    if not chosen:
        span = f"from {days.min()} to {days.max()}" if len(days) else "of no whole day"
        asked = weather.case or weather.season or "a day"
        raise CityError([Problem("weather", f"{asked} is not on record; city {city.name} has weather {span}")])
    return chosen


def _record(city: City) -> pd.DataFrame | None:
    """Hourly weather by UTC end of the hour; of several stations their mean."""
    if not has_weather(city):
        return None
    columns = {}
    for name in (*_NEEDED, "precipitation"):
        signal = city.signals.get(name)
        if signal is None:
            continue
        values = signal.values.astype(float)
        if name == "wind_direction":
            turn = np.exp(1j * np.deg2rad(values))
            series = pd.Series(_mean(turn), signal.times).resample("1h", closed="right", label="right").mean()
            columns[name] = pd.Series(np.rad2deg(np.angle(series.to_numpy())) % 360, series.index)
        else:
            columns[name] = pd.Series(_mean(values), signal.times).resample("1h", closed="right", label="right").mean()
    table = pd.DataFrame(columns)
    dry = table["precipitation"].fillna(0.0) if "precipitation" in table else 0.0
    return table.assign(precipitation=dry)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the nodes that measured, NaN where none did: ``[time]``."""
    seen = np.isfinite(values)
    total = np.where(seen, values, 0).sum(axis=1)
    count = seen.sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan, dtype=total.dtype), where=count > 0)
