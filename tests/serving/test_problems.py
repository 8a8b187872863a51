"""Problems are found where the numbers say so, ranked by cost, with causes that can be traced."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from citybrain_datasets.city import City
from citybrain_datasets.features import Window
from citybrain_models.events import Events
from citybrain_serving.app import create_app
from citybrain_serving.bench.cities import enlarged
from citybrain_serving.indices.air import aqi_cn, level
from citybrain_serving.languages import AIR_ADVICE, summary
from citybrain_serving.problems.causes import Causes, Scene
from citybrain_serving.problems.trouble import trouble
from citybrain_serving.schemas.decisions import ProblemsBody
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

NOON = pd.Timestamp("2026-03-17T12:00:00Z")


def jam(ids: list[str], speed: float = 4.0) -> list[dict]:
    """An hour of crawling at noon UTC, when these roads are slow already."""
    return [
        {"id": node, "signal": "speed", "time": (NOON + pd.Timedelta(minutes=minute)).isoformat(), "value": speed}
        for node in ids
        for minute in range(5, 60, 5)
    ]


@pytest.fixture
def jammed(warm, service):
    free = [f"r{i}" for i in range(2, 6)]
    assert warm.post("/v1/observations", json={"observations": jam(["r0", "r1"]) + jam(free, 55.0)}).status_code == 200
    service.step()
    return warm


def test_hot_spots_are_ranked_and_complete(jammed, service):
    body = ProblemsBody.model_validate_json(jammed.get("/v1/problems?task=congestion").content)
    assert [spot.id for spot in body.problems["congestion"]] == ["r0", "r1"]
    worst = body.problems["congestion"][0]
    assert worst.now
    assert worst.observed == 4.0
    assert worst.limit == pytest.approx(24.0)  # TPI 6 is a delay of 0.6 at 60 km/h
    assert (worst.standard, worst.cost_unit) == ("GB/T 33171-2016", "s/km/veh")
    assert worst.lead_minutes == 0
    forecast = service.snapshot.forecasts["congestion"]
    speeds = np.maximum(forecast.values[0], 1)
    mean = np.maximum(1 / speeds - 1 / 60, 0) @ np.array([0.3, 0.4, 0.3])
    assert worst.cost == pytest.approx(mean.mean() * 3600, rel=1e-3)
    assert worst.owner == "west"


def test_a_queue_reaches_back_and_the_inputs_are_told(jammed):
    spots = {s["id"]: s for s in jammed.get("/v1/problems?task=congestion").json()["problems"]["congestion"]}
    causes = {c["kind"]: c["inputs"] for c in spots["r0"]["causes"]}
    read = {"signal": "speed", "value": 4.0, "unit": "km/h", "kind": "measured", "time": "2026-03-17T12:55:00Z"}
    assert causes["spillback"] == [{**read, "id": "r1", "distance_m": 500}]
    assert "upstream" in {c["kind"] for c in spots["r1"]["causes"]}
    measured, usual = next(c["inputs"] for c in spots["r1"]["causes"] if c["kind"] == "unusual_drop")
    assert measured == {**read, "id": "r1"}
    assert (usual["kind"], usual["time"]) == ("usual", "2026-03-17T12:55:00Z")
    assert usual["value"] > 20
    assert set(usual) == set(measured)


def test_every_place_in_trouble_is_found_however_many_there_are(bundles, tmp_path):
    """An operator asks for the places of one owner; that 500 others of the city are worse must not hide them."""
    town = enlarged(bundles["congestion"], 600)
    service = Service([town], Settings(store=str(tmp_path / "large.sqlite"), clock="observations"))
    with TestClient(create_app(service)) as client:
        client.post("/v1/observations", json={"observations": jam(list(town.city.ids("road")))})
        service.step()
        told = client.get("/v1/problems?limit=500").json()
        assert (told["matching"], len(told["problems"]["congestion"])) == ({"congestion": 600}, 500)
        assert client.get("/v1/problems?owner=west").json()["matching"] == {"congestion": 300}


def test_filters_and_languages(jammed):
    assert jammed.get("/v1/problems?owner=east&task=congestion").json()["problems"]["congestion"][0]["id"] == "r1"
    assert jammed.get("/v1/problems?class=local").json()["problems"] == {"congestion": [], "pm25": []}
    first = jammed.get("/v1/problems?limit=1&task=congestion").json()
    assert ([spot["id"] for spot in first["problems"]["congestion"]], first["matching"]) == (["r0"], {"congestion": 2})
    chinese = jammed.get("/v1/problems?task=congestion", headers={"Accept-Language": "zh"})
    assert chinese.headers["content-language"] == "zh"
    assert chinese.json()["problems"]["congestion"][0]["summary"] == "地点r0 拥堵：前方排队回溢。"
    assert jammed.get("/v1/problems?task=noise").status_code == 404
    assert jammed.get("/v1/problems?probability=2").status_code == 422


def test_polluted_air_with_its_exposure(warm, service):
    foul = [
        {"id": "a1", "signal": "pm25", "time": f"2026-03-17T{hour:02}:00:00Z", "value": 400.0} for hour in range(1, 7)
    ]
    warm.post("/v1/observations", json={"observations": foul})
    service.step()
    (spot,) = warm.get("/v1/problems?task=pm25").json()["problems"]["pm25"]
    assert (spot["id"], spot["now"], spot["limit"], spot["cost_unit"]) == ("a1", True, 115.0, "µg/m³·h")
    assert (spot["standard"], spot["unit"]) == ("HJ 633-2026", "µg/m³")
    assert spot["cost"] > 0


def test_a_station_that_fell_silent_is_not_polluted_now(warm, service):
    """Three steps long its last reading is of the present; then neither problems nor indices nor advice rest on it."""
    at = {"lat": 31.2101, "lon": 121.5101}
    told = []
    for hour in range(1, 8):
        time = f"2026-03-17T{hour:02}:00:00Z"
        sent = {"a0": 20.0, "a2": 20.0} | ({"a1": 400.0} if hour <= 3 else {})
        readings = [{"id": node, "signal": "pm25", "time": time, "value": value} for node, value in sent.items()]
        assert warm.post("/v1/observations", json={"observations": readings}).status_code == 200
        service.step()
        spots = warm.get("/v1/problems?task=pm25&probability=0").json()["problems"]["pm25"]
        here = warm.get("/v1/at", params=at).json()
        aqi = next(index for index in here["air"]["indices"] if index["id"] == "aqi")
        told.append((any(s["now"] for s in spots if s["id"] == "a1"), aqi["basis"]))
        assert (here["air"]["id"], here["air"]["observed"]) == ("a1", 400.0)
        assert here["air"]["observed_at"] == f"2026-03-17T{min(hour, 3):02}:00:00Z"
    assert told == [(True, "hour")] * 3 + [(True, "observed")] * 3 + [(False, "forecast")]
    ahead = here["air"]["ahead"][0]["values"]["0.5"]
    assert aqi["value"] == aqi_cn(np.array(ahead))
    assert here["advice"] == [AIR_ADVICE[int(level(aqi_cn(np.array([ahead])))[0])]["en"]]


def test_before_a_snapshot_there_is_nothing_to_say(client):
    assert client.get("/v1/problems").status_code == 503


def station_scene(city: City, **latest: list[float]) -> Scene:
    placing = {"pm25": "air", "wind_direction": "city", "wind_speed": "city", "mixing_height": "city", "speed": "road"}
    values = {name: np.array(row, np.float32) for name, row in latest.items()}
    times = {name: np.full(len(row), np.datetime64("2026-03-17T11:00:00")) for name, row in latest.items()}
    return Scene(city, NOON, values, times, placing, np.full(6, 60.0), np.array([50.0, 50.0, 50.0]))


@pytest.fixture
def windy(city: City) -> City:
    """a1 lies north-east of a0: the edge from a0 to a1 points to 45°."""
    edges = {**city.edges}
    edges["air-air"] = pd.DataFrame(
        {"source": ["a0", "a1"], "target": ["a1", "a0"], "distance_m": [1500.0, 1500.0], "bearing_deg": [45.0, 225.0]}
    )
    return city.replace(edges=edges)


@pytest.mark.parametrize(("wind", "carried"), [(225.0, True), (190.0, True), (170.0, False), (45.0, False)])
def test_transport_comes_from_where_the_wind_comes_from(windy, wind, carried):
    scene = station_scene(windy, pm25=[180.0, 120.0, 30.0], wind_direction=[wind], wind_speed=[4.0])
    causes = {c.kind: c.inputs for c in Causes(windy).of_station("a1", scene)}
    assert ("transport" in causes) == carried
    if carried:
        assert [entry["id"] for entry in causes["transport"]] == ["city", "a0"]
        assert causes["transport"][1]["value"] == 180.0
        assert {(entry["kind"], entry["time"]) for entry in causes["transport"]} == {
            ("measured", "2026-03-17T11:00:00Z")
        }


def test_stagnation_and_traffic_nearby(windy):
    scene = station_scene(
        windy, pm25=[20, 150, 30], wind_speed=[0.8], mixing_height=[200], speed=[50, 50, 50, 5, 50, 50]
    )
    causes = {c.kind: c.inputs for c in Causes(windy).of_station("a1", scene)}
    assert [entry["signal"] for entry in causes["stagnation"]] == ["wind_speed", "mixing_height"]
    assert {entry["id"] for entry in causes["stagnation"]} == {"city"}
    assert [entry["id"] for entry in causes["traffic_nearby"]] == ["r3"]
    assert "transport" not in causes


def test_nothing_known_names_no_cause(windy):
    assert Causes(windy).of_station("a2", station_scene(windy, pm25=[1, 1, 200])) == []


def test_what_is_measured_hourly_is_told_with_its_hour_and_only_while_it_is_of_themeasured_at(service, warm):
    finder = service.followup.finder
    forecast = service.snapshot.forecasts["pm25"]
    for age, told in ((0, "2026-03-17T00:00:00"), (3, "2026-03-16T21:00:00"), (4, "NaT"), (np.nan, "NaT")):
        old = replace(forecast, latest_age={"temperature": np.full(1, age, np.float32)})
        assert str(finder.measured_at(old, "temperature")[0]) == told
    finer = replace(forecast, task=service.fleet.bundles["congestion"].task, issued=NOON + pd.Timedelta(minutes=35))
    held = replace(finer, latest_age={"temperature": np.zeros(1, np.float32)})
    assert str(finder.measured_at(held, "temperature")[0]) == "2026-03-17T12:00:00"


def test_a_summary_says_when_and_why():
    said = summary("road", False, ["rain", "usual"], "en", name="Ring", time="03-02 08:00", probability=0.7)
    assert said == "Ring will probably be congested at 03-02 08:00 local time (70%): rain; usual at this hour."


@pytest.mark.parametrize(
    ("flow", "length", "unit", "known"),
    [
        ([100, np.nan], [500.0, 500.0], "veh·h", [True, True]),
        ([100, 100], [500.0, np.nan], "veh·h", [True, False]),
        ([np.nan, np.nan], [500.0, 500.0], "s/km/veh", [True, True]),
    ],
)
def test_a_cost_that_cannot_be_told_is_not_zero(warm, service, flow, length, unit, known):
    forecast = service.snapshot.forecasts["congestion"]
    two = replace(
        forecast,
        values=forecast.values[:2] * 0.3,
        observed=forecast.observed[:2],
        observed_age=forecast.observed_age[:2],
        latest={"flow": np.array(flow, np.float32)},
    )
    found = trouble(two, pd.DataFrame({"length_m": length}), np.full(2, 60.0), 3, date(2026, 3, 17))
    assert found.unit == unit
    assert np.isfinite(found.cost).tolist() == known
    assert (found.cost[known] > 0).all()


def test_a_problem_is_as_likely_as_the_event_that_benchmarks_score(warm, service):
    """Chance and limit are those of :class:`~citybrain_models.events.Events`: above 115 begins at 115.5."""
    forecast = service.snapshot.forecasts["pm25"]
    spread = np.linspace(0.4, 2.2, len(forecast.task.quantiles)) * 100
    near = replace(
        forecast,
        values=np.broadcast_to(spread, forecast.values.shape).astype(np.float32),
        observed=np.array([115.4, 115.6, np.nan], np.float32),
        observed_age=np.array([0, 0, np.nan], np.float32),
    )
    found = trouble(near, pd.DataFrame(index=range(3)), np.full(6, 60.0), 3, date(2026, 3, 17))
    truth = np.full((1, *near.values.shape[:2]), 100.0)
    scored = Events(forecast.task).occasions(Window(pd.DatetimeIndex([NOON]), {}), near.values[None], truth)
    np.testing.assert_array_equal(found.chance, scored["PM2.5 above 115"].probability[0])
    assert found.now.tolist() == [False, True, False]


def test_a_warning_has_the_probability_of_the_problem(jammed, service):
    (spot, *_) = jammed.get("/v1/problems?task=congestion").json()["problems"]["congestion"]
    place = jammed.get(f"/v1/at?lat={spot['lat']}&lon={spot['lon']}").json()
    assert place["road"]["id"] == spot["id"]
    assert any(f"{spot['probability']:.0%}" in warning for warning in place["warnings"])
