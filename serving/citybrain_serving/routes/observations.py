"""``/v1/observations``: readings in."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from citybrain_serving.errors import UnsupportedMedia
from citybrain_serving.languages import asked_language, spoken
from citybrain_serving.outcome import Outcome, acknowledged
from citybrain_serving.readings import READERS, check_count
from citybrain_serving.routes.documentation import problems, schema
from citybrain_serving.schemas.observations import ColumnsBody, IngestBody, RowsBody
from citybrain_serving.service import Service

ROWS = {
    "observations": [
        {"id": "r1", "signal": "speed", "time": "2026-03-02T08:05:00Z", "value": 42.5},
        {"id": "r2", "signal": "speed", "time": "2026-03-02T08:05:00Z", "value": 17.0, "unit": "km/h"},
    ]
}
COLUMNS = {"signal": "speed", "time": "2026-03-02T08:05:00Z", "id": ["r1", "r2"], "value": [42.5, 17.0]}

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": [schema(RowsBody), schema(ColumnsBody)]},
                "examples": {"rows": {"value": ROWS}, "columns": {"value": COLUMNS}},
            },
            "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["observations"])
    settings = service.settings

    @routes.post(
        "/observations",
        summary="Send observations",
        response_model=IngestBody,
        responses=problems(400, 413, 415, 422, 503),
        openapi_extra=BODY,
    )
    async def observe(request: Request) -> Response:
        """Readings as JSON rows, JSON columns, or an Arrow IPC stream with the columns id, signal, time
        and value.

        A time ends its interval and carries a zone; values are in the units of `/v1/city`. Each reading
        is accepted, found there already, or refused with its row and a reason, and the others are kept;
        when the answer comes they are on disk. Some are accepted and doubted, as a sensor that has repeated
        itself for too long: they are kept, named in the answer, and no forecast rests on them. Where nothing
        can be accepted the answer is 422 and nothing changed.
        """
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        reader = READERS.get(media)
        if reader is None:
            raise UnsupportedMedia(f"the body must be {' or '.join(READERS)}", {"supported": list(READERS)})
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMedia("the body must not be compressed")
        body = await request.body()

        def take() -> Outcome:
            readings = reader(body, settings.max_readings)
            check_count(len(readings), settings.max_readings)
            return service.take(readings)

        document = acknowledged(await run_in_threadpool(take))
        return Response(orjson.dumps(document), headers=spoken(asked_language()), media_type="application/json")

    return routes
