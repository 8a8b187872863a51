"""From the street plan to a SUMO network, and from any SUMO network to the tables of a City."""

from __future__ import annotations

import gzip
import re
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd

from citybrain_datasets.errors import CityBrainError, CityError, Problem, installing
from citybrain_datasets.simulation.projection import to_metres
from citybrain_datasets.simulation.streets import CLASSES, Street

_MOTORISED = ("passenger", "custom1", "evehicle", "delivery", "truck", "taxi", "trailer", "authority")
"""SUMO classes of the vehicles that runs have; what is for none of them (rails, footways) is no segment."""


class SimulationError(CityBrainError):
    """SUMO is absent, or refused its input; the message carries what it said."""


def sumo_binary(name: str) -> str:
    """Path of a program that the ``eclipse-sumo`` wheel brings, such as ``sumo`` or ``netconvert``."""
    try:
        import sumo
    except ImportError:
        raise SimulationError(f"SUMO is not installed: {installing('scenarios')}") from None
    return str(Path(sumo.SUMO_HOME) / "bin" / name)


def run_sumo_tool(name: str, *arguments: str) -> None:
    """Runs one SUMO program to its end; :class:`SimulationError` with its last words if it fails."""
    done = subprocess.run([sumo_binary(name), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SimulationError(f"{name} failed: {(done.stderr or done.stdout).strip()[-800:]}")


def build_network(streets: list[Street], target: Path) -> None:
    """Writes the SUMO network of ``streets`` to ``target`` (``.net.xml.gz``), the same bytes for the same
    streets.

    Coordinates are metres east and north of the city's centre.
    """
    junctions = {j.id: j for s in streets for j in (s.source, s.target)}
    nodes = "".join(
        f'<node id="{j.id}" x="{j.x}" y="{j.y}" type="{"traffic_light" if j.signals else "priority"}"/>\n'
        for j in junctions.values()
    )
    edges = "".join(
        f'<edge id="{s.id}" from="{s.source.id}" to="{s.target.id}" type="{s.road_class}" '
        f"name={quoteattr(s.name)} "
        f'numLanes="{kind.lanes}" speed="{kind.speed_kmh / 3.6:.4f}" priority="{kind.priority}"/>\n'
        for s in streets
        for kind in [CLASSES[s.road_class]]
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "nodes.nod.xml").write_text(f"<nodes>\n{nodes}</nodes>\n", encoding="utf-8")
        (work / "edges.edg.xml").write_text(f"<edges>\n{edges}</edges>\n", encoding="utf-8")
        run_sumo_tool(
            "netconvert", "-n", str(work / "nodes.nod.xml"), "-e", str(work / "edges.edg.xml"),
            "-o", str(work / "out.net.xml"), "--no-turnarounds.except-deadend", "--no-internal-links",
            "--offset.disable-normalization", "--output.street-names", "--no-warnings",
        )  # fmt: skip
        text = (work / "out.net.xml").read_text(encoding="utf-8")
    # The leading comment holds the time of day and our temporary paths.
    text = re.sub(r"<!--.*?-->\s*", "", text, count=1, flags=re.DOTALL)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_bytes(gzip.compress(text.encode(), mtime=0))
    part.replace(target)


def read_segments(network: Path) -> pd.DataFrame:
    """Segments of a SUMO network, sorted by id: its edges on which motor vehicles may drive.

    Index ``id``; columns ``x0 y0 x1 y1`` (ends, metres in network coordinates), ``length_m``, ``lanes``,
    ``free_speed_kmh``, ``road_class`` (the SUMO edge type), ``name``. Raises :class:`CityError` where the file cannot
    be read or holds no such edge.
    """
    rows = []
    for edge in _net(network).getEdges():
        if not any(edge.allows(kind) for kind in _MOTORISED):
            continue
        (x0, y0), (x1, y1) = edge.getShape()[0], edge.getShape()[-1]
        rows.append((edge.getID(), x0, y0, x1, y1, edge.getLength(), edge.getLaneNumber(),
                     edge.getSpeed() * 3.6, edge.getType(), edge.getName() or ""))  # fmt: skip
    if not rows:
        raise CityError([Problem(str(network), "has no road; is it a SUMO network (.net.xml)?")])
    columns = ["id", "x0", "y0", "x1", "y1", "length_m", "lanes", "free_speed_kmh", "road_class", "name"]
    return pd.DataFrame(rows, columns=columns).set_index("id").sort_index()


def read_signalled(network: Path) -> frozenset[str]:
    """Ids of the edges of a SUMO network at whose end a traffic light stands: what SUMO's mesoscopic model takes for
    signals is taken there, and nowhere else. Needs no SUMO. Raises :class:`CityError` where the file cannot be read.
    """
    opened = gzip.open if network.suffix == ".gz" else open
    found = set[str]()
    try:
        with opened(network, "rb") as file:
            for _, element in ElementTree.iterparse(file):
                if element.tag == "connection" and "tl" in element.attrib:
                    found.add(element.get("from", ""))
                element.clear()
    except (OSError, EOFError, ElementTree.ParseError) as error:
        raise CityError([Problem(str(network), f"cannot be read: {error}")]) from error
    return frozenset(found)


def read_placed(network: Path) -> tuple[float, float, pd.DataFrame]:
    """Latitude and longitude of a network's centre, and its segments with ends in metres around it.

    A network without geographic projection is laid around 0° N 0° E. Raises as :func:`read_segments`.
    """
    segments, net = read_segments(network), _net(network)
    try:
        projected = net.hasGeoProj()
    except KeyError:  # it says nothing of its place
        projected = False
    if not projected:
        return 0.0, 0.0, segments
    ends = {f"{a}{i}": segments[f"{a}{i}"].to_numpy() for a in "xy" for i in "01"}
    degrees = {
        i: np.array([net.convertXY2LonLat(x, y) for x, y in zip(ends[f"x{i}"], ends[f"y{i}"], strict=True)])
        for i in "01"
    }
    longitude, latitude = (np.vstack(list(degrees.values())).mean(axis=0)).tolist()
    changed = {}
    for i, at in degrees.items():
        changed[f"x{i}"], changed[f"y{i}"] = to_metres(at[:, 1], at[:, 0], latitude, longitude)
    return latitude, longitude, segments.assign(**changed)


def read_connections(network: Path, segments: pd.DataFrame) -> pd.DataFrame:
    """``road-road`` edges of a City: which segment feeds which, with the distance between their middles."""
    known = set(segments.index)
    # Turning round in the road is possible, but no way by which congestion spreads.
    pairs = [
        (edge.getID(), target.getID())
        for edge in _net(network).getEdges()
        for target in edge.getOutgoing()
        if target.getToNode() is not edge.getFromNode() and {edge.getID(), target.getID()} <= known
    ]
    table = pd.DataFrame(sorted(pairs), columns=["source", "target"])
    x, y = (segments[f"{a}0"].add(segments[f"{a}1"]).div(2) for a in "xy")
    east = x.loc[table["target"]].to_numpy() - x.loc[table["source"]].to_numpy()
    north = y.loc[table["target"]].to_numpy() - y.loc[table["source"]].to_numpy()
    halves = segments["length_m"].div(2)
    table["distance_m"] = (halves.loc[table["source"]].to_numpy() + halves.loc[table["target"]].to_numpy()).round(1)
    table["bearing_deg"] = np.round(np.degrees(np.arctan2(east, north)) % 360, 1)
    return table


def _net(network: Path):  # type: ignore[no-untyped-def]  # sumolib publishes no types
    try:
        import sumolib
    except ImportError:
        raise SimulationError(f"SUMO is not installed: {installing('scenarios')}") from None
    try:
        return sumolib.net.readNet(str(network))
    except OSError as error:
        raise CityError([Problem(str(network), f"cannot be read: {error.strerror or error}")]) from error
    except Exception as error:  # its reader takes what it expects for given, and fails in as many ways as files can be
        raise CityError([Problem(str(network), "is no SUMO network (.net.xml)")]) from error
