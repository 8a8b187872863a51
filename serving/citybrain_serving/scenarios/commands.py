"""``citybrain score``: what measures would do, ranked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from citybrain_datasets.processes import terminated_as_interrupted
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_datasets.scenarios.reading import read_scenarios
from citybrain_datasets.scenarios.telling import in_words, signed
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_serving.scenarios.engine import Engine, LocalEngine, RayEngine, Work
from citybrain_serving.scenarios.parts import clear, folder_of, write_table
from citybrain_serving.scenarios.ranking import parse_weights, unpriced
from citybrain_serving.scenarios.report import write_report
from citybrain_serving.scenarios.run import (
    Outcome,
    check_city,
    check_scenarios,
    check_target,
    check_weighed,
    score_to,
    surrogate_for,
)

console = Console(stderr=True)


class EngineName(StrEnum):
    local = "local"
    ray = "ray"


def score(
    scenarios: Annotated[list[Path], typer.Argument(help="scenario files, YAML or JSON Lines")],
    city: Annotated[str, typer.Option(help="'embedded', or the folder of a city")] = "embedded",
    out: Annotated[Path, typer.Option(help="Parquet file of the ranking, *.parquet")] = Path("ranking.parquet"),
    weights: Annotated[
        str | None, typer.Option(help="what counts how much: delay_veh_h=1,pm25_people=1 by default")
    ] = None,
    surrogate: Annotated[Path | None, typer.Option(help="folder of a surrogate; the city's own by default")] = None,
    verify: Annotated[int, typer.Option(min=0, help="send so many of the best through SUMO")] = 0,
    engine: Annotated[EngineName, typer.Option(help="processes of this machine, or a Ray cluster")] = EngineName.local,
    address: Annotated[str | None, typer.Option(help="address of the Ray cluster")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes", show_default="one a core")] = None,
    cores: Annotated[
        int | None, typer.Option(min=1, help="cores of each worker", show_default="a local one's share; on Ray one")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="throw away what a broken-off run has scored")] = False,
    report: Annotated[bool, typer.Option(help="write an HTML report beside the ranking")] = True,
) -> None:
    """Score scenarios by the surrogate and rank them; a run broken off goes on with the same command."""
    weighed = parse_weights(weights)
    check_target(out)
    work = Work(read_scenarios(*scenarios), surrogate_for(city, surrogate).absolute(), city)
    check_city(work)
    check_weighed(work, weighed)
    for problem in check_scenarios(work):
        typer.echo(f"Note: {problem}", err=True)
    if verify:
        from citybrain_serving.scenarios.verify import check_simulator

        check_simulator(city)
    chosen: Engine
    there = len(os.sched_getaffinity(0))
    if engine is EngineName.ray:
        chosen = RayEngine(address, workers, cores or 1)
    else:
        count = max(1, min(workers or there // (cores or 1), work.chunks))
        chosen = LocalEngine(count, cores or max(1, there // count))
    try:
        with terminated_as_interrupted():
            done = _scored(work, out, weighed, chosen, restart=restart, keep=bool(verify))
            _show(work, done, weighed)
            checked = _verified(work, out, done, verify, workers or there) if verify else None
            if checked is not None:
                _show_verified(checked, weighed)
            if report:
                page = out.with_suffix(".html")
                write_report(work, done.table, weighed, page, checked)
                typer.echo(page)
    except KeyboardInterrupt:
        console.print("interrupted; what is done is kept, and the same command goes on from there")
        raise typer.Exit(130) from None
    clear(out)
    typer.echo(out)


def _scored(
    work: Work, out: Path, weights: Mapping[str, float], engine: Engine, *, restart: bool, keep: bool
) -> Outcome:
    with _progress() as bar:
        task = bar.add_task("scoring", total=len(work.scenarios))
        return score_to(
            work, out, weights, engine, restart=restart, keep=keep, progress=lambda n: bar.update(task, completed=n)
        )


def _verified(work: Work, out: Path, done: Outcome, count: int, workers: int) -> pa.Table:
    """The best through SUMO, written beside the ranking; each morning is kept beside the scored pieces."""
    from citybrain_serving.scenarios.verify import verified_path, verify

    with _progress() as bar:
        task = bar.add_task("simulating", total=None)
        checked = verify(
            work, done.table, count, folder_of(out) / "simulated", workers=workers,
            progress=lambda n, of: bar.update(task, completed=n, total=of),
        )  # fmt: skip
    write_table(checked, verified_path(out))
    typer.echo(verified_path(out))
    return checked


def apply_surrogate(
    city: Annotated[Path, typer.Argument(help="folder of a simulated city or own network")],
    surrogate: Annotated[
        Path | None, typer.Option(help="folder of the surrogate to apply; the one that ships by default")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="where it is written", show_default="CITY/surrogate")] = None,
    days: Annotated[int, typer.Option(min=1, help="working days that usual traffic is the mean of")] = 4,
) -> None:
    """Apply a surrogate to a city that it was not trained on; simulates that city's usual mornings."""
    from citybrain_datasets.scenarios.site import open_site
    from citybrain_datasets.scenarios.truth import simulate
    from citybrain_models.surrogate.applying import applied, window_there

    bundle = SurrogateBundle.read(surrogate_for("embedded", surrogate))
    site = open_site(city)
    window = window_there(bundle, site)
    with _progress() as bar:
        usual = bar.track(range(days), description="simulating")
        mornings = [simulate(site, Scenario(id="base"), day, window) for day in usual]
    target = out or city / "surrogate"
    applied(bundle, site, mornings).write(target)
    typer.echo(target)


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _show_verified(checked: pa.Table, weights: dict[str, float]) -> None:
    """What the surrogate said of the mornings that were simulated, and what SUMO says of them."""
    shown = Table(title="the best through SUMO; change on the mornings simulated")
    for column in ("rank", "scenario", "outcome", "surrogate, 90 % interval", "SUMO", "held"):
        shown.add_column(column, justify="right" if column in ("rank", "SUMO") else "left", overflow="fold")
    for row in checked.to_pylist():
        if weights.get(row["outcome"], 0) > 0:
            said = f"{signed(row['surrogate'])} ({signed(row['surrogate_low'])} … {signed(row['surrogate_high'])})"
            outcome = f"{row['outcome']}, {row['unit']}"
            cells = (outcome, said, signed(row["simulated"]), "yes" if row["held"] else "no")
            shown.add_row(str(row["rank"]), row["id"], *cells)
    console.print(shown)


