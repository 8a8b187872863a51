"""A place where scenarios are simulated: a city, its SUMO network, and who travels there on a given morning."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ValidationError

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, ConfigError, Problem
from citybrain_datasets.scenarios.actions import STEP_MINUTES, WARM_UP, Window
from citybrain_datasets.scenarios.places import clock
from citybrain_datasets.scenarios.trips import endow
from citybrain_datasets.simulation.demand import Day, draw_trips
from citybrain_datasets.simulation.network import read_placed, read_segments, read_signalled
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.store import city_folder, schema_problems

WARM_UP_S = WARM_UP * STEP_MINUTES * 60
NETWORK, DEMAND, WINDOW, ASSUMPTIONS = "network.net.xml.gz", "demand.parquet", "window.yaml", "assumptions.yaml"
"""Files beside a city's tables: its SUMO network; and where a user brought it, the trips, the window of these, and
what is assumed about the air."""
TRIP_COLUMNS = ("depart", "origin", "destination", "type", "purpose")
_FAR = 1000
"""Replications draw days far from those of the city's own record."""

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Site:
    """``city`` and the SUMO ``network`` it stands on, node order and edge order being one.

    ``draw`` gives the trips of replication ``r`` in a window: columns ``depart`` (s from the start of the warm-up),
    ``origin``, ``destination``, ``type``, ``purpose``, sorted. ``traffic_scale`` is the factor on traffic's primary
    PM2.5 before dispersion. ``key`` is a digest of all that a run depends on besides scenario, window and replication.
    """

    city: City
    network: Path
    segments: pd.DataFrame
    draw: Callable[[int, Window], pd.DataFrame] = field(repr=False)
    key: str
    seed: int = 7
    informed_share: float = 0.7
    traffic_scale: float = 1.0
    latitude: float = 0.0
    longitude: float = 0.0
    """The point whose network coordinates are (0, 0)."""
    origins: Path | None = None
    """PM2.5 by origin, which a simulated city keeps."""
    window: Window | None = None
    """The hours that a user's demand is about; None where demand is drawn for any."""
    assumptions: Path | None = None
    """What is assumed about the air (``AirAssumptions``), where a user said so."""
    purposes: bool = True
    """Whether its trips have a purpose."""

    @cached_property
    def ends(self) -> np.ndarray:
        """Ends of the segments, metres: ``[segment, 4]``."""
        return self.segments[["x0", "y0", "x1", "y1"]].to_numpy(float)

    @cached_property
    def signalled(self) -> np.ndarray:
        """Where a traffic light stands at the end of a segment, bool ``[segment]`` in node order."""
        return np.isin(self.city.ids("road"), list(read_signalled(self.network)))

    def trips(self, replication: int, window: Window) -> pd.DataFrame:
        """Trips with their drivers (:func:`endow`)."""
        trips = self.draw(replication, window)
        return endow(trips, self.seed * 1000 + replication, self.informed_share)


@dataclass(frozen=True)
class Gravity:
    """Demand of a simulated city: each replication another day drawn from its gravity model, dry."""

    plan: Plan
    segments: pd.DataFrame
    zones: pd.Series

    def __call__(self, replication: int, window: Window) -> pd.DataFrame:
        day = Day(_FAR * (replication + 1) + int(window.off), window.off, np.zeros(24))
        trips = draw_trips(self.plan, self.segments, self.zones, day, WARM_UP_S)
        return cut(trips, window.begin * 60, window)


@dataclass(frozen=True)
class Given:
    """Demand that was given: replication 0 as it is, each further one a draw of as many trips with replacement.

    A window in which none of its trips departs is refused (:class:`CityError`).
    """

    trips: pd.DataFrame

    def __call__(self, replication: int, window: Window) -> pd.DataFrame:
        begin, end = window.begin * 60, window.end * 60
        if not self.trips["depart"].between(begin, end, inclusive="left").any():
            what = f"no vehicle departs from {clock(window.begin)} to {clock(window.end)}"
            raise CityError([Problem("demand", what)])
        chosen = self.trips
        if replication:
            rows = np.random.default_rng([replication, 23]).integers(0, len(chosen), len(chosen))
            chosen = chosen.iloc[np.sort(rows)]
        return cut(chosen, begin - WARM_UP_S, window)


def open_site(source: Path | str) -> Site:
    """A simulated city from its folder, ``embedded``, or a folder that ``citybrain data own-network`` made.

    Raises :class:`CityError` where the folder has no ``network.net.xml.gz``, or neither ``plan.yaml`` nor
    ``demand.parquet``: a city that was measured has no trips to send through a simulator.
    """
    folder = city_folder(source)
    city = City.load(folder)
    network, plan, demand = folder / NETWORK, folder / "plan.yaml", folder / DEMAND
    absent = [p.name for p in (network, plan) if not p.is_file()]
    if absent and not (network.is_file() and demand.is_file()):
        what = (
            f"lacks {' and '.join(absent)}: only a simulated city, or a network with its demand "
            "(`citybrain data own-network`), can be simulated"
        )
        raise CityError([Problem(str(folder), what)])
    return _given(city, folder) if demand.is_file() else _simulated(city, folder, _read(Plan, plan))


def _simulated(city: City, folder: Path, parameters: Plan) -> Site:
    network = folder / NETWORK
    segments = read_segments(network)
    _same_roads(city, segments, network)
    return Site(
        city=city,
        network=network.absolute(),
        segments=segments,
        draw=Gravity(parameters, segments, city.nodes["road"]["owner"]),
        key=hashlib.sha256(network.read_bytes() + parameters.digest().encode()).hexdigest()[:16],
        seed=parameters.seed,
        informed_share=parameters.informed_share,
        traffic_scale=parameters.traffic_scale,
        latitude=parameters.latitude,
        longitude=parameters.longitude,
        origins=origins if (origins := folder / "origins.parquet").is_file() else None,
    )


def _given(city: City, folder: Path) -> Site:
    network, demand, assumptions = folder / NETWORK, folder / DEMAND, folder / ASSUMPTIONS
    latitude, longitude, segments = read_placed(network)
    _same_roads(city, segments, network)
    try:
        trips = pd.read_parquet(demand, columns=list(TRIP_COLUMNS))
    except (OSError, ValueError) as error:
        raise CityError([Problem(str(demand), f"cannot be read: {error}")]) from error
    return Site(
        city=city,
        network=network.absolute(),
        segments=segments,
        draw=Given(trips),
        key=hashlib.sha256(network.read_bytes() + demand.read_bytes()).hexdigest()[:16],
        latitude=latitude,
        longitude=longitude,
        window=_read(Window, folder / WINDOW),
        assumptions=assumptions if assumptions.is_file() else None,
        purposes=bool((trips["purpose"] != "").any()),
    )


def _same_roads(city: City, segments: pd.DataFrame, network: Path) -> None:
    if list(segments.index) != city.ids("road"):
        raise CityError([Problem(str(network), "its edges are not the roads of the city")])


def cut(trips: pd.DataFrame, begin_s: float, window: Window) -> pd.DataFrame:
    """Trips that depart in the warm-up or the window; ``begin_s`` is the second of ``depart`` the warm-up begins at."""
    depart = trips["depart"] - begin_s
    inside = (depart >= 0) & (depart < (WARM_UP + window.steps) * STEP_MINUTES * 60)
    return trips.assign(depart=depart)[inside].reset_index(drop=True)


def _read(model: type[_Model], path: Path) -> _Model:
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise CityError(schema_problems(path, error)) from error
