"""A place that the user brings: a SUMO network and a file of trips, routes or flows."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from citybrain_datasets import geo
from citybrain_datasets.city import City
from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.air import read_assumptions
from citybrain_datasets.scenarios.demand_file import read_demand
from citybrain_datasets.scenarios.site import ASSUMPTIONS, DEMAND, NETWORK, WINDOW, Given, Site, open_site
from citybrain_datasets.simulation.network import read_connections, read_placed
from citybrain_datasets.simulation.projection import to_degrees
from citybrain_datasets.simulation.streets import CLASSES
from citybrain_datasets.store import save_city

_GZIP = b"\x1f\x8b"
_LANE_KMH, _LANE_VEH_H = (40, 50, 60, 80, 100), (650, 750, 850, 1900, 2000)
"""Capacity of a lane by free speed, as in the simulated cities: our choice, between streets and motorways on a line."""


def bring(
    network: Path,
    demand: Path,
    folder: Path,
    window: Window,
    *,
    name: str = "",
    timezone: str = "UTC",
    assumptions: Path | None = None,
) -> Site:
    """Writes a user's network and demand to ``folder`` as a city, and opens it.

    ``window`` are the hours that it is to be simulated in, ``assumptions`` a YAML of ``AirAssumptions``. Raises as
    :func:`open_network`, and :class:`CityError` where no vehicle departs in ``window``.
    """
    site = open_network(network, demand, timezone)
    trips = _trips(site, window)
    extras = {
        NETWORK: _zipped(network),
        DEMAND: trips.to_parquet(index=False, compression="zstd"),
        WINDOW: yaml.safe_dump(window.model_dump(mode="json"), sort_keys=False).encode(),
    }
    if assumptions is not None:
        read_assumptions(assumptions)
        extras[ASSUMPTIONS] = assumptions.read_bytes()
    save_city(site.city.replace(name=name or site.city.name), folder, extras)
    return open_site(folder)


def open_network(network: Path, demand: Path, timezone: str = "UTC") -> Site:
    """A site on the user's ``.net.xml`` (or ``.net.xml.gz``) with the vehicles of ``demand``.

    ``demand`` holds ``trip``, ``vehicle`` and ``flow`` elements with from and to, or a route; departures count from
    midnight. A network without geographic projection is laid around 0° N 0° E.

    Raises :class:`CityError` naming the file, the element and the attribute that cannot be used.
    """
    latitude, longitude, segments = read_placed(network)
    x, y = ((segments[f"{a}0"] + segments[f"{a}1"]).to_numpy() / 2 for a in "xy")
    lat, lon = to_degrees(x, y, latitude, longitude)
    roads = pd.DataFrame(
        {
            "lat": lat, "lon": lon, "name": segments["name"], "name_zh": "", "owner": "",
            "cell": [geo.cell(a, b) for a, b in zip(lat, lon, strict=True)],
            "road_class": segments["road_class"], "length_m": segments["length_m"],
            "lanes": segments["lanes"].astype(float),
            "free_speed_kmh": _in_single_precision(segments["free_speed_kmh"]),
            "capacity_veh_h": _lane_capacity(segments) * segments["lanes"].to_numpy(float),
        },
        index=segments.index,
    )  # fmt: skip
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in network.name.partition(".")[0])
    edges = {"road-road": read_connections(network, segments)}
    city = City(name=name, timezone=timezone, nodes={"road": roads}, edges=edges)
    trips = read_demand(demand, set(segments.index.astype(str)))

    key = hashlib.sha256(network.read_bytes() + demand.read_bytes()).hexdigest()[:16]
    return Site(
        city, network.absolute(), segments, Given(trips), key, latitude=latitude, longitude=longitude, purposes=False
    )


def _trips(site: Site, window: Window) -> pd.DataFrame:
    """All trips of the demand, some of which depart in ``window``."""
    assert isinstance(site.draw, Given)
    site.draw(0, window)
    return site.draw.trips


def _lane_capacity(segments: pd.DataFrame) -> np.ndarray:
    """Vehicles an hour and lane ``[segment]``: of its class where that is one of the simulated cities', else by its
    free speed."""
    by_speed = np.interp(segments["free_speed_kmh"].to_numpy(float), _LANE_KMH, _LANE_VEH_H)
    known = [CLASSES[c].capacity if c in CLASSES else np.nan for c in segments["road_class"]]
    return np.where(np.isfinite(known), known, by_speed)


def _in_single_precision(values: pd.Series) -> np.ndarray:
    """Values that a bundle keeps to the last bit, so that a limit that nothing changes is seen to be the same."""
    return values.to_numpy(np.float32).astype(float)


def _zipped(network: Path) -> bytes:
    content = network.read_bytes()
    return content if content[:2] == _GZIP else gzip.compress(content, mtime=0)
