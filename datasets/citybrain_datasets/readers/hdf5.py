"""Pandas tables in HDF5, read with h5py alone: METR-LA, PEMS-BAY (DCRNN) and LargeST."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from citybrain_datasets.configuration import Table
from citybrain_datasets.errors import CityBrainError, CityError, Problem, installing
from citybrain_datasets.readers.files import open_files
from citybrain_datasets.readers.rows import WideRows
from citybrain_datasets.readers.sensor_graph import harmless_load


def read_hdf5(table: Table, root: Path) -> WideRows:
    """A frame that pandas wrote, ``fixed`` or ``table``; values are read block by block, when asked for."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise CityBrainError(f"{table.file}: HDF5 needs h5py: {installing('training')}") from error
    path = open_files(root, table.file)[0]
    try:
        with h5py.File(path, "r") as file:
            group = _group(file, table.key, path)
            if "axis0" in group:
                ids, times, blocks = _fixed(group)
            else:
                ids, times, blocks = _table(group, path)
            name = group.name
    except (OSError, KeyError) as error:
        raise CityError([Problem(str(path), f"is no pandas frame in HDF5: {error}")]) from error

    def read(_: str | int | None, first: int, last: int) -> np.ndarray:
        try:
            with h5py.File(path, "r") as file:
                parts = [_block(file[name], block, first, last) for block in blocks]
        except (OSError, KeyError) as error:
            raise CityError([Problem(str(path), f"cannot be read: {error}", f"{first + 1}–{last}")]) from error
        return np.concatenate(parts, axis=1)

    return WideRows(times, ids, read)


def _group(file: Any, key: str | None, path: Path) -> Any:
    if key is None and len(file) == 1:
        key = next(iter(file))
    if key is None or key not in file:
        raise CityError([Problem(str(path), f"say key: one of {', '.join(file)}")])
    return file[key]


def _fixed(group: Any) -> tuple[list[str], pd.DatetimeIndex, list[str]]:
    count = int(group.attrs.get("nblocks", 1))
    ids = [i for b in range(count) for i in _names(group[f"block{b}_items"][()])]
    times = _times(group["axis1"][()], group["axis1"].attrs)
    return ids, times, [f"block{b}_values" for b in range(count)]


def _table(group: Any, path: Path) -> tuple[list[str], pd.DatetimeIndex, list[str]]:
    rows = group["table"]
    blocks = [field for field in rows.dtype.names if field.startswith("values_block_")]
    ids: list[str] = []
    for field in blocks:
        kind = rows.attrs[f"{field}_kind"]
        content = kind.tobytes() if isinstance(kind, np.generic) else kind
        ids += [
            str(i)
            for i in harmless_load(
                content if isinstance(content, bytes) else str(content).encode("latin-1"),
                f"{path}, {field}_kind",
            )
        ]
    return ids, _times(rows["index"], {"kind": rows.attrs.get("index_kind", b"datetime64")}), blocks


def _block(group: Any, block: str, first: int, last: int) -> np.ndarray:
    if block in group:
        return np.asarray(group[block][first:last])
    values = np.asarray(group["table"][first:last][block])
    return values.reshape(len(values), -1)


def _names(raw: np.ndarray) -> list[str]:
    return [i.decode("utf-8") if isinstance(i, bytes) else str(i) for i in raw.tolist()]


def _times(raw: np.ndarray, attributes: Any) -> pd.DatetimeIndex:
    kind = attributes.get("kind", b"datetime64")
    text = kind.decode("ascii") if isinstance(kind, bytes) else str(kind)
    unit = re.search(r"datetime64\[(\w+)", text)  # before pandas 2 there was no unit: nanoseconds
    times = pd.DatetimeIndex(raw.astype(f"datetime64[{unit[1] if unit else 'ns'}]"))
    return times.tz_localize("UTC") if "tz" in attributes else times
