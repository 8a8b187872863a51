"""Scenario jobs in the store: one worker at a time, taken up when it is gone, the same from any replica."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import Base
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.errors import TooManyJobs, UnknownJob
from citybrain_serving.scenarios.asking import ScenariosBody
from citybrain_serving.scenarios.jobs import Jobs
from citybrain_serving.scenarios.ledger import EACH, KEPT, SILENT_S, WAITING, Job, Ledger
from citybrain_serving.scenarios.now import Ground
from citybrain_serving.scenarios.run import SHIPPED

needs_surrogate = pytest.mark.skipif(
    not (SHIPPED / "embedded").is_dir(), reason="no surrogate ships for the embedded city"
)
ASKED = ScenariosBody.model_validate(
    {
        "scenarios": [
            {
                "id": "s",
                "sample": {"count": 70, "draw": {"f": {"uniform": [0.8, 1.0]}}},
                "measures": [{"lever": "demand", "factor": "$f"}],
            }
        ]
    }
)
BASE = Base(*np.arange(18, dtype=np.float32).reshape(3, 3, 2), slot_seconds=900)


class Clock:
    now = 1_000_000.0

    def __call__(self, _connection: object) -> float:
        return self.now


@pytest.fixture
def engine(location):
    made = open_engine(location)
    migrate(made)
    yield made
    made.dispose()


def add(
    ledger: Ledger, owner: str = "ann", base: Base = BASE, surrogate: str = "d" * 64, pm25: np.ndarray | None = None
) -> Job:
    return ledger.add(owner, ASKED, 70, Ground(base, pm25), surrogate, {"base": "now"})


def test_a_job_is_one_workers_and_its_base_is_kept(engine):
    clock = Clock()
    mine, other = Ledger(engine, clock), Ledger(engine, clock)
    job = add(mine)
    assert mine.get(job.id, "ann") == job
    errand = other.claim()
    assert errand.id == job.id
    assert errand.asked == ASKED
    kept = errand.standing(BASE)
    assert all(np.array_equal(getattr(kept.base, n), getattr(BASE, n)) for n in ("flow", "vehicles", "emission"))
    assert kept.pm25 is None
    assert other.claim() is None
    assert other.beat(job.id, 32)
    assert not mine.beat(job.id, 64)
    found = mine.get(job.id, "ann")
    assert (found.state, found.scored) == ("running", 32)
    with pytest.raises(UnknownJob):
        mine.get(job.id, "bob")


def test_the_air_that_a_job_is_about_is_kept_too(engine):
    ledger, hourly = Ledger(engine), Base(*np.ones((3, 3, 8), np.float32), slot_seconds=900)
    pm25 = np.array([[35.0, np.nan], [40.0, 41.0]], np.float32)
    add(ledger, base=hourly, pm25=pm25)
    np.testing.assert_array_equal(ledger.claim().standing(hourly).pm25, pm25)


def test_a_silent_worker_loses_its_job(engine):
    clock = Clock()
    dead, living = Ledger(engine, clock), Ledger(engine, clock)
    job = add(dead)
    dead.claim()
    if engine.dialect.name == "postgresql":  # it may be another replica, alive and well
        assert living.claim() is None
        clock.now += SILENT_S
    assert living.claim().id == job.id
    assert not dead.beat(job.id, 70)
    dead.end(job.id, "failed", problem="too late")
    assert living.get(job.id, "ann").state == "running"


def test_a_worker_is_not_dead_by_the_clock_of_another(database, monkeypatch):
    engine = open_engine(database)
    migrate(engine)
    mine, other = Ledger(engine), Ledger(engine)
    add(mine)
    assert mine.claim() is not None
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 10 * SILENT_S)  # as on another machine
    assert other.claim() is None
    engine.dispose()


def test_a_cancelled_job_stays_so(engine):
    ledger = Ledger(engine)
    job = add(ledger)
    ledger.claim()
    ledger.cancel(job.id)
    assert not ledger.beat(job.id, 5)
    ledger.end(job.id, "done")
    assert ledger.get(job.id, "ann").state == "cancelled"
    assert ledger.claim() is None


def test_so_many_wait_and_so_many_are_kept(engine):
    clock = Clock()
    ledger = Ledger(engine, clock)
    first = add(ledger)
    clock.now += 1  # the oldest goes first, and of those of one second any
    for _ in range(EACH - 1):
        add(ledger)
    with pytest.raises(TooManyJobs, match="of yours"):
        add(ledger)
    for _ in range(WAITING - EACH):
        add(ledger, "bob")
    with pytest.raises(TooManyJobs, match="come back"):
        add(ledger, "eve")
    while (errand := ledger.claim()) is not None:
        ledger.end(errand.id, "failed", problem="x")
    for _ in range(KEPT):
        clock.now += 1
        ledger.cancel(add(ledger).id)
    with pytest.raises(UnknownJob):
        ledger.get(first.id, "ann")


@needs_surrogate
def test_what_a_stopped_server_left_is_done_by_the_one_asked_after_it(engine):
    bundle = SurrogateBundle.read(SHIPPED / "embedded")
    dead = Ledger(engine)
    job = add(dead, base=bundle.usual, surrogate=bundle.digest)
    dead.claim()
    living = Ledger(engine, lambda _: Clock.now * 1e6)  # long after
    jobs = Jobs(living, lambda: bundle)
    for _ in itertools.count():
        if jobs.get(job.id, "ann").ended:
            break
    assert jobs.get(job.id, "ann").state == "done"
    table = living.result(job.id)
    assert table["rank"].to_pylist() == list(range(1, 71))


@needs_surrogate
def test_a_job_of_another_surrogate_is_lost_and_says_so(engine):
    bundle = SurrogateBundle.read(SHIPPED / "embedded")
    ledger = Ledger(engine)
    jobs = Jobs(ledger, lambda: bundle)
    job = add(ledger, base=bundle.usual, surrogate="e" * 64)
    while not jobs.get(job.id, "ann").ended:
        pass
    found = jobs.get(job.id, "ann")
    assert found.state == "failed"
    assert found.problem.startswith("lost:")
