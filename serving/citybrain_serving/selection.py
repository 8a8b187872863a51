"""Query parameters of a forecast turned into positions: which nodes, which leads, which quantiles."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from citybrain_datasets.task import Task
from citybrain_serving.errors import BadSelection
from citybrain_serving.places import Places

MOST_IDS = 100_000


@dataclass(frozen=True)
class Cut:
    """Positions of leads and quantiles in a forecast."""

    leads: tuple[int, ...]
    quantiles: tuple[int, ...]

    @staticmethod
    def of(task: Task, horizon: str | None, quantiles: str | None) -> Cut:
        """``horizon`` is minutes ahead, ``quantiles`` levels, both separated by commas; None takes all.

        Raises :class:`BadSelection` naming what exists.
        """
        minutes = [(lead + 1) * task.step_minutes for lead in range(task.horizon)]
        return Cut(
            _positions("horizon", horizon, [float(m) for m in minutes], "minutes ahead"),
            _positions("quantiles", quantiles, list(task.quantiles), "levels"),
        )


@dataclass(frozen=True)
class Filter:
    """Which nodes, in the words of a request; every part given must hold.

    ``ids`` are separated by commas, ``bbox`` is west,south,east,north in degrees (or west,south,low,east,north,high, of
    which the heights select nothing), ``owner`` who answers for a node, ``cell`` a grid cell (or several),
    ``road_class`` the class of a road.
    """

    ids: str | None = None
    bbox: str | None = None
    owner: str | None = None
    cell: str | None = None
    road_class: str | None = None

    def rows(self, places: Places) -> np.ndarray | None:
        """Positions of the nodes selected, in the order of ``ids`` or of the city; None for all of them.

        Raises :class:`BadSelection` and :class:`~citybrain_serving.errors.UnknownPlace`.
        """
        if self == EVERYTHING:
            return None
        rows = np.arange(len(places)) if self.ids is None else _named(places, self.ids)
        if self.bbox is not None:
            rows = rows[np.isin(rows, places.inside(*_box(self.bbox)))]
        for column in ("owner", "cell", "road_class"):
            wanted = getattr(self, column)
            if wanted is not None:
                if column not in places.table:
                    raise BadSelection(f"{places.node} nodes have no {column} here", {"parameter": column})
                rows = rows[np.isin(places.text(column)[rows], members(wanted, places.with_commas(column)))]
        return rows


EVERYTHING = Filter()


def members(text: str, whole: Collection[str]) -> list[str]:
    """The members of a list that commas separate. Names that hold commas themselves, as an owner's may (``Roads,
    Parks and Harbours``), are among ``whole`` and not taken apart: else nothing could ask for them."""
    pieces = text.split(",")
    longest = 1 + max((name.count(",") for name in whole), default=0)
    found, first = [], 0
    while first < len(pieces):
        spans = range(min(longest, len(pieces) - first), 1, -1)
        span = next((n for n in spans if ",".join(pieces[first : first + n]) in whole), 1)
        found.append(",".join(pieces[first : first + span]))
        first += span
    return found


def _named(places: Places, ids: str) -> np.ndarray:
    names = [name for name in members(ids, places.with_commas("id")) if name]
    if not names:
        raise BadSelection("ids is empty; leave it out for every node", {"parameter": "ids"})
    if len(names) > MOST_IDS:
        raise BadSelection(f"ids names {len(names)} nodes; at most {MOST_IDS}", {"parameter": "ids"})
    return np.asarray(places.rows(list(dict.fromkeys(names))), dtype=np.int64)


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        numbers = [float(part) for part in text.split(",")]
        west, south, east, north = numbers if len(numbers) != 6 else (*numbers[:2], *numbers[3:5])
    except ValueError:
        raise BadSelection(
            f"bbox {text[:80]!r} must be four numbers, west,south,east,north in degrees, or six with heights",
            {"parameter": "bbox"},
        ) from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise BadSelection(
            f"bbox {text[:80]!r} must lie within ±180° and ±90°, south not above north", {"parameter": "bbox"}
        )
    return west, south, east, north


def _positions(parameter: str, text: str | None, known: list[float], what: str) -> tuple[int, ...]:
    if text is None:
        return tuple(range(len(known)))
    try:
        wanted = [float(part) for part in text.split(",")]
    except ValueError:
        wanted = []
    if not wanted or any(value not in known for value in wanted):
        listed = ", ".join(f"{value:g}" for value in known)
        raise BadSelection(f"{parameter} {text[:80]!r} must be among {listed} ({what})", {"parameter": parameter})
    return tuple(dict.fromkeys(known.index(value) for value in wanted))
