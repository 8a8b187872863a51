"""``/v1/stream``: a server-sent event each time a forecast is published."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from citybrain_serving.encoding import utc
from citybrain_serving.routes.documentation import problems
from citybrain_serving.safety.gate import caller_of
from citybrain_serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["forecasts"])

    async def admitted(request: Request) -> None:
        service.stream.admit(caller_of(request))

    @routes.get(
        "/stream",
        summary="Be told of every new forecast",
        response_class=EventSourceResponse,
        responses=problems(429, 503),
        # Before the answer begins: in the stream itself a refusal would come too late for a status.
        dependencies=[Depends(admitted)],
    )
    async def stream(
        request: Request,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> AsyncIterator[ServerSentEvent]:
        """An event `forecast` for each task, now and whenever it changes, with the address to read it from.

        Its id names the forecasts that were told of so far, by their digests; a listener that comes back with
        `Last-Event-ID` is told of none of them twice.
        """
        known = set((last_event_id or "").split("."))
        told: dict[str, str] = {}
        async for snapshot in service.stream.snapshots(caller_of(request)):
            told.update({task: f.digest for task, f in snapshot.forecasts.items() if f.digest in known})
            for task, forecast in snapshot.forecasts.items():
                if told.get(task) == forecast.digest:
                    continue
                told[task] = forecast.digest
                yield ServerSentEvent(
                    event="forecast",
                    id=".".join(told.values()),
                    data={
                        "task": task,
                        "issued": utc(forecast.issued),
                        "bundle": forecast.bundle,
                        "source": forecast.source,
                        "stale": service.stale(forecast),
                        "doubted": forecast.doubted,
                        "href": f"/v1/forecasts/{task}",
                    },
                )

    return routes
