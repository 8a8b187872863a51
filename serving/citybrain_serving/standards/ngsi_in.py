"""NGSI-LD in: ``TrafficFlowObserved`` and ``AirQualityObserved`` of the Smart Data Models.

Normalized, concise and simplified (key-value) attributes are read alike. An entity is about the node whose id ends
its own id (``urn:ngsi-ld:TrafficFlowObserved:<id>``), or that its reference names (``refRoadSegment``,
``refDevice``, ``refPointOfInterest``). Its time is ``dateObservedTo``, the end of ``dateObserved`` where that is an
interval, or ``dateObserved`` itself. Entities with a ``laneId`` tell of lanes, which become their road where one
body or several tell of all of them; those with a ``vehicleType`` tell of a part of the traffic, and are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import pandas as pd

from citybrain_datasets.signals import NodeType
from citybrain_serving.errors import MalformedBody
from citybrain_serving.fleet import Channel
from citybrain_serving.lanes.combining import Lane, LaneCount
from citybrain_serving.readings import document_of
from citybrain_serving.standards.translation import Rows, Translated, no_count

ATTRIBUTES: dict[str, tuple[NodeType, dict[str, tuple[str, str]]]] = {
    "TrafficFlowObserved": (
        "road",
        {
            "averageVehicleSpeed": ("speed", "km/h"),
            "intensity": ("flow", "veh"),
            "occupancy": ("occupancy", "1"),
        },
    ),
    "AirQualityObserved": (
        "air",
        {
            **{name: (name, "µg/m³") for name in ("pm25", "pm10", "no2", "no", "nox", "o3", "so2")},
            "co": ("co", "mg/m³"),
            "temperature": ("temperature", "°C"),
            "relativeHumidity": ("humidity", "1"),
            "pressure": ("pressure", "hPa"),
            "windSpeed": ("wind_speed", "m/s"),
            "windDirection": ("wind_direction", "°"),
            "precipitation": ("precipitation", "mm"),
        },
    ),
}
"""Signal and unit of each attribute that is read; ``veh`` and ``mm`` are amounts of the observed period. A
``unitCode`` beside the value overrules the unit; the model says none for ``co``, which is taken in the unit that
cities publish."""

UNIT_CODES = {
    "KMH": "km/h", "HM": "mph", "MTS": "m/s", "GQ": "µg/m³", "GP": "mg/m³", "59": "ppm", "61": "ppb", "CEL": "°C",
    "KEL": "K", "FAH": "°F", "P1": "%", "C62": "1", "DD": "°", "A97": "hPa", "PAL": "Pa", "KPA": "kPa",
    "MBR": "hPa", "HN": "mmHg", "KNT": "kn", "C81": "rad", "MMT": "mm", "H67": "mm/h",
}  # fmt: skip
"""UN/CEFACT Recommendation 20 codes of the units that are known here."""

CLASSES = ("vehicleType", "vehicleSubType")
"""Attributes that narrow an observation to some of the traffic."""

ABOUT = ("laneId", "dateObserved", "dateObservedFrom", "dateObservedTo")
"""Attributes that say which lane and when, and are no readings."""

REFERENCES = ("refRoadSegment", "refDevice", "refPointOfInterest")


def readings_from_ngsi(
    body: bytes, channels: Mapping[str, Channel], most: int, count: LaneCount = no_count
) -> Translated:
    """A notification, one entity or a list of entities. Raises :class:`MalformedBody`."""
    document = entities = document_of(body)
    if isinstance(document, dict):
        entities = document.get("data") if document.get("type") == "Notification" else [document]
    if not isinstance(entities, list):
        raise MalformedBody("the body must be a Notification with data, an entity or a list of entities")
    rows = Rows(channels, most, count)
    for number, entity in enumerate(entities):
        sound = isinstance(entity, dict) and isinstance(entity.get("id"), str)
        kinds = entity.get("type") if sound else None
        if isinstance(kinds, str) or (isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)):
            _entity(entity, rows)
        else:
            rows.broken(f"entity {number}", "needs an id and a type, both strings")
    return rows.translated()


def _entity(entity: dict[str, Any], rows: Rows) -> None:
    kinds = entity.get("type")
    kind = next((k for k in (kinds if isinstance(kinds, list) else [kinds]) if k in ATTRIBUTES), None)
    if kind is None:
        rows.ignored[f"entities of type {str(kinds)[:60]}"] += 1
        return
    if any(_plain(entity.get(name)) is not None for name in CLASSES):
        rows.ignored["values of single vehicle classes"] += 1
        return
    if any(_plain(entity.get(name)) == "indoor" for name in ("typeofLocation", "typeOfLocation")):
        rows.ignored["values measured indoors"] += 1
        return
    node, attributes = ATTRIBUTES[kind]
    first, last = _interval(entity)
    hours = _hours(first, last)
    place, lane = _place(entity, kind, node, rows), _lane(entity)
    _count_unread(entity, kind, rows)
    for name, (signal, usual) in attributes.items():
        if name not in entity:
            continue
        source = f"{entity['id'][:120]}#{name}"
        value, code, observed = _attribute(entity[name])
        clock = rows.channels.get(signal)
        if clock is not None and rows.too_long(clock, None if hours is None else 3600 * hours):
            continue
        if signal == "flow" and lane is not None:
            rows.lanes.weigh(place, observed or last, value, lane)
        channel = rows.channel(signal, node, place)
        if channel is None:
            continue
        unit: str | None = UNIT_CODES.get(code, code) if code is not None else usual
        if signal == "flow" and unit == "1":  # so many vehicles
            unit = usual
        if unit in ("veh", "mm"):  # an amount becomes an amount in an hour
            span = hours or channel.ticks.step.total_seconds() / 3600
            value, unit = value / span if type(value) in (int, float) else value, None
        if signal == "wind_direction" and unit == "°" and type(value) in (int, float):
            value = value % 360  # the model counts from −180 to 180
        rows.add(channel, place, observed or last, value, unit, source, lane)


def _count_unread(entity: dict[str, Any], kind: str, rows: Rows) -> None:
    """Numbers that are no reading here are counted by name: one of them may be a reading misspelt."""
    _, attributes = ATTRIBUTES[kind]
    numbers = [name for name, given in entity.items() if type(_plain(given)) in (int, float)]
    unread = [name for name in numbers if name not in attributes and name not in ABOUT]
    for name in unread:
        rows.ignored[f"attribute {name[:60]} of {kind} is not read here"] += 1
    if not unread and not attributes.keys() & entity.keys():
        rows.ignored[f"entities of type {kind} without a number"] += 1


def _lane(entity: dict[str, Any]) -> Lane | None:
    """The lane that an entity is about, None where it is about the road."""
    name, direction = _plain(entity.get("laneId")), _plain(entity.get("laneDirection"))
    return None if name is None else Lane.called(name, direction if isinstance(direction, str) else "")


def _attribute(given: Any) -> tuple[Any, str | None, Any]:
    """Value, unit code and time of its own, from any of the three forms."""
    if not isinstance(given, dict):
        return given, None, None
    code = _plain(given.get("unitCode", given.get("unitText")))
    return given.get("value"), None if code is None else str(code), _plain(given.get("observedAt"))


def _plain(given: Any) -> Any:
    """The value behind a Property, a Relationship or a JSON-LD typed value."""
    while isinstance(given, dict):
        given = given.get("value", given.get("object", given.get("@value")))
    return given


def _interval(entity: dict[str, Any]) -> tuple[Any, Any]:
    """Start, maybe None, and end of the observation."""
    whole = _plain(entity.get("dateObserved"))
    first, last = _plain(entity.get("dateObservedFrom")), _plain(entity.get("dateObservedTo"))
    if isinstance(whole, str) and "/" in whole:
        start, _, end = whole.partition("/")
        start, end = _moments(start, end)
        return first or start, last or end
    return first, last or whole


def _moments(start: str, end: str) -> tuple[str, str]:
    """Start and end of an ISO 8601 interval, of which one may be a duration; as they are where they are neither."""
    try:
        if start.startswith("P"):
            return (datetime.fromisoformat(end) - pd.Timedelta(start)).isoformat(), end
        if end.startswith("P"):
            return start, (datetime.fromisoformat(start) + pd.Timedelta(end)).isoformat()
    except (ValueError, OverflowError):
        pass
    return start, end


def _hours(first: Any, last: Any) -> float | None:
    """Length of the observation; None where it is not said or not positive."""
    try:
        seconds = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    except (TypeError, ValueError):
        return None
    return seconds / 3600 if seconds > 0 else None


def _place(entity: dict[str, Any], kind: str, node: NodeType, rows: Rows) -> str:
    """The node an entity is about; the end of its own id where no candidate is known."""
    own = unquote(entity["id"].removeprefix("urn:ngsi-ld:").removeprefix(f"{kind}:"))
    known = [channel.ids for channel in rows.channels.values() if channel.node in (node, "city")]
    named = [name for reference in REFERENCES for name in _named(entity.get(reference))]
    ends = [end for name in named for end in (_local(name), name.rsplit(":", 1)[-1])]
    for candidate in (own, *map(unquote, ends)):
        if any(candidate in ids for ids in known):
            return candidate
    return own


def _local(name: str) -> str:
    """What follows the type in an NGSI-LD URN; it may hold colons itself, as a junction's ``:12_0`` does."""
    return name.split(":", 3)[-1] if name.startswith("urn:ngsi-ld:") else name


def _named(reference: Any) -> list[str]:
    """Every name behind a reference, which may be a list of them."""
    plain = _plain(reference)
    several = plain if isinstance(plain, list) else [plain]
    return [name for name in map(_plain, several) if isinstance(name, str)]
