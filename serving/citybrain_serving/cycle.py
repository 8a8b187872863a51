"""The cycle: the newest window of each task becomes one immutable snapshot, published by one swap."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import Protocol

import pandas as pd
import structlog

from citybrain_datasets.features import Features
from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle
from citybrain_models.forecaster import Forecaster
from citybrain_serving.clock import Clock
from citybrain_serving.coverage import Coverage
from citybrain_serving.doubts import vetted
from citybrain_serving.fleet import Fleet
from citybrain_serving.inputs import health, last_seen, newest_window
from citybrain_serving.snapshot import Forecast, Snapshot, Source
from citybrain_serving.store import ObservationStore
from citybrain_serving.traffic_ahead import TrafficForecasts
from citybrain_serving.weather.store import WeatherForecasts, ahead

AWAITED_SECONDS = 5.0
"""How long a forecast is called fresh while the next may come out any moment."""

log = structlog.get_logger(__name__)


class FeaturedForecaster(Forecaster, Protocol):
    """A forecaster that says how its windows are cut."""

    @property
    def features(self) -> Features: ...


class Cycle:
    """Computes snapshots. ``current`` is the last one published; readers take it and hold on to it."""

    def __init__(
        self,
        fleet: Fleet,
        forecasters: MutableMapping[str, FeaturedForecaster],
        store: ObservationStore,
        clock: Clock,
        grace: pd.Timedelta,
        weather: WeatherForecasts | None = None,
        traffic: TrafficForecasts | None = None,
    ):
        self.fleet = fleet
        self.forecasters = forecasters
        self.store = store
        self.clock = clock
        self.grace = grace
        self.weather = weather
        self.traffic = traffic
        self.current: Snapshot | None = None
        self.coverage = {name: Coverage() for name in forecasters}
        self._clocks = [fleet.ticks(forecaster.task) for forecaster in forecasters.values()]
        self._one_at_a_time = threading.Lock()

    def run(self, touched: Collection[str] | None = None) -> Snapshot | None:
        """Computes what is due and publishes it; None while the present is unknown.

        A task is due when its issue time moved on, when its bundle was swapped, when a signal that it reads, or its
        forecast (:func:`~citybrain_serving.weather.store.ahead`), is in ``touched``, when the congestion forecast that
        it reads ahead was computed before it, or always where ``touched`` is None.
        """
        with self._one_at_a_time:
            self.clock.refresh()
            now = self.clock.now()
            if now is None:
                return self.current
            newest = self.store.newest()
            held = self.current.forecasts if self.current else {}
            forecasts: dict[str, Forecast] = {}
            # What reads another's forecast comes after it.
            ordered = sorted(self.forecasters.items(), key=lambda item: item[1].task.context_ahead is not None)
            for name, forecaster in ordered:
                issue = self.issue(forecaster.task, now, newest.get(forecaster.task.target))
                before, version = held.get(name), self.fleet.bundles[name].version
                if before is not None and now < before.issued <= now + self.grace:
                    issue = before.issued  # a clock that is put right by seconds takes back nothing
                touches = touched is None or not _reads(forecaster.features).isdisjoint(touched)
                touches = touches or self._foretold_anew(forecaster.task, issue, forecasts, held)
                if before is not None and (before.issued, before.bundle) == (issue, version) and not touches:
                    forecasts[name] = before
                else:
                    made = self.forecast(forecaster, version, issue, now, before=before, published=forecasts)
                    forecasts[name] = self.coverage[name].judged(made)
            if self.current is None or forecasts != held:
                self.current = Snapshot(forecasts, now)
            return self.current

    def recall(self, past: Mapping[str, Iterable[Forecast]]) -> None:
        """Takes up how the forecasts of each task, oldest first, have turned out so far."""
        with self._one_at_a_time:
            for name, forecasts in past.items():
                self.coverage[name] = Coverage()
                self.coverage[name].recall(forecasts)

    def show(self, snapshot: Snapshot) -> None:
        """Publishes what another replica computed."""
        with self._one_at_a_time:
            self.current = snapshot

    def issue(self, task: Task, now: pd.Timestamp, newest: pd.Timestamp | None) -> pd.Timestamp:
        """The newest tick that is complete: measured, or past the grace its observations are given."""
        ticks = self.fleet.ticks(task)
        tick = ticks.floor(now)
        if newest is not None and newest < tick and now - tick < self.grace:
            return tick - ticks.step
        return tick

    def due_after(self, now: float) -> float:
        """When the next issue time of any task falls due at the latest; both in seconds since 1970 UTC."""
        grace = self.grace.total_seconds()
        due = []
        for ticks in self._clocks:
            step, offset = 60 * ticks.step_minutes, 60 * ticks.offset_minutes
            due.append(((now - grace - offset) // step + 1) * step + offset + grace)
        return min(due)

    def fresh_for(self, now: float) -> float:
        """How long what is published will probably stand, in seconds: until the next tick of any task, and a moment at
        most while the observations of the last one are awaited. ``now`` in seconds since 1970 UTC."""
        left = []
        for ticks in self._clocks:
            step, offset = 60 * ticks.step_minutes, 60 * ticks.offset_minutes
            since = (now - offset) % step
            left.append(min(step - since, AWAITED_SECONDS if since < self.grace.total_seconds() else step))
        return min(left)

    def _foretold_anew(
        self, task: Task, issue: pd.Timestamp, forecasts: Mapping[str, Forecast], held: Mapping[str, Forecast]
    ) -> bool:
        """Whether this cycle has computed the forecast that ``task`` reads ahead, and not for after ``issue``."""
        source = None if self.traffic is None else self.traffic.source(task)
        made = None if source is None else forecasts.get(source.name)
        return made is not None and made is not held.get(made.task.name) and made.issued <= issue

    def swap(self, bundle: Bundle, forecaster: FeaturedForecaster) -> None:
        """From the next cycle on ``bundle`` forecasts its task; what is published stands until then."""
        with self._one_at_a_time:
            self.fleet.bundles[bundle.task.name] = bundle
            self.forecasters[bundle.task.name] = forecaster

    def rehearse(self, forecaster: FeaturedForecaster, version: str) -> Forecast:
        """What a model would forecast now. Published by nothing; where nothing was observed yet, of an empty window."""
        now = self.clock.now() or pd.Timestamp.now("UTC")
        issue = self.issue(forecaster.task, now, self.store.newest().get(forecaster.task.target))
        before = None if self.current is None else self.current.forecasts.get(forecaster.task.name)
        return self.forecast(forecaster, version, issue, now, before=before)

    def forecast(
        self,
        forecaster: FeaturedForecaster,
        version: str,
        issue: pd.Timestamp,
        now: pd.Timestamp,
        trusted: Source = "model",
        before: Forecast | None = None,
        published: Mapping[str, Forecast] | None = None,
    ) -> Forecast:
        """One forecast from the window that ends at ``issue``, doubted as every forecast is. ``trusted`` is its source
        where the model's own answer stands, ``before`` what is published of its task so far, ``published`` what is of
        the others, where that is not ``current``."""
        features = forecaster.features
        outlook = None if self.weather is None else self.weather.outlook(features, issue)
        window = newest_window(self.store, features, issue, outlook)
        if published is None:
            published = {} if self.current is None else self.current.forecasts
        traffic = None if self.traffic is None else self.traffic.outlook(features, issue, published)
        if traffic is not None:
            window = replace(window, future={**window.future, traffic.health.signal: traffic.values[None]})
        answer = vetted(forecaster, features, window, before)
        if answer.source == "fallback":
            log.warning(
                "forecast fell back to the weekly profile",
                task=forecaster.task.name, reason=answer.reason, bundle=version, issued=str(issue),
            )  # fmt: skip
        latest = {signal: last_seen(features, window, signal) for signal in features.signals}
        observed, age = latest[features.task.target]
        return Forecast(
            task=features.task,
            issued=issue,
            computed=now,
            values=answer.values,
            observed=observed,
            observed_age=age,
            inputs=replace(health(features, window, outlook), traffic=None if traffic is None else traffic.health),
            bundle=version,
            source=trusted if answer.source == "model" else answer.source,
            reason=answer.reason,
            doubts=answer.doubts,
            latest={signal: values for signal, (values, _) in latest.items()},
            latest_age={signal: ages for signal, (_, ages) in latest.items()},
        )


def _reads(features: Features) -> set[str]:
    return {*features.signals, *map(ahead, features.task.known_future)}
