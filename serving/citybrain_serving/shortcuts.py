"""Answers that were given before, given again without the way through the router.

A control room asks the same few questions over and over: the same address, query and format. For as long as the
snapshot is the same and just as stale, the answer is the same bytes; finding them is a look into a table, where
routing and reading parameters would cost several times as much. It stands behind the gate: whoever may not ask is
not answered here either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache
from starlette.types import ASGIApp, Receive, Scope, Send

from citybrain_serving.compression import Coding, coding_for
from citybrain_serving.languages import Language, preferred_language
from citybrain_serving.negotiation import matches
from citybrain_serving.publication import Published

KEPT_BYTES = 64 * 2**20
PATHS = "/v1/forecasts/"

Key = tuple[str, bytes, bytes, Coding, Language]
"""Path, query and the formats asked for, the coding and the language they come to."""

VARY = "Accept, Accept-Encoding, Accept-Language"
"""What an answer depends on beside its address."""


@dataclass(frozen=True, eq=False)
class Answer:
    """``published`` and ``stale`` are what it was made from; ``headers`` lack those that change with time."""

    published: Published
    stale: bool
    etag: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Route:
    """Stands for the route in the scope, so that metrics name the same one."""

    path = "/v1/forecasts/{task}"


class Shortcuts:
    """``current`` says what is published of a task now and whether it is stale, None where nothing is."""

    def __init__(self, current: Callable[[str], tuple[Published, bool] | None]):
        self.current = current
        self._answers: LRUCache[Key, Answer] = LRUCache(KEPT_BYTES, getsizeof=lambda answer: len(answer.body) + 1_000)
        self._lock = threading.Lock()

    def keep(self, scope: Scope, answer: Answer) -> None:
        """Remembers the answer to a request."""
        if len(answer.body) < KEPT_BYTES // 4:
            with self._lock:
                self._answers[key_of(scope)] = answer

    def find(self, scope: Scope) -> Answer | None:
        """The answer to the same request, if it still holds."""
        with self._lock:
            answer = self._answers.get(key_of(scope))
        if answer is None:
            return None
        current = self.current(scope["path"][len(PATHS) :])
        return answer if current == (answer.published, answer.stale) else None


def key_of(scope: Scope) -> Key:
    accept, codings, languages = b"", None, None
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = value
        elif name == b"accept-encoding":
            codings = value.decode("latin-1")
        elif name == b"accept-language":
            languages = value.decode("latin-1")
    return scope["path"], scope["query_string"], accept, coding_for(codings), preferred_language(languages)


class Remembering:
    """ASGI middleware that answers from :class:`Shortcuts` where it can. ``fresh`` gives ``Cache-Control``."""

    def __init__(self, app: ASGIApp, shortcuts: Shortcuts, fresh: Callable[[], str]):
        self.app = app
        self.shortcuts = shortcuts
        self.fresh = fresh

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(PATHS)
        answer = self.shortcuts.find(scope) if asked else None
        if answer is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = Route
        had = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
        same = bool(had) and matches(had.decode("latin-1"), answer.etag)
        headers = [(b"etag", answer.etag.encode()), (b"cache-control", self.fresh().encode()), (b"vary", VARY.encode())]
        if not same:
            headers += answer.headers
        await send({"type": "http.response.start", "status": 304 if same else 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if same else answer.body})
