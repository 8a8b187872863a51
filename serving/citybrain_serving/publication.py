"""The snapshot that reads are answered from, with its encoded answers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from cachetools import LRUCache

from citybrain_serving.encoding import Answers
from citybrain_serving.errors import NotReady, UnknownTask
from citybrain_serving.fleet import Fleet
from citybrain_serving.places import Places
from citybrain_serving.selection import Cut, chosen_rows
from citybrain_serving.snapshot import Snapshot

CACHED_BYTES = 64 * 2**20
"""Of whole answers, for each forecast; they go when the next one is published."""


@dataclass(frozen=True)
class ForecastQuery:
    """A forecast as asked for, in the words of the request."""

    media: str
    ids: str | None = None
    bbox: str | None = None
    horizon: str | None = None
    quantiles: str | None = None
    stale: bool = False


class Published:
    """One forecast's answers, whole ones kept while they are asked for again."""

    def __init__(self, answers: Answers):
        self.answers = answers
        self._whole: LRUCache[ForecastQuery, bytes] = LRUCache(CACHED_BYTES, getsizeof=len)
        self._lock = threading.Lock()

    def etag(self, query: ForecastQuery) -> str:
        """A strong validator: equal exactly where the bytes are."""
        asked = hashlib.blake2b(repr(query).encode(), digest_size=6).hexdigest()
        return f'"{self.answers.forecast.digest}-{asked}"'

    def get(self, query: ForecastQuery) -> bytes:
        """Raises :class:`~citybrain_serving.errors.BadSelection` or
        :class:`~citybrain_serving.errors.UnknownPlace`."""
        with self._lock:
            body = self._whole.get(query)
        if body is None:
            cut = Cut.of(self.answers.forecast.task, query.horizon, query.quantiles)
            rows = chosen_rows(self.answers.places, query.ids, query.bbox)
            body = self.answers.encode(query.media, rows, cut, query.stale)
            if len(body) <= CACHED_BYTES // 2:
                with self._lock:
                    self._whole[query] = body
        return body


class Board:
    """Holds what is published for the newest snapshot; forecasts that did not change keep their encoded
    answers."""

    def __init__(self, fleet: Fleet):
        self.fleet = fleet
        self.places = {node: Places.of(fleet.city, node) for node in fleet.city.nodes}
        self._snapshot: Snapshot | None = None
        self._published: Mapping[str, Published] = {}

    def of(self, snapshot: Snapshot | None) -> Mapping[str, Published]:
        """Answers by task. Raises :class:`~citybrain_serving.errors.NotReady` before the first snapshot."""
        if snapshot is None:
            raise NotReady("no forecast has been computed yet; it takes observations, and a moment")
        if snapshot is not self._snapshot:
            old = {id(p.answers.forecast): p for p in self._published.values()}
            self._published = {
                name: old.get(id(forecast))
                or Published(Answers(self.fleet.city, self.places[forecast.task.node], forecast))
                for name, forecast in snapshot.forecasts.items()
            }
            self._snapshot = snapshot
        return self._published

    def task(self, snapshot: Snapshot | None, name: str) -> Published:
        """Raises :class:`~citybrain_serving.errors.UnknownTask` for one that no bundle here forecasts."""
        if name not in self.fleet.bundles:
            raise UnknownTask(f"{name[:80]!r} is not forecast here, only {' and '.join(self.fleet.bundles)}")
        return self.of(snapshot)[name]
