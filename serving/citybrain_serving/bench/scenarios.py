"""How fast measures are scored: beside ONNX Runtime alone, beside SUMO, by the hundred thousand, and after kills."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from threadpoolctl import threadpool_limits

from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.mixed import random_scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_datasets.scenarios.reading import read_scenarios
from citybrain_datasets.scenarios.site import open_site
from citybrain_datasets.scenarios.truth import simulate
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.scorer import BATCH, Scorer
from citybrain_serving.bench.physics import checks
from citybrain_serving.bench.records import Notebook
from citybrain_serving.scenarios.engine import Engine, LocalEngine, RayEngine, Work
from citybrain_serving.scenarios.parts import RunError
from citybrain_serving.scenarios.ranking import DEFAULT_WEIGHTS
from citybrain_serving.scenarios.run import score_to, surrogate_for
from citybrain_serving.scenarios.verify import REPLICATIONS, verify

REPEATS = 5
"""Times that either side of a ratio is measured, in turn; medians are told."""


class Bench:
    """Measures the surrogate in ``folder`` (the city's own by default) on ``city``, a name or a folder."""

    def __init__(self, notebook: Notebook, city: str, folder: Path | None = None):
        self.folder, self.city, self.notebook = surrogate_for(city, folder).absolute(), city, notebook
        self.bundle = SurrogateBundle.read(self.folder)
        self.case = f"what-if/{self.bundle.city.name}"
        self.about = f"{len(self.bundle.network.ids)} segments, surrogate {self.bundle.version}"

    def mixed(self, count: int) -> list[Scenario]:
        """Scenarios of one to four random measures, as the surrogate is tested on."""
        return [random_scenario(self.bundle.city, self.bundle.window, 99, i) for i in range(count)]

    def batches(self, count: int) -> None:
        """Scoring of ``count`` scenarios and ONNX Runtime alone on the same arrays, in turn; one thread of the
        network either way, beside which scoring keeps one of Python."""
        scorer, scenarios = Scorer(self.bundle), self.mixed(count)
        pieces = [scenarios[i : i + BATCH] for i in range(0, count, BATCH)]
        feeds = [
            {"levers": said.levers, "closed": said.closed, **scorer.fixed}
            for said in (scorer.levers(piece, scorer.base.flow) for piece in pieces)
        ]
        whole, network = [], []
        for _ in range(REPEATS):
            with threadpool_limits(1, "blas"):  # as every worker scores
                whole.append(_timed(lambda: scorer(scenarios)))
            network.append(_timed(lambda: [scorer.session.run(None, feed) for feed in feeds]))
        note = f"{count} mixed scenarios; {self.about}; median of {REPEATS}"
        for subject, seconds in (("scoring", whole), ("ONNX Runtime alone", network)):
            rate = count / _median(wall for wall, _ in seconds)
            self._add(subject, "scenarios per second", rate, "1/s", note, threads=1)
        pairs = list(zip(whole, network, strict=True))
        share, cpu = (_median(n[i] / w[i] for w, n in pairs) for i in (0, 1))
        self._add("scoring", "throughput as a part of ONNX Runtime's", share, "1", note)
        self._add("scoring", "CPU time of ONNX Runtime as a part of all", cpu, "1", note)

    def simulation(self, count: int) -> None:
        """Seconds that SUMO needs for a scenario, which gives the same outcomes."""
        site, scenarios = open_site(self.city), self.mixed(count)
        seconds = [_timed(lambda s=s: simulate(site, s, 0, self.bundle.window))[0] for s in scenarios]  # type: ignore[misc]  # mypy sees no type in a bound default
        note = f"median of {count} mixed scenarios, the base's run apart; {self.about}"
        self._add("SUMO", "seconds per scenario", _median(seconds), "s", note, threads=1)

    def physics(self) -> None:
        """What must hold whatever was learnt."""
        for name, value, unit in checks(Scorer(self.bundle)):
            self._add("surrogate", f"physics: {name}", value, unit, self.about)

    def verified(self, file: Path) -> None:
        """The scenarios of ``file``, each through SUMO as well: how far off the surrogate was, and which intervals
        held."""
        work = Work(read_scenarios(file), self.folder, self.city)
        with tempfile.TemporaryDirectory() as folder:
            ranked = score_to(work, Path(folder) / "ranking.parquet", DEFAULT_WEIGHTS, LocalEngine()).table
            rows = verify(work, ranked, ranked.num_rows, Path(folder)).to_pylist()
        note = f"{ranked.num_rows} scenarios of {file.name} on {REPLICATIONS} mornings; {self.about}"
        subject = "citybrain score --verify"
        for name in DEFAULT_WEIGHTS:
            off = [abs(row["off_by"]) for row in rows if row["outcome"] == name]
            self._add(subject, f"{name} change, median error", _median(off), OUTCOMES[name].unit, note)
        held = sum(row["held"] for row in rows) / len(rows)
        self._add(subject, "intervals that held, all outcomes", held, "1", note)

    def run(self, count: int, workers: int) -> None:
        """``citybrain score`` of ``count`` scenarios out of a sweep, from the file to the ranking on disk."""
        with self._sweep(count) as (folder, file), _Memory() as memory:
            process = _quietly(self._command(file, folder / "ranking.parquet", workers))
            memory.watch(process.pid)
            begun = time.perf_counter()
            if process.wait():
                raise RunError(f"citybrain score ended with {process.returncode}")
            seconds = time.perf_counter() - begun
        subject = f"citybrain score, {workers} worker{'s' * (workers > 1)}"
        note = f"a sweep of {count} scenarios of two measures; {self.about}"
        self._add(subject, f"seconds for {count}", seconds, "s", note, threads=workers)
        self._add(subject, "peak memory", memory.peak / 2**20, "MiB", note + "; resident, all processes together")

    def engines(self, count: int) -> None:
        """The same run by one and by two workers of Ray of one core each, workers warm."""
        rates = {workers: self._engine(RayEngine(None, workers), count) for workers in (1, 2)}
        for workers, rate in rates.items():
            note = f"a sweep of {count} scenarios; {self.about}"
            self._add(f"Ray, {workers} worker{'s' * (workers > 1)}", "scenarios per second", rate, "1/s", note)
        self._add("Ray", "two workers over one", rates[2] / rates[1], "1", f"{self.about}")

    def kills(self, times: int, count: int) -> None:
        """A run killed ``times`` times at a random moment and then finished: rankings that came out the same, byte for
        byte."""
        draw = random.Random(7)
        with self._sweep(count) as (folder, file):
            begun = time.perf_counter()
            whole = self._scored(file, folder / "whole.parquet")
            seconds, same, cut = time.perf_counter() - begun, 0, 0
            for number in range(times):
                out = folder / f"killed{number}.parquet"
                process = _quietly(self._command(file, out, 1))
                try:
                    process.wait(draw.uniform(0.3, 1.0) * seconds)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    cut += 1
                same += self._scored(file, out) == whole
        note = f"{cut} of {times} were killed before the end; {count} scenarios; {self.about}"
        self._add("citybrain score", "rankings the same after a kill", same, f"of {times}", note)

    def _engine(self, engine: RayEngine | LocalEngine, count: int) -> float:
        with self._sweep(count) as (folder, file):
            work = Work(read_scenarios(file), self.folder, self.city)
            chosen: Engine = engine
            for _ in chosen.run(work, range(min(4, work.chunks))):  # each worker opens its surrogate
                pass
            begun = time.perf_counter()
            score_to(work, folder / "ranking.parquet", DEFAULT_WEIGHTS, chosen)
            seconds = time.perf_counter() - begun
        if isinstance(engine, RayEngine):
            engine.ray.shutdown()
        return count / seconds

    @contextmanager
    def _sweep(self, count: int) -> Iterator[tuple[Path, Path]]:
        """A scratch folder, and a file in it with one sweep over demand and the limits of each class of road."""
        classes = sorted(set(self.bundle.city.nodes["road"]["road_class"].astype(str)))
        entry = {
            "id": "sweep",
            "sample": {
                "count": count, "seed": 1,
                "draw": {"factor": {"uniform": [0.7, 1.1]}, "kmh": {"integer": [25, 60]}, "class": {"choice": classes}},
            },
            "measures": [
                {"lever": "demand", "factor": "$factor"},
                {"lever": "speed_limit", "kmh": "$kmh", "where": {"road_class": "$class"}},
            ],
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "sweep.jsonl"
            file.write_text(json.dumps(entry) + "\n", encoding="utf-8")
            yield Path(name), file

    def _command(self, file: Path, out: Path, workers: int) -> list[str]:
        return [
            sys.executable, "-m", "citybrain_datasets.main", "score", str(file), "--city", self.city,
            "--surrogate", str(self.folder), "--out", str(out), "--workers", str(workers), "--no-report",
        ]  # fmt: skip

    def _scored(self, file: Path, out: Path) -> bytes:
        subprocess.run(self._command(file, out, 1), check=True, capture_output=True)
        return out.read_bytes()

    def _add(self, subject: str, metric: str, value: float, unit: str, note: str, threads: int | None = None) -> None:
        self.notebook.add(self.case, subject, metric, value, unit, threads=threads, note=note)


class _Memory:
    """The most memory that a process and its children hold together, sampled twice a second, bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Memory:
        return self

    def watch(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self, pid: int) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, sum(map(_resident, _family(pid))))


def _family(pid: int) -> Iterator[int]:
    """A process and those it started, by the kernel's lists (Linux)."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in found:
            yield from _family(int(child))


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds now, 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _quietly(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _median(values: Sequence[float] | Iterator[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
