"""``citybrain data own-network``: a user's SUMO network and demand as a city."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citybrain_datasets.scenarios.actions import STEP_MINUTES, WARM_UP, Window, read_window
from citybrain_datasets.scenarios.own_network import bring
from citybrain_datasets.scenarios.places import clock


def own_network(
    network: Annotated[Path, typer.Option(help="SUMO network, .net.xml or .gz.")],
    demand: Annotated[Path, typer.Option(help="Its trips, routes or flows, .rou.xml or .gz.")],
    out: Annotated[Path, typer.Option(help="Folder of the city.")],
    begin: Annotated[str | None, typer.Option(help="Start of the hours to simulate, local HH:MM; else 07:00.")] = None,
    end: Annotated[str | None, typer.Option(help="Their end; whole hours; else 09:00.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the city; else that of the network's file.")] = None,
    timezone: Annotated[str, typer.Option(help="Of the city, such as Asia/Shanghai.")] = "UTC",
    air: Annotated[Path | None, typer.Option(help="YAML of assumptions about the air.")] = None,
) -> None:
    """Bring a SUMO network with its demand in as a city: to simulate, to rank by the surrogate, to fine-tune it on."""
    window = read_window("own-network", Window(), begin, end)
    site = bring(network, demand, out, window, name=name or "", timezone=timezone, assumptions=air)
    trips, first = len(site.draw(0, window)), max(window.begin - WARM_UP * STEP_MINUTES, 0)
    typer.echo(
        f"{out}: {len(site.segments)} segments, {trips} trips from {clock(first)} to {clock(window.end)}\n"
        "not known: why anybody travels, districts, where people live (taken to be along the streets), air stations"
    )
