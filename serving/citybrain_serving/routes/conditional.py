"""Answers that stay as they are until the next forecast: asked for again, they are not made again."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import Request, Response

from citybrain_serving.errors import NotModified
from citybrain_serving.languages import Language, spoken
from citybrain_serving.negotiation import matches
from citybrain_serving.service import Service

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


async def not_modified(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NotModified)
    return Response(status_code=304, headers=error.headers)
