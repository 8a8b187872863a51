"""The book of cases: what was found, who took it on, what was done, when it ended."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pandas as pd
import sqlalchemy as sa

from citybrain_serving.cases.documents import SYSTEM, case_document
from citybrain_serving.cases.outbox import Outbox
from citybrain_serving.database import transaction
from citybrain_serving.errors import NotNow, UnknownCase
from citybrain_serving.tables import case_notes, cases

State = Literal["discovered", "filed", "dispatched", "closed"]
Action = Literal["discover", "file", "dispatch", "close", "note", "pass", "return"]

OPEN: tuple[State, ...] = ("discovered", "filed", "dispatched")

STEPS: Mapping[str, tuple[tuple[State, ...], State]] = {
    "file": (("discovered",), "filed"),
    "dispatch": (("discovered", "filed"), "dispatched"),
    "close": (OPEN, "closed"),
}
"""Which states an action may leave, and the one it leads to. A note may be made in any."""


@dataclass(frozen=True)
class Note:
    time: pd.Timestamp
    who: str
    action: str
    text: str


@dataclass(frozen=True)
class Case:
    """``problem`` is what was found, as `/v1/problems` told it, or the place alone where somebody saw what no forecast
    did; ``over`` says since when the trouble has passed."""

    number: int
    task: str
    node: str
    owner: str
    cell: str
    state: State
    discovered: pd.Timestamp
    filed: pd.Timestamp | None
    dispatched: pd.Timestamp | None
    closed: pd.Timestamp | None
    over: pd.Timestamp | None
    opened_by: str
    problem: dict[str, Any]
    notes: tuple[Note, ...] = ()

    @property
    def foreseen(self) -> bool:
        """Whether a forecast saw the trouble when the case was opened, whoever opened it."""
        return "issued" in self.problem


@dataclass(frozen=True)
class Wanted:
    """Which cases; every part given must hold. ``owners`` None is everybody's."""

    states: Collection[State] | None = None
    task: str | None = None
    owner: str | None = None
    cell: str | None = None
    owners: Collection[str] | None = None


