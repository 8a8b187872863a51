"""From stored observations to a published snapshot."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest

from citybrain_datasets.task import Task
from citybrain_datasets.windows import WindowSource
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.clock import ObservationClock, SystemClock
from citybrain_serving.cycle import Cycle
from citybrain_serving.doubts import impossible
from citybrain_serving.inputs import newest_window
from citybrain_serving.readings import readings_from_json
from citybrain_serving.runner import Runner
from citybrain_serving.service import Service
from citybrain_serving.store import Partial

END = pd.Timestamp("2026-03-17", tz="UTC")
FIVE = pd.Timedelta(minutes=5)


class FixedClock:
    """A clock that a test sets."""

    def __init__(self, now: pd.Timestamp | None):
        self.time = now

    def now(self) -> pd.Timestamp | None:
        return self.time

    def seconds(self) -> float | None:
        return None if self.time is None else self.time.timestamp()

    def latest(self) -> pd.Timestamp | None:
        return None

    def refresh(self) -> None:
        pass


class Broken:
    """A forecaster that answers whatever it was given, or raises it."""

    def __init__(self, bundle, answer):
        self.features, self.task, self.answer = bundle.features(), bundle.task, answer

    def forecast(self, window):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def fill(service: Service, city, last: pd.Timestamp = END, days: float = 3) -> None:
    """The city's own signals, straight into the store."""
    partials = []
    for name, signal in city.signals.items():
        cut = signal.between(last - pd.Timedelta(days=days), last)
        partials += [
            Partial(name, int(time.timestamp()), np.flatnonzero(np.isfinite(row)), row[np.isfinite(row)])
            for time, row in zip(cut.times, cut.values, strict=True)
        ]
    service.store.merge(partials)


def cycle_of(service: Service, forecasters: dict, now: pd.Timestamp | None = END) -> Cycle:
    return Cycle(service.fleet, forecasters, service.store, FixedClock(now), pd.Timedelta(minutes=1))


@pytest.mark.parametrize("task", ["congestion", "pm25"])
def test_serving_and_training_cut_the_same_window(service, city, bundles, task):
    fill(service, city)
    features = bundles[task].features()
    issue = END - pd.Timedelta(hours=3)
    ours = newest_window(service.store, features, issue)
    theirs = WindowSource.of_city(features, city.between(END - pd.Timedelta(days=3), END)).window(ours.issue)
    for name in features.signals:
        np.testing.assert_array_equal(ours.values[name], theirs.values[name])
    for name, array in features(theirs).items():
        np.testing.assert_array_equal(features(ours)[name], array)


def test_a_task_that_samples_at_the_tick_reads_every_third_value(service, city, bundles, bundle_of):
    changes = {"step_minutes": 15, "sampling": "last"}
    bundle = bundle_of(city, Task.model_validate({**bundles["congestion"].task.model_dump(), **changes}))
    fill(service, city)
    features, issue = bundle.features(), END - FIVE
    ours = newest_window(service.store, features, issue)
    theirs = WindowSource.of_city(features, city.between(END - pd.Timedelta(days=3), END)).window(ours.issue)
    np.testing.assert_array_equal(ours.values["speed"], theirs.values["speed"])


@pytest.mark.parametrize("minutes", [0, 25])
def test_what_is_measured_hourly_is_held_on_a_finer_clock(service, city, bundles, bundle_of, minutes):
    changes = {"inputs": ("temperature",)}
    bundle = bundle_of(city, Task.model_validate({**bundles["congestion"].task.model_dump(), **changes}))
    fill(service, city)
    features, issue = bundle.features(), END - pd.Timedelta(minutes=minutes)
    ours = newest_window(service.store, features, issue)
    theirs = WindowSource.of_city(features, city.between(END - pd.Timedelta(days=3), END)).window(ours.issue)
    for name in features.signals:
        np.testing.assert_array_equal(ours.values[name], theirs.values[name])


def test_the_published_forecast_is_the_models(service, city, bundles):
    fill(service, city)
    snapshot = service.cycle.run()
    for name, forecast in snapshot.forecasts.items():
        features = bundles[name].features()
        window = newest_window(service.store, features, END)
        np.testing.assert_array_equal(forecast.values, OnnxForecaster(bundles[name]).forecast(window)[0])
        assert (forecast.source, forecast.issued, forecast.replaced) == ("model", END, 0)
        assert forecast.inputs.seen == 1
        assert forecast.inputs.newest == END
        assert forecast.times[0] == END + forecast.task.step
    np.testing.assert_array_equal(snapshot.forecasts["congestion"].observed, city.signals["speed"].values[-1])


def test_a_snapshot_cannot_be_changed(service, city):
    fill(service, city)
    forecast = service.cycle.run().forecasts["congestion"]
    with pytest.raises(ValueError, match="read-only"):
        forecast.values[0] = 0


def test_nothing_is_published_before_the_present_is_known(service):
    assert service.cycle.run() is None


def test_without_observations_the_profile_answers_and_says_so(service, bundles):
    forecasters = {n: OnnxForecaster(b) for n, b in bundles.items()}
    snapshot = cycle_of(service, forecasters).run()
    forecast = snapshot.forecasts["congestion"]
    assert (forecast.source, forecast.reason) == ("fallback", "no speed was observed")
    assert forecast.stale(END, 3)
    assert np.isfinite(forecast.values).all()
    assert (np.diff(forecast.values, axis=2) >= 0).all()
    usual = bundles["congestion"].features().profile("speed", pd.DatetimeIndex([END]))[0, 12:]
    np.testing.assert_allclose(forecast.values[:, :, 1], usual.T, rtol=1e-6)


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("out of memory"),
        np.full((1, 6, 6, 3), np.nan, np.float32),
        np.full((1, 6, 6, 3), 1e6, np.float32),
        np.full((1, 6, 6, 3), -1, np.float32),
        np.tile(np.array([3, 2, 1], np.float32), (1, 6, 6, 1)),
        np.zeros((1, 5, 6, 3), np.float32),
    ],
)
def test_when_the_model_fails_the_profile_answers(service, city, bundles, answer):
    fill(service, city)
    forecast = cycle_of(service, {"congestion": Broken(bundles["congestion"], answer)}).run().forecasts["congestion"]
    assert forecast.source == "fallback"
    assert forecast.reason
    assert "out of memory" not in forecast.reason
    assert not impossible(forecast.values, forecast.kind).any()


