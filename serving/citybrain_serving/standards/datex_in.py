"""DATEX II v3 in: ``MeasuredDataPublication``.

A measurement site is the node that has its id. Values of single vehicle classes, and those that their sender marks
as faulty, are left out and counted; a publication is read as data and never as a programme: no DTD, no entities,
nothing fetched.

The ``index`` of a quantity is a number in the site table, which says what is measured there: a lane, a vehicle class,
another method. It is looked up in the table that comes in the same body, or that came before
(:mod:`citybrain_serving.lanes.sites`); the ``pertinentLocation`` of a quantity may name its lane, too. Indexes that
nothing explains are taken for lanes where the road is known to have as many and they differ in nothing else; else a
quantity of several such is refused as partial.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from citybrain_datasets.signals import NodeType
from citybrain_serving.errors import MalformedBody
from citybrain_serving.fleet import Channel
from citybrain_serving.lanes.combining import Lane, LaneCount, seconds_of
from citybrain_serving.lanes.sites import Entry, Site
from citybrain_serving.standards.datex_sites import of_single_class, position_of, sites_of, version_of
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

TABLE = "MeasurementSiteTablePublication"

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


Remembered = Callable[[Collection[str]], Mapping[str, Site]]
"""What came before of the table of sites, for those that are named."""


def nothing_came(_places: Collection[str]) -> Mapping[str, Site]:
    """What is remembered where nothing is."""
    return {}


def readings_from_datex(
    body: bytes,
    channels: Mapping[str, Channel],
    most: int,
    count: LaneCount = no_count,
    remembered: Remembered = nothing_came,
) -> Translated:
    """Raises :class:`MalformedBody` for what is no such publication, nor a table of sites."""
    try:
        root = fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise MalformedBody("the body has a DTD or entities, which are not read") from None
    except (ParseError, ValueError, LookupError) as error:
        raise MalformedBody(f"the body is no XML: {error}") from None
    publications = [element for element in root.iter() if _kind(element) == "MeasuredDataPublication"]
    told = sites_of(root)
    if not publications and not any(_kind(element) == TABLE for element in root.iter()):
        raise MalformedBody("the body holds no MeasuredDataPublication and no MeasurementSiteTablePublication")
    measured = [publication.findall("{*}siteMeasurements") for publication in publications]
    named = {_named(site) for found in measured for site in found}
    sites = {**_of_version(remembered({place for place, _ in named if place not in told}), named), **told}
    rows = Rows(channels, most, _lane_count(sites, count))
    for found in measured:
        for site in found:
            place, _ = _named(site)
            _site(site, place, sites[place].entries if place in sites else {}, rows)
        if not found:
            rows.ignored["publications without a value of a site"] += 1
    return replace(rows.translated(), sites=told)


def _named(site: Element) -> tuple[str, str]:
    """Id and version of the site that values are of."""
    reference = site.find("{*}measurementSiteReference")
    return ("", "") if reference is None else (reference.get("id", ""), version_of(reference))


def _of_version(remembered: Mapping[str, Site], named: Collection[tuple[str, str]]) -> dict[str, Site]:
    """Sites of which no values name another version than the one that came."""
    other = {place for place, version in named if place in remembered and version != remembered[place].version}
    return {place: site for place, site in remembered.items() if place not in other}


EDGES = ("start", "end")
"""Of a period."""


def _lane_count(sites: Mapping[str, Site], count: LaneCount) -> LaneCount:
    """What the city or the site table knows; where both do, the larger number."""

    def known(place: str) -> int | None:
        told = sites[place].lanes if place in sites else None
        return max(count(place) or 0, told or 0) or None

    return known


def _site(site: Element, place: str, entries: Mapping[str, Entry], rows: Rows) -> None:
    usual = site.find("{*}measurementTimeDefault")
    if site.find("{*}physicalQuantity") is None:
        rows.ignored["sites without a value that is read here"] += 1
    unexplained: dict[tuple[str, int | None], list[_Measured]] = {}
    for indexed in site.iterfind("{*}physicalQuantity"):
        entry = entries.get(indexed.get("index", ""))
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
    indexed: Element, quantity: Element, entry: Entry | None, usual: Element | None, place: str, lane: Lane | None,
    rows: Rows,
) -> Iterator[_Measured]:  # fmt: skip
    """Values of all vehicles that the city measures; of a lane's flow at least what its speed weighs."""
    number, broken = indexed.get("index", ""), quantity.find("{*}physicalQuantityFault") is not None
    if _true(quantity.find("{*}forecast")):
        rows.ignored["values that are forecasts"] += 1
        return
    narrowed = entry is not None and entry.single_class
    for basic in quantity.iterfind("{*}basicData"):
        if narrowed or of_single_class(basic, "forVehiclesWithCharacteristicsOf"):
            rows.ignored["values of single vehicle classes"] += 1
            continue
        own = basic.find("{*}measurementOrCalculationTime")
        given = usual if own is None else own
        for reading in _readings(basic, rows):
            channel = rows.channel(reading.signal, reading.node, place)
            clock = rows.channels.get("speed") if channel is None else channel
            if clock is not None and rows.too_long(clock, _seconds(given)):
                continue
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


def _lane(quantity: Element, entry: Entry | None, count: int | None) -> tuple[bool, Lane | None]:
    """Whether anything says where on the road a quantity is measured, and the lane if it is on one."""
    carriageways = "{*}pertinentLocation//{*}supplementaryPositionalDescription/{*}carriageway/{*}lane"
    position = position_of(quantity.findall(carriageways))
    if not position.lanes and entry is not None:
        position = entry.position
    if not position.lanes:
        return entry is not None, None
    if position.complete or (len(position.lanes) > 1 and len(position.lanes) == count):
        return True, None
    return True, Lane.called(", ".join(position.lanes))


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


def _seconds(given: Element | None) -> float | None:
    """Length of the interval; None where it is not said."""
    start, end = ("" if given is None else given.findtext(f"{{*}}period/{{*}}{edge}OfPeriod", "") for edge in EDGES)
    try:
        return (datetime.fromisoformat(end.strip()) - datetime.fromisoformat(start.strip())).total_seconds()
    except (TypeError, ValueError):  # one with an offset and one without among them
        return None


def _number(text: str | None) -> float | str | None:
    """A value, or its text where it is none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _kind(element: Element) -> str:
    """The local name of ``xsi:type``."""
    return element.get(TYPE, "").rpartition(":")[2]
