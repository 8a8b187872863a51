"""Who travels when, from where to where: a gravity model by purpose, and no day like another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.simulation.plan import Plan

SLOT = 900
"""Length of one departure slot, seconds."""

VEHICLE_TYPES = {
    # SUMO vehicle class, length m, HBEFA 3 class, share of private trips, share of freight trips
    "car": ("passenger", 4.8, "HBEFA3/PC_G_EU4", 0.80, 0.0),
    "diesel_car": ("passenger", 4.9, "HBEFA3/PC_D_EU4", 0.08, 0.0),
    "electric_car": ("evehicle", 4.8, "Zero/default", 0.12, 0.0),
    "van": ("delivery", 6.0, "HBEFA3/LDV_D_EU4", 0.0, 0.55),
    "truck": ("truck", 9.5, "HBEFA3/HDV_D_EU4", 0.0, 0.45),
}


DRIVERS = 'speedFactor="normc(1,0.06,0.75,1.25)"'
"""How drivers' free speeds differ."""


@dataclass(frozen=True)
class Purpose:
    """Trips of one kind: ``level`` is their share of a working day's trips, ``off_day`` a factor on days off.

    ``peaks`` are (hour, spread in hours, weight) on working days, ``off_peaks`` on days off; ``decay_m`` is
    the distance over which the attraction of a destination falls to 1/e.
    """

    name: str
    origin: str
    destination: str
    level: float
    off_day: float
    peaks: tuple[tuple[float, float, float], ...]
    off_peaks: tuple[tuple[float, float, float], ...]
    decay_m: float


_MORNING = ((7.8, 1.1, 0.9), (13, 2, 0.1))
_EVENING = ((17.9, 1.05, 0.87), (21, 1.2, 0.13))
_LEISURE = ((11, 2.2, 0.4), (15.5, 2.5, 0.4), (20, 1.8, 0.2))
_RETURN = ((12.5, 2.4, 0.5), (18.5, 2.4, 0.5))
_GOODS = ((10, 2.8, 0.55), (15, 2.5, 0.25), (23.5, 2.5, 0.2))
_TRANSIT = ((8.5, 2, 0.35), (14, 4, 0.4), (17.5, 2, 0.25))
PURPOSES = (
    Purpose("to_work", "homes", "jobs", 0.24, 0.20, _MORNING, ((8.6, 1.3, 1.0),), 8000),
    Purpose("to_home", "jobs", "homes", 0.25, 0.22, _EVENING, ((17.5, 1.8, 1.0),), 8000),
    Purpose("errand", "homes", "jobs", 0.17, 1.35, _LEISURE, _LEISURE, 4500),
    Purpose("errand_back", "jobs", "homes", 0.17, 1.35, _RETURN, ((17, 3, 1.0),), 4500),
    Purpose("freight", "freight", "freight", 0.09, 0.60, _GOODS, ((11, 3.5, 1.0),), 12_000),
    Purpose("through", "gates_in", "gates_out", 0.08, 0.90, _TRANSIT, ((12, 4, 1.0),), 60_000),
)
_FLOOR = 0.10
"""Share of every purpose's trips spread evenly over the day, so that the night is not empty."""


def attraction(segments: pd.DataFrame) -> pd.DataFrame:
    """Weights of each segment as an origin or destination; columns ``homes jobs freight gates_in gates_out``.

    Jobs gather in the middle of the city, homes in a belt around it and in the outer towns; traffic from
    elsewhere enters and leaves by the motorways. ``segments`` as from :func:`network.read_segments`.
    """
    x, y = (segments["x0"] + segments["x1"]) / 2, (segments["y0"] + segments["y1"]) / 2
    radius = np.hypot(x, y)
    reach = float(radius.max())
    kind = segments["road_class"]
    settled = kind.isin(["local", "collector", "arterial"]).to_numpy(bool)
    lived = np.where(settled, segments["length_m"].to_numpy(float) / 1000, 0.0)
    outward = np.hypot(*segments[["x1", "y1"]].to_numpy().T) > np.hypot(*segments[["x0", "y0"]].to_numpy().T)
    gate = (kind == "motorway").to_numpy(bool)
    table = pd.DataFrame(
        {
            "homes": lived * (0.35 + np.exp(-(((radius / reach - 0.5) / 0.22) ** 2))),
            "jobs": lived * (0.15 + 1.6 * np.exp(-((radius / reach / 0.28) ** 2))),
            "gates_in": gate & ~outward,
            "gates_out": gate & outward,
        },
        index=segments.index,
    ).astype(float)
    # Each gate's share of what crosses the city limits, over both directions 1.
    gates = (table["gates_in"] + table["gates_out"]) / max(2 * table["gates_in"].sum(), 1.0)
    for side in ("homes", "jobs"):
        # Nearly a quarter of the commuters and visitors come from outside.
        table[side] += 0.3 * table[side].sum() * gates
    table["freight"] = table["jobs"] + 1.6 * table["jobs"].sum() * gates
    return table


@dataclass(frozen=True)
class Day:
    """What makes one day's demand.

    ``rain_mm_h`` is the rain of its 24 hours; ``factors`` are (zone of origin, purpose, factor on trips),
    with ``*`` for every zone or purpose.
    """

    index: int
    off: bool
    rain_mm_h: np.ndarray
    factors: tuple[tuple[str, str, float], ...] = ()


