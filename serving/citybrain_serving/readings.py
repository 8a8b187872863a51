"""Readings as they arrive, JSON or Arrow, turned into columns; what is malformed keeps its row and says
so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa

from citybrain_serving.errors import MalformedBody


class Fault(StrEnum):
    """Why a reading is refused. The names are part of the interface."""

    MALFORMED = "malformed"
    UNKNOWN_SIGNAL = "unknown_signal"
    UNKNOWN_SENSOR = "unknown_sensor"
    WRONG_UNIT = "wrong_unit"
    NOT_A_NUMBER = "not_a_number"
    OUT_OF_RANGE = "out_of_range"
    BAD_TIME = "bad_time"
    NAIVE_TIME = "naive_time"
    OFF_THE_CLOCK = "off_the_clock"
    FROM_THE_FUTURE = "from_the_future"
    TOO_OLD = "too_old"
    NOT_AHEAD = "not_ahead"
    TOO_FAR_AHEAD = "too_far_ahead"
    CONFLICT = "conflict"
    PARTIAL = "partial"


FAULTS = tuple(Fault)
FINE = np.int8(-1)
HELD = np.int8(-2)
"""In the place of a fault: a reading of a lane that waits for the others of its road, or was taken with them."""
FIELDS = ("id", "signal", "time", "value")
EXPLAINED = 1_000
"""Malformed rows of a body of which it is said what is wrong; as many as an answer lists."""


class OnLane(NamedTuple):
    """The lane that a reading is of, and how many its road has as far as its message tells."""

    name: str
    direction: str
    lanes: int


class LaneFlow(NamedTuple):
    """The flow of a lane, by which its speed counts; ``time`` in seconds since 1970 UTC."""

    place: str
    time: int
    lane: OnLane
    flow: float


@dataclass
class Readings:
    """Columns of equal length. ``fault`` int8 indexes :data:`FAULTS`, ``FINE`` where nothing is wrong so far.

    ``ids``, ``signals`` and ``units`` are objects (strings; units may be None), ``times`` int64 seconds
    since 1970 UTC, ``values`` float64. Where ``fault`` is one the other columns hold anything of their type.
    """

    ids: np.ndarray
    signals: np.ndarray
    units: np.ndarray
    times: np.ndarray
    values: np.ndarray
    fault: np.ndarray
    broken: dict[int, str] = field(default_factory=dict)
    """What is wrong with the first malformed and partial rows, by row."""
    lanes: Mapping[int, OnLane] = field(default_factory=dict)
    """Partial rows that are of one lane, whose road may be told of by other messages, too."""
    flows: Sequence[LaneFlow] = ()
    """Of lanes whose road's speed this message does not tell whole."""

    def __len__(self) -> int:
        return len(self.fault)

    def refuse(self, where: np.ndarray, fault: Fault) -> None:
        """Marks rows, bool ``[row]``, that have no earlier fault."""
        self.fault[where & (self.fault == FINE)] = FAULTS.index(fault)


def readings_from_json(body: bytes) -> Readings:
    """``{"observations": [{"id", "signal", "time", "value"}, …]}``, or the same as columns:
    ``{"id": […], "signal": "speed", "time": […], "value": […]}`` where a plain string stands for every row.

    ``unit`` may be given beside them and is then checked. Raises :class:`MalformedBody`.
    """
    document = _object(body)
    if set(document) == {"observations"}:
        return _from_rows(document["observations"], "observations")
    if {"value"} <= set(document) <= {*FIELDS, "unit"}:
        return _from_columns(document)
    raise MalformedBody(
        f"the body must have the one key 'observations', or the columns {', '.join(FIELDS)} (and unit);"
        f" it has {', '.join(sorted(document)) or 'none'}"
    )


def weather_from_json(body: bytes) -> tuple[int, Readings]:
    """``{"issued": …, "forecasts": [{"id", "signal", "time", "value"}, …]}``, or ``issued`` beside the columns: when a
    weather forecast was issued, seconds since 1970 UTC, and its values. Raises :class:`MalformedBody`."""
    document = _object(body)
    issued, given = document.pop("issued", None), ", ".join(sorted(document))
    seconds, fault = parse_time(issued) if isinstance(issued, str) else (0, np.int8(0))
    if fault != FINE:
        raise MalformedBody("'issued' must be an ISO 8601 date and time with a zone, in whole seconds")
    if set(document) == {"forecasts"}:
        return seconds, _from_rows(document["forecasts"], "forecasts")
    if {"value"} <= set(document) <= {*FIELDS, "unit"}:
        return seconds, _from_columns(document)
    raise MalformedBody(
        f"the body must have, beside 'issued', the one key 'forecasts', or the columns {', '.join(FIELDS)} (and unit);"
        f" it has {given or 'none'}"
    )


