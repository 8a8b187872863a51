"""Where people live and which streets belong together: the :class:`Place` of a city, and its receptors."""

from __future__ import annotations

import re
from dataclasses import dataclass

import h3
import numpy as np
import pandas as pd

from citybrain_datasets import geo
from citybrain_datasets.city import City
from citybrain_datasets.scenarios.actions import STEP_MINUTES
from citybrain_datasets.scenarios.outcomes import Place
from citybrain_datasets.scenarios.resolve import districts

_SERIAL = re.compile(r"^(?P<street>.*?)\s+\d+(?P<rest>,.*)?$")


@dataclass(frozen=True)
class Receptors:
    """Points at which the air is computed, the stations first and then the middles of the grid cells with roads.

    ``lat`` and ``lon`` are ``[receptor]``; ``ids`` names them; the first ``stations`` of them are stations.
    """

    ids: tuple[str, ...]
    lat: np.ndarray
    lon: np.ndarray
    stations: int


def corridors(city: City) -> tuple[np.ndarray, tuple[str, ...]]:
    """The corridor of each road of ``city``, int ``[segment]``, and the corridors' names.

    A corridor is a street in one direction. A simulated city numbers the segments of a street, and the number is left
    out; elsewhere a number is a part of the name (Calle 13, Highway 101). Roads without a name are one corridor per
    owner and class.
    """
    roads = city.nodes["road"]
    kind = roads.get("road_class", pd.Series("", index=roads.index)).astype(str)
    label = []
    for name, owner, road_class in zip(roads["name"].astype(str), roads["owner"].astype(str), kind, strict=True):
        found = _SERIAL.match(name) if city.synthetic else None
        street = f"{found['street']}{found['rest'] or ''}" if found else name
        label.append(street or f"{owner} {road_class}".strip() or "unnamed")
    names, member = np.unique(np.array(label, dtype=object).astype(str), return_inverse=True)
    return member, tuple(map(str, names))


def receptors(city: City) -> Receptors:
    """Stations and cells of ``city`` that have a place; cells are those in which a road lies."""
    air = city.nodes.get("air")
    placed = air[air["lat"].notna()] if air is not None else pd.DataFrame(columns=["lat", "lon"])
    cells = sorted({c for c in city.nodes["road"]["cell"].astype(str) if c})
    middles = np.array([h3.cell_to_latlng(c) for c in cells]).reshape(-1, 2)
    return Receptors(
        ids=(*map(str, placed.index), *cells),
        lat=np.r_[placed["lat"].to_numpy(float), middles[:, 0]],
        lon=np.r_[placed["lon"].to_numpy(float), middles[:, 1]],
        stations=len(placed),
    )


def place_of(city: City) -> Place:
    """What outcomes need to know of ``city``.

    People live along the streets: each station's ``population`` is spread over the cells nearest to it by the length
    of their roads, motorways apart. A city that publishes no population counts every metre of road alike.
    """
    roads, points = city.nodes["road"], receptors(city)
    member, names = corridors(city)
    cells = points.ids[points.stations :]
    position = {c: i for i, c in enumerate(cells)}
    cell = np.array([position.get(c, -1) for c in roads["cell"].astype(str)])
    town = roads["length_m"].to_numpy(float)
    if "road_class" in roads:
        town = np.where(roads["road_class"] == "motorway", 0.0, town)
    known = cell >= 0
    metres = np.bincount(cell[known], town[known], len(cells)).astype(float)
    if not metres.any():
        metres = np.ones(len(cells))
    owners = districts(roads)
    parts = sorted(set(owners[known])) or [""]
    by_district = np.zeros((len(cells), len(parts)))
    np.add.at(by_district, (cell[known], np.searchsorted(parts, owners[known])), roads["length_m"].to_numpy()[known])
    return Place(
        segments=tuple(city.ids("road")),
        length_m=roads["length_m"].to_numpy(float),
        free_speed_kmh=roads["free_speed_kmh"].to_numpy(float),
        corridor=member,
        corridors=names,
        stations=points.ids[: points.stations],
        cells=cells,
        population=_people(city, points, metres),
        district=by_district.argmax(axis=1),
        districts=tuple(parts),
        slot_seconds=STEP_MINUTES * 60,
    )


def _people(city: City, points: Receptors, metres: np.ndarray) -> np.ndarray:
    air = city.nodes.get("air")
    if air is None or "population" not in air or not points.stations:
        return metres
    lived = air.loc[list(points.ids[: points.stations]), "population"].fillna(0).to_numpy(float)
    first = points.stations
    near, _ = geo.nearest(points.lat[first:], points.lon[first:], points.lat[:first], points.lon[:first], 1)
    nearest = near[:, 0]
    total = np.bincount(nearest, metres, first)
    people = np.divide(lived, total, out=np.zeros(first), where=total > 0)[nearest] * metres
    return people if people.any() else metres
