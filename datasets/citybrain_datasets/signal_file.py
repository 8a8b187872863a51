"""One signal in one Parquet file, written as it streams and read by any span of time.

Columns ``time`` (timestamp[us, UTC], the end of the interval) and ``values`` (a float32 list of fixed size, a
value a node).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.signals import NodeType, Signal

GROUP_VALUES = 1 << 16
"""A row group holds a day, or as many days as make up this many values: small groups compress badly."""


def schema(width: int) -> pa.Schema:
    """Columns of a signal of ``width`` nodes."""
    return pa.schema({"time": pa.timestamp("us", tz="UTC"), "values": pa.list_(pa.float32(), width)})


def write_signal(signal: Signal, path: Path) -> None:
    """Writes a signal a group at a time, so that it need not fit in memory."""
    length, width = signal.shape
    columns = schema(width)
    day = max(1, int(pd.Timedelta(days=1) / signal.step))
    group = day * max(1, GROUP_VALUES // max(1, day * width))
    with pq.ParquetWriter(
        path, columns, compression="zstd", use_dictionary=False, use_byte_stream_split=["values.list.element"]
    ) as writer:
        for first in range(0, length, group):
            block = np.ascontiguousarray(signal.rows(first, min(first + group, length)), dtype=np.float32)
            times = signal.times[first : first + len(block)].tz_convert(None).to_numpy()
            stamps = pa.array(times.astype("datetime64[us]")).cast(columns.field("time").type)
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), width)
            writer.write_table(pa.table([stamps, values], schema=columns), row_group_size=group)


def read_signal(
    path: Path, name: str, node: NodeType, start: pd.Timestamp, step: pd.Timedelta, shape: tuple[int, int]
) -> Signal:
    """The signal in a file, its values left there until they are asked for.

    Raises :class:`CityError` naming the row or column that is not as ``start``, ``step`` and ``shape`` say.
    """
    with open_parquet(path) as file:
        for field in schema(shape[1]):
            at = file.schema_arrow.get_field_index(field.name)
            found = file.schema_arrow.field(at).type if at >= 0 else "missing"
            if found != field.type:
                raise CityError([Problem(str(path), f"is {found}, must be {field.type}", column=field.name)])
        if file.metadata.num_rows != shape[0]:
            what = f"has {file.metadata.num_rows} rows, city.yaml says {shape[0]}"
            raise CityError([Problem(str(path), what)])
        ends = np.cumsum([0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))])
        signal = Signal(name, node, start, step, shape=shape, read=_Rows(path, shape[1], ends))
        _check_clock(path, signal, file)
    return signal


def open_parquet(path: Path) -> pq.ParquetFile:
    """An open file; :class:`CityError` naming it if it is missing, truncated or no Parquet."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error


def _check_clock(path: Path, signal: Signal, file: pq.ParquetFile) -> None:
    try:
        times = file.read(["time"])["time"].to_numpy().astype("datetime64[us]")
    except (OSError, pa.ArrowException) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}", column="time")]) from error
    clock = signal.times.tz_convert(None).to_numpy().astype("datetime64[us]")
    wrong = np.flatnonzero(times != clock)
    if len(wrong):
        what = f"time {times[wrong[0]]} should be {clock[wrong[0]]} on the clock of city.yaml"
        raise CityError([Problem(str(path), what, str(wrong[0]), "time")])


@dataclass(frozen=True, eq=False)
class _Rows:
    """Reads the steps ``first`` ≤ i < ``last`` of one file. Holds no handle, so it can go to a worker."""

    path: Path
    width: int
    ends: np.ndarray

    def __call__(self, first: int, last: int) -> np.ndarray:
        first, last, _ = slice(first, last).indices(int(self.ends[-1]))
        if first >= last:
            return np.empty((0, self.width), dtype=np.float32)
        low = int(np.searchsorted(self.ends, first, side="right")) - 1
        high = int(np.searchsorted(self.ends, last, side="left"))
        with open_parquet(self.path) as file:
            try:
                column = file.read_row_groups(range(low, high), columns=["values"])["values"].combine_chunks()
            except (OSError, pa.ArrowException) as error:
                where = f"cannot be read: {error}"
                raise CityError([Problem(str(self.path), where, f"{first}–{last - 1}", "values")]) from error
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
        offset = first - int(self.ends[low])
        return np.asarray(values[offset : offset + last - first], dtype=np.float32)
