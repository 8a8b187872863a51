"""Forecasts out: every format, filter and error, over a real socket."""

from __future__ import annotations

import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from citybrain_serving.schemas.city import CityBody
from citybrain_serving.schemas.errors import ProblemBody
from citybrain_serving.schemas.forecasts import ForecastBody, ForecastFeatures
from citybrain_serving.schemas.observations import IngestBody
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

ROADS = "/v1/forecasts/congestion"
ARROW = "application/vnd.apache.arrow.stream"


def test_json_is_the_snapshot_in_columns(warm, service):
    answer = warm.get(ROADS)
    assert answer.headers["content-type"] == "application/json"
    body = ForecastBody.model_validate_json(answer.content)
    forecast = service.snapshot.forecasts["congestion"]
    assert body.ids == [f"r{i}" for i in range(6)]
    assert (body.unit, body.synthetic, body.source, body.stale) == ("km/h", True, "model", False)
    assert body.times[0] == "2026-03-17T00:05:00Z"
    np.testing.assert_allclose(body.values, forecast.values, atol=0.0051)
    np.testing.assert_allclose(body.observed, forecast.observed, atol=0.0051)


def test_every_format_says_when_each_place_was_measured(client, service, rows):
    silent = [row for row in rows(30) if row["id"] != "r3"]
    late = [row for row in silent if row["id"] != "r1" or row["time"] <= "2026-03-16T23:45:00+00:00"]
    client.post("/v1/observations", json={"observations": late})
    service.cycle.run()
    columns = client.get(ROADS, params={"ids": "r0,r1,r3"}).json()
    assert columns["observed_at"] == ["2026-03-17T00:00:00Z", "2026-03-16T23:45:00Z", None]
    assert columns["observed"][2] is None
    features = client.get(ROADS, params={"ids": "r0,r1,r3"}, headers={"Accept": "application/geo+json"}).json()
    assert [f["properties"]["observed_at"] for f in features["features"]] == columns["observed_at"]
    table = pa.ipc.open_stream(client.get(ROADS, headers={"Accept": ARROW}).content).read_all()
    assert table["observed_at"].to_pylist()[1] == pd.Timestamp("2026-03-16T23:45:00Z")
    assert table["observed_at"].to_pylist()[3] is None
    road = client.get("/v1/roads/r1").json()["properties"]["observed"]
    assert road["time"] == columns["observed_at"][1]


def test_geojson(warm):
    answer = warm.get("/v1/forecasts/pm25", headers={"Accept": "application/geo+json"})
    assert answer.headers["content-type"] == "application/geo+json"
    body = ForecastFeatures.model_validate_json(answer.content)
    assert body.numberReturned == 3
    assert body.features[1].geometry.coordinates == pytest.approx((121.51, 31.21))
    assert body.features[1].properties["name_zh"] == "地点a1"
    assert np.shape(body.features[1].properties["values"]) == (4, 3)


def test_a_place_without_coordinates_has_no_geometry_and_is_in_no_box(warm):
    features = warm.get(ROADS, headers={"Accept": "application/geo+json"}).json()["features"]
    assert [f["geometry"] is None for f in features] == [False] * 5 + [True]
    assert "r5" not in warm.get(ROADS, params={"bbox": "-180,-90,180,90"}).json()["ids"]


