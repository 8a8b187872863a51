"""Is a city fit to learn from? Every doubt is a finding that names its signal, node and time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from citybrain_datasets.city import RELATIONS, City
from citybrain_datasets.clock import shifts
from citybrain_datasets.errors import CityError
from citybrain_datasets.geo import great_circle_m
from citybrain_datasets.importing import import_city
from citybrain_datasets.node_order import node_order
from citybrain_datasets.report import Finding
from citybrain_datasets.runs import Runs, find_runs
from citybrain_datasets.signals import Signal
from citybrain_datasets.store import EMBEDDED, city_folder, load_city

MUCH_MISSING = 0.5
FAR_M = 250_000.0
"""A place this far from the middle of its city is a mistyped or swapped coordinate."""


@dataclass(frozen=True)
class SignalSummary:
    """What one signal looks like: times in UTC, lengths in hours, extremes in the stored unit."""

    name: str
    node: str
    nodes: int
    step: str
    first: str
    last: str
    missing: float
    silent_nodes: int
    longest_gap_h: float
    stuck_nodes: int
    out_of_range: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CityReport:
    """All that was found in one city."""

    city: str
    signals: list[SignalSummary]
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "city": self.city,
            "ok": not self.errors,
            "signals": {summary.name: summary.__dict__ for summary in self.signals},
            "findings": [finding.as_dict() for finding in self.findings],
        }


def open_city(source: str, root: Path | None = None) -> tuple[City, list[Finding]]:
    """A city by folder, ``embedded``, a YAML or a packaged name, and what its import noticed."""
    folder = city_folder(source)
    if not (folder / "city.yaml").is_file() and not folder.is_dir() and source != EMBEDDED:
        city, report = import_city(source, root)
        return city, report.findings
    city = load_city(source)
    kept = folder / "import.json"
    if not kept.is_file():
        return city, []
    try:
        return city, [Finding(**entry) for entry in json.loads(kept.read_bytes())["findings"]]
    except (ValueError, KeyError, TypeError) as error:
        return city, [Finding("warning", "import", str(kept), f"cannot be read: {error}")]


def check(source: str, root: Path | None = None) -> CityReport:
    """Checks a city. One that cannot even be opened is a report of errors, not an exception."""
    try:
        city, findings = open_city(source, root)
        return check_city(city, findings)
    except CityError as error:
        found = [Finding("error", "contract", p.where, p.what, p.row, p.column) for p in error.problems]
        return CityReport(source, [], found)


def check_city(city: City, noticed: list[Finding] | None = None) -> CityReport:
    """Checks a city in memory; ``noticed`` is what its import already found."""
    findings = list(noticed or [])
    summaries = []
    for signal in city.signals.values():
        runs = find_runs(signal)
        findings += _signal_findings(city, signal, runs)
        summaries.append(_summary(signal, runs))
    findings += _isolated(city)
    findings += _misplaced(city)
    findings += node_order(city)
    rank = {"error": 0, "warning": 1, "note": 2}
    return CityReport(city.name, summaries, sorted(dict.fromkeys(findings), key=lambda f: rank[f.severity]))


def _summary(signal: Signal, runs: Runs) -> SignalSummary:
    hours = signal.step / pd.Timedelta(hours=1)
    reporting = runs.measured > 0
    return SignalSummary(
        name=signal.name,
        node=signal.node,
        nodes=signal.shape[1],
        step=f"{signal.step / pd.Timedelta(minutes=1):g} min",
        first=signal.start.isoformat(),
        last=signal.end.isoformat(),
        missing=round(1 - float(runs.measured.sum()) / max(1, signal.shape[0] * signal.shape[1]), 6),
        silent_nodes=int((~reporting).sum()),
        longest_gap_h=round(float(runs.gap[reporting].max(initial=0)) * hours, 2),
        stuck_nodes=int((runs.stuck > 0).sum()),
        out_of_range=runs.outside,
        low=runs.low if np.isfinite(runs.low) else None,
        high=runs.high if np.isfinite(runs.high) else None,
    )


def _signal_findings(city: City, signal: Signal, runs: Runs) -> Iterator[Finding]:
    where = f"signal {signal.name}"
    ids = city.ids(signal.node)
    if not runs.measured.any():
        yield Finding("error", "missing", where, "has no value at all")
        return
    if runs.outside_at is not None:
        row, node = runs.outside_at
        kind = signal.kind
        what = f"{runs.outside} values are outside {kind.low:g}–{kind.high:g} {kind.unit}"
        yield Finding("error", "out-of-range", where, what, str(signal.times[row]), ids[node])
    silent = np.flatnonzero(runs.measured == 0)
    if len(silent):
        what = f"{len(silent)} of {len(ids)} nodes never report: {_some(ids, silent)}"
        yield Finding("warning", "never-reports", where, what, column=ids[silent[0]])
    share = 1 - runs.measured / max(1, signal.shape[0])
    poor = np.flatnonzero((share > MUCH_MISSING) & (runs.measured > 0))
    if len(poor):
        what = f"{len(poor)} nodes lack more than {MUCH_MISSING:.0%} of their values: {_some(ids, poor)}"
        yield Finding("warning", "missing", where, what, column=ids[poor[0]])
    if runs.outage * signal.step >= pd.Timedelta(days=1):
        what = f"no node reports for {runs.outage * signal.step}"
        yield Finding("warning", "gap", where, what, str(signal.times[runs.outage_end]))
    stuck = np.flatnonzero(runs.stuck)
    if len(stuck):
        worst = stuck[np.argmax(runs.stuck[stuck])]
        what = f"{len(stuck)} nodes stand still while others move, longest {runs.stuck[worst] * signal.step}"
        end = str(signal.times[runs.stuck_end[worst]])
        yield Finding("warning", "stuck", where, f"{what}: {_some(ids, stuck)}", end, ids[worst])
    yield from _skipped_hours(city, signal)


def _skipped_hours(city: City, signal: Signal) -> Iterator[Finding]:
    """Hours that local clocks skip and are missing in UTC: local times were taken for UTC."""
    for shift in shifts(city.timezone, signal.start, signal.end):
        width = shift.last - shift.first
        if not shift.forward or signal.step > width:
            continue
        # Ends of the intervals inside the hour that never was, read as if local time were UTC.
        first, last = (t.tz_localize("UTC") for t in (shift.first, shift.last))
        tick = pd.Timedelta(1, "us")
        inside = signal.between(first + tick, last).rows(0, signal.shape[0])
        around = signal.between(first - width + tick, first).rows(0, signal.shape[0])
        if len(inside) and not np.isfinite(inside).any() and np.isfinite(around).any():
            what = f"is missing from {first} to {last}, an hour that local clocks skip: was local time read as UTC?"
            yield Finding("warning", "daylight-saving", f"signal {signal.name}", what, str(last))


def _isolated(city: City) -> Iterator[Finding]:
    for node in city.nodes:
        ids = city.ids(node)
        touched: set[str] = set()
        for relation, table in city.edges.items():
            for column, kind in zip(("source", "target"), RELATIONS[relation], strict=True):
                if kind == node:
                    touched |= set(table[column].astype(str))
        alone = [i for i, name in enumerate(ids) if name not in touched]
        if alone and len(ids) > 1:
            what = f"{len(alone)} of {len(ids)} nodes have no edge: {_some(ids, np.array(alone))}"
            yield Finding("warning", "isolated", f"nodes {node}", what, ids[alone[0]])


def _misplaced(city: City) -> Iterator[Finding]:
    for node, table in city.nodes.items():
        lat, lon = table["lat"].to_numpy(np.float64), table["lon"].to_numpy(np.float64)
        if not np.isfinite(lat).any():
            yield Finding("note", "places", f"nodes {node}", "places are not published")
            continue
        away = great_circle_m(lat, lon, float(np.nanmedian(lat)), float(np.nanmedian(lon)))
        for i in np.flatnonzero(away > FAR_M)[:5]:
            what = f"lies {away[i] / 1000:.0f} km from the middle of the city"
            yield Finding("warning", "places", f"nodes {node}", what, city.ids(node)[i])


def _some(ids: list[str], which: np.ndarray, most: int = 5) -> str:
    return ", ".join(ids[i] for i in which[:most]) + (" …" if len(which) > most else "")
