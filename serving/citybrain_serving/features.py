"""Nodes as GeoJSON features, in pages as OGC API Features has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
import orjson
import pandas as pd

from citybrain_serving.encoding import utc
from citybrain_serving.places import Places

LARGEST_PAGE = 10_000


@dataclass(frozen=True)
class Page:
    """``limit`` nodes from ``offset`` among those selected."""

    limit: int
    offset: int


def feature_page(
    places: Places,
    rows: np.ndarray,
    page: Page,
    address: str,
    query: Sequence[tuple[str, str]],
    told: Callable[[int], dict[str, Any]],
    now: pd.Timestamp,
) -> bytes:
    """A FeatureCollection of one page of ``rows``, with links to itself and its neighbours.

    ``query`` are the parameters of the request beside limit and offset; ``told`` gives further properties of the node
    at a position.
    """
    chosen = rows[page.offset : page.offset + page.limit]
    links = [_link("self", address, query, page)]
    if page.offset + page.limit < len(rows):
        links.append(_link("next", address, query, Page(page.limit, page.offset + page.limit)))
    if page.offset:
        links.append(_link("prev", address, query, Page(page.limit, max(0, page.offset - page.limit))))
    return orjson.dumps(
        {
            "type": "FeatureCollection",
            "timeStamp": utc(now),
            "numberMatched": len(rows),
            "numberReturned": len(chosen),
            "links": links,
            "features": [feature(places, int(row), told(int(row))) for row in chosen],
        }
    )


def feature(places: Places, row: int, told: Mapping[str, Any]) -> dict[str, Any]:
    """One node: its place, everything its table says, and what else is ``told``."""
    lat, lon = (float(c[row]) for c in places.coordinates)
    properties: dict[str, Any] = {"id": places.ids[row]}
    for column in places.table.columns.difference(["lat", "lon"], sort=False):
        value = plain(places.table[column].iat[row])
        if value is not None and value != "":
            properties[str(column)] = value
    properties.update(told)
    known = np.isfinite(lat) and np.isfinite(lon)
    return {
        "type": "Feature",
        "id": places.ids[row],
        "geometry": {"type": "Point", "coordinates": [lon, lat]} if known else None,
        "properties": properties,
    }


def plain(value: Any) -> Any:
    """A cell of a table as JSON has it: None for what is missing."""
    if isinstance(value, np.generic):
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def _link(relation: str, address: str, query: Sequence[tuple[str, str]], page: Page) -> dict[str, str]:
    parameters = [*query, ("limit", page.limit), ("offset", page.offset)]
    return {"rel": relation, "type": "application/geo+json", "href": f"{address}?{urlencode(parameters)}"}
