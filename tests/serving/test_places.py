"""Roads, stations and this very place."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import numpy as np
import pandas as pd
import pytest

from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.indices import air, traffic
from citybrain_serving.languages import AIR_ADVICE, preferred_language
from citybrain_serving.safety.roles import Permission
from citybrain_serving.safety.rules import permission_for
from citybrain_serving.schemas.forecasts import ForecastBody
from citybrain_serving.schemas.places import AtBody, PlaceFeature, PlaceFeatures
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings


def test_pages_follow_one_another_and_hold_every_road_once(warm):
    seen, address = [], "/v1/roads?limit=4"
    while address:
        page = PlaceFeatures.model_validate_json(warm.get(address).content)
        assert page.numberMatched == 6
        assert page.numberReturned == len(page.features) <= 4
        seen += [feature.id for feature in page.features]
        address = next((link.href for link in page.links if link.rel == "next"), None)
    assert seen == [f"r{i}" for i in range(6)]


def test_a_page_links_back_and_keeps_its_filters(warm):
    page = warm.get("/v1/roads?owner=east&limit=1&offset=1").json()
    assert [f["id"] for f in page["features"]] == ["r3"]
    links = {link["rel"]: link["href"] for link in page["links"]}
    assert warm.get(links["prev"]).json()["features"][0]["id"] == "r1"
    assert warm.get(links["next"]).json()["features"][0]["id"] == "r5"


def test_a_feature_tells_its_attributes_and_the_newest_observation(warm, city):
    feature = warm.get("/v1/roads?ids=r2").json()["features"][0]
    assert feature["geometry"]["coordinates"] == pytest.approx([121.52, 31.22])
    properties = feature["properties"]
    assert (properties["owner"], properties["road_class"], properties["free_speed_kmh"]) == ("west", "primary", 60)
    assert properties["observed"]["unit"] == "km/h"
    assert properties["observed"]["value"] == pytest.approx(city.signals["speed"].values[-1, 2], abs=0.01)
    assert warm.get("/v1/roads?ids=r5").json()["features"][0]["geometry"] is None


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("owner=west", ["r0", "r2", "r4"]),
        ("cell=cell0,cell2", ["r0", "r1", "r4", "r5"]),
        ("class=local&owner=east", ["r3", "r5"]),
        ("ids=r4,r0&owner=west", ["r4", "r0"]),
        ("owner=nobody", []),
    ],
)
def test_the_same_filters_for_places_and_forecasts(warm, query, ids):
    assert [f["id"] for f in warm.get(f"/v1/roads?{query}").json()["features"]] == ids
    assert warm.get(f"/v1/forecasts/congestion?{query}").json()["ids"] == ids


@pytest.mark.parametrize("query", ["limit=0", "offset=-1", "limit=x", "bbox=1", "bbox=1,2,3"])
def test_a_bad_page_is_refused(warm, query):
    assert warm.get(f"/v1/roads?{query}").status_code == 422


def test_a_page_is_as_large_as_it_can_be(warm, monkeypatch):
    page = warm.get("/v1/roads?limit=20000").json()
    assert (page["numberReturned"], [link["rel"] for link in page["links"]]) == (6, ["self"])
    monkeypatch.setattr("citybrain_serving.routes.places.LARGEST_PAGE", 4)
    page = warm.get("/v1/roads?limit=20000").json()
    links = {link["rel"]: link["href"] for link in page["links"]}
    assert page["numberReturned"] == 4
    assert [feature["id"] for feature in warm.get(links["next"]).json()["features"]] == ["r4", "r5"]


def test_the_heights_of_a_box_select_nothing(warm):
    flat, high = (
        warm.get(f"/v1/roads?bbox={box}") for box in ("121.505,31.2,121.525,31.3", "121.505,31.2,-5,121.525,31.3,9")
    )
    assert [feature["id"] for feature in high.json()["features"]] == ["r1", "r2"]
    assert high.json()["features"] == flat.json()["features"]
    assert warm.get("/v1/roads?bbox=121,31,x,122,32,9").status_code == 422


def test_one_node_by_its_id(warm):
    feature = PlaceFeature.model_validate_json(warm.get("/v1/roads/r2?index=tpi").content)
    assert warm.get("/v1/roads?ids=r2&index=tpi").json()["features"] == [feature.model_dump(mode="json")]
    assert warm.get("/v1/stations/a1").json()["id"] == "a1"
    answer = warm.get("/v1/roads/a1")
    assert (answer.status_code, answer.json()["detail"]) == (404, "no road node has the id 'a1'")
    tag = warm.get("/v1/roads/r2").headers["etag"]
    assert warm.get("/v1/roads/r2", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("/v1/roads?owners=west", "limit, offset, index, ids, bbox, owner, cell, class"),
        ("/v1/forecasts/congestion?horizons=5", "index, issued, ids, bbox, owner, cell, class, horizon, quantiles"),
        ("/v1/city?x=", "none"),
    ],
)
def test_a_misspelt_filter_does_not_select_the_whole_city(warm, address, known):
    answer = warm.get(address)
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith(f"here, only {known}")
    assert answer.json()["parameter"] in address


def test_a_list_may_be_given_in_parts(warm):
    for parts, whole in (
        ("ids=r1&ids=r2", "ids=r1,r2"),
        ("ids=r4&ids=r1,r2", "ids=r4,r1,r2"),
        ("cell=cell0&cell=cell2", "cell=cell0,cell2"),
        ("owner=east&owner=west", "owner=east,west"),
        ("class=local&class=primary", "class=local,primary"),
        ("horizon=5&horizon=10", "horizon=5,10"),
        ("quantiles=0.1&quantiles=0.9", "quantiles=0.1,0.9"),
    ):
        answers = [warm.get(f"/v1/forecasts/congestion?{query}") for query in (parts, whole)]
        assert answers[0].status_code == 200
        assert answers[0].content == answers[1].content
    page = warm.get("/v1/roads?ids=r1&ids=r2&limit=1").json()
    (following,) = (link["href"] for link in page["links"] if link["rel"] == "next")
    assert [feature["id"] for feature in warm.get(following).json()["features"]] == ["r2"]
    entities = warm.get("/v1/ngsi-ld/entities?type=TrafficFlowForecast&ids=r1&ids=r2&limit=1")
    (more,) = entities.links.values()
    assert "r2" in warm.get(more["url"]).text


def test_a_name_that_holds_a_comma_is_found(tmp_path, city, bundle_of, bundles, rows, live):
    table = city.nodes["road"].rename(index={"r1": "A8, north", "r2": "A8"})
    table["owner"] = ["Roads, Parks", "Roads", "Parks", "Roads, Parks", "Roads", "Parks"]
    named = city.replace(nodes={**city.nodes, "road": table}, edges={})
    service = Service(
        [bundle_of(named, bundles["congestion"].task)],
        Settings(store=str(tmp_path / "s.sqlite"), clock="observations"),
    )
    with live(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=30) as client:

        def found(**asked: object) -> list[str]:
            return [feature["id"] for feature in client.get("/v1/roads", params=asked).json()["features"]]

        assert found(owner="Roads, Parks") == ["r0", "r3"]
        assert found(owner="Roads,Parks") == ["A8, north", "A8", "r4", "r5"]
        assert found(owner=["Parks", "Roads, Parks"]) == ["r0", "A8", "r3", "r5"]
        assert found(ids="r4,A8, north,A8") == ["r4", "A8, north", "A8"]
        assert client.get("/v1/roads", params={"ids": "A8, south"}).status_code == 404
    service.close()


IDS = ["a/b", "-12#3", ":12_0", "A8/north/1?x=2&y", "100%", "/ä b/"]
"""As a city imported from a network of one's own may have them."""


