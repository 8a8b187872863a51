"""NGSI-LD in: every form, unit and time of an entity, and every way to get them wrong."""

from __future__ import annotations

import json
import math

import httpx
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_serving.errors import MalformedBody
from citybrain_serving.standards.ngsi_in import readings_from_ngsi

TIME = "2026-03-02T08:05:00Z"


@pytest.fixture(scope="session")
def ngsi(channels):
    """What is read from a notification of these entities."""

    def read(*entities: object):
        return readings_from_ngsi(orjson.dumps({"type": "Notification", "data": list(entities)}), channels, 100)

    return read


def traffic(**attributes) -> dict:
    return {
        "id": "urn:ngsi-ld:TrafficFlowObserved:r1",
        "type": "TrafficFlowObserved",
        "dateObserved": TIME,
        **attributes,
    }


def prop(value, **more) -> dict:
    return {"type": "Property", "value": value, **more}


SECONDS = int(pd.Timestamp(TIME).timestamp())


@pytest.mark.parametrize(
    "entity",
    [
        traffic(averageVehicleSpeed=50),
        traffic(averageVehicleSpeed=prop(50)),
        traffic(averageVehicleSpeed=prop(50, unitCode="KMH")),
        traffic(averageVehicleSpeed={"value": 50}),
        traffic(averageVehicleSpeed=prop(50, observedAt=TIME), dateObserved="2020-01-01T00:00:00Z"),
        traffic(averageVehicleSpeed=50, dateObserved=prop({"@type": "DateTime", "@value": TIME})),
        traffic(averageVehicleSpeed=50, dateObserved=f"2026-03-02T08:00:00Z/{TIME}"),
        traffic(averageVehicleSpeed=50, dateObserved="2026-03-02T08:00:00Z", dateObservedTo=TIME),
        traffic(averageVehicleSpeed=50, id="r1"),
        traffic(averageVehicleSpeed=50, id="urn:ngsi-ld:Sensor:7", refRoadSegment="urn:ngsi-ld:RoadSegment:r1"),
        traffic(averageVehicleSpeed=50, id="x", refRoadSegment={"type": "Relationship", "object": "urn:x:r1"}),
        traffic(averageVehicleSpeed=50, id="x", refRoadSegment=["urn:x:r7", {"object": "urn:x:r1"}]),
        traffic(averageVehicleSpeed=50, dateObserved="2026-03-02T08:00:00Z/PT5M"),
        traffic(averageVehicleSpeed=50, type=["Other", "TrafficFlowObserved"]),
    ],
)  # fmt: skip
def test_every_form_of_an_entity_is_the_same_reading(listed, ngsi, entity):
    assert listed(ngsi(entity)) == [("r1", "speed", SECONDS, 50.0, None, None)]


@pytest.mark.parametrize(
    ("entity", "signal", "value"),
    [
        (traffic(averageVehicleSpeed=prop(10, unitCode="MTS")), "speed", 36.0),
        (traffic(averageVehicleSpeed=prop(50, unitCode="HM")), "speed", 80.4672),
        (traffic(averageVehicleSpeed=prop(10, unitCode={"@value": "MTS"})), "speed", 36.0),
        (traffic(averageVehicleSpeed=prop(10, unitCode=prop("MTS"))), "speed", 36.0),
        (traffic(averageVehicleSpeed=prop(10, unitText="m/s")), "speed", 36.0),
        (traffic(intensity=prop(25, unitCode="C62")), "flow", 300.0),
        (traffic(intensity=25, dateObserved=f"PT15M/{TIME}"), "flow", 100.0),
        (traffic(occupancy=0.4), "occupancy", 0.4),
        (traffic(occupancy=prop(40, unitCode="P1")), "occupancy", 0.4),
        (traffic(intensity=25), "flow", 300.0),
        (traffic(intensity=25, dateObserved=f"2026-03-02T07:50:00Z/{TIME}"), "flow", 100.0),
        (traffic(intensity=25, dateObservedFrom="2026-03-02T08:04:00Z", dateObservedTo=TIME), "flow", 1500.0),
        (traffic(intensity=25, dateObserved=f"{TIME}/{TIME}"), "flow", 300.0),
    ],
)
def test_units_and_amounts_become_those_that_are_stored(listed, ngsi, entity, signal, value):
    (row,) = listed(ngsi(entity))
    assert row[1] == signal
    assert row[3] == pytest.approx(value)
    assert row[4:] == (None, None)


def test_the_mean_of_a_day_is_no_reading_of_its_last_hour(listed, ngsi):
    air = {"type": "AirQualityObserved", "id": "urn:ngsi-ld:AirQualityObserved:a0", "pm25": 30}
    day = ngsi(
        {**air, "dateObserved": f"2026-03-01T08:05:00Z/{TIME}"},
        traffic(averageVehicleSpeed=50, dateObservedFrom="2026-03-01T08:05:00Z", dateObservedTo=TIME),
        traffic(intensity=2000, dateObserved=f"P1D/{TIME}"),
    )
    assert listed(day) == []
    assert day.ignored == {
        "values of pm25 over more than 3 of its steps of 60 min": 1,
        "values of speed over more than 3 of its steps of 5 min": 1,
        "values of flow over more than 3 of its steps of 5 min": 1,
    }
    assert len(listed(ngsi({**air, "dateObserved": "2026-03-02T07:00:00Z/2026-03-02T08:00:00Z"}))) == 1


