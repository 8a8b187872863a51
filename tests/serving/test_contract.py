"""The OpenAPI document and the service keep to each other, whatever is asked."""

from __future__ import annotations

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from citybrain_serving.app import create_app
from citybrain_serving.bench.bad_bodies import bad_bodies
from citybrain_serving.readings import readings_from_json
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

ELSEWHERE = ("/v1/stream", "/v2", "/v1/ngsi-ld", "/v1/datex2")
"""A stream has no end to wait for; the other protocols have schemas and tests of their own."""

EXAMPLES = 8

# What a grammar cannot say, that a box lies on the globe or that an id exists, is refused with 422 and a reason.
LEFT_OUT = [positive_data_acceptance]


@pytest.fixture(scope="module")
def schema(tmp_path_factory, bundles):
    folder = tmp_path_factory.mktemp("contract")
    service = Service(bundles.values(), Settings(store=str(folder / "store.sqlite"), clock="observations"))
    first = b'{"observations": [{"id": "r0", "signal": "speed", "time": "2026-03-17T00:00:00Z", "value": 30}]}'
    service.take(readings_from_json(first))
    service.step()
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(service))
    service.close()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, bundles):
    """A service that has seen nothing yet, and a client of it."""
    folder = tmp_path_factory.mktemp("quiet")
    service = Service(bundles.values(), Settings(store=str(folder / "s.sqlite"), rate_per_second=1e9))
    with TestClient(create_app(service)) as client:
        yield service, client


def test_every_operation_answers_as_it_is_documented(schema):
    checked = 0
    for operation in (result.ok() for result in schema.get_all_operations()):
        if operation.path.startswith(ELSEWHERE):
            continue

        @settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def keeps_to_it(case):
            case.call_and_validate(excluded_checks=LEFT_OUT)

        keeps_to_it()
        checked += 1
    assert checked >= 17


def test_the_methods_of_an_address_are_all_told(client):
    for path, methods in (("/v1/cases", "GET, POST"), ("/v1/city", "GET"), ("/v1/observations", "POST")):
        refused = client.options(path)
        assert refused.status_code == 405
        assert refused.headers["allow"] == methods


@pytest.mark.parametrize("time", ["-4194303", "1700000000", "1.5"])
def test_a_number_is_no_time(warm, time):
    assert warm.get("/v1/forecasts/congestion/history", params={"to": time}).status_code == 422


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(sent=bad_bodies())
def test_bad_bodies_are_refused_and_store_nothing(quiet, sent):
    service, http = quiet
    path, media, body = sent
    answer = http.post(path.format(task="congestion"), content=body, headers={"Content-Type": media})
    assert answer.status_code < 500 or answer.status_code == 503, answer.text
    assert service.store.newest() == {}
    assert service.casebook.unfinished() == []
