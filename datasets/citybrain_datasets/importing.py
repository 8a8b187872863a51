"""A city out of published files, by configuration alone.

YAML → places → rows as published → UTC ends on a regular clock, stored units → edges → City
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from citybrain_datasets.city import RELATIONS, City
from citybrain_datasets.clock import on_clock, to_utc
from citybrain_datasets.configuration import (
    CityConfig,
    SignalSource,
    Table,
    UnitBy,
    find_config,
    read_config,
    source_root,
)
from citybrain_datasets.convert import stored, units_by_row, wind, within_range
from citybrain_datasets.edges import build_edges
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.places import read_places, unplaced
from citybrain_datasets.readers.arrays import read_array
from citybrain_datasets.readers.files import rename_ids
from citybrain_datasets.readers.hdf5 import read_hdf5
from citybrain_datasets.readers.rows import LongRows, WideRows
from citybrain_datasets.readers.tables import read_long, read_wide
from citybrain_datasets.report import ImportReport
from citybrain_datasets.signals import NodeType, Signal

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


def import_city(config: str | Path, root: Path | None = None) -> tuple[City, ImportReport]:
    """The city that a YAML (a path, or a packaged name) describes, and what was noticed on the way.

    Values are converted when they are read; a value that breaks its contract raises :class:`CityError` then.
    """
    path = find_config(config)
    city = read_config(path)
    return build_city(city, source_root(path, root), ImportReport(path.name))


def build_city(config: CityConfig, root: Path, report: ImportReport) -> tuple[City, ImportReport]:
    """As :func:`import_city`, from a validated configuration."""
    places: dict[NodeType, pd.DataFrame] = {
        node: read_places(spec, root) for node, spec in config.nodes.items() if spec.file
    }
    drafts = [draft for table in config.tables for draft in _drafts(table, config, root, report)]
    for node, spec in config.nodes.items():
        if not spec.file:
            places[node] = unplaced(list(dict.fromkeys(i for d in drafts if d.node == node for i in d.ids)))
    kept: dict[NodeType, pd.DataFrame] = {}
    for node, spec in config.nodes.items():
        kept[node] = _keep(spec.keep, places[node], [d for d in drafts if d.node == node], node, report)
    signals = [_signal(draft, kept, places, report) for draft in drafts]
    edges: dict[str, pd.DataFrame] = {}
    for relation, how in config.edges.items():
        source, target = RELATIONS[relation]
        lacking = {source, target} - set(kept)
        if lacking:
            raise CityError(
                [Problem(f"edges {relation}", f"the city has no {' and no '.join(lacking)} nodes")]
            )
        published = (list(places[source].index), list(places[target].index))
        edges[relation] = build_edges(how, relation, published, kept[source], kept[target], root, report)
    described = config.model_dump(
        include={"name", "timezone", "title", "country", "synthetic", "attribution"}
    )
    city = City(**described, nodes=kept, edges=edges, signals={s.name: s for s in signals})
    return city, report


def _drafts(table: Table, config: CityConfig, root: Path, report: ImportReport) -> list[Draft]:
    where = table.file
    rows = READERS[table.layout](table, root)
    groups = rows.places if isinstance(rows, LongRows) else None
    utc = to_utc(rows.stamps, groups, table.time, config.timezone, where, report)
    start, ticks, length = on_clock(utc, groups, table.time, where, report)
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


def _long_reader(
    rows: LongRows, table: Table, name: str, source: SignalSource, ticks: np.ndarray, length: int
) -> Read:
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
        raise CityError(
            [Problem(f"{table.file}, signals.{name}.unit", "components of the wind must be in m/s")]
        )
    east, north = (np.asarray(part, dtype=np.float64) for part in raw)
    return within_range(wind(east, north, name), name, source, table.file)


def _columns(ids: list[str], source: SignalSource, where: str) -> tuple[np.ndarray, list[str]]:
    if source.node == "city":
        if str(source.column) not in ids:
            raise CityError(
                [Problem(where, "a signal of the whole city needs its column", column=str(source.column))]
            )
        return np.array([ids.index(str(source.column))]), ["city"]
    if source.pattern is None:
        return np.arange(len(ids)), ids
    found = [(i, hit) for i, name in enumerate(ids) if (hit := re.fullmatch(source.pattern, name))]
    if not found:
        raise CityError([Problem(where, f"no column matches {source.pattern!r}")])
    return np.array([i for i, _ in found]), [hit[1] if hit.groups() else hit[0] for _, hit in found]


def _keep(
    keep: str | list[str],
    places: pd.DataFrame,
    drafts: list[Draft],
    node: str,
    report: ImportReport,
) -> pd.DataFrame:
    if keep == "all":
        return places
    if isinstance(keep, list):
        unknown = [i for i in keep if i not in places.index]
        if unknown:
            raise CityError([Problem(f"nodes.{node}.keep", "is no published place", i) for i in unknown])
        return places.loc[keep]
    measured = np.zeros(len(places), dtype=bool)
    for draft in drafts:
        columns, targets = _match(draft, list(places.index), list(places.index))
        for first in range(0, draft.length, 4096):
            block = draft.read(first, min(first + 4096, draft.length))[:, columns]
            measured[targets] |= np.isfinite(block).any(axis=0)
    if not measured.all():
        what = f"{(~measured).sum()} of {len(places)} places measure nothing and are left out"
        report.add("note", "places", f"nodes {node}", what)
    return places[measured]


def _signal(
    draft: Draft,
    kept: Mapping[NodeType, pd.DataFrame],
    places: Mapping[NodeType, pd.DataFrame],
    report: ImportReport,
) -> Signal:
    if draft.node == "city":
        nodes, published = ["city"], ["city"]
    else:
        nodes, published = list(kept[draft.node].index), list(places[draft.node].index)
    columns, targets = _match(draft, nodes, published)
    silent = len(nodes) - len(set(targets.tolist()))
    if silent:
        missing = sorted(set(range(len(nodes))) - set(targets.tolist()))
        report.add(
            "warning",
            "never-reports",
            f"signal {draft.name}",
            f"{silent} nodes have no column",
            nodes[missing[0]],
        )

    def read(first: int, last: int) -> np.ndarray:
        first, last, _ = slice(first, last).indices(draft.length)
        block = draft.read(first, max(first, last))
        out = np.full((len(block), len(nodes)), np.nan, dtype=np.float32)
        out[:, targets] = block[:, columns]
        return out

    return Signal(
        draft.name,
        draft.node,
        draft.start,
        draft.table.time.step,
        shape=(draft.length, len(nodes)),
        read=read,
    )


def _match(draft: Draft, nodes: list[str], published: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which published column goes to which node: two index arrays of equal length."""
    where = draft.table.file
    ids = draft.ids
    if draft.table.layout == "array" and draft.node != "city":
        if len(ids) != len(published):
            raise CityError([Problem(where, f"has {len(ids)} columns for {len(published)} published places")])
        ids = published
    unknown = [i for i in ids if i not in set(published)]
    if unknown and draft.table.unknown_places == "error":
        what = f"{len(unknown)} places are not in the node table; unknown_places: drop leaves them out"
        raise CityError([Problem(where, what, column=unknown[0])])
    twice = pd.Index(ids)[pd.Index(ids).duplicated()]
    if len(twice):
        raise CityError([Problem(where, "two columns are the same place", column=str(twice[0]))])
    position = {name: i for i, name in enumerate(nodes)}
    pairs = [(i, position[name]) for i, name in enumerate(ids) if name in position]
    return np.array([c for c, _ in pairs], dtype=np.int64), np.array([t for _, t in pairs], dtype=np.int64)
