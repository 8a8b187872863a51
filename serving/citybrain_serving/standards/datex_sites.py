"""DATEX II's table of measurement sites, read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from citybrain_serving.lanes.sites import Entry, Position, Site

VERSION_LENGTH = 100


def sites_of(root: Element) -> dict[str, Site]:
    """The sites that a document describes, by id; of one that stands twice the last."""
    return {element.get("id", ""): _site(element) for element in root.iterfind(".//{*}measurementSite")}


def position_of(lanes: Sequence[Element]) -> Position:
    """Where a quantity is measured whose lanes are named so."""
    names = [(lane.findtext("{*}laneNumber") or lane.findtext("{*}laneUsage") or "").strip() for lane in lanes]
    usages = {lane.findtext("{*}laneUsage", "").strip() for lane in lanes}
    return Position(tuple(names), "allLanesCompleteCarriageway" in usages)


def of_single_class(parent: Element | None, path: str) -> bool:
    """Whether a value is of some of the vehicles: of any characteristic but a vehicle of any type."""
    vehicles = None if parent is None else parent.find(f"{{*}}{path}")
    return vehicles is not None and any((part.text or "").strip() != "anyVehicle" for part in vehicles)


def _site(element: Element) -> Site:
    lanes = element.findtext("{*}measurementSiteNumberOfLanes", "").strip()
    entries = {}
    for indexed in element.iterfind("{*}measurementSpecificCharacteristics"):
        position = position_of(indexed.findall("{*}measurementSpecificCharacteristics/{*}specificLane"))
        narrowed = "measurementSpecificCharacteristics/{*}specificVehicleCharacteristics"
        entries[indexed.get("index", "")] = Entry(position, of_single_class(indexed, narrowed))
    known = int(lanes) if lanes.isdecimal() and len(lanes) < 3 else None
    return Site(version_of(element), known, entries)


def version_of(element: Element) -> str:
    """Of a site, or of a reference to one."""
    return element.get("version", "").strip()[:VERSION_LENGTH]
