"""A city of 100,000 segments: how long a cycle takes, how long the whole city as Arrow, and how both grow."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from citybrain_datasets.errors import CityBrainError
from citybrain_models.bundle import Bundle
from citybrain_serving.bench.bodies import arrow_body
from citybrain_serving.bench.cities import enlarged, fill
from citybrain_serving.bench.processes import Server, service
from citybrain_serving.bench.records import Notebook
from citybrain_serving.encoding import ARROW
from citybrain_serving.fleet import Fleet

SIZES = (1_000, 10_000, 100_000)
ISSUED = pd.Timestamp("2026-03-10T08:00Z")
COMPUTED_WITHIN = 60.0
SEED = 13


def measure(
    book: Notebook, bundle: Bundle, folder: Path, *, sizes: Sequence[int] = SIZES, steps: int = 5, threads: int = 2
) -> None:
    """Cities of ``sizes`` segments, each for ``steps`` ticks of readings that arrive as a feed would send them.

    ``cycle`` is the service's own count, from the window to all that follows from a forecast (problems, history,
    cases); Arrow is asked for by a caller, once when nobody has asked before and once again.
    """
    found: dict[str, list[float]] = {}
    for size in sizes:
        case = f"city of {size:,} segments"
        note = f"medians of {steps} steps; network of {len(bundle.model) // 1024} KiB; cycle with {threads} threads"
        for metric, (value, unit) in _one(bundle, folder / f"city-{size}", size, steps, threads).items():
            book.add(case, "citybrain", metric, value, unit, threads=threads, note=note)
            found.setdefault(metric, []).append(value)
    if len(sizes) > 1:
        note = f"slope of log(time) on log(segments), {min(sizes):,} to {max(sizes):,}"
        for metric in ("cycle", "arrow_first", "arrow_again"):
            slope = float(np.polyfit(np.log(sizes), np.log(found[metric]), 1)[0])
            book.add("growth with the city", "citybrain", f"{metric}_exponent", slope, "1", threads=threads, note=note)


def _one(bundle: Bundle, folder: Path, size: int, steps: int, threads: int) -> dict[str, tuple[float, str]]:
    """Medians by metric, each with its unit."""
    store = folder / "store.sqlite"
    town = enlarged(bundle, size).write(folder / "bundle")
    fill(town, store, ISSUED)
    channels = [c for c in Fleet.of([town]).channels.values() if c.node == "road"]
    random = np.random.default_rng(SEED)
    seconds: dict[str, list[float]] = {}
    url = f"/v1/forecasts/{town.task.name}"
    settings = {"threads": threads, "max_body_bytes": 2**28}
    with service([folder / "bundle"], store, settings=settings, ready="/readyz") as server, _client(server) as client:
        for step in range(1, steps + 2):  # the first finds nothing decoded yet, as after a start; it is not counted
            body = arrow_body(town, channels, ISSUED + step * town.task.step, random)
            before = _cycles(client)
            client.post("/v1/observations", content=body, headers={"Content-Type": ARROW}).raise_for_status()
            took = _next_cycle(client, before)
            first, again = (_timed(client, url) for _ in range(2))
            if step > 1:
                for metric, value in (("cycle", took), ("arrow_first", first), ("arrow_again", again)):
                    seconds.setdefault(metric, []).append(value)
        resident, peak = server.resident(), server.peak()
    medians = {metric: (float(np.median(values)), "s") for metric, values in seconds.items()}
    return {**medians, "resident": (resident / 2**30, "GiB"), "resident_peak": (peak / 2**30, "GiB")}


def _client(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=COMPUTED_WITHIN)


def _timed(client: httpx.Client, url: str) -> float:
    begun = time.perf_counter()
    client.get(url, headers={"Accept": ARROW, "Accept-Encoding": "identity"}).raise_for_status()
    return time.perf_counter() - begun


def _cycles(client: httpx.Client) -> tuple[int, float]:
    """Cycles so far, and the seconds that they took together."""
    text = client.get("/metrics").text
    numbers = dict(re.findall(r"^citybrain_cycle_seconds_(count|sum) (\S+)$", text, re.MULTILINE))
    return int(float(numbers["count"])), float(numbers["sum"])


def _next_cycle(client: httpx.Client, before: tuple[int, float]) -> float:
    """Seconds that the next cycle took. Raises :class:`CityBrainError` where none comes."""
    deadline = time.monotonic() + COMPUTED_WITHIN
    while time.monotonic() < deadline:
        count, total = _cycles(client)
        if count > before[0]:
            return (total - before[1]) / (count - before[0])
        time.sleep(0.02)
    raise CityBrainError(f"no cycle followed within {COMPUTED_WITHIN:g} s of new readings")
