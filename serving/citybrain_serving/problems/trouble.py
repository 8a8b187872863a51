"""When a node is in trouble: the limits, how likely they are passed, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from citybrain_models.events import POLLUTED, ROUNDED, probability_below
from citybrain_serving.indices import traffic
from citybrain_serving.indices.standards import GBT_33171, Standard, hj_633
from citybrain_serving.snapshot import Forecast

CONGESTED = 6.0
"""TPI from which a road is congested, moderately, by GB/T 33171-2016: below 0.4 of its free-flow speed. Benchmarks and
the gate score the onset below half of it (:data:`citybrain_models.events.CONGESTED_BELOW`); the standard's limit is for
problems and cases, which somebody has to see to."""


@dataclass(frozen=True)
class Trouble:
    """Trouble of one task at every node.

    ``limit [node]`` in the signal's unit; ``now [node]`` whether an observation of the present passes it; ``chance
    [node, horizon]`` the probability that the outcome does; ``cost [node]`` what the whole horizon is expected to cost,
    in ``unit``: time lost by everybody, or what is breathed above the limit; NaN where that cannot be told.
    """

    standard: Standard
    limit: np.ndarray
    now: np.ndarray
    chance: np.ndarray
    cost: np.ndarray
    unit: str


def trouble(forecast: Forecast, table: pd.DataFrame, free: np.ndarray, stale_steps: int, day: date) -> Trouble | None:
    """Trouble as a forecast sees it; None for a target that has no standard of trouble. ``table`` is the node table,
    ``free`` free-flow speeds ``[node]``, km/h; a reading of more than ``stale_steps`` steps tells nothing of now,
    and the standard of air is the one in force on ``day``."""
    seen = np.where(forecast.fresh(stale_steps), forecast.observed, np.nan)
    if forecast.task.target == "speed":
        return _congestion(forecast, seen, table, free)
    if forecast.task.target == "pm25":
        return _pollution(forecast, seen, table, hj_633(day))
    return None


def _congestion(forecast: Forecast, seen: np.ndarray, table: pd.DataFrame, free: np.ndarray) -> Trouble:
    limit = traffic.speed_at(CONGESTED, free)
    chance = probability_below(forecast.values, forecast.task.quantiles, limit[:, None])
    hours = forecast.task.step_minutes / 60
    # Time lost on a kilometre, in hours, against free flow; the mean of 1/v and not 1 over the mean of v.
    lost = _mean(np.maximum(1 / np.maximum(forecast.values, traffic.SLOWEST) - 1 / free[:, None, None], 0), forecast)
    flow, length = forecast.latest.get("flow"), table.get("length_m")
    if flow is not None and length is not None and np.isfinite(flow).any():
        vehicles = np.where(np.isfinite(flow), flow, np.nanmean(flow))
        cost, unit = (lost * hours).sum(axis=1) * vehicles * length.to_numpy(float) / 1000, "veh·h"
    else:
        cost, unit = lost.mean(axis=1) * 3600, "s/km/veh"
    return Trouble(GBT_33171, limit, _known(seen < limit, limit), _known(chance, limit), cost, unit)


def _pollution(forecast: Forecast, seen: np.ndarray, table: pd.DataFrame, standard: Standard) -> Trouble:
    limit = np.full(len(table), float(POLLUTED))
    chance = 1 - probability_below(forecast.values, forecast.task.quantiles, POLLUTED + ROUNDED)
    hours = forecast.task.step_minutes / 60
    above = _mean(np.maximum(forecast.values - POLLUTED, 0), forecast)
    cost, unit = (above * hours).sum(axis=1), "µg/m³·h"
    if "population" in table and np.isfinite(table["population"].to_numpy(float)).any():
        cost, unit = cost * table["population"].to_numpy(float), "person·µg/m³·h"
    return Trouble(standard, limit, np.rint(seen) > limit, chance, cost, unit)


def _mean(values: np.ndarray, forecast: Forecast) -> np.ndarray:
    """Mean over the distribution that quantiles ``[node, horizon, quantile]`` describe: each stands for the
    probability nearest to it."""
    levels = np.asarray(forecast.task.quantiles)
    edges = np.r_[0, (levels[1:] + levels[:-1]) / 2, 1]
    return np.asarray(values @ np.diff(edges))


def _known(values: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Nothing is claimed of a node whose limit is unknown."""
    known = np.isfinite(limit)
    return values & known if values.dtype == bool else np.where(known[:, None], values, 0)
