"""``/v1/forecasts/{task}``: forecasts out, from the newest snapshot. Nothing is computed here."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from citybrain_serving.compression import coding_for
from citybrain_serving.encoding import ARROW, GEOJSON, JSON
from citybrain_serving.languages import preferred_language
from citybrain_serving.negotiation import header, matches, preferred
from citybrain_serving.publication import ForecastQuery
from citybrain_serving.routes.documentation import problems, schema
from citybrain_serving.routes.selecting import Horizon, IndexName, Quantiles, Selected
from citybrain_serving.routes.times import Moment, instant
from citybrain_serving.safety.ledger import rests_on
from citybrain_serving.schemas.forecasts import ForecastBody, ForecastFeatures
from citybrain_serving.service import Service
from citybrain_serving.shortcuts import VARY, Answer

OFFERED = (JSON, GEOJSON, ARROW)
LASTING = (b"content-type", b"content-length", b"content-encoding", b"content-language")
AT_ONCE = 1_000
"""Nodes of a city up to which an answer is encoded where it stands; more go to a thread, so that others are answered,
and refused, meanwhile."""

ENCODERS = 2
"""Threads that encode at a time: more would only take the interpreter from each other, and from the event loop."""

EXAMPLE: dict[str, Any] = {
    "city": "lantan", "synthetic": True, "task": "congestion", "signal": "speed", "unit": "km/h", "index": None,
    "issued": "2026-03-02T08:05:00Z", "step_minutes": 5, "source": "model", "reason": "", "doubted": False,
    "stale": False, "bundle": "4f1c0d7a9b2e",
    "inputs": {"seen": 0.99, "newest": "2026-03-02T08:05:00Z", "replaced": 0, "doubts": {}, "signals": {"speed": 0.98}},
    "times": ["2026-03-02T08:10:00Z", "2026-03-02T08:15:00Z"], "quantiles": [0.1, 0.5, 0.9],
    "ids": ["r1"], "observed": [42.5], "observed_at": ["2026-03-02T08:05:00Z"],
    "values": [[[38.1, 41.9, 45.2], [36.0, 41.0, 45.7]]],
}  # fmt: skip

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The forecast",
        "content": {
            JSON: {"schema": schema(ForecastBody), "example": EXAMPLE},
            GEOJSON: {"schema": schema(ForecastFeatures)},
            ARROW: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    304: {"description": "The forecast that If-None-Match names is still the newest"},
    **problems(404, 406, 422, 503),
}


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["forecasts"])
    encoders = CapacityLimiter(ENCODERS)

    @routes.get("/forecasts/{task}", summary="The newest forecast", response_class=Response, responses=ANSWERS)
    async def forecast(
        request: Request,
        task: Annotated[str, Path(description="`congestion` or `pm25`")],
        places: Selected,
        horizon: Horizon,
        quantiles: Quantiles,
        index: IndexName = None,
        issued: Annotated[Moment | None, Query(description="issue time of an older forecast")] = None,
    ) -> Response:
        """Quantiles for every node and lead, as columns (JSON), features (GeoJSON) or an Arrow table; of the signal,
        or of an `index` made from it.

        The Arrow table has a row for each node, a column `q<level>` of lists over the leads, and the rest
        of the JSON answer in its schema metadata under `citybrain`.
        """
        media = preferred(request.headers.get("accept"), OFFERED)
        if issued is None:
            published = service.published(task, index)
            stale, fresh = service.stale(published.answers.forecast), service.fresh()
        else:
            published = await run_in_threadpool(service.past, task, instant(issued, "issued"), index)
            old = published.base.answers.forecast
            rests_on(request.scope, old)
            stale, fresh = old.stale(old.issued, service.settings.stale_steps), "no-cache"
        # Nothing but a reason is said in words.
        spoken = preferred_language(request.headers.get("accept-language"))
        language = spoken if published.answers.forecast.reason else "en"
        coding = coding_for(header(request.scope, b"accept-encoding"))
        query = ForecastQuery(media, places, horizon, quantiles, stale, language)
        etag = published.etag(query, coding)
        headers = {"ETag": etag, "Cache-Control": fresh, "Vary": VARY, "Content-Language": language}
        if matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        small = places.ids is not None or len(published.answers.places) <= AT_ONCE
        if small:
            body = published.get(query, coding)
        else:
            body = await run_sync(published.get, query, coding, limiter=encoders)
        if coding != "identity":
            headers["Content-Encoding"] = coding
        answer = Response(body, headers=headers, media_type=media)
        if issued is None and not published.passing:
            lasting = tuple(h for h in answer.raw_headers if h[0] in LASTING)
            service.shortcuts.keep(request.scope, Answer(published.base, stale, etag.encode(), lasting, body))
        return answer

    return routes
