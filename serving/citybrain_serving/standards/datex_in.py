"""DATEX II v3 in: ``MeasuredDataPublication``.

A measurement site is the node that has its id. Values of single vehicle classes, and those that their sender marks
as faulty, are left out and counted; a publication is read as data and never as a programme: no DTD, no entities,
nothing fetched.

The ``index`` of a quantity is a number in the site table, which says what is measured there: a lane, a vehicle class,
another method. It is looked up where the table comes in the same body; the ``pertinentLocation`` of a quantity may name
its lane, too. Indexes that nothing explains are taken for lanes where the road is known to have as many and they differ
in nothing else; else a quantity of several such is refused as partial.
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
from citybrain_serving.lanes.combining import Lane, LaneCount, seconds_of
from citybrain_serving.standards.translation import Meaning, Rows, Translated, end_of, no_count

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


class _Measured(NamedTuple):
    """``number`` is the index; ``method`` how it was measured, as far as that is said."""

    number: str
    channel: Channel
    time: str | None
    reading: _Reading
    method: tuple[str | None, ...]
    source: str
    faulty: bool


_Table = Mapping[tuple[str, str], Element]
"""What is measured at a site under an index."""


def readings_from_datex(
    body: bytes, channels: Mapping[str, Channel], most: int, count: LaneCount = no_count
) -> Translated:
    """Raises :class:`MalformedBody` for what is no such publication."""
    try:
        root = fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise MalformedBody("the body has a DTD or entities, which are not read") from None
    except (ParseError, ValueError, LookupError) as error:
        raise MalformedBody(f"the body is no XML: {error}") from None
    publications = [element for element in root.iter() if _kind(element) == "MeasuredDataPublication"]
    if not publications:
        raise MalformedBody("the body holds no MeasuredDataPublication")
    sites = {site.get("id", ""): site for site in root.iterfind(".//{*}measurementSite")}
    table = {
        (place, entry.get("index", "")): entry
        for place, site in sites.items()
        for entry in site.iterfind("{*}measurementSpecificCharacteristics")
    }
    rows = Rows(channels, most, _lane_count(sites, count))
    for publication in publications:
        measured = publication.findall("{*}siteMeasurements")
        for site in measured:
            _site(site, table, rows)
        if not measured:
            rows.ignored["publications without a value of a site"] += 1
    return rows.translated()


def _lane_count(sites: Mapping[str, Element], count: LaneCount) -> LaneCount:
    """What the city or the site table knows; where both do, the larger number."""

    def known(place: str) -> int | None:
        told = "" if place not in sites else sites[place].findtext("{*}measurementSiteNumberOfLanes", "").strip()
        return max(count(place) or 0, int(told) if told.isdecimal() and len(told) < 3 else 0) or None

    return known


def _site(site: Element, table: _Table, rows: Rows) -> None:
    reference = site.find("{*}measurementSiteReference")
    place = "" if reference is None else reference.get("id", "")
    usual = site.find("{*}measurementTimeDefault")
    if site.find("{*}physicalQuantity") is None:
        rows.ignored["sites without a value that is read here"] += 1
    unexplained: dict[tuple[str, int | None], list[_Measured]] = {}
    for indexed in site.iterfind("{*}physicalQuantity"):
        entry = table.get((place, indexed.get("index", "")))
        if indexed.find("{*}physicalQuantity/{*}basicData") is None:
            rows.ignored["quantities without a value"] += 1
        for quantity in indexed.iterfind("{*}physicalQuantity"):
            explained, lane = _lane(quantity, entry, rows.lanes.count(place))
            for one in _measured(indexed, quantity, entry, usual, place, lane, rows):
                if explained or one.reading.node != "road":
                    _add(one, place, lane, rows)
                else:
                    unexplained.setdefault((one.reading.signal, seconds_of(one.time)), []).append(one)
    for told in unexplained.values():
        _unexplained(told, place, rows)


def _measured(
    indexed: Element, quantity: Element, entry: Element | None, usual: Element | None, place: str, lane: Lane | None,
    rows: Rows,
) -> Iterator[_Measured]:  # fmt: skip
    """Values of all vehicles that the city measures; of a lane's flow at least what its speed weighs."""
    number, broken = indexed.get("index", ""), quantity.find("{*}physicalQuantityFault") is not None
    if _true(quantity.find("{*}forecast")):
        rows.ignored["values that are forecasts"] += 1
        return
    narrowed = _single_class(entry, "measurementSpecificCharacteristics/{*}specificVehicleCharacteristics")
    for basic in quantity.iterfind("{*}basicData"):
        if narrowed or _single_class(basic, "forVehiclesWithCharacteristicsOf"):
            rows.ignored["values of single vehicle classes"] += 1
            continue
        own = basic.find("{*}measurementOrCalculationTime")
        given = usual if own is None else own
        for reading in _readings(basic, rows):
            channel = rows.channel(reading.signal, reading.node, place)
            clock = rows.channels.get("speed") if channel is None else channel
            time = None if clock is None else _time(given, clock)
            if reading.signal == "flow" and lane is not None:
                rows.lanes.weigh(place, time, _number(reading.text), lane)
            if channel is not None:
                source = f"{place[:80]}[{number[:10]}]#{reading.signal}"
                faulty = broken or _faulty(reading)
                yield _Measured(number, channel, time, reading, _method(reading.holder, given), source, faulty)


