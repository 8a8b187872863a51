"""Who does the work: processes of this machine, or a Ray cluster. The pieces are the same, and so is the result."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from threadpoolctl import threadpool_limits

from citybrain_datasets.errors import installing
from citybrain_datasets.processes import end_with_parent
from citybrain_datasets.scenarios.air import AirStep, air_step
from citybrain_datasets.scenarios.language import Weather
from citybrain_datasets.scenarios.reading import Scenarios
from citybrain_datasets.scenarios.site import open_site
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.scorer import BATCH, Scorer
from citybrain_serving.scenarios.parts import RunError
from citybrain_serving.scenarios.rows import rows_of

CHUNK = 512
"""Enough to be worth the sending, few enough to lose; the network's batches within are the same everywhere."""
_AHEAD = 3
"""Pieces that wait for each worker, so that none waits for its next."""
_FALLS = 5
"""So often in a row a worker may die before the run gives up."""


@dataclass(frozen=True)
class Work:
    """What every worker needs: the scenarios, the folder of the surrogate, and the city for weathers that the
    surrogate's bundle does not hold."""

    scenarios: Scenarios
    surrogate: Path
    city: str
    chunk: int = CHUNK
    """Scenarios in one piece of work."""

    @property
    def chunks(self) -> int:
        return -(-len(self.scenarios) // self.chunk)

    def score(self, number: int, cores: int = 1) -> pa.Table:
        """Rows of piece ``number``; the same on every machine of one kind, and whatever the ``cores``: with more than
        one the network runs while the next batch is made."""
        first = number * self.chunk
        starts = range(first, min(first + self.chunk, len(self.scenarios)), BATCH)
        batches = (self.scenarios[start : min(start + BATCH, first + self.chunk)] for start in starts)
        # The matrices are small: more threads of BLAS would but spin, on cores that are other workers'.
        with threadpool_limits(1, "blas"):
            scored = scorer_of(self.surrogate, self.city).stream(batches, overlap=cores > 1)
            rows = [rows_of(batch, scores, start) for start, (batch, scores) in zip(starts, scored, strict=True)]
        return pa.concat_tables(rows).combine_chunks()


class Engine(Protocol):
    def run(self, work: Work, numbers: Iterable[int]) -> Iterator[tuple[int, pa.Table]]:
        """The pieces ``numbers`` of ``work`` as they are done, in any order."""
        ...


class LocalEngine:
    """``workers`` processes of this machine, of ``cores`` each; with one, the work is done right here. A worker that
    dies is replaced and its piece done again; all end when this process does."""

    def __init__(self, workers: int = 1, cores: int = 1):
        self.workers, self.cores = workers, cores

    def run(self, work: Work, numbers: Iterable[int]) -> Iterator[tuple[int, pa.Table]]:
        if self.workers == 1:
            for number in numbers:
                yield number, work.score(number, self.cores)
            return
        todo, falls = list(numbers), 0
        while todo:
            done: set[int] = set()
            try:
                for number, table in self._pool(work, todo):
                    done.add(number)
                    yield number, table
            except BrokenProcessPool:
                falls = 0 if done else falls + 1
                if falls >= _FALLS:
                    raise RunError("the workers keep dying; is there enough memory? What is scored is kept") from None
            todo = [number for number in todo if number not in done]

    def _pool(self, work: Work, numbers: list[int]) -> Iterator[tuple[int, pa.Table]]:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.workers, context, initializer=_employ, initargs=(work, self.cores))
        try:
            queue, running = iter(numbers), dict[Future[pa.Table], int]()
            while True:
                for number in queue:
                    running[pool.submit(_piece, number)] = number
                    if len(running) >= self.workers * _AHEAD:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number = running.pop(future)
                    yield number, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class RayEngine:
    """The workers of a Ray cluster, of ``cores`` each; those of this machine where no ``address`` is given. Each node
    needs this package and, at the same path, the surrogate and the city."""

    def __init__(self, address: str | None = None, workers: int | None = None, cores: int = 1):
        try:
            import ray
        except ImportError:
            raise RunError(f"`--engine ray` needs the package ray: {installing('ray')}") from None
        self.ray, self.cores = ray, cores
        if not ray.is_initialized():
            count = None if address or workers is None else workers * cores
            ray.init(address=address, num_cpus=count, log_to_driver=False, logging_level=logging.ERROR)

    def run(self, work: Work, numbers: Iterable[int]) -> Iterator[tuple[int, pa.Table]]:
        ray = self.ray
        # A node that is lost takes its pieces with it; Ray does them again elsewhere.
        task = ray.remote(num_cpus=self.cores, max_retries=-1)(_ray_piece)
        shared, queue, running = [ray.put(work)], iter(numbers), {}
        while True:
            most = max(1, int(ray.cluster_resources().get("CPU", 1)) // self.cores) * _AHEAD
            for number in queue:
                running[task.remote(shared, number, self.cores)] = number
                if len(running) >= most:
                    break
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                yield running.pop(reference), ray.get(reference)


@lru_cache(maxsize=2)
def scorer_of(surrogate: Path, city: str) -> Scorer:
    """One scorer a process, on one thread: more workers, not more threads, and sums in one order."""
    bundle = SurrogateBundle.read(surrogate)

    def step(weather: Weather) -> AirStep:
        site = open_site(city)
        return air_step(site, weather, bundle.window, base_emission=bundle.usual.emission.T)

    return Scorer(bundle, weather=step)


_employed: tuple[Work, int] | None = None


def _employ(work: Work, cores: int) -> None:
    global _employed
    end_with_parent()
    _employed = work, cores


def _piece(number: int) -> pa.Table:
    assert _employed is not None
    work, cores = _employed
    return work.score(number, cores)


_held: dict[object, Work] = {}


def _ray_piece(shared: list[Any], number: int, cores: int) -> pa.Table:
    """``shared`` holds a reference, so that a worker unpacks the work once and not for each piece."""
    import ray

    (reference,) = shared
    if reference not in _held:
        _held.clear()
        _held[reference] = ray.get(reference)
    return _held[reference].score(number, cores)
