"""A city out of published files, by configuration alone.

YAML → places → rows as published → UTC ends on a regular clock, stored units → edges → City
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import RELATIONS, City
from citybrain_datasets.configuration import CityConfig, find_config, read_config, source_root
from citybrain_datasets.drafting import Draft, drafts_of
from citybrain_datasets.edges import build_edges
from citybrain_datasets.errors import CityError, NoSuchFileError, Problem
from citybrain_datasets.places import read_places, unplaced
from citybrain_datasets.report import ImportReport
from citybrain_datasets.signals import NodeType, Signal


def import_city(config: str | Path, root: Path | None = None) -> tuple[City, ImportReport]:
    """The city that a YAML (a path, or a packaged name) describes, and what was noticed on the way.

    Values are converted when they are read; a value that breaks its contract raises :class:`CityError` then.
    """
    path = find_config(config)
    city = read_config(path)
    try:
        return build_city(city, source_root(path, root), ImportReport(path.name))
    except NoSuchFileError as error:
        if city.source is None:
            raise
        raise NoSuchFileError([*error.problems, Problem(path.name, f"its files are from {city.source}")]) from None


def build_city(config: CityConfig, root: Path, report: ImportReport) -> tuple[City, ImportReport]:
    """As :func:`import_city`, from a validated configuration."""
    places: dict[NodeType, pd.DataFrame] = {
        node: read_places(spec, root) for node, spec in config.nodes.items() if spec.file
    }
    drafts = [draft for table in config.tables for draft in drafts_of(table, config.timezone, root, report)]
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
            raise CityError([Problem(f"edges {relation}", f"the city has no {' and no '.join(lacking)} nodes")])
        published = (list(places[source].index), list(places[target].index))
        edges[relation] = build_edges(how, relation, published, kept[source], kept[target], root, report)
    described = config.model_dump(include={"name", "timezone", "title", "country", "synthetic", "attribution"})
    city = City(**described, nodes=kept, edges=edges, signals={s.name: s for s in signals})
    Calendar(city.timezone, city.country)  # an unknown country is told here, not when training starts
    return city, report


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
