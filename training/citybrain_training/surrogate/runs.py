"""Simulated interventions as tensors: what the network reads and what it should have said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.scenarios.actions import WARM_UP, Window, compile_actions
from citybrain_datasets.scenarios.dataset import Run, read_runs
from citybrain_datasets.scenarios.outcomes import Traffic
from citybrain_datasets.scenarios.site import WARM_UP_S, Site, open_site
from citybrain_datasets.simulation.emissions import wear
from citybrain_models.surrogate.inputs import base_inputs, graph_inputs
from citybrain_models.surrogate.levers import Levers
from citybrain_models.surrogate.network import Base, RoadNetwork, SurrogateError, describe

DEMAND_DAYS = 4
"""Working days of trips from which a network's usual routes are read."""


@dataclass(frozen=True)
class Study:
    """Simulated runs of one road network.

    ``network`` and ``usual``, the mean base of working days, describe the place; ``arrays`` hold a row for each run:
    ``levers``, ``closed``, ``context``, ``base``, ``unit``, and ``change [run, segment, slot, signal]``, the truth.
    ``apart``, bool ``[run]``, marks those that were simulated for the intervals alone.
    """

    site: Site
    window: Window
    network: RoadNetwork
    usual: Base
    runs: tuple[Run, ...]
    arrays: dict[str, np.ndarray]
    graph: dict[str, np.ndarray]
    apart: np.ndarray

    def part(self, rows: np.ndarray) -> Study:
        """The same place with only some of the runs."""
        chosen = {name: array[rows] for name, array in self.arrays.items()}
        return replace(self, runs=tuple(self.runs[i] for i in rows), arrays=chosen, apart=self.apart[rows])

    @cached_property
    def scenario(self) -> np.ndarray:
        """Which runs are of the same scenario: its number, in order of appearance, ``[run]``."""
        numbers: dict[str, int] = {}
        keys = (run.scenario.model_dump_json() for run in self.runs)
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys])

    @property
    def delay(self) -> np.ndarray:
        """Change of the vehicle-hours of delay of each run, ``[run]``."""
        return delay_change(self.arrays["change"], self.network, self.usual.slot_seconds)


def delay_change(change: np.ndarray, network: RoadNetwork, slot_seconds: int) -> np.ndarray:
    """Vehicle-hours of delay from changes ``[…, segment, slot, signal]``: time spent, less what the same distance takes
    in free flow."""
    free = (network.length_m / 1000 / network.free_speed_kmh)[:, None]
    return (change[..., 1] - change[..., 0] * free).sum(axis=(-2, -1)) * slot_seconds / 3600


def read_study(folders: Sequence[Path] | Path, city: str | Path, apart: Sequence[Path] = ()) -> Study:
    """Every finished run of ``folders``, simulated on ``city``, and those of ``apart``, for the intervals alone.

    Raises :class:`SurrogateError` where there is none.
    """
    site = open_site(city)
    folders = [folders] if isinstance(folders, Path) else folders
    runs, more = (tuple(run for folder in some for run in read_runs(folder)) for some in (folders, apart))
    for found, some in ((runs, folders), (more, apart)):
        if some and not found:
            raise SurrogateError(f"{', '.join(map(str, some))}: no simulated run")
    return study_of(site, (*runs, *more), len(more))


def study_of(site: Site, runs: Sequence[Run], apart: int = 0) -> Study:
    """``apart`` of the runs, the last, are for the intervals alone."""
    window = runs[0].window.model_copy(update={"off": False})
    length = site.segments["length_m"].to_numpy(float)
    seconds = (window.end - window.begin) * 60 // window.steps
    bases = {run.replication: (run.base, run.window.off) for run in runs}
    working = [traffic for traffic, off in bases.values() if not off] or [traffic for traffic, _ in bases.values()]
    usual = Base.mean([Base.of(t, length, seconds) for t in working])
    trips = [site.trips(r, window) for r in range(DEMAND_DAYS)]
    network = describe(site.city, _in_window(trips), usual, signalled=site.signalled, days=DEMAND_DAYS)
    levers = Levers(site.city, network, window.timetable())
    read: dict[int, Base] = {r: Base.of(t, length, seconds) for r, (t, _) in bases.items()}
    inputs = {r: base_inputs(network, base) for r, base in read.items()}
    rows: dict[str, list[np.ndarray]] = {n: [] for n in ("levers", "closed", "context", "base", "unit", "change")}
    for run in runs:
        base = read[run.replication]
        said = levers([run.scenario], base.flow, run.window.off)
        after = Base.of(_as_usual_engines(run, site), length, seconds)
        row = {"levers": said.levers[0], "closed": said.closed[0], **inputs[run.replication]}
        row["change"] = after.signals - base.signals
        for name, values in rows.items():
            values.append(row[name])
    arrays = {name: np.stack(values) for name, values in rows.items()}
    last = np.arange(len(runs)) >= len(runs) - apart
    return Study(site, window, network, usual, tuple(runs), arrays, graph_inputs(network), last)


