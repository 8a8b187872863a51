"""How past forecasts turned out: scored once their outcomes are in, and summed by day.

Scores are kept as sums, so that any span of days, any group and any bundle can be put together later without the
forecasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from citybrain_datasets.signals import NodeType
from citybrain_models.bundle import Bundle
from citybrain_models.calibration import Calibration
from citybrain_serving.database import transaction
from citybrain_serving.history import History, mark_scored
from citybrain_serving.inputs import sampled
from citybrain_serving.learning import Teacher
from citybrain_serving.places import Places
from citybrain_serving.snapshot import Forecast
from citybrain_serving.store import ObservationStore
from citybrain_serving.tables import scores

ALL = "all"
SUMS = (
    "count", "absolute", "squared", "error", "pinball", "inside", "width", "persistence", "persistence_count", "paired"
)  # fmt: skip
KEYS = ("task", "bundle", "source", "day", "lead_minutes", "part")
GROUPED = ("owner", "road_class")
"""Columns of the node tables by whose values forecasts are scored apart."""

MOST_GROUPS = 60
"""Values of a column beyond which it is no group: a name of its own for every node says nothing."""


class Quality:
    """Scores forecasts of the history and answers how good they were.

    ``targets`` are the signals forecast here, by task: a store may hold forecasts of bundles that are served no more,
    which wait until their task is, and of another signal of the same task, which nothing here can be held against.
    """

    def __init__(
        self,
        engine: sa.Engine,
        history: History,
        store: ObservationStore,
        places: Mapping[NodeType, Places],
        targets: Mapping[str, str],
        teacher: Teacher,
    ):
        self.engine = engine
        self.history = history
        self.store = store
        self.targets = targets
        self.teacher = teacher
        self.parts = {node: _parts(table) for node, table in places.items()}

    def update(self, now: pd.Timestamp, limit: int = 64) -> int:
        """Scores forecasts whose outcomes are in, at most ``limit`` of a task; returns how many. Where nothing later
        has been measured yet, outcomes may still come: after a gap they wait for the readings that fill it."""
        patient, newest = now - self.teacher.learning.patience, self.store.newest()
        due = [
            forecast
            for task, target in self.targets.items()
            if target in newest
            for forecast in self.history.unscored([task], min(patient, newest[target]), limit)
        ]
        for forecast in due:
            known = forecast.task.target == self.targets[forecast.task.name]
            rows = _rows(forecast, self._truth(forecast), self.parts[forecast.task.node]) if known else []
            with transaction(self.engine, write=True) as connection:
                if mark_scored(connection, forecast):
                    _add(connection, rows)
        return len(due)

    def learnt(self, bundle: Bundle) -> Calibration:
        """The shifts of a bundle's quantiles: as fitted in training, and moved by outcomes since."""
        return self.teacher.calibration(bundle)

    def learn(self, bundles: Iterable[Bundle], now: pd.Timestamp) -> bool:
        """Lets outcomes that are in move the quantiles of ``bundles``; True where there were any."""
        return self.teacher.follow(bundles, now)

    def table(self, task: str, first: date, last: date, part: str, by: Sequence[str]) -> list[dict[str, Any]]:
        """Measures of the forecasts issued on the days ``first`` … ``last``, a row for each value of ``by`` among
        :data:`KEYS`; ``part`` is ``all``, ``owner=…``, ``road_class=…``, or empty for every one. Shadows are told only
        where they are told apart."""
        keys = [scores.c[name] for name in by]
        comparable = sa.case((scores.c.paired.is_not(None), scores.c.persistence))
        totals = {**{name: scores.c[name] for name in SUMS}, "paired_persistence": comparable}
        query = (
            sa.select(*keys, *(sa.func.sum(what).label(name) for name, what in totals.items()))
            .where(scores.c.task == task, scores.c.day.between(first, last))
            .group_by(*keys)
            .order_by(*keys)
        )
        if not {"bundle", "source"} & set(by):
            query = query.where(scores.c.source != "shadow")
        if part:
            query = query.where(scores.c.part == part)
        with transaction(self.engine) as connection:
            found = connection.execute(query).mappings().all()
        return [{**{name: row[name] for name in by}, **measures(dict(row))} for row in found if row["count"]]

    def _truth(self, forecast: Forecast) -> np.ndarray:
        task = forecast.task
        return sampled(self.store, task, task.target, forecast.issued, 1, task.horizon).T


