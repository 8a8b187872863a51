"""Scenario jobs in the store: what was asked, how far it is, and what came of it.

Any replica answers for any job. One is worked on by one worker at a time, which shows in the store that it is alive;
a job whose worker has fallen silent is another's to take up, from the beginning and on the same traffic.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from citybrain_datasets.scenarios.actions import Timetable
from citybrain_models.surrogate.network import Base
from citybrain_serving.database import present, transaction
from citybrain_serving.errors import TooManyJobs, UnknownJob
from citybrain_serving.packing import pack, packed_width, unpack
from citybrain_serving.scenarios.asking import ScenariosBody
from citybrain_serving.scenarios.now import Ground
from citybrain_serving.tables import scenario_jobs as jobs

KEPT = 32
"""Jobs whose results are kept; the oldest ended ones make room."""
WAITING = 8
"""Jobs that may be under way or wait."""
EACH = 4
"""Of these, those of one owner: nobody keeps everybody else waiting."""
SILENT_S = 60
"""So long after its last sign of life a worker of another process is taken for dead."""

State = Literal["waiting", "running", "done", "cancelled", "failed"]
ENDED = ("done", "cancelled", "failed")
_TOLD = [jobs.c[name] for name in ("id", "owner", "state", "count", "scored", "problem", "about")]


@dataclass(frozen=True)
class Job:
    """``count`` scenarios, of which ``scored`` are; ``problem`` says why it ``failed``; ``about`` on what base."""

    id: str
    owner: str
    state: State
    count: int
    scored: int
    problem: str
    about: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Errand:
    """What a worker needs: the question, what it is about (traffic ``[signal, segment, slot]`` and, where it was
    forecast, PM2.5 ``[hour, station]``, flattened one after the other), the digest of the surrogate that was to answer,
    and when the forecast was issued that the traffic is, None where it is the usual one."""

    id: str
    asked: ScenariosBody
    ground: np.ndarray
    surrogate: str
    issued: pd.Timestamp | None = None

    def standing(self, usual: Base, timetable: Timetable | None = None) -> Ground:
        """The traffic, in the slots of ``usual``, and the air."""
        flow, vehicles, emission = self.ground[: 3 * usual.flow.size].reshape(3, *usual.flow.shape)
        air = self.ground[3 * usual.flow.size :]
        hours = usual.slots * usual.slot_seconds // 3600
        base = Base(flow, vehicles, emission, usual.slot_seconds, timetable=timetable)
        return Ground(base, air.reshape(hours, -1) if air.size else None)


class Ledger:
    """Jobs in the database of ``engine``; ``clock`` gives seconds since 1970, to all workers the same."""

    def __init__(self, engine: sa.Engine, clock: Callable[[sa.Connection], float] = present):
        self._engine, self._clock = engine, clock
        # Only PostgreSQL is shared: whoever else wrote to a file is gone.
        self._silent = SILENT_S if engine.dialect.name == "postgresql" else 0
        self.worker = uuid.uuid4().hex

    def add(
        self, owner: str, asked: ScenariosBody, count: int, ground: Ground, surrogate: str, about: Mapping[str, object]
    ) -> Job:
        """Raises :class:`TooManyJobs` where as many wait as may, of all owners or of this one."""
        base, air = ground.base, np.empty(0) if ground.pm25 is None else ground.pm25
        values = np.concatenate([array.ravel() for array in (base.flow, base.vehicles, base.emission, air)])
        row = {
            "id": uuid.uuid4().hex, "owner": owner, "state": "waiting",
            "asked": asked.model_dump_json(), "about": json.dumps(about), "traffic": pack(values),
            "surrogate": surrogate, "count": count, "scored": 0, "problem": "", "beat": 0,
        }  # fmt: skip
        with transaction(self._engine, write=True) as connection:
            under_way = connection.scalars(sa.select(jobs.c.owner).where(jobs.c.state.not_in(ENDED))).all()
            if len(under_way) >= WAITING:
                raise TooManyJobs(f"{WAITING} jobs are under way; come back later")
            if under_way.count(owner) >= EACH:
                raise TooManyJobs(f"{EACH} jobs of yours are under way; wait for one or cancel it")
            kept = sa.select(jobs.c.id).where(jobs.c.state.in_(ENDED)).order_by(jobs.c.created.desc(), jobs.c.id)
            old = connection.scalars(kept.offset(KEPT)).all()
            connection.execute(sa.delete(jobs).where(jobs.c.id.in_(old)))
            connection.execute(sa.insert(jobs).values(row | {"created": int(self._clock(connection))}))
        return _job(row | {"about": about})

    def get(self, job: str, owner: str) -> Job:
        """Raises :class:`UnknownJob` for one that does not exist, is forgotten, or is somebody else's."""
        with transaction(self._engine) as connection:
            row = connection.execute(sa.select(*_TOLD).where(jobs.c.id == job, jobs.c.owner == owner)).first()
        if row is None:
            raise UnknownJob(f"there is no scenario job {job!r} of yours")
        return _told(row)

    def list(self, owner: str) -> list[Job]:
        """Every job of an owner that is still known, the newest first."""
        query = sa.select(*_TOLD).where(jobs.c.owner == owner).order_by(jobs.c.created.desc(), jobs.c.id)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return [_told(row) for row in rows]

    def result(self, job: str) -> pa.Table:
        """The ranking of a job that is done."""
        with transaction(self._engine) as connection:
            data = connection.scalar(sa.select(jobs.c.result).where(jobs.c.id == job))
        return pq.read_table(pa.BufferReader(data))

    def cancel(self, job: str) -> None:
        """A job that has ended stays as it is."""
        with transaction(self._engine, write=True) as connection:
            connection.execute(
                sa.update(jobs).where(jobs.c.id == job, jobs.c.state.not_in(ENDED)).values(state="cancelled")
            )

    def claim(self) -> Errand | None:
        """The oldest job that waits, or whose worker is gone; it is this worker's from now on."""
        others = sa.and_(jobs.c.state == "running", jobs.c.worker != self.worker)
        with transaction(self._engine, write=True) as connection:
            now = int(self._clock(connection))
            dead = sa.and_(others, jobs.c.beat <= now - self._silent)
            waiting = sa.select(jobs).where(sa.or_(jobs.c.state == "waiting", dead))
            row = connection.execute(waiting.order_by(jobs.c.created, jobs.c.id).limit(1)).first()
            if row is None:
                return None
            mine = {"state": "running", "worker": self.worker, "scored": 0, "beat": now}
            connection.execute(sa.update(jobs).where(jobs.c.id == row.id).values(mine))
        ground = unpack(row.traffic, packed_width(row.traffic))
        issued = json.loads(row.about).get("issued")
        asked = ScenariosBody.model_validate_json(row.asked)
        return Errand(row.id, asked, ground, row.surrogate, None if issued is None else pd.Timestamp(issued))

    def beat(self, job: str, scored: int) -> bool:
        """Notes progress; False where the job is no longer this worker's: cancelled, or taken by another."""
        return self._write(job, {"scored": scored}, alive=True)

    def end(self, job: str, state: State, *, problem: str = "", table: pa.Table | None = None) -> None:
        """Notes how a job ended, unless it was cancelled meanwhile."""
        values: dict[str, object] = {"state": state, "problem": problem}
        if table is not None:
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            values |= {"scored": table.num_rows, "result": sink.getvalue().to_pybytes()}
        self._write(job, values)

    def _write(self, job: str, values: Mapping[str, object], *, alive: bool = False) -> bool:
        mine = sa.and_(jobs.c.id == job, jobs.c.state == "running", jobs.c.worker == self.worker)
        with transaction(self._engine, write=True) as connection:
            if alive:
                values = {**values, "beat": int(self._clock(connection))}
            return bool(connection.execute(sa.update(jobs).where(mine).values(values)).rowcount)


def _told(row: sa.Row[Any]) -> Job:
    """Of a row of the columns :data:`_TOLD`."""
    return _job(row._asdict() | {"about": json.loads(row.about)})


def _job(row: Mapping[str, Any]) -> Job:
    return Job(**{name: row[name] for name in Job.__dataclass_fields__})
