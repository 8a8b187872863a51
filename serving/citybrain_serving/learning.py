"""What outcomes teach the quantiles of each model, each lead as soon as it has ended, kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pandas as pd
import sqlalchemy as sa

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.signals import Ticks
from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle
from citybrain_models.calibration import PARTS, Calibration
from citybrain_models.learning import OnlineCalibration
from citybrain_serving.database import transaction
from citybrain_serving.history import History
from citybrain_serving.inputs import sampled
from citybrain_serving.store import ObservationStore
from citybrain_serving.tables import calibrations

TAUGHT_BY = 2_000
"""Nodes, evenly taken, whose outcomes count: all share their shifts, and so many tell them well enough."""


@dataclass(frozen=True)
class Learning:
    """``rate`` by which outcomes move the quantiles of a model, 0 for never; ``patience`` how long an outcome waits for
    late observations before it counts."""

    rate: float
    patience: pd.Timedelta


@dataclass(frozen=True)
class _State:
    """Shifts that were learnt, and the end of the last step that they know."""

    learnt: Calibration
    until: pd.Timestamp | None


class Teacher:
    """Moves the quantiles of bundles by what became of their forecasts.

    What was learnt and until when is one row of the store, so that an outcome counts once whatever restarts or takes
    over; forecasts are read back from the history. ``ticks`` is the clock on which a task's forecasts are issued.
    """

    def __init__(
        self,
        engine: sa.Engine,
        history: History,
        store: ObservationStore,
        calendar: Calendar,
        learning: Learning,
        ticks: Callable[[Task], Ticks],
    ):
        self.engine = engine
        self.history = history
        self.store = store
        self.calendar = calendar
        self.learning = learning
        self.ticks = ticks
        self._online: dict[str, OnlineCalibration] = {}

    def calibration(self, bundle: Bundle) -> Calibration:
        """The shifts of a bundle's quantiles: as fitted in training, and moved by outcomes since."""
        if not self.learning.rate:
            return bundle.calibration
        with transaction(self.engine) as connection:
            return bundle.calibration.plus(_state(connection, bundle).learnt)

    def follow(self, bundles: Iterable[Bundle], now: pd.Timestamp) -> bool:
        """:meth:`update` of each of ``bundles``, and of no other any more; True where outcomes moved any."""
        kept = list(bundles)
        self._online = {b.version: self._online[b.version] for b in kept if b.version in self._online}
        return any([self.update(bundle, now) for bundle in kept])

    def update(self, bundle: Bundle, now: pd.Timestamp, limit: int = 64) -> bool:
        """Learns from outcomes that are in, of at most ``limit`` ticks; True where there were any. Called by the one
        that computes. What is later than the newest reading has no outcome yet, however late it is by the clock."""
        task, tick = bundle.task, self.ticks(bundle.task).step
        newest = self.store.newest().get(task.target)
        if not self.learning.rate or newest is None:
            return False
        last = self.ticks(task).floor(min(now - self.learning.patience, newest))
        with transaction(self.engine) as connection:
            before = _state(connection, bundle)
        if before.until is not None and before.until >= last:
            return False
        reach = task.horizon * task.step
        first = last - limit * tick if before.until is None else before.until
        issues = self.history.issues(bundle, first - reach + tick, last - task.step)
        if not len(issues):
            return False
        first = max(first, issues[0] + task.step - tick)
        last = min(last, first + limit * tick)
        online = self._recalled(bundle, before.learnt, issues[issues < last])
        learnt = [online.learn(end, self._truth(task, end)) for end in pd.date_range(first + tick, last, freq=tick)]
        if any(learnt):
            with transaction(self.engine, write=True) as connection:
                if _state(connection, bundle).until == before.until:
                    _keep(connection, bundle, _State(online.learnt, last))
        return any(learnt)

    def _recalled(self, bundle: Bundle, learnt: Calibration, issues: pd.DatetimeIndex) -> OnlineCalibration:
        """What was learnt, with the forecasts of ``issues`` in mind."""
        task = bundle.task
        # On a clock finer than the task's steps outcomes come more often, and each counts for less.
        rate = self.learning.rate * (self.ticks(task).step / task.step)
        online = self._online.get(bundle.version)
        if online is None:
            online = OnlineCalibration(task, self.calendar, bundle.calibration, learnt, rate=rate)
            self._online[bundle.version] = online
        online.learnt = learnt
        for issue in issues.difference(pd.DatetimeIndex(sorted(online.remembered), tz="UTC")):
            forecast = self.history.of(bundle, issue)
            if forecast is not None:
                online.remember(issue, forecast.values[_sample(len(forecast.values))])
        return online

    def _truth(self, task: Task, end: pd.Timestamp) -> np.ndarray:
        measured = sampled(self.store, task, task.target, end, 0, 0)[0]
        return measured[_sample(len(measured))]


def _sample(count: int) -> np.ndarray:
    return np.arange(0, count, max(1, count // TAUGHT_BY))


def _state(connection: sa.Connection, bundle: Bundle) -> _State:
    task = bundle.task
    row = connection.execute(sa.select(calibrations.c.shift, calibrations.c.updated).where(_of(bundle))).first()
    nothing = Calibration.none(task, PARTS)
    if row is None:
        return _State(bundle.learnt or nothing, None)
    found, until = orjson.loads(row.shift), row.updated
    if isinstance(found, list):  # kept before the parts of the day were told apart
        found = {"shift": found, "by_part": nothing.by_part}
    if "until" in found:
        until = found["until"]
    else:  # kept while forecasts were learnt from whole, by the time they were issued
        until += int((task.horizon * task.step).total_seconds())
    shift, by_part = (np.asarray(found[key], np.float32) for key in ("shift", "by_part"))
    learnt = Calibration(task.quantiles, shift.reshape(nothing.shift.shape), by_part.reshape(nothing.by_part.shape))
    return _State(learnt, pd.Timestamp(until, unit="s", tz="UTC"))


def _keep(connection: sa.Connection, bundle: Bundle, state: _State) -> None:
    assert state.until is not None
    until = int(state.until.timestamp())
    kept = {"shift": state.learnt.shift, "by_part": state.learnt.by_part, "until": until}
    row: dict[str, Any] = {
        "shift": orjson.dumps(kept, option=orjson.OPT_SERIALIZE_NUMPY).decode(),
        "updated": until,
    }
    if not connection.execute(calibrations.update().where(_of(bundle)).values(**row)).rowcount:
        connection.execute(calibrations.insert().values(task=bundle.task.name, bundle=bundle.version, **row))


def _of(bundle: Bundle) -> sa.ColumnElement[bool]:
    return sa.and_(calibrations.c.task == bundle.task.name, calibrations.c.bundle == bundle.version)
