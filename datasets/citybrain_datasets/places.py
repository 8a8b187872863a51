"""Node tables from published lists of places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.city import NODE_COLUMNS
from citybrain_datasets.configuration import Nodes
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.geo import cell
from citybrain_datasets.readers.files import as_ids, column, numbers, open_files, read_frame

TEXT = ("name", "name_zh", "owner")


def read_places(config: Nodes, root: Path) -> pd.DataFrame:
    """The places of one file, indexed by id in the order of the file."""
    path = open_files(root, config.file)[0]
    frame = read_frame(config, path, text=True)
    ids = as_ids(column(frame, config.columns["id"], path))
    parts: dict[str, object] = {}
    for name, source in config.columns.items():
        if name == "id":
            continue
        raw = column(frame, source, path)
        if name in (*TEXT, "cell"):
            parts[name] = _texts(raw, config.misread, path)
        else:
            parts[name] = numbers(raw, str(path), source)
    table = pd.DataFrame(parts, index=pd.Index(ids, name="id", dtype="str"))
    twice = table.index[table.index.duplicated()].unique()
    if len(twice):
        raise CityError([Problem(str(path), "id stands twice", i, config.columns["id"]) for i in twice])
    return complete(table)


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every column a node table has, in order; cells are computed from places."""
    table = table.copy()
    for name in ("lat", "lon"):
        if name not in table:
            table[name] = np.nan
    for name in TEXT:
        if name not in table:
            table[name] = ""
    if "cell" not in table:
        table["cell"] = [cell(lat, lon) for lat, lon in zip(table["lat"], table["lon"], strict=True)]
    rest = [name for name in table.columns if name not in NODE_COLUMNS]
    return table[[*NODE_COLUMNS, *rest]].astype(dict.fromkeys((*TEXT, "cell"), "str"))


def unplaced(ids: list[str]) -> pd.DataFrame:
    """Nodes of which nothing but the id is published."""
    return complete(pd.DataFrame(index=pd.Index(ids, name="id", dtype="str")))


def _texts(raw: pd.Series, misread: str | None, path: Path) -> list[str]:
    texts = ["" if pd.isna(value) else str(value).strip() for value in raw]
    if misread is None:
        return texts
    try:
        return [text.encode("latin-1").decode(misread) for text in texts]
    except (UnicodeError, LookupError) as error:
        raise CityError(
            [Problem(str(path), f"misread: {misread} does not fit: {error}", column=str(raw.name))]
        ) from error
