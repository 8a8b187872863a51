"""A load generator: callers on kept connections, each asking again as soon as it is answered.

It does as little as a client can (requests are bytes made beforehand, of an answer only status and length are read),
so that it measures the server and not itself. What it can do is recorded too, against a server that does nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import re
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from citybrain_datasets.errors import CityBrainError

WARM_UP = 0.2
"""Share of the time whose answers are not counted."""

Made = TypeVar("Made")

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """What came of it: ``latencies`` in seconds, in the order of the answers, and how many of each status there were
    within ``seconds``."""

    latencies: np.ndarray
    statuses: Mapping[int, int]
    seconds: float

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def rate(self, status: int) -> float:
        """Answers of this status a second."""
        return self.statuses.get(status, 0) / self.seconds

    def percentile(self, share: float) -> float:
        """Seconds within which this share (0–100) of the answers came."""
        return float(np.percentile(self.latencies, share))


def request(method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """An HTTP/1.1 request in bytes. The body's length is told where there is one."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def load(port: int, requests: Sequence[bytes], *, callers: int, seconds: float) -> Load:
    """``callers`` at a time go round ``requests``, from a process of their own.

    Raises :class:`CityBrainError` where the server closes a connection, answers without a length or not in time.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_load, port, list(requests), callers, seconds).result()


def _load(port: int, requests: list[bytes], callers: int, seconds: float) -> Load:
    return run_quick(_drive(port, requests, callers, seconds))


def run_quick(work: Coroutine[Any, Any, Made]) -> Made:
    """Runs it on the faster event loop where there is one: what a generator takes of the machine, the server lacks."""
    try:
        from uvloop import run
    except ModuleNotFoundError:
        return asyncio.run(work)
    return run(work)


async def _drive(port: int, requests: list[bytes], callers: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    turn = itertools.cycle(requests)
    tally = _Tally()
    made = [_Caller(turn, tally, loop.create_future()) for _ in range(callers)]
    for caller in made:
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)  # type: ignore[misc]  # bound now
    tally.begins = time.perf_counter() + WARM_UP * seconds
    tally.ends = tally.begins + (1 - WARM_UP) * seconds
    for caller in made:
        caller.ask()
    await asyncio.gather(*(caller.done for caller in made))
    if not tally.latencies:
        raise CityBrainError(f"load generator: no answer within {seconds:g} s")
    return Load(np.asarray(tally.latencies), dict(tally.statuses), tally.ends - tally.begins)


@dataclass
class _Tally:
    begins: float = 0.0
    ends: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


class _Caller(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again."""

    def __init__(self, turn: Iterator[bytes], tally: _Tally, done: asyncio.Future[None]):
        self.turn = turn
        self.tally = tally
        self.done = done
        self.missing = 0
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
        else:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            self.status = int(self.head[9:12])
            found = _LENGTH.search(self.head, 0, end)
            if found is None and self.status != 304:
                self._fail("an answer without Content-Length")
                return
            length = int(found.group(1)) if found and self.status != 304 else 0
            self.missing = end + 4 + length - len(self.head)
            self.head = b""
        if self.missing <= 0:
            self._answered()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._fail(f"the server closed the connection ({error})")

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(next(self.turn))

    def _answered(self) -> None:
        now = time.perf_counter()
        if now > self.tally.ends:
            self.done.set_result(None)
            self.transport.close()
            return
        if self.asked >= self.tally.begins:
            self.tally.latencies.append(now - self.asked)
            self.tally.statuses[self.status] += 1
        self.ask()

    def _fail(self, why: str) -> None:
        self.done.set_exception(CityBrainError(f"load generator: {why}"))
        self.transport.close()
