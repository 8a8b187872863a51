"""What the computing replica publishes, through the store, to those that do not compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import sqlalchemy as sa
import structlog

from citybrain_serving.database import transaction
from citybrain_serving.history import History, key_of
from citybrain_serving.layouts import Layouts
from citybrain_serving.packing import pack
from citybrain_serving.replicas.leadership import Leadership
from citybrain_serving.snapshot import Forecast, Snapshot
from citybrain_serving.tables import published, published_latest

log = structlog.get_logger(__name__)


class Relay:
    """Publishes snapshots to the other replicas and finds those that another published.

    A forecast that comes through is the one that was computed, value by value: its digest, and with it the entity tags
    of its answers, are the same everywhere. Raises :class:`~citybrain_serving.errors.StoreUnavailable`.
    """

    def __init__(
        self, history: History, layouts: Mapping[str, Layouts], tasks: Collection[str], leadership: Leadership
    ):
        self.history = history
        self.layouts = layouts
        """By signal."""
        self.tasks = tasks
        self.leadership = leadership

    def publish(self, forecasts: Collection[Forecast]) -> None:
        """Keeps forecasts in the history and lets the others answer from them, all at once.

        Raises :class:`~citybrain_serving.errors.Deposed` where another replica computes by now.
        """
        with transaction(self.history.engine, write=True) as connection:
            self.leadership.confirm(connection)
            for forecast in forecasts:
                self.history.write(connection, forecast)
                self._point_to(connection, forecast)
            self.leadership.tell_published(connection)

    def newest(self, held: Snapshot | None) -> Snapshot | None:
        """What is published now: ``held`` where that is it, None where a task of this service is not published.

        Forecasts that did not change are those of ``held``, so that their encoded answers stay.
        """
        before = {} if held is None else held.forecasts
        with transaction(self.history.engine) as connection:
            rows = connection.execute(sa.select(published).where(published.c.task.in_(self.tasks))).mappings()
            forecasts: dict[str, Forecast] = {}
            for row in rows.all():
                last = before.get(row["task"])
                same = last is not None and last.digest == row["digest"]
                forecast = last if same else self._read(connection, row)
                if forecast is not None:
                    forecasts[forecast.task.name] = forecast
        if missing := [task for task in self.tasks if task not in forecasts]:
            log.warning("forecasts of this replica that nobody computes", tasks=missing)
            return None
        if all(forecasts[task] is before.get(task) for task in self.tasks):
            return held
        ordered = {task: forecasts[task] for task in self.tasks}
        return Snapshot(ordered, max(forecast.computed for forecast in ordered.values()))

    def _point_to(self, connection: sa.Connection, forecast: Forecast) -> None:
        task = forecast.task.name
        connection.execute(published_latest.delete().where(published_latest.c.task == task))
        row = {**key_of(forecast), "digest": forecast.digest}
        if not connection.execute(published.update().where(published.c.task == task).values(**row)).rowcount:
            connection.execute(published.insert().values(**row))
        rows = [
            {
                "task": task,
                "signal": signal,
                "layout": self.layouts[signal].digest,
                "values": pack(values),
                "ages": pack(forecast.latest_age[signal]),
            }
            for signal, values in forecast.latest.items()
        ]
        if rows:
            connection.execute(published_latest.insert(), rows)

    def _read(self, connection: sa.Connection, row: sa.RowMapping) -> Forecast | None:
        forecast = self.history.read(connection, {name: row[name] for name in ("task", "issued", "bundle")})
        if forecast is None:  # so old that the history forgot it
            return None
        latest, ages = {}, {}
        found = connection.execute(sa.select(published_latest).where(published_latest.c.task == row["task"]))
        for told in found.mappings().all():
            signal, layout = told["signal"], self.layouts[told["signal"]]
            latest[signal] = np.ascontiguousarray(layout.decode(connection, told["layout"], told["values"])[:, 0])
            ages[signal] = np.full_like(latest[signal], np.nan)
            if told["ages"] is not None:
                ages[signal] = np.ascontiguousarray(layout.decode(connection, told["layout"], told["ages"])[:, 0])
        return replace(forecast, latest=latest, latest_age=ages)
