"""Forecasts are kept, scored when their outcomes are in, and learnt from."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from citybrain_datasets.signals import Signal
from citybrain_models.calibration import Calibration
from citybrain_serving.coverage import Coverage
from citybrain_serving.database import transaction
from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.history import History
from citybrain_serving.quality import measures
from citybrain_serving.schemas.forecasts import ForecastBody, IssueBody
from citybrain_serving.schemas.quality import QualityBody
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.store import Partial
from citybrain_serving.tables import forecasts, scores

FIVE = pd.Timedelta(minutes=5)
DAY = pd.Timedelta(days=1)
END = pd.Timestamp("2026-03-17", tz="UTC")


@pytest.fixture
def kept(location, bundles):
    """A service on each kind of database."""
    settings = Settings(store=location, clock="observations", patience_minutes=0, learning_rate=0.1)
    made = Service(bundles.values(), settings)
    made.leadership.start()
    yield made
    made.close()


def observe(service: Service, city, first: pd.Timestamp, last: pd.Timestamp) -> None:
    """The city's own speeds, tick by tick, with a step of the service after each."""
    speed = city.signals["speed"].between(first, last)
    for time, row in zip(speed.times, speed.values, strict=True):
        service.store.merge([Partial("speed", int(time.timestamp()), np.arange(6), row)])
        service.step()


def merge(service: Service, signal) -> None:
    service.store.merge(
        [
            Partial(signal.name, int(time.timestamp()), np.arange(len(row)), row)
            for time, row in zip(signal.times, signal.values, strict=True)
        ]
    )


def test_forecasts_of_a_bundle_that_is_served_no_more_wait_and_hold_up_nothing(tmp_path, bundles, city):
    settings = Settings(store=str(tmp_path / "s.sqlite"), clock="observations", patience_minutes=0)
    until = END - pd.Timedelta(hours=24)

    def scored(served: list[str], signals: list[str], first: pd.Timestamp, last: pd.Timestamp) -> dict[str, bool]:
        with closing(Service([bundles[name] for name in served], settings)) as service:
            for name in signals:
                merge(service, city.signals[name].between(first, last))
            assert set(service.step().forecasts) == set(served)
            day = until.date()
            return {task: bool(service.quality.table(task, day, day, "all", ["source"])) for task in bundles}

    before, none = until - pd.Timedelta(hours=12), {"congestion": False, "pm25": False}
    assert scored(["congestion", "pm25"], ["speed", "pm25"], before, until) == none
    assert scored(["congestion"], ["speed"], until, END) == {"congestion": True, "pm25": False}
    assert scored(["congestion", "pm25"], ["pm25"], until, END) == {"congestion": True, "pm25": True}


def test_a_forecast_comes_back_as_it_was_issued(kept, city):
    merge(kept, city.signals["speed"].between(END - pd.Timedelta(days=2), END))
    issued = kept.step().forecasts["congestion"]
    found = kept.history.find("congestion", END)
    np.testing.assert_array_equal(found.values, issued.values)
    np.testing.assert_array_equal(found.observed, issued.observed)
    assert found.digest == issued.digest
    assert (found.inputs, found.source, found.task) == (issued.inputs, issued.source, issued.task)


def test_how_old_each_observation_was_comes_back_and_of_older_rows_is_unknown(kept, city):
    merge(kept, city.signals["speed"].between(END - pd.Timedelta(days=2), END - 3 * FIVE))
    kept.store.merge([Partial("speed", int(END.timestamp()), np.arange(1), np.float32([40.0]))])
    issued = kept.step().forecasts["congestion"]
    found = kept.history.find("congestion", END)
    assert found.observed_age.tolist() == issued.observed_age.tolist() == [0, 3, 3, 3, 3, 3]
    assert found.observed_at(1) == END - 3 * FIVE
    with transaction(kept.store.engine, write=True) as connection:
        connection.execute(forecasts.update().values(observed_age=None))
    before = kept.history.find("congestion", END)
    assert np.isnan(before.observed_age).all()
    assert before.observed_at(0) is None
    coverage = Coverage()
    coverage.recall([before, before])
    assert coverage.share is None
    assert kept.history.find("congestion", END - FIVE) is None


