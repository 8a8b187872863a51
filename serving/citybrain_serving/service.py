"""Everything a service holds, put together once, at the edge."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.clock import Clock, ObservationClock, SystemClock
from citybrain_serving.cycle import Cycle, FeaturedForecaster
from citybrain_serving.fleet import Fleet
from citybrain_serving.followup import Followup
from citybrain_serving.history import History
from citybrain_serving.ingest import Ingest, Outcome
from citybrain_serving.publication import Board, Published
from citybrain_serving.quality import Learning, Quality
from citybrain_serving.readings import Readings
from citybrain_serving.runner import Runner
from citybrain_serving.settings import Settings
from citybrain_serving.snapshot import Forecast, Snapshot
from citybrain_serving.store import SqlStore
from citybrain_serving.stream import Stream
from citybrain_serving.telemetry import Telemetry


class Service:
    """A store that observations enter, a cycle that forecasts from it, a board that answers are read from.

    ``clock`` and ``forecasters`` take the place of the ones ``settings`` and ``bundles`` name.
    """

    def __init__(
        self,
        bundles: Iterable[Bundle],
        settings: Settings,
        *,
        clock: Clock | None = None,
        forecasters: Mapping[str, FeaturedForecaster] | None = None,
    ):
        self.settings = settings
        self.fleet = Fleet.of(bundles)
        if forecasters is None:
            forecasters = {n: OnnxForecaster(b, settings.threads) for n, b in self.fleet.bundles.items()}
        self.store = SqlStore(settings.store, self.fleet.channels)
        self.clock = clock or self._clock()
        self.telemetry = Telemetry()
        grace = pd.Timedelta(seconds=settings.grace_seconds)
        self.cycle = Cycle(self.fleet, forecasters, self.store, self.clock, grace)
        self.board = Board(self.fleet)
        self.stream = Stream()
        self.history = History(self.store.engine, self.store.node_layouts)
        learning = Learning(settings.learning_rate, pd.Timedelta(minutes=settings.patience_minutes))
        self.quality = Quality(self.store.engine, self.history, self.store, self.board.places, learning)
        self.followup = Followup(
            self.stream, self.history, self.quality, forecasters, self.fleet, pd.Timedelta(days=settings.history_days)
        )
        self.followup.recall()
        self.runner = Runner(self.step, self.until_due, settings.debounce_seconds, self.telemetry.cycle)
        oldest = pd.Timedelta(days=settings.oldest_days)
        self._ingest = Ingest(self.fleet.channels, self.store, self.clock, oldest)

    @property
    def snapshot(self) -> Snapshot | None:
        return self.cycle.current

    def take(self, readings: Readings) -> Outcome:
        """Stores readings and lets the cycle know."""
        outcome = self._ingest.take(readings)
        self.telemetry.ingested(outcome)
        if outcome.by_signal:
            self.clock.refresh()
            self.runner.notify(outcome.by_signal)
        return outcome

    def step(self, touched: Collection[str] | None = None) -> Snapshot | None:
        """One cycle: computes what is due, publishes it, and does what follows from it."""
        snapshot = self.cycle.run(touched)
        if snapshot is not None:
            self.followup(snapshot)
        return snapshot

    def until_due(self) -> float | None:
        """Seconds to the next tick, None while the present is unknown."""
        now = self.clock.now()
        return None if now is None else (self.cycle.next_tick(now) - now).total_seconds()

    def published(self, task: str, index: str | None = None) -> Published:
        """What is published of a task now; see :meth:`Board.task` for the errors."""
        return self.board.task(self.snapshot, task, index)

    def past(self, task: str, issued: pd.Timestamp, index: str | None = None) -> Published:
        """A forecast of the history. Raises :class:`~citybrain_serving.errors.UnknownIssue` where none is kept."""
        return self.board.past(self.history.find, task, issued, index)

    def stale(self, forecast: Forecast) -> bool:
        now = self.clock.now()
        return now is None or forecast.stale(now, self.settings.stale_steps)

    def start(self) -> None:
        self.runner.start()

    def close(self) -> None:
        self.stream.close()
        self.runner.stop()
        self.store.close()

    def _clock(self) -> Clock:
        if self.settings.clock == "system":
            return SystemClock(pd.Timedelta(seconds=self.settings.future_seconds))
        return ObservationClock(lambda: max(self.store.newest().values(), default=None))
