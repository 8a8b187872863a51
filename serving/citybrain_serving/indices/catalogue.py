"""Which indices there are, and how a forecast is turned into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.statistics import Profile
from citybrain_datasets.task import Task
from citybrain_serving.indices import air, traffic
from citybrain_serving.indices.standards import (
    EPA_2024,
    FHWA_RELIABILITY,
    GBT_33171,
    HCM6,
    HJ_633_2012,
    HJ_633_2026,
    Standard,
)
from citybrain_serving.snapshot import Forecast

FREE_FLOW_QUANTILE = 0.95
"""Of a segment's weekly profile; its free-flow speed where the city does not state one."""


@dataclass(frozen=True)
class Index:
    """``compute(values, free)`` takes values ``[node, …]`` in the signal's unit and free-flow speeds ``[node, 1…]``
    (NaN for air). ``falls`` says that the index falls where the signal rises, so that quantiles change sides."""

    id: str
    signal: str
    standard: Standard
    title: str
    falls: bool
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]


INDICES: Mapping[str, Index] = {
    index.id: index
    for index in (
        Index("tpi", "speed", GBT_33171, "traffic performance index, 0–10", True, traffic.performance),
        Index("tti", "speed", FHWA_RELIABILITY, "travel-time index, T/T₀", True, traffic.travel_time_index),
        Index("los", "speed", HCM6, "level of service, 1 = A … 6 = F", True, traffic.service_level),
        Index("aqi", "pm25", HJ_633_2026, "AQI of PM2.5", False, lambda v, _: air.aqi_cn(v, HJ_633_2026)),
        Index("aqi-2012", "pm25", HJ_633_2012, "AQI of PM2.5", False, lambda v, _: air.aqi_cn(v, HJ_633_2012)),
        Index("aqi-us", "pm25", EPA_2024, "AQI of PM2.5", False, lambda v, _: air.aqi_us(v)),
    )
}


def free_speeds(city: City, profile: Profile | None) -> np.ndarray:
    """Free-flow speed of each road segment, km/h, float64 ``[node]``: as the city states it, else a high quantile of
    the weekly profile of speed, else NaN."""
    table = city.nodes["road"]
    stated = np.full(len(table), np.nan)
    if "free_speed_kmh" in table:
        stated = table["free_speed_kmh"].to_numpy(float)
    if profile is not None:
        stated = np.where(stated > 0, stated, np.quantile(profile.mean, FREE_FLOW_QUANTILE, axis=0))
    return np.where(stated > 0, stated, np.nan)


def applied(index: Index, forecast: Forecast, free: np.ndarray) -> Forecast:
    """The forecast of an index: the same forecast, its values and quantiles those of the index."""
    values = index.compute(forecast.values, free[:, None, None])
    task = forecast.task
    if index.falls:
        values = values[..., ::-1]
        levels = tuple(round(1 - q, 6) for q in reversed(task.quantiles))
        task = Task.model_validate({**task.model_dump(), "quantiles": levels})
    return replace(
        forecast,
        task=task,
        values=np.ascontiguousarray(values, dtype=np.float32),
        observed=index.compute(forecast.observed, free).astype(np.float32),
    )


def probability_below(values: np.ndarray, levels: tuple[float, ...], threshold: np.ndarray | float) -> np.ndarray:
    """Probability that the outcome is below ``threshold``, from quantiles ``values [..., quantile]``.

    Linear between quantiles; beyond the outermost one nothing is known, so 0 or 1 are never claimed: half of the
    probability that lies outside is given.
    """
    limit = np.broadcast_to(np.asarray(threshold, float), values.shape[:-1])
    share = np.asarray(levels)
    above = (values < limit[..., None]).sum(axis=-1)
    lower, upper = np.clip(above - 1, 0, None), np.clip(above, None, len(share) - 1)
    low = np.take_along_axis(values, lower[..., None], -1)[..., 0]
    high = np.take_along_axis(values, upper[..., None], -1)[..., 0]
    part = np.where(high > low, (limit - low) / np.where(high > low, high - low, 1), 0)
    inside = share[lower] + part * (share[upper] - share[lower])
    return np.where(above == 0, share[0] / 2, np.where(above == len(share), (1 + share[-1]) / 2, inside))
