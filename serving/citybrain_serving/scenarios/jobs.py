"""Scenarios asked for over HTTP: a few answered at once, more as a job in the background."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Literal

import pyarrow as pa
import structlog

from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.scenarios.language import Scenario
from citybrain_models.surrogate.scorer import BATCH, Scorer
from citybrain_serving.errors import TooManyJobs, UnknownJob
from citybrain_serving.scenarios.ranking import rank
from citybrain_serving.scenarios.rows import rows_of

AT_ONCE = 64
KEPT = 32
"""Jobs whose results are kept; the oldest finished ones make room."""
WAITING = 8
"""Jobs that may be under way or wait."""

State = Literal["waiting", "running", "done", "cancelled", "failed"]
log = structlog.get_logger(__name__)


@dataclass
class Job:
    """``scored`` counts scenarios; ``table`` is the ranking once it is ``done``, ``problem`` why it ``failed``."""

    id: str
    owner: str
    scenarios: Sequence[Scenario]
    weights: Mapping[str, float]
    base: Mapping[str, object]
    state: State = "waiting"
    scored: int = 0
    table: pa.Table | None = None
    problem: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        return self.state in ("done", "cancelled", "failed")


def score(
    scorer: Scorer,
    scenarios: Sequence[Scenario],
    weights: Mapping[str, float],
    told: Callable[[int], bool] = lambda scored: True,
) -> pa.Table | None:
    """The ranking of ``scenarios``; None where ``told``, which hears how many are scored, answers that it may stop."""
    parts = []
    for first in range(0, len(scenarios), BATCH):
        if not told(first):
            return None
        batch = scenarios[first : first + BATCH]
        parts.append(rows_of(batch, scorer.score(batch), first))
    return rank(pa.concat_tables(parts).combine_chunks(), weights)


class Jobs:
    """Jobs of one service, done one after the other by one thread, so that forecasts keep a core.

    The thread is a daemon: a service that stops does not wait for what can be asked again.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._queue: SimpleQueue[tuple[Job, Scorer]] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="scenarios", daemon=True)

    def submit(
        self,
        scorer: Scorer,
        scenarios: Sequence[Scenario],
        weights: Mapping[str, float],
        owner: str,
        base: Mapping[str, object],
    ) -> Job:
        """Raises :class:`TooManyJobs` where as many wait as may."""
        job = Job(uuid.uuid4().hex, owner, scenarios, weights, base)
        with self._lock:
            if sum(not other.ended for other in self._jobs.values()) >= WAITING:
                raise TooManyJobs(f"{WAITING} jobs are under way; wait for one or cancel it")
            self._jobs[job.id] = job
            ended = [i for i, other in self._jobs.items() if other.ended]
            for old in ended[: max(0, len(self._jobs) - KEPT)]:
                del self._jobs[old]
            if not self._thread.is_alive():
                self._thread.start()
        self._queue.put((job, scorer))
        return job

    def get(self, job: str, owner: str) -> Job:
        """Raises :class:`UnknownJob` for one that does not exist, is forgotten, or is somebody else's."""
        found = self._jobs.get(job)
        if found is None or found.owner != owner:
            raise UnknownJob(f"there is no scenario job {job!r} of yours")
        return found

    def cancel(self, job: Job) -> None:
        job.cancelled.set()
        if job.state == "waiting":
            job.state = "cancelled"

    def _loop(self) -> None:
        while True:
            self._do(*self._queue.get())

    @staticmethod
    def _do(job: Job, scorer: Scorer) -> None:
        if job.cancelled.is_set():
            job.state = "cancelled"
            return
        job.state = "running"

        def told(scored: int) -> bool:
            job.scored = scored
            return not job.cancelled.is_set()

        try:
            job.table = score(scorer, job.scenarios, job.weights, told)
        except CityBrainError as error:
            job.problem, job.state = str(error), "failed"
        except Exception:  # the thread must outlive any fault; the caller is told that there was one
            log.exception("scenario job failed", job=job.id)
            job.problem, job.state = "internal error", "failed"
        else:
            job.scored = job.scored if job.table is None else len(job.scenarios)
            job.state = "cancelled" if job.table is None else "done"
