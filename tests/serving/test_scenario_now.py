"""Measures held against the forecasts of now: of traffic, and of PM2.5 at the stations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from citybrain_datasets.city import City
from citybrain_datasets.task import Task
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_serving.inputs import InputHealth
from citybrain_serving.scenarios.now import Ground, base_now, last_known, pm25_now
from citybrain_serving.scenarios.run import SHIPPED
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.snapshot import Forecast

pytestmark = pytest.mark.skipif(not (SHIPPED / "embedded").is_dir(), reason="no surrogate ships for the embedded city")

TRAFFIC = Task(
    name="congestion", node="road", target="speed", inputs=("flow",), step_minutes=5, history=12, horizon=6,
    quantiles=(0.1, 0.5, 0.9), seasonal_days=(1,), coarse=(12, 2),
)  # fmt: skip
AIR = Task(
    name="pm25", node="air", target="pm25", step_minutes=60, history=6, horizon=4, quantiles=(0.1, 0.5, 0.9),
    seasonal_days=(1,),
)  # fmt: skip
CLEANER = {"id": "cleaner", "measures": [{"lever": "regional", "reduction": 1}, {"lever": "vehicles", "reduction": 1}]}
BODY = {"scenarios": [{"id": "nothing"}, CLEANER]}
EIGHT = pd.Timestamp("2025-03-19 08:00", tz="Asia/Shanghai").tz_convert("UTC")


@pytest.fixture(scope="module")
def city() -> City:
    return City.load("embedded")


@pytest.fixture(scope="module")
def surrogate() -> SurrogateBundle:
    return SurrogateBundle.read(SHIPPED / "embedded")


@pytest.fixture
def asked(
    city: City, bundle_of: Callable[..., Any], live: Any, tmp_path: Any
) -> Iterator[tuple[Service, httpx.Client]]:
    """A service of the embedded city that forecasts roads and air, and a client of it."""
    settings = Settings(store=str(tmp_path / "store.sqlite"), clock="observations")
    service = Service([bundle_of(city, TRAFFIC), bundle_of(city, AIR)], settings)
    with live(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=60) as client:
        yield service, client
    service.close()


def feed(service: Service, client: httpx.Client, city: City, until: Mapping[str, pd.Timestamp]) -> None:
    for name, end in until.items():
        signal = city.signals[name]
        cut = signal.between(end - pd.Timedelta("7h" if name == "pm25" else "1h"), end)
        for time, values in zip(cut.times, cut.values, strict=True):
            known = [(i, float(v)) for i, v in zip(city.ids(signal.node), values, strict=True) if v == v]
            ids, numbers = zip(*known, strict=True)
            body = {"signal": name, "time": time.isoformat(), "id": ids, "value": numbers}
            client.post("/v1/observations", json=body).raise_for_status()
    service.cycle.run()


def row(answer: httpx.Response, name: str) -> dict[str, Any]:
    return next(r for r in answer.raise_for_status().json()["scenarios"] if r["id"] == name)


def test_the_air_stands_on_the_forecast_of_the_stations(asked, city, surrogate):
    service, client = asked
    feed(service, client, city, dict.fromkeys(("speed", "flow", "pm25"), EIGHT))
    answer = client.post("/v1/scenarios", json=BODY)
    said = answer.json()
    published = service.snapshot.forecasts["pm25"]
    about = {"issued": said["issued"], "forecast": published.digest, "stale": False, "reason": "", "base": "now"}
    about["source"] = "model"
    assert (said["base"], said["stale"], said["air"]) == ("now", False, about)
    level = published.values[:, :2, 1].mean()
    assert row(answer, "nothing")["pm25_stations"] == pytest.approx(level, rel=1e-5)
    usual = client.post("/v1/scenarios", json={**BODY, "base": "usual"})
    assert row(usual, "nothing")["pm25_stations"] != pytest.approx(level, rel=0.02)
    assert usual.json()["air"]["base"] == "usual"

    many = {"scenarios": [*BODY["scenarios"], *({"id": f"more{n}"} for n in range(64))]}
    job = client.post("/v1/scenarios", json=many).json()
    assert job["air"] == about
    while (found := client.get(job["results"])).status_code == 202:
        pass
    for name in ("nothing", "cleaner"):
        direct, later = row(answer, name), row(found, name)
        assert [later[k] for k in direct if k.startswith("pm25")] == pytest.approx(
            [direct[k] for k in direct if k.startswith("pm25")]
        )


def test_a_weekly_profile_in_the_place_of_a_forecast_is_told_as_one(asked, city):
    service, client = asked
    feed(service, client, city, dict.fromkeys(("speed", "flow"), EIGHT))
    said = client.post("/v1/scenarios", json=BODY).json()
    assert (said["source"], said["stale"]) == ("model", False)
    assert (said["air"]["base"], said["air"]["source"], said["air"]["stale"]) == ("now", "fallback", True)


def forecast(task: Task, nodes: int, issued: pd.Timestamp, values: np.ndarray | None = None) -> Forecast:
    made = np.broadcast_to(np.arange(1.0, task.horizon + 1)[None, :, None], (nodes, task.horizon, 3))
    unseen = np.full(nodes, np.nan, np.float32)
    return Forecast(
        task=task, issued=issued, computed=issued, values=np.array(made if values is None else values, np.float32),
        observed=unseen, observed_age=unseen.copy(), inputs=InputHealth(1.0, issued, {}), bundle="b", source="model",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("minutes", "expected"), [(0, [1, 2]), (15, [1.25, 2.25]), (120, [3, 4]), (150, [3.5, 4]), (240, None)]
)
def test_an_hour_takes_of_each_hour_forecast_what_it_shares_with_it(city, surrogate, minutes, expected):
    ids = city.ids("air")
    found = pm25_now(surrogate, forecast(AIR, len(ids), EIGHT), ids, EIGHT + pd.Timedelta(minutes, "min"))
    assert (found is None) == (expected is None)
    if expected is not None:
        assert found == pytest.approx(np.repeat(np.array(expected)[:, None], len(ids), axis=1))


def test_stations_are_found_by_their_ids(city, surrogate):
    ids = city.ids("air")[::-1]
    values = np.arange(len(ids))[:, None, None] * np.ones((1, AIR.horizon, 3))
    values[0] = np.nan
    found = pm25_now(surrogate, forecast(AIR, len(ids), EIGHT, values), ids, EIGHT)
    assert found[:, :-1] == pytest.approx(np.repeat([np.arange(len(ids) - 1, 0, -1)], 2, axis=0))
    assert np.isnan(found[:, -1]).all()
    assert pm25_now(surrogate, forecast(AIR, 1, EIGHT, values[:1]), ["elsewhere"], EIGHT) is None


@pytest.mark.parametrize(
    ("minutes", "leads"),
    [
        (5, [1, 4, 7, 10, 13, 16, 19, 22]),  # the mean of three: 1, 2 and 3 stand around 2
        (15, range(8)),
        (30, [0, 0, 1, 1, 2, 2, 3, 3]),
        (60, [0] * 4 + [1] * 4),
        (120, [0] * 8),
    ],
)
def test_each_slot_has_the_speed_of_the_lead_that_covers_it(city, surrogate, minutes, leads):
    task = Task.model_validate({**TRAFFIC.model_dump(), "step_minutes": minutes, "horizon": 24, "seasonal_days": ()})
    speeds = 20.0 + np.arange(24)
    values = np.broadcast_to(speeds[None, :, None], (len(city.ids("road")), 24, 3))
    base = base_now(surrogate, forecast(task, len(values), EIGHT, values), np.full(len(values), np.nan))
    pace = base.flow * surrogate.network.length_m[:, None] / 1000 / base.vehicles
    assert pace == pytest.approx(np.broadcast_to(speeds[list(leads)], pace.shape), rel=1e-4)


def test_the_last_value_that_is_one_is_held():
    nan = np.nan
    values = np.array([[1, 2, nan, nan], [3, nan, nan, 4], [nan, nan, nan, 5]], np.float32)
    np.testing.assert_array_equal(last_known(values), [3, 2, nan, 5])
    np.testing.assert_array_equal(last_known(values[:0]), [nan] * 4)


def test_a_road_without_a_forecast_is_driven_as_usual(city, surrogate):
    values = np.full((len(city.ids("road")), TRAFFIC.horizon, 3), 30.0)
    values[:5] = np.nan
    base = base_now(surrogate, forecast(TRAFFIC, len(values), EIGHT, values), np.full(len(values), np.nan))
    assert np.isfinite(base.vehicles).all()
    assert base.vehicles[:5] == pytest.approx(surrogate.usual.vehicles[:5])
    assert Ground(base).scorer(surrogate).base is base
