"""Traces: what is traced, what is not, and that nothing is needed where they are off."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from citybrain_datasets.errors import ConfigError
from citybrain_serving import tracing
from citybrain_serving.app import create_app


@pytest.fixture
def spans():
    memory = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="needs the extra otel"
    )
    pytest.importorskip("opentelemetry.instrumentation.asgi", reason="needs the extra otel")
    exporter = memory.InMemorySpanExporter()
    tracing.configure("http://127.0.0.1:9/v1/traces", "small", exporter)
    yield exporter
    tracing.shutdown()


def test_a_request_is_a_span_and_its_work_belongs_to_it(spans, service, rows):
    app = create_app(service)
    tracing.instrument(app)
    caller = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with TestClient(app) as client:
        for probe in ("/livez", "/readyz", "/v2/health/live"):
            client.get(probe)
        client.post("/v1/observations", json={"observations": rows(1)}, headers=caller)
    found = {span.name: span for span in spans.get_finished_spans() if span.name != "cycle"}
    assert set(found) == {"POST /v1/observations", "ingest"}
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert found["ingest"].attributes["readings"] == len(rows(1))
    assert found["ingest"].resource.attributes["citybrain.city"] == "small"


def test_a_failure_is_noted_on_its_span_and_the_log_names_the_trace(spans):
    told = {}

    def work() -> None:
        with tracing.span("work"):
            told.update(tracing.add_trace(None, "info", {}))
            raise KeyError("x")

    with pytest.raises(KeyError):
        work()
    (span,) = spans.get_finished_spans()
    assert span.status.status_code.name == "ERROR"
    assert told["trace_id"] == f"{span.context.trace_id:032x}"


def test_without_a_place_to_send_them_there_are_none():
    with tracing.span("work"):
        assert tracing.add_trace(None, "info", {}) == {}


def test_without_the_extra_the_setting_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install .*\[otel\]"):
        tracing.configure("http://127.0.0.1:9", "small")
