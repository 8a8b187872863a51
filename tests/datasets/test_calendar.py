"""What the clock on the wall says."""

from __future__ import annotations

import pandas as pd
import pytest

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.errors import CityError


def test_local_time_follows_daylight_saving() -> None:
    times = pd.DatetimeIndex(["2017-03-12 09:30", "2017-03-12 10:30", "2017-11-05 08:30", "2017-11-05 09:30"], tz="UTC")
    found = Calendar("America/Los_Angeles").of(times)
    # 01:30, then 03:30; and 01:30 twice.
    assert found.minute_of_day.tolist() == [90, 210, 90, 90]
    assert found.weekday.tolist() == [6, 6, 6, 6]
    assert not found.holiday.any()


def test_weekday_and_holiday_are_those_of_the_local_day() -> None:
    # Midnight of the Chinese national day in Beijing is 16:00 the day before in UTC.
    times = pd.DatetimeIndex(["2017-09-30 15:59", "2017-09-30 16:00"])
    found = Calendar("Asia/Shanghai", "CN").of(times)
    assert found.weekday.tolist() == [5, 6]
    assert found.holiday.tolist() == [False, True]


@pytest.mark.parametrize(
    ("country", "day", "holiday"),
    [
        ("US-CA", "2017-07-04", True),
        ("US-CA", "2017-07-05", False),
        ("ES-MD", "2018-05-02", True),
        ("ES", "2018-05-02", False),
        ("NL", "2019-12-25", True),
    ],
)
def test_holidays_of_countries_and_their_parts(country: str, day: str, holiday: bool) -> None:
    found = Calendar("UTC", country).of(pd.DatetimeIndex([f"{day} 12:00"]))
    assert found.holiday.tolist() == [holiday]


def test_every_hour_of_years_agrees_with_pandas() -> None:
    times = pd.date_range("1999-06-01", "2027-02-01", freq="7h", tz="UTC")
    found = Calendar("Europe/Madrid", "ES-MD").of(times)
    local = times.tz_convert("Europe/Madrid")
    assert (found.weekday == local.day_of_week).all()
    assert (found.minute_of_day == local.hour * 60 + local.minute).all()
    assert 0.02 < found.holiday.mean() < 0.06


def test_no_times_no_entries() -> None:
    assert len(Calendar("UTC", "CN").of(pd.DatetimeIndex([])).holiday) == 0


def test_an_unknown_country_is_named() -> None:
    with pytest.raises(CityError, match="XX"):
        Calendar("UTC", "XX")
