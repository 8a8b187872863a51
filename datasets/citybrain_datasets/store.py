"""A city on disk: Parquet tables and one YAML, written whole or not at all, read on demand.

city.yaml  road.parquet  air.parquet  edges/<relation>.parquet  signals/<signal>.parquet
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from citybrain_datasets.city import EDGE_COLUMNS, NODE_COLUMNS, City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.folders import standing, swap_in
from citybrain_datasets.signal_file import open_parquet, read_signal, write_signal
from citybrain_datasets.signals import KINDS, NodeType, Signal

EMBEDDED = "embedded"
CITIES = Path(__file__).parent / "cities"
"""Cities and configurations that ship with the package."""


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
    refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(city, draft, extras or {})
        draft.chmod(0o755)  # mkdtemp keeps a folder to its owner; a city is to be read
        swap_in(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_foreign(folder: Path) -> None:
    """Raises :class:`CityError` where ``folder`` holds something else than a saved city."""
    if folder.exists() and not (folder / "city.yaml").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise CityError([Problem(str(folder), "exists and is no saved city; it is not overwritten")])


def city_folder(source: Path | str) -> Path:
    """Where a saved city, or the embedded one, is read from."""
    return CITIES / EMBEDDED if str(source) == EMBEDDED else standing(Path(source))


def load_city(source: Path | str) -> City:
    """Reads a saved city; ``embedded`` is the one that ships with the package.

    Signal values stay on disk until they are asked for. Raises :class:`CityError` naming file, row and column
    of whatever is missing, truncated or at odds with ``city.yaml``.
    """
    folder = city_folder(source)
    file = _city_file(folder)
    nodes = {
        cast(NodeType, n): _table(folder / f"{n}.parquet", ("id", *NODE_COLUMNS)).set_index("id") for n in file.nodes
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
        _write_table(edges.astype({"source": "str", "target": "str"}), draft / "edges" / f"{relation}.parquet")
    for name, signal in city.signals.items():
        write_signal(signal, draft / "signals" / f"{name}.parquet")
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


def _table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    with open_parquet(path) as file:
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
    width = 1 if entry.node == "city" else len(nodes.get(entry.node, ()))
    start, step = pd.Timestamp(entry.start), pd.Timedelta(entry.step)
    return read_signal(path, name, entry.node, start, step, (entry.length, width))
