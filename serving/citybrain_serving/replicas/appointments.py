"""Which model is wanted of all replicas that share a store, and which one each of them answers from."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from citybrain_serving.database import present, transaction
from citybrain_serving.tables import held_models, wanted_models

GONE_S = 300
"""A replica that has said nothing for so long is told of no longer."""


@dataclass(frozen=True)
class Wanted:
    """A bundle that was swapped in: its ``digest``, its ``path`` below the folder of bundles (empty for the bundle of
    the start command), and the digest of the bundle that the replica was ``started`` with on which that was done."""

    task: str
    digest: str
    path: str
    started: str
    who: str
    since: int
    """Seconds since 1970 UTC."""


@dataclass(frozen=True)
class Held:
    """What a replica answers a task from; ``problem`` says why that is not the bundle wanted, where it is not."""

    replica: str
    digest: str
    problem: str
    seen: int


class Appointments:
    """Methods raise :class:`~citybrain_serving.errors.StoreUnavailable`. ``clock`` gives seconds since 1970, to all
    replicas the same."""

    def __init__(self, engine: sa.Engine, replica: str = "", clock: Callable[[sa.Connection], float] = present):
        self.engine = engine
        self.replica = replica or f"{socket.gethostname()[:80]}:{os.getpid()}"
        self.clock = clock

    def now(self) -> int:
        """Seconds since 1970."""
        with transaction(self.engine) as connection:
            return int(self.clock(connection))

    def want(self, task: str, digest: str, path: str, started: str, who: str) -> None:
        """From now on this bundle is wanted of every replica."""
        row = {"task": task, "digest": digest, "path": path, "started": started, "who": who[:200]}
        with transaction(self.engine, write=True) as connection:
            connection.execute(wanted_models.delete().where(wanted_models.c.task == task))
            connection.execute(wanted_models.insert().values(row | {"since": int(self.clock(connection))}))

    def wanted(self) -> dict[str, Wanted]:
        """By task."""
        with transaction(self.engine) as connection:
            rows = connection.execute(sa.select(wanted_models)).mappings().all()
        return {row["task"]: Wanted(**row) for row in rows}

    def report(self, held: Mapping[str, str], problems: Mapping[str, str]) -> None:
        """This replica answers from ``held``, digests by task; ``problems`` by task say why not from what is wanted."""
        with transaction(self.engine, write=True) as connection:
            now = int(self.clock(connection))
            rows = [
                {
                    "replica": self.replica,
                    "task": task,
                    "digest": digest,
                    "problem": problems.get(task, ""),
                    "seen": now,
                }
                for task, digest in held.items()
            ]
            mine_or_gone = sa.or_(held_models.c.replica == self.replica, held_models.c.seen < now - GONE_S)
            connection.execute(held_models.delete().where(mine_or_gone))
            connection.execute(held_models.insert(), rows)

    def replicas(self) -> dict[str, list[Held]]:
        """By task, those that were seen lately."""
        with transaction(self.engine) as connection:
            lately = held_models.c.seen >= int(self.clock(connection)) - GONE_S
            rows = connection.execute(sa.select(held_models).where(lately).order_by(held_models.c.replica)).mappings()
            found: dict[str, list[Held]] = {}
            for row in rows.all():
                fields = {name: row[name] for name in ("replica", "digest", "problem", "seen")}
                found.setdefault(row["task"], []).append(Held(**fields))
        return found
