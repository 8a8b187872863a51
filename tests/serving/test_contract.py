"""The OpenAPI document and the service keep to each other, whatever is asked."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from citybrain_serving.app import create_app
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
