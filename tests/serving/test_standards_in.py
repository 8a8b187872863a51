"""NGSI-LD and DATEX II in: every form, unit and time, and every way to get them wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_datasets.signals import Ticks
from citybrain_serving.errors import MalformedBody
from citybrain_serving.fleet import Channel
from citybrain_serving.readings import FAULTS, FINE
from citybrain_serving.standards.datex_in import readings_from_datex
from citybrain_serving.standards.ngsi_in import readings_from_ngsi

SCHEMAS = (
    Path(os.environ.get("CITYBRAIN_DATA", Path(__file__).parents[3] / "shared" / "data")).parent
    / "reference"
    / "schemas"
)
WITH_SCHEMAS = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the official schemas are not on this machine")

STEP = Ticks(5)
CHANNELS = {
    **{name: Channel(name, "road", pd.Index(["r1", "r 2"]), STEP) for name in ("speed", "flow", "occupancy")},
    **{name: Channel(name, "air", pd.Index(["a1"]), Ticks(60)) for name in ("pm25", "co", "no2", "precipitation")},
    **{
        name: Channel(name, "air", pd.Index(["a1"]), Ticks(60)) for name in ("humidity", "wind_direction", "wind_speed")
    },
    "temperature": Channel("temperature", "city", pd.Index(["city"]), Ticks(60)),
}
TIME = "2026-03-02T08:05:00Z"
NS = (
    'xmlns:d2="http://datex2.eu/schema/3/d2Payload" xmlns:com="http://datex2.eu/schema/3/common"'
    ' xmlns:roa="http://datex2.eu/schema/3/roadTrafficData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)


def table(translated) -> list[tuple]:
    """Readings as (id, signal, seconds, value, unit, fault)."""
    r = translated.readings
    faults = [None if f == FINE else str(FAULTS[f]) for f in r.fault]
    return list(zip(r.ids, r.signals, r.times.tolist(), r.values.tolist(), r.units, faults, strict=True))


def ngsi(*entities: dict):
    return readings_from_ngsi(orjson.dumps({"type": "Notification", "data": list(entities)}), CHANNELS, 100)


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
        traffic(averageVehicleSpeed=50, type=["Other", "TrafficFlowObserved"]),
    ],
)  # fmt: skip
def test_every_form_of_an_entity_is_the_same_reading(entity):
    assert table(ngsi(entity)) == [("r1", "speed", SECONDS, 50.0, None, None)]


@pytest.mark.parametrize(
    ("entity", "signal", "value"),
    [
        (traffic(averageVehicleSpeed=prop(10, unitCode="MTS")), "speed", 36.0),
        (traffic(averageVehicleSpeed=prop(50, unitCode="HM")), "speed", 80.4672),
        (traffic(occupancy=0.4), "occupancy", 0.4),
        (traffic(occupancy=prop(40, unitCode="P1")), "occupancy", 0.4),
        (traffic(intensity=25), "flow", 300.0),
        (traffic(intensity=25, dateObserved=f"2026-03-02T07:50:00Z/{TIME}"), "flow", 100.0),
        (traffic(intensity=25, dateObservedFrom="2026-03-02T08:04:00Z", dateObservedTo=TIME), "flow", 1500.0),
        (traffic(intensity=25, dateObserved=f"{TIME}/{TIME}"), "flow", 300.0),
    ],
)
def test_units_and_amounts_become_those_that_are_stored(entity, signal, value):
    (row,) = table(ngsi(entity))
    assert row[1] == signal
    assert row[3] == pytest.approx(value)
    assert row[4:] == (None, None)


def test_air_quality_is_read_attribute_by_attribute():
    station = {
        "id": "urn:ngsi-ld:AirQualityObserved:a1", "type": "AirQualityObserved", "dateObserved": "2026-03-02T08:00:00Z",
        "pm25": prop(35.5, unitCode="GQ"), "co": prop(800, unitCode="GQ"), "no2": prop(20, unitCode="61"),
        "relativeHumidity": 0.54, "windDirection": -90, "precipitation": 1.5, "temperature": 12, "o3": 3, "tsp": 9,
    }  # fmt: skip
    translated = ngsi(station)
    found = {row[1]: row[3] for row in table(translated)}
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
    }
    assert translated.sources[0] == "urn:ngsi-ld:AirQualityObserved:a1#pm25"
    city = {"id": "city", "type": "AirQualityObserved", "dateObserved": TIME, "temperature": 12}
    assert table(ngsi(city))[0][:2] == ("city", "temperature")


def test_a_node_whose_id_needs_quoting_is_found():
    assert table(ngsi(traffic(id="urn:ngsi-ld:TrafficFlowObserved:r%202", occupancy=0)))[0][0] == "r 2"


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
def test_what_cannot_be_a_reading_keeps_its_row(entity, fault):
    (row,) = table(ngsi(entity))
    assert row[5] == fault


def test_a_unit_that_is_unknown_is_handed_on_to_be_refused():
    assert table(ngsi(traffic(averageVehicleSpeed=prop(50, unitCode="KNT"))))[0][4] == "KNT"


def test_entities_of_other_types_are_counted():
    assert ngsi({"id": "urn:1", "type": "Vehicle"}).ignored == {"entities of type Vehicle": 1}


@pytest.mark.parametrize(
    "body", [b"", b"3", b'"x"', b'{"type": "Notification"}', b'{"type": "Notification", "data": {}}']
)
def test_what_is_no_notification_is_refused(body):
    with pytest.raises(MalformedBody):
        readings_from_ngsi(body, CHANNELS, 100)


def test_too_many_readings_are_refused():
    with pytest.raises(MalformedBody, match="at most 3"):
        readings_from_ngsi(orjson.dumps([traffic(occupancy=0.1)] * 4), CHANNELS, 3)


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
def test_no_json_breaks_it(document):
    try:
        translated = readings_from_ngsi(json.dumps(document).encode(), CHANNELS, 100)
    except MalformedBody:
        return
    assert len(translated.sources) == len(translated.readings)


@WITH_SCHEMAS
@pytest.mark.parametrize("kind", ["TrafficFlowObserved", "AirQualityObserved"])
@pytest.mark.parametrize("form", ["example.json", "example-normalized.jsonld"])
def test_the_official_examples_are_read(kind, form):
    translated = readings_from_ngsi((SCHEMAS / "smart-data-models" / kind / form).read_bytes(), CHANNELS, 100)
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


def site(data: str, *, place: str = "r1", time: str = "", default: str = "") -> str:
    default = default or f"<roa:timeMeaning>endTime</roa:timeMeaning><roa:timeValue>{TIME}</roa:timeValue>"
    return (
        "<roa:siteMeasurements>"
        f'<roa:measurementSiteReference targetClass="roa:MeasurementSite" id="{place}" version="1"/>'
        f'<roa:physicalQuantity index="1"><roa:physicalQuantity xsi:type="roa:SinglePhysicalQuantity">{data}'
        f"</roa:physicalQuantity></roa:physicalQuantity>"
        f"<roa:measurementTimeDefault>{default}</roa:measurementTimeDefault></roa:siteMeasurements>"
    )


def basic(kind: str, inner: str, time: str = "") -> str:
    return f'<roa:basicData xsi:type="roa:{kind}">{time}{inner}</roa:basicData>'


def speed(value: str = "31.5", before: str = "") -> str:
    return f"<roa:averageVehicleSpeed>{before}<com:speed>{value}</com:speed></roa:averageVehicleSpeed>"


def datex(*sites: str, kind: str = "MeasuredDataPublication", prolog: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{prolog}<d2:payload {NS} xsi:type="roa:{kind}" lang="en"'
        f' modelBaseVersion="3"><com:publicationTime>{TIME}</com:publicationTime><com:publicationCreator>'
        "<com:country>cn</com:country><com:nationalIdentifier>X</com:nationalIdentifier></com:publicationCreator>"
        '<roa:measurementSiteTableReference targetClass="roa:MeasurementSiteTable" id="t" version="1"/>'
        "<roa:headerInformation><com:informationStatus>real</com:informationStatus></roa:headerInformation>"
        f"{''.join(sites)}</d2:payload>"
    ).encode()


POLLUTION = (
    '<roa:pollution><com:pollutantType _extendedValue="particulates2_5">_extended</com:pollutantType>'
    "<com:pollutantConcentration><com:microgramsConcentration>42</com:microgramsConcentration>"
    "</com:pollutantConcentration></roa:pollution>"
    "<roa:pollution><com:pollutantType>carbonMonoxide</com:pollutantType>"
    "<com:pollutantConcentration><com:microgramsConcentration>800</com:microgramsConcentration>"
    "</com:pollutantConcentration></roa:pollution>"
)
EVERYTHING = (
    site(basic("TrafficSpeed", speed())),
    site(basic("TrafficFlow", "<roa:vehicleFlow><com:vehicleFlowRate>1200</com:vehicleFlowRate></roa:vehicleFlow>")),
    site(basic("TrafficConcentration", "<roa:occupancy><com:percentage>40</com:percentage></roa:occupancy>")),
    site(basic("PollutionInformation", POLLUTION), place="a1"),
    site(basic("HumidityInformation", "<roa:humidity><com:relativeHumidity><com:percentage>54</com:percentage>"
               "</com:relativeHumidity></roa:humidity>"), place="a1"),
    site(basic("WindInformation", "<roa:wind><com:windSpeed><com:windSpeed>3</com:windSpeed></com:windSpeed>"
               "<com:windDirectionBearing><com:directionBearing>90</com:directionBearing></com:windDirectionBearing>"
               "</roa:wind>"), place="a1"),
    site(basic("PrecipitationInformation", "<roa:precipitationDetail><com:precipitationIntensity>"
               "<com:millimetresPerHourIntensity>2</com:millimetresPerHourIntensity></com:precipitationIntensity>"
               "</roa:precipitationDetail>"), place="a1"),
    site(basic("TemperatureInformation", "<roa:temperature><com:airTemperature><com:temperature>12</com:temperature>"
               "</com:airTemperature></roa:temperature>"), place="city"),
)  # fmt: skip


def test_a_publication_is_read_quantity_by_quantity():
    translated = readings_from_datex(datex(*EVERYTHING), CHANNELS, 100)
    assert {(row[0], row[1]): row[3] for row in table(translated)} == pytest.approx(
        {
            ("r1", "speed"): 31.5, ("r1", "flow"): 1200, ("r1", "occupancy"): 0.4,
            ("a1", "pm25"): 42, ("a1", "co"): 0.8,
            ("a1", "humidity"): 54, ("a1", "wind_speed"): 3, ("a1", "wind_direction"): 90,
            ("a1", "precipitation"): 2,
            ("city", "temperature"): 12,
        }
    )  # fmt: skip
    assert translated.sources[0] == "r1[1]#speed"


@WITH_SCHEMAS
def test_what_is_tested_here_is_valid_by_the_official_schema():
    lxml = pytest.importorskip("lxml.etree", reason="needs lxml to validate")
    schema = lxml.XMLSchema(lxml.parse(str(SCHEMAS / "datex2-3.7" / "DATEXII_3_D2Payload.xsd")))
    schema.assertValid(lxml.fromstring(datex(*EVERYTHING)))


@pytest.mark.parametrize(
    ("default", "seconds"),
    [
        (f"<roa:timeValue>{TIME}</roa:timeValue>", 0),
        (f"<roa:timeMeaning>beginTime</roa:timeMeaning><roa:timeValue>{TIME}</roa:timeValue>", 300),
        (f"<roa:timeMeaning>middleTime</roa:timeMeaning><roa:timeValue>{TIME}</roa:timeValue>", 150),
        ("<roa:timeMeaning>beginTime</roa:timeMeaning><roa:timeValue>2026-03-02T16:05:00+08:00</roa:timeValue>", 300),
        (f"<roa:period><com:startOfPeriod>{TIME}</com:startOfPeriod>"
         "<com:endOfPeriod>2026-03-02T08:15:00Z</com:endOfPeriod></roa:period>", 600),
    ],
)  # fmt: skip
def test_a_time_names_the_end_of_its_interval(default, seconds):
    (row,) = table(readings_from_datex(datex(site(basic("TrafficSpeed", speed()), default=default)), CHANNELS, 100))
    assert row[2] == SECONDS + seconds


def test_a_time_of_its_own_overrules_the_default():
    own = "<roa:timeValue>2026-03-02T08:20:00Z</roa:timeValue>"
    own = f"<roa:measurementOrCalculationTime>{own}</roa:measurementOrCalculationTime>"
    (row,) = table(readings_from_datex(datex(site(basic("TrafficSpeed", speed(), own))), CHANNELS, 100))
    assert row[2] == SECONDS + 900


def test_faulty_values_and_single_vehicle_classes_are_left_out():
    lorries = "<com:vehicleType>lorry</com:vehicleType>"
    lorries = f"<roa:forVehiclesWithCharacteristicsOf>{lorries}</roa:forVehiclesWithCharacteristicsOf>"
    every = lorries.replace("lorry", "anyVehicle")
    body = datex(
        site(basic("TrafficSpeed", speed(before="<com:dataError>true</com:dataError>"))),
        site(basic("TrafficSpeed", lorries + speed())),
        site(basic("TrafficSpeed", every + speed("20"))),
    )
    translated = readings_from_datex(body, CHANNELS, 100)
    assert [row[3] for row in table(translated)] == [20.0]
    assert sorted(translated.ignored.values()) == [1, 1]


@pytest.mark.parametrize(
    ("value", "default", "fault"),
    [
        ("fast", "", "malformed"),
        ("", "", "malformed"),
        ("31", "<roa:timeMeaning>endTime</roa:timeMeaning>", "malformed"),
        ("31", "<roa:timeMeaning>_extended</roa:timeMeaning><roa:timeValue>x</roa:timeValue>", "malformed"),
        ("31", "<roa:timeValue>soon</roa:timeValue>", "bad_time"),
        ("31", "<roa:timeValue>2026-03-02T08:05:00</roa:timeValue>", "naive_time"),
    ],
)
def test_a_quantity_that_cannot_be_a_reading_keeps_its_row(value, default, fault):
    (row,) = table(
        readings_from_datex(datex(site(basic("TrafficSpeed", speed(value)), default=default)), CHANNELS, 100)
    )
    assert row[5] == fault


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no XML"),
        (b"{}", "no XML"),
        (b"<a>", "no XML"),
        (b"<a/>", "no MeasuredDataPublication"),
        (datex(kind="ElaboratedDataPublication"), "no MeasuredDataPublication"),
        (datex(site(basic("TrafficSpeed", speed("&b;"))), prolog=BOMB), "DTD or entities"),
        (datex(site(basic("TrafficSpeed", speed("&f;"))), prolog=FILE), "DTD or entities"),
        (datex(prolog="<!DOCTYPE x>"), "DTD or entities"),
        (b"<?xml version='1.0' encoding='nonsense'?><a/>", "no XML"),
        (b"<a>" * 50_000 + b"</a>" * 50_000, "no MeasuredDataPublication"),
    ],
)  # fmt: skip
def test_hostile_and_foreign_xml_is_refused(body, said):
    with pytest.raises(MalformedBody, match=said):
        readings_from_datex(body, CHANNELS, 100)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_break_the_xml_reader(body):
    with pytest.raises(MalformedBody):
        readings_from_datex(body, CHANNELS, 100)


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
    again = datex(site(basic("TrafficSpeed", speed("44")), default=f"<roa:timeValue>{LAST}</roa:timeValue>"))
    answer = client.post("/v1/datex2/measured-data", content=again, headers={"Content-Type": "application/xml"})
    assert answer.json()["repeated"] == 1
    stored = service.store.read("speed", pd.Timestamp(LAST), pd.Timestamp(LAST)).values
    assert stored[0, 1] == 44


@pytest.mark.parametrize(
    ("path", "media", "body", "status"),
    [
        ("/v1/ngsi-ld/notifications", "text/plain", b"{}", 415),
        ("/v1/ngsi-ld/notifications", "application/json", b"nonsense", 400),
        ("/v1/ngsi-ld/notifications", "application/ld+json", orjson.dumps([traffic(averageVehicleSpeed=-5)]), 422),
        ("/v1/datex2/measured-data", "application/json", b"<a/>", 415),
        ("/v1/datex2/measured-data", "text/xml; charset=utf-8", b"<a/>", 400),
    ],
)
def test_refused_bodies_are_problem_documents(client: httpx.Client, path, media, body, status):
    answer = client.post(path, content=body, headers={"Content-Type": media})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
