"""The audit log: each entry is sealed together with the one before it.

Editing, removing, inserting or moving an entry breaks every seal after it. With a secret (``audit_key``) the seals
are HMACs, which an intruder in the database cannot make anew. What no chain can show on its own is that the whole
log was put back to an earlier state: compare the head with one that was noted elsewhere (it is logged).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from citybrain_serving.database import transaction
from citybrain_serving.errors import SafetyError
from citybrain_serving.tables import audit, audit_head

START = "0" * 64
"""The seal before the first entry."""

PAGE = 5_000
LEAST_SECRET = 32


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
            head = self._head(connection)
            known, number, seal, rows = head is not None, head.number if head else 0, head.seal if head else START, []
            for entry in entries:
                number, text = number + 1, canonical(entry)
                seal = self._seal(seal, number, text)
                rows.append({"number": number, "entry": text, "seal": seal})
            if rows:
                connection.execute(audit.insert(), rows)
                row = {"number": number, "seal": seal}
                connection.execute(
                    audit_head.update().values(row) if known else audit_head.insert().values(id=1, **row)
                )
        return Head(number, seal)

    def head(self) -> Head:
        with transaction(self.engine) as connection:
            return self._head(connection) or Head(0, START)

    def read(self, first: int = 1, most: int = PAGE) -> list[tuple[int, dict[str, Any]]]:
        """Entries from number ``first`` on."""
        query = sa.select(audit).where(audit.c.number >= first).order_by(audit.c.number).limit(most)
        with transaction(self.engine) as connection:
            return [(row.number, json.loads(row.entry)) for row in connection.execute(query)]

    def verify(self, noted: Head | None = None) -> Broken | Head:
        """Walks the whole chain: its head where all is well, else the first place where it breaks.

        ``noted`` is a head seen before; the log must still contain it.
        """
        with transaction(self.engine) as connection:
            head = self._head(connection) or Head(0, START)
            seal, number = START, 0
            for row in self._rows(connection):
                number += 1
                if row.number != number:
                    return Broken(number, f"entry {number} is gone; {row.number} comes next")
                seal = self._seal(seal, number, row.entry)
                if not hmac.compare_digest(seal, row.seal):
                    return Broken(number, f"entry {number} is not what was sealed, or the secret is another")
                if noted is not None and noted.number == number and noted.seal != seal:
                    return Broken(number, f"entry {number} has another seal than was noted")
        if head != Head(number, seal):
            return Broken(min(number, head.number) + 1, f"the log ends at entry {number}, its head is at {head.number}")
        if noted is not None and noted.number > number:
            return Broken(number + 1, f"the log ends at entry {number}; {noted.number} was noted")
        return head

    def _head(self, connection: sa.Connection) -> Head | None:
        row = connection.execute(sa.select(audit_head.c.number, audit_head.c.seal)).first()
        return None if row is None else Head(row.number, row.seal)

    def _rows(self, connection: sa.Connection) -> Iterator[sa.Row]:
        query = sa.select(audit).order_by(audit.c.number)
        yield from connection.execution_options(yield_per=PAGE).execute(query)

    def _seal(self, before: str, number: int, text: str) -> str:
        message = f"{before}\n{number}\n{text}".encode()
        if self.secret:
            return hmac.new(self.secret, message, hashlib.sha256).hexdigest()
        return hashlib.sha256(message).hexdigest()


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
