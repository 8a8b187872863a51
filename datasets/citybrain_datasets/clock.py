"""Published times to the ends of intervals, in UTC, on a regular clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from citybrain_datasets.configuration import Time
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.report import ImportReport

NONEXISTENT: dict[str, Literal["NaT", "raise"] | pd.Timedelta] = {
    "missing": "NaT",
    # A clock that was not put forward shows the hour before what the others show.
    "shift": pd.Timedelta(hours=1),
    "error": "raise",
}

MAX_TICKS = 50_000_000
"""A clock longer than this (475 years of 5 minutes) means that a time was misread."""


@dataclass(frozen=True)
class Shift:
    """One change of the clocks: wall times from ``first`` up to ``last`` never were, or were twice."""

    first: pd.Timestamp
    last: pd.Timestamp
    forward: bool


def shifts(zone: str, first: pd.Timestamp, last: pd.Timestamp) -> list[Shift]:
    """Changes of the clocks of ``zone`` between two UTC times."""
    hours = pd.date_range(first.floor("h") - pd.Timedelta(hours=1), last.ceil("h"), freq="15min", tz=first.tz)
    wall = hours.tz_convert(zone).tz_localize(None)
    offset = wall - hours.tz_localize(None)
    found = []
    for i in np.flatnonzero(np.diff(offset.to_numpy()) != np.timedelta64(0)).tolist():
        utc = hours[i + 1].tz_localize(None)
        before, after = utc + offset[i], utc + offset[i + 1]
        found.append(Shift(min(before, after), max(before, after), bool(after > before)))
    return found


def to_utc(
    stamps: pd.DatetimeIndex,
    series: np.ndarray | None,
    time: Time,
    timezone: str,
    where: str,
    report: ImportReport,
) -> pd.DatetimeIndex:
    """The instants that ``stamps`` name, in UTC; NaT where the configuration says that they are missing.

    ``series`` are codes of the rows of a long table, whose times repeat from place to place, and of a tidy one from
    quantity to quantity; ``None`` where each row is a time of its own. Raises :class:`CityError` naming the row of a
    time that cannot be.
    """
    if stamps.empty:
        raise CityError([Problem(where, "has no times")])
    empty = np.flatnonzero(stamps.isna())
    if len(empty):
        raise CityError([Problem(where, "the time cannot be read", f"{empty[0] + 1}", time.column)])
    if stamps.tz is not None:
        return stamps.tz_convert("UTC")
    zone = timezone if time.zone == "local" else time.zone
    if zone.upper() in ("UTC", "Z"):
        _warn_if_local(stamps, series, timezone, where, report)
        return stamps.tz_localize("UTC")
    try:
        return _localize(stamps, series, zone, time, where, report).tz_convert("UTC")
    except (ZoneInfoNotFoundError, KeyError) as error:
        raise CityError([Problem(where, f"unknown time zone {zone!r}")]) from error


def on_clock(
    utc: pd.DatetimeIndex,
    series: np.ndarray | None,
    time: Time,
    timezone: str,
    where: str,
    report: ImportReport,
) -> tuple[pd.Timestamp, np.ndarray, int]:
    """First time, tick of each row (−1 where its time is missing) and number of ticks of a regular clock.

    Reports times that are unordered or duplicated; a time between two ticks is an error. With ``snap``, ticks
    are whole steps since midnight UTC, or, where more times are on that one, since midnight in ``timezone``:
    the hours of India begin at half past.
    """
    step: pd.Timedelta = time.step
    valid = utc.dropna()
    if valid.empty:
        raise CityError([Problem(where, "has no times")])
    start, tolerance = valid.min(), 0
    starts = [start]
    if time.snap is not None:
        tolerance = time.snap.value
        ahead = start.tz_convert(timezone).tz_localize(None) - start.tz_localize(None)
        starts = [start.round(step), (start + ahead).round(step) - ahead]
    missing = np.asarray(utc.isna())
    start, ticks, off = min(
        ((first, *_ticks(utc, missing, first, step, tolerance)) for first in starts),
        key=lambda found: int(found[2].sum()),
    )
    if off.any():
        row = int(np.argmax(off))
        what = f"{off.sum()} times are off the clock of {step}, first {utc[row]}; a tolerance is time.snap"
        raise CityError([Problem(where, what, f"{row + 1}", time.column)])
    length = int(ticks.max()) + 1
    if length > MAX_TICKS:
        raise CityError([Problem(where, f"spans {utc.min()} to {utc.max()}: a time was misread", column=time.column)])
    ticks[missing] = -1
    _report_order(ticks, series, utc, where, report)
    return start, ticks, length


def _ticks(
    utc: pd.DatetimeIndex, missing: np.ndarray, start: pd.Timestamp, step: pd.Timedelta, tolerance: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tick of each row from ``start`` on, and which are farther from theirs than ``tolerance`` ns."""
    away = (utc - start).to_numpy().astype("timedelta64[ns]").astype(np.int64)
    away[missing] = 0
    ticks = np.round(away / step.value).astype(np.int64)
    return ticks, np.abs(away - ticks * step.value) > tolerance


