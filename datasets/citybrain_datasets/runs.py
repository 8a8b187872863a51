"""Long runs in a signal, found block by block: sensors that are stuck, and gaps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.signals import Signal

BLOCK_VALUES = 1 << 24
"""Values looked at together; bounds memory, whatever the size of the city."""

MOVING_SHARE = 0.3
"""A run is stuck only if, on average over it, at least this share of the measuring nodes moved each step."""

STUCK_HOURS: dict[str, float] = {
    "speed": 6,
    "flow": 6,
    "occupancy": 12,
    "temperature": 24,
    "dew_point": 24,
    "pressure": 36,
    "humidity": 36,
    "no2": 48,
    "o3": 72,
    "co": 72,
    "so2": 120,
}
"""How long a value may stand still. Pollutants are published rounded, and near their detection limit stand
for days; wind may stand for a day in calm air."""

STUCK_HOURS_ELSE = 36.0

DEAD_HOURS = 24.0
"""At the lowest value it ever has, a detection limit or an empty road, a traffic sensor may stay this long
and any other for ever."""

TRAFFIC = ("speed", "flow", "occupancy")


@dataclass(frozen=True)
class Runs:
    """Per node, lengths in steps and the row where they end; ``outage`` is the longest gap of all nodes.

    ``outside`` counts values out of range; ``low`` and ``high`` are the extremes that were measured.
    """

    measured: np.ndarray
    gap: np.ndarray
    gap_end: np.ndarray
    stuck: np.ndarray
    stuck_end: np.ndarray
    outage: int
    outage_end: int
    outside: int
    outside_at: tuple[int, int] | None
    low: float
    high: float


def find_runs(signal: Signal) -> Runs:
    """One pass for the extremes, one for the runs; arrays are ``[node]``."""
    length, width = signal.shape
    floor = _floors(signal)
    allowed = _steps(STUCK_HOURS.get(signal.name, STUCK_HOURS_ELSE), signal.step)
    at_floor = _steps(DEAD_HOURS, signal.step) if signal.name in TRAFFIC else length + 1
    limit = np.array([allowed, at_floor])
    measured, gap, gap_end, stuck, stuck_end = (np.zeros(width, dtype=np.int64) for _ in range(5))
    same_since, gap_since = np.zeros(width, dtype=np.int64), np.zeros(width, dtype=np.int64)
    previous = np.full(width, np.nan, dtype=np.float32)
    moved = np.zeros(length + 1)
    outage = outage_end = outage_since = outside = 0
    outside_at: tuple[int, int] | None = None
    low, high = np.inf, -np.inf
    for first, block in _blocks(signal):
        seen = np.isfinite(block)
        before = np.vstack([previous, block[:-1]])
        rows = np.arange(first, first + len(block))[:, None]
        changed = block != before  # a missing value differs from everything, itself included
        share = (changed & seen & np.isfinite(before)).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        moved[first + 1 : first + len(block) + 1] = moved[first] + np.cumsum(share)

        since = np.maximum.accumulate(np.where(changed, rows, same_since), axis=0)
        run = rows - since + 1
        lively = moved[rows + 1] - moved[since + 1] >= MOVING_SHARE * (run - 1)
        still = seen & lively & (run >= limit[(block == floor).astype(np.int64)])
        stuck, stuck_end = _longest(np.where(still, run, 0), first, stuck, stuck_end)

        start = np.maximum.accumulate(np.where(seen, rows + 1, gap_since), axis=0)
        gap, gap_end = _longest(np.where(seen, 0, rows - start + 1), first, gap, gap_end)
        silent = ~seen.any(axis=1, keepdims=True)
        start_all = np.maximum.accumulate(np.where(silent, outage_since, rows + 1), axis=0)
        all_gap = np.where(silent, rows - start_all + 1, 0)
        if all_gap.max(initial=0) > outage:
            outage, outage_end = int(all_gap.max()), first + int(all_gap.argmax())

        bad = (block < signal.kind.low) | (block > signal.kind.high)
        if bad.any() and outside_at is None:
            row, node = np.argwhere(bad)[0]
            outside_at = (first + int(row), int(node))
        outside += int(bad.sum())
        low = min(low, float(np.min(block, where=seen, initial=np.inf)))
        high = max(high, float(np.max(block, where=seen, initial=-np.inf)))
        measured += seen.sum(axis=0)
        same_since, gap_since, outage_since, previous = since[-1], start[-1], int(start_all[-1, 0]), block[-1]
    return Runs(
        measured, gap, gap_end, stuck, stuck_end, outage, outage_end, outside, outside_at, low, high
    )  # fmt: skip


def _floors(signal: Signal) -> np.ndarray:
    lowest = np.full(signal.shape[1], np.inf, dtype=np.float32)
    for _, block in _blocks(signal):
        lowest = np.minimum(lowest, np.min(np.where(np.isfinite(block), block, np.inf), axis=0))
    return lowest


def _blocks(signal: Signal) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, BLOCK_VALUES // max(1, signal.shape[1]))
    return ((first, signal.rows(first, first + rows)) for first in range(0, signal.shape[0], rows))


def _longest(runs: np.ndarray, first: int, length: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    best = runs.max(axis=0)
    better = best > length
    return np.where(better, best, length), np.where(better, first + runs.argmax(axis=0), end)


def _steps(hours: float, step: pd.Timedelta) -> int:
    return max(4, int(pd.Timedelta(hours=hours) / step))
