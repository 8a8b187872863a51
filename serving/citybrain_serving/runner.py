"""The cycle in the background: once a step, and soon after new observations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

import structlog

from citybrain_serving.cycle import Cycle

LONGEST_WAIT = 30.0
"""Seconds; the present is looked at this often even where no tick is due, for a clock that was set."""

log = structlog.get_logger(__name__)


class Runner:
    """A thread that runs a :class:`Cycle`. ``finished`` is told the seconds of every run, None for a
    failed one."""

    def __init__(self, cycle: Cycle, debounce: float, finished: Callable[[float | None], None] = lambda _: None):
        self.cycle = cycle
        self.debounce = debounce
        self.finished = finished
        self._touched: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="cycle", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the run in progress."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def notify(self, signals: Collection[str]) -> None:
        """New observations of ``signals`` are in the store."""
        with self._lock:
            self._touched.update(signals)
        self._wake.set()

    def _loop(self) -> None:
        self._run(None)
        while not self._stopping.is_set():
            if self._wake.wait(self._until_due()):
                self._stopping.wait(self.debounce)
            self._wake.clear()
            with self._lock:
                touched, self._touched = self._touched, set()
            if not self._stopping.is_set():
                self._run(touched)

    def _run(self, touched: Collection[str] | None) -> None:
        begun = time.perf_counter()
        try:
            self.cycle.run(touched)
        except Exception:  # the thread must outlive any fault; the last snapshot grows stale meanwhile
            log.exception("cycle failed")
            with self._lock:
                self._touched.update(touched or ())  # what was not computed is still due
            self.finished(None)
        else:
            self.finished(time.perf_counter() - begun)

    def _until_due(self) -> float:
        """Seconds to the next tick."""
        now = self.cycle.clock.now()
        if now is None:
            return LONGEST_WAIT
        return min(LONGEST_WAIT, max(0.0, (self.cycle.next_tick(now) - now).total_seconds()))
