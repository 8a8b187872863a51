"""In which order of nodes an array was stored, and how to read it in today's order."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import sqlalchemy as sa

from citybrain_serving.packing import packed_width, unpack
from citybrain_serving.tables import layouts


class Layouts:
    """Today's order of one set of nodes. Arrays stored in another order, of a city that has changed since, are put
    into this one; nodes that they lack are NaN."""

    def __init__(self, ids: pd.Index):
        self.ids = ids
        self.digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        self._orders: dict[str, np.ndarray] = {}

    def register(self, connection: sa.Connection) -> None:
        """Notes this order in the store."""
        known = connection.scalar(sa.select(layouts.c.digest).where(layouts.c.digest == self.digest))
        if known is None:
            connection.execute(layouts.insert().values(digest=self.digest, ids="\n".join(self.ids).encode()))

    def decode(self, connection: sa.Connection, digest: str, data: bytes, width: int = 1) -> np.ndarray:
        """A packed array of ``width`` values a node as float32 ``[node, width]`` in today's order.

        Raises :class:`~citybrain_serving.errors.StoreUnavailable` where it is damaged.
        """
        if digest == self.digest:
            return unpack(data, len(self.ids) * width).reshape(-1, width)
        order = self._orders.get(digest)
        if order is None:
            ids = connection.scalar(sa.select(layouts.c.ids).where(layouts.c.digest == digest)) or b""
            order = pd.Index(ids.decode().split("\n"), dtype=object).get_indexer(self.ids)
            self._orders[digest] = order
        then = unpack(data, packed_width(data)).reshape(-1, width)
        # One more row, NaN, is what position -1 of the order points at.
        return np.vstack([then, np.full((1, width), np.nan, np.float32)])[order]
