"""Keeps one replica on the models that are wanted of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Gauge

from citybrain_models.bundle import Bundle, BundleError
from citybrain_serving.errors import ServingError, StoreUnavailable
from citybrain_serving.replicas.appointments import Appointments, Wanted
from citybrain_serving.roster import Note, Roster

AGAIN_S = 60.0
"""How soon a bundle that could not be taken is tried again; loading one costs time that forecasts need."""

REPORTED_S = 60.0
"""How often a replica says what it holds, where nothing has changed."""

log = structlog.get_logger(__name__)


class Following:
    """Called once a step, by the cycle's thread.

    A swap holds for every replica that runs, and for those started later by the start command under which it was done:
    a start command that names another bundle is a later decision, and stands. ``read`` finds the bundle of a path
    below the folder of bundles, or of a task's start command where the path is empty; ``paths`` are those of the
    bundles of the start command, by task, which lie below it. ``shared`` tells whether there may be other replicas,
    ``recorded`` is told of each change before it is made.
    """

    def __init__(
        self,
        roster: Roster,
        appointments: Appointments,
        read: Callable[[str, str], Bundle],
        paths: Mapping[str, str],
        shared: Callable[[], bool],
        registry: CollectorRegistry,
    ):
        self.roster = roster
        self.appointments = appointments
        self.read = read
        self.shared = shared
        self.recorded: Note = lambda new, old: None
        self.started = {task: bundle.digest for task, bundle in roster.fleet.bundles.items()}
        self.paths = {digest: paths.get(task, "") for task, digest in self.started.items()}
        """Where bundles that were in use lie, by digest."""
        self.problems: Mapping[str, str] = {}
        """By task, why its bundle is not the one wanted."""
        self._since = appointments.now()
        self._failed: dict[str, tuple[str, str, float]] = {}
        self._told: tuple[Any, float] = (None, 0.0)
        self._follows = Gauge(
            "citybrain_model_follows", "1 where the model is the wanted", ("task",), registry=registry
        )

    def __call__(self) -> None:
        try:
            wanted = self.appointments.wanted()
        except StoreUnavailable:
            return  # said by whatever else needs the store; what is wanted is asked again at the next step
        problems = {}
        for task, held in self.roster.fleet.bundles.items():
            one = wanted.get(task)
            problem = "" if one is None or one.digest == held.digest else self._follow(one)
            if problem:
                problems[task] = problem
            self._follows.labels(task).set(not problem)
        self.problems = problems
        self._report()

    def want(self, new: Bundle, who: str, path: str | None = None) -> None:
        """Has every replica follow to ``new``, which lies at ``path``, or was in use here before where that is None."""
        task = new.task.name
        where = self.paths.get(new.digest, "") if path is None else path
        self.appointments.want(task, new.digest, where, self.started[task], who)
        self.paths[new.digest] = where

    def _follow(self, wanted: Wanted) -> str:
        """Takes up the bundle wanted; why not, where it cannot."""
        task, now = wanted.task, time.monotonic()
        if self._since > wanted.since and self.started[task] != wanted.started:
            return "was started with another bundle after the swap"
        failed, problem, until = self._failed.get(task, ("", "", 0.0))
        if failed == wanted.digest and now < until:
            return problem
        try:
            self.roster.take_up(task, wanted.digest, lambda: self.read(task, wanted.path), self.recorded)
        except (ServingError, BundleError) as error:
            problem = str(error)
            log.error("the wanted model cannot be taken", task=task, bundle=wanted.digest, error=problem)
            self._failed[task] = (wanted.digest, problem, now + AGAIN_S)
            return problem
        self.paths[wanted.digest] = wanted.path
        return ""

    def _report(self) -> None:
        if not self.shared():
            return
        held = {task: bundle.digest for task, bundle in self.roster.fleet.bundles.items()}
        said, at = self._told
        if said == (held, self.problems) and time.monotonic() - at < REPORTED_S:
            return
        try:
            self.appointments.report(held, self.problems)
        except StoreUnavailable:
            return
        self._told = ((held, self.problems), time.monotonic())
