"""NGSI-LD and DATEX II out: valid by the official schemas, and the same numbers as elsewhere."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from defusedxml.ElementTree import fromstring

from citybrain_serving.indices.air import aqi_cn
from citybrain_serving.standards.datex_out import standard_deviation

SCHEMAS = (
    Path(os.environ.get("CITYBRAIN_DATA", Path(__file__).parents[3] / "shared" / "data")).parent
    / "reference"
    / "schemas"
)
WITH_SCHEMAS = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the official schemas are not on this machine")


@pytest.fixture(scope="module")
def air_schema():
    """Validates an ``AirQualityForecast``; what its schema refers to is looked up beside it."""
    validators = pytest.importorskip("jsonschema", reason="needs jsonschema to validate")
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    folder = SCHEMAS / "smart-data-models"
    known = {
        "https://smart-data-models.github.io/data-models/common-schema.json": "common-schema.json",
        "https://raw.githubusercontent.com/smart-data-models/dataModel.Environment/master/Environment-schema.json":
            "Environment-schema.json",
    }  # fmt: skip
    registry = Registry().with_resources(
        (address, Resource.from_contents(json.loads((folder / name).read_text()), DRAFT202012))
        for address, name in known.items()
    )
    schema = json.loads((folder / "AirQualityForecast" / "schema.json").read_text())
    return validators.Draft202012Validator(schema, registry=registry, format_checker=validators.FormatChecker())


def entities(warm: httpx.Client, kind: str, **params) -> list[dict]:
    answer = warm.get("/v1/ngsi-ld/entities", params={"type": kind, **params})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/ld+json"
    return answer.json()


@WITH_SCHEMAS
def test_air_quality_forecasts_are_valid(warm, air_schema):
    found = entities(warm, "AirQualityForecast", options="keyValues")
    assert len(found) == 3 * 4
    for entity in found:
        air_schema.validate(entity)


def test_an_air_quality_forecast_says_what_the_forecast_says(warm, service):
    forecast = service.snapshot.forecasts["pm25"]
    found = entities(warm, "AirQualityForecast", ids="a1", horizon="120")
    assert len(found) == 1
    entity = found[0]
    value = forecast.values[1, 1, 1]
    assert entity["id"] == "urn:ngsi-ld:AirQualityForecast:small:a1:2026-03-17T02:00:00Z"
    assert entity["pm25"]["value"] == pytest.approx(value, abs=0.006)
    assert entity["pm25"]["unitCode"] == "GQ"
    assert set(entity["pm25"]["quantiles"]["value"]) == {"0.1", "0.5", "0.9"}
    assert entity["airQualityIndex"]["value"] == int(aqi_cn(np.array(value)))
    assert entity["airQualityIndexStandard"]["value"] == "HJ 633-2026"
    assert entity["validFrom"]["value"] == {"@type": "DateTime", "@value": "2026-03-17T01:00:00Z"}
    assert entity["location"]["value"]["coordinates"] == pytest.approx([121.51, 31.21])
    assert entity["alternateName"]["value"] == "地点a1"


def test_a_traffic_forecast_is_valid_by_its_own_schema(warm, service):
    validators = pytest.importorskip("jsonschema", reason="needs jsonschema to validate")
    schema = warm.get("/v1/ngsi-ld/schemas/TrafficFlowForecast").json()
    validators.Draft202012Validator.check_schema(schema)
    validator = validators.Draft202012Validator(schema)
    simple = entities(warm, "TrafficFlowForecast", options="keyValues")
    assert len(simple) == 6 * 6
    for entity in simple:
        validator.validate(entity)
    assert simple[0]["averageVehicleSpeed"] == pytest.approx(
        service.snapshot.forecasts["congestion"].values[0, 0, 1], abs=0.006
    )
    assert 0 <= simple[0]["trafficPerformanceIndex"] <= 10
    assert simple[0]["refRoadSegment"] == "urn:ngsi-ld:RoadSegment:r0"
    assert "location" not in simple[-1]  # r5 is not published
    full = entities(warm, "TrafficFlowForecast", ids="r0", horizon="5")
    assert full[0]["refRoadSegment"] == {"type": "Relationship", "object": "urn:ngsi-ld:RoadSegment:r0"}


def test_pages_follow_each_other(warm):
    url, seen = "/v1/ngsi-ld/entities?type=TrafficFlowForecast&limit=4&horizon=5&options=keyValues", []
    while url:
        answer = warm.get(url)
        seen += [entity["refRoadSegment"][-2:] for entity in answer.json()]
        url = answer.links.get("next", {}).get("url")
    assert seen == ["r0", "r1", "r2", "r3", "r4", "r5"]


def publication(warm: httpx.Client, task: str, **params) -> bytes:
    answer = warm.get(f"/v1/datex2/forecasts/{task}", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/xml")
    return answer.content


@WITH_SCHEMAS
@pytest.mark.parametrize("task", ["congestion", "pm25"])
def test_publications_are_valid_by_the_official_schema(warm, task):
    lxml = pytest.importorskip("lxml.etree", reason="needs lxml to validate")
    schema = lxml.XMLSchema(lxml.parse(str(SCHEMAS / "datex2-3.7" / "DATEXII_3_D2Payload.xsd")))
    schema.assertValid(lxml.fromstring(publication(warm, task)))


@pytest.fixture
def failing(warm, service, monkeypatch):
    """Forecasts that are stale, and doubted since outcomes fall outside."""
    for name in ("congestion", "pm25"):
        service.cycle.coverage[name].doubted = True
        service.cycle.coverage[name]._steps = {service.snapshot.forecasts[name].issued: (10, 1_000)}
    service.step()
    monkeypatch.setattr(service, "stale", lambda forecast: True)
    return warm


@pytest.mark.parametrize("task", ["congestion", "pm25"])
def test_a_publication_says_what_is_stale_and_what_is_doubted(failing, task):
    root = fromstring(publication(failing, task))
    quantities = list(root.iterfind(".//{*}physicalQuantity"))
    for quantity in quantities:
        assert [e.text for e in quantity.iterfind(".//{*}faultIdentifier")] == ["stale", "doubted"]
        kinds = [(e.text, e.get("_extendedValue")) for e in quantity.iterfind(".//{*}physicalQuantityFaultType")]
        assert kinds == [("_extended", "stale"), ("spuriousUnreliableDataValues", None)]
    assert quantities


@WITH_SCHEMAS
@pytest.mark.parametrize("task", ["congestion", "pm25"])
def test_publications_with_faults_are_valid_by_the_official_schema(failing, task):
    lxml = pytest.importorskip("lxml.etree", reason="needs lxml to validate")
    schema = lxml.XMLSchema(lxml.parse(str(SCHEMAS / "datex2-3.7" / "DATEXII_3_D2Payload.xsd")))
    schema.assertValid(lxml.fromstring(publication(failing, task)))


@WITH_SCHEMAS
def test_entities_say_what_is_stale_and_what_is_doubted(failing, air_schema):
    for kind in ("AirQualityForecast", "TrafficFlowForecast"):
        for entity in entities(failing, kind, options="keyValues"):
            assert (entity["stale"], entity["doubted"]) == (True, True)
            assert entity["@context"][0]["doubted"] == "urn:citybrain:ngsi-ld:doubted"
            if kind == "AirQualityForecast":
                air_schema.validate(entity)


def test_a_publication_of_a_sound_forecast_has_no_fault(warm):
    assert b"Fault" not in publication(warm, "congestion")
    (entity,) = entities(warm, "TrafficFlowForecast", ids="r1", horizon="5", options="keyValues")
    assert (entity["stale"], entity["doubted"]) == (False, False)


def test_a_publication_says_what_the_forecast_says(warm, service):
    forecast = service.snapshot.forecasts["congestion"]
    root = fromstring(publication(warm, "congestion", ids="r2,r0", horizon="10,5"))
    places = [e.get("id") for e in root.iterfind(".//{*}predefinedLocationReference")]
    speeds = [float(e.text) for e in root.iterfind(".//{*}speed")]
    times = [e.text for e in root.iterfind(".//{*}timeValue")]
    assert places == ["r2", "r2", "r0", "r0"]
    assert speeds == pytest.approx([forecast.values[row, lead, 1] for row in (2, 0) for lead in (1, 0)], abs=0.006)
    assert times[:2] == ["2026-03-17T00:10:00Z", "2026-03-17T00:05:00Z"]
    assert root.findtext(".//{*}informationStatus") == "test"
    assert root.findtext(".//{*}periodDefault") == "300"


def test_ids_and_names_cannot_break_out_of_the_xml(warm, service):
    places = service.board.places["road"]
    odd = places.table.rename(index={"r0": 'r"<&>'})
    service.board.places["road"] = replace(places, table=odd)
    root = fromstring(publication(warm, "congestion", limit=1, horizon="5"))
    assert root.find(".//{*}predefinedLocationReference").get("id") == 'r"<&>'


def test_the_spread_is_that_of_a_normal_distribution():
    values = np.array([[[10 - 1.2815515 * 4, 10, 10 + 1.2815515 * 4]]])
    assert standard_deviation(values, (0.1, 0.5, 0.9))[0, 0] == pytest.approx(4, rel=1e-6)
    assert standard_deviation(values[..., :1], (0.5,)) is None


@pytest.mark.parametrize("path", ["/v1/ngsi-ld/entities?type=TrafficFlowForecast", "/v1/datex2/forecasts/congestion"])
def test_not_modified_until_the_forecast_changes(warm, path):
    first = warm.get(path)
    again = warm.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert not again.content


def test_what_has_grown_stale_is_not_called_unmodified(warm, service, monkeypatch):
    path = "/v1/ngsi-ld/entities?type=TrafficFlowForecast&options=keyValues"
    first = warm.get(path)
    monkeypatch.setattr(service, "stale", lambda _forecast: True)
    later = warm.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (first.json()[0]["stale"], later.status_code, later.json()[0]["stale"]) == (False, 200, True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/ngsi-ld/entities", 422),
        ("/v1/ngsi-ld/entities?type=Vehicle", 422),
        ("/v1/ngsi-ld/entities?type=TrafficFlowForecast&ids=r99", 404),
        ("/v1/ngsi-ld/entities?type=TrafficFlowForecast&horizon=7", 422),
        ("/v1/datex2/forecasts/rain", 404),
        ("/v1/datex2/forecasts/pm25?limit=0", 422),
    ],
)
def test_bad_questions_are_refused(warm, path, status):
    answer = warm.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
