"""This place, this hour: the road and the air nearest to a point, what is to come, and what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from citybrain_datasets.geo import cell
from citybrain_datasets.signals import NodeType
from citybrain_models.events import POLLUTED, ROUNDED, probability_below
from citybrain_serving.encoding import local_day, standard_of, utc
from citybrain_serving.errors import BadSelection, UnknownPlace
from citybrain_serving.features import plain
from citybrain_serving.indices import air, traffic
from citybrain_serving.indices.catalogue import INDICES, Index, indices_of
from citybrain_serving.indices.current import BASES, Current, newest
from citybrain_serving.indices.standards import hj_633
from citybrain_serving.languages import AIR_ADVICE, Language, say
from citybrain_serving.places import Places
from citybrain_serving.problems.trouble import CONGESTED
from citybrain_serving.service import Service
from citybrain_serving.snapshot import Forecast

REACH_M: dict[NodeType, float] = {"road": 1_000, "air": 15_000}
"""How far a road or a station speaks for a place."""

LIKELY = 0.5
"""Probability from which a warning is given."""


def at(service: Service, lat: float, lon: float, language: Language, index: str | None = None) -> dict[str, Any]:
    """The answer of ``/v1/at``, with every index or the one called ``index``.

    Raises :class:`UnknownPlace` where no road and no station is near, :class:`BadSelection` for an unknown index.
    """
    if index is not None and index not in INDICES:
        raise BadSelection(f"there is no index {index[:40]!r}, only {', '.join(INDICES)}", {"parameter": "index"})
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
        stale, seen = service.stale(forecast), forecast.observed_at(row)
        answer[node] = {
            "id": places.ids[row],
            "name": _name(places, row, language),
            "distance_m": round(metres, 1),
            "signal": forecast.task.target,
            "unit": forecast.kind.unit,
            "observed": plain(np.round(forecast.observed[row], 2)),
            "observed_at": None if seen is None else utc(seen),
            "issued": utc(forecast.issued),
            "source": forecast.source,
            "doubted": forecast.doubted,
            "stale": stale,
            "bundle": forecast.bundle,
            "indices": _indices(service, forecast, row, language, index),
            "ahead": _ahead(forecast, row),
        }
        warnings += [say("stale", language)] * stale
        warnings += [say("fallback", language)] * (forecast.source == "fallback")
        warnings += [say("doubted", language)] * forecast.doubted
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


def _indices(
    service: Service, forecast: Forecast, row: int, language: Language, wanted: str | None
) -> list[dict[str, Any]]:
    """What each index, or the one wanted, is at one node now."""
    return [
        value_of(index, service.present(forecast, index), row, language)
        for index in indices_of(forecast.task.target, local_day(forecast.issued, service.fleet.city))
        if wanted in (None, index.id)
    ]


def city_value(service: Service, index: Index, language: Language) -> dict[str, Any] | None:
    """The traffic performance index of all roads now, weighted by vehicle-kilometres, or by length where no flow is
    measured; None for other indices, and while nothing is known."""
    published = {} if service.snapshot is None else service.board.of(service.snapshot)
    forecast = next((p.answers.forecast for p in published.values() if p.answers.forecast.task.target == "speed"), None)
    table = service.board.places["road"].table
    if index.id != "tpi" or forecast is None or "length_m" not in table:
        return None
    flow, weight = forecast.latest.get("flow"), table["length_m"].to_numpy(float)
    if flow is not None and np.isfinite(flow).any():
        weight = weight * flow
    value = traffic.network_performance(service.present(forecast, index).value, weight)
    graded = index.level(value)
    if graded is None or not np.isfinite(value):
        return None
    return {"value": round(value, 2), "level": graded[0], "name": graded[1][language]}


def value_of(index: Index, present: Current, row: int, language: Language) -> dict[str, Any]:
    """An index at one node as it is answered, with its standard and what its value is made from."""
    value = float(present.value[row])
    basis = BASES[int(present.basis[row])]
    entry: dict[str, Any] = {**standard_of(index), "value": plain(np.round(value, 2)), "basis": basis}
    graded = index.level(value)
    if graded is not None:
        entry |= {"level": graded[0], "name": graded[1][language]}
    return entry


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
        chance, key = 1 - probability_below(values, levels, POLLUTED + ROUNDED), "pollution_ahead"
    else:
        return []
    worst = int(np.argmax(chance))
    if not chance[worst] >= LIKELY:
        return []
    local = forecast.times[worst].tz_convert(service.fleet.city.timezone)
    return [say(key, language, time=local.strftime("%m-%d %H:%M"), probability=float(chance[worst]))]


def _advice(service: Service, forecast: Forecast, row: int, language: Language) -> list[str]:
    current = newest(forecast, service.board.stale_steps)[0][row : row + 1]
    if forecast.task.target == "pm25":
        standard = hj_633(local_day(forecast.issued, service.fleet.city))
        return [AIR_ADVICE[int(air.level(air.aqi_cn(current, standard))[0])][language]]
    free = service.board.free_speeds[row : row + 1]
    if forecast.task.target == "speed" and traffic.performance(current, free)[0] >= CONGESTED:
        factor = float(traffic.travel_time_index(current, free)[0])
        return [say("leave_later", language, factor=factor)]
    return []
