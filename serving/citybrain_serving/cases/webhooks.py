"""Tells other systems of cases: signed, retried, and only where the configuration says.

Messages follow the Standard Webhooks specification (standardwebhooks.com): ``webhook-id``, ``webhook-timestamp`` and
``webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from citybrain_serving.cases.outbox import Outbox
from citybrain_serving.database import transaction
from citybrain_serving.errors import FleetError, StoreUnavailable
from citybrain_serving.tables import deliveries

TIMEOUT_S = 10.0
WAITS_S = (5, 30, 120, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
"""Between attempts; after the last the message is given up and logged."""

LINGER_S = 3.0
"""How long an ending service waits for a request under way. What had not arrived by then is sent again, under the same
id, by whoever computes next."""

AT_ONCE = 50
LOOK_EVERY_S = 5.0
LONGEST = 500

_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")

log = structlog.get_logger(__name__)


def checked_targets(text: str) -> tuple[str, ...]:
    """Addresses separated by commas. Raises :class:`FleetError` for one that is not https (http on this machine) or to
    which nothing could be sent."""
    targets = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for target in targets:
        _check(target)
    return targets


def _check(target: str) -> None:
    try:
        url = httpx.URL(target)
        host = url.raw_host.decode("ascii")
        host.encode("idna")  # as the resolver will
    except (httpx.InvalidURL, UnicodeError) as error:
        raise FleetError(f"webhook target {target[:200]!r} is no address: {error}") from None
    if url.userinfo:
        raise FleetError(f"webhook target at {host}: an address must hold no password")
    if url.scheme != "https" and not (url.scheme == "http" and host in ("127.0.0.1", "localhost", "::1")):
        raise FleetError(f"webhook target {target[:200]!r} must be an https address")
    if not _HOST.fullmatch(host) or not 0 < (url.port or 443) < 2**16 or len(target) > LONGEST:
        raise FleetError(f"webhook target {target[:200]!r} is no address: it needs a host, and a port that exists")


def signature(secret: bytes, message: str, timestamp: int, body: bytes) -> str:
    signed = hmac.new(secret, f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


class Webhooks:
    """A thread for each target, that empties its part of the outbox in the one replica of which ``mine`` says that it
    should: one that hangs holds up nobody else. A message is out once its target answers 2xx; redirects are not
    followed, for where they lead nobody allowed."""

    def __init__(
        self,
        engine: sa.Engine,
        outbox: Outbox,
        secret: bytes,
        mine: Callable[[], bool] = lambda: True,
        transport: httpx.BaseTransport | None = None,
        registry: CollectorRegistry | None = None,
    ):
        if outbox.targets and not secret:
            raise FleetError("webhooks need a secret to sign with; set webhook_secret_file")
        self.engine = engine
        self.outbox = outbox
        self.secret = secret
        self.mine = mine
        self._client = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, transport=transport)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(target,), name=f"webhooks {_host(target)}", daemon=True)
            for target in outbox.targets
        ]
        registry = registry or CollectorRegistry()
        self._attempts = Counter(
            "citybrain_webhook_attempts", "Messages sent, by how it went", ("target", "outcome"), registry=registry
        )
        waiting = Gauge(
            "citybrain_webhook_waiting", "Messages that have not arrived yet", ("target",), registry=registry
        )
        for host in {_host(target) for target in outbox.targets}:
            waiting.labels(host).set_function(partial(self._waiting, host))
            for outcome in ("arrived", "failed", "given_up"):
                self._attempts.labels(host, outcome)

    def deliver(self) -> int:
        """One attempt at each message that is due; returns how many arrived. A target that fails is not tried again
        with what else is due to it."""
        return sum(self._deliver(target) for target in self.outbox.targets)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Sends nothing more, and waits for what is under way, :data:`LINGER_S` at most."""
        self._stopping.set()
        self.outbox.announce()
        end = time.monotonic() + LINGER_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                log.warning("a webhook under way was left; it is sent again", thread=thread.name)
        self._client.close()

    def _deliver(self, target: str) -> int:
        arrived = 0
        for row in self._due(target):
            if self._stopping.is_set() or not self.mine():
                break
            told = row["target"] in self.outbox.targets
            ok = told and self._post(row["id"], row["target"], row["body"].encode())
            if not ok and self._stopping.is_set():
                break
            arrived += ok
            self._settle(row, ok)
            if told and not ok:
                break
        return arrived

    def _due(self, target: str) -> list[sa.RowMapping]:
        """Messages to a target that are due; with those to the first, any to targets that are told no longer."""
        theirs = deliveries.c.target == target
        if target == self.outbox.targets[0]:
            theirs |= deliveries.c.target.not_in(self.outbox.targets)
        with transaction(self.engine) as connection:
            due = sa.and_(theirs, deliveries.c.due <= int(self.outbox.now(connection)))
            query = sa.select(deliveries).where(due).order_by(deliveries.c.due).limit(AT_ONCE)
            return list(connection.execute(query).mappings().all())

    def _post(self, message: str, target: str, body: bytes) -> bool:
        with transaction(self.engine) as connection:
            stamp = int(self.outbox.now(connection))
        headers = {
            "content-type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": str(stamp),
            "webhook-signature": signature(self.secret, message, stamp, body),
        }
        try:
            # What the answer holds is not read: whoever sends it slowly would keep the others waiting.
            with self._client.stream("POST", target, content=body, headers=headers) as answer:
                return answer.is_success
        except Exception as error:  # noqa: BLE001  # whatever a target provokes, the messages after this one go out
            log.warning("webhook not delivered", target=_host(target), error=type(error).__name__)
            return False

    def _settle(self, row: sa.RowMapping, arrived: bool) -> None:
        mine = deliveries.c.id == row["id"]
        attempts = row["attempts"] + 1
        last = arrived or attempts > len(WAITS_S) or row["target"] not in self.outbox.targets
        with transaction(self.engine, write=True) as connection:
            if last:
                connection.execute(deliveries.delete().where(mine))
            else:
                due = int(self.outbox.now(connection)) + WAITS_S[attempts - 1]
                connection.execute(deliveries.update().where(mine).values(attempts=attempts, due=due))
        host = _host(row["target"])
        self._attempts.labels(host, "arrived" if arrived else "given_up" if last else "failed").inc()
        if last and not arrived:
            log.error("webhook given up", target=host, attempts=attempts, id=row["id"])

    def _waiting(self, host: str) -> float:
        targets = [target for target in self.outbox.targets if _host(target) == host]
        query = sa.select(sa.func.count()).where(deliveries.c.target.in_(targets))
        try:
            with transaction(self.engine) as connection:
                return float(connection.scalar(query) or 0)
        except StoreUnavailable:
            return math.nan

    def _loop(self, target: str) -> None:
        filled = self.outbox.filled[target]
        while not self._stopping.is_set():
            try:
                if self.mine():
                    self._deliver(target)
            except StoreUnavailable:
                log.warning("webhooks wait for the store")
            except Exception:  # a thread that ended would tell nobody ever again
                log.exception("webhooks failed", target=_host(target))
            filled.wait(LOOK_EVERY_S)
            filled.clear()


def _host(target: str) -> str:
    """What is told of a target: the rest of its address may be a secret."""
    return urlsplit(target).hostname or ""
