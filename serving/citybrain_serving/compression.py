"""Answers packed for the way, in the coding that a request prefers (RFC 9110, section 12.5.3).

Forecasts are packed once for all who ask; what else is said is packed as it leaves. zstd comes with Arrow, which is
here anyway; its window at this level stays far below the 8 MB that a browser must grant (RFC 9659).
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import Literal

import pyarrow as pa
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citybrain_serving.negotiation import header, weighed

Coding = Literal["identity", "gzip", "zstd"]

OFFERED: tuple[Coding, ...] = ("zstd", "gzip")
"""The one before the other where a request likes both as much."""

GZIP_LEVEL = 6
ZSTD_LEVEL = 3

SMALLEST = 1_024
"""Bytes below which packing gains nothing."""

AT_ONCE = 2**18
"""Bytes up to which an answer is packed where it stands; more go to a thread, so that others are answered."""

TEXTS = ("text/", "application/json", "application/geo+json", "application/ld+json", "application/xml",
         "application/problem+json", "application/schema+json", "application/javascript",
         "application/vnd.apache.arrow.stream")  # fmt: skip
"""Media types that packing makes smaller."""


@lru_cache(maxsize=256)
def coding_for(accept: str | None) -> Coding:
    """The coding that an ``Accept-Encoding`` header prefers; as it is, where it names none that is offered. Where it
    refuses even that, the answer is given as it is all the same, as the RFC allows."""
    asked = dict(weighed(accept or ""))
    every = asked.get("*", 0.0)
    plain = asked.get("identity", 0.0)
    best = max(OFFERED, key=lambda coding: (asked.get(coding, every), -OFFERED.index(coding)))
    return best if asked.get(best, every) > 0 and asked.get(best, every) >= plain else "identity"


def packed(body: bytes, coding: Coding) -> bytes:
    if coding == "gzip":
        return gzip.compress(body, GZIP_LEVEL, mtime=0)  # without a time, so that the same is packed the same
    if coding == "zstd":
        return bytes(pa.Codec("zstd", ZSTD_LEVEL).compress(body, asbytes=True))
    return body


class Packing:
    """ASGI middleware. What comes in pieces, as a stream of events, is left alone; so is what is packed already.

    A strong entity tag names the bytes of one coding, so a packed answer carries a weak one, which a ``GET`` with
    ``If-None-Match`` compares just as well.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        coding = coding_for(header(scope, b"accept-encoding"))
        begun: Message | None = None

        async def packing(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = message
                return
            if begun is not None:
                start, begun = begun, None
                headers = MutableHeaders(raw=start["headers"])
                body = message.get("body", b"")
                whole = not message.get("more_body", False)
                kind = headers.get("content-type", "")
                unchanged = start["status"] == 304  # varies as the answer that it stands for (RFC 9110, section 15.4.5)
                if unchanged or (whole and kind.startswith(TEXTS) and "content-encoding" not in headers):
                    if "accept-encoding" not in headers.get("vary", "").lower():
                        headers.add_vary_header("Accept-Encoding")
                    if coding != "identity" and len(body) >= SMALLEST:
                        await _pack(headers, message, body, coding)
                await send(start)
            await send(message)

        await self.app(scope, receive, packing)


async def _pack(headers: MutableHeaders, message: Message, body: bytes, coding: Coding) -> None:
    message["body"] = packed(body, coding) if len(body) <= AT_ONCE else await run_in_threadpool(packed, body, coding)
    headers["Content-Encoding"] = coding
    headers["Content-Length"] = str(len(message["body"]))
    tag = headers.get("etag", "")
    if tag.startswith('"'):
        headers["ETag"] = f"W/{tag}"


class Heading:
    """ASGI middleware that answers ``HEAD`` as ``GET`` without the body (RFC 9110, section 9.3.2). A stream has no head
    of its own: its address keeps refusing."""

    def __init__(self, app: ASGIApp, but: tuple[str, ...]):
        self.app = app
        self.but = but

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"] in self.but:
            await self.app(scope, receive, send)
            return

        async def heading(message: Message) -> None:
            scope["method"] = "HEAD"  # as the server sees it, and as it is counted and noted
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        scope["method"] = "GET"
        try:
            await self.app(scope, receive, heading)
        finally:
            scope["method"] = "HEAD"
