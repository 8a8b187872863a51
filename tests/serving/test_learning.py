"""What outcomes taught the quantiles is kept by part of the day, counts once, and what older releases kept is
understood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson
import pandas as pd
import pytest
import sqlalchemy as sa

from citybrain_datasets.calendar import Calendar
from citybrain_models.calibration import PARTS, Calibration
from citybrain_models.learning import OnlineCalibration
from citybrain_serving.database import transaction
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.store import Partial
from citybrain_serving.tables import calibrations

END = pd.Timestamp("2026-03-17", tz="UTC")
FIVE = pd.Timedelta(minutes=5)
RATE = 0.1


def opened(folder, bundles, rate: float = RATE) -> Service:
    store = str(folder / "store.sqlite")
    return Service(bundles, Settings(store=store, clock="observations", patience_minutes=0, learning_rate=rate))


@pytest.fixture
def service(tmp_path, bundles):
    made = opened(tmp_path, bundles.values())
    yield made
    made.close()


def observe(service: Service, signal) -> None:
    """Tick by tick, with a step of the service after each."""
    for time, row in zip(signal.times, signal.values, strict=True):
        service.store.merge([Partial("speed", int(time.timestamp()), np.arange(len(row)), row)])
        service.step()


def test_outcomes_of_one_part_of_the_day_move_that_part_alone(service, city, bundles):
    first = END - pd.Timedelta(minutes=100)
    observe(service, city.signals["speed"].between(first, END - pd.Timedelta(minutes=5)))
    learnt = service.quality.learnt(bundles["congestion"]).by_part
    # 22:20 to 23:55 UTC; the city's clock says in which part of its day that is.
    hour = (END - pd.Timedelta(minutes=50)).tz_convert(city.timezone).hour
    touched = np.flatnonzero(learnt.any(axis=(1, 2)))
    assert len(learnt) == PARTS
    np.testing.assert_array_equal(touched, [hour * PARTS // 24])


def test_each_outcome_counts_once_at_each_lead_as_in_the_benchmark_and_over_a_restart(tmp_path, city, bundles):
    first, between = END - pd.Timedelta(minutes=80), END - pd.Timedelta(minutes=40)
    speed, bundle = city.signals["speed"], bundles["congestion"]
    service = opened(tmp_path, bundles.values())
    observe(service, speed.between(first, between))
    service.close()
    service = opened(tmp_path, bundles.values())
    observe(service, speed.between(between + FIVE, END))
    said = {time: service.history.find("congestion", time) for time in pd.date_range(first, END, freq=FIVE)}
    learnt = service.quality.learnt(bundle)
    service.close()
    nothing = Calibration.none(bundle.task, PARTS)
    online = OnlineCalibration(bundle.task, Calendar(city.timezone), bundle.calibration, nothing, rate=RATE)
    for time, forecast in said.items():
        online.learn(time, speed.between(time, time).values[0])
        online.remember(time, forecast.values)
    assert online.learnt.shift.any(axis=1).all()
    np.testing.assert_allclose(learnt.shift, online.calibration.shift, atol=1e-6)
    np.testing.assert_allclose(learnt.by_part, online.calibration.by_part, atol=1e-6)


def test_outcomes_wait_for_the_readings_that_fill_a_gap(tmp_path, city, bundles, clock):
    """Of the feed, longer than the patience, over which the service was started again; the gateway then sends what it
    kept."""
    speed, bundle = city.signals["speed"], bundles["congestion"]
    settings = Settings(store=str(tmp_path / "store.sqlite"), patience_minutes=60, learning_rate=RATE)
    clock.time = END - pd.Timedelta(hours=8)

    def started(step: pd.Timedelta) -> Service:
        clock.time += step
        service = Service(bundles.values(), settings, clock=clock)
        service.step()
        return service

    def scored(service: Service) -> list[int]:
        day = clock.time.date()
        return [row["count"] for row in service.quality.table("congestion", day, day, "all", ["lead_minutes"])]

    def send(service: Service, first: pd.Timestamp) -> None:
        merged = speed.between(first, clock.time)
        rows = zip(merged.times, merged.values, strict=True)
        service.store.merge([Partial("speed", int(t.timestamp()), np.arange(len(row)), row) for t, row in rows])
        service.step()

    service = started(pd.Timedelta(0))
    send(service, clock.time - pd.Timedelta(hours=30))
    service.close()
    service = started(pd.Timedelta(hours=3))
    assert scored(service) == []
    send(service, clock.time - pd.Timedelta(hours=3))
    assert scored(service) == [len(city.ids("road"))] * bundle.task.horizon
    assert service.quality.learnt(bundle).shift.any(axis=1).all()
    service.close()


def test_a_bundle_begins_with_what_training_learnt_last_and_nothing_moves_without_a_rate(tmp_path, city, bundles):
    bundle = bundles["congestion"]
    warm = Calibration.none(bundle.task, PARTS)
    warm.shift[:, -1] = 0.5
    given = [replace(bundle, learnt=warm), bundles["pm25"]]
    service = opened(tmp_path, given)
    np.testing.assert_allclose(service.quality.learnt(given[0]).shift, bundle.calibration.shift + warm.shift)
    observe(service, city.signals["speed"].between(END - 4 * FIVE, END))
    assert (service.quality.learnt(given[0]).shift[0] != bundle.calibration.shift[0] + warm.shift[0]).any()
    service.close()
    still = opened(tmp_path, given, rate=0)
    np.testing.assert_array_equal(still.quality.learnt(given[0]).shift, bundle.calibration.shift)
    still.close()


def keep(service: Service, bundle, shift: object, updated: pd.Timestamp) -> None:
    """A row as an older release kept it."""
    row = {"shift": orjson.dumps(shift).decode(), "updated": int(updated.timestamp())}
    with transaction(service.quality.engine, write=True) as connection:
        connection.execute(sa.insert(calibrations).values(task=bundle.task.name, bundle=bundle.version, **row))


def test_outcomes_that_an_older_release_learnt_from_do_not_count_again(service, city, bundles):
    """It learnt from whole forecasts, and kept when the last of them was issued."""
    bundle = bundles["congestion"]
    shift = np.full(bundle.calibration.shift.shape, 0.25).tolist()
    keep(service, bundle, {"shift": shift, "by_part": [shift] * PARTS}, END - bundle.task.horizon * FIVE)
    before = service.quality.learnt(bundle)
    np.testing.assert_allclose(before.shift, bundle.calibration.shift + 0.25)
    observe(service, city.signals["speed"].between(END - 8 * FIVE, END))
    np.testing.assert_array_equal(service.quality.learnt(bundle).shift, before.shift)


def test_what_an_older_release_learnt_is_kept(service, bundles):
    bundle = bundles["congestion"]
    keep(service, bundle, np.full(bundle.calibration.shift.shape, 0.25).tolist(), pd.Timestamp(0, tz="UTC"))
    learnt = service.quality.learnt(bundle)
    np.testing.assert_allclose(learnt.shift, bundle.calibration.shift + 0.25)
    assert not learnt.by_part.any()
