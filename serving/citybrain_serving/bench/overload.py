"""Five times as much is asked as can be answered: refusals come quickly, what is accepted is answered nearly as soon as
on a quiet day, probes answer.

The load is open: requests come at their times whether or not earlier ones were answered, as those of callers do who
know nothing of each other. A generator that waited for answers would slow down with the server.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_serving.bench.cities import enlarged, fill
from citybrain_serving.bench.client import load, request, run_quick
from citybrain_serving.bench.processes import service, wait_for
from citybrain_serving.bench.records import Notebook
from citybrain_serving.safety.settings import SafetySettings

USUAL, OVER = 0.8, 5.0
"""Of capacity."""

CALLERS = SafetySettings().at_once
"""That find out the capacity, each asking again as soon as it is answered. Of more some would be refused, and a refusal
is answered many times faster than a read."""

CONNECTIONS = 256
IDLE_S = 3.0
"""After which a connection is made anew: servers close those that nobody uses."""

PROBED_EVERY_S = 0.1

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answers:
    """``latencies`` in seconds from the time at which each request was due, ``server`` from the time at which it was
    sent, and the ``statuses`` of their answers."""

    latencies: np.ndarray
    server: np.ndarray
    statuses: np.ndarray
    seconds: float

    def p99(self, *statuses: int) -> float:
        """From when they were due: what a caller waits where all callers share a generator's connections."""
        return self._p99(self.latencies, statuses)

    def server_p99(self, *statuses: int) -> float:
        """From when they were sent: the server's part."""
        return self._p99(self.server, statuses)

    def _p99(self, seconds: np.ndarray, statuses: tuple[int, ...]) -> float:
        mine = seconds[np.isin(self.statuses, statuses)]
        return float(np.percentile(mine, 99)) if len(mine) else float("nan")

    def rate(self, *statuses: int) -> float:
        return float(np.isin(self.statuses, statuses).sum()) / self.seconds


def measure(book: Notebook, bundle: Bundle, folder: Path, *, segments: int = 5_000, seconds: float = 10.0) -> None:
    """Reads of a part of a city, a different one each time, so that none is answered from a cache."""
    home, store = folder / "overload" / "bundle", folder / "overload" / "store.sqlite"
    bundle = enlarged(bundle, segments).write(home)
    fill(bundle, store, pd.Timestamp("2026-03-02 08:00", tz="UTC"))
    targets = _targets(bundle)
    with service([home], store) as server:
        wait_for(server, "/readyz")
        capacity = load(server.port, targets, callers=CALLERS, seconds=seconds).rate(200)
        usual = offered(server.port, targets, USUAL * capacity, seconds)
        probes = _Probes(server.url)
        over = offered(server.port, targets[::-1], OVER * capacity, seconds)
        slowest, failed, asked = probes.end()
    case, note = "overload", f"reads of a part of {segments} segments, open load for {seconds:g} s"
    book.add(case, "citybrain", "capacity", capacity, "1/s", note=f"{note}; {CALLERS} callers that wait for answers")
    book.add(case, "citybrain", "usual_refused", usual.rate(503, 429), "1/s", note=note)
    book.add(case, "citybrain", "p99_usual", usual.p99(200), "s", note=note)
    book.add(case, "citybrain", "offered", over.rate(*np.unique(over.statuses).tolist()), "1/s", note=note)
    book.add(case, "citybrain", "accepted", over.rate(200), "1/s", note=note)
    book.add(case, "citybrain", "accepted_to_capacity", over.rate(200) / capacity, "1", note=note)
    book.add(case, "citybrain", "p99_accepted", over.p99(200), "s", note=note)
    book.add(case, "citybrain", "p99_accepted_to_usual", over.p99(200) / usual.p99(200), "1", note=note)
    sent = f"{note}; from sending, the wait in the generator left out"
    book.add(case, "citybrain", "p99_usual_server", usual.server_p99(200), "s", note=sent)
    book.add(case, "citybrain", "p99_accepted_server", over.server_p99(200), "s", note=sent)
    book.add(case, "citybrain", "refused", over.rate(503, 429), "1/s", note=note)
    if over.rate(503, 429):
        book.add(case, "citybrain", "p99_refused", over.p99(503, 429), "s", note=note)
        book.add(case, "citybrain", "p99_refused_server", over.server_p99(503, 429), "s", note=sent)
    other = len(over.statuses) - int(np.isin(over.statuses, (200, 429, 503)).sum())
    book.add(case, "citybrain", "other_answers", other, "1", note=note)
    book.add(case, "citybrain", "probes_failed", failed, "1", note=f"{asked} probes meanwhile")
    book.add(case, "citybrain", "slowest_probe", slowest, "s", note=f"{asked} probes meanwhile")