def test_an_id_that_no_address_can_hold_as_it_is_is_asked_for_all_the_same(
    tmp_path, city, bundle_of, bundles, rows, live
):
    old = dict(zip([f"r{i}" for i in range(6)], IDS, strict=True))
    own = city.replace(nodes={**city.nodes, "road": city.nodes["road"].rename(index=old)}, edges={})
    settings = Settings(store=str(tmp_path / "s.sqlite"), clock="observations")
    service = Service([bundle_of(own, bundles["congestion"].task)], settings)
    sent = [{**row, "id": old[row["id"]]} for row in rows(30, signals=("speed",))]
    with live(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=30) as client:
        assert client.post("/v1/observations", json={"observations": sent}).json()["refused"] == 0
        service.cycle.run()
        for name in IDS:
            one = client.get(f"/v1/roads/{quote(name, safe='')}")
            assert (one.status_code, one.json()["id"]) == (200, name), one.text
            assert one.json()["properties"]["observed"]["value"] is not None
            assert client.get("/v1/forecasts/congestion", params={"ids": name}).json()["ids"] == [name]
            entities = client.get("/v1/ngsi-ld/entities", params={"type": "TrafficFlowForecast", "ids": name}).json()
            told = {"type": "TrafficFlowObserved", "dateObserved": sent[-1]["time"], "averageVehicleSpeed": 1}
            for urn in (entities[0]["refRoadSegment"]["object"], f"urn:ngsi-ld:RoadSegment:{name}"):
                answer = client.post("/v1/ngsi-ld/notifications", json={**told, "id": "x", "refRoadSegment": urn})
                assert answer.json()["refused_by_reason"] == {"conflict": 1}, answer.text
            opened = client.post("/v1/cases", json={"task": "congestion", "id": name}).json()
            assert client.get(f"/v1/cases/{opened['number']}").json()["id"] == name
        assert client.get("/v1/roads/a/b").json()["id"] == "a/b"
        page = client.get("/v1/roads", params={"ids": IDS, "limit": 5}).json()
        (following,) = (link["href"] for link in page["links"] if link["rel"] == "next")
        assert [feature["id"] for feature in client.get(following).json()["features"]] == IDS[5:]
        for address, name in (("a/b/c", "a/b/c"), ("a%0A/b", "a\n/b")):
            missing = client.get(f"/v1/roads/{address}")
            assert (missing.status_code, missing.json()["ids"]) == (404, [name])
            assert permission_for("GET", f"/v1/roads/{name}") is Permission.LOOK
        assert client.get("/v1/roads/").headers["location"].endswith("/v1/roads")
        assert 'route="/v1/roads/{id}",status="200"} 7.0' in client.get("/metrics").text
    service.close()


