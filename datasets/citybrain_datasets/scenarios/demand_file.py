"""A SUMO file of trips, vehicles with routes, or flows, read as trips."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from citybrain_datasets.errors import CityError, Problem

_TYPES = {
    "passenger": "car", "private": "car", "taxi": "car", "hov": "car", "custom1": "diesel_car",
    "evehicle": "electric_car", "delivery": "van", "truck": "truck", "trailer": "truck",
}  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """A vType: the vehicle type it stands for, or None and why a vehicle of it cannot be taken."""

    type: str | None
    refused: str = ""


def read_demand(path: Path, known: set[str]) -> pd.DataFrame:
    """Trips of a SUMO demand file: ``depart`` (s), ``origin``, ``destination``, ``type``, ``purpose``, sorted.

    Of a route its two ends are kept: drivers find their way by themselves, as measures may have them find another. The
    type follows from the vType's SUMO class, which matters only where a vehicle is of it; the purpose is empty. What is
    left to chance, by a flow or a vTypeDistribution, is drawn by the element's id, the same each time. ``known`` are
    the segments of the network. Raises :class:`CityError` naming the element and the attribute that cannot be used.
    """
    kinds = {"": _Kind("car"), "DEFAULT_VEHTYPE": _Kind("car")}
    mixes: dict[str, dict[str, float]] = {}
    routes: dict[str, str] = {}
    rows: list[tuple[float, str, str, str]] = []
    for element in _elements(path):
        where = f"{path}, {element.tag} {element.get('id', '')}".rstrip()
        if element.tag == "vType":
            kinds[element.get("id", "")] = _kind(element)
        elif element.tag == "vTypeDistribution":
            mixes[element.get("id", "")] = _mix(element, where)
        elif element.tag == "route" and element.get("id"):
            routes[element.get("id", "")] = element.get("edges", "")
        elif element.tag in ("trip", "vehicle", "flow"):
            origin, destination = _ends(element, routes, where)
            for edge in (origin, destination):
                if edge not in known:
                    raise CityError([Problem(where, f"{edge!r} is no road of the network")])
            departures = _departures(element, where)
            types = _types(element, len(departures), mixes, kinds, where)
            rows += [(depart, origin, destination, kind) for depart, kind in zip(departures, types, strict=True)]
    if not rows:
        raise CityError([Problem(str(path), "holds no trip, vehicle or flow")])
    table = pd.DataFrame(rows, columns=["depart", "origin", "destination", "type"])
    return table.assign(purpose="").sort_values("depart", kind="stable", ignore_index=True)


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


def _kind(element: ElementTree.Element) -> _Kind:
    vclass = element.get("vClass", "passenger")
    if vclass not in _TYPES:
        return _Kind(None, f"its vClass {vclass!r} is none of {', '.join(_TYPES)}")
    diesel = "PC_D" in element.get("emissionClass", "") and _TYPES[vclass] == "car"
    return _Kind("diesel_car" if diesel else _TYPES[vclass])


def _mix(element: ElementTree.Element, where: str) -> dict[str, float]:
    """Names of the vTypes of a distribution, each with its share of 1."""
    names, given = element.get("vTypes", "").split(), element.get("probabilities", "").split()
    if not names:
        kinds = element.findall("vType")
        names, given = [k.get("id", "") for k in kinds], [k.get("probability", "1") for k in kinds]
    weights = [_number(text, where, "probability") for text in given or ["1"] * len(names)]
    if len(weights) != len(names) or not sum(weights):
        raise CityError([Problem(where, "has no vTypes, or not a probability for each")])
    return {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True) if weight}


def _types(
    element: ElementTree.Element, count: int, mixes: dict[str, dict[str, float]], kinds: dict[str, _Kind], where: str
) -> list[str]:
    """The types of an element's vehicles, drawn where it names a distribution."""
    name = element.get("type", "")
    if name not in mixes:
        return [_type(name, kinds, where)] * count
    types = [_type(member, kinds, where) for member in mixes[name]]
    drawn: list[str] = _chance(element, 31).choice(types, count, p=list(mixes[name].values())).tolist()
    return drawn


def _type(name: str, kinds: dict[str, _Kind], where: str) -> str:
    if name not in kinds:
        raise CityError([Problem(where, f"the type {name!r} is not defined above")])
    kind = kinds[name]
    if kind.type is None:
        raise CityError([Problem(where, f"cannot be of the type {name!r}: {kind.refused}", column="type")])
    return kind.type


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
    period = element.get("period", "")
    if element.get("number"):
        count = int(_number(element.get("number"), where, "number"))
    elif rate:
        count = round(_number(rate, where, "vehsPerHour") * (end - begin) / 3600)
    elif period.startswith("exp(") and period.endswith(")"):
        return _poisson(begin, end, _number(period[4:-1], where, "period"), _chance(element))
    elif period:
        count = int((end - begin) / _positive(period, where, "period"))
    elif element.get("probability"):
        return _by_the_second(begin, end, _number(element.get("probability"), where, "probability"), _chance(element))
    else:
        raise CityError([Problem(where, "needs number, vehsPerHour, period or probability")])
    return [begin + (end - begin) * i / count for i in range(count)]


def _chance(element: ElementTree.Element, what: int = 29) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(element.get("id", "").encode()), what])


def _poisson(begin: float, end: float, rate: float, chance: np.random.Generator) -> list[float]:
    """``rate`` vehicles a second, their gaps exponential: so many as a Poisson draw says, each at any moment."""
    count = int(chance.poisson(rate * max(end - begin, 0)))
    found: list[float] = np.sort(chance.uniform(begin, end, count)).tolist()
    return found


def _by_the_second(begin: float, end: float, probability: float, chance: np.random.Generator) -> list[float]:
    """A vehicle in each second with ``probability``."""
    seconds = np.arange(begin, end)
    found: list[float] = seconds[chance.random(len(seconds)) < probability].tolist()
    return found


def _seconds(element: ElementTree.Element, name: str, where: str) -> float:
    text = element.get(name)
    if text and text.count(":") == 2:
        hours, minutes, seconds = (_number(part, where, name) for part in text.split(":"))
        return hours * 3600 + minutes * 60 + seconds
    return _number(text, where, name)


def _positive(text: str, where: str, column: str) -> float:
    value = _number(text, where, column)
    if not value:
        raise CityError([Problem(where, f"{text!r} must be above 0", column=column)])
    return value


def _number(text: str | None, where: str, column: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or value < 0:
        raise CityError([Problem(where, f"{text!r} is no time or number", column=column)])
    return value
