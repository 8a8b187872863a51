"""API keys: shown once when they are made, kept as a hash."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from citybrain_serving.database import transaction
from citybrain_serving.errors import SafetyError
from citybrain_serving.safety.roles import Principal, Role
from citybrain_serving.tables import api_keys as keys

PREFIX = "cb"
"""Keys read ``cb_<id>_<secret>``, so that scanners of leaked secrets can tell them."""

HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""Argon2id with the least parameters OWASP recommends: the secret is random, 256 bit, and no password."""


@dataclass(frozen=True)
class Key:
    """A key as it is kept. Times are seconds since 1970 UTC, None for never."""

    id: str
    name: str
    role: Role
    owners: tuple[str, ...] | None
    created: int
    expires: int | None
    revoked: int | None

    def alive(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)

    @property
    def principal(self) -> Principal:
        return Principal.of(f"key:{self.id}:{self.name}", [self.role], self.owners)


class KeyRing:
    """The keys of a store, whose schema is up to date."""

    def __init__(self, engine: sa.Engine, now: Callable[[], float] = time.time):
        self.engine = engine
        self.now = now

    def create(
        self, name: str, role: Role, owners: Sequence[str] | None = None, days: float | None = None
    ) -> tuple[Key, str]:
        """A new key and its text, which nothing can show again. ``days`` it is valid for, None for ever.

        Raises :class:`SafetyError` for a role that takes no key.
        """
        if role is Role.PUBLIC:
            raise SafetyError("the public needs no key")
        if not name or len(name) > 100 or not name.isprintable():
            raise SafetyError(f"name {name[:100]!r} must be 1 to 100 printable characters")
        created = int(self.now())
        key = Key(
            secrets.token_hex(6), name, role, None if owners is None else tuple(owners), created,
            None if days is None else created + int(86_400 * days), None,
        )  # fmt: skip
        secret = secrets.token_urlsafe(32)
        row = {
            **vars(key),
            "role": str(role),
            "owners": None if owners is None else json.dumps(list(owners), ensure_ascii=False),
            "hash": HASHER.hash(secret),
        }
        with transaction(self.engine, write=True) as connection:
            connection.execute(keys.insert().values(row))
        return key, f"{PREFIX}_{key.id}_{secret}"

    def revoke(self, key_id: str) -> Key:
        """Raises :class:`SafetyError` for an id that no living key has."""
        with transaction(self.engine, write=True) as connection:
            found = connection.execute(
                keys.update()
                .where(keys.c.id == key_id, keys.c.revoked.is_(None))
                .values(revoked=int(self.now()))
                .returning(*_COLUMNS)
            ).first()
        if found is None:
            raise SafetyError(f"no key {key_id[:40]!r} is in use")
        return _key(found)

    def list(self) -> list[Key]:
        with transaction(self.engine) as connection:
            return [_key(row) for row in connection.execute(sa.select(*_COLUMNS).order_by(keys.c.created))]

    def get(self, key_id: str) -> Key | None:
        with transaction(self.engine) as connection:
            row = connection.execute(sa.select(*_COLUMNS).where(keys.c.id == key_id)).first()
        return None if row is None else _key(row)

    def any(self) -> bool:
        """Whether some key is in use."""
        now = self.now()
        return any(key.alive(now) for key in self.list())

    def used(self) -> bool:
        """Whether a key was ever made, revoked and expired ones among them."""
        return bool(self.list())

    def verify(self, text: str) -> Key | None:
        """The living key that ``text`` is; None for every other text. Takes tens of milliseconds of CPU."""
        prefix, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        if prefix != PREFIX or not secret:
            return None
        with transaction(self.engine) as connection:
            row = connection.execute(sa.select(*_COLUMNS, keys.c.hash).where(keys.c.id == key_id)).first()
        try:
            HASHER.verify(_nobodys_hash() if row is None else row.hash, secret)
        except (VerificationError, InvalidHashError):
            return None
        key = None if row is None else _key(row)
        return key if key is not None and key.alive(self.now()) else None


_COLUMNS = [column for column in keys.c if column.name != "hash"]


@cache
def _nobodys_hash() -> str:
    """Checked for an unknown id, so that it takes as long as a wrong secret."""
    return HASHER.hash(secrets.token_urlsafe(32))


def _key(row: sa.Row) -> Key:
    owners = None if row.owners is None else tuple(json.loads(row.owners))
    return Key(row.id, row.name, Role(row.role), owners, row.created, row.expires, row.revoked)
