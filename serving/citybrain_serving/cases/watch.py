"""From problems to cases, with hysteresis: a value that flickers about its limit makes one case, not twenty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pandas as pd

from citybrain_serving.cases.casebook import Case, Casebook
from citybrain_serving.cases.documents import SYSTEM
from citybrain_serving.errors import NotNow
from citybrain_serving.problems.finding import Problem

Key = tuple[str, str]
"""Task and node."""

MOST = 500
"""Problems of a task that open cases, the costliest first: whoever has more to see to will not come to the others. A
case that is open stays so wherever its problem ranks."""


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

    A case that nobody has filed is closed when its trouble is over; one that somebody opened or deals with is only
    marked, for its end is theirs to see; and one that somebody opened for what no forecast saw is left alone. A
    forecast that does not see a place is no sign that its trouble passed, nor that it is there: what was counted so far
    waits. Where a person closed a case although its trouble goes on, they know of it: none is opened anew there until
    the trouble was over for ``fall`` forecasts. What it counts is lost with the process: after a start a case opens
    ``rise`` forecasts later, and none is opened twice, for that the book knows.
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
        self._followed: set[Key] = set()
        self._settled: set[Key] = set()

    def update(
        self,
        problems: Mapping[str, Iterable[Problem]],
        now: pd.Timestamp,
        seen: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """``problems`` of the tasks that were just forecast again, the worst first, and the nodes of each that were
        measured anew and that the forecast sees, all where ``seen`` is None. Raises
        :class:`~citybrain_serving.errors.StoreUnavailable`."""

        def told(key: Key) -> bool:
            return key[0] in problems and (seen is None or key[1] in seen[key[0]])

        found = {(p.task, p.node): p for several in problems.values() for p in several if told((p.task, p.node))}
        unfinished = {(c.task, c.node): c for c in self.book.unfinished()}
        known = {key: case for key, case in unfinished.items() if told(key)}
        # What was followed and is closed now was closed by a person: whatever this closes it no longer follows.
        self._settled |= self._followed - unfinished.keys()
        quiet = {key for key in {*known, *self._settled} if told(key) and not self._lasts(found.get(key))}
        self._rising = _counted(self._rising, {key for key, p in found.items() if self._begins(p)}, told)
        self._falling = _counted(self._falling, quiet, told)
        worst = {(p.task, p.node) for several in problems.values() for p in islice(several, MOST)}
        self._settled = {key for key in self._settled if self._falling[key] < self.hysteresis.fall}
        new = {key: p for key, p in found.items() if key in worst and key not in self._settled}
        opened = self._open(new, known, now)
        self._followed = (unfinished.keys() | opened) - self._end(known, quiet, now)

    def _open(self, found: Mapping[Key, Problem], known: Mapping[Key, Case], now: pd.Timestamp) -> set[Key]:
        """Where cases were opened."""
        opened = set()
        for key in sorted(found.keys() - known.keys(), key=lambda k: -found[k].severity):
            if self._rising[key] >= self.hysteresis.rise:
                self.book.open(self.describe(found[key]), now)
                opened.add(key)
        return opened

    def _end(self, known: Mapping[Key, Case], quiet: Collection[Key], now: pd.Timestamp) -> set[Key]:
        """Where cases were closed."""
        closed = set()
        for key, case in known.items():
            ours = case.opened_by == SYSTEM
            if key in quiet and self._falling[key] >= self.hysteresis.fall:
                if ours and case.state == "discovered":
                    with suppress(NotNow):  # somebody has just taken it on: its end is theirs to see
                        self.book.act(case.number, "close", SYSTEM, "the trouble has passed", now, case.state)
                        closed.add(key)
                elif case.over is None and (ours or case.foreseen):
                    self.book.mark(case.number, True, now)
            elif case.over is not None and self._rising[key] >= self.hysteresis.rise:
                self.book.mark(case.number, False, now)
        return closed

    def _begins(self, problem: Problem) -> bool:
        limits = self.hysteresis
        return problem.probability >= (limits.close_at if problem.now else limits.open_at)

    def _lasts(self, problem: Problem | None) -> bool:
        return problem is not None and (problem.now or problem.probability >= self.hysteresis.close_at)


def _counted(before: Counter[Key], again: Collection[Key], told: Callable[[Key], bool]) -> Counter[Key]:
    """One more for whatever shows a sign again, nothing for what was looked at and does not, as before for the rest."""
    kept = {key: count for key, count in before.items() if not told(key)}
    return Counter(kept | {key: before[key] + 1 for key in again})
