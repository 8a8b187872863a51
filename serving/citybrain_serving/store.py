"""Observations, kept: one frame for each signal and tick, with the value of every node.

The seam is :class:`ObservationStore`; :class:`SqlStore` keeps frames through SQLAlchemy Core. A frame is
the array of a tick, float32 in node order, NaN where nothing was measured; byte-shuffled and compressed,
so that a day of 100,000 segments stays small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import sqlalchemy as sa

from citybrain_datasets.signals import Signal, Ticks
from citybrain_serving.database import in_parts, migrate, open_engine, transaction
from citybrain_serving.fleet import Channel
from citybrain_serving.layouts import Layouts
from citybrain_serving.packing import pack
from citybrain_serving.recollection import Recollection
from citybrain_serving.tables import frames

NEW, SAME, CONFLICT = 0, 1, 2
"""What became of a reading: stored, already there, or at odds with the stored value, which stays."""

RECOLLECTED_BYTES = 256 * 2**20
"""Of decoded frames: a day and a half of 100,000 segments every five minutes."""


@dataclass(frozen=True)
class Partial:
    """Readings of one signal at one tick: ``values`` float32 at the positions ``nodes``, each position
    once."""

    signal: str
    time: int
    nodes: np.ndarray
    values: np.ndarray


class ObservationStore(Protocol):
    def merge(self, partials: Sequence[Partial]) -> list[np.ndarray]:
        """Adds readings in one durable transaction; no value already there is changed.

        Returns, for each partial, what became of each reading: int8 ``NEW``, ``SAME`` or ``CONFLICT``.
        Raises :class:`StoreUnavailable`; then nothing was stored.
        """
        ...

    def read(self, signal: str, first: pd.Timestamp, last: pd.Timestamp) -> Signal:
        """The signal at ``first`` ≤ time ≤ ``last``, both ticks of its clock; NaN where nothing was
        measured."""
        ...

    def ticks(self, signal: str) -> Ticks:
        """The clock a signal is measured on."""
        ...

    def newest(self) -> Mapping[str, pd.Timestamp]:
        """Newest tick of each signal that has any reading."""
        ...

    def close(self) -> None: ...


class SqlStore:
    """Frames in SQLite (write-ahead log, every commit flushed to disk) or PostgreSQL."""

    def __init__(self, location: str, channels: Mapping[str, Channel]):
        self.channels = channels
        self.engine = open_engine(location)
        self.node_layouts: dict[str, Layouts] = {}
        """By node type; every signal of a type has the same nodes in the same order."""
        for channel in channels.values():
            self.node_layouts.setdefault(channel.node, Layouts(channel.ids))
        self.layouts = {name: self.node_layouts[channel.node] for name, channel in channels.items()}
        self._recollection = Recollection(RECOLLECTED_BYTES)
        migrate(self.engine)
        with transaction(self.engine, write=True) as connection:
            for layout in self.node_layouts.values():
                layout.register(connection)

    def merge(self, partials: Sequence[Partial]) -> list[np.ndarray]:
        with transaction(self.engine, write=True) as connection:
            return merge_frames(connection, frames, self.layouts, partials)

    def read(self, signal: str, first: pd.Timestamp, last: pd.Timestamp) -> Signal:
        channel = self.channels[signal]
        step, start = 60 * channel.ticks.step_minutes, int(first.timestamp())
        length = max(0, (int(last.timestamp()) - start) // step + 1)
        values = np.empty((length, len(channel.ids)), np.float32)
        missing = np.ones(length, bool)
        query = sa.select(frames.c.time, frames.c.layout, frames.c["values"]).where(
            frames.c.signal == signal, frames.c.time.between(start, int(last.timestamp()))
        )
        with transaction(self.engine) as connection:
            for time, layout, data in connection.execute(query):
                row, rest = divmod(time - start, step)
                if rest == 0:  # a frame of a time when the signal ran on another clock is no tick of this one
                    values[row], missing[row] = self._decoded(connection, (signal, time), layout, data), False
        values[missing] = np.nan
        return Signal(signal, channel.node, first, channel.ticks.step, values)

    def ticks(self, signal: str) -> Ticks:
        return self.channels[signal].ticks

    def newest(self) -> dict[str, pd.Timestamp]:
        with transaction(self.engine) as connection:
            found = {
                name: connection.scalar(sa.select(sa.func.max(frames.c.time)).where(frames.c.signal == name))
                for name in self.channels
            }
        return {name: pd.Timestamp(t, unit="s", tz="UTC") for name, t in found.items() if t is not None}

    def close(self) -> None:
        self.engine.dispose()

    def _decoded(self, connection: sa.Connection, key: tuple[str, int], layout: str, data: bytes) -> np.ndarray:
        """A frame as it is read: not to be written to."""
        values = self._recollection.get(key, data)
        if values is None:
            values = self.layouts[key[0]].decode(connection, layout, data)[:, 0]
            self._recollection.keep(key, data, values)
        return values


def merge_frames(
    connection: sa.Connection,
    table: sa.Table,
    layouts: Mapping[str, Layouts],
    partials: Sequence[Partial],
    **apart: int,
) -> list[np.ndarray]:
    """:meth:`ObservationStore.merge` into the frames of a table, within a transaction of the caller's. ``apart`` are
    columns, with their values, that set these frames apart beside their signal and time."""
    mine = [table.c[name] == value for name, value in apart.items()]
    held = _held(connection, table, layouts, partials, mine)
    verdicts = []
    new: dict[tuple[str, int], None] = {}
    changed: dict[tuple[str, int], None] = {}
    for partial in partials:
        key = (partial.signal, partial.time)
        values = held.get(key)
        if values is None:
            new[key] = None
            values = np.full(len(layouts[partial.signal].ids), np.nan, np.float32)
            held[key] = values
        old = values[partial.nodes]
        verdict = np.where(np.isnan(old), NEW, np.where(old == partial.values, SAME, CONFLICT))
        verdicts.append(verdict.astype(np.int8))
        add = verdict == NEW
        if add.any():
            values[partial.nodes[add]] = partial.values[add]
            changed[key] = None

    def row(key: tuple[str, int]) -> dict[str, object]:
        signal, time = key
        return {"signal": signal, "time": time, "layout": layouts[signal].digest, "values": pack(held[key])}

    updates = [row(key) for key in changed if key not in new]
    if new:
        connection.execute(table.insert(), [{**row(key), **apart} for key in new])
    if updates:
        statement = (
            table.update()
            .where(table.c.signal == sa.bindparam("of"), table.c.time == sa.bindparam("at"), *mine)
            .values(layout=sa.bindparam("layout"), values=sa.bindparam("values"))
        )
        connection.execute(statement, [{"of": r["signal"], "at": r["time"], **r} for r in updates])
    return verdicts


def _held(
    connection: sa.Connection,
    table: sa.Table,
    layouts: Mapping[str, Layouts],
    partials: Sequence[Partial],
    mine: Sequence[sa.ColumnElement[bool]],
) -> dict[tuple[str, int], np.ndarray]:
    times: dict[str, set[int]] = {}
    for partial in partials:
        times.setdefault(partial.signal, set()).add(partial.time)
    held = {}
    for signal, wanted in times.items():
        for part in in_parts(sorted(wanted)):
            query = sa.select(table.c.time, table.c.layout, table.c["values"]).where(
                table.c.signal == signal, table.c.time.in_(part), *mine
            )
            for time, layout, data in connection.execute(query):
                held[signal, time] = layouts[signal].decode(connection, layout, data)[:, 0]
    return held
