"""Signals on their clock, in their unit, in the columns as published."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from citybrain_datasets.clock import on_clock, to_utc
from citybrain_datasets.configuration import SignalSource, Table, UnitBy
from citybrain_datasets.convert import stored, units_by_row, wind
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.readers.arrays import read_array
from citybrain_datasets.readers.files import rename_ids
from citybrain_datasets.readers.hdf5 import read_hdf5
from citybrain_datasets.readers.rows import LongRows, WideRows
from citybrain_datasets.readers.tables import read_long, read_wide
from citybrain_datasets.report import ImportReport
from citybrain_datasets.signals import NodeType

READERS: dict[str, Callable[[Table, Path], WideRows | LongRows]] = {
    "wide": read_wide,
    "long": read_long,
    "tidy": read_long,
    "hdf5": read_hdf5,
    "array": read_array,
}

Read = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Draft:
    """A signal on its clock whose columns are still the published ones; ``read`` gives ``[time, id]``."""

    name: str
    node: NodeType
    table: Table
    ids: list[str]
    start: pd.Timestamp
    length: int
    read: Read


def drafts_of(table: Table, timezone: str, root: Path, report: ImportReport) -> list[Draft]:
    """The signals of one table; ``timezone`` is what its local times are in."""
    where = table.file
    rows = READERS[table.layout](table, root)
    groups = rows.series if isinstance(rows, LongRows) else None
    utc = to_utc(rows.stamps, groups, table.time, timezone, where, report)
    start, ticks, length = on_clock(utc, groups, table.time, timezone, where, report)
    drafts = []
    for name, source in table.signals.items():
        # Stored times end their interval.
        lead = table.time.step if (source.marks or table.time.marks) == "start" else pd.Timedelta(0)
        if isinstance(rows, LongRows):
            ids, read = rows.ids, _long_reader(rows, table, name, source, ticks, length)
        else:
            ids, read = _wide_reader(rows, table, name, source, ticks)
        ids = rename_ids(table.rename, ids, root)
        drafts.append(Draft(name, source.node, table, ids, start + lead, length, read))
    return drafts


def _long_reader(rows: LongRows, table: Table, name: str, source: SignalSource, ticks: np.ndarray, length: int) -> Read:
    values = _long_values(rows, table, name, source)
    good = np.isfinite(values) & (ticks >= 0)
    grid = np.full((length, len(rows.ids)), np.nan, dtype=np.float32)
    # Later rows overwrite earlier ones, and only with a value: a repeated time loses nothing.
    grid[ticks[good], rows.places[good]] = values[good]
    return lambda first, last: grid[first:last]


def _long_values(rows: LongRows, table: Table, name: str, source: SignalSource) -> np.ndarray:
    step, where = table.time.step, table.file
    if isinstance(source.unit, UnitBy):
        raw = rows.column(cast(str | int, source.column))
        values = np.full(len(raw), np.nan, dtype=np.float32)
        for label, chosen in units_by_row(source.unit, rows.column(source.unit.column), where).items():
            values[chosen] = stored(raw[chosen], name, source, source.unit.units[label], step, where)
        return values
    if source.components is None:
        return stored(rows.column(cast(str | int, source.column)), name, source, source.unit, step, where)
    return _wind([rows.column(c) for c in source.components], table, name, source)


def _wide_reader(
    rows: WideRows, table: Table, name: str, source: SignalSource, ticks: np.ndarray
) -> tuple[list[str], Read]:
    columns, ids = _columns(rows.ids, source, table.file)
    unit = cast(str, source.unit)  # Table lets only long tables choose it by column
    order = np.argsort(ticks, kind="stable")
    ordered = ticks[order]

    def read(first: int, last: int) -> np.ndarray:
        chosen = order[np.searchsorted(ordered, first) : np.searchsorted(ordered, last)]
        out = np.full((last - first, len(ids)), np.nan, dtype=np.float32)
        if not len(chosen):
            return out
        low, high = int(chosen.min()), int(chosen.max()) + 1
        if source.components is not None:
            raw = [rows.read(c, low, high)[:, columns] for c in source.components]
            values = _wind(raw, table, name, source)
        else:
            raw_values = rows.read(source.column, low, high)[:, columns]
            values = stored(raw_values, name, source, unit, table.time.step, table.file, low)
        # Equal ticks stand side by side, in published order: each layer holds every tick once.
        layer = pd.Series(ticks[chosen]).groupby(ticks[chosen]).cumcount().to_numpy()
        for depth in range(int(layer.max()) + 1):
            picked = chosen[layer == depth]
            place = ticks[picked] - first
            new = values[picked - low]
            out[place] = np.where(np.isfinite(new), new, out[place])
        return out

    return ids, read


def _wind(raw: list[np.ndarray], table: Table, name: str, source: SignalSource) -> np.ndarray:
    if name not in ("wind_speed", "wind_direction"):
        raise CityError([Problem(f"{table.file}, signals.{name}", "only wind has components")])
    if source.unit != "m/s":
        raise CityError([Problem(f"{table.file}, signals.{name}.unit", "components of the wind must be in m/s")])
    return wind(raw, name, source, table.file)


def _columns(ids: list[str], source: SignalSource, where: str) -> tuple[np.ndarray, list[str]]:
    if source.node == "city":
        if str(source.column) not in ids:
            raise CityError([Problem(where, "a signal of the whole city needs its column", column=str(source.column))])
        return np.array([ids.index(str(source.column))]), ["city"]
    if source.pattern is None:
        return np.arange(len(ids)), ids
    found = [(i, hit) for i, name in enumerate(ids) if (hit := re.fullmatch(source.pattern, name))]
    if not found:
        raise CityError([Problem(where, f"no column matches {source.pattern!r}")])
    return np.array([i for i, _ in found]), [hit[1] if hit.groups() else hit[0] for _, hit in found]
