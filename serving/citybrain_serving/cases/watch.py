"""From problems to cases, with hysteresis: a value that flickers about its limit makes one case, not twenty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from citybrain_serving.cases.casebook import Case, Casebook
from citybrain_serving.cases.documents import SYSTEM
from citybrain_serving.problems.finding import Problem

Key = tuple[str, str]
"""Task and node."""


@dataclass(frozen=True)
class Hysteresis:
    """A case opens after ``rise`` forecasts in a row that find trouble with a probability of at least ``open_at``, or
    measured now and of at least ``close_at``: a single reading that the forecast does not believe is a fault more often
    than a queue. It is over after ``fall`` in a row that find none now and less than ``close_at``."""

    open_at: float = 0.6
    close_at: float = 0.3
    rise: int = 2
    fall: int = 3


class Watch:
    """Follows problems from forecast to forecast. Called by the cycle's thread alone.

    A case that nobody has filed is closed when its trouble is over; one that somebody deals with is only marked, for
    its end is theirs to see. What it counts is lost with the process: after a start a case opens ``rise`` forecasts
    later, and none is opened twice, for that the book knows.
    """

    def __init__(
        self,
        book: Casebook,
        describe: Callable[[Problem], dict[str, Any]],
        hysteresis: Hysteresis,
    ):
        self.book = book
        self.describe = describe
        self.hysteresis = hysteresis
        self._rising: Counter[Key] = Counter()
        self._falling: Counter[Key] = Counter()

    def update(self, problems: Mapping[str, Iterable[Problem]], now: pd.Timestamp) -> None:
        """``problems`` of the tasks that were just forecast again. Raises
        :class:`~citybrain_serving.errors.StoreUnavailable`."""
        found = {(p.task, p.node): p for several in problems.values() for p in several}
        known = {(c.task, c.node): c for c in self.book.unfinished() if c.task in problems}
        self._open(found, known, now)
        self._end(found, known, now)

    def _open(self, found: Mapping[Key, Problem], known: Mapping[Key, Case], now: pd.Timestamp) -> None:
        due = {key for key, p in found.items() if self._begins(p)}
        self._rising = Counter({key: self._rising[key] + 1 for key in due})
        for key in sorted(due - set(known), key=lambda k: -found[k].severity):
            if self._rising[key] >= self.hysteresis.rise:
                self.book.open(self.describe(found[key]), now)

    def _end(self, found: Mapping[Key, Problem], known: Mapping[Key, Case], now: pd.Timestamp) -> None:
        quiet = {key for key in known if not self._lasts(found.get(key))}
        self._falling = Counter({key: self._falling[key] + 1 for key in quiet})
        for key, case in known.items():
            if key in quiet and self._falling[key] >= self.hysteresis.fall:
                if case.state == "discovered":
                    self.book.act(case.number, "close", SYSTEM, "the trouble has passed", now)
                elif case.over is None:
                    self.book.mark(case.number, True, now)
            elif case.over is not None and self._rising[key] >= self.hysteresis.rise:
                self.book.mark(case.number, False, now)

    def _begins(self, problem: Problem) -> bool:
        limits = self.hysteresis
        return problem.probability >= (limits.close_at if problem.now else limits.open_at)

    def _lasts(self, problem: Problem | None) -> bool:
        return problem is not None and (problem.now or problem.probability >= self.hysteresis.close_at)
