"""Who travels under a scenario: the base's own trips, some not made, some made twice, some by another vehicle.

Each trip carries its own random numbers from the start, so that base and scenario differ by the measures and by
nothing else (common random numbers), and no measure at all gives the very same trips.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.scenarios.actions import ELECTRIC, PRIVATE, STEP_MINUTES, Actions, TripRule

_DRAWS = ("keep", "engine", "advice")


def endow(trips: pd.DataFrame, seed: int, informed_share: float) -> pd.DataFrame:
    """``trips`` with a driver for each: columns ``speed_factor``, ``informed``, and draws 0–1 for what measures ask.

    ``speed_factor`` is normal, 1 ± 0.06, within 0.75–1.25, as in the city's own simulation.
    """
    rng = np.random.default_rng([seed, 11])
    draws = {name: rng.random(len(trips)) for name in _DRAWS}
    speed = np.clip(rng.normal(1, 0.06, len(trips)), 0.75, 1.25).round(3)
    return trips.assign(speed_factor=speed, informed=draws["advice"] < informed_share, **draws)


def apply_to_trips(
    trips: pd.DataFrame, actions: Actions, segments: pd.DataFrame, warm_up_s: float = 1800.0
) -> pd.DataFrame:
    """The trips of a scenario, sorted by departure, with the column ``permit`` for those who may pass a ban.

    ``trips`` as from :func:`endow`, departures in seconds from the start of the warm-up; ``segments`` indexed by id in
    the order of ``actions``, with ``x0 y0 x1 y1`` and ``lanes``. Who would start or end on a closed segment does so on
    the nearest open one.
    """
    steps = actions.informed.shape[0]
    step = np.clip((trips["depart"].to_numpy() // (60 * STEP_MINUTES)).astype(int), 0, steps - 1)
    ids = segments.index
    origin, destination = (ids.get_indexer(pd.Index(trips[end])) for end in ("origin", "destination"))
    kind, draw = trips["type"].to_numpy(dtype=object), trips["engine"].to_numpy()
    factor, plates = np.ones((2, len(trips)))
    # Whom a rule is about depends on what they drive once the electric share is reached.
    kept = _not_electric(kind, actions, step, origin)
    driven = _driven(kind, draw >= kept)
    for rule in actions.trips:
        hit = _touched(rule, origin, destination, step, driven, trips["purpose"].to_numpy(dtype=object))
        if rule.plates:
            plates[hit] = np.minimum(plates[hit], rule.factor)
        else:
            factor[hit] *= rule.factor
        kept[hit] *= 1 - rule.electric
    factor *= plates
    kind = _driven(kind, draw >= kept)

    permit = np.zeros(len(trips), bool)
    for name, where in actions.barred.items():
        permit |= (kind == name) & (where[step, origin] | where[step, destination])
    closed = actions.closed(segments["lanes"].to_numpy())
    if closed.any():
        origin, destination = (_move(end, step, closed, segments) for end in (origin, destination))
    informed = trips["informed"].to_numpy() | (trips["advice"].to_numpy() < actions.informed[step, origin])
    changed = trips.assign(
        origin=ids.to_numpy()[origin], destination=ids.to_numpy()[destination], type=kind, permit=permit,
        informed=informed,
    )  # fmt: skip
    return _repeat(changed, np.floor(factor + trips["keep"].to_numpy()).astype(int), origin == destination)


def _not_electric(kind: np.ndarray, actions: Actions, step: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Part of each trip's like that does not change to an electric vehicle for the share that is asked for."""
    kept, already = np.ones(len(kind)), electric_already(kind)
    for name, asked in actions.electric.items():
        wanted, have = np.where(kind == name, asked[step, origin], 0.0), already.get(name, 0.0)
        kept *= 1 - np.clip((wanted - have) / max(1 - have, 1e-9), 0, 1)
    return kept


def electric_already(kind: np.ndarray) -> dict[str, float]:
    """Of the vehicle types that count with electric ones, the share of trips that are electric when nothing is done."""
    private = np.isin(kind, PRIVATE)
    have = float((kind[private] == "electric_car").mean()) if private.any() else 0.0
    return {name: have for name, electric in ELECTRIC.items() if electric == "electric_car"}


def _driven(kind: np.ndarray, electric: np.ndarray) -> np.ndarray:
    """Vehicle types once those ``electric`` have changed."""
    return np.array([ELECTRIC.get(k, k) if e else k for k, e in zip(kind, electric, strict=True)], dtype=object)


def _touched(
    rule: TripRule,
    origin: np.ndarray,
    destination: np.ndarray,
    step: np.ndarray,
    kind: np.ndarray,
    purpose: np.ndarray,
) -> np.ndarray:
    starts, ends = rule.place[origin], rule.place[destination]
    hit = {"origin": starts, "destination": ends, "either": starts | ends, "entering": ends & ~starts}[rule.end]
    hit = hit & rule.steps[step]
    if rule.types is not None:
        hit &= np.isin(kind, rule.types)
    if rule.purposes is not None:
        hit &= np.isin(purpose, rule.purposes)
    return hit


def _move(end: np.ndarray, step: np.ndarray, closed: np.ndarray, segments: pd.DataFrame) -> np.ndarray:
    """Ends on closed segments, moved to the nearest segment that is open at that step."""
    x, y = ((segments[f"{a}0"] + segments[f"{a}1"]).to_numpy(float) / 2 for a in "xy")
    moved = end.copy()
    for s in range(len(closed)):
        blocked = np.flatnonzero(closed[s])
        opened = np.flatnonzero(~closed[s])
        if not len(blocked) or not len(opened):
            continue
        target = np.arange(closed.shape[1])
        away = np.hypot(x[blocked, None] - x[opened], y[blocked, None] - y[opened])
        target[blocked] = opened[away.argmin(axis=1)]
        moved = np.where(step == s, target[end], moved)
    return moved


def _repeat(trips: pd.DataFrame, copies: np.ndarray, pointless: np.ndarray) -> pd.DataFrame:
    """Each trip ``copies`` times, the later ones a few seconds apart; nobody drives from a place to itself."""
    copies = np.where(pointless, 0, copies)
    rows = np.repeat(np.arange(len(trips)), copies)
    if len(rows) == len(trips) and (copies == 1).all():
        return trips
    again = np.arange(len(rows)) - np.repeat(np.cumsum(copies) - copies, copies)
    result = trips.iloc[rows].copy()
    result["depart"] += 7.0 * again
    return result.sort_values("depart", kind="stable", ignore_index=True)
