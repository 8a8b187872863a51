"""The database behind the store: how it is opened, brought up to date and written to."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as NoConnection

from citybrain_serving.errors import FleetError, StoreRefused, StoreUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"
Value = TypeVar("Value")
VERSIONS = "citybrain_schema"
"""Table in which the database notes its version."""

TEXT = r"^[^\x00]*$"
"""Pattern of text that every database can hold: PostgreSQL takes no NUL."""

_POSTGRESQL = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "client_encoding": "utf8",
}
"""Of a connection, unless the URL says otherwise: a network that is cut is an error soon, and not a wait for hours; and
text is text, in a database too that was made without an encoding (`SQL_ASCII`), where it would be bytes."""

BUSY = "10s"
"""How long a statement waits for what another holds, as SQLite's ``busy_timeout`` has it."""

PARAMETERS = 500
"""Parameters that a statement is given at most for one ``IN``."""

HUNG = "30s"
"""How long a transaction may stand still. A replica that hangs in the middle of one would keep every other from writing
for ever: there is one writer at a time."""

log = structlog.get_logger(__name__)

_WRITER = 7_236_001
"""Key of PostgreSQL's advisory lock for whoever writes; any number that nothing else here uses."""


def open_engine(location: str, *, new: bool = True, reading: bool = False) -> sa.Engine:
    """An engine for a URL, or for a path that becomes an SQLite file (its folder is made), unless not ``new``: then the
    file must be there. ``reading`` lets nothing be changed.

    Raises :class:`FleetError` for a file that is not there or whose folder cannot be made, and a URL that names no
    database this installation can reach.
    """
    path = None if "://" in location else Path(location).absolute()
    if path is not None:
        location = f"sqlite:///{path}"
    if location.startswith("postgresql://"):
        location = location.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        url = sa.make_url(location)
        if url.get_backend_name() == "postgresql":
            url = url.update_query_dict({k: str(v) for k, v in _POSTGRESQL.items() if k not in url.query})
        engine = sa.create_engine(url, pool_pre_ping=True, execution_options={"postgresql_readonly": reading})
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise FleetError(f"store: the database URL cannot be used: {error}") from None
    if engine.dialect.name == "sqlite":
        file = url.database
        if not new and file and not file.startswith((":memory:", "file:")) and not Path(file).is_file():
            raise FleetError(f"store {file}: there is none; `citybrain serve` and `citybrain keys create` make one")
        if new and path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FleetError(f"store {path}: its folder cannot be made: {error.strerror or error}") from None
        sa.event.listen(engine, "connect", _prepare_sqlite_to_read if reading else _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name == "postgresql":
        sa.event.listen(engine, "connect", _prepare_postgresql)
    return engine


def migrate(engine: sa.Engine) -> None:
    """Brings the database to the schema of this version, in one transaction.

    Raises :class:`StoreUnavailable`, which names it and says why, where it cannot be used, :class:`FleetError` where a
    newer version wrote it.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with transaction(engine, write=True) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise FleetError(f"store: its schema is not one that this version knows ({error})") from None
    except StoreUnavailable as error:
        # Whoever starts a service has to mend it; callers of one that runs are not told what it stands on.
        cause = error.__cause__.orig if isinstance(error.__cause__, DBAPIError) else error.__cause__
        named = engine.url.database if engine.dialect.name == "sqlite" else engine.url.render_as_string()
        raise StoreUnavailable(f"store {named}: cannot be used: {str(cause).strip()}") from error


@contextmanager
def transaction(engine: sa.Engine, *, write: bool = False, still: bool = False) -> Iterator[sa.Connection]:
    """A transaction; of those that ``write``, one at a time, on SQLite and on PostgreSQL: what is written here is
    read, merged and written back. ``still`` reads one moment with all its statements, as SQLite always does.

    Raises :class:`StoreUnavailable`, and :class:`StoreRefused` for a statement or a value that the database does not
    take, which is no outage; then nothing was written.
    """
    try:
        with engine.connect().execution_options(citybrain_write=write) as connection, connection.begin():
            if write and engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER)))
            if still and engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield connection
    except (DataError, IntegrityError, NotSupportedError, ProgrammingError) as error:
        log.exception("the store refused a statement")
        raise StoreRefused(
            f"the store does not take this ({type(error.orig).__name__}); nothing was written"
        ) from error
    except (DBAPIError, NoConnection) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        told = "" if isinstance(error, OperationalError) else f" ({type(cause).__name__})"
        raise StoreUnavailable(f"the store cannot be used now{told}; nothing was written") from error


def in_parts(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """``values`` for an ``IN``, so many at a time: databases bound the number of parameters of a statement."""
    return (values[first : first + PARAMETERS] for first in range(0, len(values), PARAMETERS))


def room(engine: sa.Engine) -> float:
    """Bytes that are free on the disk of an SQLite file; NaN for a database that is elsewhere or in memory."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if not file or file.startswith((":memory:", "file:")):
        return math.nan
    try:
        return float(shutil.disk_usage(Path(file).parent).free)
    except OSError:
        return math.nan


def present(connection: sa.Connection) -> float:
    """Seconds since 1970 by the database's clock, which is the same for all who share it: what one of them writes
    down for another to judge is told by no clock of its own. A file is of one machine, and has the clock of that."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
    return time.time()


def _prepare_sqlite(connection: object, _record: object) -> None:
    _set(connection, "journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON")


def _prepare_sqlite_to_read(connection: object, _record: object) -> None:
    _set(connection, "query_only=ON", "busy_timeout=10000")


def _prepare_postgresql(connection: object, _record: object) -> None:
    for setting, value in (("lock_timeout", BUSY), ("idle_in_transaction_session_timeout", HUNG)):
        connection.execute(f"SET {setting} = '{value}'")  # type: ignore[attr-defined]  # psycopg.Connection, as below
    connection.commit()  # type: ignore[attr-defined]  # of the session; a rollback would take it back


def _set(connection: object, *pragmas: str) -> None:
    # The driver must not open transactions on its own: a writer says BEGIN IMMEDIATE, so that two never deadlock.
    connection.isolation_level = None  # type: ignore[attr-defined]  # sqlite3.Connection; the event knows any
    cursor = connection.cursor()  # type: ignore[attr-defined]  # the same
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("citybrain_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
