"""Around every request: an id, a bound on its body, a measure of its time, and an answer whatever happens."""

from __future__ import annotations

import os
import re
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citybrain_serving.errors import BodyTooLarge
from citybrain_serving.languages import listen
from citybrain_serving.negotiation import joined
from citybrain_serving.problem_details import problem
from citybrain_serving.telemetry import Telemetry

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Counted by name; whatever else a caller makes up is counted as one."""

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

log = structlog.get_logger(__name__)


class RequestScope:
    """ASGI middleware. Successful reads and inferences, and what was refused for want of time, are counted and not
    logged: a control room polls all day."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, max_body: int):
        self.app = app
        self.telemetry = telemetry
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            scope["headers"] = joined(scope["headers"])
            headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _ID.fullmatch(given) else os.urandom(16).hex().encode()
        structlog.contextvars.bind_contextvars(request_id=request_id.decode())
        spoken = headers.get(b"accept-language")
        listen(None if spoken is None else spoken.decode("latin-1"))
        begun, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            await self.app(scope, _bounded(receive, headers.get(b"content-length"), self.max_body), answer)
        except Exception:  # the last resort: the caller gets a plain 500, the log everything
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if status:
                raise  # half an answer is out; only closing the connection can tell
            await problem(500, "internal", "an internal error; it was logged under this id")(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path_format", "unmatched")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.telemetry.answered(route, method, status, seconds)
            if (status >= 400 or not _asks(scope)) and "counted" not in scope:
                log.info(
                    "request",
                    method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 4),
                )  # fmt: skip
            structlog.contextvars.unbind_contextvars("request_id")


def _asks(scope: Scope) -> bool:
    """Whether a request changes nothing here: a read, or inference on inputs that the caller brings."""
    return scope["method"] in ("GET", "HEAD") or scope["path"].startswith("/v2/")


def _bounded(receive: Receive, length: bytes | None, limit: int) -> Receive:
    """``receive`` that ends a body over ``limit`` bytes, announced or not, with :class:`BodyTooLarge`."""
    read = 0

    async def bounded() -> Message:
        nonlocal read
        if length is not None and length.isdigit() and int(length) > limit:
            raise BodyTooLarge(f"the body is announced with {int(length)} bytes; at most {limit} are read")
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise BodyTooLarge(f"the body is over {limit} bytes; send it in parts")
        return message

    return bounded
