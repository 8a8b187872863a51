"""What every reader returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class WideRows:
    """A row a time. ``read(channel, first, last)`` gives raw values ``[row, place]`` of one channel."""

    stamps: pd.DatetimeIndex
    ids: list[str]
    read: Callable[[str | int | None, int, int], np.ndarray]


@dataclass(frozen=True)
class LongRows:
    """A row a time and place. ``places`` are indices into ``ids``; ``column(name)`` gives raw values
    ``[row]``. ``series`` tells apart whose times repeat from row to row: places, and in a tidy table what is
    measured there as well."""

    stamps: pd.DatetimeIndex
    ids: list[str]
    places: np.ndarray
    column: Callable[[str | int], np.ndarray]
    series: np.ndarray
