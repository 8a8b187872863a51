"""From an ``Authorization`` header to a principal."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.to_thread import run_sync
from cachetools import LRUCache

from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.safety.keys import PREFIX, KeyRing
from citybrain_serving.safety.limits import Buckets
from citybrain_serving.safety.roles import ANYONE, LOCAL, NOBODY, Principal

if TYPE_CHECKING:
    from citybrain_serving.safety.tokens import Tokens

RECHECK_SECONDS = 30.0
"""How soon a revoked key stops working."""

TOKEN_SECONDS = 600.0
"""How soon a token is checked again: the provider may have taken back the key that signed it."""

GRACE_SECONDS = 15 * 60.0
"""How long a key that was good stays good while the store cannot be asked."""

MOST_CALLERS = 10_000


class TooManyAttempts(Exception):
    """An address tried too many unknown keys; ``seconds`` until the next try."""

    def __init__(self, seconds: float):
        self.seconds = seconds


@dataclass
class _Known:
    """A credential that was found good: the key behind it, None for a token, when it was checked and its end."""

    principal: Principal
    key_id: str | None
    checked: float
    expires: float | None


class Callers:
    """Who is asking. Where there never was a key, nor are there tokens, every caller is :data:`LOCAL`; the service
    then binds to this machine alone. That the last key was revoked or ran out opens nothing."""

    def __init__(
        self, ring: KeyRing, tokens: Tokens | None, *, open_to_public: bool, now: Callable[[], float] = time.time
    ):
        self.ring = ring
        self.tokens = tokens
        self.now = now
        self.guarded = tokens is not None or ring.used()
        self.stranger = LOCAL if not self.guarded else ANYONE if open_to_public else NOBODY
        self._known: LRUCache[bytes, _Known] = LRUCache(MOST_CALLERS)
        # Checking an unknown key costs CPU: few at a time, and few for each address.
        self._attempts = Buckets(2, 20, now)
        self._slots = anyio.Semaphore(2)
        self._asking = anyio.Lock()
        self._failed: float | None = None  # when the store last could not be asked; None once it could

    async def identify(self, authorization: bytes | None, address: str) -> Principal | None:
        """The principal, or None for a credential that is not good.

        Raises :class:`TooManyAttempts`, or :class:`StoreUnavailable` for a key that is not known yet.
        """
        if not self.guarded or authorization is None:
            return self.stranger
        scheme, _, text = authorization.decode("latin-1").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text or not text.isascii():
            return None
        digest = hashlib.sha256(text.encode()).digest()
        known = self._known.get(digest)
        if known is not None and not (known.key_id is None and self.now() - known.checked >= TOKEN_SECONDS):
            if known.expires is not None and self.now() >= known.expires:
                del self._known[digest]
                return None
            if await self._still_good(known):
                return known.principal
            self._known.pop(digest, None)
            return None
        wait = self._attempts.take(address)
        if wait:
            raise TooManyAttempts(wait)
        async with self._slots:
            found = await run_sync(self._verify, text)
        if found is None:
            self._known.pop(digest, None)
            return None
        self._known[digest] = found
        return found.principal

    async def _still_good(self, known: _Known) -> bool:
        """Whether what was good still is, asking the store about a key that was checked long ago. While the store
        cannot be asked one caller tries again every :data:`RECHECK_SECONDS`, and nobody else waits for it."""
        if known.key_id is None or self._lately(known.checked):
            return True
        if self._failed is not None and (self._asking.locked() or self._lately(self._failed)):
            return self._trusted(known)
        async with self._asking:
            if self._lately(known.checked):  # somebody asked meanwhile
                return True
            if self._failed is not None and self._lately(self._failed):
                return self._trusted(known)
            try:
                key = await run_sync(self.ring.get, known.key_id)
            except StoreUnavailable:
                self._failed = self.now()
                return self._trusted(known)
            self._failed = None
        if key is None or not key.alive(self.now()):
            return False
        known.checked = self.now()
        return True

    def _lately(self, time: float) -> bool:
        return self.now() - time < RECHECK_SECONDS

    def _trusted(self, known: _Known) -> bool:
        return self.now() - known.checked < GRACE_SECONDS

    def _verify(self, text: str) -> _Known | None:
        if text.startswith(f"{PREFIX}_"):
            key = self.ring.verify(text)
            if key is None:
                return None
            expires = None if key.expires is None else float(key.expires)
            return _Known(key.principal, key.id, self.now(), expires)
        found = self.tokens.verify(text) if self.tokens is not None else None
        return None if found is None else _Known(found[0], None, self.now(), found[1])
