"""``/v1/at`` and ``/v1/indices``: what a person at a place wants to know, and by which standards it is said."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from citybrain_serving.encoding import local_day
from citybrain_serving.here import at, city_value
from citybrain_serving.indices.catalogue import INDICES
from citybrain_serving.languages import BASES, preferred_language
from citybrain_serving.routes.conditional import UNCHANGED, lasting
from citybrain_serving.routes.documentation import problems
from citybrain_serving.routes.selecting import IndexName
from citybrain_serving.schemas.places import AtBody, IndexBody
from citybrain_serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["city"])

    @routes.get(
        "/at",
        summary="This place, this hour",
        response_model=AtBody,
        responses={**UNCHANGED, **problems(404, 422, 503)},
    )
    def here(
        request: Request,
        lat: Annotated[float, Query(ge=-90, le=90, allow_inf_nan=False, description="degrees north")],
        lon: Annotated[float, Query(ge=-180, le=180, allow_inf_nan=False, description="degrees east")],
        index: IndexName = None,
        accept_language: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The nearest road and air station: now, ahead, warnings and advice, in English or Chinese; with every index,
        or the one asked for.

        An index is that of the present: of PM2.5 by HJ 633 the mean of the last hour, by the US rule the NowCast of
        the last twelve hours; `basis` says which it is.
        """
        language = preferred_language(accept_language)
        headers = lasting(service, request, language)
        return JSONResponse(at(service, lat, lon, language, index), headers=headers)

    @routes.get("/indices", summary="Indices and their standards", response_model=list[IndexBody], responses=UNCHANGED)
    def indices(
        request: Request, response: Response, accept_language: Annotated[str | None, Header()] = None
    ) -> list[dict[str, Any]]:
        """`now` says what the present value at a place is made from; ahead, an index is that of each step's mean.
        `aqi` goes by the standard in force when a forecast was issued, here that of today; the others name theirs.
        `city` is the value of the whole network now, of indices that have one."""
        language = preferred_language(accept_language)
        response.headers.update(lasting(service, request, language))
        now = service.clock.now()
        today = local_day(pd.Timestamp.now("UTC") if now is None else now, service.fleet.city)
        return [
            {
                "id": index.id,
                "signal": index.signal,
                "title": index.title[language],
                "now": BASES[index.now][language],
                "city": city_value(service, index, language),
                "standard": index.standard.id,
                "standard_title": index.standard.title[language],
                "effective": str(index.standard.effective) if index.standard.effective else None,
                "until": str(index.standard.until) if index.standard.until else None,
            }
            for index in (known.on(today) for known in INDICES.values())
        ]

    return routes
