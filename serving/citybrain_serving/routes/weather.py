"""``/v1/weather-forecasts``: weather forecasts in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from citybrain_serving.encoding import utc
from citybrain_serving.errors import UnsupportedMedia
from citybrain_serving.languages import asked_language, spoken
from citybrain_serving.outcome import acknowledged
from citybrain_serving.readings import check_count, weather_from_json
from citybrain_serving.routes.documentation import problems, schema
from citybrain_serving.schemas.weather import WeatherColumnsBody, WeatherIngestBody, WeatherRowsBody
from citybrain_serving.service import Service

MEDIA = "application/json"

ROWS = {
    "issued": "2026-03-02T06:00:00Z",
    "forecasts": [
        {"id": "city", "signal": "temperature", "time": "2026-03-02T09:00:00Z", "value": 8.5},
        {"id": "city", "signal": "wind_speed", "time": "2026-03-02T09:00:00Z", "value": 3.2, "unit": "m/s"},
    ],
}
COLUMNS = {
    "issued": "2026-03-02T06:00:00Z",
    "signal": "temperature",
    "id": "city",
    "time": ["2026-03-02T09:00:00Z", "2026-03-02T10:00:00Z"],
    "value": [8.5, 9.1],
}

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA: {
                "schema": {"oneOf": [schema(WeatherRowsBody), schema(WeatherColumnsBody)]},
                "examples": {"rows": {"value": ROWS}, "columns": {"value": COLUMNS}},
            }
        },
    }
}


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["weather forecasts"])
    settings = service.settings

    @routes.post(
        "/weather-forecasts",
        summary="Send a weather forecast",
        response_model=WeatherIngestBody,
        responses=problems(400, 413, 415, 422, 503),
        openapi_extra=BODY,
    )
    async def foretell(request: Request) -> Response:
        """A weather forecast as JSON rows or columns, beside the time when it was issued.

        Signals, ids, units and ticks are those of the observations in `/v1/city`: `city` is the id of what is measured
        for the whole city. A forecast of a model reads, of each time, the newest value issued before it, or does
        without; `inputs.weather` in its answer says which. Each value is accepted, found there already, or refused
        with its row and a reason, and the others are kept; when the answer comes they are on disk, and what rests on
        them is computed again. `read_by` says which forecasts read them. Where nothing can be accepted the answer is
        422 and nothing changed.
        """
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != MEDIA:
            raise UnsupportedMedia(f"the body must be {MEDIA}", {"supported": [MEDIA]})
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMedia("the body must not be compressed")
        body = await request.body()
        document = await run_in_threadpool(_taken, service, body, settings.max_readings)
        return Response(orjson.dumps(document), headers=spoken(asked_language()), media_type=MEDIA)

    return routes


def _taken(service: Service, body: bytes, most: int) -> dict[str, Any]:
    issued, values = weather_from_json(body)
    check_count(len(values), most)
    told = acknowledged(service.take_weather(issued, values))
    tasks = [bundle.task for bundle in service.fleet.bundles.values()]
    signals = dict.fromkeys(str(name) for name in values.signals if name in service.fleet.channels)
    return {
        "issued": utc(datetime.fromtimestamp(issued, UTC)),
        **{key: told[key] for key in ("accepted", "repeated", "refused", "refused_by_reason", "refusals")},
        "read_by": {name: [task.name for task in tasks if name in task.known_future] for name in signals},
    }