def test_a_forecast_computed_again_replaces_the_first_until_it_is_scored(kept, city):
    merge(kept, city.signals["speed"].between(END - pd.Timedelta(days=2), END - FIVE))
    kept.store.merge([Partial("speed", int(END.timestamp()), np.array([0]), np.array([40], np.float32))])
    kept.step()
    kept.store.merge([Partial("speed", int(END.timestamp()), np.array([1]), np.array([9], np.float32))])
    second = kept.step(touched={"speed"}).forecasts["congestion"]
    assert kept.history.find("congestion", END).digest == second.digest
    with transaction(kept.store.engine, write=True) as connection:
        connection.execute(forecasts.update().values(scored=True))
    kept.store.merge([Partial("speed", int(END.timestamp()), np.array([2]), np.array([7], np.float32))])
    kept.step(touched={"speed"})
    assert kept.history.find("congestion", END).digest == second.digest


def test_scores_are_those_of_the_outcomes(kept, city):
    first = END - pd.Timedelta(hours=2)
    merge(kept, city.signals["speed"].between(first - pd.Timedelta(days=2), first - FIVE))
    observe(kept, city, first, END)
    scored = [f for f in range(25) if first + (f + 6) * FIVE <= END]
    signal = city.signals["speed"]
    errors, inside = [], []
    for step in scored:
        issued = first + step * FIVE
        forecast = kept.history.find("congestion", issued)
        truth = signal.between(issued + FIVE, issued + 6 * FIVE).values.T
        errors.append(forecast.values[..., 1] - truth)
        inside.append((forecast.values[..., 0] <= truth) & (truth <= forecast.values[..., 2]))
    (row,) = kept.quality.table("congestion", first.date(), END.date(), "all", [])
    assert row["count"] == np.size(errors)
    assert row["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert row["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-5)
    assert row["bias"] == pytest.approx(np.mean(errors), abs=1e-5)
    assert row["coverage"] == pytest.approx(np.mean(inside))
    by_lead = kept.quality.table("congestion", first.date(), END.date(), "all", ["lead_minutes"])
    assert [r["lead_minutes"] for r in by_lead] == [5, 10, 15, 20, 25, 30]
    assert by_lead[2]["mae"] == pytest.approx(np.abs(np.array(errors)[..., 2]).mean(), rel=1e-5)
    groups = {r["part"]: r["count"] for r in kept.quality.table("congestion", first.date(), END.date(), "", ["part"])}
    assert groups["owner=west"] == groups["road_class=local"] == groups["all"] / 2


def test_nothing_is_scored_twice_or_before_its_time(kept, city):
    merge(kept, city.signals["speed"].between(END - pd.Timedelta(days=2), END))
    kept.step()
    assert kept.quality.update(END + 5 * FIVE) == 0
    merge(kept, _ahead(city))
    assert kept.quality.update(END + pd.Timedelta(hours=2)) == 1
    (row,) = kept.quality.table("congestion", END.date(), END.date(), "all", [])
    assert row["count"] == 36
    assert kept.quality.update(END + pd.Timedelta(hours=2)) == 0


def _ahead(city):
    """Half an hour after the end of the city's record: its last value goes on."""
    last = city.signals["speed"].values[-1:]
    return Signal("speed", "road", END + FIVE, FIVE, np.repeat(last, 6, axis=0))


def test_outcomes_move_the_quantiles_and_are_remembered(kept, city, bundles, location):
    first = END - pd.Timedelta(hours=2)
    fitted = kept.cycle.forecasters["congestion"].calibration.shift.copy()
    merge(kept, city.signals["speed"].between(first - pd.Timedelta(days=2), first - FIVE))
    observe(kept, city, first, END)
    moved = kept.cycle.forecasters["congestion"].calibration.shift
    assert (moved[:, [0, 2]] != fitted[:, [0, 2]]).all()
    assert (moved[:, 1] == 0).all()
    again = Service(bundles.values(), Settings(store=location, clock="observations"))
    np.testing.assert_allclose(again.cycle.forecasters["congestion"].calibration.shift, moved, atol=1e-6)
    again.close()


