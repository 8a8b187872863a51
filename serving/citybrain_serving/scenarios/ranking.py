"""Which scenarios are best: the Pareto front, and an order by weights that are the user's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from citybrain_datasets.errors import ConfigError
from citybrain_datasets.scenarios.outcomes import OUTCOMES

DEFAULT_WEIGHTS: Mapping[str, float] = {"delay_veh_h": 1.0, "pm25_people": 1.0}
AT_STATIONS = ("pm25_stations", "exceedance_h")
"""Outcomes that are NaN where there are none."""
_BLOCK = 512


def parse_weights(text: str | None) -> dict[str, float]:
    """``delay_veh_h=2,pm25_people=1`` as a mapping. Raises :class:`ConfigError` for what is no outcome or no number."""
    if text is None:
        return dict(DEFAULT_WEIGHTS)
    weights = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            weights[name] = float(value)
        except ValueError:
            raise ConfigError(f"weights: {part!r} is not NAME=NUMBER{'' if equals else ', it lacks the ='}") from None
    check_weights(weights)
    return weights


def weighable() -> list[str]:
    """What may be given a weight: outcomes that can be better, and the cost."""
    return [*(name for name, outcome in OUTCOMES.items() if outcome.better), "cost"]


def check_weights(weights: Mapping[str, float]) -> None:
    """Raises :class:`ConfigError` unless ``weights`` name outcomes (or ``cost``) and are positive somewhere."""
    known = weighable()
    for name, value in weights.items():
        if name not in known:
            raise ConfigError(f"weights: {name!r} is no outcome that can be better; known are {', '.join(known)}")
        if not (np.isfinite(value) and value >= 0):
            raise ConfigError(f"weights: {name} is {value:g}; a weight is a number from 0 on")
    if not any(weights.values()):
        raise ConfigError("weights: at least one must be above 0")


def check_measured(weights: Mapping[str, float], stations: int) -> None:
    """Raises :class:`ConfigError` where something is weighed that only stations tell, and the city has none."""
    lost = [name for name in AT_STATIONS if weights.get(name)] if not stations else []
    if lost:
        raise ConfigError(f"weights: {', '.join(lost)} cannot be told of a city without stations")


def rank(table: pa.Table, weights: Mapping[str, float]) -> pa.Table:
    """``table`` in order of rank, with the columns ``rank`` from 1, ``score``, its bounds ``score_low`` and
    ``score_high``, ``maybe_best`` and ``pareto``.

    The score is the weighted mean of each outcome's change as a part of its base value, of the largest change where the
    base is 0, and of the cost as a part of the highest cost; the lower the better. Its bounds are those of the changes,
    all at once: no outcome's error makes up for another's. ``maybe_best`` says that they reach the first one's, so that
    the two cannot be told apart. ``pareto`` says that no scenario is at least as good in everything weighed and better
    in something, by what is expected of them. Equal scores keep the order in which the scenarios were given. Where cost
    is weighed, scenarios with measures of unknown cost come last, among themselves by the rest, without a score and off
    the Pareto front.
    """
    named = [name for name, weight in weights.items() if weight > 0]
    relative = [_relative(table, name) for name in named]
    share = np.array([weights[name] for name in named])
    share /= share.sum()
    low, goals, high = (np.stack([one[bound] for one in relative], axis=1) for bound in range(3))
    unknown = np.isnan(goals).any(axis=1)
    score = np.nan_to_num(goals) @ share
    order = np.lexsort((table["position"].to_numpy(), score, unknown))
    front = np.zeros(len(goals), bool)
    front[~unknown] = pareto(goals[~unknown])
    known = {"score": score, "score_low": low @ share, "score_high": high @ share}
    added = {name: np.where(unknown, np.nan, value)[order] for name, value in known.items()}
    added |= {"maybe_best": added["score_low"] <= added["score_high"][0], "pareto": front[order]}
    ranked = table.take(pa.array(order))
    for name, values in reversed({"rank": np.arange(1, len(order) + 1), **added}.items()):
        ranked = ranked.add_column(0, name, pa.array(values))
    return ranked


def pareto(goals: np.ndarray) -> np.ndarray:
    """Which rows of ``goals [scenario, goal]``, the smaller the better, no other row dominates: bool ``[scenario]``."""
    front = np.zeros(len(goals), bool)
    # In lexical order a row can only be dominated by one that came before.
    order = np.lexsort(goals.T[::-1])
    kept = np.empty((0, goals.shape[1]))
    for first in range(0, len(order), _BLOCK):
        # Most rows of a block fall to what is kept from the blocks before; only the others are held against each other.
        rows = order[first : first + _BLOCK]
        for row in rows[~_dominated(goals[rows], kept)]:
            if not _dominated(goals[row : row + 1], kept)[0]:
                front[row] = True
                kept = np.vstack([kept, goals[row]])
    return front


def _dominated(goals: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Which rows another row is at least as good as in everything and better in something."""
    as_good = (by[:, None] <= goals).all(axis=2)
    better = (by[:, None] < goals).any(axis=2)
    return np.asarray((as_good & better).any(axis=0))


def unpriced(ranked: pa.Table, weights: Mapping[str, float]) -> int:
    """Scenarios of a ranking that come last because nobody knows what they cost."""
    return int(np.isnan(ranked["score"].to_numpy()).sum()) if weights.get("cost") else 0


def _relative(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A goal between its bounds, the smaller the better; NaN where it is a cost that is unknown."""
    if name == "cost":
        cost = table["cost"].to_numpy(zero_copy_only=False).astype(float)
        cost[table["levers"].to_numpy(zero_copy_only=False) == ""] = 0.0  # to do nothing costs nothing
        part = cost / (np.nanmax(cost, initial=0.0) or 1.0)
        return part, part, part
    low, change, high = (table[f"{name}_change{end}"].to_numpy(zero_copy_only=False) for end in ("_low", "", "_high"))
    base = np.abs(table[name].to_numpy(zero_copy_only=False) - change)
    size = np.where(base != 0, base, np.abs(change).max(initial=0.0, where=base == 0) or 1.0)
    return low / size, change / size, high / size