def draw_trips(plan: Plan, segments: pd.DataFrame, zones: pd.Series, day: Day, warm_up: int = 1800) -> pd.DataFrame:
    """One day's trips, sorted by departure.

    Columns ``depart`` (s), ``origin`` and ``destination`` (segments), ``type`` (vehicle type), ``purpose``.

    Second ``warm_up`` is midnight; the trips before it belong to the last half hour of the day before, so
    that the streets are not empty when the day begins. The number of trips in a slot and between two places
    is Poisson, with a mean that differs from day to day: as a whole, by purpose, by zone and by hour.
    """
    rng = np.random.default_rng([plan.seed, 3, day.index])
    weights = attraction(segments)
    x, y = ((segments[f"{a}0"] + segments[f"{a}1"]).to_numpy() / 2 for a in "xy")
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    total = plan.trips_per_segment * len(segments) * (1 + rng.normal(0, 0.04))
    names = sorted(set(zones))
    zone_of = zones.reindex(segments.index).map({z: i for i, z in enumerate(names)}).to_numpy()
    slots = 86400 // SLOT
    seconds = np.arange(-(warm_up // SLOT), slots) * SLOT
    hour = (seconds + SLOT / 2) / 3600 % 24
    rain = day.rain_mm_h[(hour.astype(int)) % 24]

    parts = []
    for number, purpose in enumerate(PURPOSES):
        origin = weights[purpose.origin].to_numpy().copy()
        for zone, which, factor in day.factors:
            if which in ("*", purpose.name):
                origin *= np.where(zone == "*", factor, np.where(zones.reindex(segments.index) == zone, factor, 1.0))
        scale = origin.sum() / weights[purpose.origin].to_numpy().sum()
        origin *= np.exp(rng.normal(0, 0.08, len(names)))[zone_of]
        goal = weights[purpose.destination].to_numpy() * np.exp(rng.normal(0, 0.08, len(names)))[zone_of]
        pair = origin[:, None] * goal * np.exp(-distance / purpose.decay_m) * (distance > 500)
        pair /= pair.sum()
        level = purpose.level * (purpose.off_day if day.off else 1.0) * scale * np.exp(rng.normal(0, 0.05))
        shift = rng.normal(0, 0.1)
        course = _course(purpose.off_peaks if day.off else purpose.peaks, hour - shift)
        # In rain some walk and cycle no longer, and others stay at home.
        course = course * (1 + (0.06 if purpose.name.startswith("to_") else -0.10) * np.clip(rain, 0, 2) / 2)
        course = course * np.exp(_wander(rng, len(course)))
        counts = rng.poisson(total * level * course)
        chosen = rng.choice(pair.size, size=int(counts.sum()), p=pair.ravel())
        depart = np.repeat(seconds, counts) + rng.uniform(0, SLOT, len(chosen)) + warm_up
        shares = np.array([t[4 if purpose.name == "freight" else 3] for t in VEHICLE_TYPES.values()])
        parts.append(
            pd.DataFrame(
                {
                    "depart": depart,
                    "origin": chosen // len(segments),
                    "destination": chosen % len(segments),
                    "type": rng.choice(len(VEHICLE_TYPES), size=len(chosen), p=shares),
                    "purpose": number,
                }
            )
        )
    trips = pd.concat(parts).sort_values("depart", kind="stable", ignore_index=True)
    ids = segments.index.to_numpy()
    types = np.array(list(VEHICLE_TYPES))
    return trips.assign(
        origin=ids[trips["origin"]],
        destination=ids[trips["destination"]],
        type=types[trips["type"]],
        purpose=np.array([p.name for p in PURPOSES])[trips["purpose"]],
    )


def write_trips(trips: pd.DataFrame, target: Path) -> None:
    """Writes ``trips`` as a SUMO route file with its vehicle types."""
    with target.open("w", encoding="utf-8") as file:
        file.write("<routes>\n")
        for name, (vclass, length, emission, _, _) in VEHICLE_TYPES.items():
            file.write(
                f'<vType id="{name}" vClass="{vclass}" length="{length}" emissionClass="{emission}" {DRIVERS}/>\n'
            )
        columns = (trips[c].tolist() for c in ("depart", "origin", "destination", "type"))
        for number, (depart, origin, destination, kind) in enumerate(zip(*columns, strict=True)):
            place = f'from="{origin}" to="{destination}"'
            file.write(f'<trip id="{number}" type="{kind}" depart="{depart:.1f}" {place}/>\n')
        file.write("</routes>\n")


def is_day_off(plan: Plan, day: int) -> bool:
    """Weekend or public holiday, by the calendar of the plan's country."""
    import holidays

    when = plan.first_day + timedelta(days=day)
    return when.weekday() >= 5 or when in holidays.country_holidays(plan.country, years=when.year)


def _course(peaks: tuple[tuple[float, float, float], ...], hour: np.ndarray) -> np.ndarray:
    """Share of a day's trips in each 15-minute slot; over 24 hours it sums to 1."""
    course = np.zeros(len(hour))
    for centre, spread, weight in peaks:
        away = (hour - centre + 12) % 24 - 12
        course += weight * np.exp(-0.5 * (away / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
    return ((1 - _FLOOR) * course + _FLOOR / 24) * SLOT / 3600


def _wander(rng: np.random.Generator, count: int, spread: float = 0.07, memory: float = 5) -> np.ndarray:
    """Slow noise over the slots, so that this Tuesday's peak is not last Tuesday's."""
    keep = float(np.exp(-1 / memory))
    state, value = np.empty(count), rng.normal(0, spread)
    for i, step in enumerate(rng.normal(0, spread * np.sqrt(1 - keep**2), count)):
        value = keep * value + step
        state[i] = value
    return state