def _object(body: bytes) -> dict[str, Any]:
    document = document_of(body)
    if not isinstance(document, dict):
        raise MalformedBody("the body must be a JSON object")
    return document


def document_of(body: bytes) -> Any:
    """A JSON document in which no object gives a key twice: of two values one would be lost unnoticed.

    The parser keeps the last and says nothing. What it lost had a colon that is not in what it kept; only a body whose
    colons differ is read again, slowly. Raises :class:`MalformedBody`.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is no JSON: {error}") from None
    try:
        kept = orjson.dumps(document).count(b":")
    except orjson.JSONEncodeError:
        raise MalformedBody("the body is nested too deeply") from None
    if kept != body.count(b":"):
        json.loads(body, object_pairs_hook=_each_key_once, parse_int=str, parse_float=str)
    return document


def _each_key_once(members: list[tuple[str, Any]]) -> None:
    keys: set[str] = set()
    for key, _ in members:
        if key in keys:
            raise MalformedBody(f"the key {key[:40]!r} is given twice in one object")
        keys.add(key)


def readings_from_arrow(body: bytes, most: int) -> Readings:
    """An Arrow IPC stream with the columns ``id``, ``signal`` (strings), ``time`` (timestamp with a zone) and
    ``value`` (a number); ``unit`` may be there too. Raises :class:`MalformedBody`."""
    try:
        with pa.ipc.open_stream(body) as stream:
            batches: list[pa.RecordBatch] = []
            for batch in stream:
                batch.validate(full=True)  # offsets inside an unchecked buffer may point anywhere
                batches.append(batch)
                check_count(sum(b.num_rows for b in batches), most)
            table = pa.Table.from_batches(batches, stream.schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedBody(f"the body is no Arrow IPC stream: {error}") from None
    names = table.column_names
    if not set(FIELDS) <= set(names) <= {*FIELDS, "unit"} or len(names) != len(set(names)):
        raise MalformedBody(f"the columns must be {', '.join(FIELDS)} (and unit), not {', '.join(names)}")
    fault = np.full(table.num_rows, FINE)
    time = table["time"].type
    if not pa.types.is_timestamp(time):
        raise MalformedBody(f"column time is {time}, must be a timestamp with a zone")
    texts = {name: _texts(table, name) for name in ("id", "signal")}
    units = _texts(table, "unit") if "unit" in table.column_names else np.full(len(fault), None, dtype=object)
    nanoseconds = table["time"].cast(pa.timestamp("ns", time.tz), safe=False)
    known = nanoseconds.is_valid().to_numpy()
    stamps = nanoseconds.cast(pa.int64()).fill_null(0).to_numpy()
    if pa.types.is_boolean(table["value"].type):
        raise MalformedBody("column value: is bool, must be a number")
    try:
        values = table["value"].cast(pa.float64()).fill_null(np.nan).to_numpy()
    except (pa.ArrowException, ValueError) as error:
        raise MalformedBody(f"column value: {error}") from None
    readings = Readings(texts["id"], texts["signal"], units, stamps // 10**9, values.astype(np.float64), fault)
    readings.refuse(pd.isna(texts["id"]) | pd.isna(texts["signal"]), Fault.MALFORMED)
    readings.refuse(~known, Fault.BAD_TIME)
    if time.tz is None:
        readings.refuse(known, Fault.NAIVE_TIME)
    readings.refuse(stamps % 10**9 != 0, Fault.OFF_THE_CLOCK)
    return readings


def check_count(count: int, most: int) -> None:
    if count > most:
        raise MalformedBody(f"{count} readings in one body; at most {most} are taken")


def _from_rows(rows: Any, key: str) -> Readings:
    if not isinstance(rows, list):
        raise MalformedBody(f"{key!r} must be a list")
    keys = {frozenset(FIELDS), frozenset((*FIELDS, "unit"))}
    whole = np.fromiter((type(r) is dict and frozenset(r) in keys for r in rows), bool, len(rows))
    blank: dict[str, Any] = dict.fromkeys(FIELDS)
    sound = [row if fine else blank for row, fine in zip(rows, whole, strict=True)]
    ids, signals, times, values = ([row[name] for row in sound] for name in FIELDS)
    readings = assembled(ids, signals, times, values, [row.get("unit") for row in sound])
    readings.fault[~whole] = FAULTS.index(Fault.MALFORMED)
    for row in np.flatnonzero(~whole)[:EXPLAINED].tolist():
        readings.broken[row] = _misshapen(rows[row])
    return readings


def _misshapen(row: Any) -> str:
    """What keeps a member of ``observations`` from being a reading."""
    if not isinstance(row, dict):
        return "a reading must be a JSON object"
    missing = [name for name in FIELDS if name not in row]
    if missing:
        return f"{', '.join(missing)} must be given"
    unknown = next(name for name in row if name not in (*FIELDS, "unit"))
    return f"there is no member {unknown[:40]!r} in a reading, only {', '.join(FIELDS)}, unit"


def _from_columns(document: dict[str, Any]) -> Readings:
    lengths = {name: len(column) for name, column in document.items() if isinstance(column, list)}
    if len(set(lengths.values())) > 1:
        raise MalformedBody(f"columns differ in length: {', '.join(f'{n} {k}' for n, k in lengths.items())}")
    count = next(iter(lengths.values()), 1)
    missing = [name for name in FIELDS if name not in document]
    if missing:
        raise MalformedBody(f"the column(s) {', '.join(missing)} are missing")
    ids, signals, times, values, units = (
        column if isinstance(column, list) else [column] * count
        for column in (document.get(name) for name in (*FIELDS, "unit"))
    )
    return assembled(ids, signals, times, values, units)


def assembled(ids: list, signals: list, times: list, values: list, units: list) -> Readings:
    count = len(values)
    number = np.fromiter((type(v) is float or type(v) is int for v in values), bool, count)
    none = np.fromiter((v is None for v in values), bool, count)
    text = np.fromiter(
        (type(i) is str and type(s) is str and type(t) is str for i, s, t in zip(ids, signals, times, strict=True)),
        bool,
        count,
    )
    unit = np.fromiter((u is None or type(u) is str for u in units), bool, count)
    numbers = np.fromiter((v if fine else np.nan for v, fine in zip(values, number, strict=True)), np.float64, count)
    seconds, faults = _parsed(times, text)
    readings = Readings(_objects(ids, text), _objects(signals, text), _objects(units, unit), seconds, numbers, faults)
    malformed = ~text | ~unit | ~(number | none)
    readings.fault[malformed] = FAULTS.index(Fault.MALFORMED)
    for row in np.flatnonzero(malformed)[:EXPLAINED].tolist():
        readings.broken[row] = _mistyped(ids[row], signals[row], times[row], units[row])
    return readings


def _mistyped(*texts: Any) -> str:
    """What is wrong with a row whose values are not all of their type; ``unit`` may be left out."""
    for name, given in zip(("id", "signal", "time", "unit"), texts, strict=True):
        if type(given) is not str and not (name == "unit" and given is None):
            return f"{name} must be a string"
    return "value must be a number"


def _parsed(times: list, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and faults of ISO 8601 times. A body repeats few times often: each is parsed once."""
    known: dict[str, tuple[int, np.int8]] = {}
    seconds, faults = np.zeros(len(times), np.int64), np.full(len(times), FINE)
    for row, (time, fine) in enumerate(zip(times, usable, strict=True)):
        if fine:
            found = known.get(time)
            if found is None:
                found = known[time] = parse_time(time)
            seconds[row], faults[row] = found
    return seconds, faults


