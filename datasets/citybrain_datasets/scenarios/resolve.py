"""From a place in words to segments of a city."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem, nearest
from citybrain_datasets.scenarios.places import Where

_COLUMNS = {"segments": None, "road_class": "road_class", "cell": "cell", "owner": "owner", "district": "district"}
_MOST = 10_000
"""Places remembered: a few megabytes."""
_FEW = 12
"""So many names are told where one is asked for that the city does not have."""


class Places:
    """The places of one city. What a place means is looked up once, however many measures name it."""

    def __init__(self, city: City):
        self.city = city
        self.roads = city.nodes["road"]
        self._selectors: dict[str, dict[str, list[int]] | None] = {}
        self._known: dict[Where, np.ndarray] = {}

    def __call__(self, where: Where, field: str = "where") -> np.ndarray:
        """Which segments ``where`` means, bool ``[segment]`` in node order; not to be written to.

        Raises :class:`CityError` naming, at ``field``, each id, class, cell or owner that the city does not have, and a
        place that holds no segment at all.
        """
        known = self._known.get(where)
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[where] = self._find(where, field)
        return known

    def _find(self, where: Where, field: str) -> np.ndarray:
        chosen = np.ones(len(self.roads), bool)
        problems = []
        for selector, column in _COLUMNS.items():
            names = getattr(where, selector)
            if names is None:
                continue
            rows = self._rows(selector, column)
            if rows is None:
                what = f"city {self.city.name} knows no {selector} of its roads"
                problems.append(Problem(f"{field}.{selector}", what))
                continue
            unknown = sorted({n for n in names if n not in rows})
            problems += [Problem(f"{field}.{selector}", self._not_there(n, rows, column)) for n in unknown]
            named = np.zeros(len(chosen), bool)
            named[[row for n in names for row in rows.get(n, ())]] = True
            chosen &= named
        if where.polygon is not None:
            lon, lat = self._coordinates
            chosen &= inside(lon, lat, np.array(where.polygon, float))
        if not problems and not chosen.any():
            problems.append(Problem(field, f"no road of city {self.city.name} lies there"))
        if problems:
            raise CityError(problems)
        return chosen

    def _not_there(self, name: str, known: Collection[str], column: str | None) -> str:
        # Of ids one is as like another as any; what is meant may only be written otherwise.
        ids = column in (None, "cell")
        meant = next((k for k in known if k.casefold() == name.casefold()), None) if ids else nearest(name, known)
        if meant is not None:
            what = f"{name!r} is not in city {self.city.name}; did you mean {meant}?"
        elif len(known) <= _FEW:
            what = f"{name!r} is not in city {self.city.name}; known are {', '.join(known)}"
        else:
            what = f"{name!r} is not in city {self.city.name}"
        return what

    def _rows(self, selector: str, column: str | None) -> dict[str, list[int]] | None:
        """The rows of each value that a selector may name; None where the city has no such column, or a blank one."""
        if selector not in self._selectors:
            values = _values(self.roads, column)
            rows: dict[str, list[int]] = {}
            for row, value in enumerate(() if values is None else values):
                rows.setdefault(value, []).append(row)
            self._selectors[selector] = None if set(rows) <= {""} else rows
        return self._selectors[selector]

    @cached_property
    def _coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        return self.roads["lon"].to_numpy(float), self.roads["lat"].to_numpy(float)


def resolve(where: Where, city: City, field: str = "where") -> np.ndarray:
    """One place of ``city``, as :class:`Places` has it."""
    return Places(city)(where, field)


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
