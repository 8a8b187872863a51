"""DATEX II in: every quantity, unit and time, and every way to get them wrong."""

from __future__ import annotations

import httpx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_serving.errors import MalformedBody
from citybrain_serving.standards.datex_in import readings_from_datex

TIME = "2026-03-02T08:05:00Z"
SECONDS = int(pd.Timestamp(TIME).timestamp())
NS = (
    'xmlns:d2="http://datex2.eu/schema/3/d2Payload" xmlns:com="http://datex2.eu/schema/3/common"'
    ' xmlns:roa="http://datex2.eu/schema/3/roadTrafficData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)


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


def test_a_publication_is_read_quantity_by_quantity(channels, listed):
    translated = readings_from_datex(datex(*EVERYTHING), channels, 100)
    assert {(row[0], row[1]): row[3] for row in listed(translated)} == pytest.approx(
        {
            ("r1", "speed"): 31.5, ("r1", "flow"): 1200, ("r1", "occupancy"): 0.4,
            ("a1", "pm25"): 42, ("a1", "co"): 0.8,
            ("a1", "humidity"): 54, ("a1", "wind_speed"): 3, ("a1", "wind_direction"): 90,
            ("a1", "precipitation"): 2,
            ("city", "temperature"): 12,
        }
    )  # fmt: skip
    assert translated.sources[0] == "r1[1]#speed"


def test_what_is_tested_here_is_valid_by_the_official_schema(official_schemas):
    lxml = pytest.importorskip("lxml.etree", reason="needs lxml to validate")
    schema = lxml.XMLSchema(lxml.parse(str(official_schemas / "datex2-3.7" / "DATEXII_3_D2Payload.xsd")))
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
def test_a_time_names_the_end_of_its_interval(channels, listed, default, seconds):
    (row,) = listed(readings_from_datex(datex(site(basic("TrafficSpeed", speed()), default=default)), channels, 100))
    assert row[2] == SECONDS + seconds


def test_the_mean_of_a_day_is_no_reading_of_its_last_minutes(channels, listed):
    day = "<roa:period><com:startOfPeriod>2026-03-01T08:05:00Z</com:startOfPeriod>"
    day += f"<com:endOfPeriod>{TIME}</com:endOfPeriod></roa:period>"
    read = readings_from_datex(datex(site(basic("TrafficSpeed", speed()), default=day)), channels, 100)
    assert listed(read) == []
    assert read.ignored == {"values of speed over more than 3 of its steps of 5 min": 1}


def test_a_time_of_its_own_overrules_the_default(channels, listed):
    own = "<roa:timeValue>2026-03-02T08:20:00Z</roa:timeValue>"
    own = f"<roa:measurementOrCalculationTime>{own}</roa:measurementOrCalculationTime>"
    (row,) = listed(readings_from_datex(datex(site(basic("TrafficSpeed", speed(), own))), channels, 100))
    assert row[2] == SECONDS + 900


def test_faulty_values_and_single_vehicle_classes_are_left_out(channels, listed):
    lorries = "<com:vehicleType>lorry</com:vehicleType>"
    lorries = f"<roa:forVehiclesWithCharacteristicsOf>{lorries}</roa:forVehiclesWithCharacteristicsOf>"
    every = lorries.replace("lorry", "anyVehicle")
    body = datex(
        site(basic("TrafficSpeed", speed(before="<com:dataError>true</com:dataError>"))),
        site(basic("TrafficSpeed", lorries + speed())),
        site(basic("TrafficSpeed", every + speed("20"))),
    )
    translated = readings_from_datex(body, channels, 100)
    assert [row[3] for row in listed(translated)] == [20.0]
    assert sorted(translated.ignored.values()) == [1, 1]


FAULT = (
    "<roa:physicalQuantityFault><roa:physicalQuantityFaultType>spuriousUnreliableDataValues"
    "</roa:physicalQuantityFaultType></roa:physicalQuantityFault>"
)


@pytest.mark.parametrize(
    ("data", "ignored"),
    [
        (FAULT + basic("TrafficSpeed", speed()), "values that their sender marks as faulty"),
        (
            basic("TrafficSpeed", speed("0").replace("Speed>", 'Speed numberOfInputValuesUsed="0">', 1)),
            "values that their sender marks as faulty",
        ),
        ("<roa:forecast>true</roa:forecast>" + basic("TrafficSpeed", speed()), "values that are forecasts"),
    ],
)
def test_what_was_not_measured_is_left_out(channels, data, ignored):
    translated = readings_from_datex(datex(site(data)), channels, 100)
    assert not len(translated.readings)
    assert translated.ignored == {ignored: 1}


def test_a_flow_of_no_vehicles_is_zero(channels, listed):
    flow = '<roa:vehicleFlow numberOfInputValuesUsed="0"><com:vehicleFlowRate>0</com:vehicleFlowRate></roa:vehicleFlow>'
    assert listed(readings_from_datex(datex(site(basic("TrafficFlow", flow))), channels, 100))[0][3] == 0


def test_what_holds_no_value_that_is_read_says_so(channels):
    bare = site(basic("TrafficSpeed", speed())).replace("roa:physicalQuantity", "roa:quantity")
    translated = readings_from_datex(datex(bare, site(basic("RoadSurface", ""))), channels, 100)
    assert not translated.sources
    assert translated.ignored == {"sites without a value that is read here": 1, "values of the kind RoadSurface": 1}
    assert readings_from_datex(datex(), channels, 100).ignored == {"publications without a value of a site": 1}


NOTHING_FALLS = "<roa:noPrecipitation>true</roa:noPrecipitation>"
NO_TYPE = (
    "<roa:precipitationDetail><com:precipitationType>noPrecipitation</com:precipitationType></roa:precipitationDetail>"
)


@pytest.mark.parametrize("inner", [NOTHING_FALLS, NO_TYPE])
def test_no_precipitation_is_a_precipitation_of_zero(channels, listed, inner):
    translated = readings_from_datex(datex(site(basic("PrecipitationInformation", inner), place="a1")), channels, 100)
    assert [(row[1], row[3], row[5]) for row in listed(translated)] == [("precipitation", 0.0, None)]


LEAD = (
    "<roa:pollution><com:pollutantType>lead</com:pollutantType><com:pollutantConcentration>"
    "<com:microgramsConcentration>4</com:microgramsConcentration></com:pollutantConcentration></roa:pollution>"
)
MAXIMUM = "<roa:maximumSpeed><com:speed>90</com:speed></roa:maximumSpeed>"


@pytest.mark.parametrize(
    ("kind", "inner", "ignored"),
    [
        ("TrafficSpeed", MAXIMUM, "values of the kind TrafficSpeed without what is read here"),
        (
            "PrecipitationInformation",
            NOTHING_FALLS.replace("true", "false"),
            "values of the kind PrecipitationInformation without what is read here",
        ),
        ("PollutionInformation", LEAD, "values of the pollutant lead"),
        ("PollutionInformation", "", "values of the kind PollutionInformation without what is read here"),
    ],
)
def test_a_known_kind_without_a_value_is_counted(channels, kind, inner, ignored):
    translated = readings_from_datex(datex(site(basic(kind, inner))), channels, 100)
    assert translated.ignored == {ignored: 1}


def test_a_quantity_without_a_value_is_counted(channels):
    assert readings_from_datex(datex(site("")), channels, 100).ignored == {"quantities without a value": 1}


def test_every_publication_of_a_container_is_read(channels, listed):
    bodies = [
        datex(site(basic("TrafficSpeed", speed(value)), place=place)) for place, value in (("r1", "20"), ("r 2", "30"))
    ]
    container = b"<c>" + b"".join(body.partition(b"?>")[2] for body in bodies) + b"</c>"
    assert [row[3] for row in listed(readings_from_datex(container, channels, 100))] == [20.0, 30.0]


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
def test_a_quantity_that_cannot_be_a_reading_keeps_its_row(channels, listed, value, default, fault):
    (row,) = listed(
        readings_from_datex(datex(site(basic("TrafficSpeed", speed(value)), default=default)), channels, 100)
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
def test_hostile_and_foreign_xml_is_refused(channels, body, said):
    with pytest.raises(MalformedBody, match=said):
        readings_from_datex(body, channels, 100)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_break_the_xml_reader(channels, body):
    with pytest.raises(MalformedBody):
        readings_from_datex(body, channels, 100)


def test_over_http_the_ingest_decides(client: httpx.Client, service):
    last = "2026-03-16T00:00:00Z"
    body = datex(site(basic("TrafficSpeed", speed("44")), default=f"<roa:timeValue>{last}</roa:timeValue>"))
    for outcome in ("accepted", "repeated"):
        answer = client.post("/v1/datex2/measured-data", content=body, headers={"Content-Type": "application/xml"})
        assert answer.json()[outcome] == 1
    assert service.store.read("speed", pd.Timestamp(last), pd.Timestamp(last)).values[0, 1] == 44


@pytest.mark.parametrize(("media", "status"), [("application/json", 415), ("text/xml; charset=utf-8", 400)])
def test_refused_bodies_are_problem_documents(client: httpx.Client, media, status):
    answer = client.post("/v1/datex2/measured-data", content=b"<a/>", headers={"Content-Type": media})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
