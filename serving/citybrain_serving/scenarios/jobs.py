"""Scenarios asked for over HTTP: a few answered at once, more as a job in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import structlog

from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.scenarios.language import Scenario
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.scorer import BATCH, Scorer
from citybrain_serving.scenarios.asking import ScenariosBody, read_scenarios_of
from citybrain_serving.scenarios.ledger import Errand, Job, Ledger
from citybrain_serving.scenarios.now import Ground, timetable_from
from citybrain_serving.scenarios.ranking import rank
from citybrain_serving.scenarios.rows import rows_of

AT_ONCE = 64
_PIECE = 8 * BATCH
"""Scenarios between two looks at whether to go on."""
_TELL_S = 1.0
"""How often progress is written."""

log = structlog.get_logger(__name__)


def score(
    scorer: Scorer,
    scenarios: Sequence[Scenario],
    weights: Mapping[str, float],
    told: Callable[[int], bool] = lambda scored: True,
) -> pa.Table | None:
    """The ranking of ``scenarios``; None where ``told``, which hears how many are scored, answers that it may stop."""
    parts = []
    for first in range(0, len(scenarios), _PIECE):
        if not told(first):
            return None
        piece = scenarios[first : first + _PIECE]
        parts.append(rows_of(piece, scorer(piece), first))
    return rank(pa.concat_tables(parts).combine_chunks(), weights)


class Jobs:
    """Does the jobs of a ledger one after the other in one thread, so that forecasts keep a core.

    It wakes up when a job is asked for or asked after: one whose server stopped is done anew by the server that is
    asked after it. The thread is a daemon: a service that stops does not wait for it. ``bundle`` is the surrogate that
    is served now; its network runs on so many ``threads``.
    """

    def __init__(self, ledger: Ledger, bundle: Callable[[], SurrogateBundle], threads: int = 1):
        self.ledger, self._bundle, self._threads = ledger, bundle, threads
        self._work = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="scenarios", daemon=True)

    def submit(self, owner: str, asked: ScenariosBody, count: int, ground: Ground, about: Mapping[str, object]) -> Job:
        """Raises :class:`TooManyJobs` where as many wait as may."""
        job = self.ledger.add(owner, asked, count, ground, self._bundle().digest, about)
        self._wake()
        return job

    def get(self, job: str, owner: str) -> Job:
        """Raises :class:`UnknownJob` for one that does not exist, is forgotten, or is somebody else's."""
        found = self.ledger.get(job, owner)
        if not found.ended:
            self._wake()
        return found

    def list(self, owner: str) -> list[Job]:
        """The owner's jobs, the newest first."""
        found = self.ledger.list(owner)
        if not all(job.ended for job in found):
            self._wake()
        return found

    def cancel(self, job: Job) -> Job:
        """The job as it is afterwards; one that has ended stays as it is."""
        self.ledger.cancel(job.id)
        return self.ledger.get(job.id, job.owner)

    def _wake(self) -> None:
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()
        self._work.set()

    def _loop(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            try:
                while (errand := self.ledger.claim()) is not None:
                    self._do(errand)
            except Exception:  # the thread must outlive a store that is away; whoever asks again wakes it again
                log.exception("scenario jobs were interrupted")

    def _do(self, errand: Errand) -> None:
        spoken = time.monotonic()

        def told(scored: int) -> bool:
            nonlocal spoken
            if scored and time.monotonic() < spoken + _TELL_S:
                return True
            spoken = time.monotonic()
            return self.ledger.beat(errand.id, scored)

        try:
            bundle = self._bundle()
            if bundle.digest != errand.surrogate:
                what = "lost: the server stopped, and answers by another surrogate now; ask again"
                self.ledger.end(errand.id, "failed", problem=what)
                return
            ground = Ground(bundle.usual)
            if errand.issued is not None:
                ground = errand.standing(bundle.usual, timetable_from(bundle, errand.issued))
            scorer = ground.scorer(bundle, self._threads)
            table = score(scorer, read_scenarios_of(errand.asked), errand.asked.weights, told)
        except CityBrainError as error:
            self.ledger.end(errand.id, "failed", problem=str(error))
        except Exception:  # the thread must outlive any fault; the caller is told that there was one
            log.exception("scenario job failed", job=errand.id)
            self.ledger.end(errand.id, "failed", problem="internal error")
        else:
            if table is not None:
                self.ledger.end(errand.id, "done", table=table)
