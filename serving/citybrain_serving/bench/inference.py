"""Inference over HTTP: what it adds to running the network, what batching brings, and two other servers beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx
import numpy as np
import orjson
import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.bench.cities import enlarged, fill
from citybrain_serving.bench.client import Load, load, request
from citybrain_serving.bench.constant import answering
from citybrain_serving.bench.peers import Peer, peers_here, with_graph_inside
from citybrain_serving.bench.processes import Server, service
from citybrain_serving.bench.records import Notebook
from citybrain_serving.inference.network import unmeasured
from citybrain_serving.inference.wire import HEADER, decode

ISSUED = pd.Timestamp("2026-03-10T08:00Z")
CALLERS = 32
SIZES = (20, 190, 1_000)
"""Road segments: as many nodes as a city has air stations, where what a run costs beside its rows is most of it; a
district; and a city whose network takes long enough for HTTP to be small beside it."""

BESIDE = 190
"""Segments at which other servers are asked too: of a larger network many callers would wait for them longer than a
measurement lasts."""


def measure(
    book: Notebook,
    bundle: Bundle,
    folder: Path,
    *,
    sizes: Sequence[int] = SIZES,
    beside: int = BESIDE,
    seconds: float = 2.5,
    repetitions: int = 3,
    peers: Sequence[Peer] | None = None,
) -> None:
    """One window of each size, as binary tensors: alone, and ``CALLERS`` at once with batching and without.

    The other servers get the same network with the graph inside, and JSON, which is what they speak; the service is
    asked in JSON too. Inference runs with one thread everywhere.
    """
    for size in sizes:
        town = enlarged(bundle, size).write(folder / f"infer-{size}" / "bundle")
        store = folder / f"infer-{size}" / "store.sqlite"
        fill(town, store, ISSUED)
        forecaster = OnnxForecaster(town)
        features = forecaster.features(unmeasured(forecaster.features, town))
        feed = {name: features[name] for name in forecaster.inputs if name in features}
        head, body = binary_body(feed)
        target = f"/v2/models/{town.task.name}/infer"
        asked = request("POST", target, {HEADER: str(head), "Content-Type": "application/octet-stream"}, body)
        plain = request("POST", target, {"Content-Type": "application/json"}, json_body(feed))
        with ExitStack() as stack:
            start = stack.enter_context
            batched, single = (start(_service(town, folder / f"infer-{size}", rows)) for rows in (CALLERS, 1))
            ports = {"citybrain": (batched.port, plain)}
            for peer in () if size != beside else peers_here() if peers is None else peers:
                model = with_graph_inside(town)
                server = start(peer.running(model, feed, folder / f"infer-{size}"))
                ports[peer.name] = (server.port, request("POST", peer.path, JSON_HEADERS, peer.body(feed)))
            case = f"inference, {size:,} segments"
            _floor(book, case, (batched.port, asked), folder / f"infer-{size}", seconds, repetitions)
            _alone(book, case, forecaster, (batched.port, asked), (head, body), seconds, repetitions)
            _together(book, case, batched.port, single.port, asked, seconds, repetitions)
            for callers in (1, CALLERS) if size == beside else ():
                _beside(book, f"{case}, JSON, {callers} callers", ports, callers, seconds, repetitions)


JSON_HEADERS = {"Content-Type": "application/json"}


def binary_body(feed: dict[str, np.ndarray]) -> tuple[int, bytes]:
    """Length of the JSON, and a whole request that asks for binary tensors as well."""
    entries = [
        {"name": name, "datatype": "FP32", "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
        for name, array in feed.items()
    ]
    head = orjson.dumps({"inputs": entries, "parameters": {"binary_data_output": True}})
    return len(head), head + b"".join(array.tobytes() for array in feed.values())


def json_body(feed: dict[str, np.ndarray]) -> bytes:
    """The same request without binary tensors."""
    entries = [
        {"name": name, "datatype": "FP32", "shape": array.shape, "data": array.reshape(-1)}
        for name, array in feed.items()
    ]
    return orjson.dumps({"inputs": entries}, option=orjson.OPT_SERIALIZE_NUMPY)


def _service(town: Bundle, folder: Path, rows: int) -> AbstractContextManager[Server]:
    settings = {"infer_rows": rows, "threads": 1, "max_body_bytes": 2**28}
    return service([folder / "bundle"], folder / "store.sqlite", settings=settings, ready="/v2/health/ready")


def _floor(book: Notebook, case: str, asked: tuple[int, bytes], folder: Path, seconds: float, repetitions: int) -> None:
    """What the way there and back takes by itself: the same bytes in and out of the barest ASGI application."""
    head, _, body = asked[1].partition(b"\r\n\r\n")
    target, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    url = f"http://127.0.0.1:{asked[0]}{target.split()[1]}"
    (folder / "body").write_bytes(httpx.post(url, content=body, headers=headers, timeout=60).raise_for_status().content)
    with answering("bare", folder) as bare:
        done = [_good(load(bare.port, [asked[1]], callers=1, seconds=seconds)) for _ in range(repetitions)]
    p50 = float(np.median([1000 * one.percentile(50) for one in done]))
    note = f"the same bytes in and out, nothing computed; medians of {repetitions} times {seconds:g} s"
    book.add(case, "uvicorn alone", "p50", p50, "ms", note=note)


def _alone(
    book: Notebook,
    case: str,
    forecaster: OnnxForecaster,
    asked: tuple[int, bytes],
    body: tuple[int, bytes],
    seconds: float,
    repetitions: int,
) -> None:
    graph, names = forecaster.bundle.graph, [output.name for output in forecaster.session.get_outputs()]
    bare, inside, http = [], [], []
    for _ in range(repetitions):
        bare.append(_median(lambda feed: forecaster.session.run(names, {**graph, **feed}), *body, seconds))
        inside.append(_median(forecaster.run, *body, seconds))
        http.append(_good(load(asked[0], [asked[1]], callers=1, seconds=seconds)).percentile(50))
    about = f"binary tensors, {len(body[1])} bytes, one after the other; medians of {repetitions} times {seconds:g} s"
    for subject, found in (("bare session", bare), ("bare session, graph inside", inside), ("citybrain", http)):
        book.add(case, subject, "p50", 1000 * float(np.median(found)), "ms", threads=1, note=about)
    for metric, session, what in (
        ("single_stream_ratio", bare, "the bare session, fed the same input and the bundle's graph"),
        ("single_stream_ratio_inside", inside, "a bare session that has the graph inside, as the service's own has"),
    ):
        ratio = float(np.median([a / b for a, b in zip(http, session, strict=True)]))
        book.add(case, "citybrain", metric, ratio, "1", threads=1, note=f"over {what}; {about}")


def _median(run: Callable[[dict[str, np.ndarray]], object], head: int, body: bytes, seconds: float) -> float:
    """Median seconds of decoding and running, in this process and with nothing else."""
    took = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        begun = time.perf_counter()
        run(decode(body, str(head)).inputs)
        took.append(time.perf_counter() - begun)
    return float(np.median(took))


def _together(
    book: Notebook, case: str, batched: int, single: int, asked: bytes, seconds: float, repetitions: int
) -> None:
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        for port, found in zip((batched, single), rates, strict=True):
            found.append(_good(load(port, [asked], callers=CALLERS, seconds=seconds)).throughput)
    note = f"binary tensors, {CALLERS} callers, medians of {repetitions} times {seconds:g} s"
    for subject, found in zip(("citybrain", "citybrain, batches of one"), rates, strict=True):
        book.add(case, subject, "throughput", float(np.median(found)), "1/s", threads=1, note=note)
    ratio = float(np.median([a / b for a, b in zip(*rates, strict=True)]))
    book.add(case, "citybrain", "batching_ratio", ratio, "1", threads=1, note=f"over batches of one; {note}")


def _beside(
    book: Notebook, case: str, ports: dict[str, tuple[int, bytes]], callers: int, seconds: float, repetitions: int
) -> None:
    loads: dict[str, list[Load]] = {name: [] for name in ports}
    for _ in range(repetitions):
        for name, (port, asked) in ports.items():
            loads[name].append(_good(load(port, [asked], callers=callers, seconds=seconds)))
    note = f"JSON both ways, medians of {repetitions} times {seconds:g} s"
    for name, done in loads.items():
        p50 = float(np.median([1000 * one.percentile(50) for one in done]))
        book.add(case, name, "p50", p50, "ms", threads=1, note=note)
        rate = float(np.median([one.throughput for one in done]))
        book.add(case, name, "throughput", rate, "1/s", threads=1, note=note)


def _good(done: Load) -> Load:
    assert set(done.statuses) == {200}, f"answers were {done.statuses}"
    return done
