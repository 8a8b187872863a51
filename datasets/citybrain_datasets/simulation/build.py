"""The whole flow: street plan → network → days of traffic → air → instruments → City."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.signals import NodeType, Signal
from citybrain_datasets.simulation import sensors
from citybrain_datasets.simulation.air import Air, place_stations, simulate_air
from citybrain_datasets.simulation.days import Scene, cached_day
from citybrain_datasets.simulation.disruptions import Disruption, draw_disruptions
from citybrain_datasets.simulation.emissions import traffic_pm25
from citybrain_datasets.simulation.network import build_network, read_segments
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.simulation.streets import lay_out
from citybrain_datasets.simulation.tables import edge_tables, road_table, station_table
from citybrain_datasets.simulation.traffic import Measured
from citybrain_datasets.simulation.weather import simulate_weather

TITLE = "Lantan (synthetic) · 澜滩（合成城市）"
WEATHER = ("temperature", "humidity", "wind_speed", "wind_direction", "precipitation", "mixing_height")


@dataclass(frozen=True)
class Simulated:
    """``city`` as its instruments saw it, ``truth`` as it was (same nodes), and what explains both.

    ``events`` lists incidents and roadworks, ``faults`` the broken instruments, ``air`` PM2.5 by origin, and
    ``emission`` traffic's PM2.5 in g/h ``[hour, segment]`` before ``Plan.traffic_scale``.
    """

    city: City
    truth: City
    events: pd.DataFrame
    faults: pd.DataFrame
    air: Air
    emission: np.ndarray


def simulate_city(
    plan: Plan,
    work: Path,
    *,
    name: str = "embedded",
    workers: int = 1,
    progress: Callable[[int], None] = lambda day: None,
) -> Simulated:
    """Simulates ``plan``; the network and each finished day stay in ``work``, where a second call goes on.

    ``workers`` days run at the same time, with the same result for any number. ``progress`` is told each day
    as it ends. Raises ``SimulationError`` without SUMO.
    """
    streets = lay_out(plan)
    network = work / f"{plan.digest()}.net.xml.gz"
    build_network(streets, network)
    segments = read_segments(network)
    weather = simulate_weather(plan)
    roads = road_table(plan, segments, streets)
    disruptions = draw_disruptions(plan, segments)
    scene = Scene(plan, network, segments, roads["owner"], weather["precipitation"].to_numpy(), disruptions)
    days = _run_days(scene, work, workers, progress)

    traffic = {n: np.concatenate([getattr(d, n) for d in days]) for n in ("speed", "flow", "occupancy")}
    exhaust, travelled = (np.concatenate([getattr(d, n) for d in days]) for n in ("exhaust", "travelled"))
    emission = traffic_pm25(traffic["speed"], exhaust, travelled)
    stations = place_stations(plan, segments)
    air = simulate_air(plan, weather, stations, segments[["x0", "y0", "x1", "y1"]].to_numpy(), emission)

    sites = station_table(plan, stations, segments)
    truth = City(
        name=name,
        title=TITLE,
        timezone=plan.timezone,
        country=plan.country,
        synthetic=True,
        attribution="Synthetic: simulated with Eclipse SUMO; no real city, no measured value.",
        nodes={"road": roads, "air": sites},
        edges=edge_tables(network, segments, roads, sites),
        signals=_signals(plan, traffic, air.total, weather),
    )
    read, road_faults = sensors.observe_roads(traffic, plan.seed)
    pm25, air_faults = sensors.observe_air(air.total, plan.seed)
    faults = pd.concat([road_faults, air_faults], ignore_index=True)
    faults["id"] = [truth.ids(n)[c] for n, c in zip(faults["node"], faults["column"], strict=True)]
    return Simulated(
        city=truth.replace(signals=_signals(plan, read, pm25, weather)),
        truth=truth,
        events=_events(plan, disruptions),
        faults=faults[["node", "id", "fault"]],
        air=air,
        emission=emission,
    )


def _run_days(scene: Scene, work: Path, workers: int, progress: Callable[[int], None]) -> list[Measured]:
    one = partial(cached_day, scene, folder=work)
    days: list[Measured] = []
    if workers <= 1:
        for day in range(scene.plan.days):
            days.append(one(day))
            progress(day)
        return days
    with ProcessPoolExecutor(workers) as pool:
        for day, measured in enumerate(pool.map(one, range(scene.plan.days))):
            days.append(measured)
            progress(day)
    return days


def _signals(plan: Plan, traffic: dict[str, np.ndarray], pm25: np.ndarray, weather: pd.DataFrame) -> dict[str, Signal]:
    start, fine, hour = plan.midnight(0), pd.Timedelta(minutes=5), pd.Timedelta(hours=1)
    series: list[tuple[str, NodeType, pd.Timedelta, np.ndarray]] = [
        *((n, "road", fine, sensors.quantise(n, v)) for n, v in traffic.items()),
        ("pm25", "air", hour, np.round(pm25, 1)),
        *((n, "city", hour, weather[[n]].to_numpy()) for n in WEATHER),
    ]
    return {name: Signal(name, node, start + step, step, values) for name, node, step, values in series}


def _events(plan: Plan, disruptions: list[Disruption]) -> pd.DataFrame:
    midnight = plan.midnight(0)
    return pd.DataFrame(
        {
            "segment": [d.segment for d in disruptions],
            "kind": [d.kind for d in disruptions],
            "begin": [midnight + pd.Timedelta(seconds=d.begin) for d in disruptions],
            "end": [midnight + pd.Timedelta(seconds=d.end) for d in disruptions],
            "speed_factor": [d.speed_factor for d in disruptions],
            "lanes_closed": [d.lanes_closed for d in disruptions],
        }
    )
