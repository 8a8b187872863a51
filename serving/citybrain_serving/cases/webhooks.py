"""Tells other systems of cases: signed, retried, and only where the configuration says.

Messages follow the Standard Webhooks specification (standardwebhooks.com): ``webhook-id``, ``webhook-timestamp`` and
``webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa
import structlog

from citybrain_serving.cases.outbox import Outbox
from citybrain_serving.database import transaction
from citybrain_serving.errors import FleetError, StoreUnavailable
from citybrain_serving.tables import deliveries

TIMEOUT_S = 10.0
WAITS_S = (5, 30, 120, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
"""Between attempts; after the last the message is given up and logged."""

AT_ONCE = 50
LOOK_EVERY_S = 5.0

log = structlog.get_logger(__name__)


def checked_targets(text: str) -> tuple[str, ...]:
    """Addresses separated by commas. Raises :class:`FleetError` for one that is not https (http on this machine)."""
    targets = tuple(part.strip() for part in text.split(",") if part.strip())
    for target in targets:
        parts = urlsplit(target)
        near = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if parts.scheme != "https" and not (parts.scheme == "http" and near):
            raise FleetError(f"webhook target {target[:200]!r} must be an https address")
        if parts.username or parts.password:
            raise FleetError(f"webhook target at {parts.hostname}: an address must hold no password")
    return targets


def signature(secret: bytes, message: str, timestamp: int, body: bytes) -> str:
    signed = hmac.new(secret, f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


class Webhooks:
    """A thread that empties the outbox, in the one replica of which ``mine`` says that it should. A message is out once
    a target answers 2xx; redirects are not followed, for where they lead nobody allowed."""

    def __init__(
        self,
        engine: sa.Engine,
        outbox: Outbox,
        secret: bytes,
        mine: Callable[[], bool] = lambda: True,
        transport: httpx.BaseTransport | None = None,
    ):
        if outbox.targets and not secret:
            raise FleetError("webhooks need a secret to sign with; set webhook_secret_file")
        self.engine = engine
        self.outbox = outbox
        self.secret = secret
        self.mine = mine
        self._client = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, transport=transport)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="webhooks", daemon=True)

    def deliver(self) -> int:
        """One attempt at each message that is due; returns how many arrived."""
        due = deliveries.c.due <= int(self.outbox.now())
        with transaction(self.engine) as connection:
            query = sa.select(deliveries).where(due).order_by(deliveries.c.due).limit(AT_ONCE)
            waiting = connection.execute(query).mappings().all()
        arrived = 0
        for row in waiting:
            ok = row["target"] in self.outbox.targets and self._post(row["id"], row["target"], row["body"].encode())
            arrived += ok
            self._settle(row, ok)
        return arrived

    def start(self) -> None:
        if self.outbox.targets:
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self.outbox.filled.set()
        if self._thread.is_alive():
            self._thread.join()
        self._client.close()

    def _post(self, message: str, target: str, body: bytes) -> bool:
        stamp = int(self.outbox.now())
        headers = {
            "content-type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": str(stamp),
            "webhook-signature": signature(self.secret, message, stamp, body),
        }
        try:
            return self._client.post(target, content=body, headers=headers).is_success
        except httpx.HTTPError as error:
            log.warning("webhook not delivered", target=urlsplit(target).hostname, error=type(error).__name__)
            return False

    def _settle(self, row: sa.RowMapping, arrived: bool) -> None:
        mine = deliveries.c.id == row["id"]
        attempts = row["attempts"] + 1
        last = arrived or attempts > len(WAITS_S) or row["target"] not in self.outbox.targets
        with transaction(self.engine, write=True) as connection:
            if last:
                connection.execute(deliveries.delete().where(mine))
            else:
                due = int(self.outbox.now()) + WAITS_S[attempts - 1]
                connection.execute(deliveries.update().where(mine).values(attempts=attempts, due=due))
        if last and not arrived:
            log.error("webhook given up", target=urlsplit(row["target"]).hostname, attempts=attempts, id=row["id"])

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                if self.mine():
                    self.deliver()
            except StoreUnavailable:
                log.warning("webhooks wait for the store")
            self.outbox.filled.wait(LOOK_EVERY_S)
            self.outbox.filled.clear()
