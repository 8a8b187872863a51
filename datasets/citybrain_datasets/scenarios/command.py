"""``citybrain simulate``: scenarios through SUMO."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from citybrain_datasets.errors import ConfigError
from citybrain_datasets.scenarios.actions import Window, compile_actions, read_window
from citybrain_datasets.scenarios.air import read_assumptions
from citybrain_datasets.scenarios.checking import check_places, check_purposes, check_weather
from citybrain_datasets.scenarios.dataset import generate
from citybrain_datasets.scenarios.idle import Idle, changing_nothing
from citybrain_datasets.scenarios.own_network import open_network
from citybrain_datasets.scenarios.reading import read_scenarios
from citybrain_datasets.scenarios.results import write_results
from citybrain_datasets.scenarios.site import Site, open_site
from citybrain_datasets.scenarios.trips import electric_already
from citybrain_datasets.scenarios.truth import Simulator

WITHOUT_MIXED = ("scenarios", "replications", "air", "cache")
WITH_MIXED = ("seed", "first", "mornings")


def simulate(
    context: typer.Context,
    scenarios: Annotated[list[Path] | None, typer.Argument(help="Scenario files: .yaml or .jsonl.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("simulated"),
    city: Annotated[str, typer.Option(help="Folder of a simulated city or own network, or `embedded`.")] = "embedded",
    network: Annotated[Path | None, typer.Option(help="Your own SUMO network instead, .net.xml or .gz.")] = None,
    demand: Annotated[Path | None, typer.Option(help="Its trips, routes or flows, .rou.xml.")] = None,
    begin: Annotated[str | None, typer.Option(help="Start of the window, local HH:MM; else the city's, 07:00.")] = None,
    end: Annotated[str | None, typer.Option(help="Its end; whole hours; else the city's, 09:00.")] = None,
    off: Annotated[bool, typer.Option(help="A weekend or public holiday.")] = False,
    replications: Annotated[int, typer.Option(min=1, help="Days simulated for each; from two on, noise is told.")] = 3,
    air: Annotated[Path | None, typer.Option(help="YAML of assumptions about the air.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where runs are kept; default OUT/cache.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    mixed: Annotated[int, typer.Option(min=0, help="Instead: so many runs of random measures, to learn from.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the random measures.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Number of the first of them.")] = 0,
    mornings: Annotated[int, typer.Option(min=0, help="Each of them on the first so many mornings; 0: on one.")] = 0,
) -> None:
    """Simulate measures with SUMO: congestion, emissions and PM2.5 against the same mornings without them."""
    _refuse_unused(context, bool(mixed))
    site = _site(city, network, demand)
    window = read_window("simulate", site.window or Window(), begin, end, off)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
    if mixed:
        with bar:
            task = bar.add_task("Windows simulated", total=None)
            generate(
                site, out, mixed, first=first, seed=seed, window=window, mornings=range(mornings), workers=workers,
                progress=lambda n, of: bar.update(task, completed=n, total=of),
            )  # fmt: skip
        return
    if not scenarios:
        raise ConfigError("simulate: name a file of scenarios, or --mixed N")
    asked = read_scenarios(*scenarios)
    check_places(asked, site.city)
    check_purposes(asked, site.city, site.purposes)
    check_weather(asked, site.city, window)
    idle = Idle(
        site.city, window.timetable(), signalled=site.signalled, informed=site.informed_share,
        electric=electric_already(site.trips(0, window)["type"].to_numpy(dtype=object)),
    )  # fmt: skip
    for problem in changing_nothing(asked, idle):
        typer.echo(f"Note: {problem}", err=True)
    chosen = list(asked)
    for scenario in chosen:
        compile_actions(scenario, site.city, window)  # so that a sweep's wrong place is told before hours of simulation
    simulator = Simulator(site, cache or out / "cache", window, replications, read_assumptions(air or site.assumptions))
    with bar:
        task = bar.add_task("Windows simulated", total=None)
        simulator.run_all(chosen, workers, lambda n, of: bar.update(task, completed=n, total=of))
    outcomes = write_results([simulator.truth(s) for s in chosen], site, out)
    table = Table("scenario", "delay veh·h", "±", "emission kg", "PM2.5 people µg/m³", "evidence", box=None)
    for row in outcomes.to_dict("records"):
        change = [f"{row[n + '_change']:+.4g}" for n in ("delay_veh_h", "emission_kg", "pm25_people")]
        table.add_row(
            str(row["scenario"]), change[0], f"{row['delay_veh_h_noise']:.2g}", *change[1:], str(row["evidence"])
        )
    Console().print(table)
    typer.echo(f"{out}: {len(outcomes)} scenarios against their base")


def _refuse_unused(context: typer.Context, mixed: bool) -> None:
    """Raises :class:`ConfigError` for what was given and would not be looked at."""
    for name in WITHOUT_MIXED if mixed else WITH_MIXED:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given = "a file of scenarios" if name == "scenarios" else f"--{name}"
            raise ConfigError(f"simulate: {given} is of no use {'with' if mixed else 'without'} --mixed")


def _site(city: str, network: Path | None, demand: Path | None) -> Site:
    if network is None and demand is None:
        return open_site(city)
    if network is None or demand is None:
        raise ConfigError("simulate: --network and --demand go together")
    return open_network(network, demand)
