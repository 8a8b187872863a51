"""Dynamic batching: requests that wait at the same time run as one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from citybrain_serving.inference.errors import Overloaded, RequestTooLarge

Feed = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]


class BatchModel(Protocol):
    """What a batcher runs. Called in the batcher's thread, never on the event loop."""

    def run(self, feed: Feed) -> Outputs: ...


@dataclass(frozen=True)
class Limits:
    """``rows`` of a batch, seconds of ``delay`` that it waits for company, ``queue`` rows that wait."""

    rows: int = 32
    delay: float = 0.002
    queue: int = 512


@dataclass
class _Waiting:
    feed: Feed
    rows: int
    alone: bool
    answer: asyncio.Future[Outputs]

    def joins(self, other: _Waiting) -> bool:
        return not (self.alone or other.alone)


class Batcher:
    """A queue in front of one model, and one thread that runs it.

    While a batch runs, requests gather; the next batch takes as many as fit. A lone caller is never kept
    waiting: the delay is spent only after a batch that held several requests, when more are on their way.
    """

    def __init__(self, model: BatchModel, limits: Limits, ran: Callable[[int, int], None] = lambda *_: None):
        """``ran`` is told the requests and rows of every batch."""
        self.model = model
        self.limits = limits
        self.ran = ran
        self._queue: deque[_Waiting] = deque()
        self._queued_rows = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._open: set[asyncio.Future[Outputs]] = set()
        self._closed = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="infer")

    @property
    def queued_rows(self) -> int:
        return self._queued_rows

    async def submit(self, feed: Feed, rows: int, *, alone: bool = False) -> Outputs:
        """Outputs for ``feed``, whose arrays have ``rows`` rows and were checked. ``alone`` shares no batch.

        Raises :class:`RequestTooLarge`, :class:`Overloaded`, or what the model raised.
        """
        if self._closed:  # a caller that got hold of it before it was replaced is answered all the same
            return await asyncio.to_thread(self.model.run, feed)
        if rows > self.limits.rows:
            raise RequestTooLarge(f"a request has {rows} rows; at most {self.limits.rows} are taken")
        if self._queued_rows + rows > self.limits.queue:
            raise Overloaded(f"{self._queued_rows} rows are waiting; come back in a moment")
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="batcher")
        waiting = _Waiting(feed, rows, alone, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._open.add(waiting.answer)
        waiting.answer.add_done_callback(self._open.discard)
        self._queued_rows += rows
        self._arrived.set()
        return await waiting.answer

    async def close(self) -> None:
        """Finishes what runs and what waits, then stops."""
        self._closed = True
        if self._open:
            await asyncio.wait(self._open)
        if self._task is not None:
            self._task.cancel()
        await asyncio.to_thread(self._pool.shutdown)

    async def _work(self) -> None:
        company = False
        while True:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            if company and self.limits.delay:
                await self._gather()
            batch = self._take()
            if batch:
                await self._run(batch)
            company = len(batch) > 1

    async def _gather(self) -> None:
        """Waits until a whole batch is there, at most the delay."""
        try:
            async with asyncio.timeout(self.limits.delay):
                while self._queued_rows < self.limits.rows:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[_Waiting]:
        """The head of the queue with those right behind it that fit in; who went away is left out."""
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            head = self._queue[0]
            if batch and (rows + head.rows > self.limits.rows or not head.joins(batch[0])):
                break
            self._queue.popleft()
            self._queued_rows -= head.rows
            if not head.answer.cancelled():
                batch.append(head)
                rows += head.rows
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._pool, self._compute, batch)
        except Exception as error:  # noqa: BLE001  it belongs to the callers, who wait for it
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        self.ran(len(batch), sum(waiting.rows for waiting in batch))
        for waiting, outputs in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(outputs)

    def _compute(self, batch: list[_Waiting]) -> list[Outputs]:
        if len(batch) == 1:
            return [self.model.run(batch[0].feed)]
        joined = {name: np.concatenate([waiting.feed[name] for waiting in batch]) for name in batch[0].feed}
        outputs = self.model.run(joined)
        ends = np.cumsum([waiting.rows for waiting in batch])
        return [
            {name: tensor[end - waiting.rows : end] for name, tensor in outputs.items()}
            for waiting, end in zip(batch, ends.tolist(), strict=True)
        ]
