"""Query parameters of a forecast turned into positions: which nodes, which leads, which quantiles."""

from __future__ import annotations

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


def chosen_rows(places: Places, ids: str | None, bbox: str | None) -> np.ndarray | None:
    """Positions of the nodes selected, in the order of ``ids`` or of the city; None for all of them.

    ``bbox`` is west,south,east,north in degrees. Given both, ids inside the box remain.
    """
    if ids is None and bbox is None:
        return None
    inside = None if bbox is None else places.inside(*_box(bbox))
    if ids is None:
        return inside
    names = [name for name in ids.split(",") if name]
    if not names:
        raise BadSelection("ids is empty; leave it out for every node", {"parameter": "ids"})
    if len(names) > MOST_IDS:
        raise BadSelection(f"ids names {len(names)} nodes; at most {MOST_IDS}", {"parameter": "ids"})
    rows = np.asarray(places.rows(list(dict.fromkeys(names))), dtype=np.int64)
    return rows if inside is None else rows[np.isin(rows, inside)]


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise BadSelection(
            f"bbox {text[:80]!r} must be four numbers, west,south,east,north in degrees",
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
        raise BadSelection(
            f"{parameter} {text[:80]!r} must be among {listed} ({what})", {"parameter": parameter}
        )
    return tuple(dict.fromkeys(known.index(value) for value in wanted))
