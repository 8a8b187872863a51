"""Answers that stay as they are until the next forecast: asked for again, they are not made again."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citybrain_serving.errors import NotModified
from citybrain_serving.languages import Language, spoken
from citybrain_serving.negotiation import header, matches
from citybrain_serving.service import Service

OF_CONTENT = (b"content-type", b"content-length", b"content-encoding")
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "What If-None-Match names still holds"}}
"""``responses`` of a route that may say so."""


def lasting(service: Service, request: Request, language: Language) -> dict[str, str]:
    """Headers of an answer that is made from what is published, the bundles and the question alone; none of them
    before the first forecast but the language. The tag is a weak one: what it names may tell another time of day.

    Raises :class:`NotModified` where the caller has the answer.
    """
    headers = spoken(language)
    snapshot = service.snapshot
    if snapshot is None:
        return headers
    forecasts = [(f.digest, service.stale(f)) for f in snapshot.forecasts.values()]
    bundles = [bundle.digest for bundle in service.fleet.bundles.values()]
    made_from = repr((forecasts, bundles, request.url.path, request.url.query, language))
    tag = f'"{hashlib.blake2b(made_from.encode(), digest_size=12).hexdigest()}"'
    headers |= {"ETag": f"W/{tag}", "Cache-Control": service.fresh()}
    if matches(request.headers.get("if-none-match"), tag):
        raise NotModified(headers)
    return headers


class Existing:
    """ASGI middleware. ``If-None-Match: *`` wants no answer where there is one: what has a tag becomes 304, and what is
    refused stays refused (RFC 9110, section 13.2.1)."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or header(scope, b"if-none-match") != "*":
            await self.app(scope, receive, send)
            return
        exists = False

        async def existing(message: Message) -> None:
            nonlocal exists
            if message["type"] == "http.response.start":
                exists = message["status"] == 200 and any(name == b"etag" for name, _ in message["headers"])
                if exists:
                    kept = [(name, value) for name, value in message["headers"] if name not in OF_CONTENT]
                    message = {**message, "status": 304, "headers": kept}
            elif exists:
                message = {**message, "body": b""}
            await send(message)

        await self.app(scope, receive, existing)


async def not_modified(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NotModified)
    return Response(status_code=304, headers=error.headers)