def test_adaptive_conformal_inference_finds_the_nominal_coverage():
    rng = np.random.default_rng(3)
    calibration = Calibration((0.1, 0.5, 0.9), np.zeros((1, 3), np.float32))
    raw = np.tile(np.array([-0.1, 0, 0.1], np.float32), (50, 1, 1))
    hits = []
    for _ in range(1500):
        published = raw + calibration.shift * 0.2
        truth = rng.normal(0, 1, (50, 1))
        hits.append(((published[..., 0] <= truth) & (truth <= published[..., 2])).mean())
        calibration = calibration.updated(published, truth, 0.2)
    assert np.mean(hits[-500:]) == pytest.approx(0.8, abs=0.02)


def test_history_is_forgotten_and_scores_stay(kept, city):
    merge(kept, city.signals["speed"].between(END - pd.Timedelta(days=2), END))
    kept.step()
    assert kept.history.forget(END) == 0
    assert kept.history.forget(END + FIVE) == 2
    assert kept.history.list("congestion", END - FIVE, END, 10) == []


def test_a_clock_that_was_set_forgets_nothing_before_it_has_gone_on_for_an_hour(tmp_path, bundles, city, clock):
    settings = Settings(store=str(tmp_path / "s.sqlite"), history_days=1)
    clock.time = END - pd.Timedelta(hours=2)
    with closing(Service(bundles.values(), settings, clock=clock)) as service:
        merge(service, city.signals["speed"].between(END - pd.Timedelta(hours=4), clock.time))

        def issues(*later: pd.Timedelta) -> list[pd.Timestamp]:
            for step in later:
                clock.time += step
                service.step(())
            return [issue.issued for issue in service.history.list("congestion", END - 30 * DAY, END + 90 * DAY, 99)]

        first = clock.time
        issues(pd.Timedelta(0), FIVE)
        assert first in issues(40 * DAY)
        assert first in issues(-40 * DAY, -5 * FIVE)
        assert first in issues(40 * DAY, 11 * FIVE)
        assert first not in issues(FIVE)  # nobody set it back: it was the right time


def test_measures_without_a_baseline():
    names = ("absolute", "squared", "error", "pinball", "inside", "width", "persistence", "paired")
    sums = dict.fromkeys(names, 1.0)
    assert measures({**sums, "count": 2, "persistence_count": 0, "paired_persistence": 0.0})["skill"] is None
    assert measures({**sums, "count": 2, "persistence_count": 2, "paired_persistence": 1.0})["skill"] == 0


def test_skill_is_of_outcomes_for_which_persistence_had_a_value(kept, city):
    """One road is silent before the issue time and measured after it: there persistence says nothing."""
    before = city.signals["speed"].between(END - pd.Timedelta(days=2), END)
    before = Signal("speed", "road", before.start, before.step, before.values.copy())
    before.values[-12:, 3] = np.nan
    merge(kept, before)
    forecast = kept.step().forecasts["congestion"]
    ahead = _ahead(city)
    ahead.values[:] += 2
    ahead.values[:, 3] = 5
    merge(kept, ahead)
    assert kept.quality.update(END + pd.Timedelta(hours=2)) == 1
    errors = np.abs(forecast.values[..., 1] - ahead.values.T)
    persistence = np.abs(forecast.observed[:, None] - ahead.values.T)
    both = np.isfinite(persistence)
    assert both.sum() == 30

    def row() -> dict:
        (found,) = kept.quality.table("congestion", END.date(), END.date(), "all", [])
        return found

    assert row()["mae"] == pytest.approx(errors.mean(), rel=1e-5)
    assert row()["skill"] == pytest.approx(1 - errors[both].mean() / persistence[both].mean(), rel=1e-4)
    with transaction(kept.store.engine, write=True) as connection:  # as a version before kept them
        connection.execute(scores.update().values(paired=None))
    assert row()["skill"] is None
    assert row()["persistence_mae"] == pytest.approx(persistence[both].mean(), rel=1e-5)