@dataclass(frozen=True)
class Parts:
    """The runs of a study, no scenario in two parts: to train on, to choose the best epoch by, to fit the intervals
    on, and to test on."""

    train: Study
    validate: Study
    calibrate: Study
    test: Study

    @property
    def counts(self) -> dict[str, int]:
        """Scenarios of each part."""
        return {f.name: len(set(getattr(self, f.name).scenario)) for f in fields(self)}


ONCE, OFTEN = (0.9, 0.1), (1 / 3, 2 / 3)
"""Shares of the scenarios: those simulated once train and choose, those simulated on several mornings calibrate and
test, because it is the expected change that intervals and figures are about."""
ALL = (0.6, 0.1, 0.1, 0.2)
"""Shares where no scenario was simulated on several mornings."""


def parts(study: Study, seed: int = 0) -> Parts:
    """Draws the parts at random; the same study and seed give the same, whatever was simulated for the intervals alone.

    Raises :class:`SurrogateError` where that is not like what is tested on: the same scenarios, or other numbers of
    mornings, whose means are more or less noisy.
    """
    repeated = np.bincount(study.scenario)[study.scenario] > 1
    kinds = (~repeated & ~study.apart, repeated & ~study.apart, study.apart)
    once, often, more = (study.part(np.flatnonzero(rows)) for rows in kinds)
    drawn = Parts(*(*split(once, ONCE, seed), *split(often, OFTEN, seed)) if often.runs else split(once, ALL, seed))
    if not more.runs:
        return drawn
    if np.isin(study.scenario[study.apart], study.scenario[~study.apart]).any():
        raise SurrogateError("a scenario simulated for the intervals alone is among the others as well")
    if (have := mornings(more)) != (wanted := mornings(drawn.test)):
        raise SurrogateError(f"runs for the intervals are of {have} mornings a scenario, those tested on of {wanted}")
    return replace(drawn, calibrate=_together(drawn.calibrate, more))


def mornings(study: Study) -> str:
    """On how many mornings each scenario was simulated: ``8``, or ``1–8`` where they differ."""
    each = np.bincount(study.scenario)
    return f"{each.min()}" if each.min() == each.max() else f"{each.min()}–{each.max()}"


def _together(first: Study, second: Study) -> Study:
    arrays = {name: np.concatenate([array, second.arrays[name]]) for name, array in first.arrays.items()}
    runs, apart = (*first.runs, *second.runs), np.concatenate([first.apart, second.apart])
    return replace(first, runs=runs, arrays=arrays, apart=apart)


def split(study: Study, shares: tuple[float, ...], seed: int = 0) -> Iterator[Study]:
    """Parts of the scenarios, drawn at random, whose shares add up to 1."""
    count = int(study.scenario.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(count)
    edges = np.round(np.cumsum((0.0, *shares)) * count).astype(int)
    for first, last in pairwise(edges):
        yield study.part(np.flatnonzero(np.isin(study.scenario, order[first:last])))


def _as_usual_engines(run: Run, site: Site) -> Traffic:
    """The run's traffic with the exhaust of usual engines. A measure on exhaust alone is applied after the network."""
    exhaust = compile_actions(run.scenario, site.city, run.window).exhaust[WARM_UP:]
    traffic = run.traffic
    if (exhaust == 1).all():
        return traffic
    worn = wear(traffic.speed, traffic.flow * site.segments["length_m"].to_numpy(float) / 1000)
    return Traffic(traffic.speed, traffic.flow, worn + np.maximum(traffic.emission - worn, 0) / exhaust)


def _in_window(days: list[pd.DataFrame]) -> pd.DataFrame:
    trips = pd.concat(days, ignore_index=True)
    trips = trips.assign(depart=trips["depart"] - WARM_UP_S)
    return trips[trips["depart"] >= 0]
