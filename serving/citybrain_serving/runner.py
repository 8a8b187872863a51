"""The cycle in the background: once a step, and soon after new observations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

import structlog

LONGEST_WAIT = 30.0
"""Seconds; the present is looked at this often even where no tick is due, for a clock that was set."""

log = structlog.get_logger(__name__)


class Runner:
    """A thread that takes steps.

    ``step`` is told the signals that were observed since the last one, None where that may be any: at first, and when
    :meth:`notify` says so. ``until_due`` says how many seconds the next may wait, None for unknown. ``finished`` is
    told the seconds of every step, None for a failed one.
    """

    def __init__(
        self,
        step: Callable[[Collection[str] | None], object],
        until_due: Callable[[], float | None],
        debounce: float,
        finished: Callable[[float | None], object] = lambda _: None,
    ):
        self.step = step
        self.until_due = until_due
        self.debounce = debounce
        self.finished = finished
        self._touched: set[str] | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="cycle", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the step in progress."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def notify(self, signals: Collection[str] | None) -> None:
        """New observations of ``signals`` are in the store, of any where None; a step follows soon."""
        self._add(signals)
        self._wake.set()

    def _loop(self) -> None:
        self._run(self._take())
        while not self._stopping.is_set():
            if self._wake.wait(self._wait()):
                self._stopping.wait(self.debounce)
            self._wake.clear()
            if not self._stopping.is_set():
                self._run(self._take())

    def _run(self, touched: Collection[str] | None) -> None:
        begun = time.perf_counter()
        try:
            self.step(touched)
        except Exception:  # the thread must outlive any fault; the last snapshot grows stale meanwhile
            log.exception("cycle failed")
            self._add(touched)  # what was not computed is still due
            self.finished(None)
        else:
            self.finished(time.perf_counter() - begun)

    def _add(self, signals: Collection[str] | None) -> None:
        with self._lock:
            self._touched = None if signals is None or self._touched is None else self._touched.union(signals)

    def _take(self) -> set[str] | None:
        with self._lock:
            touched, self._touched = self._touched, set()
            return touched

    def _wait(self) -> float:
        due = self.until_due()
        return LONGEST_WAIT if due is None else min(LONGEST_WAIT, max(0.0, due))
