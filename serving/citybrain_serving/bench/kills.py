"""``kill -9`` at random moments while readings come in: what was acknowledged is there, the store opens, the chain of
the audit log holds."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from citybrain_datasets.errors import CityBrainError
from citybrain_models.bundle import Bundle
from citybrain_serving.bench.feed import Batch, Feed, Gateway, lost
from citybrain_serving.bench.processes import free_port
from citybrain_serving.bench.records import Notebook
from citybrain_serving.database import open_engine
from citybrain_serving.safety.audit import AuditLog, Broken
from citybrain_serving.settings import PREFIX

LATEST_S = 1.5
"""A server is killed within this time of its first acknowledgement; cycles, audit entries and scores fall into it."""

GATEWAYS = 2

STARTED_WITHIN_S = 120.0

SERVERS = multiprocessing.get_context("forkserver")
"""Each server is a process of its own, forked from one that has imported what they all need: a hundred starts
would otherwise be a hundred times pandas and pyarrow."""
SERVERS.set_forkserver_preload(["citybrain_serving.commands"])


def measure(book: Notebook, bundle: Bundle, folder: Path, *, kills: int = 100) -> None:
    """One store, one server after another. Raises nothing for a loss: it is a number."""
    home, store = folder / "kills" / "bundle", str(folder / "kills" / "store.sqlite")
    bundle = bundle.write(home)
    feed, random = Feed(bundle), np.random.default_rng(1)
    every: list[Batch] = []
    missing = broken = entries = 0
    for _ in range(kills):
        port = free_port()
        process = SERVERS.Process(target=_serve, args=(home, store, port), daemon=True)
        process.start()
        url = f"http://127.0.0.1:{port}"
        _until_alive(url, process.is_alive)
        gateways = [Gateway(url, feed) for _ in range(GATEWAYS)]
        ending = threading.Event()
        threads = [threading.Thread(target=gateway.run, args=(ending,)) for gateway in gateways]
        threads += [threading.Thread(target=_read, args=(url, bundle.task.name, ending))]
        for thread in threads:
            thread.start()
        ending.wait(float(random.uniform(0, LATEST_S)))
        process.kill()
        ending.set()
        process.join()
        for thread in threads:
            thread.join()
        fresh = [batch for gateway in gateways for batch in gateway.acknowledged]
        missing += lost(store, bundle, fresh)
        every += fresh
        found = AuditLog(open_engine(store)).verify()
        broken += isinstance(found, Broken)
        entries = entries if isinstance(found, Broken) else found.number
    case, note = (
        "kill-9 under ingest",
        f"{kills} kills, {len(every)} batches of {len(bundle.city.ids('road'))} readings",
    )
    book.add(case, "citybrain", "readings_acknowledged", sum(len(batch.values) for batch in every), "1", note=note)
    book.add(case, "citybrain", "readings_lost", missing + lost(store, bundle, every), "1", note=note)
    book.add(case, "citybrain", "audit_chains_broken", broken, "1", note=f"{note}; {entries} entries at the end")
    book.add(case, "citybrain", "failed_starts", 0, "1", note=f"{note}; a failed start ends the run")


def _serve(bundle: Path, store: str, port: int) -> None:
    """In the child: ``citybrain serve``, its log beside the store."""
    from citybrain_serving.commands import serve

    os.dup2(os.open(f"{store}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    os.environ |= {f"{PREFIX}AUDIT_SECONDS": "0.05", f"{PREFIX}RATE_PER_SECOND": "1e9"}
    serve([bundle], port=port, store=store, replay=True)


def _until_alive(url: str, running: Callable[[], bool]) -> None:
    """Raises :class:`CityBrainError` where a server does not start: the store could not be opened."""
    deadline = time.monotonic() + STARTED_WITHIN_S
    while running() and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/livez", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.02)  # not listening yet
    raise CityBrainError(f"{url}: the server did not start on the store that the one before left")


def _read(url: str, task: str, ending: threading.Event) -> None:
    """Reads that the audit log has something to say about."""
    with httpx.Client(base_url=url, timeout=30) as client:
        while not ending.is_set():
            try:
                client.get(f"/v1/forecasts/{task}")
            except httpx.TransportError:
                return
