"""``citybrain data``: bring a city in, look at it, check it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from citybrain_datasets.checking import CityReport, check, open_city
from citybrain_datasets.configuration import packaged_names, read_config
from citybrain_datasets.importing import import_city
from citybrain_datasets.report import Finding
from citybrain_datasets.store import CITIES, EMBEDDED, save_city

app = typer.Typer(help="Bring a city in, look at it, check it.", no_args_is_help=True)

CityArgument = Annotated[str, typer.Argument(help="A saved folder, a YAML, a packaged name, or `embedded`.")]
RootOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the paths in the YAML are relative to; else CITYBRAIN_DATA, else the YAML's own.",
        exists=True,
        file_okay=False,
    ),
]
COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


@app.command("import")
def import_(
    config: Annotated[str, typer.Argument(help="A YAML, or the name of a packaged one (`citybrain data list`).")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default cities/NAME.")] = None,
    source_root: RootOption = None,
) -> None:
    """Bring a city in by configuration alone, and save it."""
    city, report = import_city(config, source_root)
    folder = out or Path("cities") / city.name
    kept = json.dumps(report.as_dict(), ensure_ascii=False, indent=1).encode()
    save_city(city, folder, {"import.json": kept})
    console = Console()
    _print_findings(console, report.findings)
    nodes = ", ".join(f"{len(table)} {node} nodes" for node, table in city.nodes.items())
    console.print(f"{city.name}: {nodes}, {len(city.signals)} signals, saved in {folder}", soft_wrap=True)


@app.command("check")
def check_(
    city: CityArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    source_root: RootOption = None,
) -> None:
    """Report what is missing, stuck, out of range or out of order. Exit code 1 if there are errors."""
    report = check(city, source_root)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False, indent=1))
    else:
        _print_report(Console(), report)
    if report.errors:
        raise typer.Exit(1)


@app.command("list")
def list_() -> None:
    """The cities whose configuration ships with the package, where their files are from and how they must lie."""
    console = Console()
    if (CITIES / EMBEDDED / "city.yaml").is_file():
        _print_packaged(console, EMBEDDED, "the synthetic city inside the package", {})
    for name in packaged_names():
        config = read_config(CITIES / f"{name}.yaml")
        about = {
            "signals": ", ".join(signal for table in config.tables for signal in table.signals),
            "by": config.attribution,
            "source": str(config.source or ""),
            "files": ", ".join(config.files()),
        }
        _print_packaged(console, name, config.title, about)
    console.print(
        "Files lie below --source-root, else CITYBRAIN_DATA. If yours have another form, copy the YAML and change it.",
        soft_wrap=True,
    )


@app.command()
def show(city: CityArgument, source_root: RootOption = None) -> None:
    """What a city is made of: nodes, edges and signals."""
    found, _ = open_city(city, source_root)
    console = Console()
    kind = " (synthetic)" if found.synthetic else ""
    console.print(f"[bold]{found.name}[/]{kind}  {found.title}\n{found.timezone}  {found.country or ''}")
    for node, nodes in found.nodes.items():
        console.print(f"{node}: {len(nodes)} nodes, {int(nodes['lat'].notna().sum())} with a place")
    for relation, edges in found.edges.items():
        away = f", {edges['distance_m'].median():.0f} m at the median" if len(edges) else ""
        console.print(f"{relation}: {len(edges)} edges{away}")
    table = Table("signal", "unit", "at", "step", "first", "last", "steps", box=None)
    for signal in found.signals.values():
        span = (f"{signal.start:%Y-%m-%d %H:%M}", f"{signal.end:%Y-%m-%d %H:%M}")
        minutes = f"{signal.step.total_seconds() / 60:g} min"
        table.add_row(signal.name, signal.kind.unit, signal.node, minutes, *span, str(signal.shape[0]))
    console.print(table)


def _print_packaged(console: Console, name: str, title: str, about: dict[str, str]) -> None:
    console.print(f"[bold]{name}[/]  {title}", highlight=False, soft_wrap=True)
    for what, told in about.items():
        console.print(f"  {what:8} {told}", markup=False, highlight=False, soft_wrap=True)


_SPAN = "first, last, UTC"


def _print_report(console: Console, report: CityReport) -> None:
    table = Table(title=report.city, box=None, padding=(0, 1, 0, 0))
    for column in ("signal", "at", "nodes", "step", _SPAN, "missing", "longest gap", "silent", "stuck", "outside"):
        # A date that is cut short to fit a narrow window says nothing.
        table.add_column(column, overflow="fold", no_wrap=column == _SPAN)
    for s in report.signals:
        table.add_row(
            s.name, s.node, str(s.nodes), s.step, f"{s.first[:16]}\n{s.last[:16]}", f"{s.missing:.1%}",
            f"{s.longest_gap_h:g} h", str(s.silent_nodes), str(s.stuck_nodes), str(s.out_of_range),
        )  # fmt: skip
    console.print(table)
    _print_findings(console, report.findings)
    warnings = sum(finding.severity == "warning" for finding in report.findings)
    console.print(f"{len(report.errors)} errors, {warnings} warnings")


def _print_findings(console: Console, findings: list[Finding]) -> None:
    for finding in findings:
        colour = COLOURS[finding.severity]
        console.print(f"[{colour}]{finding.severity:8}[/] ", end="")
        console.print(str(finding), markup=False, highlight=False, soft_wrap=True)


def _offer_simulate() -> None:
    """The simulator is an extra; without it the other commands work."""
    if find_spec("sumolib") is None:
        return
    from citybrain_datasets.scenarios.own_command import own_network
    from citybrain_datasets.simulation.command import simulate

    app.command("simulate")(simulate)
    app.command("own-network")(own_network)


_offer_simulate()
