"""NGSI-LD out: ``AirQualityForecast`` of the Smart Data Models, and ``TrafficFlowForecast`` in the same style."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import numpy as np

from citybrain_serving.encoding import DECIMALS, local_day, utc
from citybrain_serving.indices import air, traffic
from citybrain_serving.indices.standards import GBT_33171, Standard, hj_633
from citybrain_serving.languages import AIR_LEVELS
from citybrain_serving.places import Places
from citybrain_serving.selection import Cut, Filter
from citybrain_serving.service import Service
from citybrain_serving.snapshot import Forecast

TASKS = {"AirQualityForecast": "pm25", "TrafficFlowForecast": "congestion"}

MODELS = "https://raw.githubusercontent.com/smart-data-models"
TERMS = "urn:citybrain:ngsi-ld:"
_OURS = {
    term: TERMS + term
    for term in (
        "TrafficFlowForecast", "quantiles", "issuedAt", "stale", "doubted", "airQualityIndexStandard",
        "trafficPerformanceIndex", "trafficPerformanceIndexStandard",
    )
}  # fmt: skip
CONTEXTS: dict[str, list[Any]] = {
    "AirQualityForecast": [_OURS, f"{MODELS}/dataModel.Environment/master/context.jsonld"],
    "TrafficFlowForecast": [_OURS, f"{MODELS}/dataModel.Transportation/master/context.jsonld"],
}

ATTRIBUTES = {
    "speed": ("averageVehicleSpeed", "KMH"),
    "flow": ("intensity", None),
    "occupancy": ("occupancy", "C62"),
    "pm25": ("pm25", "GQ"),
}
"""Attribute and unit code of each target. ``intensity`` counts the vehicles of the period."""


@dataclass(frozen=True)
class Page:
    """Positions of nodes and leads, and the offset of the next page, None on the last."""

    rows: np.ndarray
    leads: tuple[int, ...]
    more: int | None


def page(service: Service, forecast: Forecast, asked: Filter, horizon: str | None, limit: int, offset: int) -> Page:
    """Raises :class:`~citybrain_serving.errors.BadSelection` or :class:`~citybrain_serving.errors.UnknownPlace`."""
    places = service.board.places[forecast.task.node]
    rows = asked.rows(places)
    rows = np.arange(len(places)) if rows is None else rows
    more = offset + limit if offset + limit < len(rows) else None
    return Page(rows[offset : offset + limit], Cut.of(forecast.task, horizon, None).leads, more)


def entities(service: Service, forecast: Forecast, page: Page, *, simplified: bool) -> list[dict[str, Any]]:
    """One entity for each node and lead of ``page``."""
    task = forecast.task
    places = service.board.places[task.node]
    attribute, code = ATTRIBUTES[task.target]
    values = forecast.values * (task.step_minutes / 60 if task.target == "flow" else 1)
    kind = next(name for name, known in TASKS.items() if known == task.name)
    stale = service.stale(forecast)
    free = service.board.free_speeds if task.target == "speed" else np.full(len(places), np.nan)
    out = []
    for row in page.rows.tolist():
        for lead in page.leads:
            last = forecast.times[lead]
            first, last_text = utc(last - task.step), utc(last)
            median = float(values[row, lead, task.median])
            standard = hj_633(local_day(last - task.step, service.fleet.city))
            levels = zip(task.quantiles, values[row, lead], strict=True)
            value = {
                "value": _rounded(median, task.target),
                **({} if code is None else {"unitCode": code}),
                "quantiles": {
                    "type": "Property",
                    "value": {f"{level:g}": _rounded(v, task.target) for level, v in levels},
                },
            }
            node = quote(places.ids[row], safe="")
            properties = {
                attribute: value,
                **(_air(median, standard) if task.target == "pm25" else _traffic(median, float(free[row]))),
                "validFrom": first,
                "validTo": last_text,
                "validity": f"{first}/{last_text}",
                "issuedAt": utc(forecast.issued),
                "stale": stale,
                "doubted": forecast.doubted,
                "dataProvider": "CityBrain",
                "source": f"{forecast.source} {forecast.bundle}",
                **_named(places, row),
            }
            entity: dict[str, Any] = {
                "id": f"urn:ngsi-ld:{kind}:{quote(service.fleet.city.name, safe='')}:{node}:{last_text}",
                "type": kind,
            }
            for name, given in properties.items():
                entity[name] = _simple(given) if simplified else _normal(name, given)
            if kind == "TrafficFlowForecast":
                segment = f"urn:ngsi-ld:RoadSegment:{node}"
                entity["refRoadSegment"] = segment if simplified else {"type": "Relationship", "object": segment}
            entity["@context"] = CONTEXTS[kind]
            out.append(entity)
    return out


@cache
def traffic_flow_forecast_schema() -> dict[str, Any]:
    """JSON Schema of ``TrafficFlowForecast`` in its simplified form."""
    text = (files(__package__) / "TrafficFlowForecast.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _air(pm25: float, standard: Standard) -> dict[str, Any]:
    index = air.aqi_cn(np.array(pm25), standard)
    level = AIR_LEVELS[int(air.level(index))]["en"]
    return {
        "airQualityIndex": int(index),
        "airQualityLevel": level,
        "airQualityIndexStandard": standard.id,
    }


def _traffic(speed: float, free: float) -> dict[str, Any]:
    if not np.isfinite(free):
        return {}
    index = traffic.performance(np.array(speed), np.array(free))
    return {
        "trafficPerformanceIndex": _rounded(index, "speed"),
        "trafficPerformanceIndexStandard": GBT_33171.id,
    }


def _named(places: Places, row: int) -> dict[str, Any]:
    """Name and place, where they are published."""
    lat, lon = places.coordinates
    named: dict[str, Any] = {}
    if np.isfinite(lat[row]) and np.isfinite(lon[row]):
        named["location"] = {"type": "Point", "coordinates": [float(lon[row]), float(lat[row])]}
    for name, column in (("name", "name"), ("alternateName", "name_zh")):
        text = places.text(column)[row]
        if text:
            named[name] = text
    return named


def _simple(given: Any) -> Any:
    return given["value"] if isinstance(given, dict) and "value" in given else given


def _normal(name: str, given: Any) -> dict[str, Any]:
    if isinstance(given, dict) and "value" in given:
        return {"type": "Property", **given}
    if name == "location":
        return {"type": "GeoProperty", "value": given}
    if name in ("validFrom", "validTo", "issuedAt"):
        return {"type": "Property", "value": {"@type": "DateTime", "@value": given}}
    return {"type": "Property", "value": given}


def _rounded(value: Any, signal: str) -> float:
    """As many decimals as other answers give, in a number that JSON writes with no more."""
    return round(float(value), DECIMALS + 2 * (signal == "occupancy"))
