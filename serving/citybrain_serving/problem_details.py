"""Errors as RFC 9457 problem documents. The one place where an exception becomes a status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from structlog.contextvars import get_contextvars

from citybrain_serving import errors
from citybrain_serving.chinese import translated
from citybrain_serving.languages import asked_language, spoken

MEDIA = "application/problem+json"

STATUSES: dict[type[errors.ServingError], tuple[int, str]] = {
    errors.MalformedBody: (400, "malformed-body"),
    errors.Forbidden: (403, "forbidden"),
    errors.UnknownPlace: (404, "unknown-place"),
    errors.UnknownTask: (404, "unknown-task"),
    errors.UnknownIssue: (404, "unknown-issue"),
    errors.UnknownCase: (404, "unknown-case"),
    errors.NotNow: (409, "not-now"),
    errors.NotAcceptable: (406, "not-acceptable"),
    errors.BodyTooLarge: (413, "body-too-large"),
    errors.UnsupportedMedia: (415, "unsupported-media"),
    errors.UnfitBundle: (422, "unfit-bundle"),
    errors.BadSelection: (422, "bad-selection"),
    errors.NothingAccepted: (422, "nothing-accepted"),
    errors.BadScenario: (422, "bad-scenario"),
    errors.UnknownJob: (404, "unknown-job"),
    errors.NoSurrogate: (404, "no-surrogate"),
    errors.TooManyJobs: (503, "too-many-jobs"),
    errors.NotReady: (503, "not-ready"),
    errors.TooManyStreams: (429, "too-many-streams"),
    errors.TooManyListeners: (503, "too-many-listeners"),
    errors.StoreUnavailable: (503, "store-unavailable"),
    errors.StoreRefused: (500, "store-refused"),
}
"""Status and the last part of the problem's type for each error a caller may meet."""

TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Request timeout",
    409: "Conflict",
    413: "Content too large",
    415: "Unsupported media type",
    422: "Not processable",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}

RETRY_AFTER = {429: "5", 503: "5"}

TOLD = 20
"""Faulty fields that the detail names; ``errors`` has them all."""


def problem(
    status: int,
    slug: str,
    detail: str,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document in the language of the request. ``extra`` are extension members; the id of the request is
    one of them."""
    language = asked_language()
    document = {
        **(extra or {}),
        "type": f"urn:citybrain:problem:{slug}",
        "title": translated(TITLES.get(status, "Error"), language),
        "status": status,
        "detail": translated(detail, language),
        "request_id": get_contextvars().get("request_id", ""),
    }
    if "errors" in document:
        document["errors"] = [{**e, "what": translated(e["what"], language)} for e in document["errors"]]
        document["detail"] = "; ".join(f"{e['where']}: {e['what']}" for e in document["errors"][:TOLD])
    out = {**(headers or {}), **spoken(language)}
    if status in RETRY_AFTER:
        out.setdefault("Retry-After", RETRY_AFTER[status])
    if status == 413:
        out["Connection"] = "close"  # the rest of the body was not read
    return Response(orjson.dumps(document), status, out, MEDIA)


def install(app: FastAPI) -> None:
    """Every error of ``app`` leaves as a problem document."""
    app.add_exception_handler(errors.ServingError, _serving)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


async def _serving(_request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ServingError)
    status, slug = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), (500, "internal"))
    return problem(status, slug, str(error), error.extra)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [{"where": ".".join(map(str, e["loc"])), "what": _what(request, e)} for e in error.errors()]
    return problem(422, "bad-request", "", {"errors": found})


def _what(request: Request, error: Mapping[str, Any]) -> str:
    """What is wrong with a field; of a member that a body does not have, which ones it has."""
    body = getattr(request.scope.get("route"), "body_field", None)
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 2 and body is not None:
        fields = getattr(body.field_info.annotation, "model_fields", {})
        return f"there is no such member, only {', '.join(fields)}"
    return str(error["msg"])


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not possible at {request.url.path}",
    }
    slug = {400: "malformed-body", 404: "no-such-address", 405: "method-not-allowed"}.get(error.status_code, "error")
    detail = details.get(error.status_code, str(error.detail))
    headers = {**(error.headers or {})}
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    return problem(error.status_code, slug, detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    """Every method that the address takes; a router alone knows those of the first route that has the address."""
    asked = [{**request.scope, "method": method} for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")]
    told = [route for route in request.app.routes if getattr(route, "include_in_schema", True)]
    return [s["method"] for s in asked if any(route.matches(s)[0] is Match.FULL for route in told)]
