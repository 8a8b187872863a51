"""Readings in, durable before they are acknowledged: how many a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_serving.bench.bodies import arrow_body, json_body
from citybrain_serving.bench.cities import enlarged, fill
from citybrain_serving.bench.processes import service
from citybrain_serving.bench.records import Notebook
from citybrain_serving.encoding import ARROW, JSON
from citybrain_serving.fleet import Fleet

ISSUED = pd.Timestamp("2026-03-10T08:00Z")
SEED = 17
CASE = "readings in"


def measure(
    book: Notebook, bundle: Bundle, folder: Path, *, segments: int = 10_000, bodies: int = 40, repetitions: int = 3
) -> None:
    """One caller sends tick after tick of every road signal, each body acknowledged before the next; the service
    forecasts beside it, as it always does."""
    town = enlarged(bundle, segments).write(folder / "ingest" / "bundle")
    store = folder / "ingest" / "store.sqlite"
    fill(town, store, ISSUED)
    channels = [channel for channel in Fleet.of([town]).channels.values() if channel.node == "road"]
    random = np.random.default_rng(SEED)
    now = ISSUED
    kinds: dict[str, Callable[..., bytes]] = {ARROW: arrow_body, JSON: json_body}
    rates: dict[str, list[float]] = {media: [] for media in kinds}
    with service([folder / "ingest" / "bundle"], store, settings={"max_body_bytes": 2**28}, ready="/readyz") as server:
        for _ in range(repetitions):
            for media, make in kinds.items():
                made = []
                for _ in range(bodies):
                    now += town.task.step
                    made.append(make(town, channels, now, random))
                rates[media].append(_send(server.url, media, made))
    about = f"SQLite, one caller, {len(channels)} signals of {segments:,} segments in a body, median of {repetitions}"
    for media, found in rates.items():
        name = "Arrow" if media == ARROW else "JSON"
        note = f"{about} times {bodies} bodies"
        book.add(CASE, "citybrain", f"readings_per_second_{name.lower()}", float(np.median(found)), "1/s", note=note)


def _send(url: str, media: str, bodies: list[bytes]) -> float:
    """Accepted readings a second."""
    accepted = 0
    with httpx.Client(base_url=url, timeout=60) as client:
        begun = time.perf_counter()
        for body in bodies:
            answer = client.post("/v1/observations", content=body, headers={"Content-Type": media}).raise_for_status()
            accepted += answer.json()["accepted"]
        return accepted / (time.perf_counter() - begun)