def _show(work: Work, done: Outcome, weights: dict[str, float]) -> None:
    """The ten best, what the first of them is, and how many there were."""
    named = [name for name, weight in weights.items() if weight > 0 and name in OUTCOMES]
    dear = ["cost"] if done.table["cost"].drop_null().length() else []
    title = f"best of {done.table.num_rows:,} scenarios, {done.hours}; change against the base, 90 % interval"
    shown = Table(title=title)
    for column in ("rank", "scenario", *(f"{n}, {OUTCOMES[n].unit}" for n in named), *dear, "grade", "outside"):
        text = column in ("scenario", "grade", "outside")
        shown.add_column(column, justify="left" if text else "right", overflow="fold")
    for row in done.table.slice(0, 10).to_pylist():
        cells = [
            "{} ({} … {})".format(*(signed(row[f"{n}_change{end}"]) for end in ("", "_low", "_high"))) for n in named
        ]
        cells += ["" if row["cost"] is None else f"{row['cost']:g}" for _ in dear]
        shown.add_row(str(row["rank"]), row["id"], *cells, row["grade"], row["outside"])
    console.print(shown)
    best = work.scenarios[done.table["position"][0].as_py()]
    console.print(f"{best.id}: {in_words(best)}", highlight=False, markup=False)
    if (rivals := sum(done.table["maybe_best"].to_pylist()) - 1) > 0:
        console.print(f"{rivals} scenarios cannot be told from the best: the bounds of their scores reach its own")
    if last := unpriced(done.table, weights):
        console.print(f"{last} scenarios have no cost, which is weighed: they are ranked last")
    if done.found:
        console.print(f"{done.found} pieces had been scored before")
