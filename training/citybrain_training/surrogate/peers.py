"""What the surrogate is measured beside: a linear model of the measures, and a static assignment of the traffic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.scenarios.actions import WARM_UP, Actions, compile_actions
from citybrain_datasets.scenarios.air import AirStep
from citybrain_datasets.scenarios.dataset import Run
from citybrain_datasets.scenarios.site import WARM_UP_S
from citybrain_datasets.scenarios.trips import apply_to_trips
from citybrain_models.surrogate.network import EMISSION_RATE, RoadNetwork
from citybrain_models.surrogate.routes import Streets, grow, load
from citybrain_training.surrogate.judging import Judge, truth
from citybrain_training.surrogate.runs import Study

RIDGE = 1.0
ROUNDS = 12
"""Rounds of successive averages, after which flows change by a few per cent."""


def linear(train: Study, step: AirStep) -> Judge:
    """Ridge regression of each outcome's change on the measures: every lever channel, summed over the city with the
    usual traffic and the usual congestion of each segment as weights."""
    true = truth(train, step)
    rows = _summary(train)
    size = np.maximum(rows.std(axis=0), 1e-9)
    x = rows / size
    inverse = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T)
    names = [name for name in true if true[name].notna().all()]
    weights = inverse @ true[names].to_numpy()

    def say(study: Study, _: AirStep) -> pd.DataFrame:
        return pd.DataFrame(_summary(study) / size @ weights, columns=names)

    return say


def assignment(study: Study, _: AirStep) -> pd.DataFrame:
    """Static user equilibrium with BPR travel times (t = t₀ (1 + 0.15 (v/c)⁴)) by the method of successive averages,
    on the very trips of each run, and of its base. It says the delay and, at a fixed rate a kilometre, the emission."""
    bases = {run.replication: run for run in study.runs}
    before = {r: _assigned(study, run, acted=False) for r, run in bases.items()}
    rows = []
    for run in study.runs:
        after = _assigned(study, run, acted=True)
        rows.append({name: after[name] - before[run.replication][name] for name in after})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Roads:
    free: np.ndarray
    capacity: np.ndarray
    closed: np.ndarray


def _assigned(study: Study, run: Run, acted: bool) -> dict[str, float]:
    site, network = study.site, study.network
    trips = site.trips(run.replication, run.window)
    roads = _Roads(
        network.length_m / network.free_speed_kmh * 3.6, network.capacity_veh_h, np.zeros(len(network.ids), bool)
    )
    if acted:
        actions = compile_actions(run.scenario, site.city, run.window)
        trips = apply_to_trips(trips, actions, site.segments)
        roads = _under(actions, network)
    made = trips[trips["depart"] >= WARM_UP_S]
    ids = site.segments.index
    hours = (run.window.end - run.window.begin) / 60
    pairs = np.zeros((len(ids), len(ids)))
    np.add.at(pairs, tuple(ids.get_indexer(pd.Index(made[end])) for end in ("origin", "destination")), 1 / hours)
    flow = np.zeros(len(ids))
    connections = network.connections[~roads.closed[network.connections].any(axis=1)]
    for number in range(ROUNDS):
        seconds = roads.free * (1 + 0.15 * (flow / roads.capacity) ** 4)
        wanted = load(grow(Streets(connections, seconds), np.arange(len(ids))), pairs[..., None]).sum(axis=(0, 2))
        flow += (wanted - flow) / (number + 1)
    seconds = roads.free * (1 + 0.15 * (flow / roads.capacity) ** 4)
    usual = network.length_m / network.free_speed_kmh * 3.6
    driven = flow * network.length_m / 1000 * hours
    return {
        "delay_veh_h": float((flow * (seconds - usual)).sum() / 3600 * hours),
        "travelled_veh_km": float(driven.sum()),
        "emission_kg": float(driven.sum() * EMISSION_RATE / 1000),
    }


def _under(actions: Actions, network: RoadNetwork) -> _Roads:
    """Streets under a scenario, on the average of the window."""
    shut = np.minimum(actions.lanes_closed[WARM_UP:] / network.lanes, 1).mean(axis=0)
    limit = actions.limit_kmh[WARM_UP:].mean(axis=0)
    capacity = network.capacity_veh_h * np.maximum(1 - shut, 0.05) / np.maximum(actions.signals, 0.1) ** 0.5
    return _Roads(network.length_m / limit * 3.6, capacity, shut >= 1)


def _summary(study: Study) -> np.ndarray:
    levers = study.arrays["levers"]
    base = study.arrays["base"]
    weights = [np.ones(base.shape[:-1]), base[..., 0] / 1000, base[..., 1] / 10]
    return np.concatenate([np.einsum("bst,bstc->bc", w, levers) for w in weights], axis=1)
