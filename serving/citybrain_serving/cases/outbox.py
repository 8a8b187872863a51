"""Messages about cases that have not gone out yet, written in the transaction that makes them true."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence

import orjson
import sqlalchemy as sa

from citybrain_serving.database import present
from citybrain_serving.tables import deliveries


class Outbox:
    """A row for each message and target. ``filled`` is set, by target, once there may be something to deliver.

    ``now`` is the clock that messages are due by, seconds since 1970: the database's, for any replica may deliver them.
    """

    def __init__(self, targets: Sequence[str] = (), now: Callable[[sa.Connection], float] = present):
        self.targets = targets
        self.now = now
        self.filled = {target: threading.Event() for target in targets}

    def announce(self) -> None:
        """Wakes whoever delivers."""
        for filled in self.filled.values():
            filled.set()

    def put(self, connection: sa.Connection, event: str, data: dict[str, object]) -> None:
        """Adds a message for every target; it is there if, and only if, the transaction of ``connection`` succeeds."""
        body = orjson.dumps({"type": event, "data": data}).decode()
        if self.targets:
            due = int(self.now(connection))
            rows = [
                {"id": f"msg_{uuid.uuid4().hex}", "target": target, "body": body, "attempts": 0, "due": due}
                for target in self.targets
            ]
            connection.execute(deliveries.insert(), rows)
