"""Inference by the short way."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from citybrain_serving.inference.routes import ProtocolRoute


class Straight:
    """ASGI middleware, right behind the gate: takes a request for inference to its endpoint. The way round, through
    what packs answers, gives ``HEAD`` and finds a route, costs more than a small network takes to run.

    What wants its answer packed goes round, and everything else under ``/v2``.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]):
        self.app = app
        self.routes = [route for route in routes if isinstance(route, ProtocolRoute) and route.name == "infer"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v2/models/"):
            for route in self.routes:
                found = route.path_regex.match(scope["path"])
                if found is not None and all(name != b"accept-encoding" for name, _ in scope["headers"]):
                    scope["route"], scope["path_params"] = route, found.groupdict()
                    await route.handle(scope, receive, send)
                    return
        await self.app(scope, receive, send)