def parse_time(text: str) -> tuple[int, np.int8]:
    """Seconds since 1970 UTC, and what is wrong with an ISO 8601 time or ``FINE``."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            return 0, np.int8(FAULTS.index(Fault.NAIVE_TIME))
        stamp = time.timestamp()
    except (ValueError, OverflowError):
        return 0, np.int8(FAULTS.index(Fault.BAD_TIME))
    return int(stamp), FINE if stamp == int(stamp) else np.int8(FAULTS.index(Fault.OFF_THE_CLOCK))


def _objects(column: Sequence[Any], usable: np.ndarray) -> np.ndarray:
    out = np.empty(len(column), dtype=object)
    out[:] = [value if fine else "" for value, fine in zip(column, usable, strict=True)]
    return out


def _texts(table: pa.Table, name: str) -> np.ndarray:
    try:
        return table[name].cast(pa.string()).to_numpy(zero_copy_only=False).astype(object)
    except (pa.ArrowException, ValueError) as error:
        raise MalformedBody(f"column {name}: {error}") from None


READERS: dict[str, Callable[[bytes, int], Readings]] = {
    "application/json": lambda body, _most: readings_from_json(body),
    "application/vnd.apache.arrow.stream": readings_from_arrow,
}
"""Readers by media type; each takes the body and the most readings it may hold."""
