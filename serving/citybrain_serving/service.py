"""Everything a service holds, put together once, at the edge."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import structlog

from citybrain_datasets.calendar import Calendar
from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.cases.casebook import Casebook
from citybrain_serving.cases.outbox import Outbox
from citybrain_serving.cases.watch import Watch
from citybrain_serving.cases.webhooks import Webhooks, checked_targets
from citybrain_serving.clock import Clock, ObservationClock, SystemClock
from citybrain_serving.coverage import looks_back
from citybrain_serving.cycle import Cycle, FeaturedForecaster
from citybrain_serving.database import room
from citybrain_serving.fleet import Fleet
from citybrain_serving.followup import Followup
from citybrain_serving.history import History
from citybrain_serving.indices.catalogue import Index
from citybrain_serving.indices.current import Current
from citybrain_serving.ingest import Ingest
from citybrain_serving.lanes.combining import lane_count
from citybrain_serving.lanes.sites import SiteTable
from citybrain_serving.lanes.waiting import WaitingLanes
from citybrain_serving.learning import Learning, Teacher
from citybrain_serving.memory import give_back
from citybrain_serving.outcome import Outcome
from citybrain_serving.problems.finding import Finder, Problem, as_document
from citybrain_serving.publication import Board, Published
from citybrain_serving.quality import Quality
from citybrain_serving.readings import Readings
from citybrain_serving.recent import Recent
from citybrain_serving.replicas.appointments import Appointments
from citybrain_serving.replicas.following import Following
from citybrain_serving.replicas.leadership import Alone, Elected, Leadership
from citybrain_serving.replicas.relay import Relay
from citybrain_serving.roster import Roster, Shadows
from citybrain_serving.runner import Runner
from citybrain_serving.safety.bundles import read_allow_list, read_below
from citybrain_serving.settings import Settings
from citybrain_serving.shortcuts import Shortcuts
from citybrain_serving.snapshot import Forecast, Snapshot
from citybrain_serving.store import SqlStore
from citybrain_serving.stream import Stream
from citybrain_serving.stuck import Steadiness, Trusted
from citybrain_serving.telemetry import Telemetry
from citybrain_serving.tracing import span
from citybrain_serving.traffic_ahead import TrafficForecasts
from citybrain_serving.weather.ingest import WeatherIngest
from citybrain_serving.weather.store import WeatherForecasts, ahead

log = structlog.get_logger(__name__)


class Service:
    """A store that observations enter, a cycle that forecasts from it, a board that answers are read from.

    ``clock`` and ``forecasters`` take the place of the ones ``settings`` and ``bundles`` name; ``shadows`` are bundles
    that forecast beside those and are only scored; ``homes`` are the folders of ``bundles`` by task, to read one again.
    """

    def __init__(
        self,
        bundles: Iterable[Bundle],
        settings: Settings,
        *,
        clock: Clock | None = None,
        forecasters: Mapping[str, FeaturedForecaster] | None = None,
        shadows: Iterable[Bundle] = (),
        homes: Mapping[str, Path] | None = None,
    ):
        self.settings = settings
        self.leaving = False
        self.fleet = Fleet.of(bundles)
        if forecasters is None:
            forecasters = {n: OnnxForecaster(b, settings.threads) for n, b in self.fleet.bundles.items()}
        self.store = SqlStore(settings.store, self.fleet.channels)
        self.clock = clock or self._clock()
        self.telemetry = Telemetry()
        grace = pd.Timedelta(seconds=settings.grace_seconds)
        self.steadiness = Steadiness(self.fleet.channels, self.store)
        for signal in self.fleet.channels:
            self.telemetry.stuck.labels(signal).set_function(partial(self.steadiness.stuck, signal))
        self.trusted = Trusted(self.store, self.steadiness)
        lasting = pd.Timedelta(hours=settings.weather_hours)
        self.weather = WeatherForecasts(self.store.engine, self.fleet.channels, self.store.layouts, lasting)
        self.history = History(self.store.engine, self.store.node_layouts)
        traffic = TrafficForecasts(self.fleet, self.history)
        self.cycle = Cycle(self.fleet, dict(forecasters), self.trusted, self.clock, grace, self.weather, traffic)
        self.board = Board(self.fleet, settings.stale_steps, Recent(self.trusted))
        self.shortcuts = Shortcuts(self._current, self.fresh)
        self.stream = Stream(each=settings.streams_each, lasting=settings.stream_seconds)
        learning = Learning(settings.learning_rate, pd.Timedelta(minutes=settings.patience_minutes))
        calendar = Calendar(self.fleet.city.timezone)
        engine = self.store.engine
        teacher = Teacher(engine, self.history, self.trusted, calendar, learning, self.fleet.ticks)
        targets = {name: bundle.task.target for name, bundle in self.fleet.bundles.items()}
        self.quality = Quality(engine, self.history, self.trusted, self.board.places, targets, teacher)
        self.roster = Roster(self.fleet, self.cycle, self.quality, settings.threads, self._swapped)
        self.shadows = Shadows(self.fleet, self.cycle, self.quality, shadows, settings.threads)
        self.homes = dict(homes or {})
        self.appointments = Appointments(self.store.engine)
        self.leadership: Leadership = Alone()
        if self.store.engine.dialect.name == "postgresql":
            self.leadership = Elected(self.store.engine, lambda signals: self.runner.notify(signals))
        self.following = Following(
            self.roster,
            self.appointments,
            self.read_bundle,
            self._below_root(),
            lambda: isinstance(self.leadership, Elected),
            self.telemetry.registry,
        )
        outbox = Outbox(checked_targets(settings.webhook_targets))
        self.webhooks = Webhooks(
            self.store.engine,
            outbox,
            settings.webhook_secret(),
            lambda: self.leadership.leads,
            registry=self.telemetry.registry,
        )
        self.casebook = Casebook(self.store.engine, outbox)
        watch = Watch(self.casebook, self.describe, settings.hysteresis())
        self.relay = Relay(self.history, self.store.layouts, self.fleet.bundles, self.leadership)
        self.lanes = WaitingLanes(
            self.store.engine,
            self.fleet.channels,
            lane_count(self.fleet.city),
            self.store.read,
            pd.Timedelta(minutes=settings.lane_minutes),
            self.telemetry.given_up,
        )
        self.sites = SiteTable(self.store.engine, chain.from_iterable(map(self.fleet.city.ids, self.fleet.city.nodes)))
        self.followup = Followup(
            self.stream,
            self.relay,
            self.history,
            self.quality,
            self.cycle.forecasters,
            Finder(self.fleet, self.board),
            watch,
            self.shadows,
            self.weather,
            self.lanes,
            pd.Timedelta(days=settings.history_days),
        )
        self._recall()
        self._term = self.leadership.term
        self.telemetry.computes.set_function(lambda: self.leadership.leads)
        self.telemetry.clock.set_function(lambda: self.leadership.ahead)
        self.telemetry.room.set_function(lambda: room(self.store.engine))
        for name in self.fleet.bundles:
            self.telemetry.coverage.labels(name).set_function(partial(self._coverage, name))
        self.runner = Runner(self.step, self.until_due, settings.debounce_seconds, self.telemetry.cycle)
        oldest = pd.Timedelta(days=settings.oldest_days)
        self._ingest = Ingest(self.fleet.channels, self.store, self.steadiness, self.clock, oldest, self.lanes)

    @property
    def snapshot(self) -> Snapshot | None:
        return self.cycle.current

    def take(self, readings: Readings) -> Outcome:
        """Stores readings and lets the cycle know."""
        with span("ingest", readings=len(readings)):
            outcome = self._ingest.take(readings)
        self.telemetry.ingested(outcome)
        if outcome.by_signal:
            self.clock.refresh()
            self._arrived(outcome.by_signal)
        return outcome

    def take_weather(self, issued: int, values: Readings) -> Outcome:
        """Stores a weather forecast, ``issued`` in seconds since 1970 UTC, and lets the cycle know."""
        with span("ingest weather", values=len(values)):
            outcome = WeatherIngest(self.weather, self.clock, issued).take(values)
        self.telemetry.foretold(outcome)
        if outcome.by_signal:
            self._arrived([ahead(signal) for signal in outcome.by_signal])
        return outcome

    def _arrived(self, signals: Collection[str]) -> None:
        if self.leadership.leads:
            self.runner.notify(signals)
        else:
            self.leadership.tell_arrived(signals)

    def step(self, touched: Collection[str] | None = None) -> Snapshot | None:
        """One cycle: computes what is due, publishes it, and does what follows from it; or, where another replica
        computes, publishes what that one did."""
        with span("cycle"):
            self.following()
            term = self.leadership.term
            if not term:
                return self._follow()
            if term != self._term:
                self._recall()  # what outcomes taught whoever computed before
                self._term = term
            snapshot = self.cycle.run(touched)
            if snapshot is not None:
                self.board.prepare(snapshot)
                self.followup(snapshot)
                give_back()  # windows and features, of a large city a gigabyte
            return snapshot

    def _below_root(self) -> dict[str, str]:
        """Paths of the start command's bundles below the folder of bundles, by task; only of those that lie there."""
        if self.settings.bundle_root is None:
            return {}
        root = self.settings.bundle_root.resolve()
        homes = {task: home.resolve() for task, home in self.homes.items()}
        return {task: str(home.relative_to(root)) for task, home in homes.items() if home.is_relative_to(root)}

    def read_bundle(self, task: str, path: str) -> Bundle:
        """The bundle at a path below the folder of bundles, or of the start command where that is empty.

        Raises :class:`~citybrain_serving.errors.UnfitBundle` or :class:`~citybrain_serving.errors.Forbidden`.
        """
        settings = self.settings
        allowed = None if settings.bundle_digests is None else read_allow_list(settings.bundle_digests)
        home = self.homes.get(task)
        if path or home is None:
            return read_below(settings.bundle_root, path, allowed)
        return read_below(home.absolute().parent, home.absolute().name, allowed)

    def _recall(self) -> None:
        """Takes up what forecasts of the past have taught."""
        self.followup.recall()
        now = self.clock.now()
        if now is not None:
            tasks = {name: bundle.task for name, bundle in self.fleet.bundles.items()}
            self.cycle.recall({n: self.history.since(n, now - looks_back(task), now) for n, task in tasks.items()})

    def _coverage(self, task: str) -> float:
        share = self.cycle.coverage[task].share
        return math.nan if share is None else share

    def _follow(self) -> Snapshot | None:
        self.clock.refresh()
        snapshot = self.relay.newest(self.snapshot)
        if snapshot is not None:
            self.cycle.show(snapshot)
            self.followup.show(snapshot)
        return snapshot

    def until_due(self) -> float | None:
        """Seconds to the next tick, None while the present is unknown."""
        now = self.clock.seconds()
        return None if now is None else self.cycle.due_after(now) - now

    def published(self, task: str, index: str | None = None) -> Published:
        """What is published of a task now; see :meth:`Board.task` for the errors."""
        return self.board.task(self.snapshot, task, index)

    def present(self, forecast: Forecast, index: Index) -> Current:
        """What an index is now, at every node of a forecast that is published."""
        return self.published(forecast.task.name).present(index, self.board.free_speeds, self.board.recent)

    def past(self, task: str, issued: pd.Timestamp, index: str | None = None) -> Published:
        """A forecast of the history. Raises :class:`~citybrain_serving.errors.UnknownIssue` where none is kept."""
        return self.board.past(self.history.find, task, issued, index)

    @property
    def problems(self) -> Mapping[str, list[Problem]]:
        """Problems of the newest snapshot by task, the worst first."""
        return self.followup.problems

    def describe(self, problem: Problem) -> dict[str, Any]:
        return as_document(problem, self.board)

    def stale(self, forecast: Forecast) -> bool:
        """Whether the observations behind a forecast are too old, or nobody can say if there are newer ones."""
        now = self.clock.now()
        return now is None or not self.leadership.connected or forecast.stale(now, self.settings.stale_steps)

    def sees(self, task: str, node: str) -> bool:
        """Whether the newest forecast of a task tells of a node from what was measured there lately."""
        forecast = None if self.snapshot is None else self.snapshot.forecasts.get(task)
        if forecast is None or forecast.source != "model" or self.stale(forecast):
            return False
        row = self.board.places[forecast.task.node].position.get(node)
        at = None if row is None else forecast.observed_at(row)
        return at is not None and forecast.issued - at <= self.settings.stale_steps * forecast.task.step

    def fresh(self) -> str:
        """``Cache-Control`` of the newest forecasts: fresh until the next tick, and briefly while those of the last one
        are awaited. A replay, whose time jumps, is asked again each time."""
        if self.settings.clock != "system":
            return "no-cache"
        now = self.clock.seconds()
        seconds = 0 if now is None else int(self.cycle.fresh_for(now))
        return f"public, max-age={seconds}, must-revalidate"

    def _swapped(self, bundle: Bundle) -> None:
        self.board.forget_free_speeds()
        self.runner.notify(())

    def _current(self, task: str) -> tuple[Published, bool] | None:
        """What is published of a task, and whether it is stale."""
        now = self.clock.seconds()
        if self.snapshot is None or now is None:
            return None
        published = self.board.of(self.snapshot).get(task)
        if published is None:
            return None
        return published, now > published.good_until or not self.leadership.connected

    def start(self) -> None:
        self.leadership.start()
        self.runner.start()
        self.webhooks.start()

    def close(self) -> None:
        self.stream.close()
        self.runner.stop()
        self.leadership.stop()  # another computes from here on, whoever else keeps this one waiting
        self.webhooks.stop()
        self.store.close()

    def _clock(self) -> Clock:
        if self.settings.clock == "system":
            return SystemClock(pd.Timedelta(seconds=self.settings.future_seconds))
        return ObservationClock(lambda: max(self.store.newest().values(), default=None))
