"""Reads: what asking for a forecast costs beside a FastAPI route that returns the same bytes from a constant."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_serving.bench.cities import enlarged, fill
from citybrain_serving.bench.client import Load, load, request
from citybrain_serving.bench.constant import answering
from citybrain_serving.bench.processes import service
from citybrain_serving.bench.records import Notebook

CASE = "read of 500 segments"
ISSUED = pd.Timestamp("2026-03-10T08:00Z")
SEED = 11


def measure(
    book: Notebook,
    bundle: Bundle,
    folder: Path,
    *,
    segments: int = 500,
    callers: int = 8,
    seconds: float = 3,
    repetitions: int = 5,
    questions: int = 2_000,
) -> None:
    """``segments`` of a forecast, asked for by ``callers`` at once: answered anew, with 304, and, ``questions``
    different ones in turn, without an answer at hand. Each repetition asks one server after the other."""
    town = enlarged(bundle, segments).write(folder / "read" / "bundle")
    fill(town, folder / "read" / "store.sqlite", ISSUED)
    path = f"/v1/forecasts/{town.task.name}"
    with ExitStack() as stack:
        ours = stack.enter_context(
            service([folder / "read" / "bundle"], folder / "read" / "store.sqlite", ready="/readyz")
        )
        answer = httpx.get(ours.url + path, headers={"Accept-Encoding": "identity"}).raise_for_status()
        (folder / "read" / "body").write_bytes(answer.content)
        theirs, bare = (stack.enter_context(answering(kind, folder / "read")) for kind in ("fastapi", "bare"))
        about = f"{callers} callers, {len(answer.content)} bytes, medians of {repetitions} times {seconds:g} s"
        tags = answer.headers["etag"], httpx.get(f"{theirs.url}/constant").headers["etag"]
        for case, status in ((CASE, 200), (f"{CASE}, 304", 304)):
            headers: list[dict[str, str]] = [{"If-None-Match": tag} if status == 304 else {} for tag in tags]
            asked = (
                (ours.port, [request("GET", path, headers[0])]),
                (theirs.port, [request("GET", "/constant", headers[1])]),
            )
            loads: tuple[list[Load], list[Load]] = ([], [])
            for _ in range(repetitions):
                for (port, requests), done in zip(asked, loads, strict=True):
                    done.append(_all(load(port, requests, callers=callers, seconds=seconds), status))
            _compare(book, case, *loads, about)
        most = load(bare.port, [request("GET", "/")], callers=callers, seconds=seconds)
        note = f"the same bytes from the barest ASGI application; {callers} callers"
        book.add(CASE, "load generator", "throughput", most.throughput, "1/s", note=note)
        varied = [request("GET", f"{path}?ids={','.join(ids)}") for ids in _choices(town, segments // 2, questions)]
        anew = _all(load(ours.port, varied, callers=callers, seconds=2 * seconds), 200)
        note = f"half of the segments, another half in each of {questions} requests; {callers} callers"
        book.add(f"{CASE}, chosen anew", "citybrain", "throughput", anew.throughput, "1/s", note=note)
        book.add(f"{CASE}, chosen anew", "citybrain", "p99", 1000 * anew.percentile(99), "ms", note=note)


def _compare(book: Notebook, case: str, ours: list[Load], theirs: list[Load], about: str) -> None:
    for subject, loads in (("citybrain", ours), ("constant route", theirs)):
        for share in (50, 99):
            value = float(np.median([1000 * done.percentile(share) for done in loads]))
            book.add(case, subject, f"p{share}", value, "ms", note=about)
        throughput = float(np.median([done.throughput for done in loads]))
        book.add(case, subject, "throughput", throughput, "1/s", note=about)
    pairs = list(zip(ours, theirs, strict=True))
    about = f"citybrain over the constant route; {about}"
    for metric, ratios in (
        ("p50_ratio", [a.percentile(50) / b.percentile(50) for a, b in pairs]),
        ("p99_ratio", [a.percentile(99) / b.percentile(99) for a, b in pairs]),
        ("throughput_ratio", [a.throughput / b.throughput for a, b in pairs]),
    ):
        book.add(case, "citybrain", metric, float(np.median(ratios)), "1", note=about)


def _all(done: Load, status: int) -> Load:
    assert set(done.statuses) == {status}, f"answers were {done.statuses}, not {status} alone"
    return done


def _choices(bundle: Bundle, count: int, questions: int) -> list[list[str]]:
    random, ids = np.random.default_rng(SEED), np.asarray(bundle.city.ids("road"))
    return [ids[np.sort(random.permutation(len(ids))[:count])].tolist() for _ in range(questions)]
