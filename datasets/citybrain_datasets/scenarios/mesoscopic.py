"""One run of SUMO's mesoscopic model under a scenario's actions.

The same model as the embedded city's own (``simulation.traffic``), with what measures need besides: bans by vehicle
class, signals that cost less, and every driver drawn beforehand, so that SUMO itself rolls no dice.
"""

from __future__ import annotations

import gzip
import re
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.scenarios.actions import STEP_MINUTES, WARM_UP, Actions
from citybrain_datasets.scenarios.outcomes import Traffic
from citybrain_datasets.simulation.emissions import wear
from citybrain_datasets.simulation.network import run_sumo_tool
from citybrain_datasets.simulation.traffic import MESOSCOPIC, _read

STEP = STEP_MINUTES * 60
TLS_FLOW_PENALTY, TLS_PENALTY = (
    float(MESOSCOPIC[MESOSCOPIC.index(f"--meso-tls-{name}") + 1]) for name in ("flow-penalty", "penalty")
)

# SUMO class, length m, HBEFA class. Diesel cars and permit holders need a class of their own to be barred or let in.
_VEHICLES = {
    "car": ("passenger", 4.8, "HBEFA3/PC_G_EU4"),
    "diesel_car": ("custom1", 4.9, "HBEFA3/PC_D_EU4"),
    "electric_car": ("evehicle", 4.8, "Zero/default"),
    "van": ("delivery", 6.0, "HBEFA3/LDV_D_EU4"),
    "truck": ("truck", 9.5, "HBEFA3/HDV_D_EU4"),
    "electric_van": ("taxi", 6.0, "Zero/default"),
    "electric_truck": ("trailer", 9.5, "Zero/default"),
}
_PERMIT = "authority"


def run(
    network: Path,
    segments: pd.DataFrame,
    feeds: pd.DataFrame,
    trips: pd.DataFrame,
    actions: Actions,
) -> Traffic:
    """Simulates ``trips`` under ``actions`` and returns the window after the warm-up, ``[step, segment]``.

    ``segments`` as from ``read_segments``, ``feeds`` the ``road-road`` table (columns ``source``, ``target``) and
    ``trips`` as from ``apply_to_trips``. The same arguments give the same result on every run of one SUMO version.
    Raises ``SimulationError`` where SUMO is missing or refuses its input.
    """
    steps = actions.limit_kmh.shape[0]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _write_trips(trips, work / "trips.rou.xml")
        used = _retimed(network, segments, actions, work)
        more = "\n".join(_additional(segments, feeds, actions))
        (work / "more.add.xml").write_text(f"<additional>\n{more}\n</additional>\n", encoding="utf-8")
        run_sumo_tool(
            "sumo", "-n", str(used), "-r", str(work / "trips.rou.xml"), "-a", str(work / "more.add.xml"),
            "--begin", "0", "--end", str(steps * STEP), "--seed", "1", *MESOSCOPIC,
            "--device.rerouting.probability", "0",
        )  # fmt: skip
        count = steps - WARM_UP
        traffic = _read(work / "traffic.xml", segments, WARM_UP * STEP, STEP, count)
        emitted = _read(work / "emission.xml", segments, WARM_UP * STEP, STEP, count)
    speed = traffic["speed"] * 3.6
    length_km = segments["length_m"].to_numpy(float) / 1000
    flow = np.nan_to_num(traffic["sampledSeconds"] * speed) / length_km / STEP
    exhaust = np.nan_to_num(emitted["PMx_abs"]) / 1000 * 3600 / STEP * actions.exhaust[WARM_UP:]
    return Traffic(
        speed=np.where(np.isfinite(speed), speed, segments["free_speed_kmh"].to_numpy(float)).astype(np.float32),
        flow=flow.astype(np.float32),
        emission=(exhaust + wear(speed, flow * length_km)).astype(np.float32),
    )


def _write_trips(trips: pd.DataFrame, target: Path) -> None:
    lines = ["<routes>"]
    lines += [
        f'<vType id="{_kind(name, permit, informed)}" vClass="{_PERMIT if permit else vclass}" '
        f'length="{length}" emissionClass="{emission}">'
        f'<param key="has.rerouting.device" value="{str(informed).lower()}"/></vType>'
        for name, (vclass, length, emission) in _VEHICLES.items()
        for permit, informed in product((False, True), repeat=2)
    ]
    permit = trips["permit"] if "permit" in trips else np.zeros(len(trips), bool)
    columns = (trips[c].tolist() for c in ("depart", "origin", "destination", "type", "speed_factor", "informed"))
    for number, (depart, origin, destination, kind, speed, informed, may) in enumerate(
        zip(*columns, list(permit), strict=True)
    ):
        lines.append(
            f'<trip id="{number}" type="{_kind(kind, may, informed)}" depart="{depart:.1f}" from="{origin}" '
            f'to="{destination}" speedFactor="{speed}"/>'
        )
    lines.append("</routes>\n")
    target.write_text("\n".join(lines), encoding="utf-8")


def _kind(name: str, permit: bool, informed: bool) -> str:
    return f"{name}{'.permit' if permit else ''}{'.informed' if informed else ''}"


