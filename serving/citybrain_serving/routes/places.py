"""``/v1/roads`` and ``/v1/stations``: the nodes of the city as GeoJSON, in pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import orjson
import pandas as pd
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from citybrain_datasets.signals import NodeType
from citybrain_serving.encoding import GEOJSON, local_day, utc
from citybrain_serving.errors import BadSelection, NotReady
from citybrain_serving.features import LARGEST_PAGE, Page, feature, feature_page, plain
from citybrain_serving.here import value_of
from citybrain_serving.indices.catalogue import indices_of
from citybrain_serving.languages import Language, preferred_language
from citybrain_serving.routes.conditional import UNCHANGED, lasting
from citybrain_serving.routes.documentation import problems, schema
from citybrain_serving.routes.selecting import IndexName, Selected
from citybrain_serving.schemas.places import PlaceFeature, PlaceFeatures
from citybrain_serving.selection import Filter
from citybrain_serving.service import Service

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page of nodes", "content": {GEOJSON: {"schema": schema(PlaceFeatures)}}},
    **UNCHANGED,
    **problems(404, 422, 503),
}
ANSWER: dict[int | str, dict[str, Any]] = {
    **ANSWERS,
    200: {"description": "One node", "content": {GEOJSON: {"schema": schema(PlaceFeature)}}},
}
Id = Annotated[str, Path(max_length=200, description="of the node; what an address cannot hold is percent-encoded")]
Limit = Annotated[int, Query(ge=1, description=f"nodes on a page; {LARGEST_PAGE:,} are given at most")]
Offset = Annotated[int, Query(ge=0, le=100_000_000, description="nodes before the page")]


class NodeId(PathConvertor):
    """The rest of an address: ids of networks of one's own may hold a ``/``, and whether it came percent-encoded is
    decided before the router sees it. The empty one is no id: that address is the list's."""

    regex = "(?s:.+)"


register_url_convertor("node_id", NodeId())


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["city"])

    @routes.get("/roads", summary="Road segments", response_class=Response, responses=ANSWERS)
    def roads(
        request: Request, places: Selected, limit: Limit = 100, offset: Offset = 0, index: IndexName = None
    ) -> Response:
        """Where the road segments are, what is known of them, what was measured last, and the index asked for as it is
        now."""
        return _answer(service, "road", request, places, _page(limit, offset), index)

    @routes.get("/stations", summary="Air stations", response_class=Response, responses=ANSWERS)
    def stations(
        request: Request, places: Selected, limit: Limit = 100, offset: Offset = 0, index: IndexName = None
    ) -> Response:
        """Where the air stations are, what is known of them, what was measured last, and the index asked for as it is
        now."""
        return _answer(service, "air", request, places, _page(limit, offset), index)

    @routes.get("/roads/{id:node_id}", summary="One road segment", response_class=Response, responses=ANSWER)
    def road(request: Request, id: Id, index: IndexName = None) -> Response:
        """As in the list of road segments."""
        return _one(service, "road", request, id, index)

    @routes.get("/stations/{id:node_id}", summary="One air station", response_class=Response, responses=ANSWER)
    def station(request: Request, id: Id, index: IndexName = None) -> Response:
        """As in the list of air stations."""
        return _one(service, "air", request, id, index)

    return routes


def _page(limit: int, offset: int) -> Page:
    """Whoever asks for more than is given gets as much as there can be (OGC API Features, 17-069r4, section 7.15.2)."""
    return Page(min(limit, LARGEST_PAGE), offset)


def _one(service: Service, node: NodeType, request: Request, name: str, index: str | None) -> Response:
    language = preferred_language(request.headers.get("accept-language"))
    headers = lasting(service, request, language)
    places = service.board.places[node]
    (row,) = places.rows([name])
    told = _told(service, node, index, language)(row)
    return Response(orjson.dumps(feature(places, row, told)), media_type=GEOJSON, headers=headers)


def _answer(
    service: Service, node: NodeType, request: Request, asked: Filter, page: Page, index: str | None
) -> Response:
    language = preferred_language(request.headers.get("accept-language"))
    headers = lasting(service, request, language)
    places = service.board.places[node]
    rows = asked.rows(places)
    body = feature_page(
        places,
        np.arange(len(places)) if rows is None else rows,
        page,
        request.url.path,
        [(k, v) for k, v in request.query_params.multi_items() if k not in ("limit", "offset")],
        _told(service, node, index, language),
        service.clock.now() or pd.Timestamp.now("UTC"),
    )
    return Response(body, media_type=GEOJSON, headers=headers)


def _told(service: Service, node: NodeType, index: str | None, language: Language) -> Callable[[int], dict[str, Any]]:
    """What each node has to tell of the present: the newest observation, and the index asked for."""
    snapshot = service.snapshot
    forecasts = snapshot.forecasts.values() if snapshot else ()
    forecast = next((f for f in forecasts if f.task.node == node), None)
    if forecast is None:
        if index is not None and snapshot is not None:
            raise BadSelection(f"{node} nodes have no index here", {"parameter": "index"})
        if index is not None:
            raise NotReady("no forecast has been computed yet; it takes observations, and a moment")
        return lambda row: {}
    day = local_day(forecast.issued, service.fleet.city)
    chosen = None if index is None else indices_of(forecast.task.target, day, index)[0]
    present = None if chosen is None else service.present(forecast, chosen)

    def told(row: int) -> dict[str, Any]:
        value = plain(np.round(forecast.observed[row], 2))
        at = forecast.observed_at(row)
        time = None if at is None else utc(at)
        about: dict[str, Any] = {
            "observed": {"signal": forecast.task.target, "unit": forecast.kind.unit, "value": value, "time": time}
        }
        if chosen is not None and present is not None:
            about["index"] = value_of(chosen, present, row, language)
        return about

    return told