def measures(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Means from sums. ``skill`` is 1 − MAE/MAE of persistence, both of the outcomes for which persistence had a value
    to go on (``paired`` and ``paired_persistence``, None where that was not kept)."""
    count, against = int(sums["count"]), int(sums["persistence_count"])
    paired, baseline = sums["paired"], sums["paired_persistence"]
    return {
        "count": count,
        "mae": float(sums["absolute"]) / count,
        "rmse": float(np.sqrt(float(sums["squared"]) / count)),
        "bias": float(sums["error"]) / count,
        "pinball": float(sums["pinball"]) / count,
        "coverage": float(sums["inside"]) / count,
        "width": float(sums["width"]) / count,
        "persistence_mae": float(sums["persistence"]) / against if against else None,
        "skill": None if paired is None or not baseline else 1 - float(paired) / float(baseline),
    }


def _parts(places: Places) -> dict[str, np.ndarray]:
    """Positions of the nodes of each group."""
    parts = {ALL: np.arange(len(places))}
    for column in GROUPED:
        if column in places.table:
            texts = places.text(column)
            names = sorted(set(texts) - {""})
            if len(names) <= MOST_GROUPS:
                parts |= {f"{column}={name}"[:120]: np.flatnonzero(texts == name) for name in names}
    return parts


def _rows(forecast: Forecast, truth: np.ndarray, parts: Mapping[str, np.ndarray]) -> Iterable[dict[str, Any]]:
    """Rows of :data:`scores` with the sums of one forecast; ``truth [node, horizon]``, NaN where not measured."""
    task = forecast.task
    known = np.isfinite(truth) & np.isfinite(forecast.values).all(axis=-1)
    error = np.where(known[..., None], forecast.values - truth[..., None], 0).astype(np.float64)
    levels = np.asarray(task.quantiles)
    median = error[..., task.median]
    still = known & np.isfinite(forecast.observed)[:, None]
    per_node = {
        "count": known,
        "absolute": np.abs(median),
        "squared": median**2,
        "error": median,
        "pinball": np.maximum(-levels * error, (1 - levels) * error).mean(axis=-1),
        "inside": known & (error[..., 0] <= 0) & (error[..., -1] >= 0),
        "width": error[..., -1] - error[..., 0],
        "persistence": np.where(still, np.abs(forecast.observed[:, None] - truth), 0),
        "persistence_count": still,
        "paired": np.where(still, np.abs(median), 0),
    }
    day = forecast.issued.date()
    for part, nodes in parts.items():
        sums = {name: values[nodes].sum(axis=0, dtype=np.float64) for name, values in per_node.items()}
        for lead in np.flatnonzero(sums["count"]):
            yield {
                "task": task.name,
                "bundle": forecast.bundle,
                "source": forecast.source,
                "day": day,
                "lead_minutes": int(lead + 1) * task.step_minutes,
                "part": part,
                **{name: _plain(name, total[lead]) for name, total in sums.items()},
            }


def _plain(name: str, value: np.float64) -> float | int:
    return int(value) if name in ("count", "inside", "persistence_count") else float(value)


def _add(connection: sa.Connection, rows: Iterable[dict[str, Any]]) -> None:
    """Adds sums to those that are there. One writer at a time, so that looking first is safe."""
    for row in rows:
        mine = sa.and_(*(scores.c[name] == row[name] for name in KEYS))
        grown = {name: scores.c[name] + row[name] for name in SUMS}
        if not connection.execute(scores.update().where(mine).values(**grown)).rowcount:
            connection.execute(scores.insert().values(**row))
