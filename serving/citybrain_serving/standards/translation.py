"""From somebody else's format to readings, with the place each one came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pandas as pd

from citybrain_datasets.signals import NodeType
from citybrain_datasets.units import conversion
from citybrain_serving.fleet import Channel
from citybrain_serving.readings import EXPLAINED, Readings, assembled, check_count

Meaning = Literal["begin", "middle", "end"]
"""Which moment of its interval a time names."""


@dataclass(frozen=True)
class Translated:
    """``sources[row]`` says where in the document a reading stood; ``ignored`` counts what is not measured here or
    was marked as faulty by its sender."""

    readings: Readings
    sources: list[str]
    ignored: Mapping[str, int]


class Rows:
    """Collects readings one by one. What a reading is worth is decided later, in one place: the ingest."""

    def __init__(self, channels: Mapping[str, Channel], most: int):
        self.channels = channels
        self.most = most
        self.ignored: Counter[str] = Counter()
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [])
        self._sources: list[str] = []
        self._broken: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def channel(self, signal: str, node: NodeType, place: str) -> Channel | None:
        """The channel a reading belongs to; None, and counted, where the city does not measure it there."""
        channel = self.channels.get(signal)
        if channel is not None and (channel.node == node or (channel.node == "city" and place == "city")):
            return channel
        self.ignored[f"{signal} is not measured at {node} nodes here"] += 1
        return None

    def add(self, channel: Channel, place: Any, time: Any, value: Any, unit: str | None, source: str) -> None:
        """A reading in the unit that its sender names, None for the one stored here.

        An unknown unit, or what is no number, is handed on as it is: the ingest refuses it by name.
        """
        if unit is not None and type(value) in (int, float):
            try:
                linear = conversion(channel.signal, unit, channel.ticks.step)
            except ValueError:
                linear = None
            if linear is not None:
                value, unit = value * linear[0] + linear[1], None
        self._append(place, channel.signal, time, value, unit, source)

    def broken(self, source: str, why: str) -> None:
        """Something that should have been a reading and is none."""
        if len(self._broken) < EXPLAINED:
            self._broken[len(self)] = why
        self._append(None, None, None, None, None, source)

    def translated(self) -> Translated:
        readings = assembled(*self._columns)
        readings.broken |= self._broken
        return Translated(readings, self._sources, dict(self.ignored))

    def _append(self, *row: Any) -> None:
        *values, source = row
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self._sources.append(source)
        check_count(len(self), self.most)


def end_of(time: Any, meaning: Meaning, step: pd.Timedelta) -> Any:
    """The end of an interval of length ``step`` of which ``time`` is the ``meaning``; what cannot be read as a time
    is handed on, for the ingest to refuse."""
    if meaning == "end" or not isinstance(time, str):
        return time
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return time
    if moment.tzinfo is None:
        return time
    share = {"begin": 1.0, "middle": 0.5}[meaning]
    try:
        return (moment.astimezone(UTC) + timedelta(seconds=share * step.total_seconds())).isoformat()
    except OverflowError:
        return time
