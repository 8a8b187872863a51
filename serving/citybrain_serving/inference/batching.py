"""Dynamic batching: requests that wait at the same time run as one."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from citybrain_serving.inference.errors import Overloaded, RequestTooLarge

Feed = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]

PROMPT_S = 0.002
"""What computes no longer may run on the event loop: going to another thread and back costs a small network a tenth and
more of its own time, and far more where others wait for the processor."""

ALONE_S = 0.1
"""How long nobody else must have asked until a caller counts as alone."""


class BatchModel(Protocol):
    """What a batcher runs, in a thread of its own; on the event loop where that is quicker and nobody waits."""

    def run(self, feed: Feed) -> Outputs: ...


@dataclass(frozen=True)
class Limits:
    """``rows`` of a request and of a batch, seconds of ``delay`` that a batch waits for company, ``queue`` rows that
    wait.

    ``size`` is the bytes of input beyond which a batch of several takes no more: rows share the cost of a run, which
    small ones gain by; together they no longer fit a core's cache, which large ones lose by.
    """

    rows: int = 32
    delay: float = 0.002
    queue: int = 512
    size: int = 2**20


@dataclass
class _Waiting:
    feed: Feed
    rows: int
    size: int
    alone: bool
    answer: asyncio.Future[Outputs]
    outputs: Outputs = field(default_factory=dict)

    def joins(self, other: _Waiting) -> bool:
        return not (self.alone or other.alone)


class Batcher:
    """A queue in front of one model, and one thread that runs it.

    While a batch runs, requests gather; the next batch takes as many as fit. A lone caller is never kept waiting: the
    delay is spent only after a batch that held several requests, when more are on their way, and a prompt model answers
    it there and then. Used from one event loop.
    """

    def __init__(self, model: BatchModel, limits: Limits, ran: Callable[[int, int], None] = lambda *_: None):
        """``ran`` is told the requests and rows of every batch, on the event loop."""
        self.model = model
        self.limits = limits
        self.ran = ran
        self._queue: deque[_Waiting] = deque()
        self._queued_rows = 0
        self._enough = 1
        self._running = False
        self._ending = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._open: set[asyncio.Future[Outputs]] = set()
        self._closed = False
        self._row_seconds = math.inf
        self._last: tuple[Hashable, float] = (None, -math.inf)
        self._company = -math.inf

    @property
    def queued_rows(self) -> int:
        return self._queued_rows

    async def submit(self, feed: Feed, rows: int, *, alone: bool = False, caller: Hashable = None) -> Outputs:
        """Outputs for ``feed``, whose arrays have ``rows`` rows and were checked. ``alone`` shares no batch. ``caller``
        tells whose request it is, where that can be told.

        Raises :class:`RequestTooLarge`, :class:`Overloaded`, or what the model raised.
        """
        if self._closed:  # a caller that got hold of it before it was replaced is answered all the same
            return await asyncio.to_thread(self.model.run, feed)
        most = min(self.limits.rows, self.limits.queue)  # what no queue can hold is not told to come back
        if rows > most:
            raise RequestTooLarge(f"a request has {rows} rows; at most {most} are taken")
        if self._lone(caller) and rows * self._row_seconds < PROMPT_S:
            outputs = self._timed(feed, rows)
            self.ran(1, rows)
            return outputs
        size = sum(array.nbytes for array in feed.values())
        waiting = _Waiting(feed, rows, size, alone, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._queued_rows + rows > self.limits.queue:
                raise Overloaded(f"{self._queued_rows} rows are waiting; come back in a moment")
            self._queue.append(waiting)
            self._queued_rows += rows
            if self._queued_rows >= self._enough:
                self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="infer", daemon=True)
            self._thread.start()
        self._open.add(waiting.answer)
        waiting.answer.add_done_callback(self._open.discard)
        return await waiting.answer

    async def close(self) -> None:
        """Finishes what runs and what waits, then stops."""
        self._closed = True
        if self._open:
            await asyncio.wait(self._open)
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _lone(self, caller: Hashable) -> bool:
        """Whether this is the only one who has asked for a while."""
        now = time.monotonic()
        if caller is None or (caller != self._last[0] and now - self._last[1] < ALONE_S):
            self._company = now
        self._last = (caller, now)
        return now - self._company >= ALONE_S and not self._queue and not self._running

    def _work(self) -> None:
        """In the batcher's thread."""
        company = 0
        while batch := self._next(company):
            company = sum(waiting.rows for waiting in batch) if len(batch) > 1 else 0
            error: Exception | None = None
            try:
                self._compute(batch)
            except Exception as raised:  # noqa: BLE001  it belongs to the callers, who wait for it
                error = raised
            self._running = False
            batch[0].answer.get_loop().call_soon_threadsafe(self._answer, batch, error)
            del batch  # its arrays are the callers' again while the thread waits

    def _next(self, company: int) -> list[_Waiting]:
        """The next batch, as soon as there is one; empty where there will be none. After ``company`` rows in a batch of
        several it waits, at most the delay, until half as many are there: the others' answers are on their way."""
        with self._changed:
            while True:
                if company and self.limits.delay:
                    self._enough = max(1, company // 2)
                    self._changed.wait_for(self._ready, self.limits.delay)
                    self._enough, company = 1, 0
                if batch := self._take():
                    self._running = True
                    return batch
                if self._ending:
                    return []
                self._changed.wait()

    def _ready(self) -> bool:
        return self._ending or self._queued_rows >= self._enough

    def _take(self) -> list[_Waiting]:
        """The head of the queue with those right behind it that fit in; who went away is left out."""
        batch: list[_Waiting] = []
        rows = size = 0
        while self._queue:
            head = self._queue[0]
            full = rows + head.rows > self.limits.rows or size + head.size > self.limits.size
            if batch and (full or not head.joins(batch[0])):
                break
            self._queue.popleft()
            self._queued_rows -= head.rows
            if not head.answer.cancelled():
                batch.append(head)
                rows += head.rows
                size += head.size
        return batch

    def _compute(self, batch: list[_Waiting]) -> None:
        if len(batch) == 1:
            batch[0].outputs = self._timed(batch[0].feed, batch[0].rows)
            return
        joined = {name: np.concatenate([waiting.feed[name] for waiting in batch]) for name in batch[0].feed}
        end = 0
        outputs = self._timed(joined, sum(waiting.rows for waiting in batch))
        for waiting in batch:
            begin, end = end, end + waiting.rows
            waiting.outputs = {name: tensor[begin:end] for name, tensor in outputs.items()}

    def _timed(self, feed: Feed, rows: int) -> Outputs:
        begun = time.thread_time()  # what it computes: how long others had the processor says nothing of the next run
        outputs = self.model.run(feed)
        self._row_seconds = (time.thread_time() - begun) / rows
        return outputs

    def _answer(self, batch: list[_Waiting], error: Exception | None) -> None:
        """On the event loop: gives each caller its own."""
        if error is None:
            self.ran(len(batch), sum(waiting.rows for waiting in batch))
        for waiting in batch:
            if waiting.answer.done():
                continue
            if error is None:
                waiting.answer.set_result(waiting.outputs)
            else:
                waiting.answer.set_exception(error)
