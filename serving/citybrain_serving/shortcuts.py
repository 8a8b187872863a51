"""Answers that were given before, given again without the way through the router.

A control room asks the same few questions over and over: the same address, query and format. For as long as the
snapshot is the same and just as stale, the answer is the same bytes; finding them is a look into a table, where
routing and reading parameters would cost several times as much. The gate looks here once it has let a caller in:
whoever may not ask is not answered here either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cachetools import LRUCache
from starlette.types import Scope

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
    etag: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Route:
    """Stands for the route in the scope, so that metrics name the same one."""

    path_format = "/v1/forecasts/{task}"


class Reply(NamedTuple):
    """An answer as it goes out."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Shortcuts:
    """``current`` says what is published of a task now and whether it is stale, None where nothing is; ``fresh`` gives
    ``Cache-Control``."""

    def __init__(self, current: Callable[[str], tuple[Published, bool] | None], fresh: Callable[[], str]):
        self.current = current
        self.fresh = fresh
        self._answers: LRUCache[Key, Answer] = LRUCache(KEPT_BYTES, getsizeof=lambda answer: len(answer.body) + 1_000)
        self._lock = threading.Lock()

    def keep(self, scope: Scope, answer: Answer) -> None:
        """Remembers the answer to a request."""
        if len(answer.body) < KEPT_BYTES // 4:
            with self._lock:
                self._answers[key_of(scope)] = answer

    def reply(self, scope: Scope) -> Reply | None:
        """The answer to a request that was answered before and would be answered alike, 304 where the caller has it;
        ``None`` for every other. The scope is told which route would have answered."""
        if scope["method"] not in ("GET", "HEAD") or not scope["path"].startswith(PATHS):
            return None
        answer = self._find(scope)
        if answer is None:
            return None
        scope["route"] = Route
        headers = [(b"etag", answer.etag), (b"cache-control", self.fresh().encode()), (b"vary", VARY.encode())]
        had = next((value for name, value in scope["headers"] if name == b"if-none-match"), None)
        if had is not None and (had in (answer.etag, b"*") or matches(had.decode("latin-1"), answer.etag.decode())):
            return Reply(304, headers, b"")
        headers += answer.headers
        return Reply(200, headers, answer.body if scope["method"] == "GET" else b"")

    def _find(self, scope: Scope) -> Answer | None:
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
