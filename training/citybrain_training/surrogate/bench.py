"""The surrogate's benchmark: accuracy against the simulation beside peers, other networks, speed and resuming."""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from citybrain_datasets.scenarios.dataset import simulate
from citybrain_datasets.scenarios.mixed import random_scenario
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import SurrogateError
from citybrain_models.surrogate.scorer import BATCH, Scorer
from citybrain_training.fitting import load_weights
from citybrain_training.surrogate import judging, peers
from citybrain_training.surrogate.config import SurrogateConfig
from citybrain_training.surrogate.fitting import fit_surrogate
from citybrain_training.surrogate.module import SurrogateModule, build_network
from citybrain_training.surrogate.pipeline import SHARES, make_bundle
from citybrain_training.surrogate.runs import Study, split

FINE_TUNING = 20
"""Runs of another network that a fine-tuned surrogate has seen."""
KILLS = 10


@dataclass
class Record:
    """Figures as they were measured: ``tables`` by subject, each by outcome; ``figures`` all else."""

    tables: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"tables": self.tables, **self.figures}, indent=1, ensure_ascii=False) + "\n"
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_text(content, encoding="utf-8")
        os.replace(part, path)


def bench(
    study: Study, training: Path, others: Sequence[Study] = (), *, with_peers: bool = True, speed: int = 2_000
) -> Record:
    """Measures the surrogate of the folder ``training`` (as ``train-surrogate`` leaves it) on the runs that it has not
    seen, and on ``others``, which it has not either."""
    bundle = SurrogateBundle.read(training / "bundle")
    config = SurrogateConfig.model_validate_json((training / "config.json").read_text(encoding="utf-8"))
    train, calibrate, test = split(_as_trained(study, bundle), SHARES, config.seed)
    step = judging.bundle_step(bundle)
    true = judging.truth(test, step)
    record = Record()
    record.tables["surrogate"] = judging.table(judging.judge(bundle)(test, step), true)
    if with_peers:
        record.tables["linear"] = judging.table(peers.linear(train, step)(test, step), true)
        record.tables["assignment (BPR)"] = judging.table(peers.assignment(test, step), true)
    for other in others:
        record.tables |= _elsewhere(other, config, training, train, calibrate)
    record.figures = {
        "runs": {"train": len(train.runs), "calibrate": len(calibrate.runs), "test": len(test.runs)},
        "base_spread_between_days": dict(judging.noise(study, step)),
        "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, shared",
        "surrogate": bundle.version,
    }
    if speed:
        record.figures["speed"] = measure_speed(study, bundle, speed)
        record.figures["kills"] = measure_kills(training / "bundle", bundle.city.name)
    return record


def measure_speed(study: Study, bundle: SurrogateBundle, count: int) -> dict[str, float]:
    """Scenarios a second, of the whole scoring and of ONNX Runtime alone on the same batches, on one thread; seconds
    of one simulation; and the most memory that this process has held, MB."""
    scorer = Scorer(bundle)
    scenarios = [random_scenario(bundle.city, bundle.window, 99, i) for i in range(count)]
    scorer(scenarios[:BATCH])
    begun = time.perf_counter()
    scorer(scenarios)
    scored = time.perf_counter() - begun
    batches = [
        {"levers": said.levers, "closed": said.closed, **scorer.fixed}
        for said in (
            scorer.levers(scenarios[i : i + BATCH], scorer.base.flow) for i in range(0, min(count, 512), BATCH)
        )
    ]
    begun = time.perf_counter()
    for batch in batches:
        scorer.session.run(None, batch)
    raw = (time.perf_counter() - begun) * count / min(count, 512)
    begun = time.perf_counter()
    for number in range(3):
        simulate(study.site, scenarios[number], 0, bundle.window)
    simulated = (time.perf_counter() - begun) / 3
    return {
        "scenarios": count,
        "scenarios_per_second": count / scored,
        "onnxruntime_scenarios_per_second": count / raw,
        "share_of_onnxruntime": raw / scored,
        "simulation_seconds": simulated,
        "times_faster_than_simulation": simulated * count / scored,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_kills(bundle: Path, city: str, times: int = KILLS, count: int = 2_000) -> dict[str, int]:
    """Scores a sweep of ``count`` scenarios once undisturbed, and ``times`` times killed at a random moment and then
    finished; counts the rankings that came out the same, byte for byte."""
    entry = {
        "id": "kills",
        "sample": {"count": count, "seed": 1, "draw": {"factor": {"uniform": [0.7, 1.1]}}},
        "measures": [{"lever": "demand", "factor": "$factor"}],
    }
    draw = random.Random(7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
        begun = time.perf_counter()
        whole = _scored(folder, bundle, city, "whole")
        seconds, same, cut = time.perf_counter() - begun, 0, 0
        for number in range(times):
            process = _start(folder, bundle, city, f"killed{number}")
            try:
                process.wait(draw.uniform(0.3, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                cut += 1
            same += _scored(folder, bundle, city, f"killed{number}") == whole
    return {"times": times, "killed_before_the_end": cut, "byte_identical": same, "scenarios": count}


def _scored(folder: Path, bundle: Path, city: str, name: str) -> bytes:
    process = _start(folder, bundle, city, name)
    if process.wait() != 0:
        raise SurrogateError(f"citybrain score ended with {process.returncode}")
    return (folder / f"{name}.parquet").read_bytes()


def _start(folder: Path, bundle: Path, city: str, name: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "citybrain_datasets.main", "score", str(folder / "sweep.jsonl"), "--city", city,
        "--surrogate", str(bundle.absolute()), "--out", str(folder / f"{name}.parquet"), "--workers", "1",
        "--no-report",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _elsewhere(
    other: Study, config: SurrogateConfig, training: Path, train: Study, calibrate: Study
) -> dict[str, dict[str, dict[str, float]]]:
    """The surrogate on a road network it was not trained on: as it is, and after 20 runs there."""
    order = np.random.default_rng(config.seed).permutation(len(other.runs))
    seen, rest = other.part(np.sort(order[:FINE_TUNING])), other.part(np.sort(order[FINE_TUNING:]))
    if not len(rest.runs):
        return {}
    network = build_network(config, train)
    module = SurrogateModule(network, config, [train])
    load_weights(module, training / "fit" / "best.ckpt")  # type: ignore[arg-type]  # it needs no more than a module
    tables = {}
    name = other.site.city.name
    for title in (f"{name}, unseen", f"{name}, {FINE_TUNING} runs"):
        bundle = make_bundle(network, config, train, calibrate if title.endswith("unseen") else seen, place=other)
        step = judging.bundle_step(bundle)
        tables[title] = judging.table(judging.judge(bundle)(rest, step), judging.truth(rest, step))
        if title.endswith("unseen"):
            slow = config.model_copy(update={"learning_rate": config.learning_rate / 5, "epochs": 40, "minutes": 3.0})
            with tempfile.TemporaryDirectory() as folder:
                network = fit_surrogate([seen], [seen], slow, Path(folder), start=network).network
    return tables


def _as_trained(study: Study, bundle: SurrogateBundle) -> Study:
    """The runs that the training had, in its order, so that what it held out stays held out."""
    known = set(bundle.metrics["scenarios"])
    rows = np.array([i for i, run in enumerate(study.runs) if run.scenario.id in known])
    if len(rows) != len(known):
        raise SurrogateError(f"of the {len(known)} runs that the surrogate was made from, {len(rows)} are here")
    return replace(study.part(rows))
