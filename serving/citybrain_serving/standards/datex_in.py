"""DATEX II v3 in: ``MeasuredDataPublication``.

A measurement site is the node that has its id. Values of single vehicle classes, and those that their sender marks
as faulty, are left out and counted; a publication is read as data and never as a programme: no DTD, no entities,
nothing fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from citybrain_datasets.signals import NodeType
from citybrain_serving.errors import MalformedBody
from citybrain_serving.fleet import Channel
from citybrain_serving.standards.translation import Meaning, Rows, Translated, end_of

TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"

PATHS: dict[str, tuple[NodeType, tuple[tuple[str, str, str], ...]]] = {
    "TrafficSpeed": ("road", (("speed", "averageVehicleSpeed/speed", "km/h"),)),
    "TrafficFlow": ("road", (("flow", "vehicleFlow/vehicleFlowRate", "veh/h"),)),
    "TrafficConcentration": ("road", (("occupancy", "occupancy/percentage", "%"),)),
    "TemperatureInformation": (
        "air",
        (
            ("temperature", "temperature/airTemperature/temperature", "°C"),
            ("dew_point", "temperature/dewPointTemperature/temperature", "°C"),
        ),
    ),
    "HumidityInformation": ("air", (("humidity", "humidity/relativeHumidity/percentage", "%"),)),
    "PressureInformation": ("air", (("pressure", "pressure/pressureValue/pressure", "hPa"),)),
    "WindInformation": (
        "air",
        (
            ("wind_speed", "wind/windSpeed/windSpeed", "m/s"),
            ("wind_direction", "wind/windDirectionBearing/directionBearing", "°"),
        ),
    ),
    "PrecipitationInformation": (
        "air",
        (("precipitation", "precipitationDetail/precipitationIntensity/millimetresPerHourIntensity", "mm/h"),),
    ),
}
"""For each kind of basic data: where it is measured, and signal, path and unit of what is read."""

POLLUTANTS = {
    "particulates2_5": "pm25",
    "particulates10": "pm10",
    "nitrogenDioxide": "no2",
    "nitrogenMonoxide": "no",
    "nitricOxide": "no",
    "nitrogenOxides": "nox",
    "ozone": "o3",
    "sulphurDioxide": "so2",
    "carbonMonoxide": "co",
}
"""Signals by pollutant; PM2.5 is an ``_extendedValue``, for version 3.7 has no name for it."""

MEANINGS: dict[str, Meaning] = {"beginTime": "begin", "middleTime": "middle", "endTime": "end"}


class _Reading(NamedTuple):
    signal: str
    node: NodeType
    holder: Element
    """The data value, which may be marked as faulty."""
    text: str | None
    unit: str


def readings_from_datex(body: bytes, channels: Mapping[str, Channel], most: int) -> Translated:
    """Raises :class:`MalformedBody` for what is no such publication."""
    try:
        root = fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise MalformedBody("the body has a DTD or entities, which are not read") from None
    except (ParseError, ValueError, LookupError) as error:
        raise MalformedBody(f"the body is no XML: {error}") from None
    publication = next((e for e in root.iter() if _kind(e) == "MeasuredDataPublication"), None)
    if publication is None:
        raise MalformedBody("the body holds no MeasuredDataPublication")
    rows = Rows(channels, most)
    sites = publication.findall("{*}siteMeasurements")
    for site in sites:
        _site(site, rows)
    if not sites:
        rows.ignored["publications without a value of a site"] += 1
    return rows.translated()


def _site(site: Element, rows: Rows) -> None:
    reference = site.find("{*}measurementSiteReference")
    place = "" if reference is None else reference.get("id", "")
    usual = site.find("{*}measurementTimeDefault")
    if site.find("{*}physicalQuantity/{*}physicalQuantity/{*}basicData") is None:
        rows.ignored["sites without a value that is read here"] += 1
    for indexed in site.iterfind("{*}physicalQuantity"):
        for basic in indexed.iterfind("{*}physicalQuantity/{*}basicData"):
            vehicles = basic.find("{*}forVehiclesWithCharacteristicsOf/{*}vehicleType")
            if vehicles is not None and vehicles.text != "anyVehicle":
                rows.ignored["values of single vehicle classes"] += 1
                continue
            time = basic.find("{*}measurementOrCalculationTime")
            for reading in _readings(basic, rows):
                source = f"{place[:80]}[{indexed.get('index', '')[:10]}]#{reading.signal}"
                channel = rows.channel(reading.signal, reading.node, place)
                if channel is None:
                    continue
                if (reading.holder.findtext("{*}dataError") or "").strip() in ("true", "1"):
                    rows.ignored["values that their sender marks as faulty"] += 1
                    continue
                rows.add(
                    channel, place, _time(usual if time is None else time, channel), _number(reading.text),
                    reading.unit, source,
                )  # fmt: skip


def _readings(basic: Element, rows: Rows) -> Iterator[_Reading]:
    kind = _kind(basic)
    if kind == "PollutionInformation":
        for pollution in basic.iterfind("{*}pollution"):
            pollutant, value = pollution.find("{*}pollutantType"), pollution.find("{*}pollutantConcentration")
            if pollutant is None or value is None:
                continue
            signal = POLLUTANTS.get(pollutant.get("_extendedValue") or (pollutant.text or "").strip())
            if signal is not None:
                yield _Reading(signal, "air", value, value.findtext("{*}microgramsConcentration"), "µg/m³")
    elif kind not in PATHS:
        rows.ignored[f"values of the kind {kind[:60]}"] += 1
    else:
        node, paths = PATHS[kind]
        for signal, path, unit in paths:
            *above, last = (f"{{*}}{part}" for part in path.split("/"))
            holder = basic.find("/".join(above))
            if holder is not None:
                yield _Reading(signal, node, holder, holder.findtext(last), unit)


def _time(given: Element | None, channel: Channel) -> str | None:
    """End of the interval, as text."""
    if given is None:
        return None
    end = given.findtext("{*}period/{*}endOfPeriod")
    if end is not None:
        return end.strip()
    meaning = MEANINGS.get((given.findtext("{*}timeMeaning") or "endTime").strip())
    value = given.findtext("{*}timeValue")
    if meaning is None or value is None:
        return None
    ended = end_of(value.strip(), meaning, channel.ticks.step)
    return str(ended)


def _number(text: str | None) -> float | str | None:
    """A value, or its text where it is none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _kind(element: Element) -> str:
    """The local name of ``xsi:type``."""
    return element.get(TYPE, "").rpartition(":")[2]
