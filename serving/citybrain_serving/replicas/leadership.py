"""Who computes: one replica of those that share a database.

The seam is :class:`Leadership`; :class:`Alone` stands for a service that shares its store with nobody,
:class:`Elected` holds an advisory lock of PostgreSQL on a connection of its own. The lock goes when the connection
goes: at once when the process is killed, after :data:`IDLE_S` when it hangs or its machine is gone, for the server ends
sessions that fall silent. Each holder begins a new term; whoever publishes shows its term in the same transaction, so
that one that was suspended and wakes up late changes nothing. The same connection carries notices between replicas.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing
from typing import TYPE_CHECKING, Protocol, cast

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

from citybrain_serving.database import present, transaction
from citybrain_serving.errors import Deposed, StoreUnavailable
from citybrain_serving.tables import terms

if TYPE_CHECKING:
    import psycopg

BEAT_S = 1.0
"""How often a replica asks for the lock, or shows that it is alive."""

APART_S = 10.0
"""How far this machine's clock may be from the database's before that is told: forecasts are issued by the one, and
what each replica answers is judged to be stale or not by its own."""

IDLE_S = 10
"""Silence after which the server gives the lock to another."""

_LOCK = 7_236_002
"""Key of the advisory lock; any number that nothing else here uses."""

ARRIVED, PUBLISHED = "citybrain_arrived", "citybrain_published"
"""Channels of notices: readings were stored (their signals), a snapshot was published."""

Signals = Collection[str]

log = structlog.get_logger(__name__)


class Leadership(Protocol):
    @property
    def leads(self) -> bool:
        """Whether this replica computes now."""
        ...

    @property
    def term(self) -> int:
        """Number of the term in which it computes; 0 where it does not."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the other replicas, and with them the store, can be reached."""
        ...

    @property
    def ahead(self) -> float:
        """Seconds by which this machine's clock is ahead of that of all replicas, below zero where it is behind; NaN
        where that is not known now."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def confirm(self, connection: sa.Connection) -> None:
        """Within a transaction that writes: raises :class:`Deposed` unless this replica computes."""
        ...

    def tell_arrived(self, signals: Signals) -> None:
        """Lets whoever computes know that readings of ``signals`` are in the store."""
        ...

    def tell_published(self, connection: sa.Connection) -> None:
        """Lets the others know of a snapshot once the transaction of ``connection`` is through."""
        ...


class Alone:
    """The only service on its store computes, always."""

    leads, connected, term, ahead = True, True, 1, 0.0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def confirm(self, connection: sa.Connection) -> None: ...

    def tell_arrived(self, signals: Signals) -> None: ...

    def tell_published(self, connection: sa.Connection) -> None: ...


class Elected:
    """One of the replicas on a PostgreSQL database.

    ``heard`` is called in a thread of its own: with signals where readings of them were stored elsewhere, with none
    where a snapshot was published or the store is back, and with None where this replica begins to compute. No lease
    goes by a clock of a replica; ``clock`` is this machine's, seconds since 1970, and held against the database's.
    """

    def __init__(
        self,
        engine: sa.Engine,
        heard: Callable[[Signals | None], object],
        clock: Callable[[], float] = time.time,
    ):
        self.engine = engine
        self.heard = heard
        self.clock = clock
        self.connected = False
        self.term = 0
        self.ahead = math.nan
        self._own = sa.create_engine(engine.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        self._connection: sa.Connection | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="leadership", daemon=True)

    @property
    def leads(self) -> bool:
        return self.term > 0

    def start(self) -> None:
        """Returns when it is known who computes, or that the database cannot be reached now."""
        self._attempt(self._join)
        self._thread.start()

    def stop(self) -> None:
        """Lets go of the lock: another computes within a beat."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._leave()
        self._own.dispose()

    def confirm(self, connection: sa.Connection) -> None:
        if not self.leads or connection.scalar(sa.select(terms.c.term)) != self.term:
            raise Deposed("another replica computes by now; nothing was written")

    def tell_arrived(self, signals: Signals) -> None:
        try:
            with transaction(self.engine) as connection:
                connection.execute(sa.select(sa.func.pg_notify(ARRIVED, ",".join(sorted(signals)))))
        except StoreUnavailable:
            # The readings are safe; whoever computes reads them at its next tick.
            log.warning("whoever computes was not told of readings")

    def tell_published(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_notify(PUBLISHED, "")))

    def _loop(self) -> None:
        while not self._stopping.is_set():
            if self._connection is None:
                self._attempt(self._join)
            if self._connection is None:
                self._stopping.wait(BEAT_S)
            else:
                self._attempt(self._beat)

    def _attempt(self, act: Callable[[], None]) -> None:
        import psycopg  # the extra `postgres`; without it no such database is served

        try:
            act()
        except (DBAPIError, psycopg.Error, Deposed) as error:
            log.warning("the other replicas cannot be reached", error=type(error).__name__)
            self._leave()

    def _join(self) -> None:
        self._connection = connection = self._own.connect()
        connection.exec_driver_sql(f"SET idle_session_timeout = '{IDLE_S}s'")
        for channel in (ARRIVED, PUBLISHED):
            connection.exec_driver_sql(f"LISTEN {channel}")
        self._compare(connection)
        self._stand()
        self.connected = True
        self.heard(None if self.leads else ())

    def _beat(self) -> None:
        """Waits for notices, a beat at most; then stands for election, or shows that it is alive."""
        assert self._connection is not None
        driver = cast("psycopg.Connection", self._connection.connection.driver_connection)
        with closing(driver.notifies(timeout=BEAT_S, stop_after=1)) as notices:
            for notice in notices:
                if notice.channel == (ARRIVED if self.leads else PUBLISHED):
                    self.heard([signal for signal in notice.payload.split(",") if signal])
        self._compare(self._connection)
        if self.leads:
            self.confirm(self._connection)
        else:
            self._stand()
            if self.leads:
                self.heard(None)

    def _compare(self, connection: sa.Connection) -> None:
        """Looks how far this machine's clock is from the database's, to within half the time that asking takes."""
        asked = self.clock()
        theirs = present(connection)
        ahead = (asked + self.clock()) / 2 - theirs
        apart, was = abs(ahead) > APART_S, abs(self.ahead) > APART_S
        self.ahead = ahead
        if apart and not was:
            log.error("this machine's clock is not the database's", seconds_ahead=round(ahead, 1))
        elif was and not apart:
            log.info("this machine's clock is the database's again", seconds_ahead=round(ahead, 1))

    def _stand(self) -> None:
        assert self._connection is not None
        if self._connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCK))):
            # On the connection that holds the lock: who lost it while it slept begins no term.
            begun = terms.update().values(term=terms.c.term + 1).returning(terms.c.term)
            self.term = int(self._connection.execute(begun).scalar_one())
            log.info("this replica computes", term=self.term)

    def _leave(self) -> None:
        if self.leads:
            log.warning("this replica computes no longer", term=self.term)
        self.term, self.connected, self.ahead = 0, False, math.nan
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
