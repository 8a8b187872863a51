"""What the clock on the wall says: local time of day, weekday and public holiday for UTC times."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import pandas as pd

from citybrain_datasets.errors import CityError, Problem


@dataclass(frozen=True)
class CalendarArrays:
    """One entry per time: local ``minute_of_day`` 0–1439, ``weekday`` 0 = Monday, ``holiday`` public."""

    minute_of_day: np.ndarray
    weekday: np.ndarray
    holiday: np.ndarray


@dataclass(frozen=True)
class Calendar:
    """The calendar of one place: its time zone (daylight saving included) and its public holidays.

    ``country`` is an ISO 3166 code, with a subdivision where holidays differ (``US-CA``); without one no day
    is a holiday. Raises :class:`CityError` for a country whose holidays are unknown.
    """

    timezone: str
    country: str | None = None

    def __post_init__(self) -> None:
        ZoneInfo(self.timezone)
        if self.country is not None:
            _holidays_of(self.country, 2024)

    def of(self, times: pd.DatetimeIndex) -> CalendarArrays:
        """Local calendar of UTC ``times`` (naive ones are taken as UTC), arrays ``[time]``."""
        utc = times if times.tz is not None else times.tz_localize("UTC")
        local = utc.tz_convert(self.timezone)
        minute = np.asarray(local.hour * 60 + local.minute, dtype=np.int64)
        days = local.tz_localize(None).to_numpy().astype("datetime64[D]")
        # 1970-01-01, day 0, was a Thursday.
        weekday = (days.astype(np.int64) + 3) % 7
        return CalendarArrays(minute, weekday, self._holiday(days))

    def _holiday(self, days: np.ndarray) -> np.ndarray:
        if self.country is None or not len(days):
            return np.zeros(len(days), dtype=bool)
        years = np.unique(days.astype("datetime64[Y]").astype(np.int64)) + 1970
        return np.isin(days, np.concatenate([_holidays_of(self.country, int(year)) for year in years]))


@lru_cache(maxsize=512)
def _holidays_of(country: str, year: int) -> np.ndarray:
    """Public holidays of one year, ``datetime64[D]``."""
    code, _, part = country.partition("-")
    try:
        found = holidays.country_holidays(code, subdiv=part or None, years=year)
    except NotImplementedError as error:
        raise CityError([Problem("country", f"no holidays are known for {country!r} ({error})")]) from error
    return np.array(sorted(found), dtype="datetime64[D]")
