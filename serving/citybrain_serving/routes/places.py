"""``/v1/roads`` and ``/v1/stations``: the nodes of the city as GeoJSON, in pages."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import APIRouter, Query, Request, Response

from citybrain_datasets.signals import NodeType
from citybrain_serving.encoding import GEOJSON
from citybrain_serving.features import LARGEST_PAGE, Page, feature_page
from citybrain_serving.routes.documentation import problems, schema
from citybrain_serving.routes.selecting import Selected
from citybrain_serving.schemas import PlaceFeatures
from citybrain_serving.selection import Filter
from citybrain_serving.service import Service

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page of nodes", "content": {GEOJSON: {"schema": schema(PlaceFeatures)}}},
    **problems(404, 422),
}
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="nodes on a page")]
Offset = Annotated[int, Query(ge=0, le=100_000_000, description="nodes before the page")]


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["city"])

    @routes.get("/roads", summary="Road segments", response_class=Response, responses=ANSWERS)
    def roads(request: Request, places: Selected, limit: Limit = 100, offset: Offset = 0) -> Response:
        """Where the road segments are, what is known of them, and what was measured last."""
        return _answer(service, "road", request, places, Page(limit, offset))

    @routes.get("/stations", summary="Air stations", response_class=Response, responses=ANSWERS)
    def stations(request: Request, places: Selected, limit: Limit = 100, offset: Offset = 0) -> Response:
        """Where the air stations are, what is known of them, and what was measured last."""
        return _answer(service, "air", request, places, Page(limit, offset))

    return routes


def _answer(service: Service, node: NodeType, request: Request, asked: Filter, page: Page) -> Response:
    places = service.board.places[node]
    rows = asked.rows(places)
    body = feature_page(
        places,
        np.arange(len(places)) if rows is None else rows,
        page,
        request.url.path,
        {k: v for k, v in request.query_params.items() if k not in ("limit", "offset")},
        _observed(service, node),
        service.clock.now() or pd.Timestamp.now("UTC"),
    )
    return Response(body, media_type=GEOJSON)


def _observed(service: Service, node: NodeType) -> dict[str, Any] | None:
    snapshot = service.snapshot
    forecasts = snapshot.forecasts.values() if snapshot else ()
    forecast = next((f for f in forecasts if f.task.node == node), None)
    if forecast is None:
        return None
    return {"signal": forecast.task.target, "unit": forecast.kind.unit, "values": forecast.observed}
