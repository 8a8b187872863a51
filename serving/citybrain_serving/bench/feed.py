"""Readings as a gateway would send them, tick after tick, and a check that none that was acknowledged is missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import numpy as np
import orjson
import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_serving.fleet import Channel, Fleet
from citybrain_serving.store import SqlStore

START = pd.Timestamp("2026-03-02", tz="UTC")


@dataclass(frozen=True)
class Batch:
    """Every sensor's reading of one tick."""

    time: pd.Timestamp
    values: np.ndarray
    body: bytes


@dataclass
class Feed:
    """Batches of the target of ``bundle``, one tick after another; no two share a tick."""

    bundle: Bundle
    tick: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def channel(self) -> Channel:
        return Fleet.of([self.bundle]).channels[self.bundle.task.target]

    def batches(self) -> Iterator[Batch]:
        channel, random = self.channel, np.random.default_rng(self.tick)
        kind = channel.kind
        while True:
            with self._lock:
                time, self.tick = START + self.tick * channel.ticks.step, self.tick + 1
            span = min(kind.high, 100.0) - max(kind.low, 0.0)
            values = (max(kind.low, 0.0) + span * random.random(len(channel.ids))).round(2).astype(np.float32)
            stamp = time.isoformat()
            rows = [
                {"id": node, "signal": channel.signal, "time": stamp, "value": float(str(value))}
                for node, value in zip(channel.ids, values, strict=True)
            ]
            yield Batch(time, values, orjson.dumps({"observations": rows}))


@dataclass
class Gateway:
    """Sends batches, one after another, and remembers which were acknowledged. A batch that was not is given up."""

    url: str
    feed: Feed
    acknowledged: list[Batch] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def run(self, ending: threading.Event) -> None:
        """Until ``ending``, or until the server is gone."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            for batch in self.feed.batches():
                if ending.is_set():
                    return
                try:
                    status = self.send(client, batch)
                except httpx.TransportError:
                    return
                self.statuses.append(status)

    def send(self, client: httpx.Client, batch: Batch) -> int:
        answer = client.post("/v1/observations", content=batch.body, headers={"Content-Type": "application/json"})
        if answer.status_code == 200 and answer.json()["accepted"] == len(batch.values):
            self.acknowledged.append(batch)
        return answer.status_code


def lost(store: str, bundle: Bundle, batches: list[Batch]) -> int:
    """How many readings of ``batches`` are not in a store as they were sent."""
    opened = SqlStore(store, Fleet.of([bundle]).channels)
    try:
        target = bundle.task.target
        return sum(
            int((opened.read(target, batch.time, batch.time).values[0] != batch.values).sum()) for batch in batches
        )
    finally:
        opened.close()
