"""The snapshot that reads are answered from, with its encoded answers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd
import structlog
from cachetools import LRUCache, TTLCache

from citybrain_datasets.signals import NodeType
from citybrain_serving.compression import Coding, packed
from citybrain_serving.encoding import Answers, local_day
from citybrain_serving.errors import (
    BadSelection,
    NotReady,
    StoreUnavailable,
    UnknownIssue,
    UnknownPlace,
    UnknownTask,
)
from citybrain_serving.fleet import Fleet
from citybrain_serving.indices.catalogue import Index, applied, free_speeds, indices_of
from citybrain_serving.indices.current import BASES, Current, current
from citybrain_serving.languages import Language
from citybrain_serving.places import Places
from citybrain_serving.recent import Recent, nothing
from citybrain_serving.selection import EVERYTHING, Cut, Filter
from citybrain_serving.snapshot import Forecast, Snapshot

NODES: tuple[NodeType, ...] = ("road", "air")

PAST = 8
"""Forecasts of the history whose answers are held."""

CACHED_BYTES = 128 * 2**20
"""Of whole answers, for each forecast; they go when the next one is published."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ForecastQuery:
    """A forecast as asked for, in the words of the request."""

    media: str
    places: Filter = EVERYTHING
    horizon: str | None = None
    quantiles: str | None = None
    stale: bool = False
    language: Language = "en"
    """Of the reason why a forecast is not the model's or is doubted; English where there is none to give."""


class Published:
    """One forecast's answers, whole ones kept while they are asked for again."""

    def __init__(self, answers: Answers, stale_steps: int, base: Published | None = None):
        self.answers = answers
        self.stale_steps = stale_steps
        self.base: Published = base or self
        """The forecast itself, where this is an index of it."""
        self.passing = False
        """Made while the store could not be read: not to be given again."""
        self.good_until = answers.forecast.good_until(stale_steps)
        """Seconds since 1970 UTC after which the forecast is stale."""
        self._whole: LRUCache[tuple[ForecastQuery, Coding], bytes] = LRUCache(CACHED_BYTES, getsizeof=len)
        self._lock = threading.Lock()
        self._indices: dict[str, Published] = {}
        self._present: dict[str, Current] = {}

    def index(self, name: str, free: np.ndarray, recent: Recent) -> Published:
        """The answers of an index of this forecast. Raises :class:`~citybrain_serving.errors.BadSelection`."""
        places, forecast = self.answers.places, self.answers.forecast
        (index,) = indices_of(forecast.task.target, local_day(forecast.issued, self.answers.city), name)
        if name in self._indices:
            return self._indices[name]
        now = self.present(index, free, recent)
        seen = np.where(now.basis == BASES.index("forecast"), np.nan, now.value)
        derived = Answers(self.answers.city, places, applied(index, forecast, self._free(free), seen), index)
        published = Published(derived, self.stale_steps, self)
        published.passing = index.id not in self._present
        if not published.passing:
            self._indices[name] = published
        return published

    def present(self, index: Index, free: np.ndarray, recent: Recent) -> Current:
        """What an index of this forecast's signal is now, at every node. While the store cannot be read it does without
        the last hours, and is made anew for whoever asks next."""
        forecast = self.answers.forecast
        held = self._present.get(index.id)
        if held is not None:
            return held
        made = partial(current, index, forecast, self._free(free), stale_steps=self.stale_steps)
        try:
            self._present[index.id] = made(hours=lambda: recent.hours(forecast))
        except StoreUnavailable:
            log.warning("the last hours cannot be read", task=forecast.task.name)
            return made(hours=lambda: nothing(forecast))
        return self._present[index.id]

    def _free(self, free: np.ndarray) -> np.ndarray:
        """Free-flow speeds ``[node]``; NaN for stations."""
        places = self.answers.places
        return free if places.node == "road" else np.full(len(places), np.nan)

    def etag(self, query: ForecastQuery, coding: Coding = "identity") -> str:
        """A strong validator: equal exactly where the bytes are, so that each coding has its own."""
        asked = hashlib.blake2b(repr(query).encode(), digest_size=6).hexdigest()
        return f'"{self.answers.forecast.digest}-{asked}{"" if coding == "identity" else f"-{coding}"}"'

    def get(self, query: ForecastQuery, coding: Coding = "identity") -> bytes:
        """The answer in a coding, encoded and packed once. Raises :class:`~citybrain_serving.errors.BadSelection` or
        :class:`~citybrain_serving.errors.UnknownPlace`."""
        with self._lock:
            body = self._whole.get((query, coding))
        if body is None and coding != "identity":
            body = self._keep(query, coding, packed(self.get(query), coding))
        elif body is None:
            cut = Cut.of(self.answers.forecast.task, query.horizon, query.quantiles)
            rows = query.places.rows(self.answers.places)
            body = self._keep(query, coding, self.answers.encode(query.media, rows, cut, query.stale, query.language))
        return body

    def _keep(self, query: ForecastQuery, coding: Coding, body: bytes) -> bytes:
        if len(body) <= CACHED_BYTES // 2:
            with self._lock:
                self._whole[query, coding] = body
        return body

    def follow(self, before: Published) -> None:
        """Encodes what was asked of the forecast ``before`` for every node: who asked will ask again, and should not
        wait for a large city to be encoded. What this one does not tell, of another model with other horizons or
        quantiles, is left out."""
        with before._lock:
            asked = {query for query, _ in before._whole if query.places == EVERYTHING}
        for query in asked:
            with suppress(BadSelection, UnknownPlace):
                self.get(query)