def _additional(segments: pd.DataFrame, feeds: pd.DataFrame, actions: Actions) -> Iterator[str]:
    steps = len(actions.limit_kmh)
    span = f'freq="{STEP}" begin="{WARM_UP * STEP}" end="{steps * STEP}" excludeEmpty="true"'
    yield f'<edgeData id="t" file="traffic.xml" {span}/>'
    yield f'<edgeData id="e" type="emissions" file="emission.xml" {span}/>'
    for value in np.unique(actions.signals[actions.signals != 1]):
        for road_class in sorted(set(segments["road_class"])):
            yield (
                f'<type id="{_retyped(road_class, value)}"><meso tlsFlowPenalty="{TLS_FLOW_PENALTY * value:.4f}" '
                f'tlsPenalty="{TLS_PENALTY * value:.4f}"/></type>'
            )
    yield from _limits(segments, actions)
    yield from _bans(segments, feeds, actions)


def _limits(segments: pd.DataFrame, actions: Actions) -> Iterator[str]:
    free = segments["free_speed_kmh"].to_numpy(float)
    for place in map(int, np.flatnonzero((np.abs(actions.limit_kmh - free) > 0.05).any(axis=0))):
        segment, limit = segments.index[place], actions.limit_kmh[:, place]
        lanes = " ".join(f"{segment}_{i}" for i in range(int(segments["lanes"].iloc[place])))
        yield f'<variableSpeedSign id="v_{segment}" lanes="{lanes}">'
        for step in range(len(limit)):
            if step == 0 or limit[step] != limit[step - 1]:
                yield f'<step time="{step * STEP}" speed="{limit[step] / 3.6:.4f}"/>'
        yield "</variableSpeedSign>"


def _bans(segments: pd.DataFrame, feeds: pd.DataFrame, actions: Actions) -> Iterator[str]:
    """Rerouters, one for all segments that share a course of bans; drivers turn off one segment ahead."""
    lanes = segments["lanes"].to_numpy(int)
    shut = np.minimum(actions.lanes_closed, lanes)
    courses: dict[tuple[tuple[int, str], ...], list[int]] = {}
    for place in range(len(segments)):
        shown = [
            (int(n), "all" if n == lanes[place] else _barred(actions, s, place)) for s, n in enumerate(shut[:, place])
        ]
        course = tuple((0, b) if b == "all" else (n, b) for n, b in shown)
        if any(c != (0, "") for c in course):
            courses.setdefault(course, []).append(place)
    upstream = feeds.groupby("target")["source"].agg(list)
    for number, (course, places) in enumerate(courses.items()):
        ids = [str(segments.index[p]) for p in places]
        ahead = sorted({*ids, *(str(u) for i in ids for u in upstream.get(i, []))})
        yield f'<rerouter id="b_{number}" edges="{" ".join(ahead)}"{_concerned(course)}>'
        for first, last, (closed, barred) in _spells(course):
            yield f'<interval begin="{first * STEP}" end="{last * STEP}">'
            if barred:
                yield from (f'<closingReroute id="{i}" disallow="{barred}"/>' for i in ids)
            yield from (f'<closingLaneReroute id="{i}_{k}" disallow="all"/>' for i in ids for k in range(closed))
            yield "</interval>"
        yield "</rerouter>"


def _barred(actions: Actions, step: int, place: int) -> str:
    """SUMO classes that may not enter a segment."""
    return " ".join(sorted(_VEHICLES[t][0] for t, where in actions.barred.items() if where[step, place]))


def _concerned(course: tuple[tuple[int, str], ...]) -> str:
    """The types that must look for another way, where it is not all; asking only those is much faster."""
    if any(closed or barred == "all" for closed, barred in course):
        return ""
    classes = {c for _, barred in course for c in barred.split()}
    names = [n for n, (vclass, *_) in _VEHICLES.items() if vclass in classes]
    return f' vTypes="{" ".join(_kind(n, False, i) for n in names for i in (False, True))}"'


def _spells(course: tuple[tuple[int, str], ...]) -> Iterator[tuple[int, int, tuple[int, str]]]:
    """Stretches of steps (first, one past the last) in which the same is closed."""
    first = 0
    for step in range(1, len(course) + 1):
        if step == len(course) or course[step] != course[first]:
            if course[first] != (0, ""):
                yield first, step, course[first]
            first = step


def _retyped(road_class: str, factor: float) -> str:
    return f"{road_class}~{factor:.6f}"


def _retimed(network: Path, segments: pd.DataFrame, actions: Actions, work: Path) -> Path:
    """The network with retimed segments under a type of their own, for which SUMO takes other penalties."""
    if (actions.signals == 1).all():
        return network
    opened = gzip.open if network.suffix == ".gz" else open
    with opened(network, "rt", encoding="utf-8") as file:
        text = file.read()
    factors = dict(zip(segments.index.astype(str), actions.signals, strict=True))
    classes = segments["road_class"].to_dict()

    def retype(found: re.Match[str]) -> str:
        segment = found[1]
        if factors.get(segment, 1.0) == 1:
            return found[0]
        bare = re.sub(r'\stype="[^"]*"', "", found[0][:-1])
        return f'{bare} type="{_retyped(classes[segment], factors[segment])}">'

    target = work / "retimed.net.xml"
    target.write_text(re.sub(r'<edge id="([^"]*)"[^>]*>', retype, text), encoding="utf-8")
    return target
