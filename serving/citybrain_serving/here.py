"""This place, this hour: the road and the air nearest to a point, what is to come, and what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from citybrain_datasets.geo import cell
from citybrain_datasets.signals import NodeType
from citybrain_serving.encoding import standard_of, utc
from citybrain_serving.errors import UnknownPlace
from citybrain_serving.features import plain
from citybrain_serving.indices import air, traffic
from citybrain_serving.indices.catalogue import INDICES, probability_below
from citybrain_serving.languages import AIR_ADVICE, AIR_LEVELS, TRAFFIC_LEVELS, Language, say
from citybrain_serving.places import Places
from citybrain_serving.problems.trouble import CONGESTED, POLLUTED
from citybrain_serving.service import Service
from citybrain_serving.snapshot import Forecast

REACH_M: dict[NodeType, float] = {"road": 1_000, "air": 15_000}
"""How far a road or a station speaks for a place."""

LIKELY = 0.5
"""Probability from which a warning is given."""


def at(service: Service, lat: float, lon: float, language: Language) -> dict[str, Any]:
    """The answer of ``/v1/at``. Raises :class:`UnknownPlace` where no road and no station is near."""
    near = {node: _near(service, node, lat, lon) for node in REACH_M}
    if not any(near.values()):
        raise UnknownPlace(f"no road and no air station of {service.fleet.city.name} is near {lat:g}, {lon:g}")
    answer: dict[str, Any] = {"road": None, "air": None}
    warnings: list[str] = []
    advice: list[str] = []
    for node, found in near.items():
        if found is None:
            continue
        places, row, metres, forecast = found
        stale = service.stale(forecast)
        answer[node] = {
            "id": places.ids[row],
            "name": _name(places, row, language),
            "distance_m": round(metres, 1),
            "signal": forecast.task.target,
            "unit": forecast.kind.unit,
            "observed": plain(np.round(forecast.observed[row], 2)),
            "issued": utc(forecast.issued),
            "source": forecast.source,
            "stale": stale,
            "bundle": forecast.bundle,
            "indices": _indices(service, forecast, row, language),
            "ahead": _ahead(forecast, row),
        }
        warnings += [say("stale", language)] * stale
        warnings += [say("fallback", language)] * (forecast.source == "fallback")
        warnings += _warnings(service, forecast, row, language)
        advice += _advice(service, forecast, row, language)
    town = service.fleet.city
    now = service.clock.now()
    return {
        "city": town.name,
        "synthetic": town.synthetic,
        "lat": lat,
        "lon": lon,
        "cell": cell(lat, lon),
        "time": utc(now if now is not None else pd.Timestamp.now("UTC")),
        "language": language,
        **answer,
        "warnings": list(dict.fromkeys(warnings)),
        "advice": advice,
    }


def _near(service: Service, node: NodeType, lat: float, lon: float) -> tuple[Places, int, float, Forecast] | None:
    published = service.board.of(service.snapshot).values()
    forecast = next((p.answers.forecast for p in published if p.answers.forecast.task.node == node), None)
    places = service.board.places.get(node)
    if forecast is None or places is None:
        return None
    found = places.nearest(lat, lon)
    if found is None or found[1] > REACH_M[node]:
        return None
    return places, *found, forecast


def _name(places: Places, row: int, language: Language) -> str:
    names = [places.text(column)[row] for column in ("name_zh", "name")]
    return next((n for n in (names if language == "zh" else names[::-1]) if n), places.ids[row])


def _now(forecast: Forecast, row: int) -> np.ndarray:
    """The newest measured value, or the median of the next step where there is none, ``[1]``."""
    seen = forecast.observed[row]
    return np.array([seen if np.isfinite(seen) else forecast.values[row, 0, forecast.task.median]])


def _indices(service: Service, forecast: Forecast, row: int, language: Language) -> list[dict[str, Any]]:
    current = _now(forecast, row)
    free = service.board.free_speeds[row : row + 1] if forecast.task.node == "road" else np.array([np.nan])
    out = []
    for index in INDICES.values():
        if index.signal != forecast.task.target:
            continue
        value = index.compute(current, free)
        entry: dict[str, Any] = {
            **standard_of(index),
            "value": plain(np.round(value[0].astype(float), 2)),
        }
        if index.id == "tpi":
            level = int(traffic.performance_level(value)[0])
            entry |= {"level": level, "name": TRAFFIC_LEVELS[level][language]}
        elif index.id.startswith("aqi") and index.id != "aqi-us":
            level = int(air.level(value)[0])
            entry |= {"level": level, "name": AIR_LEVELS[level][language]}
        out.append(entry)
    return out


def _ahead(forecast: Forecast, row: int) -> list[dict[str, Any]]:
    values = np.round(forecast.values[row].astype(float), 2)
    return [
        {
            "time": utc(time),
            "values": {f"{q:g}": float(v) for q, v in zip(forecast.task.quantiles, step, strict=True)},
        }
        for time, step in zip(forecast.times, values, strict=True)
    ]


def _warnings(service: Service, forecast: Forecast, row: int, language: Language) -> list[str]:
    """The step at which trouble is most likely, where it is likely at all."""
    values, levels = forecast.values[row], forecast.task.quantiles
    if forecast.task.target == "speed":
        limit = traffic.speed_at(CONGESTED, service.board.free_speeds[row])
        chance, key = probability_below(values, levels, limit), "congestion_ahead"
    elif forecast.task.target == "pm25":
        chance, key = 1 - probability_below(values, levels, POLLUTED), "pollution_ahead"
    else:
        return []
    worst = int(np.argmax(chance))
    if not chance[worst] >= LIKELY:
        return []
    local = forecast.times[worst].tz_convert(service.fleet.city.timezone)
    return [say(key, language, time=local.strftime("%m-%d %H:%M"), probability=float(chance[worst]))]


def _advice(service: Service, forecast: Forecast, row: int, language: Language) -> list[str]:
    current = _now(forecast, row)
    if forecast.task.target == "pm25":
        return [AIR_ADVICE[int(air.level(air.aqi_cn(current))[0])][language]]
    free = service.board.free_speeds[row : row + 1]
    if forecast.task.target == "speed" and traffic.performance(current, free)[0] >= CONGESTED:
        factor = float(traffic.travel_time_index(current, free)[0])
        return [say("leave_later", language, factor=factor)]
    return []
