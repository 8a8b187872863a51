"""Weather forecasts, kept as they were issued. Of several for one time the newest counts, among those that a forecast
could know when it was issued itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import sqlalchemy as sa

from citybrain_datasets.features import Features
from citybrain_datasets.signals import Signal, Ticks
from citybrain_serving.database import transaction
from citybrain_serving.fleet import Channel
from citybrain_serving.inputs import Outlook, sampled
from citybrain_serving.layouts import Layouts
from citybrain_serving.store import Partial, merge_frames
from citybrain_serving.tables import weather_forecasts


def ahead(signal: str) -> str:
    """What the cycle is told when a forecast of ``signal`` arrives, as it is told the signal for observations."""
    return f"{signal} ahead"


class WeatherForecasts:
    """Frames beside those of the observations, each of one signal, time and issue.

    ``lasting`` is how long after its issue a forecast is read. Raises
    :class:`~citybrain_serving.errors.StoreUnavailable`.
    """

    def __init__(
        self,
        engine: sa.Engine,
        channels: Mapping[str, Channel],
        layouts: Mapping[str, Layouts],
        lasting: pd.Timedelta,
    ):
        self.engine = engine
        self.channels = channels
        self.layouts = layouts
        """By signal."""
        self.lasting = lasting

    def merge(self, issued: int, partials: Sequence[Partial]) -> list[np.ndarray]:
        """As :meth:`~citybrain_serving.store.ObservationStore.merge`, of what was ``issued``, seconds since 1970."""
        with transaction(self.engine, write=True) as connection:
            return merge_frames(connection, weather_forecasts, self.layouts, partials, issued=issued)

    def outlook(self, features: Features, issue: pd.Timestamp) -> Outlook | None:
        """What was known at ``issue`` of the weather over the horizon of a task; None where it reads none."""
        task = features.task
        if not task.known_future:
            return None
        known = _KnownAt(self, issue)
        future = {name: sampled(known, task, name, issue, 1, task.horizon) for name in task.known_future}
        return Outlook(future, tuple(pd.Timestamp(t, unit="s", tz="UTC") for t in sorted(known.used, reverse=True)))

    def forget(self, before: pd.Timestamp) -> int:
        """Deletes forecasts of times before ``before``; returns how many frames."""
        with transaction(self.engine, write=True) as connection:
            over = weather_forecasts.c.time < int(before.timestamp())
            return connection.execute(weather_forecasts.delete().where(over)).rowcount


class _KnownAt:
    """What was known at ``issue``, to be read as observations are; ``used`` collects when that was issued."""

    def __init__(self, forecasts: WeatherForecasts, issue: pd.Timestamp):
        self.forecasts = forecasts
        self.issue = issue
        self.used: set[int] = set()

    def ticks(self, signal: str) -> Ticks:
        return self.forecasts.channels[signal].ticks

    def read(self, signal: str, first: pd.Timestamp, last: pd.Timestamp) -> Signal:
        channel, layout = self.forecasts.channels[signal], self.forecasts.layouts[signal]
        step, start = 60 * channel.ticks.step_minutes, int(first.timestamp())
        length = (int(last.timestamp()) - start) // step + 1
        values = np.full((length, len(channel.ids)), np.nan, np.float32)
        source = np.zeros(values.shape, np.int64)
        table = weather_forecasts.c
        oldest = self.issue - self.forecasts.lasting
        query = (
            sa.select(table.time, table.issued, table.layout, table["values"])
            .where(
                table.signal == signal,
                table.time.between(start, int(last.timestamp())),
                table.issued.between(int(oldest.timestamp()), int(self.issue.timestamp())),
            )
            .order_by(table.issued)
        )
        with transaction(self.forecasts.engine) as connection:
            for time, issued, digest, data in connection.execute(query):
                row, rest = divmod(time - start, step)
                if rest == 0:
                    told = layout.decode(connection, digest, data)[:, 0]
                    known = np.isfinite(told)
                    values[row, known], source[row, known] = told[known], issued
        self.used |= set(np.unique(source[np.isfinite(values)]).tolist())
        return Signal(signal, channel.node, first, channel.ticks.step, values)