@pytest.mark.parametrize(
    ("address", "parameter"),
    [
        ("/v1/forecasts/congestion?index=tpi&index=tti", "index"),
        ("/v1/roads?bbox=0,0,1,1&bbox=121,31,122,32", "bbox"),
        ("/v1/roads?limit=1&limit=2", "limit"),
        ("/v1/problems?task=pm25&task=congestion", "task"),
        ("/v1/cases?state=open&state=closed", "state"),
        ("/v1/at?lat=31.2&lon=121.5&lat=0", "lat"),
    ],
)
def test_what_takes_one_value_is_not_given_twice(warm, address, parameter):
    answer = warm.get(address)
    assert (answer.status_code, answer.json()["parameter"]) == (422, parameter)
    assert answer.json()["detail"] == f"{parameter} is given 2 times; it takes one value"


def test_a_probe_is_answered_whatever_it_adds(warm):
    assert warm.get("/livez?from=balancer").status_code == 200


def test_a_sensor_that_fell_silent_says_since_when(client, service, rows, city):
    sent = [row for row in rows(30) if not (row["id"] == "r2" and row["time"] > "2026-03-16T23:31")]
    assert client.post("/v1/observations", json={"observations": sent}).status_code == 200
    service.cycle.run()
    observed = client.get("/v1/roads/r2").json()["properties"]["observed"]
    assert observed["time"] == "2026-03-16T23:30:00Z"
    assert observed["value"] == pytest.approx(float(city.signals["speed"].values[-7, 2]), abs=0.01)
    assert client.get("/v1/roads/r1").json()["properties"]["observed"]["time"] == "2026-03-17T00:00:00Z"
    assert client.get("/v1/at?lat=31.22&lon=121.52").json()["road"]["observed_at"] == "2026-03-16T23:30:00Z"


