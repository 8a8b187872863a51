"""Runs SUMO's mesoscopic model for a window of time and reads what every segment saw."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from citybrain_datasets.simulation.demand import write_trips
from citybrain_datasets.simulation.disruptions import Disruption
from citybrain_datasets.simulation.network import run_sumo_tool

STEP = 300
"""Length of one traffic interval, seconds."""


MESOSCOPIC = (
    "--mesosim", "--meso-edgelength", "250",
    # Signals take capacity from a street in proportion to their red, and cost time.
    "--meso-tls-flow-penalty", "0.9", "--meso-tls-penalty", "0.6", "--meso-minor-penalty", "3",
    # Queues spill back, but a circle of full streets would block itself for ever: whoever leads a queue and
    # cannot move for so many seconds squeezes past. With a minute, the core once full never cleared again.
    "--time-to-teleport", "8",
    # Who cannot leave home within ten minutes stays there.
    "--max-depart-delay", "600",
    "--device.rerouting.period", "300", "--device.rerouting.adaptation-interval", "60",
    "--device.rerouting.adaptation-steps", "10",
    "--ignore-route-errors", "--no-step-log", "--no-warnings",
)  # fmt: skip
"""How SUMO models traffic, in every run."""


@dataclass(frozen=True)
class Measured:
    """What a window's traffic was. ``speed`` km/h (NaN where no vehicle passed), ``flow`` veh/h leaving the
    segment and ``occupancy`` 0–1 are float32 ``[step, segment]``; ``exhaust`` is PM in g/h and ``travelled``
    veh·km/h, both ``[hour, segment]``. Columns follow the index of the segments."""

    speed: np.ndarray
    flow: np.ndarray
    occupancy: np.ndarray
    exhaust: np.ndarray
    travelled: np.ndarray


def run_window(
    network: Path,
    segments: pd.DataFrame,
    trips: pd.DataFrame,
    *,
    seconds: int,
    warm_up: int = 1800,
    speed_limits: dict[str, list[tuple[float, float]]] | None = None,
    closures: list[Disruption] | None = None,
    informed_share: float = 0.7,
    seed: int = 1,
) -> Measured:
    """Simulates ``warm_up + seconds`` of ``trips`` on ``network`` and returns the part after the warm-up.

    All times in ``trips``, ``speed_limits`` (km/h by segment) and ``closures`` count from the start of the
    warm-up. The same arguments give the same result on every run of one SUMO version.

    Raises ``SimulationError`` where SUMO is missing or refuses its input.
    """
    if seconds % 3600 or warm_up % 3600 % STEP:
        raise ValueError("a window is whole hours, after a warm-up of whole five minutes")
    end = warm_up + seconds
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_trips(trips, work / "trips.rou.xml")
        (work / "more.add.xml").write_text(
            _additional(segments, speed_limits or {}, closures or [], warm_up, end), encoding="utf-8"
        )
        run_sumo_tool(
            "sumo", "-n", str(network), "-r", str(work / "trips.rou.xml"), "-a", str(work / "more.add.xml"),
            "--begin", "0", "--end", str(end), "--seed", str(seed), *MESOSCOPIC,
            "--device.rerouting.probability", str(informed_share),
        )  # fmt: skip
        traffic = _read(work / "traffic.xml", segments, warm_up, STEP, seconds // STEP)
        emission = _read(work / "emission.xml", segments, warm_up, 3600, seconds // 3600)
    occupancy = np.nan_to_num(traffic["occupancy"]) / 100
    hourly = np.nan_to_num(traffic["sampledSeconds"] * traffic["speed"]) / 1000
    travelled = hourly.reshape(seconds // 3600, 3600 // STEP, -1).sum(axis=1)
    return Measured(
        speed=(traffic["speed"] * 3.6).astype(np.float32),
        flow=(np.nan_to_num(traffic["left"] + traffic["arrived"]) * (3600 / STEP)).astype(np.float32),
        occupancy=np.clip(occupancy, 0, 1).astype(np.float32),
        exhaust=(np.nan_to_num(emission["PMx_abs"]) / 1000).astype(np.float32),
        travelled=travelled.astype(np.float32),
    )


def _additional(
    segments: pd.DataFrame,
    limits: dict[str, list[tuple[float, float]]],
    closures: list[Disruption],
    warm_up: int,
    end: int,
) -> str:
    """SUMO's additional file: what to measure, where speed changes, which lanes close."""
    lines = [
        "<additional>",
        f'<edgeData id="t" file="traffic.xml" freq="{STEP}" begin="{warm_up}" end="{end}" excludeEmpty="true"/>',
        f'<edgeData id="e" type="emissions" file="emission.xml" freq="3600" begin="{warm_up}" end="{end}"'
        ' excludeEmpty="true"/>',
    ]
    count = {str(segment): int(lanes) for segment, lanes in segments["lanes"].items()}
    for segment, steps in limits.items():
        lanes = " ".join(f"{segment}_{i}" for i in range(count[segment]))
        lines.append(f'<variableSpeedSign id="v_{segment}" lanes="{lanes}">')
        lines += [f'<step time="{max(0.0, t):.0f}" speed="{v / 3.6:.4f}"/>' for t, v in steps]
        lines.append("</variableSpeedSign>")
    for number, d in enumerate(closures):
        lines.append(f'<rerouter id="c_{number}" edges="{d.segment}">')
        lines.append(f'<interval begin="{d.begin:.0f}" end="{d.end:.0f}">')
        if d.lanes_closed >= count[d.segment]:
            lines.append(f'<closingReroute id="{d.segment}" disallow="all"/>')
        lines += [f'<closingLaneReroute id="{d.segment}_{i}" disallow="all"/>' for i in range(d.lanes_closed)]
        lines.append("</interval></rerouter>")
    return "\n".join([*lines, "</additional>\n"])


def _read(path: Path, segments: pd.DataFrame, begin: int, freq: int, count: int) -> dict[str, np.ndarray]:
    """Attributes of SUMO's edge data as ``[interval, segment]``, NaN where a segment is not mentioned."""
    wanted = ("speed", "left", "arrived", "occupancy", "sampledSeconds", "PMx_abs")
    column = {segment: i for i, segment in enumerate(segments.index)}
    found = {name: np.full((count, len(column)), np.nan) for name in wanted}
    row = 0
    for _, element in ElementTree.iterparse(path, events=("start",)):
        if element.tag == "interval":
            row = round((float(element.attrib["begin"]) - begin) / freq)
        elif element.tag == "edge":
            place = column[element.attrib["id"]]
            for name in wanted:
                if name in element.attrib:
                    found[name][row, place] = float(element.attrib[name])
    return found
