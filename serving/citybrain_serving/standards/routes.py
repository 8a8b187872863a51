"""``/v1/ngsi-ld`` and ``/v1/datex2``: in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from citybrain_serving.errors import UnsupportedMedia
from citybrain_serving.languages import asked_language, spoken
from citybrain_serving.negotiation import matches, next_page
from citybrain_serving.routes.documentation import problems, schema
from citybrain_serving.routes.selecting import Horizon, Selected
from citybrain_serving.schemas.observations import IngestBody
from citybrain_serving.service import Service
from citybrain_serving.snapshot import Forecast
from citybrain_serving.standards import datex_out, ngsi_out
from citybrain_serving.standards.ingesting import Reader, datex_reader, ingested
from citybrain_serving.standards.ngsi_in import readings_from_ngsi

JSON_LD = "application/ld+json"
JSON = "application/json"
XML = ("application/xml", "text/xml")

INGEST = problems(400, 413, 415, 422, 503)


def _answers(media: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"description": "A page of the forecast", "content": {media: {"schema": schema}}},
        304: {"description": "What If-None-Match names is still the newest"},
        **problems(404, 422, 503),
    }


class TranslatedBody(IngestBody):
    """What became of a body; each refusal says where in it the reading stood."""

    ignored: dict[str, int]
    sites: int = Field(description="sites of this city that the body described, and that are remembered")


class EntityBody(BaseModel):
    """An NGSI-LD entity; attributes in normalized, concise or simplified form."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: str | list[str]


class NotificationBody(BaseModel):
    """An NGSI-LD notification."""

    model_config = ConfigDict(extra="allow")

    type: Literal["Notification"]
    data: list[EntityBody]


ENTITIES: dict[str, Any] = {
    "anyOf": [schema(NotificationBody), schema(EntityBody), {"type": "array", "items": schema(EntityBody)}]
}


def _body(schema: dict[str, Any], *media: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in media}}}


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["standards"])

    @routes.post(
        "/ngsi-ld/notifications",
        summary="NGSI-LD observations in",
        response_model=TranslatedBody,
        responses=INGEST,
        openapi_extra=_body(ENTITIES, JSON, JSON_LD),
    )
    async def notify(request: Request) -> Response:
        """A notification (or entities) with `TrafficFlowObserved` and `AirQualityObserved`, in any form.

        Lanes (`laneId`) become their road; those that come in messages of their own are `waiting` on disk until the
        others come.
        """
        return await _take(service, request, (JSON, JSON_LD), readings_from_ngsi)

    @routes.post(
        "/datex2/measured-data",
        summary="DATEX II measured data in",
        response_model=TranslatedBody,
        responses=INGEST,
        openapi_extra=_body({"type": "string"}, *XML),
    )
    async def measured(request: Request) -> Response:
        """A DATEX II v3 `MeasuredDataPublication`; a site is the node that has its id.

        A `MeasurementSiteTablePublication`, in a body of its own or beside it, says what the indexes of its sites
        mean, and is remembered.

        Lanes become their road; those that come in messages of their own are `waiting` on disk until the others come.
        """
        return await _take(service, request, XML, datex_reader(service))

    @routes.get(
        "/ngsi-ld/entities",
        summary="Forecasts as NGSI-LD entities",
        response_class=Response,
        responses=_answers(JSON_LD, {"type": "array", "items": schema(EntityBody)}),
    )
    def entities(
        request: Request,
        places: Selected,
        kind: Annotated[Literal["AirQualityForecast", "TrafficFlowForecast"], Query(alias="type")],
        horizon: Horizon,
        options: Annotated[Literal["normalized", "keyValues"], Query()] = "normalized",
        limit: Annotated[int, Query(ge=1, le=1_000, description="nodes on a page")] = 100,
        offset: Annotated[int, Query(ge=0, le=100_000_000, description="nodes before the page")] = 0,
    ) -> Response:
        """One entity for each node and lead. `TrafficFlowForecast` is described at
        `/v1/ngsi-ld/schemas/TrafficFlowForecast`."""
        forecast = service.published(ngsi_out.TASKS[kind]).answers.forecast
        page = ngsi_out.page(service, forecast, places, horizon, limit, offset)
        return _answer(
            service, request, forecast, JSON_LD, page.more,
            lambda: orjson.dumps(ngsi_out.entities(service, forecast, page, simplified=options == "keyValues")),
        )  # fmt: skip

    @routes.get("/ngsi-ld/schemas/TrafficFlowForecast", summary="The schema of TrafficFlowForecast")
    def described() -> dict[str, Any]:
        return ngsi_out.traffic_flow_forecast_schema()

    @routes.get(
        "/datex2/forecasts/{task}",
        summary="A forecast as a DATEX II publication",
        response_class=Response,
        responses=_answers(XML[0], {"type": "string"}),
    )
    def elaborated(
        request: Request,
        task: Annotated[str, Path(description="`congestion` or `pm25`")],
        places: Selected,
        horizon: Horizon,
        limit: Annotated[int, Query(ge=1, le=5_000, description="nodes on a page")] = 1_000,
        offset: Annotated[int, Query(ge=0, le=100_000_000, description="nodes before the page")] = 0,
    ) -> Response:
        """A DATEX II v3.7 `ElaboratedDataPublication`: medians, with the spread as a standard deviation."""
        forecast = service.published(task).answers.forecast
        page = ngsi_out.page(service, forecast, places, horizon, limit, offset)
        return _answer(
            service, request, forecast, XML[0], page.more, lambda: datex_out.publication(service, forecast, page)
        )

    return routes


async def _take(service: Service, request: Request, media: tuple[str, ...], reader: Reader) -> Response:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in media:
        raise UnsupportedMedia(f"the body must be {' or '.join(media)}", {"supported": list(media)})
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("the body must not be compressed")
    body = await request.body()
    document = await run_in_threadpool(ingested, service, body, reader)
    return Response(orjson.dumps(document), headers=spoken(asked_language()), media_type=JSON)


def _answer(
    service: Service, request: Request, forecast: Forecast, media: str, more: int | None, encode: Callable[[], bytes]
) -> Response:
    asked = hashlib.blake2b(repr((request.url.query, service.stale(forecast))).encode(), digest_size=6).hexdigest()
    tag = f'"{forecast.digest}-{asked}"'
    headers = {"ETag": f"W/{tag}", "Cache-Control": service.fresh()}  # weak: it is packed as it leaves
    if matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    if more is not None:
        headers["Link"] = next_page(request, more)
    return Response(encode(), headers=headers, media_type=media)
