"""The OpenAPI document and the service keep to each other, whatever is asked."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

from citybrain_serving.app import create_app
from citybrain_serving.bench import contract
from citybrain_serving.bench.bad_bodies import bad_bodies
from citybrain_serving.bench.contract import examine
from citybrain_serving.bench.records import Notebook
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, bundles):
    """A service that has seen nothing yet, and a client of it."""
    folder = tmp_path_factory.mktemp("quiet")
    service = Service(bundles.values(), Settings(store=str(folder / "s.sqlite"), rate_per_second=1e9))
    with TestClient(create_app(service)) as client:
        yield service, client


def test_every_operation_answers_as_it_is_documented(bundles, tmp_path):
    """All checks of schemathesis on all operations, with keys; the topic `contract` of `bench-serving` asks more."""
    found = examine(list(bundles.values()), tmp_path, examples=2)
    assert (found.failures, found.errors) == ([], []), (tmp_path / "schemathesis.log").read_text()[-4_000:]
    assert found.operations == found.known >= 39


def test_what_is_found_becomes_a_record(bundles, tmp_path, monkeypatch):
    found = contract.Findings(39, 38, 3_000, ["Server error: GET /v1/at"], [])
    monkeypatch.setattr(contract, "examine", lambda *_, **__: found)
    book = Notebook(tmp_path / "records.json", "a test", tell=lambda _: None)
    contract.measure(book, bundles["pm25"], tmp_path)
    told = {record["metric"]: record["value"] for record in book.records}
    assert told == {"operations": 39, "operations_tested": 38, "requests": 3_000, "failures": 1, "errors": 0}
    assert any("GET /v1/at" in record["note"] for record in book.records)


def test_an_answer_that_the_document_does_not_know_is_found(bundles, tmp_path, monkeypatch):
    """The examination itself: it finds what is wrong, and tells what."""
    monkeypatch.setattr(contract, "ACCEPTED", ("3xx",))
    monkeypatch.setattr(contract, "PHASES", "examples")
    found = examine([bundles["pm25"]], tmp_path, examples=1)
    assert any("Schema-valid request rejected" in told for told in found.failures)


def test_the_methods_of_an_address_are_all_told(client):
    known = {
        "/v1/cases": "GET, POST",
        "/v1/city": "GET",
        "/v1/observations": "POST",
        "/v1/weather-forecasts": "POST",
        "/v2": "GET",
        "/v2/models/congestion/infer": "POST",
    }
    for path, methods in known.items():
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
