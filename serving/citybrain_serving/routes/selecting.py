"""Query parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from citybrain_serving.indices.catalogue import INDICES
from citybrain_serving.selection import Filter

_LON = r"-?(180(\.0+)?|(1[0-7]\d|\d{1,2})(\.\d+)?)"
_LAT = r"-?(90(\.0+)?|[0-8]?\d(\.\d+)?)"
BOX = {"pattern": f"^{_LON},{_LAT},{_LON},{_LAT}$"}
NUMBERS = {"pattern": r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$"}
# Told to callers; what leaves it is refused further in, where the message can name what there is to choose from.

Horizon = Annotated[
    str | None,
    Query(description="minutes ahead, separated by commas; all by default", json_schema_extra=NUMBERS),
]
Quantiles = Annotated[
    str | None, Query(description="levels, separated by commas; all by default", json_schema_extra=NUMBERS)
]
IndexName = Annotated[
    str | None, Query(max_length=40, description="an index of /v1/indices", json_schema_extra={"enum": [*INDICES]})
]


async def _filter(
    ids: Annotated[str | None, Query(min_length=1, description="node ids, separated by commas; all by default")] = None,
    bbox: Annotated[str | None, Query(description="west,south,east,north in degrees", json_schema_extra=BOX)] = None,
    owner: Annotated[str | None, Query(min_length=1, description="who answers for the node (路长), or several")] = None,
    cell: Annotated[str | None, Query(min_length=1, description="grid cell (网格), or several")] = None,
    road_class: Annotated[str | None, Query(alias="class", min_length=1, description="of the road, or several")] = None,
) -> Filter:
    return Filter(ids, bbox, owner, cell, road_class)


Selected = Annotated[Filter, Depends(_filter)]