def offered(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Answers:
    """``rate`` requests a second for ``seconds``, from a process of their own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_offer, port, list(requests), rate, seconds).result()


def _offer(port: int, requests: list[bytes], rate: float, seconds: float) -> Answers:
    return run_quick(_drive(port, requests, rate, seconds))


async def _drive(port: int, requests: list[bytes], rate: float, seconds: float) -> Answers:
    due: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
    told: list[tuple[float, float, int]] = []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        used = time.perf_counter()
        while (next_one := await due.get()) is not None:
            at, wanted = next_one
            if time.perf_counter() - used > IDLE_S:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            sent = time.perf_counter()
            writer.write(wanted)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            await reader.readexactly(int(length.group(1)) if length else 0)
            used = time.perf_counter()
            told.append((used - at, used - sent, int(head[9:12])))
        writer.close()

    callers = [asyncio.create_task(caller()) for _ in range(CONNECTIONS)]
    await asyncio.sleep(0.1)  # until they are connected
    begun, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - begun) < seconds:
        while sent < rate * now:
            due.put_nowait((begun + sent / rate, requests[sent % len(requests)]))
            sent += 1
        await asyncio.sleep(0.001)
    for _ in callers:
        due.put_nowait(None)
    await asyncio.gather(*callers)
    latencies, server, statuses = (np.array(column) for column in zip(*told, strict=True))
    return Answers(latencies, server, statuses, seconds)


def _targets(bundle: Bundle, count: int = 20_000) -> list[bytes]:
    """Boxes over a quarter of the city, each somewhere else, with some of the leads, each time others: nothing that was
    encoded for one answer serves another."""
    random, task = np.random.default_rng(4), bundle.task
    places = bundle.city.nodes["road"][["lon", "lat"]]
    lows, highs = places.min().to_numpy(), places.max().to_numpy()
    corners = lows + random.random((count, 2)) * (highs - lows) / 2
    boxes = np.hstack([corners, corners + (highs - lows) / 2])
    leads = random.random((count, task.horizon)) < 0.8
    leads[:, 0] = True
    minutes = task.step_minutes * np.arange(1, task.horizon + 1)
    return [
        request(
            "GET",
            f"/v1/forecasts/{task.name}?bbox={','.join(f'{edge:.7f}' for edge in box)}"
            f"&horizon={','.join(map(str, minutes[chosen]))}",
        )
        for box, chosen in zip(boxes.tolist(), leads, strict=True)
    ]


class _Probes:
    """A supervisor that asks, and keeps asking."""

    def __init__(self, url: str):
        self.url = url
        self.latencies: list[float] = []
        self.failed = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def end(self) -> tuple[float, int, int]:
        """The slowest answer in seconds, how many failed, how many there were."""
        self._ending.set()
        self._thread.join()
        return max(self.latencies), self.failed, len(self.latencies)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self._ending.wait(PROBED_EVERY_S):
                for path in ("/livez", "/readyz"):
                    begun = time.perf_counter()
                    try:
                        self.failed += client.get(path).status_code != 200
                    except httpx.TransportError:
                        self.failed += 1
                    self.latencies.append(time.perf_counter() - begun)
