"""``/v1/city``: what is served here, and by which bundles."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from citybrain_models.bundle import Bundle
from citybrain_serving.chinese import translated, unit_name
from citybrain_serving.encoding import utc
from citybrain_serving.languages import preferred_language
from citybrain_serving.routes.conditional import UNCHANGED, lasting
from citybrain_serving.schemas.city import CityBody
from citybrain_serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["city"])

    @routes.get("/city", summary="The city, its signals and forecasts", response_model=CityBody, responses=UNCHANGED)
    def city(
        request: Request, response: Response, accept_language: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        language = preferred_language(accept_language)
        response.headers.update(lasting(service, request, language))
        town, fleet = service.fleet.city, service.fleet
        return {
            **{k: getattr(town, k) for k in ("name", "title", "timezone", "country", "synthetic", "attribution")},
            "nodes": {node: len(table) for node, table in town.nodes.items()},
            "signals": {
                name: {
                    "unit": channel.kind.unit,
                    "node": channel.node,
                    "step_minutes": channel.ticks.step_minutes,
                    "low": channel.kind.low,
                    "high": channel.kind.high,
                    "title": translated(channel.kind.title, language),
                    "unit_name": unit_name(channel.kind.unit, language),
                }
                for name, channel in fleet.channels.items()
            },
            "tasks": {name: _task(service, bundle) for name, bundle in fleet.bundles.items()},
        }

    return routes


def _task(service: Service, bundle: Bundle) -> dict[str, Any]:
    task, snapshot = bundle.task, service.snapshot
    forecast = snapshot.forecasts[task.name] if snapshot else None
    return {
        "name": task.name,
        "node": task.node,
        "signal": task.target,
        "unit": service.fleet.channels[task.target].kind.unit,
        "step_minutes": task.step_minutes,
        "horizon": task.horizon,
        "quantiles": list(task.quantiles),
        "bundle": bundle.version,
        "trained": bundle.created,
        "metrics": dict(bundle.metrics),
        "issued": utc(forecast.issued) if forecast else None,
        "source": forecast.source if forecast else None,
        "stale": service.stale(forecast) if forecast else None,
        "doubted": forecast.doubted if forecast else None,
    }
