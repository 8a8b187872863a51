"""From a place in words to segments of a city."""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.scenarios.places import Where

_COLUMNS = {"segments": None, "road_class": "road_class", "cell": "cell", "owner": "owner", "district": "district"}


def resolve(where: Where, city: City, field: str = "where") -> np.ndarray:
    """Which segments ``where`` means, bool ``[segment]`` in node order.

    Raises :class:`CityError` naming, at ``field``, each id, class, cell or owner that the city does not have, and a
    place that holds no segment at all.
    """
    roads = city.nodes["road"]
    chosen = np.ones(len(roads), bool)
    problems = []
    for selector, column in _COLUMNS.items():
        names = getattr(where, selector)
        if names is None:
            continue
        values = _values(roads, column)
        if values is None:
            problems.append(Problem(f"{field}.{selector}", f"city {city.name} knows no {selector} of its roads"))
            continue
        unknown = sorted(set(names) - set(values))
        problems += [Problem(f"{field}.{selector}", f"{n!r} is not in city {city.name}") for n in unknown]
        chosen &= np.isin(values, names)
    if where.polygon is not None:
        lon, lat = roads["lon"].to_numpy(float), roads["lat"].to_numpy(float)
        chosen &= inside(lon, lat, np.array(where.polygon, float))
    if not problems and not chosen.any():
        problems.append(Problem(field, f"no road of city {city.name} lies there"))
    if problems:
        raise CityError(problems)
    return chosen


def districts(roads: pd.DataFrame) -> np.ndarray:
    """The district of each road; of its owner, where the table has no ``district``."""
    return roads["district" if "district" in roads else "owner"].astype(str).to_numpy()


def inside(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which points lie in the polygon of ``corners`` ``[corner, 2]``, by the even–odd rule; NaN lies nowhere."""
    ax, ay = corners[:, 0], corners[:, 1]
    bx, by = np.roll(ax, -1), np.roll(ay, -1)
    px, py = np.asarray(x)[:, None], np.asarray(y)[:, None]
    spans = (ay > py) != (by > py)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = ax + (py - ay) / (by - ay) * (bx - ax)
    return (spans & (px < crossing)).sum(axis=1) % 2 == 1


def _values(roads: pd.DataFrame, column: str | None) -> np.ndarray | None:
    if column is None:
        return roads.index.astype(str).to_numpy()
    if column == "district":
        return districts(roads)
    return roads[column].astype(str).to_numpy() if column in roads else None