def test_arrow(warm, service):
    answer = warm.get(ROADS, headers={"Accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column_names == ["id", "observed", "observed_at", "q0.1", "q0.5", "q0.9"]
    expected = service.snapshot.forecasts["congestion"].values[:, :, 1]
    np.testing.assert_allclose(np.array(table["q0.5"].to_pylist()), expected, atol=0.0051)
    head = orjson.loads(table.schema.metadata[b"citybrain"])
    assert head["issued"] == "2026-03-17T00:00:00Z"


def test_filters_combine(warm):
    every = warm.get(ROADS).json()
    some = warm.get(ROADS, params={"ids": "r4,r1,r1", "horizon": "30,5", "quantiles": "0.5"}).json()
    assert some["ids"] == ["r4", "r1"]
    assert some["times"] == [every["times"][5], every["times"][0]]
    assert some["values"][1] == [[every["values"][1][5][1]], [every["values"][1][0][1]]]
    boxed = warm.get(ROADS, params={"ids": "r4,r1", "bbox": "121.505,31.2,121.525,31.3"}).json()
    assert boxed["ids"] == ["r1"]
    assert warm.get(ROADS, params={"bbox": "0,0,1,1"}).json()["values"] == []


@pytest.mark.parametrize(
    ("params", "status", "says"),
    [
        ({"ids": "r1,zz"}, 404, "'zz'"),
        ({"ids": ""}, 422, "ids"),
        ({"ids": ","}, 422, "ids"),
        ({"bbox": "1,2,3"}, 422, "bbox"),
        ({"bbox": "0,50,1,40"}, 422, "bbox"),
        ({"bbox": "nan,0,1,1"}, 422, "bbox"),
        ({"horizon": "7"}, 422, "5, 10, 15, 20, 25, 30"),
        ({"horizon": "soon"}, 422, "horizon"),
        ({"quantiles": "0.3"}, 422, "0.1, 0.5, 0.9"),
        ({"quantiles": ""}, 422, "quantiles"),
    ],
)
def test_a_bad_selection_names_the_parameter(warm, params, status, says):
    answer = warm.get(ROADS, params=params)
    assert answer.status_code == status
    body = ProblemBody.model_validate_json(answer.content)
    assert body.status == status
    assert says in body.detail


def test_every_error_is_a_problem_document(warm):
    answers = [
        warm.get("/nowhere"),
        warm.delete(ROADS),
        warm.get("/v1/forecasts/noise"),
        warm.get(ROADS, headers={"Accept": "image/png"}),
    ]
    assert [a.status_code for a in answers] == [404, 405, 404, 406]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert ProblemBody.model_validate_json(answer.content).request_id == answer.headers["x-request-id"]


def test_an_internal_error_tells_no_secret(warm, service, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(service, "published", fail)
    answer = warm.get(ROADS)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "swordfish" not in answer.text


def test_accept_by_quality(warm):
    answer = warm.get(ROADS, headers={"Accept": "text/html, application/geo+json;q=0.5, application/json;q=0.2"})
    assert answer.headers["content-type"] == "application/geo+json"
    assert warm.get(ROADS, headers={"Accept": "text/html,*/*;q=0.8"}).headers["content-type"] == "application/json"


def test_not_modified_until_the_forecast_changes(warm, service, rows):
    first = warm.get(ROADS)
    tag = {"If-None-Match": first.headers["etag"]}
    again = warm.get(ROADS, headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert warm.get(ROADS, params={"ids": "r1"}, headers=tag).status_code == 200
    late = {"id": "r0", "signal": "speed", "time": "2026-03-17T00:05:00Z", "value": 3}
    warm.post("/v1/observations", json={"observations": [late]})
    service.cycle.run()
    changed = warm.get(ROADS, headers=tag)
    assert changed.status_code == 200
    assert changed.json()["observed"][0] == 3


@pytest.mark.parametrize("query", ["", "?ids=r1,r3&horizon=10", "?index=tpi"])
def test_an_answer_given_again_is_the_same_in_every_header(warm, query):
    first, again = (warm.get(ROADS + query, headers={"X-Request-ID": "one"}) for _ in range(2))
    assert again.content == first.content
    ours = {"etag", "cache-control", "vary", "content-type", "content-length", "x-request-id"}
    assert {k: v for k, v in again.headers.items() if k in ours} == {
        k: v for k, v in first.headers.items() if k in ours
    }
    same = warm.get(ROADS + query, headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert warm.get(ROADS + query, headers={"Accept": "application/geo+json"}).content != first.content


def test_an_answer_given_before_does_not_outlive_its_forecast(warm, service):
    asked = [ROADS, ROADS + "?index=tpi", ROADS + "?ids=r0"]
    before = [warm.get(address).content for address in asked * 2][3:]
    late = {"id": "r0", "signal": "speed", "time": "2026-03-17T00:05:00Z", "value": 3}
    warm.post("/v1/observations", json={"observations": [late]})
    service.cycle.run()
    after = [warm.get(address) for address in asked]
    assert all(new.content != old for new, old in zip(after, before, strict=True))
    assert all(new.json()["issued"] == "2026-03-17T00:05:00Z" for new in after)


@pytest.mark.parametrize(
    ("name", "lines", "alone"),
    [
        ("Accept-Encoding", ("gzip", "identity"), "identity"),
        ("Accept", ("application/geo+json", "application/json;q=0.5"), "application/json;q=0.5"),
        ("Accept-Language", ("zh", "en;q=0.5"), "en;q=0.5"),
    ],
)
def test_a_header_in_several_lines_is_one_list_and_answers_nobody_else(warm, name, lines, alone):
    address = f"{ROADS}?horizon=5"
    several = warm.get(address, headers=[(name, line) for line in lines])
    together = warm.get(address, headers={name: ", ".join(lines)})
    assert several.headers["etag"] == together.headers["etag"]
    other = warm.get(address, headers={name: alone})
    assert other.content == warm.get(f"{address}&", headers={name: alone}).content  # asked for the first time
    if name == "Accept-Encoding":
        assert several.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in other.headers


def test_what_grows_stale_is_said_at_once(tmp_path, bundles, city, live, clock):
    """With a clock that a test moves: nothing is computed anew, and the answer changes."""

    clock.time = pd.Timestamp("2026-03-17T00:00:10Z")
    service = Service(bundles.values(), Settings(store=str(tmp_path / "s.sqlite")), clock=clock)
    row = {"id": "r0", "signal": "speed", "time": "2026-03-17T00:00:00Z", "value": 30}
    with live(service, lifespan="off") as base, httpx.Client(base_url=base) as client:
        client.post("/v1/observations", json={"observations": [row]})
        service.cycle.run()
        first = client.get(ROADS)
        assert not first.json()["stale"]
        for second, age in ((10, 5), (59, 5), (60, 240), (292, 8), (299.5, 0), (300, 5)):
            clock.time = pd.Timestamp("2026-03-17T00:00:00Z") + pd.Timedelta(seconds=second)
            for address in (ROADS, "/v1/city"):
                assert client.get(address).headers["cache-control"] == f"public, max-age={age}, must-revalidate"
        clock.time += pd.Timedelta(minutes=20)
        later = client.get(ROADS, headers={"If-None-Match": first.headers["etag"]})
        assert later.status_code == 200
        assert later.json()["stale"]
    service.close()


def test_a_read_runs_no_inference(warm, service, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a read computed something")

    for forecaster in service.cycle.forecasters.values():
        monkeypatch.setattr(forecaster, "forecast", refuse)
    monkeypatch.setattr(service.store, "read", refuse)
    assert warm.get(ROADS).status_code == 200


def test_before_the_first_snapshot(client):
    assert client.get("/livez").status_code == 200
    for address in ("/readyz", ROADS):
        answer = client.get(address)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
    city = CityBody.model_validate_json(client.get("/v1/city").content)
    assert city.tasks["congestion"].issued is None


def test_the_city_says_what_it_is(warm):
    city = CityBody.model_validate_json(warm.get("/v1/city").content)
    assert (city.name, city.synthetic, city.nodes) == ("small", True, {"road": 6, "air": 3})
    assert city.signals["speed"].step_minutes == 5
    assert city.tasks["pm25"].bundle == "a1a1a1a1a1a1"
    assert city.tasks["pm25"].metrics == {"mean": {"mae": 1.5}}


def test_a_whole_day_live(service, live, rows):
    """The lifespan's own cycle publishes what was posted, without being asked."""
    with live(service) as base, httpx.Client(base_url=base) as client:
        posted = IngestBody.model_validate_json(
            client.post("/v1/observations", json={"observations": rows(30)}).content
        )
        assert posted.refused == 0
        done = client.get("/readyz")
        while done.status_code == 503:
            done = client.get("/readyz")
        assert client.get("/v1/forecasts/pm25").json()["issued"] == "2026-03-17T00:00:00Z"


def test_request_ids_are_kept_where_they_are_harmless(warm):
    assert warm.get("/livez", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert warm.get("/livez", headers={"X-Request-ID": "a b\tc" * 40}).headers["x-request-id"] != "a b\tc" * 40


def test_metrics_tell_age_and_health(warm):
    text = warm.get("/metrics").text
    assert 'citybrain_forecast_age_seconds{task="congestion"} 0.0' in text
    assert 'citybrain_forecast_fallback{task="pm25"} 0.0' in text
    assert 'route="/v1/observations"' in text


def test_the_documentation_needs_no_other_host(warm):
    page = warm.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert warm.get("/docs/static/swagger-ui-bundle.js").status_code == 200
    document = warm.get("/openapi.json").json()
    refs = {part.split('"')[0] for part in orjson.dumps(document).decode().split('"#/components/schemas/')[1:]}
    assert refs <= set(document["components"]["schemas"])
    assert (
        "example" in document["paths"]["/v1/forecasts/{task}"]["get"]["responses"]["200"]["content"]["application/json"]
    )
