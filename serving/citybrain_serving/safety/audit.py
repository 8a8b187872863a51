"""The audit log: each entry is sealed together with the one before it.

Editing, removing, inserting or moving an entry breaks every seal after it. With a secret (``audit_key``) the seals
are HMACs, which an intruder in the database cannot make anew. What no chain can show on its own is that the whole
log was put back to an earlier state: compare the head with one that was noted elsewhere (it is logged).

Old entries may be moved out (:mod:`~citybrain_serving.safety.audit_archive`). An entry that is sealed like every other
says up to which, and with which seal the last of them ended: there the chain goes on.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from citybrain_serving.database import transaction
from citybrain_serving.errors import SafetyError
from citybrain_serving.tables import audit, audit_head

START = "0" * 64
"""The seal before the first entry."""

ARCHIVED = "log archived"
"""What an entry says that tells of entries moved out."""

PAGE = 5_000
LEAST_SECRET = 32


class Entry(NamedTuple):
    """As it is kept; ``text`` is canonical JSON."""

    number: int
    text: str
    seal: str


@dataclass(frozen=True)
class Head:
    """The last entry: its number, 0 for an empty log, and its seal."""

    number: int
    seal: str


@dataclass(frozen=True)
class Broken:
    """The first place at which the log is not what was written."""

    number: int
    what: str


class AuditLog:
    """The log in a store. ``secret`` keys the seals; it must be the same for the life of the log."""

    def __init__(self, engine: sa.Engine, secret: bytes = b""):
        self.engine = engine
        self.secret = secret

    def append(self, entries: Sequence[Mapping[str, Any]]) -> Head:
        """Adds entries in one durable transaction and returns the new head.

        Raises :class:`~citybrain_serving.errors.StoreUnavailable`; then none was added.
        """
        with transaction(self.engine, write=True) as connection:
            return self._append(connection, entries)

    def head(self) -> Head:
        with transaction(self.engine) as connection:
            return self._head(connection) or Head(0, START)

    def read(self, first: int = 1, most: int = PAGE) -> list[tuple[int, dict[str, Any]]]:
        """Entries from number ``first`` on."""
        query = sa.select(audit).where(audit.c.number >= first).order_by(audit.c.number).limit(most)
        with transaction(self.engine) as connection:
            return [(row.number, json.loads(row.entry)) for row in connection.execute(query)]

    def verify(self, noted: Head | None = None, archived: Iterable[Entry] | None = None) -> Broken | Head:
        """Walks the whole chain: its head where all is well, else the first place where it breaks.

        ``noted`` is a head seen before; the log must still contain it. ``archived`` are the entries that were moved
        out, from the first on; without them the walk begins where the last of those was. Raises :class:`SafetyError`
        where ``noted`` is one of them and they are not given.
        """
        with transaction(self.engine, still=True) as connection:
            head = self._head(connection) or Head(0, START)
            cut = self._cut(connection)
            number, seal = (cut.number, cut.seal) if archived is None else (0, START)
            if noted is not None and noted.number < number:
                raise SafetyError(f"entry {noted.number} was archived; verify together with the archives")
            before = takewhile(lambda entry: entry.number <= cut.number, archived or ())
            for entry in chain(before, self._rows(connection)):
                if other := _otherwise(noted, number, seal):
                    return other
                number += 1
                if entry.number != number:
                    return Broken(number, f"entry {number} is gone; {entry.number} comes next")
                seal = self._seal(seal, number, entry.text)
                if not hmac.compare_digest(seal, entry.seal):
                    return Broken(number, f"entry {number} is not what was sealed, or the secret is another")
        if other := _otherwise(noted, number, seal):
            return other
        if head != Head(number, seal):
            return Broken(min(number, head.number) + 1, f"the log ends at entry {number}, its head is at {head.number}")
        if noted is not None and noted.number > number:
            return Broken(number + 1, f"the log ends at entry {number}; {noted.number} was noted")
        return head

    def cut(self) -> Head:
        """The last entry that was moved out; number 0 where none was."""
        with transaction(self.engine, still=True) as connection:
            return self._cut(connection)

    def entries(self, through: int) -> Iterator[Entry]:
        """Those that are here, from the first to number ``through``."""
        with transaction(self.engine, still=True) as connection:
            yield from takewhile(lambda entry: entry.number <= through, self._rows(connection))

    def drop(self, last: Head, told: Mapping[str, Any]) -> None:
        """Removes the entries up to ``last``, that somebody keeps elsewhere, and appends one that says so, with
        ``told``: both or, where :class:`~citybrain_serving.errors.StoreUnavailable` is raised, neither."""
        with transaction(self.engine, write=True) as connection:
            self._append(connection, [{**told, "what": ARCHIVED, "through": last.number, "seal": last.seal}])
            with _unlocked(connection):
                connection.execute(audit.delete().where(audit.c.number <= last.number))

    def _append(self, connection: sa.Connection, entries: Sequence[Mapping[str, Any]]) -> Head:
        head = self._head(connection)
        known, number, seal, rows = head is not None, head.number if head else 0, head.seal if head else START, []
        for entry in entries:
            number, text = number + 1, canonical(entry)
            seal = self._seal(seal, number, text)
            rows.append({"number": number, "entry": text, "seal": seal})
        if rows:
            connection.execute(audit.insert(), rows)
            row = {"number": number, "seal": seal}
            connection.execute(audit_head.update().values(row) if known else audit_head.insert().values(id=1, **row))
        return Head(number, seal)

    def _cut(self, connection: sa.Connection) -> Head:
        """What says so is an entry of the log, sealed like all that are left."""
        first = connection.scalar(sa.select(sa.func.min(audit.c.number))) or 1
        query = sa.select(audit.c.entry).where(audit.c.entry.contains(f'"what":"{ARCHIVED}"', autoescape=True))
        for text in connection.scalars(query) if first > 1 else ():
            told = json.loads(text)
            if told["what"] == ARCHIVED and told["through"] == first - 1:
                return Head(first - 1, told["seal"])
        return Head(0, START)

    def _head(self, connection: sa.Connection) -> Head | None:
        row = connection.execute(sa.select(audit_head.c.number, audit_head.c.seal)).first()
        return None if row is None else Head(row.number, row.seal)

    def _rows(self, connection: sa.Connection) -> Iterator[Entry]:
        query = sa.select(audit.c.number, audit.c.entry, audit.c.seal).order_by(audit.c.number)
        for row in connection.execution_options(yield_per=PAGE).execute(query):
            yield Entry(*row)

    def _seal(self, before: str, number: int, text: str) -> str:
        message = f"{before}\n{number}\n{text}".encode()
        if self.secret:
            return hmac.new(self.secret, message, hashlib.sha256).hexdigest()
        return hashlib.sha256(message).hexdigest()


def _otherwise(noted: Head | None, number: int, seal: str) -> Broken | None:
    """Whether the head that was noted is that of another log."""
    if noted is None or noted.number != number or noted.seal == seal:
        return None
    return Broken(number, f"entry {number} has another seal than was noted")


@contextmanager
def _unlocked(connection: sa.Connection) -> Iterator[None]:
    """Lets entries be deleted within a transaction; whoever else is there still may not."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE audit DISABLE TRIGGER audit_keeps_delete")
        yield
        connection.exec_driver_sql("ALTER TABLE audit ENABLE TRIGGER audit_keeps_delete")
        return
    named = "FROM sqlite_master WHERE type = 'trigger' AND name = 'audit_keeps_DELETE'"
    trigger = connection.exec_driver_sql(f"SELECT sql {named}").scalar_one()
    connection.exec_driver_sql("DROP TRIGGER audit_keeps_DELETE")
    yield
    connection.exec_driver_sql(trigger)


def canonical(entry: Mapping[str, Any]) -> str:
    """JSON that is the same text for the same content."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def entry(who: str, what: str, **details: Any) -> dict[str, Any]:
    """An entry as it is appended, with the time of now."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"at": at, "who": who, "what": what, **details}


def read_secret(path: Path | str) -> bytes:
    """A secret from a file that only its owner can read. Raises :class:`SafetyError`."""
    path = Path(path)
    try:
        status, secret = path.stat(), path.read_bytes().strip()
    except OSError as error:
        raise SafetyError(f"{path}: cannot be read ({error.strerror})") from None
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
        raise SafetyError(f"{path}: others can read this secret; chmod 600 it")
    if len(secret) < LEAST_SECRET:
        raise SafetyError(f"{path}: a secret has at least {LEAST_SECRET} bytes, this one {len(secret)}")
    return secret
