"""The YAML that brings a city in. Typed, and nothing unknown is accepted.

Every path is relative to the source root (``--source-root``, else ``CITYBRAIN_DATA``, else the YAML's
folder).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from citybrain_datasets.errors import CityError, ConfigError, Problem
from citybrain_datasets.signals import KINDS, NodeType
from citybrain_datasets.store import CITIES, schema_problems


class _Loader(yaml.SafeLoader):
    """SafeLoader whose only booleans are true and false: in YAML 1.1 ``no``, a gas, is one too."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def _step(value: Any) -> pd.Timedelta:
    try:
        step = pd.Timedelta(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{value!r} is no duration; write 5min, 15min, 1h") from error
    if not isinstance(step, pd.Timedelta) or step <= pd.Timedelta(0):
        raise ValueError(f"{value!r} is no duration; write 5min, 15min, 1h")
    return step


Step = Annotated[Any, BeforeValidator(_step)]
"""A positive ``pandas.Timedelta``, written ``5min`` or ``1h``."""


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class FileTable(Strict):
    """A table in a file: Parquet or CSV by its ending. ``header`` names the columns of a CSV without."""

    file: str
    header: list[str] | None = None
    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8-sig"


class Nodes(FileTable):
    """Places of one type. Without a file the ids are the columns of the tables measured there.

    ``columns`` maps ``id lat lon name name_zh owner`` and any static attribute to the file's columns.
    ``keep`` is ``all``, ``measured`` (only places with at least one value) or a list of ids. ``misread`` is
    the codec of names that were written in it and read as Latin-1 before they were published (``mac_roman``:
    Espa\\x96a).
    """

    file: str = ""
    columns: dict[str, str] = {}
    keep: Literal["all", "measured"] | list[str] = "all"
    misread: str | None = None

    @model_validator(mode="after")
    def _has_ids(self) -> Nodes:
        if self.file and "id" not in self.columns:
            raise ValueError("columns must say which column is the id")
        return self


class Rename(FileTable):
    """A table that gives the ids in another file those of the node table; other ids stay what they are."""

    columns: dict[Literal["from", "to"], str]


class Distances(FileTable):
    """Edges from a table of distances. ``by: position`` counts nodes from 0 in the order of their table.

    ``k`` keeps the nearest k sources of each target, ``both_ways`` adds the way back.
    """

    columns: dict[Literal["source", "target", "distance"], str]
    by: Literal["id", "position"] = "id"
    unit: Literal["m", "km", "mi"] = "m"
    rename: Rename | None = None
    max_distance_m: float | None = None
    k: int | None = Field(None, ge=1)
    both_ways: bool = False
    self_loops: Literal["drop", "keep"] = "drop"

    @model_validator(mode="after")
    def _has_columns(self) -> Distances:
        if len(self.columns) < 3:
            raise ValueError("columns must name source, target and distance")
        return self


class Adjacency(Strict):
    """Edges from a square matrix by position (CSV or ``.npy``), row → column, wherever it is not 0.

    Lengths are great-circle; ``link_m`` stands in where places are not published.
    """

    file: str
    delimiter: str = ","
    link_m: float | None = Field(None, gt=0)
    self_loops: Literal["drop", "keep"] = "drop"


class SensorGraph(Strict):
    """Edges from DCRNN's pickle ``[ids, id → index, matrix]``, read without executing anything."""

    file: str
    link_m: float | None = Field(None, gt=0)
    self_loops: Literal["drop", "keep"] = "drop"


class Nearest(Strict):
    """Each target is reached from its ``k`` nearest sources, no farther than ``max_distance_m``."""

    k: int = Field(ge=1)
    max_distance_m: float | None = None


class Edges(Strict):
    distances: Distances | None = None
    adjacency: Adjacency | None = None
    sensor_graph: SensorGraph | None = None
    nearest: Nearest | None = None

    @model_validator(mode="after")
    def _one(self) -> Edges:
        if sum(v is not None for v in self.__dict__.values()) != 1:
            raise ValueError("state exactly one of distances, adjacency, sensor_graph, nearest")
        return self


class Time(Strict):
    """How a table tells time.

    ``column`` (``index`` for a table's own index), or ``columns`` year, month, day, hour[, minute], or
    ``start`` for an array that has none. ``epoch`` is the unit of numbers since 1970. ``marks`` says which
    end of its interval a time names. ``zone`` is ``local``, ``UTC``, a zone's name or an offset. Where clocks
    go back, ``order`` takes the first of two equal times as summer time; where they go forward, a time that
    never was is an error unless ``nonexistent`` says otherwise. ``snap`` moves times that are off by at most
    so much.
    """

    column: str | None = None
    columns: list[str] | None = None
    start: datetime | None = None
    step: Step
    marks: Literal["start", "end"]
    zone: str
    format: str | None = None
    epoch: Literal["s", "ms", "us", "ns"] | None = None
    ambiguous: Literal["order", "first", "second", "missing", "error"] = "order"
    nonexistent: Literal["error", "missing", "shift"] = "error"
    snap: Step | None = None


class UnitBy(Strict):
    """A unit that differs by the value of another column of a long table."""

    column: str
    units: dict[str, str]


class SignalSource(Strict):
    """Where one signal stands in a table, and in which unit.

    Long: ``column``; tidy: the name in the variable column; array: the index of the feature. Wide: all
    columns, or those that match ``pattern``, whose first group is the id. ``components`` are the eastward and
    northward wind instead of a column. Values that cannot be measurements are an error unless they are said
    to be missing.
    """

    node: NodeType
    unit: str | UnitBy
    column: str | int | None = None
    components: tuple[str | int, str | int] | None = None
    pattern: Pattern | None = None
    marks: Literal["start", "end"] | None = None
    zero_is_missing: bool = False
    missing: list[float] = []
    out_of_range: Literal["error", "missing"] = "error"


class Table(FileTable):
    """Measurements. ``file`` may be a pattern (``PRSA_Data_*.csv``): the files are read as one table.

    ``layout``: ``wide`` (a row a time, a column a place), ``long`` (a row a time and place, a column a
    signal), ``tidy`` (a row a value), ``hdf5`` (a pandas table as METR-LA, PEMS-BAY and LargeST publish
    them), ``array`` (``.npz`` or ``.npy``, ``[time, node, feature]``, as PEMS03–08 and KnowAir).
    """

    layout: Literal["wide", "long", "tidy", "hdf5", "array"]
    time: Time
    station: str | None = None
    station_pattern: Pattern | None = None
    variable: str | None = None
    value: str | None = None
    key: str | None = None
    rename: Rename | None = None
    unknown_places: Literal["error", "drop"] = "error"
    signals: dict[str, SignalSource] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> Table:
        for name in self.signals:
            if name not in KINDS:
                raise ValueError(f"unknown signal {name!r}; known are {', '.join(KINDS)}")
        if self.layout == "tidy" and not (self.variable and self.value):
            raise ValueError("a tidy table needs variable and value")
        rows = self.layout in ("long", "tidy")
        for name, source in self.signals.items():
            if rows and source.column is None and source.components is None:
                raise ValueError(f"signal {name!r} of a {self.layout} table needs a column")
            if not rows and isinstance(source.unit, UnitBy):
                raise ValueError("only a long table can have a unit by column")
            if source.components is not None and self.layout not in ("long", "array"):
                raise ValueError(
                    f"signal {name!r}: components are two columns of a long table or two features of an array; "
                    f"a {self.layout} table has neither"
                )
        if self.layout == "array" and self.time.start is None:
            raise ValueError("an array needs time.start")
        return self


class Source(Strict):
    """Who publishes the files: the address of the data, and the terms they come under."""

    url: str = Field(pattern=r"^https?://")
    licence: str

    def __str__(self) -> str:
        return f"{self.url} (licence: {self.licence})"


class CityConfig(Strict):
    """A whole city."""

    name: str
    timezone: str
    title: str = ""
    country: str | None = None
    attribution: str = ""
    source: Source | None = None
    synthetic: bool = False
    nodes: dict[Literal["road", "air"], Nodes]
    edges: dict[Literal["road-road", "air-air", "road-air"], Edges] = {}
    tables: list[Table] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> CityConfig:
        seen: set[str] = set()
        for table in self.tables:
            for name, source in table.signals.items():
                if name in seen:
                    raise ValueError(f"signal {name!r} stands in two tables")
                if source.node != "city" and source.node not in self.nodes:
                    raise ValueError(f"signal {name!r} is measured at {source.node} nodes, which nodes lacks")
                seen.add(name)
        return self

    def files(self) -> list[str]:
        """Every file that is read, relative to the source root; some may be patterns."""
        return sorted(set(_files(self.model_dump())))


def _files(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        part = dict(enumerate(part))
    for key, value in part.items() if isinstance(part, dict) else ():
        if key == "file" and value:
            yield value
        yield from _files(value)


def find_config(name: str | Path) -> Path:
    """The YAML at a path, or a packaged one by its bare name. Raises
    :class:`CityError` where there is none."""
    path = Path(name)
    if path.is_file():
        return path
    packaged = CITIES / f"{name}.yaml"
    if path.parent == Path() and packaged.is_file():
        return packaged
    raise CityError(
        [Problem(str(name), f"no such file, and no packaged city; those are {', '.join(packaged_names())}")]
    )


def packaged_names() -> list[str]:
    """Names of the configurations that ship with the package."""
    return sorted(path.stem for path in CITIES.glob("*.yaml"))


def read_config(path: Path) -> CityConfig:
    """Reads and validates a YAML. Raises :class:`ConfigError` naming the file and the key path."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        return CityConfig.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise ConfigError("\n".join(map(str, schema_problems(path, error)))) from error


def source_root(config: Path, given: Path | None) -> Path:
    """The folder that paths in the YAML are relative to."""
    if given is not None:
        return given
    return Path(os.environ["CITYBRAIN_DATA"]) if os.environ.get("CITYBRAIN_DATA") else config.parent
