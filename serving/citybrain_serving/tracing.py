"""OpenTelemetry traces, with the extra ``otel``; without it, or unless told where to, nothing is traced.

The provider is this module's own and no global: what else runs in the process keeps its own traces.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from citybrain_datasets import __version__
from citybrain_datasets.errors import ConfigError, installing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

UNTRACED = "livez,readyz,metrics,v2/health"
"""Probes come every few seconds and say nothing."""

_provider: TracerProvider | None = None


def configure(endpoint: str, city: str, exporter: SpanExporter | None = None) -> None:
    """Traces go to ``endpoint`` (OTLP over HTTP, ``http://collector:4318/v1/traces``), or to ``exporter``.

    Raises :class:`ConfigError` where the extra is not installed.
    """
    global _provider
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    except ModuleNotFoundError:
        raise ConfigError(f"setting otlp_endpoint: needs {installing('otel')}") from None
    resource = Resource({"service.name": "citybrain", "service.version": __version__, "citybrain.city": city})
    _provider = TracerProvider(resource=resource)
    if exporter is None:
        _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    else:
        _provider.add_span_processor(SimpleSpanProcessor(exporter))


def shutdown() -> None:
    """Sends what is left and traces no more."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


def instrument(app: FastAPI) -> None:
    """A span for each request; a caller's ``traceparent`` is gone on with."""
    if _provider is not None:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        app.add_middleware(
            OpenTelemetryMiddleware,
            excluded_urls=_excluded(),
            tracer_provider=_provider,
            exclude_spans=["receive", "send"],
        )


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[None]:
    """A span around a piece of work; an error that passes through is noted on it."""
    if _provider is None:
        yield
        return
    with _provider.get_tracer("citybrain").start_as_current_span(name, attributes=attributes):
        yield


def add_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: a line of the log names the trace that it belongs to."""
    if _provider is not None:
        from opentelemetry import trace

        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
    return event


def _excluded() -> Any:
    from opentelemetry.util.http import parse_excluded_urls

    return parse_excluded_urls(UNTRACED)
