"""Whether one model is better than another on the same windows: a paired block bootstrap by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

Days = Mapping[str, Sequence[float]]
"""Sum of absolute errors and count by day of issue."""


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs in pooled mean absolute error, with the bounds of a 95 % interval."""

    mean: float
    low: float
    high: float


def averaged(runs: Sequence[Days]) -> dict[str, tuple[float, float]]:
    """The mean over seeds of each day's sums."""
    return {day: tuple(np.mean([run[day] for run in runs], axis=0)) for day in sorted(runs[0])}


def paired_difference(ours: Days, theirs: Days, *, block: int = 1, draws: int = 4_000, seed: int = 0) -> Difference:
    """Circular block bootstrap (Politis & Romano 1992): runs of ``block`` days are drawn with replacement, the same
    for both models, until there are as many days as were tested. ``block`` should not be shorter than the horizon,
    over which errors of neighbouring windows share their outcomes. Percentiles are taken farther out the fewer blocks
    there are, :func:`expanded`.

    Raises :class:`ValueError` where the two were not scored on the same days and values.
    """
    if sorted(ours) != sorted(theirs) or any(ours[day][1] != theirs[day][1] for day in ours):
        raise ValueError("the two models were not scored on the same values")
    days = sorted(ours)
    count = np.array([ours[day][1] for day in days])
    gap = np.array([ours[day][0] - theirs[day][0] for day in days])
    random = np.random.default_rng(seed)
    blocks = -(-len(days) // block)
    start = random.integers(0, len(days), (draws, blocks))
    rows = ((start[..., None] + np.arange(block)) % len(days)).reshape(draws, -1)[:, : len(days)]
    drawn = gap[rows].sum(axis=1) / np.maximum(count[rows].sum(axis=1), 1)
    tail = expanded(len(days) // block)
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Difference(float(gap.sum() / count.sum()), float(low), float(high))


def expanded(blocks: int, tail: float = 0.025) -> float:
    """The percentile to take for ``tail`` where so many independent pieces were drawn from (Hesterberg 2015).

    Means of resamples vary by √((n − 1)/n) too little, and as a normal does where Student's t holds: of a week of days,
    plain percentiles would be beyond doubt two and a half times as often as they may.
    """
    pieces = max(blocks, 2)
    return float(ndtr(stdtrit(pieces - 1, tail) * np.sqrt(pieces / (pieces - 1))))
