"""A place that the user brings: a SUMO network and a file of trips, routes or flows."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from citybrain_datasets import geo
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.site import WARM_UP_S, Site, cut
from citybrain_datasets.simulation.network import read_connections, read_segments
from citybrain_datasets.simulation.projection import to_degrees, to_metres

_TYPES = {
    "passenger": "car", "private": "car", "taxi": "car", "hov": "car", "custom1": "diesel_car",
    "evehicle": "electric_car", "delivery": "van", "truck": "truck", "trailer": "truck",
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """Demand that was given: replication 0 as it is, each further one a draw of as many trips with replacement."""

    trips: pd.DataFrame

    def __call__(self, replication: int, window: Window) -> pd.DataFrame:
        chosen = self.trips
        if replication:
            rows = np.random.default_rng([replication, 23]).integers(0, len(chosen), len(chosen))
            chosen = chosen.iloc[np.sort(rows)]
        return cut(chosen, window.begin * 60 - WARM_UP_S, window)


def open_network(network: Path, demand: Path, timezone: str = "UTC") -> Site:
    """A site on the user's ``.net.xml`` (or ``.net.xml.gz``) with the vehicles of ``demand``.

    ``demand`` holds ``trip``, ``vehicle`` and ``flow`` elements with from and to, or a route; departures count from
    midnight. A network without geographic projection is laid around 0° N 0° E.

    Raises :class:`CityError` naming the file, the element and the attribute that cannot be used.
    """
    segments = read_segments(network)
    latitude, longitude, segments = _placed(network, segments)
    x, y = ((segments[f"{a}0"] + segments[f"{a}1"]).to_numpy() / 2 for a in "xy")
    lat, lon = to_degrees(x, y, latitude, longitude)
    roads = pd.DataFrame(
        {
            "lat": lat, "lon": lon, "name": segments["name"], "name_zh": "", "owner": "",
            "cell": [geo.cell(a, b) for a, b in zip(lat, lon, strict=True)],
            "road_class": segments["road_class"], "length_m": segments["length_m"],
            "lanes": segments["lanes"].astype(float), "free_speed_kmh": segments["free_speed_kmh"],
        },
        index=segments.index,
    )  # fmt: skip
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in network.name.partition(".")[0])
    edges = {"road-road": read_connections(network, segments)}
    city = City(name=name, timezone=timezone, nodes={"road": roads}, edges=edges)
    trips = read_demand(demand, set(segments.index.astype(str)))

    key = hashlib.sha256(network.read_bytes() + demand.read_bytes()).hexdigest()[:16]
    return Site(city, network.absolute(), segments, Given(trips), key, latitude=latitude, longitude=longitude)


def read_demand(path: Path, known: set[str]) -> pd.DataFrame:
    """Trips of a SUMO demand file: ``depart`` (s), ``origin``, ``destination``, ``type``, ``purpose``, sorted.

    The type follows from the vType's SUMO class; the purpose is empty. ``known`` are the edges of the network.
    """
    kinds: dict[str, str] = {"": "car", "DEFAULT_VEHTYPE": "car"}
    routes: dict[str, str] = {}
    rows: list[tuple[float, str, str, str]] = []
    for element in _elements(path):
        where = f"{path}, {element.tag} {element.get('id', '')}".rstrip()
        if element.tag == "vType":
            kinds[element.get("id", "")] = _kind(element, where)
        elif element.tag == "route" and element.get("id"):
            routes[element.get("id", "")] = element.get("edges", "")
        elif element.tag in ("trip", "vehicle", "flow"):
            origin, destination = _ends(element, routes, where)
            for edge in (origin, destination):
                if edge not in known:
                    raise CityError([Problem(where, f"{edge!r} is no edge of the network")])
            name = element.get("type", "")
            if name not in kinds:
                raise CityError([Problem(where, f"the type {name!r} is not defined above")])
            rows += [(depart, origin, destination, kinds[name]) for depart in _departures(element, where)]
    if not rows:
        raise CityError([Problem(str(path), "holds no trip, vehicle or flow")])
    table = pd.DataFrame(rows, columns=["depart", "origin", "destination", "type"])
    return table.assign(purpose="").sort_values("depart", kind="stable", ignore_index=True)


def _placed(network: Path, segments: pd.DataFrame) -> tuple[float, float, pd.DataFrame]:
    """Centre of the network, and its segments with ends in metres around it."""
    import sumolib

    net = sumolib.net.readNet(str(network))
    if not net.hasGeoProj():
        return 0.0, 0.0, segments
    ends = {f"{a}{i}": segments[f"{a}{i}"].to_numpy() for a in "xy" for i in "01"}
    degrees = {
        i: np.array([net.convertXY2LonLat(x, y) for x, y in zip(ends[f"x{i}"], ends[f"y{i}"], strict=True)])
        for i in "01"
    }
    longitude, latitude = (np.vstack(list(degrees.values())).mean(axis=0)).tolist()
    changed = {}
    for i, at in degrees.items():
        changed[f"x{i}"], changed[f"y{i}"] = to_metres(at[:, 1], at[:, 0], latitude, longitude)
    return latitude, longitude, segments.assign(**changed)


def _elements(path: Path) -> Iterator[ElementTree.Element]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            for _, element in ElementTree.iterparse(file, events=("end",)):
                yield element
                if element.tag in ("trip", "vehicle", "flow"):
                    element.clear()
    except (OSError, ElementTree.ParseError, EOFError) as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error


def _kind(element: ElementTree.Element, where: str) -> str:
    vclass = element.get("vClass", "passenger")
    if vclass not in _TYPES:
        raise CityError([Problem(where, f"vClass {vclass!r} is none of {', '.join(_TYPES)}", column="vClass")])
    diesel = "PC_D" in element.get("emissionClass", "") and _TYPES[vclass] == "car"
    return "diesel_car" if diesel else _TYPES[vclass]


def _ends(element: ElementTree.Element, routes: dict[str, str], where: str) -> tuple[str, str]:
    inner = element.find("route")
    edges = inner.get("edges", "") if inner is not None else routes.get(element.get("route", ""), "")
    if edges.split():
        return edges.split()[0], edges.split()[-1]
    origin, destination = element.get("from"), element.get("to")
    if not origin or not destination:
        raise CityError([Problem(where, "has neither from and to nor a known route")])
    return origin, destination


def _departures(element: ElementTree.Element, where: str) -> list[float]:
    if element.tag != "flow":
        return [_seconds(element, "depart", where)]
    begin, end = _seconds(element, "begin", where), _seconds(element, "end", where)
    rate = element.get("vehsPerHour") or element.get("vehPerHour")
    if element.get("number"):
        count = int(_number(element.get("number"), where, "number"))
    elif rate:
        count = round(_number(rate, where, "vehsPerHour") * (end - begin) / 3600)
    elif element.get("period"):
        count = int((end - begin) / _number(element.get("period"), where, "period"))
    else:
        raise CityError([Problem(where, "needs number, vehsPerHour or period")])
    return [begin + (end - begin) * i / count for i in range(count)]


def _seconds(element: ElementTree.Element, name: str, where: str) -> float:
    text = element.get(name)
    if text and text.count(":") == 2:
        hours, minutes, seconds = (_number(part, where, name) for part in text.split(":"))
        return hours * 3600 + minutes * 60 + seconds
    return _number(text, where, name)


def _number(text: str | None, where: str, column: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or value < 0:
        raise CityError([Problem(where, f"{text!r} is no time or number", column=column)])
    return value