def test_air_quality_is_read_attribute_by_attribute(listed, ngsi):
    station = {
        "id": "urn:ngsi-ld:AirQualityObserved:a1", "type": "AirQualityObserved", "dateObserved": "2026-03-02T08:00:00Z",
        "pm25": prop(35.5, unitCode="GQ"), "co": prop(800, unitCode="GQ"), "no2": prop(20, unitCode="61"),
        "relativeHumidity": 0.54, "windDirection": -90, "precipitation": 1.5, "temperature": 12, "o3": 3, "tsp": 9,
    }  # fmt: skip
    translated = ngsi(station)
    found = {row[1]: row[3] for row in listed(translated)}
    assert found == pytest.approx(
        {
            "pm25": 35.5,
            "co": 0.8,
            "no2": 20 * 46.0055 / 24.465,
            "humidity": 54,
            "wind_direction": 270,
            "precipitation": 1.5,
        }
    )
    assert translated.ignored == {
        "temperature is not measured at air nodes here": 1,
        "o3 is not measured at air nodes here": 1,
        "attribute tsp of AirQualityObserved is not read here": 1,
    }
    assert translated.sources[0] == "urn:ngsi-ld:AirQualityObserved:a1#pm25"
    city = {"id": "city", "type": "AirQualityObserved", "dateObserved": TIME, "temperature": 12}
    assert listed(ngsi(city))[0][:2] == ("city", "temperature")


@pytest.mark.parametrize(
    ("attribute", "value", "code", "signal", "stored"),
    [
        ("windSpeed", 10, "KNT", "wind_speed", 18520 / 3600),
        ("precipitation", 3, "MMT", "precipitation", 3),
        ("precipitation", 3, "H67", "precipitation", 3),
        ("windDirection", 3.141592653589793, "C81", "wind_direction", 180),
    ],
)
def test_codes_of_units_of_the_weather_are_known(listed, ngsi, attribute, value, code, signal, stored):
    (row,) = listed(ngsi({**traffic(id="a1", **{attribute: prop(value, unitCode=code)}), "type": "AirQualityObserved"}))
    assert (row[1], row[3], row[4]) == (signal, pytest.approx(stored), None)


def test_a_node_whose_id_needs_quoting_is_found(listed, ngsi):
    assert listed(ngsi(traffic(id="urn:ngsi-ld:TrafficFlowObserved:r%202", occupancy=0)))[0][0] == "r 2"


@pytest.mark.parametrize(
    ("entity", "fault"),
    [
        ({"no": "id"}, "malformed"),
        ({"id": "urn:1"}, "malformed"),
        ("text", "malformed"),
        (traffic(averageVehicleSpeed="fast"), "malformed"),
        (traffic(averageVehicleSpeed=prop("50")), "malformed"),
        (traffic(averageVehicleSpeed=prop(True)), "malformed"),
        (traffic(averageVehicleSpeed=prop({"a": 1})), "malformed"),
        (traffic(averageVehicleSpeed=50, dateObserved=None), "malformed"),
        (traffic(averageVehicleSpeed=50, dateObserved="yesterday"), "bad_time"),
        (traffic(averageVehicleSpeed=50, dateObserved="2026-03-02T08:05:00"), "naive_time"),
    ],
)
def test_what_cannot_be_a_reading_keeps_its_row(listed, ngsi, entity, fault):
    (row,) = listed(ngsi(entity))
    assert row[5] == fault


@pytest.mark.parametrize("nothing", [None, prop(None), {"value": None}])
def test_a_missing_value_is_handed_on_to_be_refused(listed, ngsi, nothing):
    (row,) = listed(ngsi(traffic(averageVehicleSpeed=nothing)))
    assert math.isnan(row[3])


def test_a_unit_that_is_unknown_is_handed_on_to_be_refused(listed, ngsi):
    assert listed(ngsi(traffic(averageVehicleSpeed=prop(50, unitCode="MTK"))))[0][4] == "MTK"
    assert listed(ngsi(traffic(averageVehicleSpeed=prop(50, unitCode=61))))[0][4] == "ppb"


def test_entities_of_other_types_are_counted(ngsi):
    assert ngsi({"id": "urn:1", "type": "Vehicle"}).ignored == {"entities of type Vehicle": 1}


@pytest.mark.parametrize(
    ("entity", "ignored"),
    [
        (traffic(averageSpeed=50), {"attribute averageSpeed of TrafficFlowObserved is not read here": 1}),
        (traffic(averageSpeed=prop(50)), {"attribute averageSpeed of TrafficFlowObserved is not read here": 1}),
        (traffic(congested=True, laneId=1), {"entities of type TrafficFlowObserved without a number": 1}),
        (
            {**traffic(pm25=9, typeofLocation="indoor"), "type": "AirQualityObserved"},
            {"values measured indoors": 1},
        ),
        (traffic(intensity=3, vehicleType="lorry"), {"values of single vehicle classes": 1}),
        (traffic(intensity=3, vehicleSubType=prop("OGV1")), {"values of single vehicle classes": 1}),
    ],
)
def test_what_is_not_read_is_counted(ngsi, entity, ignored):
    translated = ngsi(entity)
    assert translated.ignored == ignored
    assert not len(translated.readings)


