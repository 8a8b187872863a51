"""Problems of one snapshot, ranked: where, how likely, from when, at what cost, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from citybrain_datasets.signals import KINDS
from citybrain_datasets.statistics import week_slots
from citybrain_serving.encoding import local_day, utc
from citybrain_serving.features import plain
from citybrain_serving.fleet import Fleet
from citybrain_serving.indices.standards import Standard
from citybrain_serving.problems.causes import Cause, Causes, Scene
from citybrain_serving.problems.trouble import Trouble, trouble
from citybrain_serving.publication import Board
from citybrain_serving.snapshot import Forecast, Snapshot

FAINT = 0.2
"""Probability below which nothing is a problem."""

LIKELY = 0.5


@dataclass(frozen=True)
class Problem:
    """Trouble at one node. ``onset`` and ``until`` are the first and last step at which it is likely, None where no
    step is; ``peak`` the step at which it is most probable. Causes are looked for when somebody asks: at rush hour a
    large city has thousands of problems, and nobody reads them all."""

    task: str
    node: str
    row: int
    now: bool
    probability: float
    peak: pd.Timestamp
    onset: pd.Timestamp | None
    until: pd.Timestamp | None
    observed: float | None
    observed_at: pd.Timestamp | None
    limit: float
    cost: float | None
    unit: str
    standard: Standard
    issued: pd.Timestamp
    bundle: str
    look: Callable[[], list[Cause]] = field(repr=False, compare=False)

    @cached_property
    def causes(self) -> list[Cause]:
        return self.look()

    @property
    def severity(self) -> float:
        """What ranks problems of a task: expected cost, certain where it is there already; 0 where it is unknown."""
        return (self.cost or 0.0) * (1.0 if self.now else self.probability)


class Finder:
    """Finds problems in snapshots of one city."""

    def __init__(self, fleet: Fleet, board: Board):
        self.fleet = fleet
        self.board = board
        self.causes = Causes(fleet.city)
        self.placing = {name: channel.node for name, channel in fleet.channels.items()}

    def find(self, snapshot: Snapshot) -> Mapping[str, list[Problem]]:
        """Problems by task, the worst first."""
        latest: dict[str, np.ndarray] = {}
        measured: dict[str, np.ndarray] = {}
        # Of a signal that several tasks read, the one on the finest clock knows the newest value.
        for forecast in sorted(snapshot.forecasts.values(), key=lambda f: -f.task.step_minutes):
            for signal, values in forecast.latest.items():
                times = self.measured_at(forecast, signal)
                known = ~np.isnat(times)
                latest[signal] = np.where(known, values, latest.get(signal, np.nan))
                measured[signal] = np.where(known, times, measured.get(signal, times))
        return {name: self._of(forecast, latest, measured) for name, forecast in snapshot.forecasts.items()}

    def measured_at(self, forecast: Forecast, signal: str) -> np.ndarray:
        """When the newest value of a signal was measured, datetime64[s] ``[node]``; NaT where that is more than
        ``stale_steps`` of its steps ago, or unknown. Between its ticks a value holds: it is as old as its tick."""
        ticks = self.fleet.channels[signal].ticks
        step, tick, offset = (60 * m for m in (forecast.task.step_minutes, ticks.step_minutes, ticks.offset_minutes))
        issued, ages = int(forecast.issued.timestamp()), forecast.latest_age[signal]
        known = np.isfinite(forecast.latest[signal]) & np.isfinite(ages)
        seconds = issued - np.where(known, ages, 0).astype(np.int64) * step
        seconds = (seconds - offset) // tick * tick + offset
        known &= issued - seconds <= self.board.stale_steps * max(step, tick)
        return np.where(known, seconds.astype("datetime64[s]"), np.datetime64("NaT"))

    def _of(
        self, forecast: Forecast, latest: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray]
    ) -> list[Problem]:
        places = self.board.places[forecast.task.node]
        day = local_day(forecast.issued, self.fleet.city)
        found = trouble(forecast, places.table, self.board.free_speeds, self.board.stale_steps, day)
        if found is None:
            return []
        chance = found.chance.max(axis=1)
        rows = np.flatnonzero(found.now | (chance >= FAINT))
        severity = np.nan_to_num(found.cost, nan=0.0) * np.where(found.now, 1, chance)
        rows = rows[np.argsort(-severity[rows], kind="stable")]
        if not len(rows):
            return []
        scene = Scene(
            city=self.fleet.city,
            issued=forecast.issued,
            latest=latest,
            measured=measured,
            placing=self.placing,
            free=self.board.free_speeds,
            usual=self._usual(forecast),
        )
        return [self._problem(forecast, found, int(row), places.ids[row], scene) for row in rows]

    def _problem(self, forecast: Forecast, found: Trouble, row: int, node: str, scene: Scene) -> Problem:
        chance = found.chance[row]
        likely = np.flatnonzero(chance >= LIKELY)
        seen, cost = float(forecast.observed[row]), float(found.cost[row])
        look = self.causes.of_road if forecast.task.node == "road" else self.causes.of_station
        return Problem(
            task=forecast.task.name,
            node=node,
            row=row,
            now=bool(found.now[row]),
            probability=float(chance.max()),
            peak=forecast.times[int(chance.argmax())],
            onset=forecast.times[likely[0]] if len(likely) else None,
            until=forecast.times[likely[-1]] if len(likely) else None,
            observed=seen if np.isfinite(seen) else None,
            observed_at=forecast.observed_at(row),
            limit=float(found.limit[row]),
            cost=cost if np.isfinite(cost) else None,
            unit=found.unit,
            standard=found.standard,
            issued=forecast.issued,
            bundle=forecast.bundle,
            look=partial(look, node, scene),
        )

    def _usual(self, forecast: Forecast) -> np.ndarray:
        """The weekly profile of the target at the issue time, ``[node]``."""
        bundle = self.fleet.bundles[forecast.task.name]
        profile = bundle.statistics.profiles[forecast.task.target]
        calendar = bundle.features().calendar
        return profile.at(week_slots(calendar, pd.DatetimeIndex([forecast.issued]), profile.slot_minutes))[0]


def as_document(problem: Problem, board: Board) -> dict[str, Any]:
    """A problem as it is answered and filed."""
    onset = problem.issued if problem.now else problem.onset
    task = board.fleet.bundles[problem.task].task
    places = board.places[task.node]
    lat, lon = (plain(column[problem.row]) for column in places.coordinates)
    return {
        "task": problem.task,
        "id": problem.node,
        "name": places.text("name")[problem.row],
        "name_zh": places.text("name_zh")[problem.row],
        "owner": places.text("owner")[problem.row],
        "cell": places.text("cell")[problem.row],
        "lat": lat,
        "lon": lon,
        "now": problem.now,
        "probability": round(problem.probability, 3),
        "peak": utc(problem.peak),
        "onset": None if problem.onset is None else utc(problem.onset),
        "until": None if problem.until is None else utc(problem.until),
        "lead_minutes": None if onset is None else int((onset - problem.issued) / pd.Timedelta(minutes=1)),
        "observed": None if problem.observed is None else round(problem.observed, 2),
        "observed_at": None if problem.observed_at is None else utc(problem.observed_at),
        "limit": round(problem.limit, 2),
        "unit": KINDS[task.target].unit,
        "standard": problem.standard.id,
        "cost": None if problem.cost is None else float(f"{problem.cost:.4g}"),
        "cost_unit": problem.unit,
        "causes": [{"kind": cause.kind, "inputs": cause.inputs} for cause in problem.causes],
        "issued": utc(problem.issued),
        "bundle": problem.bundle,
    }
