"""Edge tables: from distances, a matrix, a published sensor graph, or nearness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.configuration import Adjacency, Distances, Edges, Nearest, SensorGraph
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.geo import bearing_deg, great_circle_m, nearest
from citybrain_datasets.readers.arrays import load_array
from citybrain_datasets.readers.files import as_ids, column, numbers, open_files, read_frame, rename_ids
from citybrain_datasets.readers.sensor_graph import read_sensor_graph
from citybrain_datasets.report import ImportReport

METRES = {"m": 1.0, "km": 1000.0, "mi": 1609.344}


def build_edges(
    spec: Edges,
    relation: str,
    published: tuple[list[str], list[str]],
    sources: pd.DataFrame,
    targets: pd.DataFrame,
    root: Path,
    report: ImportReport,
) -> pd.DataFrame:
    """The edge table of one relation between the kept ``sources`` and ``targets``.

    ``published`` are the ids of either side before any were left out: positions in a file count those.
    """
    if spec.nearest is not None:
        table = _nearest(spec.nearest, sources, targets, same=relation in ("road-road", "air-air"))
    elif spec.distances is not None:
        table = _distances(spec.distances, published, root)
    elif spec.adjacency is not None:
        table = _matrix(spec.adjacency, published, root)
    else:
        assert spec.sensor_graph is not None  # Edges holds exactly one
        table = _sensor_graph(spec.sensor_graph, root)
    inside = table["source"].isin(sources.index) & table["target"].isin(targets.index)
    if (~inside).any():
        what = f"{(~inside).sum()} of {len(inside)} published edges lead to places that are not in the city"
        report.add("note", "edges", f"edges {relation}", what)
    table = table[inside].drop_duplicates(["source", "target"]).reset_index(drop=True)
    table = _measured(table, sources, targets, _link_m(spec), relation)
    if spec.distances is not None and spec.distances.k is not None:
        ranked = table.sort_values(["target", "distance_m", "source"]).groupby("target").head(spec.distances.k)
        table = ranked.sort_index().reset_index(drop=True)
    return table[["source", "target", "distance_m", "bearing_deg"]]


def _link_m(spec: Edges) -> float | None:
    named = spec.adjacency or spec.sensor_graph
    return None if named is None else named.link_m


def _measured(
    table: pd.DataFrame, sources: pd.DataFrame, targets: pd.DataFrame, link_m: float | None, relation: str
) -> pd.DataFrame:
    """Adds the bearing, and the length where the file gave none."""
    here = sources.loc[table["source"], ["lat", "lon"]].to_numpy(np.float64)
    there = targets.loc[table["target"], ["lat", "lon"]].to_numpy(np.float64)
    table["bearing_deg"] = bearing_deg(here[:, 0], here[:, 1], there[:, 0], there[:, 1])
    away = great_circle_m(here[:, 0], here[:, 1], there[:, 0], there[:, 1])
    length = table["distance_m"].to_numpy(np.float64)
    length = np.where(np.isnan(length), away, length)
    if link_m is not None:
        length = np.where(np.isnan(length), link_m, length)
    unknown = np.flatnonzero(np.isnan(length))
    if len(unknown):
        what = "has no length: neither places nor link_m are given"
        raise CityError([Problem(f"edges {relation}", what, str(unknown[0] + 1), "distance_m")])
    return table.assign(distance_m=length)


def _distances(spec: Distances, published: tuple[list[str], list[str]], root: Path) -> pd.DataFrame:
    path = open_files(root, spec.file)[0]
    frame = read_frame(spec, path, text=True)
    ends = {}
    for side, known in zip(("source", "target"), published, strict=True):
        ids = as_ids(column(frame, spec.columns[side], path))  # type: ignore[index]  # mypy loses the literals
        ids = rename_ids(spec.rename, ids, root)
        ends[side] = ids if spec.by == "id" else _by_position(ids, known, path, side)
    name = spec.columns["distance"]
    length = numbers(column(frame, name, path), str(path), name) * METRES[spec.unit]
    wrong = np.flatnonzero(~(length >= 0))
    if len(wrong):
        raise CityError([Problem(str(path), f"{length[wrong[0]]} is no distance", str(wrong[0] + 1), name)])
    table = pd.DataFrame({**ends, "distance_m": length}).astype({"source": "str", "target": "str"})
    if spec.both_ways:
        table = pd.concat([table, table.rename(columns={"source": "target", "target": "source"})], ignore_index=True)
    if spec.max_distance_m is not None:
        table = table[table["distance_m"] <= spec.max_distance_m]
    return table if spec.self_loops == "keep" else table[table["source"] != table["target"]]


def _by_position(values: list[str], known: list[str], path: Path, side: str) -> list[str]:
    for row, value in enumerate(values, start=1):
        if not value.isdigit() or int(value) >= len(known):
            raise CityError([Problem(str(path), f"{value!r} is no position below {len(known)}", str(row), side)])
    return [known[int(value)] for value in values]


def _matrix(spec: Adjacency, published: tuple[list[str], list[str]], root: Path) -> pd.DataFrame:
    path = open_files(root, spec.file)[0]
    if path.suffix in (".npy", ".npz"):
        matrix = np.asarray(load_array(path))
    else:
        try:
            matrix = pd.read_csv(path, header=None, sep=spec.delimiter).to_numpy(np.float64)
        except (OSError, ValueError) as error:
            raise CityError([Problem(str(path), f"cannot be read as a matrix: {error}")]) from error
    return _from_matrix(matrix, *published, str(path), spec.self_loops == "keep")


def _sensor_graph(spec: SensorGraph, root: Path) -> pd.DataFrame:
    path = open_files(root, spec.file)[0]
    ids, matrix = read_sensor_graph(path)
    return _from_matrix(matrix, ids, ids, str(path), spec.self_loops == "keep")


def _from_matrix(
    matrix: np.ndarray, sources: list[str], targets: list[str], where: str, keep_loops: bool
) -> pd.DataFrame:
    if matrix.shape != (len(sources), len(targets)):
        raise CityError([Problem(where, f"is {matrix.shape}, must be {(len(sources), len(targets))}: a row a place")])
    rows, columns = np.nonzero(np.nan_to_num(matrix))
    if not keep_loops:
        rows, columns = rows[rows != columns], columns[rows != columns]
    return _table([sources[i] for i in rows], [targets[i] for i in columns])


def _nearest(spec: Nearest, sources: pd.DataFrame, targets: pd.DataFrame, same: bool) -> pd.DataFrame:
    index, metres = nearest(
        targets["lat"].to_numpy(), targets["lon"].to_numpy(),
        sources["lat"].to_numpy(), sources["lon"].to_numpy(), spec.k, skip_self=same,
    )  # fmt: skip
    limit = np.inf if spec.max_distance_m is None else spec.max_distance_m
    rows, ranks = np.nonzero((index >= 0) & (metres <= limit))
    names = np.asarray(sources.index)
    return _table(names[index[rows, ranks]].tolist(), np.asarray(targets.index)[rows].tolist(), metres[rows, ranks])


def _table(sources: list[str], targets: list[str], metres: np.ndarray | float = np.nan) -> pd.DataFrame:
    table = pd.DataFrame({"source": sources, "target": targets}).astype("str")
    table["distance_m"] = np.broadcast_to(np.asarray(metres, dtype=np.float64), len(table))
    return table
