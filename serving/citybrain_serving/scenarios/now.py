"""The traffic that measures would meet if they were taken now: the current forecast, as the surrogate's base."""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.congestion import SLOWEST
from citybrain_datasets.scenarios.actions import Timetable
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import Base
from citybrain_serving.snapshot import Forecast


def base_now(bundle: SurrogateBundle, forecast: Forecast, flow: np.ndarray) -> Base:
    """Traffic of the hours after the issue time, in the surrogate's slots and by the city's clock.

    Speeds are the forecast's medians, held at the last lead where the forecast ends; ``flow`` veh/h ``[segment]`` is
    what was measured last and is held too, with the usual flow where it is NaN. Each vehicle emits what is usual for
    it there.
    """
    usual, task = bundle.usual, forecast.task
    slot = pd.Timedelta(seconds=usual.slot_seconds)
    middle = task.quantiles.index(0.5)
    leads = np.arange(1, task.horizon + 1) * task.step
    speed = np.empty(usual.flow.shape, np.float32)
    last = forecast.values[:, -1, middle]
    for number in range(usual.slots):
        inside = (leads > number * slot) & (leads <= (number + 1) * slot)
        speed[:, number] = forecast.values[:, inside, middle].mean(axis=1) if inside.any() else last
    held = np.where(np.isfinite(flow)[:, None], flow[:, None], usual.flow).astype(np.float32)
    length = bundle.network.length_m[:, None] / 1000
    vehicles = held * length / np.maximum(speed, SLOWEST)
    mean = usual.flow.mean(axis=1)
    each = np.divide(usual.emission.mean(axis=1), mean, out=np.zeros_like(mean), where=mean > 0)
    timetable = timetable_from(bundle, forecast.issued)
    return Base(held, vehicles.astype(np.float32), held * each[:, None], usual.slot_seconds, timetable=timetable)


def timetable_from(bundle: SurrogateBundle, issued: pd.Timestamp) -> Timetable:
    """The surrogate's slots counted from ``issued`` on, by the city's clock and calendar."""
    return Timetable.at(issued, bundle.usual.slots, Calendar(bundle.city.timezone, bundle.city.country))
