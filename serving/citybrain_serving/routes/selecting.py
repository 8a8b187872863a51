"""Query parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from pydantic import Field

from citybrain_serving.indices.catalogue import INDICES
from citybrain_serving.selection import Filter

_LON = r"-?(180(\.0+)?|(1[0-7]\d|\d{1,2})(\.\d+)?)"
_LAT = r"-?(90(\.0+)?|[0-8]?\d(\.\d+)?)"
_HEIGHT = r"(,-?\d+(\.\d+)?)"
BOX = {"pattern": f"^{_LON},{_LAT},{_LON},{_LAT}$|^{_LON},{_LAT}{_HEIGHT},{_LON},{_LAT}{_HEIGHT}$"}
NUMBERS = {"pattern": r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$"}
# Told to callers; what leaves it is refused further in, where the message can name what there is to choose from.

Word = Annotated[str, Field(min_length=1)]
Numbers = Annotated[str, Field(json_schema_extra=NUMBERS)]
# A list is separated by commas, or its parameter given again, or both.

IndexName = Annotated[
    str | None, Query(max_length=40, description="an index of /v1/indices", json_schema_extra={"enum": [*INDICES]})
]


async def _horizon(
    horizon: Annotated[
        list[Numbers] | None, Query(description="minutes ahead, separated by commas; all by default")
    ] = None,
) -> str | None:
    return _joined(horizon)


async def _quantiles(
    quantiles: Annotated[list[Numbers] | None, Query(description="levels, separated by commas; all by default")] = None,
) -> str | None:
    return _joined(quantiles)


async def _filter(
    ids: Annotated[list[Word] | None, Query(description="node ids, separated by commas; all by default")] = None,
    bbox: Annotated[
        str | None,
        Query(description="west,south,east,north in degrees; heights are let pass", json_schema_extra=BOX),
    ] = None,
    owner: Annotated[list[Word] | None, Query(description="who answers for the node (路长), or several")] = None,
    cell: Annotated[list[Word] | None, Query(description="grid cell (网格), or several")] = None,
    road_class: Annotated[list[Word] | None, Query(alias="class", description="of the road, or several")] = None,
) -> Filter:
    return Filter(_joined(ids), bbox, _joined(owner), _joined(cell), _joined(road_class))


def _joined(values: list[str] | None) -> str | None:
    return None if values is None else ",".join(values)


Horizon = Annotated[str | None, Depends(_horizon)]
Quantiles = Annotated[str | None, Depends(_quantiles)]
Selected = Annotated[Filter, Depends(_filter)]
