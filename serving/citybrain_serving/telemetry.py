"""What is counted for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from citybrain_serving.outcome import Outcome
from citybrain_serving.snapshot import Snapshot

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Telemetry:
    """Metrics of one service, in a registry of their own, so that two services in a process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Histogram(
            "citybrain_request_seconds",
            "Time to answer",
            ("route", "method", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self._answered: dict[tuple[str, str, int], Histogram] = {}
        self.readings = Counter(
            "citybrain_readings", "Readings received, by what became of them", ("outcome",), registry=registry
        )
        self.accepted = Counter("citybrain_readings_stored", "Readings stored", ("signal",), registry=registry)
        self.late = Counter("citybrain_readings_late", "Readings stored after newer ones", registry=registry)
        self.doubted = Counter(
            "citybrain_readings_doubted", "Readings stored and not believed", ("reason", "signal"), registry=registry
        )
        self.weather = Counter(
            "citybrain_weather_values", "Values of weather forecasts, by what became of them", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self.weather_age = Gauge(
            "citybrain_weather_age_seconds", "Issue time minus that of the weather forecast read, infinite for none",
            ("task",), registry=registry,
        )  # fmt: skip
        self.stuck = Gauge("citybrain_sensors_stuck", "Sensors that repeat themselves", ("signal",), registry=registry)
        self.cycles = Histogram("citybrain_cycle_seconds", "Time of a cycle", buckets=SECONDS, registry=registry)
        self.failures = Counter("citybrain_cycle_failures", "Cycles that ended in an error", registry=registry)
        self.age = Gauge("citybrain_forecast_age_seconds", "Now minus issue time", ("task",), registry=registry)
        self.fallback = Gauge(
            "citybrain_forecast_fallback", "1 where the weekly profile answers", ("task",), registry=registry
        )
        self.stale = Gauge("citybrain_forecast_stale", "1 where the inputs are too old", ("task",), registry=registry)
        self.seen = Gauge("citybrain_inputs_seen_ratio", "Nodes measured in the history", ("task",), registry=registry)
        self.computes = Gauge("citybrain_computes", "1 where this replica computes the forecasts", registry=registry)
        self.clock = Gauge(
            "citybrain_clock_ahead_seconds", "This machine's clock minus the database's", registry=registry
        )
        self.room = Gauge(
            "citybrain_store_free_bytes", "Free on the disk of the store, NaN where it is elsewhere", registry=registry
        )
        self.doubtful = Gauge(
            "citybrain_forecast_doubted", "1 where outcomes keep falling outside", ("task",), registry=registry
        )
        self.doubts = Gauge(
            "citybrain_forecast_nodes_doubted", "Nodes doubted, by reason", ("task", "why"), registry=registry
        )
        self.coverage = Gauge(
            "citybrain_forecast_coverage_ratio", "Recent outcomes inside the interval", ("task",), registry=registry
        )
        self.replaced = Gauge("citybrain_forecast_nodes_replaced", "Nodes doubted", ("task",), registry=registry)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request. Looking up its labels anew would cost more than counting it."""
        key = (route, method, status)
        counted = self._answered.get(key)
        if counted is None:
            counted = self._answered[key] = self.requests.labels(route, method, str(status))
        counted.observe(seconds)

    def cycle(self, seconds: float | None) -> None:
        if seconds is None:
            self.failures.inc()
        else:
            self.cycles.observe(seconds)

    def ingested(self, outcome: Outcome) -> None:
        _count(self.readings, outcome)
        self.late.inc(outcome.late)
        for signal, count in outcome.by_signal.items():
            self.accepted.labels(signal).inc(count)
        for signal, count in outcome.stuck.items():
            self.doubted.labels("stuck", signal).inc(count)

    def given_up(self, missing: Mapping[str, int]) -> None:
        """Readings of lanes, by signal, whose road was never told of whole."""
        self.readings.labels("partial").inc(sum(missing.values()))

    def foretold(self, outcome: Outcome) -> None:
        """A weather forecast that was handed in."""
        _count(self.weather, outcome)

    def render(self, snapshot: Snapshot | None, now: pd.Timestamp | None, stale: Callable[[str], bool]) -> bytes:
        """The Prometheus text format."""
        for name, forecast in (snapshot.forecasts if snapshot else {}).items():
            if now is not None:
                self.age.labels(name).set((now - forecast.issued).total_seconds())
            self.fallback.labels(name).set(forecast.source == "fallback")
            self.stale.labels(name).set(stale(name))
            self.seen.labels(name).set(forecast.inputs.seen)
            self.replaced.labels(name).set(forecast.replaced)
            self.doubtful.labels(name).set(forecast.doubted)
            if (weather := forecast.inputs.weather) is not None:
                age = (forecast.issued - weather.issued[0]).total_seconds() if weather.issued else math.inf
                self.weather_age.labels(name).set(age)
            for why in ("impossible", "leap"):
                self.doubts.labels(name, why).set(forecast.doubts.get(why, 0))
        return generate_latest(self.registry)


def _count(counter: Counter, outcome: Outcome) -> None:
    counter.labels("accepted").inc(outcome.accepted)
    counter.labels("repeated").inc(outcome.repeated)
    if outcome.waiting:
        counter.labels("waiting").inc(outcome.waiting)
    for reason, count in outcome.refused.items():
        counter.labels(reason).inc(count)
