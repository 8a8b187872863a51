"""A copy of an SQLite store, made while the service goes on."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path

import sqlalchemy as sa

from citybrain_serving.errors import FleetError, StoreUnavailable


def backup(engine: sa.Engine, out: Path) -> int:
    """Writes a consistent, checked copy to ``out``, whole or not at all, and returns its size in bytes.

    Raises :class:`FleetError` for another database than SQLite or where ``out`` is there already, and
    :class:`StoreUnavailable` where the copy cannot be made or is not sound.
    """
    if engine.dialect.name != "sqlite":
        raise FleetError(f"a {engine.dialect.name} store is backed up with its own tools: pg_dump --format=custom")
    if out.exists():
        raise FleetError(f"{out}: is there already; it is left as it is")
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    os.close(handle)
    work = Path(name)
    try:
        connection = engine.raw_connection()
        try:
            copied = _copy(connection.driver_connection, work)
        finally:
            connection.close()
        if copied != "ok":
            raise StoreUnavailable(f"the copy is not sound: {copied}")
        with open(work, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(work, out)
        folder = os.open(out.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the copy cannot be made: {error}") from error
    finally:
        work.unlink(missing_ok=True)
    return out.stat().st_size


def _copy(source: object, work: Path) -> str:
    """Copies page by page, then lets SQLite check the copy; ``ok``, or what is wrong with it."""
    assert isinstance(source, sqlite3.Connection)
    target = sqlite3.connect(work)
    try:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # a copy is one file
        return str(target.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        target.close()
