"""``/v1/at`` and ``/v1/indices``: what a person at a place wants to know, and by which standards it is said."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from citybrain_serving.here import at
from citybrain_serving.indices.catalogue import INDICES
from citybrain_serving.languages import preferred_language
from citybrain_serving.routes.documentation import problems
from citybrain_serving.schemas import AtBody, IndexBody
from citybrain_serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["city"])

    @routes.get("/at", summary="This place, this hour", response_model=AtBody, responses=problems(404, 422, 503))
    def here(
        lat: Annotated[float, Query(ge=-90, le=90, allow_inf_nan=False, description="degrees north")],
        lon: Annotated[float, Query(ge=-180, le=180, allow_inf_nan=False, description="degrees east")],
        accept_language: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The nearest road and air station: now, ahead, warnings and advice, in English or Chinese."""
        language = preferred_language(accept_language)
        return JSONResponse(
            at(service, lat, lon, language),
            headers={"Content-Language": language, "Vary": "Accept-Language"},
        )

    @routes.get("/indices", summary="Indices and their standards", response_model=list[IndexBody])
    def indices() -> list[dict[str, Any]]:
        return [
            {
                "id": index.id,
                "signal": index.signal,
                "title": index.title,
                "standard": index.standard.id,
                "standard_title": index.standard.title,
                "effective": str(index.standard.effective) if index.standard.effective else None,
                "until": str(index.standard.until) if index.standard.until else None,
            }
            for index in INDICES.values()
        ]

    return routes