def test_history_and_quality_over_http(warm, service, rows):
    service.step()
    listed = [IssueBody.model_validate(entry) for entry in warm.get("/v1/forecasts/congestion/history").json()]
    assert [issue.issued for issue in listed] == ["2026-03-17T00:00:00Z"]
    past = warm.get(listed[0].href, params={"ids": "r1"})
    body = ForecastBody.model_validate_json(past.content)
    assert body.ids == ["r1"]
    assert body.values == warm.get("/v1/forecasts/congestion?ids=r1").json()["values"]
    assert warm.get(listed[0].href + "&index=tpi").json()["index"]["id"] == "tpi"
    quality = QualityBody.model_validate_json(warm.get("/v1/quality?task=congestion").content)
    assert (quality.nominal_coverage, quality.rows) == (0.8, [])
    late = [
        {"id": "r1", "signal": "speed", "time": f"2026-03-17T0{minute // 60}:{minute % 60:02}:00Z", "value": 50}
        for minute in range(5, 125, 5)
    ]
    warm.post("/v1/observations", json={"observations": late})
    service.step()
    rows_of = warm.get("/v1/quality?task=congestion&by=group&by=lead_minutes").json()["rows"]
    assert warm.get("/v1/quality?task=congestion&by=group,lead_minutes").json()["rows"] == rows_of
    assert {row["group"] for row in rows_of} == {"all", "owner=east", "road_class=primary"}
    assert all(row["count"] == 1 for row in rows_of)


def test_history_is_turned_page_by_page(warm, service):
    for hour in ("01", "02"):
        service.step()
        late = {"id": "r1", "signal": "speed", "time": f"2026-03-17T{hour}:00:00Z", "value": 50}
        warm.post("/v1/observations", json={"observations": [late]})
    service.step()
    whole = warm.get("/v1/forecasts/congestion/history").json()
    assert len(whole) == 3
    turned = []
    page = warm.get("/v1/forecasts/congestion/history?limit=2")
    turned += page.json()
    late = {"id": "r1", "signal": "speed", "time": "2026-03-17T03:00:00Z", "value": 50}
    warm.post("/v1/observations", json={"observations": [late]})
    service.step()  # what is issued meanwhile moves nothing on the pages that follow
    page = warm.get(page.links["next"]["url"])
    turned += page.json()
    assert "next" not in page.links
    assert turned == whole


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/v1/forecasts/congestion?issued=2026-03-16T00:00:00Z", 404),
        ("/v1/forecasts/congestion?issued=2026-03-16T00:00:00", 422),
        ("/v1/forecasts/congestion?issued=0001-01-01T00:00:00Z", 404),
        ("/v1/forecasts/noise?issued=2026-03-16T00:00:00Z", 404),
        ("/v1/forecasts/noise/history", 404),
        ("/v1/forecasts/congestion/history?limit=0", 422),
        ("/v1/forecasts/congestion/history?from=2026-03-16T00:00:00", 422),
        ("/v1/forecasts/congestion/history?from=2026-03-16T00:00:00Z&to=2026-03-15T00:00:00Z", 422),
        ("/v1/quality", 422),
        ("/v1/quality?task=noise", 404),
        ("/v1/quality?task=congestion&from=2026-03-18&to=2026-03-01", 422),
        ("/v1/quality?task=congestion&by=colour", 422),
        ("/v1/quality?task=congestion&from=0001-01-01&to=0001-01-03", 200),
        ("/v1/quality?task=congestion&to=0001-01-03", 200),
    ],
)
def test_what_cannot_be_found_or_asked(warm, address, status):
    answer = warm.get(address)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == ("application/json" if status == 200 else "application/problem+json")


def test_history_waits_for_a_store_that_is_away(kept, city, monkeypatch):
    merge(kept, city.signals["speed"].between(END - pd.Timedelta(days=2), END))
    write = History.write

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(History, "write", away)
    assert kept.step() is not None
    assert kept.history.find("congestion", END) is None
    monkeypatch.setattr(History, "write", write)
    kept.step(touched=())
    assert kept.history.find("congestion", END) is not None