def test_what_is_no_entity_is_told_by_its_place(channels):
    body = b'[{"id": "urn:1", "type": "Vehicle"}, {"id": "urn:2"}]'
    translated = readings_from_ngsi(body, channels, 100)
    assert translated.sources == ["entity 1"]
    assert translated.readings.broken == {0: "needs an id and a type, both strings"}
    assert translated.ignored == {"entities of type Vehicle": 1}


@pytest.mark.parametrize(
    "body", [b"", b"3", b'"x"', b'{"type": "Notification"}', b'{"type": "Notification", "data": {}}']
)
def test_what_is_no_notification_is_refused(channels, body):
    with pytest.raises(MalformedBody):
        readings_from_ngsi(body, channels, 100)


def test_an_attribute_given_twice_is_refused_by_its_name(channels):
    body = orjson.dumps(traffic(intensity=3)).replace(b"}", b',"intensity":4}')
    with pytest.raises(MalformedBody, match="'intensity' is given twice"):
        readings_from_ngsi(body, channels, 100)


def test_too_many_readings_are_refused(channels):
    with pytest.raises(MalformedBody, match="at most 3"):
        readings_from_ngsi(orjson.dumps([traffic(occupancy=0.1)] * 4), channels, 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "type", "value", "object", "@value", "data", "dateObserved", "averageVehicleSpeed", "x"]
            ),
            inner | st.sampled_from(["Notification", "TrafficFlowObserved", "urn:ngsi-ld:TrafficFlowObserved:r1"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_json_breaks_it(channels, document):
    try:
        translated = readings_from_ngsi(json.dumps(document).encode(), channels, 100)
    except MalformedBody:
        return
    assert len(translated.sources) == len(translated.readings)


@pytest.mark.parametrize("kind", ["TrafficFlowObserved", "AirQualityObserved"])
@pytest.mark.parametrize("form", ["example.json", "example-normalized.jsonld"])
def test_the_official_examples_are_read(channels, official_schemas, kind, form):
    translated = readings_from_ngsi((official_schemas / "smart-data-models" / kind / form).read_bytes(), channels, 100)
    assert len(translated.readings) >= 3
    signals = set(translated.readings.signals)
    assert signals <= {
        "speed",
        "flow",
        "occupancy",
        "co",
        "no2",
        "humidity",
        "wind_direction",
        "wind_speed",
        "precipitation",
    }


LAST = "2026-03-16T00:00:00Z"


def test_over_http_the_ingest_decides_and_says_where(client: httpx.Client, service):
    entities = [
        traffic(averageVehicleSpeed=44, dateObserved=LAST),
        traffic(averageVehicleSpeed=900, dateObserved=LAST),
        traffic(averageVehicleSpeed=44, dateObserved=LAST, id="urn:ngsi-ld:TrafficFlowObserved:r99"),
        traffic(averageVehicleSpeed=prop(44, unitCode="KNT"), dateObserved=LAST),
    ]
    answer = client.post("/v1/ngsi-ld/notifications", json={"type": "Notification", "data": entities})
    told = answer.json()
    assert answer.status_code == 200
    assert (told["accepted"], told["refused"]) == (1, 3)
    assert told["refused_by_reason"] == {"out_of_range": 1, "unknown_sensor": 1, "wrong_unit": 1}
    assert told["refusals"][1]["detail"].startswith("urn:ngsi-ld:TrafficFlowObserved:r99#averageVehicleSpeed: ")
    at = pd.Timestamp(LAST)
    assert service.store.read("speed", at, at).values[0, 1] == 44


def test_over_http_what_is_not_read_is_told_and_counted(client: httpx.Client):
    station = {"id": "urn:ngsi-ld:AirQualityObserved:a0", "type": "AirQualityObserved", "dateObserved": LAST}
    ignored = {"attribute pm2_5 of AirQualityObserved is not read here": 1}
    answer = client.post("/v1/ngsi-ld/notifications", json=[{**station, "pm2_5": 77}])
    assert (answer.status_code, answer.json()["ignored"]) == (200, ignored)
    refused = client.post("/v1/ngsi-ld/notifications", json=[{**station, "pm2_5": 77, "pm25": -1}])
    assert (refused.status_code, refused.json()["ignored"]) == (422, ignored)
    assert 'citybrain_readings_total{outcome="ignored"} 2.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("media", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("application/json", b"nonsense", 400),
        ("application/ld+json", orjson.dumps([traffic(averageVehicleSpeed=-5)]), 422),
    ],
)
def test_refused_bodies_are_problem_documents(client: httpx.Client, media, body, status):
    answer = client.post("/v1/ngsi-ld/notifications", content=body, headers={"Content-Type": media})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
