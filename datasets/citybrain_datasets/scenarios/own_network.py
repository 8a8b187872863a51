"""A place that the user brings: a SUMO network and a file of trips, routes or flows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from citybrain_datasets import geo
from citybrain_datasets.city import City
from citybrain_datasets.scenarios.demand_file import read_demand
from citybrain_datasets.scenarios.site import Given, Site
from citybrain_datasets.simulation.network import read_connections, read_placed
from citybrain_datasets.simulation.projection import to_degrees


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
            "lanes": segments["lanes"].astype(float), "free_speed_kmh": segments["free_speed_kmh"],
        },
        index=segments.index,
    )  # fmt: skip
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in network.name.partition(".")[0])
    edges = {"road-road": read_connections(network, segments)}
    city = City(name=name, timezone=timezone, nodes={"road": roads}, edges=edges)
    trips = read_demand(demand, set(segments.index.astype(str)))

    key = hashlib.sha256(network.read_bytes() + demand.read_bytes()).hexdigest()[:16]
    return Site(city, network.absolute(), segments, Given(trips), key, latitude=latitude, longitude=longitude)