def test_stations_have_no_class(warm):
    answer = warm.get("/v1/stations?class=primary")
    assert answer.status_code == 422
    assert "road_class" in answer.json()["detail"]
    assert len(warm.get("/v1/stations").json()["features"]) == 3


def test_a_place_in_english_and_chinese(warm, service):
    place = {"lat": 31.2101, "lon": 121.5101}
    english = AtBody.model_validate_json(warm.get("/v1/at", params=place).content)
    answer = warm.get("/v1/at", params=place, headers={"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"})
    chinese = AtBody.model_validate_json(answer.content)
    assert answer.headers["content-language"] == "zh"
    assert (english.road.id, english.air.id) == ("r1", "a1")
    assert english.road.distance_m == pytest.approx(14.6, abs=0.2)
    assert (english.road.name, chinese.road.name) == ("Place r1", "地点r1")
    forecast = service.snapshot.forecasts["pm25"]
    aqi = next(i for i in english.air.indices if i.id == "aqi")
    assert aqi.value == air.aqi_cn(forecast.observed[1:2])[0]
    assert (aqi.standard, aqi.effective) == ("HJ 633-2026", "2026-03-01")
    assert next(i for i in chinese.air.indices if i.id == "aqi").name == "轻度污染"
    assert english.advice != chinese.advice
    assert len(english.air.ahead) == 4


def test_trouble_ahead_is_warned_of(warm, service, rows):
    slow = [
        {"id": "r1", "signal": "speed", "time": f"2026-03-17T12:{minute:02}:00Z", "value": 1.0}
        for minute in range(5, 60, 5)
    ]
    warm.post("/v1/observations", json={"observations": slow})
    service.cycle.run()
    answer = AtBody.model_validate_json(warm.get("/v1/at", params={"lat": 31.21, "lon": 121.51}).content)
    tpi = next(i for i in answer.road.indices if i.id == "tpi")
    assert tpi.level == 5
    assert any("Congestion is likely" in warning for warning in answer.warnings)
    assert any("usual travel time" in advice for advice in answer.advice)


def test_far_from_everything(warm):
    answer = warm.get("/v1/at", params={"lat": 0, "lon": 0})
    assert answer.status_code == 404
    assert warm.get("/v1/at", params={"lat": "nan", "lon": 0}).status_code == 422
    assert warm.get("/v1/at", params={"lat": 91, "lon": 0}).status_code == 422


def test_a_forecast_as_an_index_names_its_standard(warm, service):
    body = ForecastBody.model_validate_json(warm.get("/v1/forecasts/congestion?index=tpi").content)
    assert (body.index.standard, body.unit) == ("GB/T 33171-2016", "1")
    speed = service.snapshot.forecasts["congestion"].values
    expected = traffic.performance(speed, np.full((6, 1, 1), 60.0))[..., ::-1]
    np.testing.assert_allclose(body.values, expected, atol=0.0051)
    assert body.quantiles == [0.1, 0.5, 0.9]
    assert warm.get("/v1/forecasts/congestion").json()["index"] is None
    narrow = warm.get("/v1/forecasts/congestion?index=pti")  # takes what 95 of 100 do not exceed, and knows 90
    assert (narrow.status_code, "0.95" in narrow.json()["detail"]) == (422, True)
    refused = warm.get("/v1/forecasts/congestion?index=aqi")
    assert refused.status_code == 422
    assert "tpi, tti, pti, los" in refused.json()["detail"]


def test_every_index_is_listed_with_its_standard(warm):
    listed = {entry["id"]: entry for entry in warm.get("/v1/indices").json()}
    assert listed["aqi-2012"]["until"] == "2026-02-28"
    assert set(listed) == {"tpi", "tti", "pti", "los", "aqi", "aqi-2012", "aqi-2026", "aqi-us"}