class Casebook:
    """What is written here and the messages about it stand in one transaction: neither is without the other.

    Raises :class:`~citybrain_serving.errors.StoreUnavailable`; then nothing was written.
    """

    def __init__(self, engine: sa.Engine, outbox: Outbox):
        self.engine = engine
        self.outbox = outbox

    def open(self, problem: Mapping[str, Any], now: pd.Timestamp, who: str = SYSTEM, text: str = "") -> Case | None:
        """A new case; None where one of the same task and node is open already."""
        task, node = problem["task"], problem["id"]
        with self._writing() as connection:
            same = sa.and_(cases.c.task == task, cases.c.node == node, cases.c.state != "closed")
            if connection.scalar(sa.select(cases.c.number).where(same)) is not None:
                return None
            number = (connection.scalar(sa.select(sa.func.max(cases.c.number))) or 0) + 1
            connection.execute(
                cases.insert().values(
                    number=number,
                    task=task,
                    node=node,
                    owner=problem.get("owner", ""),
                    cell=problem.get("cell", ""),
                    state="discovered",
                    discovered=_seconds(now),
                    problem=orjson.dumps(problem).decode(),
                )
            )
            _note(connection, number, now, who, "discover", text)
            return self._told(connection, "case.discovered", number)

    def act(
        self, number: int, action: Action, who: str, text: str, now: pd.Timestamp, expected: str | None = None
    ) -> Case:
        """Takes a step. ``expected`` is the state that whoever acts believes the case to be in.

        Raises :class:`UnknownCase`, and :class:`NotNow` where the state does not allow it or is another one.
        """
        with self._writing() as connection:
            case = _case(connection, number)
            if expected is not None and case.state != expected:
                raise NotNow(f"case {number} is {case.state} by now, not {expected}", {"state": case.state})
            if action in STEPS:
                allowed, state = STEPS[action]
                if case.state not in allowed:
                    raise NotNow(f"case {number} is {case.state}; {action} is not possible", {"state": case.state})
                change = {"state": state, state: _seconds(now)}
                connection.execute(cases.update().where(cases.c.number == number).values(**change))
            _note(connection, number, now, who, action, text)
            event = f"case.{STEPS[action][1]}" if action in STEPS else "case.noted"
            return self._told(connection, event, number)

    def mark(self, number: int, over: bool, now: pd.Timestamp) -> Case:
        """Notes that the trouble of an open case has passed, or is back; of one that was closed, nothing."""
        with self._writing() as connection:
            if (case := _case(connection, number)).state == "closed":
                return case
            value = _seconds(now) if over else None
            connection.execute(cases.update().where(cases.c.number == number).values(over=value))
            _note(connection, number, now, SYSTEM, "pass" if over else "return", "")
            return self._told(connection, "case.over" if over else "case.back", number)

    def get(self, number: int) -> Case:
        """Raises :class:`UnknownCase`."""
        with transaction(self.engine) as connection:
            return _case(connection, number)

    def find(self, wanted: Wanted, limit: int, offset: int = 0) -> list[Case]:
        """Cases without their notes, the newest first."""
        query = _CASES.order_by(cases.c.number.desc()).limit(limit).offset(offset)
        if wanted.states is not None:
            query = query.where(cases.c.state.in_(list(wanted.states)))
        for name in ("task", "owner", "cell"):
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(cases.c[name] == value)
        if wanted.owners is not None:
            query = query.where(cases.c.owner.in_(list(wanted.owners)))
        with transaction(self.engine) as connection:
            return [_read(row, ()) for row in connection.execute(query).mappings()]

    def unfinished(self) -> list[Case]:
        """Every case that is not closed."""
        with transaction(self.engine) as connection:
            query = _CASES.where(cases.c.state != "closed").order_by(cases.c.number)
            return [_read(row, ()) for row in connection.execute(query).mappings()]

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with transaction(self.engine, write=True) as connection:
            yield connection
        self.outbox.announce()

    def _told(self, connection: sa.Connection, event: str, number: int) -> Case:
        """The case as it is now; whoever is to know of ``event`` will be told."""
        case = _case(connection, number)
        self.outbox.put(connection, event, case_document(case))
        return case


_FIRST = sa.and_(case_notes.c.case == cases.c.number, case_notes.c.number == 1)
_CASES = sa.select(cases, case_notes.c.who.label("opened_by")).join(case_notes, _FIRST)
"""Every case with whoever made the first note of it."""


def _case(connection: sa.Connection, number: int) -> Case:
    row = connection.execute(_CASES.where(cases.c.number == number)).mappings().first()
    if row is None:
        raise UnknownCase(f"there is no case {number}")
    notes = connection.execute(
        sa.select(case_notes).where(case_notes.c.case == number).order_by(case_notes.c.number)
    ).mappings()
    return _read(row, tuple(Note(_time(n["time"]), n["who"], n["action"], n["text"]) for n in notes))


def _read(row: sa.RowMapping, notes: tuple[Note, ...]) -> Case:
    times: dict[str, Any] = {
        name: None if row[name] is None else _time(row[name]) for name in ("filed", "dispatched", "closed", "over")
    }
    names = ("number", "task", "node", "owner", "cell", "state", "opened_by")
    plain: dict[str, Any] = {name: row[name] for name in names}
    problem = orjson.loads(row["problem"])
    return Case(**plain, **times, discovered=_time(row["discovered"]), problem=problem, notes=notes)


def _note(connection: sa.Connection, case: int, now: pd.Timestamp, who: str, action: str, text: str) -> None:
    last = connection.scalar(sa.select(sa.func.max(case_notes.c.number)).where(case_notes.c.case == case)) or 0
    connection.execute(
        case_notes.insert().values(case=case, number=last + 1, time=_seconds(now), who=who, action=action, text=text)
    )


def _seconds(time: pd.Timestamp) -> int:
    return int(time.timestamp())


def _time(seconds: int) -> pd.Timestamp:
    return pd.Timestamp(seconds, unit="s", tz="UTC")
