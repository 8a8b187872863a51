"""Tells listeners that a snapshot was published, from the cycle's thread into their event loops."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

from citybrain_serving.errors import ServingError, TooManyListeners, TooManyStreams
from citybrain_serving.snapshot import Snapshot

MOST_LISTENERS = 1_000
MOST_EACH = 100


@dataclass(frozen=True, eq=False)
class _Listener:
    loop: asyncio.AbstractEventLoop
    wake: asyncio.Event
    caller: str


class Stream:
    """A listener that is slow misses snapshots in between and gets the newest: nothing queues up for it."""

    def __init__(self, most: int = MOST_LISTENERS, each: int = MOST_EACH, lasting: float = math.inf):
        """At most ``most`` listeners, ``each`` of one caller, each for ``lasting`` seconds."""
        self.most = most
        self.each = each
        self.lasting = lasting
        self._listeners: set[_Listener] = set()
        self._lock = threading.Lock()
        self._newest: Snapshot | None = None
        self._closed = False

    def publish(self, snapshot: Snapshot) -> None:
        """Wakes every listener. May be called from any thread."""
        self._newest = snapshot
        self._wake()

    def close(self) -> None:
        """Ends every stream, so that a service that stops need not wait for its listeners."""
        self._closed = True
        self._wake()

    def admit(self, caller: str) -> None:
        """Raises :class:`TooManyListeners` where no further one is taken, :class:`TooManyStreams` where none of this
        caller is."""
        with self._lock:
            refusal = self._refusal(caller)
        if refusal is not None:
            raise refusal

    async def snapshots(self, caller: str) -> AsyncIterator[Snapshot]:
        """The newest snapshot at once, where there is one, and then each that is published; none for one who was
        admitted together with others and finds no room."""
        loop = asyncio.get_running_loop()
        listener, end = _Listener(loop, asyncio.Event(), caller), loop.time() + self.lasting
        with self._lock:
            if self._refusal(caller) is not None:
                return
            self._listeners.add(listener)
        told: Snapshot | None = None
        try:
            while not self._closed:
                newest = self._newest
                if newest is not None and newest is not told:
                    told = newest
                    yield newest
                    continue
                try:
                    async with asyncio.timeout_at(None if math.isinf(end) else end):
                        await listener.wake.wait()
                except TimeoutError:
                    return
                listener.wake.clear()
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def _refusal(self, caller: str) -> ServingError | None:
        if len(self._listeners) >= self.most:
            return TooManyListeners(f"{self.most} listeners are connected; ask /v1/forecasts instead")
        if sum(listener.caller == caller for listener in self._listeners) >= self.each:
            return TooManyStreams(f"{self.each} streams of yours are open; ask /v1/forecasts instead")
        return None

    def _wake(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener.loop.call_soon_threadsafe(listener.wake.set)
            except RuntimeError:  # its loop has ended, and with it whoever listened
                continue
