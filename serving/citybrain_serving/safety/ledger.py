"""What is put in the audit log, and when.

Decisions, and whatever an administrator does, are on disk before they are answered. Reads, readings and inferences
are too many for that: they are summed for each caller, address and snapshot, and written every few seconds. The log
only grows, so that whoever has no key must not be able to fill it: of all of those few sums are told apart.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import structlog
from starlette.types import Scope

from citybrain_serving.encoding import utc
from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.safety.audit import AuditLog, entry
from citybrain_serving.snapshot import Forecast, Snapshot

MOST_KINDS = 10_000
"""Different sums held at once; beyond them, addresses and queries of a caller are not told apart."""

MOST_STRANGERS = 100
"""Different sums of callers without a key held at once; beyond them, they are counted together."""

STRANGERS = "public"
UNTOLD = "…"
"""Stands for what is not told apart."""

log = structlog.get_logger(__name__)


class Inferred(NamedTuple):
    """The model that ran on what a caller sent; ``digest`` is that of its bundle."""

    task: str
    version: str
    digest: str


class Asked(NamedTuple):
    """What is summed. ``answered_from`` names the forecasts that were published then, or the one of the history that
    was asked for, by their digests; ``model`` is the one that ran, where one did."""

    who: str
    method: str
    path: str
    query: str
    status: int
    answered_from: tuple[str, ...] = ()
    model: Inferred | None = None


def rests_on(scope: Scope, basis: Forecast | Inferred) -> None:
    """Lets the ledger know what an answer is made from, where that is not what is published now."""
    scope.setdefault("state", {})["basis"] = basis


class Ledger:
    """Collects entries and writes them in a thread of its own."""

    def __init__(
        self,
        audit: AuditLog,
        snapshot: Callable[[], Snapshot | None],
        seconds: float,
        failed: Callable[[], None] = lambda: None,
    ):
        """``failed`` is told each time that the log could not be written."""
        self.audit = audit
        self.snapshot = snapshot
        self.seconds = seconds
        self.failed = failed
        self._asked: Counter[Asked] = Counter()
        self._strangers: Counter[Asked] = Counter()
        self._published: dict[str, dict[str, Any]] = {}
        self._recalled: dict[str, dict[str, Any]] = {}
        self._told: set[str] = set()
        self._last: tuple[Snapshot | None, tuple[str, ...]] = (None, ())
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def note(
        self,
        who: str,
        method: str,
        path: str,
        query: str,
        status: int,
        basis: Forecast | Inferred | None = None,
        *,
        known: bool = True,
    ) -> None:
        """Sums one request; quick, and safe from any thread. ``basis`` is what :func:`rests_on` was told; ``known``
        says that the caller proved who it is."""
        digests, model = self._basis(basis)
        asked = Asked(who, method, path, query, status, digests if method in ("GET", "HEAD") else (), model)
        with self._lock:
            sums, most = (self._asked, MOST_KINDS) if known else (self._strangers, MOST_STRANGERS)
            if asked not in sums and len(sums) >= most:
                asked = Asked(who if known else STRANGERS, method, UNTOLD, "", status)
            sums[asked] += 1

    def record(self, who: str, what: str, **details: Any) -> None:
        """Writes one entry now. Raises :class:`StoreUnavailable`."""
        with self._writing:
            try:
                self.audit.append([entry(who, what, **details)])
            except StoreUnavailable:
                self.failed()
                raise

    def flush(self) -> None:
        """Writes what was summed; what cannot be written now is kept for the next time."""
        with self._writing:
            self._digests()
            with self._lock:
                asked, self._asked = self._asked, Counter()
                strangers, self._strangers = self._strangers, Counter()
                published, self._published = self._published, {}
                recalled, self._recalled = self._recalled, {}
            entries = [entry("service", "forecast published", **told) for told in published.values()]
            entries += [entry("service", "forecast recalled", **told) for told in recalled.values()]
            entries += [entry(a.who, "asked", **_told(a), count=n) for a, n in (*asked.items(), *strangers.items())]
            if not entries:
                return
            try:
                head = self.audit.append(entries)
            except StoreUnavailable:
                with self._lock:
                    self._asked.update(asked)
                    self._strangers.update(strangers)
                    self._published = {**published, **self._published}
                    self._recalled = {**recalled, **self._recalled}
                self.failed()
                log.warning("the audit log cannot be written now", entries=len(entries))
            else:
                log.info("audit head", number=head.number, seal=head.seal)

    def _basis(self, basis: Forecast | Inferred | None) -> tuple[tuple[str, ...], Inferred | None]:
        """Digests of the forecasts that an answer is made from, and the model that ran for it."""
        digests = self._digests()
        if isinstance(basis, Inferred):
            return (), basis
        if basis is None:
            return digests, None
        with self._lock:
            if basis.digest not in self._told and len(self._recalled) < MOST_KINDS:
                self._recalled[basis.digest] = _description(basis)
        return (basis.digest,), None

    def _digests(self) -> tuple[str, ...]:
        """Digests of what is published now; each forecast is told in full once."""
        snapshot = self.snapshot()
        last, digests = self._last
        if snapshot is last:
            return digests
        forecasts = snapshot.forecasts.values() if snapshot else ()
        digests = tuple(forecast.digest for forecast in forecasts)
        with self._lock:
            for forecast in forecasts:
                if forecast.digest not in self._told:
                    self._published[forecast.digest] = _description(forecast)
            self._told = set(digests)
        self._last = (snapshot, digests)
        return digests

    def _loop(self) -> None:
        while not self._stop.wait(self.seconds):
            self.flush()


def _told(asked: Asked) -> Mapping[str, Any]:
    details = asked._asdict()
    del details["who"], details["model"]
    return details if asked.model is None else {**details, "model": asked.model._asdict()}


def _description(forecast: Forecast) -> dict[str, Any]:
    """Which model answered and from which inputs."""
    newest, weather, traffic = forecast.inputs.newest, forecast.inputs.weather, forecast.inputs.traffic
    return {
        "digest": forecast.digest,
        "task": forecast.task.name,
        "issued": utc(forecast.issued),
        "bundle": forecast.bundle,
        "source": forecast.source,
        "reason": forecast.reason,
        "inputs_seen": round(forecast.inputs.seen, 4),
        "inputs_newest": None if newest is None else utc(newest),
        **({} if weather is None else {"weather_issued": [utc(time) for time in weather.issued]}),
        **({} if traffic is None else {"traffic_issued": traffic.issued and utc(traffic.issued)}),
        **({} if traffic is None else {"traffic_bundle": traffic.bundle}),
    }