@pytest.mark.parametrize(
    ("accept", "language"),
    [(None, "en"), ("", "en"), ("zh", "zh"), ("en-GB,zh;q=0.5", "en"), ("fr", "en"), ("zh-TW;q=0.9,en;q=0.8", "zh"),
     ("zh;q=x", "en"), ("*", "en"), ("*, zh;q=0.9", "en"), ("en;q=0.1, *;q=0.2", "zh"), ("en;q=0, *", "zh")],
)  # fmt: skip
def test_preferred_languages(accept, language):
    assert preferred_language(accept) == language


def test_the_index_of_the_present_by_the_standard_asked_for(warm, service, city):
    hours = city.signals["pm25"].values[-12:].astype(float)
    nowcast = air.aqi_us(air.nowcast(hours))
    stations = PlaceFeatures.model_validate_json(warm.get("/v1/stations?index=aqi-us").content)
    for row, feature in enumerate(stations.features):
        told = feature.properties["index"]
        assert (told["standard"], told["basis"], told["value"]) == ("US EPA 2024", "nowcast", nowcast[row])
    place = {"lat": 31.2101, "lon": 121.5101, "index": "aqi-us"}
    (told,) = AtBody.model_validate_json(warm.get("/v1/at", params=place).content).air.indices
    assert (told.id, told.basis, told.value) == ("aqi-us", "nowcast", nowcast[1])
    assert told.name in ("moderate", "unhealthy for sensitive groups", "unhealthy")
    columns = warm.get("/v1/forecasts/pm25?index=aqi-us").json()
    assert columns["observed"] == nowcast.tolist()
    hourly = warm.get("/v1/forecasts/pm25?index=aqi").json()
    assert hourly["observed"] == air.aqi_cn(hours[-1]).tolist()


def test_the_last_hours_are_back_as_soon_as_the_store_is(warm, service, monkeypatch):
    def told() -> tuple:
        (feature,) = warm.get("/v1/stations?ids=a1&index=aqi-us").json()["features"]
        columns = warm.get("/v1/forecasts/pm25?ids=a1&index=aqi-us")
        return feature["properties"]["index"]["value"], columns.json()["observed"][0], columns.headers["etag"]

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(service.board.recent.store, "read", away)
        assert told()[:2] == (None, None)
        tag = told()[2]
    index, column, other = told()
    assert index == column is not None
    assert tag != other


def test_an_index_goes_by_the_standard_in_force_at_its_moment_unless_one_is_named(client, service, rows):
    """Twenty days before, the old regulation held; PM2.5 of 61 to 75 is light pollution by the new one alone."""
    before = [
        {**row, "time": (pd.Timestamp(row["time"]) - pd.Timedelta(days=20)).isoformat()}
        | ({"value": 66.0 + row["value"] % 8} if row["signal"] == "pm25" else {})
        for row in rows(30)
    ]
    assert client.post("/v1/observations", json={"observations": before}).json()["refused"] == 0
    service.step()
    here = AtBody.model_validate_json(client.get("/v1/at", params={"lat": 31.2101, "lon": 121.5101}).content)
    told = {i.id: (i.standard, i.effective, i.name) for i in here.air.indices if i.standard.startswith("HJ")}
    assert told == {
        "aqi": ("HJ 633-2012", "2016-01-01", "good"),
        "aqi-2012": ("HJ 633-2012", "2016-01-01", "good"),
        "aqi-2026": ("HJ 633-2026", "2026-03-01", "lightly polluted"),
    }
    assert here.advice[-1] == AIR_ADVICE[2]["en"]
    for name, standard in (("aqi", "HJ 633-2012"), ("aqi-2012", "HJ 633-2012"), ("aqi-2026", "HJ 633-2026")):
        index = client.get(f"/v1/forecasts/pm25?index={name}").json()["index"]
        assert (index["id"], index["standard"]) == (name, standard)
        station = client.get(f"/v1/stations/a1?index={name}").json()["properties"]["index"]
        assert (station["id"], station["standard"]) == (name, standard)
    listed = {index["id"]: index for index in client.get("/v1/indices").json()}
    assert (listed["aqi"]["standard"], listed["aqi"]["until"]) == ("HJ 633-2012", "2026-02-28")
    entity = client.get("/v1/ngsi-ld/entities?type=AirQualityForecast&ids=a1&horizon=60&options=keyValues").json()[0]
    assert entity["airQualityIndexStandard"] == "HJ 633-2012"


