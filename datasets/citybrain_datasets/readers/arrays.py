"""Arrays ``[time, node, feature]`` without times: PEMS03–08 (``.npz``, array ``data``) and KnowAir
(``.npy``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.configuration import Table
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.readers.files import open_files
from citybrain_datasets.readers.rows import WideRows


def load_array(path: Path, key: str | None = None) -> np.ndarray:
    """An array from ``.npy`` (mapped, not loaded) or ``.npz``; pickled content is refused."""
    try:
        found = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            if key is None and len(found.files) == 1:
                key = found.files[0]
            name = key or "data"
            if name not in found.files:
                raise CityError([Problem(str(path), f"has no array {name!r}; there are {', '.join(found.files)}")])
            return np.asarray(found[name])
    except (OSError, ValueError, EOFError) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error


def read_array(table: Table, root: Path) -> WideRows:
    """Nodes are named by their position, from 0; ``[time, node]`` counts as one feature."""
    path = open_files(root, table.file)[0]
    data = load_array(path, table.key)
    if data.ndim == 2:
        data = data[:, :, None]
    if data.ndim != 3 or data.dtype.kind not in "fiu":
        raise CityError([Problem(str(path), f"is {data.dtype} {data.shape}, must be numbers [time, node, feature]")])
    assert table.time.start is not None  # Table refuses an array without it
    times = pd.DatetimeIndex([table.time.start]).repeat(len(data)) + np.arange(len(data)) * table.time.step

    def read(channel: str | int | None, first: int, last: int) -> np.ndarray:
        feature = int(channel or 0)
        if not -data.shape[2] <= feature < data.shape[2]:
            raise CityError([Problem(str(path), f"has {data.shape[2]} features, no feature {feature}")])
        return np.asarray(data[first:last, :, feature])

    return WideRows(pd.DatetimeIndex(times), [str(i) for i in range(data.shape[1])], read)
