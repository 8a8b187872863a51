"""Bundles swapped while callers read and infer: no request fails, and memory comes back."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_serving.bench.cities import fill
from citybrain_serving.bench.processes import service, wait_for
from citybrain_serving.bench.records import Notebook

SETTLED = 20
"""Swaps after which memory is looked at first: caches are full and both bundles were loaded once."""

READERS, CALLERS = 2, 1


def measure(book: Notebook, bundle: Bundle, folder: Path, *, swaps: int = 200) -> None:
    """``swaps`` of one bundle for a copy of it under another digest, a cycle after each, under constant load."""
    root, store = folder / "swaps" / "models", folder / "swaps" / "store.sqlite"
    task = bundle.task
    for name in "ab":
        replace(bundle, card=f"copy {name}\n{bundle.card}", digest="").write(root / name)
    fill(bundle, store, pd.Timestamp("2026-03-02 08:00", tz="UTC"))
    statuses: Counter[int] = Counter()
    settled = min(SETTLED, swaps)
    failures: list[str] = []
    settings = {"bundle_root": root, "rate_per_second": 1e9}
    with service([root / "a"], store, settings=settings) as server:
        wait_for(server, "/readyz")
        ending = threading.Event()
        inputs = _inputs(server.url, task.name)

        def ask(which: int) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while not ending.is_set():
                    try:
                        answer = (
                            client.post(f"/v2/models/{task.name}/infer", json=inputs)
                            if which < CALLERS
                            else client.get(f"/v1/forecasts/{task.name}")
                        )
                        statuses[answer.status_code] += 1
                    except httpx.TransportError as error:
                        failures.append(type(error).__name__)

        threads = [threading.Thread(target=ask, args=(which,)) for which in range(CALLERS + READERS)]
        for thread in threads:
            thread.start()
        held = []
        with httpx.Client(base_url=server.url, timeout=120) as client:
            for number in range(swaps):
                answer = client.post(f"/v1/models/{task.name}/swap", json={"bundle": "ba"[number % 2]})
                statuses[answer.status_code] += 1
                if number + 1 in (settled, swaps):
                    held.append(server.resident())
        ending.set()
        for thread in threads:
            thread.join()
    wrong = len(failures) + sum(count for status, count in statuses.items() if status != 200)
    case, note = "model swaps under load", f"{swaps} swaps; {sum(statuses.values())} requests by {len(threads)} callers"
    book.add(case, "citybrain", "swaps", swaps, "1", note=note)
    book.add(case, "citybrain", "requests_failed", wrong, "1", note=note)
    book.add(case, "citybrain", "resident_memory", held[0] / 2**20, "MiB", note=f"after {settled} swaps")
    book.add(case, "citybrain", "memory_growth", held[-1] / held[0] - 1, "1", note=f"from swap {settled} to {swaps}")


def _inputs(url: str, model: str) -> dict[str, object]:
    """A request of zeros, one window, of the shapes that the model itself tells."""
    told = httpx.get(f"{url}/v2/models/{model}", timeout=30).raise_for_status().json()
    inputs = []
    for each in told["inputs"]:
        shape = [1, *each["shape"][1:]]
        inputs.append({"name": each["name"], "shape": shape, "datatype": each["datatype"],
                       "data": np.zeros(int(np.prod(shape))).tolist()})  # fmt: skip
    return {"inputs": inputs}
