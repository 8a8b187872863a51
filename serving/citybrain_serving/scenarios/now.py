"""What measures would meet if they were taken now: the current forecasts of traffic and of PM2.5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.congestion import SLOWEST
from citybrain_datasets.scenarios.actions import Timetable
from citybrain_datasets.scenarios.geography import receptors
from citybrain_datasets.scenarios.standing import standing_on
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import Base
from citybrain_models.surrogate.scorer import USUAL_WEATHER, Scorer, air_of
from citybrain_serving.snapshot import Forecast

_HOUR = pd.Timedelta(hours=1)


@dataclass(frozen=True)
class Ground:
    """What measures are held against: ``base`` traffic, and the PM2.5 forecast for the stations, µg/m³
    ``[hour, station]``; None where the air is that of usual days."""

    base: Base
    pm25: np.ndarray | None = None

    def scorer(self, bundle: SurrogateBundle, threads: int = 1) -> Scorer:
        if self.pm25 is None:
            return Scorer(bundle, base=self.base, threads=threads)
        step = standing_on(air_of(bundle.air), bundle.city, self.pm25, self.base.emission.T)
        return Scorer(bundle, base=self.base, air={USUAL_WEATHER: step}, threads=threads)


def base_now(bundle: SurrogateBundle, forecast: Forecast, flow: np.ndarray) -> Base:
    """Traffic of the hours after the issue time, in the surrogate's slots and by the city's clock.

    Speeds are the forecast's medians: of the leads that end in a slot, or else of the one that goes on through it,
    held at the last lead where the forecast ends; ``flow`` veh/h ``[segment]`` is what was measured last and is held
    too, with the usual flow where it is NaN. Each vehicle emits what is usual for it there.
    """
    usual, task = bundle.usual, forecast.task
    slot = pd.Timedelta(seconds=usual.slot_seconds)
    middle = task.quantiles.index(0.5)
    leads = np.arange(1, task.horizon + 1) * task.step
    speed = np.empty(usual.flow.shape, np.float32)
    for number in range(usual.slots):
        inside = np.flatnonzero((leads > number * slot) & (leads <= (number + 1) * slot))
        through = min(int((leads < (number + 1) * slot).sum()), task.horizon - 1)
        speed[:, number] = forecast.values[:, inside if len(inside) else [through], middle].mean(axis=1)
    held = np.where(np.isfinite(flow)[:, None], flow[:, None], usual.flow).astype(np.float32)
    length = bundle.network.length_m[:, None] / 1000
    # A road that was never measured has no forecast; it is driven as usual.
    pace = np.divide(usual.flow, usual.vehicles, out=np.zeros_like(usual.flow), where=usual.vehicles > 0) * length
    speed = np.where(np.isfinite(speed), speed, np.where(pace > 0, pace, bundle.network.free_speed_kmh[:, None]))
    vehicles = held * length / np.maximum(speed, SLOWEST)
    mean = usual.flow.mean(axis=1)
    each = np.divide(usual.emission.mean(axis=1), mean, out=np.zeros_like(mean), where=mean > 0)
    timetable = timetable_from(bundle, forecast.issued)
    return Base(held, vehicles.astype(np.float32), held * each[:, None], usual.slot_seconds, timetable=timetable)


def last_known(values: np.ndarray) -> np.ndarray:
    """The last value of each column of ``values [time, segment]`` that is one, NaN where there is none."""
    found = np.full(values.shape[1], np.nan, np.float32)
    for row in values:
        found = np.where(np.isfinite(row), row, found)
    return found


def pm25_now(bundle: SurrogateBundle, forecast: Forecast, ids: list[str], begin: pd.Timestamp) -> np.ndarray | None:
    """PM2.5 forecast for the surrogate's stations in its hours from ``begin`` on, µg/m³ float32 ``[hour, station]``.

    Medians of ``forecast``, whose nodes are ``ids``, each by the part of the hour that it covers; NaN for a station
    without one. None where some hour is covered nowhere, or the surrogate holds no air.
    """
    points, task = receptors(bundle.city), forecast.task
    hours = bundle.usual.slots * bundle.usual.slot_seconds // 3600
    place = pd.Index(ids).get_indexer(pd.Index(points.ids[: points.stations]))
    if not bundle.air or not (place >= 0).any():
        return None
    starts = np.array([(time - task.step - begin) / _HOUR for time in forecast.times])
    ends, hour = starts + task.step / _HOUR, np.arange(hours)[:, None]
    covers = np.clip(np.minimum(ends, hour + 1) - np.maximum(starts, hour), 0, None)
    values = forecast.values[:, :, task.quantiles.index(0.5)].T.astype(float)
    known = np.isfinite(values)
    weight = covers @ known
    mean = np.divide(covers @ np.where(known, values, 0), weight, out=np.full(weight.shape, np.nan), where=weight > 0)
    found = np.where(place >= 0, mean[:, place], np.nan).astype(np.float32)
    return found if np.isfinite(found).any(axis=1).all() else None


def timetable_from(bundle: SurrogateBundle, issued: pd.Timestamp) -> Timetable:
    """The surrogate's slots counted from ``issued`` on, by the city's clock and calendar."""
    return Timetable.at(issued, bundle.usual.slots, Calendar(bundle.city.timezone, bundle.city.country))
