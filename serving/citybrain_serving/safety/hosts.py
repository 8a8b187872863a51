"""Which names in ``Host`` are those of this service."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from citybrain_serving.negotiation import header
from citybrain_serving.problem_details import problem
from citybrain_serving.safety.headers import secured
from citybrain_serving.settings import Settings

THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


class KnownHosts:
    """ASGI middleware. Refuses other names for this machine: a web page that had its own name point here (DNS
    rebinding) would otherwise call in the name of its reader."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]):
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            name = _name(header(scope, b"host") or "")
            if name not in self.hosts:
                refusal = problem(400, "unknown-host", f"{name[:80]!r} is no name of this service (allowed_hosts)")
                await refusal(scope, receive, secured(scope, send, shared=False))
                return
        await self.app(scope, receive, send)


def known_hosts(settings: Settings) -> frozenset[str] | None:
    """The names to answer to, in lower case and without ports; None for all."""
    given = {name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()}
    if not given and not is_loopback(settings.host):
        return None
    return THIS_MACHINE | {settings.host.lower()} | given


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """A host as ``Host`` tells it, in lower case and without its port; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
