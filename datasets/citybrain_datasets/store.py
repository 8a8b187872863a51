"""A city on disk: Parquet tables and one YAML, written whole or not at all, read on demand.

    city.yaml  road.parquet  air.parquet  edges/<relation>.parquet  signals/<signal>.parquet

A signal has the columns ``time`` (timestamp[us, UTC], the end of the interval) and ``values``
(fixed_size_list<float32>[node]), so that any span of time is read without touching the rest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from citybrain_datasets.city import EDGE_COLUMNS, NODE_COLUMNS, City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.signals import KINDS, NodeType, Signal

EMBEDDED = "embedded"
CITIES = Path(__file__).parent / "cities"
"""Cities and configurations that ship with the package."""

GROUP_VALUES = 1 << 16
"""A row group holds a day, or as many days as make up this many values: small groups compress badly."""


class SignalEntry(BaseModel):
    """One signal in ``city.yaml``; ``start`` is the end of the first interval."""

    model_config = ConfigDict(extra="forbid")
    node: NodeType
    unit: str
    step: timedelta
    start: datetime
    length: int = Field(ge=0)


class CityFile(BaseModel):
    """``city.yaml``."""

    model_config = ConfigDict(extra="forbid")
    format: Literal[1]
    name: str
    title: str = ""
    timezone: str
    country: str | None = None
    synthetic: bool = False
    attribution: str = ""
    nodes: list[Literal["road", "air"]]
    edges: list[str] = []
    signals: dict[str, SignalEntry] = {}


def save_city(city: City, folder: Path | str, extras: Mapping[str, bytes] | None = None) -> None:
    """Writes ``city`` to ``folder``, with ``extras`` (file name → content) beside its tables.

    Signals stream day by day, so that a city larger than memory can be saved. Everything is written to a
    sibling and moved into place; an existing city is replaced, any other folder is left alone and refused.
    """
    folder = Path(folder).absolute()
    if (
        folder.exists()
        and not (folder / "city.yaml").is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise CityError([Problem(str(folder), "exists and is no saved city; it is not overwritten")])
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(city, draft, extras or {})
        _sync(draft)
        draft.chmod(0o755)  # mkdtemp keeps a folder to its owner; a city is to be read
        _swap(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load_city(source: Path | str) -> City:
    """Reads a saved city; ``embedded`` is the one that ships with the package.

    Signal values stay on disk until they are asked for. Raises :class:`CityError` naming file, row and column
    of whatever is missing, truncated or at odds with ``city.yaml``.
    """
    folder = CITIES / EMBEDDED if str(source) == EMBEDDED else Path(source)
    file = _city_file(folder)
    nodes = {
        cast(NodeType, n): _table(folder / f"{n}.parquet", ("id", *NODE_COLUMNS)).set_index("id")
        for n in file.nodes
    }
    return City(
        name=file.name,
        title=file.title,
        timezone=file.timezone,
        country=file.country,
        synthetic=file.synthetic,
        attribution=file.attribution,
        nodes=nodes,
        edges={r: _table(folder / "edges" / f"{r}.parquet", EDGE_COLUMNS) for r in file.edges},
        signals={
            name: _signal(folder / "signals" / f"{name}.parquet", name, entry, nodes)
            for name, entry in file.signals.items()
        },
    )


def _write(city: City, draft: Path, extras: Mapping[str, bytes]) -> None:
    (draft / "edges").mkdir()
    (draft / "signals").mkdir()
    for node, nodes in city.nodes.items():
        named = nodes.set_axis(pd.Index([str(i) for i in nodes.index], name="id", dtype="str")).reset_index()
        _write_table(named, draft / f"{node}.parquet")
    for relation, edges in city.edges.items():
        _write_table(
            edges.astype({"source": "str", "target": "str"}), draft / "edges" / f"{relation}.parquet"
        )
    for name, signal in city.signals.items():
        _write_signal(signal, draft / "signals" / f"{name}.parquet")
    for name, content in extras.items():
        (draft / name).write_bytes(content)
    file = CityFile(
        format=1,
        name=city.name,
        title=city.title,
        timezone=city.timezone,
        country=city.country,
        synthetic=city.synthetic,
        attribution=city.attribution,
        nodes=[n for n in city.nodes if n != "city"],
        edges=list(city.edges),
        signals={
            name: SignalEntry(
                node=s.node,
                unit=s.kind.unit,
                step=s.step.to_pytimedelta(),
                start=s.start.to_pydatetime(),
                length=s.shape[0],
            )
            for name, s in city.signals.items()
        },
    )
    text = yaml.safe_dump(file.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (draft / "city.yaml").write_text(text, encoding="utf-8")


def _write_table(table: pd.DataFrame, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, compression="zstd")


def _write_signal(signal: Signal, path: Path) -> None:
    length, width = signal.shape
    schema = pa.schema({"time": pa.timestamp("us", tz="UTC"), "values": pa.list_(pa.float32(), width)})
    day = max(1, int(pd.Timedelta(days=1) / signal.step))
    group = day * max(1, GROUP_VALUES // max(1, day * width))
    with pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=False, use_byte_stream_split=["values.list.element"]
    ) as writer:
        for first in range(0, length, group):
            block = np.ascontiguousarray(signal.rows(first, min(first + group, length)), dtype=np.float32)
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), width)
            times = pa.array(
                signal.times[first : first + len(block)].as_unit("us"), type=schema.field("time").type
            )
            writer.write_table(pa.table([times, values], schema=schema), row_group_size=group)


def _sync(draft: Path) -> None:
    for path in [*draft.rglob("*"), draft]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(draft: Path, folder: Path) -> None:
    """Puts ``draft`` in the place of ``folder``; if that fails, ``folder`` is what it was."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.replace(old / folder.name)
    try:
        draft.rename(folder)
    except OSError:
        (old / folder.name).replace(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _city_file(folder: Path) -> CityFile:
    path = folder / "city.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return CityFile.model_validate(content)
    except FileNotFoundError as error:
        raise CityError([Problem(str(folder), "is no saved city: it has no city.yaml")]) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error
    except ValidationError as error:
        raise CityError(schema_problems(path, error)) from error


def schema_problems(path: Path | str, error: ValidationError) -> list[Problem]:
    """What pydantic found, with the key path of each finding."""
    return [
        Problem(", ".join(filter(None, (str(path), ".".join(map(str, found["loc"]))))), found["msg"])
        for found in error.errors()
    ]


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error


def _table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    with _open(path) as file:
        try:
            table: pd.DataFrame = file.read().to_pandas()
        except (OSError, pa.ArrowException) as error:
            raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise CityError([Problem(str(path), "the column is missing", column=column) for column in missing])
    return table


def _signal(path: Path, name: str, entry: SignalEntry, nodes: Mapping[NodeType, pd.DataFrame]) -> Signal:
    if name not in KINDS:
        raise CityError([Problem(str(path), f"unknown signal; known are {', '.join(KINDS)}")])
    if entry.unit != KINDS[name].unit:
        raise CityError([Problem(str(path), f"unit {entry.unit!r} must be {KINDS[name].unit!r}")])
    width = 1 if entry.node == "city" else len(nodes[entry.node]) if entry.node in nodes else 0
    with _open(path) as file:
        expected = pa.schema({"time": pa.timestamp("us", tz="UTC"), "values": pa.list_(pa.float32(), width)})
        for field in expected:
            at = file.schema_arrow.get_field_index(field.name)
            found = file.schema_arrow.field(at).type if at >= 0 else "missing"
            if found != field.type:
                raise CityError([Problem(str(path), f"is {found}, must be {field.type}", column=field.name)])
        rows = file.metadata.num_rows
        if rows != entry.length:
            raise CityError([Problem(str(path), f"has {rows} rows, city.yaml says {entry.length}")])
        ends = np.cumsum([0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))])
        start = pd.Timestamp(entry.start)
        signal = Signal(
            name,
            entry.node,
            start,
            pd.Timedelta(entry.step),
            shape=(rows, width),
            read=_Rows(path, width, ends),
        )
        _check_clock(path, signal, file)
    return signal


def _check_clock(path: Path, signal: Signal, file: pq.ParquetFile) -> None:
    try:
        times = file.read(["time"])["time"].to_numpy()
    except (OSError, pa.ArrowException) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}", column="time")]) from error
    clock = signal.times.tz_localize(None).to_numpy().astype("datetime64[us]")
    wrong = np.flatnonzero(times.astype("datetime64[us]") != clock)
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
        with _open(self.path) as file:
            try:
                column = file.read_row_groups(range(low, high), columns=["values"])["values"].combine_chunks()
            except (OSError, pa.ArrowException) as error:
                where = f"cannot be read: {error}"
                raise CityError([Problem(str(self.path), where, f"{first}–{last - 1}", "values")]) from error
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
        offset = first - int(self.ends[low])
        return np.asarray(values[offset : offset + last - first], dtype=np.float32)