def test_a_single_doubted_node_is_replaced_and_counted(service, city, bundles):
    fill(service, city)
    answer = np.tile(np.array([53, 54, 55], np.float32), (1, 6, 6, 1))
    answer[0, 2, 3, 1] = np.inf
    forecast = cycle_of(service, {"congestion": Broken(bundles["congestion"], answer)}).run().forecasts["congestion"]
    assert (forecast.source, forecast.doubts) == ("model", {"impossible": 1})
    assert np.isfinite(forecast.values).all()
    assert (forecast.values[0] == answer[0, 0]).all()


def test_the_issue_waits_for_late_observations_no_longer_than_the_grace(service, city, bundles):
    fill(service, city, last=END - FIVE)
    cycle = cycle_of(service, {"congestion": OnnxForecaster(bundles["congestion"])})
    cycle.clock.time = END + pd.Timedelta(seconds=30)
    assert cycle.run().forecasts["congestion"].issued == END - FIVE
    cycle.clock.time = END + pd.Timedelta(seconds=61)
    forecast = cycle.run().forecasts["congestion"]
    assert forecast.issued == END
    assert forecast.inputs.newest == END - FIVE
    assert cycle.due_after(cycle.clock.time.timestamp()) == (END + FIVE + pd.Timedelta(minutes=1)).timestamp()


def test_a_clock_that_is_put_right_by_seconds_takes_back_no_forecast(service, city, bundles):
    fill(service, city)
    cycle = cycle_of(service, {"congestion": OnnxForecaster(bundles["congestion"])})
    published = cycle.run()
    cycle.clock.time = END - pd.Timedelta(seconds=1)
    assert cycle.run(touched=()) is published
    assert cycle.run(touched={"speed"}).forecasts["congestion"].issued == END
    cycle.clock.time = END - pd.Timedelta(minutes=61)  # it was an hour ahead: what it said is no forecast of now
    assert cycle.run(touched=()).forecasts["congestion"].issued == END - pd.Timedelta(minutes=65)


def test_late_data_computes_again_and_nothing_else_does(service, city, bundles):
    fill(service, city, last=END - FIVE)
    service.store.merge([Partial("speed", int(END.timestamp()), np.array([0]), np.array([40], np.float32))])
    first = service.cycle.run()
    assert service.cycle.run(touched=()) is first
    assert service.cycle.run(touched={"temperature"}).forecasts["congestion"] is first.forecasts["congestion"]
    service.store.merge([Partial("speed", int(END.timestamp()), np.array([1]), np.array([9], np.float32))])
    second = service.cycle.run(touched={"speed"})
    assert second is not first
    assert second.forecasts["congestion"].digest != first.forecasts["congestion"].digest
    assert np.isnan(first.forecasts["congestion"].observed).sum() == 0  # the first one is what it was


def test_staleness_is_the_age_of_the_newest_observation(service, city):
    fill(service, city)
    forecast = service.cycle.run().forecasts["congestion"]
    assert not forecast.stale(END + 3 * FIVE, 3)
    assert forecast.stale(END + 3 * FIVE + pd.Timedelta(seconds=1), 3)


def test_the_runner_computes_when_told_and_stops(service, city):
    runs: list[float | None] = []
    ran = threading.Event()

    def finished(seconds: float | None) -> None:
        runs.append(seconds)
        ran.set()

    runner = Runner(service.step, service.until_due, 0.0, finished)
    runner.start()
    assert ran.wait(30)
    ran.clear()
    fill(service, city)
    runner.notify({"speed", "pm25"})
    assert ran.wait(30)
    runner.stop()
    assert service.snapshot is not None
    assert all(seconds is not None for seconds in runs)


def test_a_failing_step_is_reported_and_the_runner_lives_on():
    touched: list[object] = []
    runs: list[float | None] = []
    ran = threading.Event()

    def fail(signals: object) -> None:
        touched.append(signals)
        raise RuntimeError("broken")

    def finished(seconds: float | None) -> None:
        runs.append(seconds)
        ran.set()

    runner = Runner(fail, lambda: None, 0.0, finished)
    runner.start()
    assert ran.wait(30)
    ran.clear()
    runner.notify({"speed"})
    assert ran.wait(30)
    runner.stop()
    assert runs == [None, None]
    assert touched == [None, None]  # what a failed step was to compute, here all of it, is still due


def test_one_wrong_date_cannot_run_away_with_a_replayed_clock(service, city):
    fill(service, city)
    service.clock.refresh()
    far = '{"observations": [{"id": "r0", "signal": "speed", "time": "2026-04-17T00:00:00Z", "value": 1}]}'
    assert service.take(readings_from_json(far.encode())).refused == {"from_the_future": 1}
    assert isinstance(service.clock, ObservationClock)
    assert service.clock.now() == END


def test_the_systems_clock_allows_a_tolerance():
    clock = SystemClock(pd.Timedelta(seconds=90))
    before = pd.Timestamp.now("UTC")
    assert before <= clock.now() <= clock.latest() - pd.Timedelta(seconds=89)
