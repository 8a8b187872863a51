"""From a city and a configuration to all that a training needs, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, ConfigError, Problem
from citybrain_datasets.features import Features
from citybrain_datasets.graph import given_free_speed, graph_arrays, static_attributes
from citybrain_datasets.neighbourhood import Neighbourhood
from citybrain_datasets.statistics import Statistics
from citybrain_datasets.task import Task, default_task
from citybrain_datasets.windows import WindowSource
from citybrain_models.bundle import LEARNT_FROM
from citybrain_training.config import SplitConfig, TrainConfig
from citybrain_training.traffic_ahead import TrafficAhead

GROUND = "ground"
"""Where a checkpoint keeps :attr:`Preparation.ground`."""


@dataclass(frozen=True)
class Split:
    """Issue times of the windows of each part."""

    train: pd.DatetimeIndex
    validate: pd.DatetimeIndex
    test: pd.DatetimeIndex


@dataclass(frozen=True)
class Preparation:
    """A city made ready for one task.

    ``sensed``, bool ``[node]``, are the target's nodes with a measurement in the training part; the others borrow
    their weekly profile from them. ``strange`` are the static attributes that each node would have without a sensor.
    """

    city: City
    task: Task
    config: TrainConfig
    statistics: Statistics
    features: Features
    source: WindowSource
    graph: dict[str, np.ndarray]
    split: Split
    neighbourhood: Neighbourhood
    sensed: np.ndarray
    strange: np.ndarray

    @property
    def spans(self) -> dict[str, list[str]]:
        """First and last issue time of the windows that are trained, and of those that are chosen and calibrated,
        with."""
        parts = {"train": self.split.train, "validate": self.split.validate}
        return {name: [issues[0].isoformat(), issues[-1].isoformat()] for name, issues in parts.items()}

    @property
    def ground(self) -> dict[str, Any]:
        """What weights are worth nothing without: the windows that they were learnt from, and the scale of the target
        there."""
        scaler = self.statistics.scalers[self.task.target]
        return {LEARNT_FROM: self.spans, "mean": float(scaler.mean), "std": float(scaler.std)}


def task_of(city: City, name: str, config: TrainConfig) -> Task:
    """The city's default task with the configuration's changes. Raises :class:`ConfigError` or :class:`CityError`."""
    default = default_task(city, name)
    try:
        task = Task.model_validate({**default.model_dump(), **config.task})
    except ValidationError as error:
        lines = [f"task.{'.'.join(map(str, e['loc'])) or '*'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    task.check(city)
    return task


def prepare(city: City, name: str, config: TrainConfig) -> Preparation:
    """Cuts the city to the configured period, splits it, and fits statistics on the training part only."""
    city = city.between(_utc(config.split.first), _utc(config.split.last))
    task = task_of(city, name, config)
    placing = {s: signal.node for s, signal in city.signals.items()}
    calendar = Calendar(city.timezone, city.country)
    # A window source needs features, features need statistics, statistics need the split, the split needs a clock only.
    times = WindowSource.of_city(Features(task, Statistics({}, {}), calendar, placing), city).issues()
    split = split_windows(times, task, config.split)
    until = split.train[-1] + task.horizon * task.step
    city = with_free_speed(city, until)
    near = Neighbourhood.of(city, task.node, config.network.neighbours)
    sensed = np.isfinite(city.signals[task.target].between(None, until).values).any(axis=0)
    fitted = Statistics.fit(city, task, until, weekly=config.network.profile)
    statistics = fitted.lent(task.target, near, ~sensed, sensed)
    features = Features(task, statistics, calendar, placing)
    source = WindowSource.of_city(features, city)
    _check_measured(source, split)
    if task.context_ahead is not None:
        source = TrafficAhead(source, split.train)
    graph = graph_arrays(city, task, statistics, config.network.neighbours, sensed)
    if not config.network.graph:
        graph = {k: v for k, v in graph.items() if k.startswith(("static_", "sensed_"))}
    everyone = fitted.lent(task.target, near, np.ones_like(sensed), sensed)
    strange = static_attributes(without_measured_speed(city), task.node, task, everyone, np.zeros_like(sensed))
    return Preparation(city, task, config, statistics, features, source, graph, split, near, sensed, strange)


def with_free_speed(city: City, until: pd.Timestamp) -> City:
    """Gives roads without a free-flow speed the 85th percentile of what was measured there up to ``until``, the usual
    stand-in, and marks them ``free_speed_measured``."""
    roads = city.nodes.get("road")
    speed = city.signals.get("speed")
    if roads is None or speed is None or ("free_speed_kmh" in roads and roads["free_speed_kmh"].notna().all()):
        return city
    values = speed.between(None, until).values
    seen = np.isfinite(values).any(axis=0)
    measured = pd.Series(np.nan, roads.index)
    measured[seen] = np.nanpercentile(values[:, seen], 85, axis=0)
    given = roads.get("free_speed_kmh", pd.Series(np.nan, roads.index))
    marks = roads.get("free_speed_measured", pd.Series(False, roads.index)) | (given.isna() & seen)
    filled = roads.assign(free_speed_kmh=given.fillna(measured), free_speed_measured=marks)
    return city.replace(nodes={**city.nodes, "road": filled})


def without_measured_speed(city: City, at: np.ndarray | None = None) -> City:
    """Takes the free-flow speeds that :func:`with_free_speed` derived away again: from all roads, or from those ``at``,
    bool ``[node]``."""
    roads = city.nodes.get("road")
    if roads is None or "free_speed_kmh" not in roads:
        return city
    given, speed = given_free_speed(roads), roads["free_speed_kmh"].to_numpy(float)
    kept = given if at is None else np.where(at, given, speed)
    return city.replace(nodes={**city.nodes, "road": roads.assign(free_speed_kmh=kept)})


def split_windows(times: pd.DatetimeIndex, task: Task, config: SplitConfig) -> Split:
    """Splits issue times, which may be finer than the task's step: the protocol's windows start at the first."""
    stepped = times[(times - times[0]) % task.step == pd.Timedelta(0)] if len(times) else times
    reach = task.horizon * task.step
    if isinstance(config.train, datetime) and isinstance(config.validate_, datetime):
        train_end, validate_end = _utc(config.train), _utc(config.validate_)
        assert train_end is not None
        assert validate_end is not None
        train = stepped[stepped + reach <= train_end]
        validate = stepped[(stepped >= train_end) & (stepped + reach <= validate_end)]
        test = stepped[stepped >= validate_end]
    else:
        assert isinstance(config.train, float)
        assert isinstance(config.validate_, float)
        # Rounding as the field does it: test first, so that published splits come out to the window.
        test_count = round(len(stepped) * (1 - config.train - config.validate_))
        train_count = round(len(stepped) * config.train)
        train = stepped[:train_count]
        validate, test = stepped[train_count : len(stepped) - test_count], stepped[len(stepped) - test_count :]
    if not (len(train) and len(validate) and len(test)):
        found = f"{len(train)} / {len(validate)} / {len(test)}"
        raise CityError([Problem("split", f"train / validate / test have {found} windows; each needs at least one")])
    if config.every_tick:
        train = times[times <= train[-1]]
    return Split(train, validate, test)


def _check_measured(source: WindowSource, split: Split) -> None:
    """Raises :class:`CityError` for a part in which nothing was measured: nothing could be learnt, chosen or scored."""
    task = source.task
    for part, issues in vars(split).items():
        first, last = issues[0] + task.step, issues[-1] + task.horizon * task.step
        if not np.isfinite(source.target.between(first, last).values).any():
            what = f"has no value in the {part} windows, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
            raise CityError([Problem(f"signal {task.target}", f"{what}; split: first, last and its parts say which")])


def _utc(time: datetime | None) -> pd.Timestamp | None:
    if time is None:
        return None
    stamp = pd.Timestamp(time)
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")
