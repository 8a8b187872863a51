"""One measurement each, in a process of its own: memory that one left behind must not be counted for another."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from citybrain_training.speed.cities import enlarged_features, enlarged_graph, enlarged_window, prepared

WARM_UP = 1
LEARNING_RATE = 1e-3


def infer(nodes: int, repeats: int, model: bytes, embedding: np.ndarray) -> dict[str, float]:
    """One window of ``nodes`` segments, features and network, as a server runs it: without torch, on one thread.

    Milliseconds of CPU time, and the most memory in MiB that the process ever held. ``embedding [node, …]`` are the
    grid's.
    """
    from citybrain_models.onnx_forecaster import open_session
    from citybrain_models.onnx_tensors import with_constants

    preparation = prepared()
    features = enlarged_features(preparation, nodes)
    window, _ = enlarged_window(preparation, nodes)
    graph = enlarged_graph({**preparation.graph, "embedding_road": embedding}, nodes)
    read = {node.name for node in open_session(model).get_inputs()}
    session = open_session(with_constants(model, {n: a for n, a in graph.items() if n in read}))
    names = [node.name for node in session.get_inputs()]
    arrays = features(window)

    def network() -> None:
        session.run(None, {name: arrays[name] for name in names})

    feature_ms, network_ms = interleaved([lambda: features(window), network], repeats)
    assert "torch" not in sys.modules
    return {"features_ms": feature_ms, "network_ms": network_ms, "memory_mib": peak_mib()}


def beside_torch(nodes: int, repeats: int, model: bytes, rounded: bytes, weights: dict[str, Any]) -> dict[str, float]:
    """ONNX Runtime, in floats and ``rounded`` to eight-bit integers, and eager torch on the same inputs of ``nodes``
    segments in turns, milliseconds of CPU time on one thread: of the network as it is trained, the faster way of
    passing messages, and of the arrangement that is exported, which torch gains from too."""
    import torch

    from citybrain_models.nn.inference import InferenceNet
    from citybrain_models.onnx_forecaster import open_session
    from citybrain_models.onnx_tensors import with_constants
    from citybrain_training.module import DENSE_UP_TO, build_network

    torch.set_num_threads(1)
    preparation = prepared()
    network = build_network(preparation).eval()
    network.load_state_dict(weights["network"])
    window, _ = enlarged_window(preparation, nodes)
    arrays = enlarged_features(preparation, nodes)(window)
    graph = enlarged_graph({**preparation.graph, "embedding_road": weights["embedding"]}, nodes)
    read = {node.name for node in open_session(model).get_inputs()}
    fixed = {n: a for n, a in graph.items() if n in read}
    session, integer = (open_session(with_constants(m, fixed)) for m in (model, rounded))
    feed = {node.name: arrays[node.name] for node in session.get_inputs()}
    tensors = {name: torch.from_numpy(array) for name, array in {**arrays, **graph}.items()}

    def eager(form: Any) -> Callable[[], None]:
        def run() -> None:
            network.form = form
            with torch.inference_mode():
                network(tensors)

        return run

    arranged = InferenceNet(network)

    def as_exported() -> None:
        with torch.inference_mode():
            arranged(tensors)

    forms = ("gather", "dense") if nodes <= DENSE_UP_TO else ("gather",)
    runs = [lambda: session.run(None, feed), lambda: integer.run(None, feed), as_exported, *map(eager, forms)]
    runtime, small, alike, *torches = interleaved(runs, repeats)
    torch_ms = min(torches)
    return {
        "runtime_ms": runtime, "torch_ms": torch_ms, "torch_over_runtime": torch_ms / runtime,
        "runtime_int8_ms": small, "torch_over_runtime_int8": torch_ms / small, "torch_as_exported_ms": alike,
    }  # fmt: skip


def train_step(nodes: int, repeats: int) -> dict[str, float]:
    """Forward, backward and the optimiser's step on one window of ``nodes`` segments, milliseconds of CPU
    time on one thread."""
    import torch

    from citybrain_training.module import ForecastModule, build_network

    torch.set_num_threads(1)
    preparation = prepared()
    window, answer = enlarged_window(preparation, nodes)
    arrays = enlarged_features(preparation, nodes)(window)
    graph = enlarged_graph(preparation.graph, nodes)
    module = ForecastModule(build_network(preparation), preparation).train()
    size = preparation.config.network.embedding
    fixed = {**graph, "embedding_road": 0.1 * np.random.default_rng(0).normal(size=(nodes, size)).astype(np.float32)}
    tensors = {name: torch.from_numpy(array) for name, array in {**arrays, **fixed}.items()}
    tensors["embedding_road"].requires_grad_()
    truth = torch.from_numpy(np.ascontiguousarray(answer.transpose(0, 2, 1)))
    optimizer = torch.optim.AdamW([*module.network.parameters(), tensors["embedding_road"]], LEARNING_RATE)
    # The form whose cost follows the edges; the filled adjacency is quicker on a few hundred segments alone.
    module.network.form = "sparse"

    def step() -> None:
        optimizer.zero_grad()
        module.loss(module.network(tensors), truth).backward()
        optimizer.step()

    (step_ms,) = interleaved([step], repeats)
    return {"step_ms": step_ms, "memory_mib": peak_mib()}


def interleaved(runs: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median milliseconds of CPU time of each, which on one thread is the time it takes where nothing else runs. Taken
    in turns, so that a noisy moment hits all alike; the first round is not counted."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(WARM_UP + repeats):
        for run, found in zip(runs, times, strict=True):
            began = time.process_time()
            run()
            if turn >= WARM_UP:
                found.append(1_000 * (time.process_time() - began))
    return [float(np.median(found)) for found in times]


def peak_mib() -> float:
    """The most memory that this process ever held. The kernel's own count: that of ``getrusage`` begins with what the
    parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
