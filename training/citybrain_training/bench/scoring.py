"""All that one run's test forecasts are reduced to: scores, sums by day, coverage by group, events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from citybrain_datasets.windows import WindowSource
from citybrain_models.events import Events
from citybrain_models.forecaster import Forecaster
from citybrain_models.metrics import Scores
from citybrain_training.bench.cases import Case
from citybrain_training.bench.groups import PARTS_OF_DAY, Groups, Table
from citybrain_training.events import free_speed
from citybrain_training.preparation import Preparation


@dataclass(frozen=True)
class Result:
    """``scores[lead][metric]`` in the protocol's unit; ``days[date] = [sum of absolute errors, count]`` over all leads
    of the windows issued on that local day; ``coverage[lead][part of day]``; ``events[name][metric]``;
    ``reliability[name]`` rows of forecasts, mean probability and share of outcomes; ``groups`` as
    :meth:`~citybrain_training.bench.groups.Groups.table` has them, in the protocol's unit."""

    scores: dict[str, dict[str, float]]
    days: dict[str, list[float]]
    coverage: dict[str, dict[str, float]]
    events: dict[str, dict[str, float]]
    reliability: dict[str, list[list[float]]]
    groups: Table

    def plain(self) -> dict[str, Any]:
        return dict(vars(self))


def score_test(
    forecaster: Forecaster, preparation: Preparation, case: Case, dependence: float = 0.0, batch: int = 64
) -> Result:
    """Scores a forecaster on the test windows, once, in one pass. ``dependence`` is that of
    :func:`~citybrain_training.events.learnt_dependence`."""
    task, source, city = preparation.task, preparation.source, preparation.city
    scores, events = Scores(task), Events(task, free_speed(city), dependence)
    groups = Groups(task, city, case.per)
    days: dict[str, list[float]] = {}
    inside, count = np.zeros((2, task.horizon, len(PARTS_OF_DAY)))
    for first in range(0, len(preparation.split.test), batch):
        issues = preparation.split.test[first : first + batch]
        window = source.window(issues)
        forecast, truth = forecaster.forecast(window), source.answer(issues).transpose(0, 2, 1)
        events.add(window, forecast, truth)
        scores.add(forecast / case.per, truth / case.per)
        _add_days(days, issues.tz_convert(city.timezone), np.abs(forecast[..., task.median] - truth) / case.per)
        hour = hours(source, issues, city.timezone)
        add_groups(inside, count, forecast, truth, _quarter(hour))
        groups.add(window, forecast, truth, hour)
    return Result(
        scores=scores.table(),
        days=days,
        coverage={
            task.lead_label(lead): {
                part: float(inside[lead, i] / count[lead, i]) for i, part in enumerate(PARTS_OF_DAY) if count[lead, i]
            }
            for lead in range(task.horizon)
        },
        events={name: table for name, counts in events.counts.items() if (table := counts.table())},
        reliability={name: counts.reliability() for name, counts in events.counts.items()},
        groups=groups.table(),
    )


def _add_days(days: dict[str, list[float]], local: pd.DatetimeIndex, error: np.ndarray) -> None:
    for day, rows in pd.Series(range(len(local))).groupby(local.strftime("%Y-%m-%d")):
        part = error[rows.to_numpy()]
        sums = days.setdefault(str(day), [0.0, 0.0])
        sums[0] += float(np.nansum(part, dtype=np.float64))
        sums[1] += float(np.isfinite(part).sum())


def quarters(source: WindowSource, issues: pd.DatetimeIndex, timezone: str) -> np.ndarray:
    """Quarter of the local day, int ``[batch, horizon]``, in which each forecast step ends."""
    return _quarter(hours(source, issues, timezone))


def _quarter(hour: np.ndarray) -> np.ndarray:
    return hour * len(PARTS_OF_DAY) // 24


def hours(source: WindowSource, issues: pd.DatetimeIndex, timezone: str) -> np.ndarray:
    """Hour of the local day, int ``[batch, horizon]``, in which each forecast step ends: the mean from 05:00 to 06:00
    counts in the hour that begins at 06:00, as calibration takes it."""
    task = source.task
    leads = np.arange(1, task.horizon + 1) * task.step.to_numpy()
    ticks = pd.DatetimeIndex((issues.tz_convert(None).to_numpy()[:, None] + leads).ravel(), tz="UTC")
    return np.asarray(ticks.tz_convert(timezone).hour).reshape(len(issues), task.horizon)


def add_groups(
    inside: np.ndarray, count: np.ndarray, forecast: np.ndarray, truth: np.ndarray, parts: np.ndarray
) -> None:
    """Adds the outcomes inside the outer quantiles, and all outcomes, to sums ``[horizon, part of the day]``."""
    known = np.isfinite(truth)
    within = known & (forecast[..., 0] <= truth) & (truth <= forecast[..., -1])
    leads = np.broadcast_to(np.arange(parts.shape[1]), parts.shape)
    np.add.at(inside, (leads, parts), within.sum(axis=1))
    np.add.at(count, (leads, parts), known.sum(axis=1))
