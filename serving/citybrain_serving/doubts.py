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

NODE_GROWTH, CITY_GROWTH, LONGEST = 0.15, 0.35, 24
"""What was known some steps ago speaks for a forecast as well, and things have moved since: both distances grow by
these powers of the steps, up to so many. Of 10,000 measured moves of a node 9,999 are below 5.2 over six steps, 5.9
over twelve and 6.1 over 24 (PEMS-BAY; taxis 4.2 and PM2.5 4.6 at most, which hardly grow); of the middle of the city
0.5, 1.3 and 2.7, of PM2.5 in Beijing and Madrid 3.3, 3.7 and 4.1 at most."""

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


@dataclass(frozen=True)
class Support:
    """What may speak for a forecast: ``values`` float32 ``[node, horizon]``, NaN where it says nothing, and how many
    ``steps`` ago it was known, broadcast to them; what is usual was always."""

    values: np.ndarray
    steps: np.ndarray

    def over(self, growth: float) -> np.ndarray:
        """How much further than over one step things may move over its steps; unknown ones are one."""
        return np.asarray(np.clip(np.fmax(self.steps, 1), 1, LONGEST) ** growth)


def supports(features: Features, window: Window, before: Forecast | None) -> list[Support]:
    """The newest observation of each node, however old it is in the history; what is usual at those times; and what was
    forecast for them before."""
    task = features.task
    seen, age = last_seen(features, window, task.target)
    usual = features.profile(task.target, window.issue)[0, task.history :].T
    told = [
        Support(np.broadcast_to(seen[:, None], usual.shape), age[:, None]),
        Support(usual, np.zeros(1)),
    ]
    if before is not None and before.task.step == task.step and len(before.values) == len(usual):
        ahead = int((window.issue[0] - before.issued) / task.step)
        if 0 <= ahead < before.task.horizon:
            median = before.values[:, ahead : ahead + task.horizon, before.task.median]
            values = np.pad(median, ((0, 0), (0, task.horizon - median.shape[1])), constant_values=np.nan)
            told.append(Support(values, np.array([ahead])))
    return told


def leaping(median: np.ndarray, told: Sequence[Support], features: Features) -> tuple[np.ndarray, bool]:
    """Nodes, bool ``[node]``, whose ``median [node, horizon]`` lies too far from everything ``told``, and whether that
    of the city as a whole does; where nothing is told nothing is doubted. A gap in what is known is no reason to doubt
    what has changed meanwhile: distances count by what is to be expected over the time between."""
    scale = features.statistics.scalers[features.task.target].scale
    ours = scale(median)
    apart = [(ours - scale(theirs.values), theirs) for theirs in told]
    nearest = np.fmin.reduce([np.abs(distance / theirs.over(NODE_GROWTH)) for distance, theirs in apart])
    chosen = slice(None, None, max(1, len(median) // JUDGED))
    middle = np.fmin.reduce(
        [np.abs(_middle((distance / theirs.over(CITY_GROWTH))[chosen])) for distance, theirs in apart]
    )
    return (nearest > NODE_LEAP).any(axis=1), bool(len(median) >= FEW and (middle > CITY_LEAP).any())


def _middle(distance: np.ndarray) -> np.ndarray:
    """Median over nodes of ``[node, horizon]``, NaN where no node says anything."""
    known = np.isfinite(distance).any(axis=0)
    out = np.full(distance.shape[1], np.nan)
    out[known] = np.nanmedian(distance[:, known], axis=0)
    return out