@pytest.mark.parametrize("address", ["/v1/at?lat=31.21&lon=121.51&index=x", "/v1/roads?index=aqi"])
def test_an_index_that_is_none_is_refused(warm, address):
    answer = warm.get(address)
    assert answer.status_code == 422
    assert answer.json()["parameter"] == "index"


def test_titles_of_indices_in_chinese(warm):
    listed = {entry["id"]: entry for entry in warm.get("/v1/indices", headers={"Accept-Language": "zh"}).json()}
    assert listed["aqi-us"]["now"] == "最近 12 小时加权值（NowCast）"
    assert listed["tpi"]["standard_title"].startswith("城市交通运行状况评价规范")


def test_the_index_of_the_whole_network_is_weighted(warm, service):
    listed = {entry["id"]: entry for entry in warm.get("/v1/indices").json()}
    assert listed["tpi"]["city"] is None  # nobody says how long the roads are
    service.board.places["road"].table["length_m"] = lengths = np.arange(1.0, 7.0)
    try:
        told = {e["id"]: e["city"] for e in warm.get("/v1/indices", headers={"Accept-Language": "zh"}).json()}
    finally:
        del service.board.places["road"].table["length_m"]
    each = traffic.performance(service.snapshot.forecasts["congestion"].observed, np.full(6, 60.0))
    assert told["tpi"]["value"] == pytest.approx((each * lengths).sum() / lengths.sum(), abs=0.006)
    assert told["tpi"]["name"] in ("畅通", "基本畅通")
    assert told["aqi"] is None


@pytest.mark.parametrize(
    "address", ["/v1/roads?index=tpi", "/v1/at?lat=31.21&lon=121.51", "/v1/city", "/v1/indices", "/v1/problems"]
)
def test_what_holds_until_the_next_forecast_is_not_made_again(warm, service, address):
    first = warm.get(address)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"  # a replay; else until the next cycle
    again = warm.get(address, headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert warm.get(address, headers={"If-None-Match": tag, "Accept-Language": "zh"}).status_code == 200
    late = {"id": "r0", "signal": "speed", "time": "2026-03-17T00:05:00Z", "value": 3}
    warm.post("/v1/observations", json={"observations": [late]})
    service.step()
    assert warm.get(address, headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/v1/roads/r2", 304),
        ("/v1/roads/NOPE", 404),
        ("/v1/roads?ids=NOPE", 404),
        ("/v1/roads?index=aqi", 422),
        ("/v1/at?lat=0&lon=0", 404),
        ("/v1/problems?task=noise", 404),
        ("/v1/city", 304),
        ("/v1/forecasts/congestion", 304),
        ("/v1/forecasts/congestion?ids=NOPE", 404),
        ("/v1/forecasts/congestion?horizon=7", 422),
        ("/v1/datex2/forecasts/congestion?ids=NOPE", 404),
        ("/livez", 200),
    ],
)
def test_whatever_a_caller_has_it_has_nothing_of_what_does_not_exist(warm, address, status, again):
    if again:
        warm.get(address)
    answer = warm.get(address, headers={"If-None-Match": "*"})
    assert answer.status_code == status
    assert (answer.content == b"") == (status == 304)


def test_where_nothing_of_the_air_is_forecast_it_has_no_index(tmp_path, bundles, rows, live):
    service = Service([bundles["congestion"]], Settings(store=str(tmp_path / "s.sqlite"), clock="observations"))
    with live(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=30) as client:
        assert client.get("/v1/roads?index=tpi").status_code == 503  # nothing was observed so far
        client.post("/v1/observations", json={"observations": rows(2, signals=("speed",))}).raise_for_status()
        service.step()
        refused = client.get("/v1/stations?index=aqi", headers={"Accept-Language": "zh"})
        assert (refused.status_code, refused.json()["detail"]) == (422, "此处的空气站节点没有指数")
        assert client.get("/v1/stations").status_code == 200
    service.close()
