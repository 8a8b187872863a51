"""The surrogate's benchmark: accuracy against the simulation beside peers, other networks, speed and resuming."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from citybrain_datasets.records import Record, circumstances
from citybrain_datasets.scenarios.dataset import simulate
from citybrain_datasets.scenarios.mixed import random_scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import SurrogateError
from citybrain_models.surrogate.scorer import BATCH, Scorer
from citybrain_training.fitting import load_weights
from citybrain_training.surrogate import judging, peers
from citybrain_training.surrogate.config import SurrogateConfig
from citybrain_training.surrogate.fitting import fingerprint, fit_surrogate
from citybrain_training.surrogate.module import SurrogateModule, build_network
from citybrain_training.surrogate.pipeline import judged, make_bundle
from citybrain_training.surrogate.runs import Parts, Study, parts

FINE_TUNING = 20
"""Runs of another network that a fine-tuned surrogate has seen."""
KILLS = 10


UNITS = {**{o.name: o.unit for o in OUTCOMES.values()}, "stations": "µg/m³"}
RATIOS = {"spearman": "1", "median_error_in_spreads": "spreads", "coverage": "1"}
"""Metrics without the unit of their outcome."""


def bench(
    study: Study, training: Path, others: Sequence[Study] = (), *, command: str, with_peers: bool = True
) -> list[Record]:
    """Records of the surrogate in the folder ``training`` (as ``train-surrogate`` leaves it) on the scenarios that it
    has not seen, beside peers, and on the networks of ``others``, which it has not seen either.

    Raises :class:`SurrogateError` where ``study`` holds other runs than those that it was trained on.
    """
    bundle = SurrogateBundle.read(training / "bundle")
    config = SurrogateConfig.model_validate_json((training / "config.json").read_text(encoding="utf-8"))
    drawn = parts(study, config.seed)
    if fingerprint(drawn.train) != bundle.fingerprint:
        raise SurrogateError(f"{training}: the surrogate was trained on other runs than these")
    test, step = drawn.test, judging.bundle_step(bundle)
    each = judging.truth(test, step)
    true = judging.expected(test, each)
    tables = {"surrogate": judging.table(judging.expected(test, judging.judge(bundle)(test, step)), true)}
    if with_peers:
        for name, judge in (
            ("linear model", peers.linear(drawn.train, step)),
            ("static assignment (BPR)", peers.assignment),
        ):
            tables[name] = judging.table(judging.expected(test, judge(test, step)), true)
    if (sides := judging.halves(test, each)) is not None:
        tables["SUMO, other mornings"] = judging.table(*sides)
    note = f"surrogate {bundle.version}; scenarios: {drawn.counts}; {_mornings(test)}"
    records = _records(f"what-if/{study.site.city.name}", tables, note)
    for other in others:
        records += _elsewhere(other, config, training, drawn)
    about = {"command": command, **circumstances()}
    return [{**record, **about} for record in records]


def _mornings(study: Study) -> str:
    each = np.bincount(study.scenario)
    return (
        f"truth is the mean of {each.min()} simulated mornings" if each.min() > 1 else "truth is one simulated morning"
    )


def _records(case: str, tables: Mapping[str, Mapping[str, Mapping[str, float]]], note: str) -> list[Record]:
    return [
        {"case": case, "subject": subject, "metric": f"{outcome} change, {metric.replace('_', ' ')}", "value": value,
         "unit": RATIOS.get(metric, UNITS[outcome]), "note": note}
        for subject, table in tables.items() for outcome, row in table.items() for metric, value in row.items()
    ]  # fmt: skip


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


def _elsewhere(other: Study, config: SurrogateConfig, training: Path, drawn: Parts) -> list[Record]:
    """The surrogate on a road network it was not trained on: as it is, and after 20 runs there."""
    often = np.bincount(other.scenario)[other.scenario] > 1
    order = np.random.default_rng(config.seed).permutation(np.flatnonzero(~often))
    seen = other.part(np.sort(order[:FINE_TUNING]))
    rest = other.part(np.flatnonzero(often) if often.any() else np.sort(order[FINE_TUNING:]))
    if not len(rest.runs):
        raise SurrogateError(f"{other.site.city.name}: no run left to judge by beside the {FINE_TUNING} to learn from")
    network = build_network(config, drawn.train)
    module = SurrogateModule(network, config, [drawn.train])
    load_weights(module, training / "fit" / "best.ckpt")  # type: ignore[arg-type]  # it needs no more than a module
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for subject in ("surrogate, network unseen", f"surrogate, {FINE_TUNING} runs of the network seen"):
        calibrate = seen if tables else drawn.calibrate
        bundle = make_bundle(network, config, drawn.train, calibrate, place=other)
        tables[subject] = judging.table(*judged(bundle, rest))
        if len(tables) == 1:
            slow = config.model_copy(update={"learning_rate": config.learning_rate / 5, "epochs": 40, "minutes": 3.0})
            with tempfile.TemporaryDirectory() as folder:
                network = fit_surrogate([seen], [seen], slow, Path(folder), start=network).network
    step = judging.bundle_step(bundle)
    if (sides := judging.halves(rest, judging.truth(rest, step))) is not None:
        tables["SUMO, other mornings"] = judging.table(*sides)
    return _records(
        f"what-if/{other.site.city.name}", tables, f"{len(set(rest.scenario))} scenarios; {_mornings(rest)}"
    )