class Board:
    """Holds what is published for the newest snapshot; forecasts that did not change keep their encoded
    answers."""

    def __init__(self, fleet: Fleet, stale_steps: int, recent: Recent):
        self.fleet = fleet
        self.recent = recent
        self.stale_steps = stale_steps
        self.places = {node: Places.of(fleet.city, node) for node in NODES}
        self._snapshot: Snapshot | None = None
        self._published: Mapping[str, Published] = {}
        self._last: Mapping[str, Published] = {}
        # A forecast of the history may be computed again until it is scored: what is held grows old in a minute.
        self._past: TTLCache[tuple[str, pd.Timestamp], Published] = TTLCache(PAST, ttl=60)
        self._lock = threading.Lock()

    @cached_property
    def free_speeds(self) -> np.ndarray:
        """Free-flow speed of each road segment, km/h, float64 ``[node]``; NaN where nothing tells it."""
        profiles = (b.statistics.profiles.get("speed") for b in self.fleet.bundles.values())
        return free_speeds(self.fleet.city, next((p for p in profiles if p is not None), None))

    def forget_free_speeds(self) -> None:
        """They come from the bundles: after a swap they are read anew."""
        self.__dict__.pop("free_speeds", None)

    def of(self, snapshot: Snapshot | None) -> Mapping[str, Published]:
        """Answers by task. Raises :class:`~citybrain_serving.errors.NotReady` before the first snapshot."""
        if snapshot is None:
            raise NotReady("no forecast has been computed yet; it takes observations, and a moment")
        if snapshot is not self._snapshot:
            with self._lock:
                if snapshot is not self._snapshot:
                    old = {id(p.answers.forecast): p for p in self._published.values()}
                    self._last = self._published
                    self._published = {
                        name: old.get(id(forecast)) or self._publish(forecast)
                        for name, forecast in snapshot.forecasts.items()
                    }
                    self._snapshot = snapshot
        return self._published

    def prepare(self, snapshot: Snapshot) -> None:
        """Publishes a snapshot with the answers that were asked of the last one."""
        published = self.of(snapshot)
        with self._lock:
            last, self._last = self._last, {}
        for name, before in last.items():
            if published[name] is not before:
                published[name].follow(before)

    def task(self, snapshot: Snapshot | None, name: str, index: str | None = None) -> Published:
        """The answers of one task, or of an index of it.

        Raises :class:`~citybrain_serving.errors.UnknownTask` for a task that no bundle here forecasts,
        :class:`~citybrain_serving.errors.BadSelection` for an index that its signal has not.
        """
        self.known(name)
        published = self.of(snapshot)[name]
        return published if index is None else published.index(index, self.free_speeds, self.recent)

    def past(
        self,
        find: Callable[[str, pd.Timestamp], Forecast | None],
        name: str,
        issued: pd.Timestamp,
        index: str | None = None,
    ) -> Published:
        """The answers of a forecast that ``find`` finds in the history.

        Raises :class:`~citybrain_serving.errors.UnknownIssue` where there is none.
        """
        self.known(name)
        key = (name, issued)
        with self._lock:
            published = self._past.get(key)
        if published is None:
            forecast = find(name, issued)
            if forecast is None:
                raise UnknownIssue(
                    f"no forecast of {name} issued at {issued:%Y-%m-%dT%H:%M:%SZ} is kept; its history tells which are"
                )
            published = self._publish(forecast)
            with self._lock:
                self._past[key] = published
        return published if index is None else published.index(index, self.free_speeds, self.recent)

    def _publish(self, forecast: Forecast) -> Published:
        answers = Answers(self.fleet.city, self.places[forecast.task.node], forecast)
        return Published(answers, self.stale_steps)

    def known(self, name: str) -> None:
        """Raises :class:`~citybrain_serving.errors.UnknownTask` for a task that no bundle here forecasts."""
        if name not in self.fleet.bundles:
            raise UnknownTask(f"{name[:80]!r} is not forecast here, only {' and '.join(self.fleet.bundles)}")
