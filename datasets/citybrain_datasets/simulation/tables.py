"""Node and edge tables of the synthetic City."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets import geo
from citybrain_datasets.simulation.demand import attraction
from citybrain_datasets.simulation.network import read_connections
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.simulation.projection import to_degrees
from citybrain_datasets.simulation.streets import BLOCK, CLASSES, Street, district

AIR_REACH = 1500.0
"""A station is joined to the segments within so many metres, and to at least twelve."""
PEOPLE_PER_SEGMENT = 2500


def road_table(plan: Plan, segments: pd.DataFrame, streets: list[Street]) -> pd.DataFrame:
    """The ``road`` node table, indexed by segment id; its owner is the district."""
    x, y = middles(segments)
    lat, lon = to_degrees(x, y, plan.latitude, plan.longitude)
    core = [max(abs(j.x), abs(j.y)) for s in streets for j in (s.source, s.target) if j.kind == "core"]
    reach = max(core) - 0.1 * BLOCK
    chinese = {s.id: s.name_zh for s in streets}
    per_lane = np.array([CLASSES[c].capacity for c in segments["road_class"]])
    return pd.DataFrame(
        {
            "lat": lat.round(6),
            "lon": lon.round(6),
            "name": segments["name"],
            "name_zh": [chinese[str(i)] for i in segments.index],
            "owner": [district(a, b, reach) for a, b in zip(x, y, strict=True)],
            "cell": [geo.cell(a, b) for a, b in zip(lat, lon, strict=True)],
            "road_class": segments["road_class"],
            "length_m": segments["length_m"].round(1),
            "lanes": segments["lanes"].astype(float),
            "free_speed_kmh": segments["free_speed_kmh"].round(1),
            "capacity_veh_h": per_lane * segments["lanes"].to_numpy(float),
        },
        index=segments.index,
    )


def station_table(plan: Plan, stations: pd.DataFrame, segments: pd.DataFrame) -> pd.DataFrame:
    """The ``air`` node table; ``population`` counts the people who live nearest to each station."""
    x, y = stations["x"].to_numpy(), stations["y"].to_numpy()
    lat, lon = to_degrees(x, y, plan.latitude, plan.longitude)
    east, north = middles(segments)
    nearest = np.argmin(np.hypot(east[:, None] - x, north[:, None] - y), axis=1)
    lived = attraction(segments)["homes"].where(segments["road_class"] != "motorway", 0.0).to_numpy()
    people = PEOPLE_PER_SEGMENT * len(segments) * np.bincount(nearest, lived, len(stations)) / lived.sum()
    return pd.DataFrame(
        {
            "lat": lat.round(6),
            "lon": lon.round(6),
            "name": stations["name"],
            "name_zh": stations["name_zh"],
            "owner": [district(a, b, float(np.abs([x, y]).max())) for a, b in zip(x, y, strict=True)],
            "cell": [geo.cell(a, b) for a, b in zip(lat, lon, strict=True)],
            "height_m": stations["height_m"],
            "population": people.round(-2),
        },
        index=stations.index,
    )


def edge_tables(
    network: Path, segments: pd.DataFrame, roads: pd.DataFrame, stations: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Roads by the network's connections, each station with four others and with the roads around it."""
    return {
        "road-road": read_connections(network, segments),
        "air-air": _nearest(stations, stations, at_least=4, reach=0.0, skip_self=True),
        "road-air": _nearest(stations, roads, at_least=12, reach=AIR_REACH, skip_self=False),
    }


def middles(segments: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Metres east and north of the middle of each segment."""
    return (
        segments[["x0", "x1"]].to_numpy(float).mean(axis=1),
        segments[["y0", "y1"]].to_numpy(float).mean(axis=1),
    )


def _nearest(
    places: pd.DataFrame, sources: pd.DataFrame, *, at_least: int, reach: float, skip_self: bool
) -> pd.DataFrame:
    """Edges to each place from its ``at_least`` nearest sources and from all within ``reach`` metres."""
    a, b = (t[["lat", "lon"]].to_numpy(float) for t in (places, sources))
    index, metres = geo.nearest(a[:, 0], a[:, 1], b[:, 0], b[:, 1], len(sources), skip_self=skip_self)
    rank = np.broadcast_to(np.arange(index.shape[1]), index.shape)
    row, column = np.nonzero((index >= 0) & ((rank < at_least) | (metres <= reach)))
    source = index[row, column]
    bearing = geo.bearing_deg(b[source, 0], b[source, 1], a[row, 0], a[row, 1])
    return pd.DataFrame(
        {
            "source": sources.index.to_numpy()[source],
            "target": places.index.to_numpy()[row],
            "distance_m": metres[row, column].round(1),
            "bearing_deg": bearing.round(1),
        }
    )
