"""Which indices there are, and how a forecast is turned into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.statistics import Profile
from citybrain_datasets.task import Task
from citybrain_serving.errors import BadSelection
from citybrain_serving.indices import air, traffic
from citybrain_serving.indices.standards import (
    EPA_2024,
    FHWA_RELIABILITY,
    GBT_33171,
    HCM6,
    HJ_633_2012,
    HJ_633_2026,
    Standard,
    hj_633,
)
from citybrain_serving.languages import (
    AIR_LEVELS,
    AMERICAN_LEVELS,
    INDEX_TITLES,
    SERVICE_LEVELS,
    TRAFFIC_LEVELS,
    Words,
)
from citybrain_serving.snapshot import Forecast

UNNAMED = "aqi"
"""The index that goes by the standard in force at its moment; its others name theirs."""

FREE_FLOW_QUANTILE = 0.95
"""Of a segment's weekly profile; its free-flow speed where the city does not state one."""


@dataclass(frozen=True)
class Index:
    """``compute(values, free)`` takes values ``[node, …]`` in the signal's unit and free-flow speeds ``[node, 1…]``
    (NaN for air). ``falls`` says that the index falls where the signal rises, so that quantiles change sides. ``now``
    is what the present value is made from: the newest reading, the mean of the last hour, or a NowCast; a forecast of
    the index is that of each step's own mean, whatever ``now`` is."""

    id: str
    signal: str
    standard: Standard
    title: Words
    falls: bool
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]
    now: Literal["newest", "hour", "nowcast", "ahead"] = "newest"
    taken: float | None = None
    """The one quantile of it that is the index, as a planning time is; None for an index with all its quantiles."""

    def on(self, day: date) -> Index:
        """The index as it is on a day: one that names no standard goes by the one in force then."""
        return _chinese(UNNAMED, hj_633(day)) if self.id == UNNAMED else self

    def at_level(self, values: np.ndarray, levels: tuple[float, ...], free: np.ndarray) -> np.ndarray:
        """The quantile ``taken`` of the index, ``[…]``, from quantiles ``[…, quantile]`` of the signal; linear between
        two of them, NaN beyond the outermost."""
        assert self.taken is not None
        wanted = round(1 - self.taken if self.falls else self.taken, 6)
        if not levels[0] <= wanted <= levels[-1]:
            return np.full(values.shape[:-1], np.nan)
        upper = int(np.searchsorted(levels, wanted))
        lower = upper if levels[upper] == wanted else upper - 1
        share = 0.0 if lower == upper else (wanted - levels[lower]) / (levels[upper] - levels[lower])
        return self.compute((1 - share) * values[..., lower] + share * values[..., upper], free)

    def level(self, value: float) -> tuple[int, Words] | None:
        """The level of a value and its name; None where the standard names no levels."""
        if self.id not in LEVELS:
            return None
        level, names = LEVELS[self.id]
        found = int(level(np.array([value]))[0]) if np.isfinite(value) else 0
        return found, names[found]


def _chinese(name: str, standard: Standard) -> Index:
    """PM2.5 by HJ 633."""
    return Index(name, "pm25", standard, INDEX_TITLES["aqi"], False, lambda v, _: air.aqi_cn(v, standard), "hour")


INDICES: Mapping[str, Index] = {
    index.id: index
    for index in (
        Index("tpi", "speed", GBT_33171, INDEX_TITLES["tpi"], True, traffic.performance),
        Index("tti", "speed", FHWA_RELIABILITY, INDEX_TITLES["tti"], True, traffic.travel_time_index),
        Index("pti", "speed", FHWA_RELIABILITY, INDEX_TITLES["pti"], True, traffic.travel_time_index, "ahead", 0.95),
        Index("los", "speed", HCM6, INDEX_TITLES["los"], True, traffic.service_level),
        _chinese(UNNAMED, HJ_633_2026),
        _chinese("aqi-2026", HJ_633_2026),
        _chinese("aqi-2012", HJ_633_2012),
        Index("aqi-us", "pm25", EPA_2024, INDEX_TITLES["aqi"], False, lambda v, _: air.aqi_us(v), "nowcast"),
    )
}  # fmt: skip

LEVELS: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[Words, ...]]] = {
    "tpi": (traffic.performance_level, TRAFFIC_LEVELS),
    "los": (lambda value: value.astype(int), SERVICE_LEVELS),
    UNNAMED: (air.level, AIR_LEVELS),
    "aqi-2026": (air.level, AIR_LEVELS),
    "aqi-2012": (air.level, AIR_LEVELS),
    "aqi-us": (air.level, AMERICAN_LEVELS),
}
"""How an index is graded, and the names of the grades, 0 for unknown."""


def indices_of(signal: str, day: date, wanted: str | None = None) -> list[Index]:
    """The indices of a signal as they are on a day, or the one of them that is called ``wanted``.

    Raises :class:`~citybrain_serving.errors.BadSelection` where it has none of that name.
    """
    known = [index.on(day) for index in INDICES.values() if index.signal == signal]
    if wanted is None:
        return known
    chosen = [index for index in known if index.id == wanted]
    if not chosen:
        listed = ", ".join(index.id for index in known) or "none"
        raise BadSelection(f"{signal} has no index {wanted[:40]!r}, only {listed}", {"parameter": "index"})
    return chosen


def free_speeds(city: City, profile: Profile | None) -> np.ndarray:
    """Free-flow speed of each road segment, km/h, float64 ``[node]``: as the city states it, else a high quantile of
    the weekly profile of speed, else NaN."""
    table = city.nodes["road"]
    stated = np.full(len(table), np.nan)
    if "free_speed_kmh" in table:
        stated = table["free_speed_kmh"].to_numpy(float, copy=True)
    unsaid = np.flatnonzero(~(stated > 0))
    if profile is not None and len(unsaid):  # the profile of a large city is not sorted for what its city states
        stated[unsaid] = np.quantile(profile.of(unsaid), FREE_FLOW_QUANTILE, axis=0)
    return np.where(stated > 0, stated, np.nan)


def applied(index: Index, forecast: Forecast, free: np.ndarray, now: np.ndarray) -> Forecast:
    """The forecast of an index: the same forecast, its values and quantiles those of the index; ``now [node]`` is the
    present value, as :mod:`citybrain_serving.indices.current` has it.

    Raises :class:`~citybrain_serving.errors.BadSelection` where the index is a quantile beyond those of the forecast.
    """
    task = forecast.task
    if index.taken is not None:
        values = index.at_level(forecast.values, task.quantiles, free[:, None])[..., None]
        if np.isnan(values).all() and np.isfinite(free).any():
            raise BadSelection(f"{index.id} takes a quantile of {index.taken:g}, which this forecast does not tell")
        task = task.model_copy(update={"quantiles": (index.taken,)})  # for telling alone: it has no median
    else:
        values = index.compute(forecast.values, free[:, None, None])
    if index.falls and index.taken is None:
        values = values[..., ::-1]
        levels = tuple(round(1 - q, 6) for q in reversed(task.quantiles))
        task = Task.model_validate({**task.model_dump(), "quantiles": levels})
    return replace(
        forecast,
        task=task,
        values=np.ascontiguousarray(values, dtype=np.float32),
        observed=now.astype(np.float32),
    )
