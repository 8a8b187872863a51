"""Forecasts are doubted before they are published: leaps, for a node and for a city, and intervals that fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from citybrain_serving.coverage import RECENT, Coverage
from citybrain_serving.doubts import NODE_LEAP
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

END = pd.Timestamp("2026-03-17", tz="UTC")
FIVE = pd.Timedelta(minutes=5)


class Moved:
    """A forecaster whose answer is changed on the way out."""

    def __init__(self, inner):
        self.inner, self.features, self.task = inner, inner.features, inner.task
        self.change = lambda values: values

    def forecast(self, window):
        return self.change(self.inner.forecast(window).copy())


@pytest.fixture
def moved(service: Service, client, rows) -> Moved:
    """The congestion model of a service that has thirty hours of observations, to be led astray."""
    client.post("/v1/observations", json={"observations": rows(30)})
    service.cycle.forecasters["congestion"] = Moved(service.cycle.forecasters["congestion"])
    return service.cycle.forecasters["congestion"]


def test_a_node_that_leaps_is_answered_by_the_profile(service: Service, moved: Moved, client):
    sound = service.step().forecasts["congestion"]

    def leap(values):
        values[0, 2] += 100
        return values

    moved.change = leap
    forecast = service.step().forecasts["congestion"]
    assert (forecast.source, dict(forecast.doubts)) == ("model", {"leap": 1})
    np.testing.assert_array_equal(np.delete(forecast.values, 2, axis=0), np.delete(sound.values, 2, axis=0))
    usual = service.fleet.bundles["congestion"].features().profile("speed", pd.DatetimeIndex([END]))[0, 12:, 2]
    np.testing.assert_allclose(forecast.values[2, :, 1], usual, rtol=1e-5)
    assert client.get("/v1/forecasts/congestion").json()["inputs"]["doubts"] == {"leap": 1}
    assert 'citybrain_forecast_nodes_doubted{task="congestion",why="leap"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("before", [True, False])
def test_a_leap_of_the_whole_city_is_answered_by_the_profile(service: Service, moved: Moved, before):
    """As a model would make it whose unit is another: miles in the place of kilometres."""
    if before:
        service.step()
    moved.change = lambda values: values * np.float32(0.62)
    forecast = service.step().forecasts["congestion"]
    assert forecast.source == "fallback"
    assert "most of the city" in forecast.reason


def test_what_was_observed_speaks_for_what_no_profile_knows(service: Service, moved: Moved, client):
    """Snow: every road slows down at once. The forecast that follows what is measured stands."""
    service.step()
    time = (END + FIVE).isoformat()
    snow = [{"id": f"r{i}", "signal": "speed", "time": time, "value": 9.0 + i} for i in range(6)]
    client.post("/v1/observations", json={"observations": snow})
    moved.change = lambda values: np.broadcast_to(np.array([9, 11, 13], np.float32), values.shape).copy()
    forecast = service.step().forecasts["congestion"]
    assert (forecast.source, forecast.replaced) == ("model", 0)
    assert forecast.values[0, 0, 1] == 11


def silent(rows, client, steps: int, last: float, nodes: tuple[str, ...] = ("r2",)) -> None:
    """Thirty hours of readings, of which ``nodes`` fall silent ``steps`` before their end, with a ``last`` speed."""
    since = END - steps * FIVE
    sent = [
        row
        for row in rows(30)
        if not (row["id"] in nodes and row["signal"] == "speed" and pd.Timestamp(row["time"]) >= since)
    ]
    sent += [{"id": node, "signal": "speed", "time": since.isoformat(), "value": last} for node in nodes]
    assert client.post("/v1/observations", json={"observations": sent}).json()["refused"] == 0


@pytest.mark.parametrize("steps", [0, 1, 4, 10])
def test_what_was_measured_last_speaks_for_a_sensor_that_is_silent_since(service: Service, client, rows, steps):
    """As after a start, when nothing was forecast before: a road was closed, and its detector fell silent."""
    silent(rows, client, steps, 9.0)
    model = service.cycle.forecasters["congestion"] = Moved(service.cycle.forecasters["congestion"])

    def follow(values):
        values[0, 2] = np.array([9, 11, 13])
        return values

    model.change = follow
    assert service.step().forecasts["congestion"].replaced == 0


def test_a_city_that_is_silent_since_it_changed_is_no_leap(service: Service, client, rows):
    silent(rows, client, 3, 9.0, tuple(f"r{i}" for i in range(6)))
    model = service.cycle.forecasters["congestion"] = Moved(service.cycle.forecasters["congestion"])
    model.change = lambda values: np.broadcast_to(np.array([9, 11, 13], np.float32), values.shape).copy()
    forecast = service.step().forecasts["congestion"]
    assert (forecast.source, forecast.replaced) == ("model", 0)


@pytest.mark.parametrize(("steps", "doubted"), [(0, 1), (1, 1), (6, 0)])
def test_how_far_is_too_far_goes_by_the_time_between(service: Service, client, rows, steps, doubted):
    """What would be a leap from one step to the next may have happened in half an hour."""
    silent(rows, client, steps, 60.0)
    model = service.cycle.forecasters["congestion"] = Moved(service.cycle.forecasters["congestion"])
    scale = service.fleet.bundles["congestion"].statistics.scalers["speed"].std

    def leap(values):
        values[0, 2] = 60 + scale * NODE_LEAP * np.array([1.15, 1.2, 1.25])
        return values

    model.change = leap
    assert service.step().forecasts["congestion"].replaced == doubted


def through(coverage: Coverage, forecast, steps: int, outcome: float, first: int = 1):
    """Publishes ``forecast`` again each step while every node measures ``outcome``."""
    made = None
    for step in range(first, first + steps):
        observed = np.full(forecast.observed.shape, outcome, np.float32)
        ages = np.zeros(len(observed), int)
        made = coverage.judged(
            replace(forecast, issued=forecast.issued + step * FIVE, observed=observed, observed_age=ages)
        )
    return made


def test_intervals_that_fail_are_said_to_and_forgiven_when_they_hold_again(service: Service, moved: Moved):
    forecast = service.step().forecasts["congestion"]
    inside, outside = float(np.median(forecast.values[..., 1])), 200.0
    values = np.broadcast_to(np.array([inside - 1, inside, inside + 1], np.float32), forecast.values.shape).copy()
    narrow = replace(forecast, values=values)
    coverage = Coverage()
    assert coverage.share is None
    sound = through(coverage, narrow, RECENT, inside)
    assert (coverage.share, sound.doubted, sound.reason) == (1.0, False, "")
    failed = through(coverage, narrow, RECENT, outside, first=RECENT + 1)
    assert coverage.share == 0
    assert failed.doubted
    assert failed.source == "model"
    assert failed.reason == "only 0% of recent outcomes lay inside the interval; 80% should"
    again = through(coverage, narrow, RECENT, inside, first=2 * RECENT + 1)
    assert not again.doubted


def test_a_model_is_not_judged_by_the_intervals_of_another(service: Service, moved: Moved):
    forecast = service.step().forecasts["congestion"]
    inside, outside = float(np.median(forecast.values[..., 1])), 200.0
    values = np.broadcast_to(np.array([inside - 1, inside, inside + 1], np.float32), forecast.values.shape).copy()
    bad, sound = (replace(forecast, values=values, bundle=name) for name in ("bad", "sound"))
    coverage = Coverage()
    assert through(coverage, bad, RECENT, outside).doubted
    back = through(coverage, sound, 1, outside, first=RECENT + 1)
    assert (back.doubted, coverage.share) == (False, None)
    for step in range(2, RECENT):
        assert not through(coverage, sound, 1, inside, first=RECENT + step).doubted
    assert coverage.share == 1


def test_a_silent_sensor_is_no_outcome_and_each_reading_counts_once(service: Service, moved: Moved):
    forecast = service.step().forecasts["congestion"]
    coverage = Coverage()
    coverage.judged(forecast)
    old = replace(forecast, issued=forecast.issued + FIVE, observed_age=np.ones(6, int))
    for _ in range(3):
        coverage.judged(old)
    assert not coverage._steps  # nothing new was measured, whatever was published meanwhile


def test_a_doubted_forecast_says_so_wherever_it_is_read(service: Service, moved: Moved, client, bundles):
    service.step()
    service.cycle.coverage["congestion"].doubted = True
    service.cycle.coverage["congestion"]._steps = {END: (10, 1_000)}
    service.step()
    told = client.get("/v1/forecasts/congestion").json()
    assert (told["source"], told["doubted"]) == ("model", True)
    assert told["reason"].startswith("only 1% of recent outcomes")
    assert 'citybrain_forecast_doubted{task="congestion"} 1.0' in client.get("/metrics").text
    place = client.get("/v1/at", params={"lat": 31.2101, "lon": 121.5101}).json()
    assert place["road"]["doubted"]
    assert any("not come true" in warning for warning in place["warnings"])
    assert client.get("/v1/problems").json()["doubted"] == {"congestion": True, "pm25": False}
    assert client.get("/v1/city").json()["tasks"]["congestion"]["doubted"]
    kept = service.history.find("congestion", END)
    assert (kept.doubted, kept.reason) == (True, told["reason"])


def test_what_came_true_is_known_again_after_a_start(service: Service, moved: Moved, bundles, client):
    for step in range(8):
        time = (END + step * FIVE).isoformat()
        slow = [{"id": f"r{i}", "signal": "speed", "time": time, "value": 20.0 + i + step} for i in range(6)]
        client.post("/v1/observations", json={"observations": slow})
        service.step()
    before = service.cycle.coverage["congestion"]._steps
    again = Service(bundles.values(), Settings(store=service.settings.store, clock="observations"))
    try:
        assert again.cycle.coverage["congestion"]._steps == before
    finally:
        again.close()