def _add(one: _Measured, place: str, lane: Lane | None, rows: Rows) -> None:
    reading = one.reading
    if not one.faulty:
        rows.add(one.channel, place, one.time, _number(reading.text), reading.unit, one.source, lane)
        return
    rows.ignored["values that their sender marks as faulty"] += 1
    if lane is not None:
        rows.lanes.named(one.channel, place, one.time, lane)


def _unexplained(told: list[_Measured], place: str, rows: Rows) -> None:
    """Values of one quantity of a road at one time, of which nothing says what their index means."""
    count = len({one.number for one in told})
    lanes = count == rows.lanes.count(place) and len({one.method for one in told}) == 1
    for one in told:
        signal, value = one.reading.signal, _number(one.reading.text)
        if count == 1:
            _add(one, place, None, rows)
        elif lanes:
            _add(one, place, Lane(f"[{one.number[:10]}]"), rows)
        elif one.faulty or not isinstance(value, float):
            _add(one, place, None, rows)
        else:
            why = f"nothing says what the {count} indexes with {signal} of {place[:80]!r} mean"
            rows.partial(one.channel, place, one.time, value, one.source, why)


def _lane(quantity: Element, entry: Element | None, count: int | None) -> tuple[bool, Lane | None]:
    """Whether anything says where on the road a quantity is measured, and the lane if it is on one."""
    carriageways = "{*}pertinentLocation//{*}supplementaryPositionalDescription/{*}carriageway/{*}lane"
    lanes = quantity.findall(carriageways)
    if not lanes and entry is not None:
        lanes = entry.findall("{*}measurementSpecificCharacteristics/{*}specificLane")
    names = [(lane.findtext("{*}laneNumber") or lane.findtext("{*}laneUsage") or "").strip() for lane in lanes]
    if not names:
        return entry is not None, None
    usages = {lane.findtext("{*}laneUsage", "").strip() for lane in lanes}
    if "allLanesCompleteCarriageway" in usages or (len(names) > 1 and len(names) == count):
        return True, None
    return True, Lane.called(", ".join(names))


def _single_class(parent: Element | None, path: str) -> bool:
    """Whether a value is of some of the vehicles: of any characteristic but a vehicle of any type."""
    vehicles = None if parent is None else parent.find(f"{{*}}{path}")
    return vehicles is not None and any((part.text or "").strip() != "anyVehicle" for part in vehicles)


def _method(holder: Element, time: Element | None) -> tuple[str | None, ...]:
    start = None if time is None else time.findtext("{*}period/{*}startOfPeriod")
    return holder.get("computationalMethod"), holder.get("smoothingFactor"), start


def _faulty(reading: _Reading) -> bool:
    """Whether it is marked so, or a mean of nothing: without vehicles there is a flow of zero, and no speed."""
    nothing = reading.signal != "flow" and reading.holder.get("numberOfInputValuesUsed", "").strip() == "0"
    return nothing or _true(reading.holder.find("{*}dataError"))


def _true(flag: Element | None) -> bool:
    return flag is not None and (flag.text or "").strip() in ("true", "1")


def _readings(basic: Element, rows: Rows) -> Iterator[_Reading]:
    kind = _kind(basic)
    if kind not in (*PATHS, "PollutionInformation"):
        rows.ignored[f"values of the kind {kind[:60]}"] += 1
        return
    found = list(_pollution(basic, rows) if kind == "PollutionInformation" else _quantities(basic, kind))
    if not found and basic.find("{*}pollution") is None:
        rows.ignored[f"values of the kind {kind} without what is read here"] += 1
    yield from found


def _quantities(basic: Element, kind: str) -> Iterator[_Reading]:
    node, paths = PATHS[kind]
    for signal, path, unit in paths:
        *above, last = (f"{{*}}{part}" for part in path.split("/"))
        holder = basic.find("/".join(above))
        if holder is not None:
            yield _Reading(signal, node, holder, holder.findtext(last), unit)
        elif signal == "precipitation" and _dry(basic):
            yield _Reading(signal, node, basic, "0", unit)


def _dry(basic: Element) -> bool:
    """Whether it says that nothing falls, which is a precipitation of zero."""
    kind = basic.findtext("{*}precipitationDetail/{*}precipitationType", "").strip()
    return _true(basic.find("{*}noPrecipitation")) or kind == "noPrecipitation"


def _pollution(basic: Element, rows: Rows) -> Iterator[_Reading]:
    for pollution in basic.iterfind("{*}pollution"):
        kind, value = pollution.find("{*}pollutantType"), pollution.find("{*}pollutantConcentration")
        pollutant = "" if kind is None else kind.get("_extendedValue") or (kind.text or "").strip()
        signal = POLLUTANTS.get(pollutant)
        if signal is None or value is None:
            rows.ignored[f"values of the pollutant {pollutant[:60]}"] += 1
        else:
            yield _Reading(signal, "air", value, value.findtext("{*}microgramsConcentration"), "µg/m³")


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
