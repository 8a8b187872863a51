"""``/v2``: the Open Inference Protocol over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

import orjson
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from citybrain_datasets import __version__
from citybrain_serving.errors import LEAVING, BodyTooLarge, NotReady, ServingError
from citybrain_serving.inference import wire
from citybrain_serving.inference.batching import Limits
from citybrain_serving.inference.errors import InferenceError, NoSuchModel, NotAllowed, Overloaded
from citybrain_serving.inference.models import InferenceMetrics, Models
from citybrain_serving.inference.schemas import (
    ERRORS,
    INFER_BODY,
    InferBody,
    ModelBody,
    ModelReady,
    ServerBody,
)
from citybrain_serving.middleware import METHODS
from citybrain_serving.safety.ledger import Inferred, rests_on
from citybrain_serving.service import Service
from citybrain_serving.tracing import span

LARGE = 256 * 1024
"""Bytes of JSON above which decoding and encoding leave the event loop."""

LARGE_RAW = 4 * 2**20
"""Bytes of raw tensors from which on an answer is put together outside it: they are only copied, which takes a
millisecond. Of a request they are not even that."""

_LENGTH = wire.HEADER.lower().encode()

log = structlog.get_logger(__name__)


def router(service: Service) -> APIRouter:
    settings = service.settings
    limits = Limits(settings.infer_rows, settings.infer_delay_ms / 1000, settings.infer_queue_rows)
    models = Models(lambda: service.cycle.forecasters, limits, InferenceMetrics(service.telemetry.registry))

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        for name in models.names():
            models.get(name)  # describing a network takes a moment, which no caller should wait for
        yield
        await models.close()

    routes = APIRouter(prefix="/v2", tags=["inference"], route_class=ProtocolRoute, lifespan=lifespan, responses=ERRORS)

    @routes.post(
        "/models/{model}/versions/{version}/infer",
        summary="Infer with one version",
        response_model=InferBody,
        openapi_extra=INFER_BODY,
    )
    @routes.post("/models/{model}/infer", summary="Infer", response_model=InferBody, openapi_extra=INFER_BODY)
    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        """Features in, quantiles out, uncalibrated and not doubted: `/v1/forecasts` is what to act on.

        Requests that come at the same time run as one batch. A full queue answers 503 with Retry-After.
        """
        loaded = models.get(model, version)
        network = loaded.network
        rests_on(request.scope, Inferred(network.name, network.version, network.digest))
        body = await _body(request)
        told = dict(request.scope["headers"])
        coding = told.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
        length = told.get(_LENGTH)
        header = None if length is None else length.decode("latin-1")

        def decoded() -> wire.InferRequest:
            plain = body if coding == "identity" else wire.inflate(body, coding, settings.max_body_bytes)
            return wire.decode(plain, header)

        quick = coding == "identity" and wire.json_length(header, len(body)) <= LARGE
        asked = decoded() if quick else await run_in_threadpool(decoded)
        rows = network.rows(asked.inputs)
        known = network.outputs
        unknown = [want.name for want in asked.outputs or () if want.name not in known]
        if unknown:  # told before the work, not after it
            raise InferenceError(f"there is no output {unknown[0][:80]!r}; known are {', '.join(known)}")
        try:
            with span("infer", model=network.name, rows=rows):
                alone = not network.shares_batch(asked.inputs)
                outputs = await loaded.batcher.submit(asked.inputs, rows, alone=alone, caller=_connection(request))
        except Overloaded:
            models.metrics.refused.inc()
            raise
        if sum(tensor.nbytes for tensor in outputs.values()) <= (LARGE_RAW if asked.all_raw else LARGE):
            content, headers = wire.encode(network.name, network.version, asked, outputs)
        else:
            content, headers = await run_in_threadpool(wire.encode, network.name, network.version, asked, outputs)
        return _Told(content, headers)

    @routes.get("", summary="The server", response_model=ServerBody)
    async def server(_: Request) -> Response:
        return _json({"name": "citybrain", "version": __version__, "extensions": ["binary_tensor_data"]})

    @routes.get("/health/live", summary="The process answers")
    async def live(_: Request) -> Response:
        return _json({"live": True})

    @routes.get("/health/ready", summary="Every model answers")
    async def ready(_: Request) -> Response:
        if service.leaving:
            raise NotReady(LEAVING)
        for name in models.names():
            models.get(name)
        return _json({"ready": True})

    @routes.get("/models/{model}", summary="A model", response_model=ModelBody)
    @routes.get("/models/{model}/versions/{version}", summary="One version of a model", response_model=ModelBody)
    async def metadata(_: Request, model: str, version: str | None = None) -> Response:
        network = models.get(model, version).network
        return _json(network.metadata([network.version]))

    @routes.get("/models/{model}/ready", summary="A model answers", response_model=ModelReady)
    @routes.get("/models/{model}/versions/{version}/ready", summary="One version answers", response_model=ModelReady)
    async def model_ready(_: Request, model: str, version: str | None = None) -> Response:
        models.get(model, version)
        return _json({"name": model, "ready": True})

    @routes.api_route("/{rest:path}", methods=[*METHODS, "TRACE"], include_in_schema=False)
    async def nothing(request: Request, **_: str) -> Response:
        known = (route for route in routes.routes if isinstance(route, APIRoute) and route.name != "nothing")
        allowed = {m for route in known if route.path_regex.match(request.url.path) for m in route.methods or ()}
        if allowed:
            raise NotAllowed(f"{request.method} is not possible at {request.url.path}", sorted(allowed))
        raise NoSuchModel(f"{request.method} {request.url.path} is not part of the protocol")

    return routes


class _Told(Response):
    """An answer with these headers and no others: making them out of nothing takes as long as encoding a forecast."""

    def __init__(self, body: bytes, headers: Mapping[str, str]):
        self.status_code, self.body, self.background = 200, body, None
        told = {**headers, "Content-Length": str(len(body))}
        self.raw_headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]


async def _body(request: Request) -> bytes:
    """The whole body; most come in one piece, and are not copied."""
    message = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b""))
    parts = [message.get("body", b"")]
    while message.get("more_body", False):
        message = await request.receive()
        parts.append(message.get("body", b""))
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return b"".join(parts)


def _connection(request: Request) -> tuple[str, int] | None:
    """Which connection a request came on; ``None`` where a proxy in front of this server hides that."""
    return request.scope["client"] if request.scope.get("client") and request.scope["client"][1] else None


class ProtocolRoute(APIRoute):
    """Every error under ``/v2`` leaves in the protocol's form. Endpoints are called with the request and the parts of
    the address that they name: what FastAPI could do beside that they do themselves."""

    @cached_property
    def _protocol(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.get_route_handler()

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer: Callable[..., Awaitable[Response]] = self.endpoint

        async def protocol(request: Request) -> Response:
            try:
                return await answer(request, **request.path_params)
            except Overloaded as error:
                return _error(error.status, str(error), {"Retry-After": str(error.retry_after)})
            except NotAllowed as error:
                return _error(error.status, str(error), {"Allow": ", ".join(error.methods)})
            except InferenceError as error:
                return _error(error.status, str(error))
            except BodyTooLarge as error:
                return _error(413, str(error), {"Connection": "close"})
            except NotReady as error:
                return _error(503, str(error), {"Retry-After": "5"})
            except (ServingError, RequestValidationError) as error:
                return _error(400, str(error))
            except ClientDisconnect:
                return _error(400, "the body did not come whole")
            except HTTPException as error:
                return _error(error.status_code, str(error.detail))
            except Exception:
                log.exception("inference failed", path=request.url.path)
                return _error(500, "an internal error; it was logged")

        return protocol

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Straight to the endpoint; the way round, which is for dependencies, costs a small network a tenth."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self._protocol(Request(scope, receive, send))
        await response(scope, receive, send)


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"error": message}), status, headers, "application/json")
