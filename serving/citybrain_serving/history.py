"""Forecasts, kept as they were issued."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import orjson
import pandas as pd
import sqlalchemy as sa

from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle
from citybrain_serving.database import transaction
from citybrain_serving.inputs import InputHealth, TrafficHealth, WeatherHealth
from citybrain_serving.layouts import Layouts
from citybrain_serving.packing import pack
from citybrain_serving.snapshot import Forecast, Source
from citybrain_serving.tables import forecasts

MOST_SINCE = 500


@dataclass(frozen=True)
class Issue:
    """One forecast in the history, without its values."""

    task: str
    issued: pd.Timestamp
    bundle: str
    source: Source
    computed: pd.Timestamp


class History:
    """Keeps and finds forecasts; those of shadows are kept to be scored, and not found.

    Raises :class:`~citybrain_serving.errors.StoreUnavailable`.
    """

    def __init__(self, engine: sa.Engine, layouts: Mapping[str, Layouts]):
        self.engine = engine
        self.layouts = layouts
        """By node type."""

    def keep(self, forecast: Forecast) -> None:
        """Stores a forecast; one of the same task, issue time and bundle is replaced: it was computed again from
        later data, and has to be scored again only if it never was. What was answered stays so: no
        shadow replaces it."""
        with transaction(self.engine, write=True) as connection:
            self.write(connection, forecast)

    def write(self, connection: sa.Connection, forecast: Forecast) -> None:
        """:meth:`keep` within a transaction of the caller's."""
        inputs = forecast.inputs
        about = {
            "task": forecast.task.model_dump(mode="json"),
            "reason": forecast.reason,
            "doubts": dict(forecast.doubts),
            "doubted": forecast.doubted,
            "seen": inputs.seen,
            "newest": None if inputs.newest is None else int(inputs.newest.timestamp()),
            "signals": dict(inputs.signals),
            "weather": inputs.weather and _weather_told(inputs.weather),
            **({} if inputs.traffic is None else {"traffic": _traffic_told(inputs.traffic)}),
        }
        row = {
            "computed": int(forecast.computed.timestamp()),
            "source": forecast.source,
            "about": orjson.dumps(about).decode(),
            "layout": self.layouts[forecast.task.node].digest,
            "values": pack(forecast.values.reshape(-1)),
            "observed": pack(forecast.observed),
            "observed_age": pack(forecast.observed_age),
            "ends": int(forecast.times[-1].timestamp()),
            "scored": False,
        }
        key = key_of(forecast)
        mine = _is(key)
        held = connection.execute(sa.select(forecasts.c.scored, forecasts.c.source).where(mine)).first()
        if held is None:
            connection.execute(forecasts.insert().values(**key, **row))
        elif not held.scored and (forecast.source != "shadow" or held.source == "shadow"):
            connection.execute(forecasts.update().where(mine).values(**row))

    def read(self, connection: sa.Connection, key: Mapping[str, Any]) -> Forecast | None:
        """The forecast of a task, an issue time (seconds since 1970 UTC) and a bundle, within a transaction of the
        caller's; None where it is not kept."""
        row = connection.execute(sa.select(forecasts).where(_is(key))).mappings().first()
        return None if row is None else self._forecast(connection, row)

    def list(self, task: str, first: pd.Timestamp, last: pd.Timestamp, limit: int, offset: int = 0) -> list[Issue]:
        """Forecasts issued in ``first`` ≤ time ≤ ``last``, newest first: at most ``limit``, without the
        first ``offset``."""
        columns = (forecasts.c[name] for name in ("task", "issued", "bundle", "source", "computed"))
        query = (
            sa.select(*columns)
            .where(
                forecasts.c.task == task,
                forecasts.c.issued.between(first.timestamp(), last.timestamp()),
                _ANSWERED,
            )
            .order_by(forecasts.c.issued.desc(), forecasts.c.computed.desc())
            .limit(limit)
            .offset(offset)
        )
        with transaction(self.engine) as connection:
            return [
                Issue(r.task, _time(r.issued), r.bundle, cast(Source, r.source), _time(r.computed))
                for r in connection.execute(query)
            ]

    def find(self, task: str, issued: pd.Timestamp) -> Forecast | None:
        """The forecast issued at ``issued``, the one computed last where bundles changed; None where none is kept."""
        query = (
            sa.select(forecasts)
            .where(forecasts.c.task == task, forecasts.c.issued == int(issued.timestamp()), _ANSWERED)
            .order_by(forecasts.c.computed.desc())
            .limit(1)
        )
        with transaction(self.engine) as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else self._forecast(connection, row)

    def latest(self, task: str, first: pd.Timestamp, last: pd.Timestamp) -> Forecast | None:
        """The newest forecast issued in ``first`` ≤ time ≤ ``last``; None where none is kept."""
        newest = self.list(task, first, last, limit=1)
        return self.find(task, newest[0].issued) if newest else None

    def since(self, task: str, first: pd.Timestamp, last: pd.Timestamp) -> Iterator[Forecast]:
        """Forecasts issued in ``first`` ≤ time ≤ ``last``, oldest first, one at a time."""
        for issue in reversed(self.list(task, first, last, MOST_SINCE)):
            found = self.find(task, issue.issued)
            if found is not None:
                yield found

    def issues(self, bundle: Bundle, first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex:
        """When a bundle's own forecasts of ``first`` ≤ time ≤ ``last`` were issued, oldest first, those it made as a
        shadow included."""
        query = (
            sa.select(forecasts.c.issued)
            .where(
                forecasts.c.task == bundle.task.name,
                forecasts.c.bundle == bundle.version,
                forecasts.c.issued.between(int(first.timestamp()), int(last.timestamp())),
                forecasts.c.source != "fallback",
            )
            .order_by(forecasts.c.issued)
        )
        with transaction(self.engine) as connection:
            return pd.to_datetime(list(connection.scalars(query)), unit="s", utc=True)

    def of(self, bundle: Bundle, issued: pd.Timestamp) -> Forecast | None:
        """A bundle's forecast of one issue time; None where it is not kept."""
        key = {"task": bundle.task.name, "issued": int(issued.timestamp()), "bundle": bundle.version}
        with transaction(self.engine) as connection:
            return self.read(connection, key)

    def unscored(self, tasks: Collection[str], until: pd.Timestamp, limit: int) -> Sequence[Forecast]:
        """Forecasts of ``tasks`` whose last time is not after ``until`` and which nobody compared with what happened;
        oldest first, at most ``limit``."""
        query = (
            sa.select(forecasts)
            .where(
                forecasts.c.scored.is_(False),
                forecasts.c.ends <= int(until.timestamp()),
                forecasts.c.task.in_(list(tasks)),
            )
            .order_by(forecasts.c.ends, forecasts.c.issued)
            .limit(limit)
        )
        with transaction(self.engine) as connection:
            return [self._forecast(connection, row) for row in connection.execute(query).mappings().all()]

    def forget(self, before: pd.Timestamp) -> int:
        """Deletes forecasts issued before a time; returns how many."""
        with transaction(self.engine, write=True) as connection:
            return connection.execute(forecasts.delete().where(forecasts.c.issued < int(before.timestamp()))).rowcount

    def _forecast(self, connection: sa.Connection, row: sa.RowMapping) -> Forecast:
        about: dict[str, Any] = orjson.loads(row["about"])
        task = Task.model_validate(about["task"])
        layout = self.layouts[task.node]
        shape = (task.horizon, len(task.quantiles))
        values = layout.decode(connection, row["layout"], row["values"], int(np.prod(shape)))
        ages, newest = row["observed_age"], about["newest"]
        unknown = np.full(len(values), np.nan, np.float32)
        return Forecast(
            task=task,
            issued=_time(row["issued"]),
            computed=_time(row["computed"]),
            values=values.reshape(-1, *shape),
            observed=layout.decode(connection, row["layout"], row["observed"]).reshape(-1),
            observed_age=unknown if ages is None else layout.decode(connection, row["layout"], ages).reshape(-1),
            inputs=InputHealth(
                about["seen"],
                None if newest is None else _time(newest),
                about["signals"],
                _weather(about),
                _traffic(about),
            ),
            bundle=row["bundle"],
            source=row["source"],
            reason=about["reason"],
            doubts=_doubts(about),
            doubted=about.get("doubted", False),
        )


_ANSWERED = forecasts.c.source != "shadow"


def mark_scored(connection: sa.Connection, forecast: Forecast) -> bool:
    """Notes that a forecast was scored; False where somebody else did so before."""
    statement = forecasts.update().where(_is(key_of(forecast)), forecasts.c.scored.is_(False)).values(scored=True)
    return connection.execute(statement).rowcount == 1


def key_of(forecast: Forecast) -> dict[str, Any]:
    """What names a forecast in the history."""
    return {"task": forecast.task.name, "issued": int(forecast.issued.timestamp()), "bundle": forecast.bundle}


def _is(key: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    return sa.and_(*(forecasts.c[name] == value for name, value in key.items()))


def _doubts(about: Mapping[str, Any]) -> dict[str, int]:
    """Nodes replaced, by reason; of forecasts kept before reasons were told apart all were impossible."""
    if "doubts" in about:
        return dict(about["doubts"])
    return {"impossible": about["replaced"]} if about["replaced"] else {}


def _weather_told(weather: WeatherHealth) -> dict[str, Any]:
    return {"issued": [int(time.timestamp()) for time in weather.issued], "signals": dict(weather.signals)}


def _weather(about: Mapping[str, Any]) -> WeatherHealth | None:
    told = about.get("weather")
    return told and WeatherHealth(tuple(map(_time, told["issued"])), told["signals"])


def _traffic_told(traffic: TrafficHealth) -> dict[str, Any]:
    return {**vars(traffic), "issued": traffic.issued and int(traffic.issued.timestamp())}


def _traffic(about: Mapping[str, Any]) -> TrafficHealth | None:
    told = about.get("traffic")
    return told and TrafficHealth(**{**told, "issued": told["issued"] and _time(told["issued"])})


def _time(seconds: int) -> pd.Timestamp:
    return pd.Timestamp(seconds, unit="s", tz="UTC")
