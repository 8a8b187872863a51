"""Probes and metrics: is the process alive, has it something to say, how is it doing."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from citybrain_serving.errors import LEAVING, NotReady
from citybrain_serving.replicas.leadership import APART_S
from citybrain_serving.routes.documentation import problems
from citybrain_serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["operation"])

    @routes.get("/livez", summary="The process answers")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz", summary="Forecasts can be read", responses=problems(503))
    async def readyz() -> dict[str, str]:
        """503 before the first forecast, and from when the service is asked to stop.

        `role` says whether this replica `computes` forecasts or `stands-by` while another does; `clock`, where there is
        one, how far this machine's is from that of the database."""
        if service.leaving:
            raise NotReady(LEAVING)
        if service.snapshot is None:
            raise NotReady("no forecast has been computed yet")
        ahead = service.leadership.ahead
        told = {"status": "ready", "role": "computes" if service.leadership.leads else "stands-by"}
        if abs(ahead) > APART_S:
            told["clock"] = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the database's"
        return told

    @routes.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        snapshot = service.snapshot
        text = service.telemetry.render(
            snapshot,
            service.clock.now(),
            lambda task: bool(snapshot and service.stale(snapshot.forecasts[task])),
        )
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return routes
