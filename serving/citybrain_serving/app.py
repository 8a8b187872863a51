"""The HTTP application of one service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from citybrain_datasets import __version__
from citybrain_serving import problem_details
from citybrain_serving.compression import Heading, Packing
from citybrain_serving.errors import NotModified
from citybrain_serving.inference import routes as inference
from citybrain_serving.inference.straight import Straight
from citybrain_serving.middleware import RequestScope
from citybrain_serving.routes import (
    at,
    cases,
    city,
    forecasts,
    health,
    history,
    models,
    observations,
    places,
    problems,
    stream,
    weather,
)
from citybrain_serving.routes.conditional import Existing, not_modified
from citybrain_serving.routes.documentation import complete
from citybrain_serving.routes.parameters import only_known
from citybrain_serving.safety.hosts import KnownHosts
from citybrain_serving.safety.install import install as install_safety
from citybrain_serving.scenarios import routes as scenarios
from citybrain_serving.service import Service
from citybrain_serving.standards import mqtt
from citybrain_serving.standards import routes as standards

DESCRIPTION = """
Forecasts of road congestion and PM2.5 for {city}{synthetic}.

Observations go in at `/v1/observations`, weather forecasts at `/v1/weather-forecasts`; once a step a new forecast is
computed and read at `/v1/forecasts/congestion` and `/v1/forecasts/pm25`. Times are UTC and end their interval. Missing
is null, never zero. Errors are problem documents (RFC 9457).
"""


def create_app(service: Service, hosts: Collection[str] | None = None) -> FastAPI:
    """An application whose lifespan starts the cycle of ``service`` and closes it. ``hosts`` are the names that it
    answers to, None for all; see :func:`~citybrain_serving.safety.hosts.known_hosts`."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.close()

    town = service.fleet.city
    app = FastAPIOffline(
        title="CityBrain",
        version=__version__,
        summary=f"Forecasts for {town.title or town.name}",
        description=DESCRIPTION.format(
            city=town.title or town.name,
            synthetic=", a synthetic city: nothing here was measured" * town.synthetic,
        ),
        lifespan=lifespan,
        # tracing.py and telemetry.py see to it; FastAPI's own would look for a provider at every request.
        telemetry=dict.fromkeys(("tracing", "metrics", "logs"), False),
        redoc_url=None,
        static_url="/docs/static",
    )
    protocol = inference.router(service)
    app.include_router(protocol)
    for subject in (  # who is asked most comes first: every request goes through them in this order
        forecasts,
        observations,
        weather,
        at,
        city,
        places,
        history,
        stream,
        problems,
        cases,
        health,
        models,
        scenarios,
        standards,
        mqtt,
    ):
        strict = subject is not health  # a probe is always answered
        app.include_router(subject.router(service), dependencies=[Depends(only_known)] * strict)
    problem_details.install(app)
    app.add_exception_handler(NotModified, not_modified)
    complete(app)
    app.add_middleware(Existing)
    app.add_middleware(Packing)
    app.add_middleware(Heading, but=("/v1/stream",))
    app.add_middleware(Straight, routes=protocol.routes)
    install_safety(app, service)
    if hosts is not None:
        app.add_middleware(KnownHosts, hosts=hosts)
    app.add_middleware(RequestScope, telemetry=service.telemetry, max_body=service.settings.max_body_bytes)
    return app
