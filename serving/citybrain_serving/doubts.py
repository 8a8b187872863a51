"""A model's answer, doubted before it is published: what is impossible or leaps is answered by the weekly profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog

from citybrain_datasets.features import Features, Window
from citybrain_datasets.signals import KINDS, SignalKind
from citybrain_models.forecaster import Forecaster
from citybrain_serving.fallback import weekly_profile
from citybrain_serving.inputs import last_seen
from citybrain_serving.snapshot import Forecast, Source

MOST_DOUBTED = 0.2
"""Share of doubted nodes above which the whole forecast is given up."""

NODE_LEAP = 4.0
CITY_LEAP = 1.5
"""How far, in standard deviations of the signal over the city and its history (of log(1 + x) for what is scaled
so), a median may lie from everything that speaks for it: at one node, and in the middle of all of them, where
ups and downs cancel. From one step to the next, 9,999 of 10,000 *measured* values of a node move by less than
2.4 (PEMS-BAY, 5 min) to 4.7 (taxis of Shenzhen, 15 min), of PM2.5 by 3.7 (Beijing, hourly); the middle of the
city by 0.6 and 1.0 at most, that of Beijing's PM2.5 by less than 1.3 in 999 of 1,000 hours. The step of a
median is smaller than that of what is measured; and where a cold front or snow makes a larger one, what is
observed speaks for the forecast that follows."""

FRESH = 2
"""Age, in steps, up to which an observation speaks for a forecast."""

JUDGED = 5_000
"""Nodes, evenly taken, whose middle stands for the city's; below :data:`FEW` there is no middle to speak of."""
FEW = 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Vetted:
    """``values [node, horizon, quantile]`` fit to publish, their source, why it is not the model, and how many nodes
    the profile answers, by reason."""

    values: np.ndarray
    source: Source
    reason: str = ""
    doubts: Mapping[str, int] = field(default_factory=dict)


def vetted(forecaster: Forecaster, features: Features, window: Window, before: Forecast | None) -> Vetted:
    """The model's forecast where it can be believed, the weekly profile where it cannot. ``before`` is what is
    published so far, None for nothing."""
    task = features.task

    def instead(reason: str) -> Vetted:
        return Vetted(weekly_profile(features, window)[0], "fallback", reason)

    if not np.isfinite(window.values[task.target]).any():
        return instead(f"no {task.target} was observed")
    try:
        values = forecaster.forecast(window)[0]
    except Exception:  # whatever a model or its runtime raises, the city gets an answer
        log.exception("the model failed", task=task.name)
        return instead("the model failed")
    if values.shape != (window.values[task.target].shape[2], task.horizon, len(task.quantiles)):
        return instead("the model's answer has another shape than its task")
    wrong = impossible(values, KINDS[task.target])
    if wrong.mean() > MOST_DOUBTED:
        return instead(f"the model's answer is impossible at {wrong.sum()} nodes")
    median = np.where(wrong[:, None], np.nan, values[..., task.median])
    leaps, whole = leaping(median, supports(features, window, before), features)
    if whole:
        return instead("the model's answer leaps for most of the city at once")
    if (wrong | leaps).mean() > MOST_DOUBTED:
        return instead(f"the model's answer leaps at {leaps.sum()} nodes")
    doubted = wrong | leaps
    if not doubted.any():
        return Vetted(values, "model")
    values = np.where(doubted[:, None, None], weekly_profile(features, window)[0], values)
    counts = {"impossible": int(wrong.sum()), "leap": int(leaps.sum())}
    return Vetted(values, "model", "", {why: count for why, count in counts.items() if count})


def impossible(values: np.ndarray, kind: SignalKind) -> np.ndarray:
    """Nodes, bool ``[node]``, whose forecast ``[node, horizon, quantile]`` is not finite, leaves the
    range of the quantity or has quantiles that fall."""
    finite = np.isfinite(values).all(axis=(1, 2))
    inside = ((values >= kind.low) & (values <= kind.high)).all(axis=(1, 2))
    rising = (np.diff(values, axis=2) >= 0).all(axis=(1, 2))
    return ~(finite & inside & rising)


def supports(features: Features, window: Window, before: Forecast | None) -> list[np.ndarray]:
    """What may speak for a forecast, each float32 ``[node, horizon]``, NaN where it says nothing: the newest
    observation, what is usual at those times, and what was forecast for them before."""
    task = features.task
    seen, age = last_seen(features, window, task.target)
    observed = np.where(age < FRESH, seen, np.nan)[:, None]
    usual = features.profile(task.target, window.issue)[0, task.history :].T
    told = [np.broadcast_to(observed, usual.shape), usual]
    if before is not None and before.task.step == task.step and len(before.values) == len(usual):
        ahead = int((window.issue[0] - before.issued) / task.step)
        if 0 <= ahead < before.task.horizon:
            median = before.values[:, ahead : ahead + task.horizon, before.task.median]
            told.append(np.pad(median, ((0, 0), (0, task.horizon - median.shape[1])), constant_values=np.nan))
    return told


def leaping(median: np.ndarray, told: Sequence[np.ndarray], features: Features) -> tuple[np.ndarray, bool]:
    """Nodes, bool ``[node]``, whose ``median [node, horizon]`` lies too far from everything ``told``, and whether that
    of the city as a whole does; where nothing is told nothing is doubted."""
    scale = features.statistics.scalers[features.task.target].scale
    ours = scale(median)
    apart = [ours - scale(theirs) for theirs in told]
    nearest = np.fmin.reduce([np.abs(distance) for distance in apart])
    chosen = slice(None, None, max(1, len(median) // JUDGED))
    middle = np.fmin.reduce([np.abs(_middle(distance[chosen])) for distance in apart])
    return (nearest > NODE_LEAP).any(axis=1), bool(len(median) >= FEW and (middle > CITY_LEAP).any())


def _middle(distance: np.ndarray) -> np.ndarray:
    """Median over nodes of ``[node, horizon]``, NaN where no node says anything."""
    known = np.isfinite(distance).any(axis=0)
    out = np.full(distance.shape[1], np.nan)
    out[known] = np.nanmedian(distance[:, known], axis=0)
    return out
