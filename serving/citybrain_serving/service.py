"""Everything a service holds, put together once, at the edge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.clock import Clock, ObservationClock, SystemClock
from citybrain_serving.cycle import Cycle, FeaturedForecaster
from citybrain_serving.fleet import Fleet
from citybrain_serving.ingest import Ingest, Outcome
from citybrain_serving.publication import Board, Published
from citybrain_serving.readings import Readings
from citybrain_serving.runner import Runner
from citybrain_serving.settings import Settings
from citybrain_serving.snapshot import Forecast, Snapshot
from citybrain_serving.store import ObservationStore, SqlStore
from citybrain_serving.telemetry import Telemetry


class Service:
    """A store that observations enter, a cycle that forecasts from it, a board that answers are read from.

    ``store``, ``clock`` and ``forecasters`` take the place of the ones ``settings`` and ``bundles`` name.
    """

    def __init__(
        self,
        bundles: Iterable[Bundle],
        settings: Settings,
        *,
        store: ObservationStore | None = None,
        clock: Clock | None = None,
        forecasters: Mapping[str, FeaturedForecaster] | None = None,
    ):
        self.settings = settings
        self.fleet = Fleet.of(bundles)
        if forecasters is None:
            forecasters = {n: OnnxForecaster(b, settings.threads) for n, b in self.fleet.bundles.items()}
        self.store = store or SqlStore(settings.store, self.fleet.channels)
        self.clock = clock or self._clock()
        self.telemetry = Telemetry()
        self.cycle = Cycle(
            self.fleet, forecasters, self.store, self.clock, pd.Timedelta(seconds=settings.grace_seconds)
        )
        self.runner = Runner(self.cycle, settings.debounce_seconds, self.telemetry.cycle)
        self.board = Board(self.fleet)
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

    def published(self, task: str, index: str | None = None) -> Published:
        """What is published of a task now; see :meth:`Board.task` for the errors."""
        return self.board.task(self.snapshot, task, index)

    def stale(self, forecast: Forecast) -> bool:
        now = self.clock.now()
        return now is None or forecast.stale(now, self.settings.stale_steps)

    def start(self) -> None:
        self.runner.start()

    def close(self) -> None:
        self.runner.stop()
        self.store.close()

    def _clock(self) -> Clock:
        if self.settings.clock == "system":
            return SystemClock(pd.Timedelta(seconds=self.settings.future_seconds))
        return ObservationClock(lambda: max(self.store.newest().values(), default=None))
