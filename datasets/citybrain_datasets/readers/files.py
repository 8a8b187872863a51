"""Tables from Parquet and CSV, with ids as text and times as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from citybrain_datasets.configuration import FileTable, Rename, Time
from citybrain_datasets.errors import CityError, NoSuchFileError, Problem

PARQUET = (".parquet", ".pq")
OFFSET = re.compile(r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$")
"""An offset ends an ISO time, not a date: the month of 2017-03 is none, nor the year of 31-03-2017."""
SIDES: tuple[Literal["from"], Literal["to"]] = ("from", "to")


def open_files(root: Path, pattern: str) -> list[Path]:
    """The file, or the files of a pattern in the order of their names. Raises :class:`NoSuchFileError`."""
    found = sorted(root.glob(pattern)) if any(c in pattern for c in "*?[") else [root / pattern]
    if not found or not all(path.is_file() for path in found):
        what = f"no such file; --source-root, else CITYBRAIN_DATA, names the folder that {pattern} lies in"
        raise NoSuchFileError([Problem(str(root / pattern), what)])
    return found


def read_frame(table: FileTable, path: Path, text: tuple[str, ...] | bool = ()) -> pd.DataFrame:
    """One file as published; ``text`` names the columns to keep as text (ids), ``True`` all of them."""
    try:
        if path.suffix in PARQUET:
            return pd.read_parquet(path)
        return pd.read_csv(
            path,
            sep=table.delimiter,
            decimal=table.decimal,
            encoding=table.encoding,
            header=None if table.header else 0,
            names=table.header,
            dtype="str" if text is True else dict.fromkeys(text or (), "str"),
            skipinitialspace=True,
            low_memory=False,
        )
    except (OSError, ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error


def column(frame: pd.DataFrame, name: str, path: Path) -> pd.Series:
    """A column, or an error that lists the ones there are."""
    if name not in frame.columns:
        there = ", ".join(map(str, frame.columns[:30]))
        raise CityError([Problem(str(path), f"no such column; there are {there}", column=name)])
    return frame[name]


def as_ids(values: pd.Series | pd.Index | np.ndarray) -> list[str]:
    """Ids as text: 7.0 and 7 are both ``7``, however a file happened to store them."""
    series = pd.Series(values)
    if pd.api.types.is_float_dtype(series) and (series.dropna() % 1 == 0).all():
        series = series.astype("Int64")
    return [str(value).strip() for value in series]


def rename_ids(rename: Rename | None, ids: list[str], root: Path) -> list[str]:
    """Ids as the node table has them."""
    if rename is None:
        return ids
    path = open_files(root, rename.file)[0]
    frame = read_frame(rename, path, text=True)
    old, new = (as_ids(column(frame, rename.columns[side], path)) for side in SIDES)
    names = dict(zip(old, new, strict=True))
    return [names.get(i, i) for i in ids]


def numbers(series: pd.Series | np.ndarray, where: str, name: str) -> np.ndarray:
    """float64 with NaN for empty cells; anything else that is no number is an error naming its row."""
    series = pd.Series(series)
    if series.dtype.kind in "fiub":
        return series.to_numpy(np.float64)
    found = pd.to_numeric(series, errors="coerce")
    wrong = (found.isna() & series.notna() & (series.astype(str).str.strip() != "")).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise CityError([Problem(where, f"{series.iloc[row]!r} is no number", f"{row + 1}", name)])
    return found.to_numpy(np.float64, na_value=np.nan)


def stamps(frame: pd.DataFrame, time: Time, path: Path) -> pd.DatetimeIndex:
    """The times of a table as they are written, without a zone unless they carry one."""
    if time.columns is not None:
        parts = {
            unit: numbers(column(frame, name, path), str(path), name)
            for unit, name in zip(("year", "month", "day", "hour", "minute"), time.columns, strict=False)
        }
        return pd.DatetimeIndex(pd.to_datetime(pd.DataFrame(parts), errors="coerce"))
    if time.column is None or (time.column == "index" and "index" not in frame.columns):
        # A CSV has no index of its own: its first column is the natural one.
        raw = pd.Series(frame.index) if not isinstance(frame.index, pd.RangeIndex) else frame.iloc[:, 0]
    else:
        named = frame.index.name == time.column and time.column not in frame.columns
        raw = pd.Series(frame.index) if named else column(frame, time.column, path)
    if pd.api.types.is_datetime64_any_dtype(raw):
        return pd.DatetimeIndex(raw)
    if time.epoch is not None:
        return _since_1970(numbers(raw, str(path), str(raw.name)), time.epoch, path, str(raw.name))
    offset = "%z" in time.format if time.format else _has_offset(raw, path)
    try:
        parsed = pd.to_datetime(raw, format=time.format or "ISO8601", errors="coerce", utc=offset)
    except ValueError as error:  # of times that are wrong none is raised, so the format is
        raise CityError([Problem(str(path), f"time.format {time.format!r}: {error}")]) from error
    bad = np.flatnonzero(parsed.isna())
    if len(bad):
        what = f"{raw.iloc[bad[0]]!r} is no time" + (
            f" of the format {time.format}" if time.format else "; say time.format"
        )
        raise CityError([Problem(str(path), what, f"{bad[0] + 1}", str(raw.name))])
    return pd.DatetimeIndex(parsed)


def _since_1970(values: np.ndarray, unit: Literal["s", "ms", "us", "ns"], path: Path, name: str) -> pd.DatetimeIndex:
    try:
        return pd.DatetimeIndex(pd.to_datetime(values, unit=unit, utc=True)).as_unit("ns")
    except ValueError as error:  # pandas' own name for it, out of bounds, is one
        what = f"{np.nanmax(np.abs(values)):.0f} is no time in {unit} since 1970 ({error}); is time.epoch right?"
        raise CityError([Problem(str(path), what, column=name)]) from error


def _has_offset(raw: pd.Series, path: Path) -> bool:
    """Whether ISO times carry their offset from UTC; an error where some do and some do not."""
    carries = raw.astype(str).str.contains(OFFSET).to_numpy(bool)
    differs = np.flatnonzero(carries != carries[:1])
    if len(differs):
        kinds = "with and without an offset from UTC"
        where = (str(path), f"has times {kinds}, first {raw.iloc[differs[0]]!r}", f"{differs[0] + 1}")
        raise CityError([Problem(*where, str(raw.name))])
    return bool(carries.any())
