"""Wide, long and tidy tables in Parquet or CSV; several files of one pattern are one table."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.configuration import Table
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.readers.files import as_ids, column, open_files, read_frame, stamps
from citybrain_datasets.readers.rows import LongRows, WideRows

ALONE = "city"
"""The place of a table that names none."""


def read_wide(table: Table, root: Path) -> WideRows:
    """A row a time, a column a place."""
    frames, times, paths = [], [], open_files(root, table.file)
    for path in paths:
        frame = read_frame(table, path)
        times.append(stamps(frame, table.time, path))
        used = [table.time.column] if table.time.column in frame.columns else (table.time.columns or [])
        if not used and isinstance(frame.index, pd.RangeIndex):
            used = [str(frame.columns[0])]
        frames.append(frame.drop(columns=used))
    values = pd.concat(frames, ignore_index=True)
    ids = as_ids(values.columns)
    cells = values.to_numpy()
    return WideRows(_join(times, paths), ids, lambda _, first, last: cells[first:last])


def read_long(table: Table, root: Path) -> LongRows:
    """A row a time and place, a column a signal; or, tidy, a row a value."""
    frames, times, names, paths = [], [], [], open_files(root, table.file)
    for path in paths:
        frame = read_frame(table, path, text=(table.station,) if table.station else ())
        times.append(stamps(frame, table.time, path))
        names.append(_stations(table, frame, path))
        frames.append(frame)
    values = pd.concat(frames, ignore_index=True)
    places, ids = pd.factorize(np.concatenate(names))
    where = Path(table.file)

    def raw(name: str | int) -> np.ndarray:
        if table.layout == "tidy":
            assert table.variable is not None  # Table refuses a tidy table without them
            assert table.value is not None
            wanted = column(values, table.variable, where).astype(str) == str(name)
            return column(values, table.value, where).where(wanted).to_numpy()
        return column(values, str(name), where).to_numpy()

    return LongRows(_join(times, paths), [str(i) for i in ids], places, raw, _series(table, values, places))


def _series(table: Table, values: pd.DataFrame, places: np.ndarray) -> np.ndarray:
    """Codes of what is a row at each time of its own, int ``[row]``."""
    if table.layout != "tidy" or table.variable is None:
        return places
    what, names = pd.factorize(column(values, table.variable, Path(table.file)).astype(str))
    return places * len(names) + what


def _stations(table: Table, frame: pd.DataFrame, path: Path) -> np.ndarray:
    if table.station is not None:
        return np.array(as_ids(column(frame, table.station, path)), dtype=object)
    if table.station_pattern is None:
        return np.full(len(frame), ALONE, dtype=object)
    found = re.search(table.station_pattern, path.name)
    if found is None or not found.groups():
        raise CityError([Problem(str(path), f"station_pattern {table.station_pattern!r} finds no station in the name")])
    return np.full(len(frame), found[1], dtype=object)


def _join(times: list[pd.DatetimeIndex], paths: list[Path]) -> pd.DatetimeIndex:
    """Raises :class:`CityError` where some files say how far from UTC they are and others do not."""
    zoned = times[0].tz is not None
    for path, stamped in zip(paths, times, strict=True):
        if (stamped.tz is not None) != zoned:
            has = "has no UTC offset in its times" if zoned else "has a UTC offset in its times"
            raise CityError([Problem(str(path), f"{has}, unlike {paths[0].name} of the same table")])
    return pd.DatetimeIndex(times[0].append(times[1:]))
