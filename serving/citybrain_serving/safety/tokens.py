"""Bearer tokens of an OpenID Connect provider: signed, for us, from it, and not expired."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from citybrain_serving.errors import SafetyError
from citybrain_serving.safety.roles import Principal, Role

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""Signatures that can be allowed: public-key ones only, so that a published key can never sign."""

REFRESH_SECONDS = 60.0
"""The least time between two fetches of the provider's keys, however many unknown keys callers name."""

KEPT_SECONDS = 600.0
"""How long the provider's keys are used until they are fetched again. A key that it took back, for it had leaked, signs
tokens here until then, and while the provider cannot be reached."""

MOST_BYTES = 2**20
LEEWAY_SECONDS = 30

KeySource = Callable[[], KeySet]

log = structlog.get_logger(__name__)


class ProviderAway(SafetyError):
    """The provider does not answer now; what is set may be right."""


class Tokens:
    """Turns a token into a principal. Roles and owners are read from claims, named by dotted paths."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        source: KeySource,
        algorithms: Sequence[str] = ALGORITHMS,
        roles_claim: str = "roles",
        owners_claim: str = "owners",
        now: Callable[[], float] = time.time,
    ):
        self.issuer = issuer
        self.algorithms = list(algorithms)
        self.source = source
        self.roles_claim = roles_claim
        self.owners_claim = owners_claim
        self.now = now
        self._required: dict[str, jwt.ClaimsOption] = {
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": audience},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        self._lock = threading.Lock()
        self._keys, self._fetched, self._tried = KeySet([]), -math.inf, now()
        try:
            self._keys, self._fetched = source(), self._tried
        except ProviderAway as error:  # the callers with a key of ours are not to wait for it
            log.error("no token can be checked yet", error=str(error))

    def verify(self, text: str) -> tuple[Principal, float] | None:
        """The principal behind a token and until when the token is taken, in seconds since 1970 UTC; None for a token
        that is not valid here or names no role."""
        try:
            claims = self._decoded(text).claims
            registry = jwt.JWTClaimsRegistry(int(self.now()), LEEWAY_SECONDS, **self._required)
            registry.validate(claims)
            until = float(claims["exp"]) + LEEWAY_SECONDS
        except (JoseError, ValueError, TypeError, KeyError, OverflowError):
            return None
        roles = [Role(name) for name in _strings(_claim(claims, self.roles_claim)) if name in _ROLES]
        if not roles:
            return None
        given = _claim(claims, self.owners_claim)
        owners = None if given is None else _strings(given)
        return Principal.of(f"token:{str(claims['sub'])[:100]}", roles, owners), until

    def _decoded(self, text: str) -> jwt.Token:
        if self.now() - self._fetched >= KEPT_SECONDS:
            self._refresh()
        try:
            return jwt.decode(text, self._keys, algorithms=self.algorithms)
        except (JoseError, ValueError):
            if not self._refresh():
                raise
            return jwt.decode(text, self._keys, algorithms=self.algorithms)

    def _refresh(self) -> bool:
        """Fetches the provider's keys again, if that is due; it may have changed them."""
        with self._lock:
            if self.now() - self._tried < REFRESH_SECONDS:
                return False
            self._tried = self.now()
        try:
            self._keys = self.source()
        except SafetyError:
            return False  # the keys that are known stay good
        self._fetched = self.now()
        return True


def key_source(location: str) -> KeySource:
    """Reads a JSON Web Key Set from a file or an https address; each failure is a :class:`SafetyError`, one of the
    network a :class:`ProviderAway`."""
    if location.startswith("https://"):
        opener = urllib.request.build_opener(_NoRedirect)

        def read() -> bytes:
            with opener.open(location, timeout=5) as answer:
                return bytes(answer.read(MOST_BYTES))

    elif "://" in location:
        raise SafetyError(f"key set {location}: must be a file or an https address")
    else:

        def read() -> bytes:
            return Path(location).read_bytes()[:MOST_BYTES]

    def source() -> KeySet:
        try:
            return KeySet.import_key_set(json.loads(read()))
        except urllib.error.HTTPError as error:
            kind = ProviderAway if error.code >= 500 else SafetyError
            raise kind(f"key set {location}: cannot be read (HTTP {error.code})") from None
        except (urllib.error.URLError, TimeoutError, http.client.HTTPException) as error:
            raise ProviderAway(f"key set {location}: cannot be read ({type(error).__name__})") from None
        except (OSError, ValueError, KeyError, TypeError, JoseError) as error:
            raise SafetyError(f"key set {location}: cannot be read ({type(error).__name__})") from None

    return source


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The provider's keys come from the configured address and from nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_ROLES = {str(role) for role in Role}


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _strings(value: Any) -> list[str]:
    """A claim's list of strings, which providers also write as one string of words."""
    if isinstance(value, str):
        return value.split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