def _report_order(
    ticks: np.ndarray, series: np.ndarray | None, utc: pd.DatetimeIndex, where: str, report: ImportReport
) -> None:
    frame = pd.DataFrame({"tick": ticks, "series": 0 if series is None else series})
    twice = frame.duplicated().to_numpy() & (ticks >= 0)
    if twice.any():
        row = int(np.argmax(twice))
        what = f"{twice.sum()} rows repeat a time, first {utc[row]}; the last measured value is kept"
        report.add("warning", "duplicated", where, what, row + 1)
    back = (frame.groupby("series", sort=False)["tick"].diff() < 0).to_numpy()
    if back.any():
        row = int(np.argmax(back))
        what = f"{back.sum()} rows are earlier than the row before them, first {utc[row]}; put in order"
        report.add("warning", "unordered", where, what, row + 1)


def _localize(
    stamps: pd.DatetimeIndex,
    series: np.ndarray | None,
    zone: str,
    time: Time,
    where: str,
    report: ImportReport,
) -> pd.DatetimeIndex:
    frame = pd.DataFrame({"wall": stamps, "series": 0 if series is None else series})
    occurrence = frame.groupby(["series", "wall"], sort=False).cumcount().to_numpy()
    # tz_localize takes True for summer time, the first of two equal wall times.
    summer = {"first": np.ones(len(stamps), bool), "second": np.zeros(len(stamps), bool)}.get(
        time.ambiguous, occurrence == 0
    )
    if time.ambiguous == "order":
        _report_single_hours(frame, zone, where, report)
    try:
        return stamps.tz_localize(
            zone,
            ambiguous={"missing": "NaT", "error": "raise"}.get(time.ambiguous, summer),
            nonexistent=NONEXISTENT[time.nonexistent],
        )
    except ValueError as error:  # pandas raises it for ambiguous and for nonexistent times
        stated = "time.nonexistent or time.ambiguous says what to do with it; is the zone right?"
        row = _first_impossible(stamps, zone, time)
        raise CityError([Problem(where, f"{error} in {zone}; {stated}", row, time.column)]) from error


def _first_impossible(stamps: pd.DatetimeIndex, zone: str, time: Time) -> str | None:
    forgiving = stamps.tz_localize(
        zone,
        ambiguous="NaT" if time.ambiguous == "error" else np.ones(len(stamps), bool),
        nonexistent="NaT" if time.nonexistent == "error" else "shift_forward",
    )
    rows = np.flatnonzero(forgiving.isna())
    return f"{rows[0] + 1}" if len(rows) else None


def _report_single_hours(frame: pd.DataFrame, zone: str, where: str, report: ImportReport) -> None:
    wall = frame["wall"]
    for shift in _shifts_near(wall, zone):
        if shift.forward:
            continue
        inside = frame[(wall >= shift.first) & (wall < shift.last)]
        if len(inside) and not inside.duplicated().any():
            what = f"the hour from {shift.first}, which the clock shows twice, stands once: taken as summer time"
            report.add("warning", "daylight-saving", where, what, inside.index[0] + 1)


def _shifts_near(wall: pd.Series, zone: str) -> list[Shift]:
    """Changes of the clocks while wall times were taken; a zone is less than a day from UTC."""
    day = pd.Timedelta(days=1)
    return shifts(zone, wall.min().tz_localize("UTC") - day, wall.max().tz_localize("UTC") + day)


def _warn_if_local(
    stamps: pd.DatetimeIndex, series: np.ndarray | None, timezone: str, where: str, report: ImportReport
) -> None:
    """A table said to be UTC that lacks, or doubles, exactly the hour that local clocks skip or repeat."""
    frame = pd.DataFrame({"wall": stamps, "series": 0 if series is None else series})
    wall = frame["wall"]
    for shift in _shifts_near(wall, timezone):
        width = shift.last - shift.first
        inside = (wall >= shift.first) & (wall < shift.last)
        around = (wall >= shift.first - width) & (wall < shift.last + width) & ~inside
        if shift.forward and around.any() and not inside.any():
            what = f"said to be UTC, but the hour from {shift.first}, which local clocks skip, is absent"
        elif not shift.forward and frame[inside].duplicated().any() and not frame[around].duplicated().any():
            what = f"said to be UTC, but the hour from {shift.first}, which local clocks repeat, stands twice"
        else:
            continue
        report.add("warning", "daylight-saving", where, f"{what}: is it local time?")
