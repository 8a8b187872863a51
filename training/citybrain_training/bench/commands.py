"""``citybrain bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from citybrain_datasets.errors import ConfigError
from citybrain_training.bench.cases import CASES, MEASURED, chosen_cases
from citybrain_training.peers.registry import SUBJECTS, chosen

console = Console(stderr=True)


def bench(
    cases: Annotated[str, typer.Option(help=f"of {', '.join(CASES)}")] = ",".join(MEASURED),
    subjects: Annotated[str, typer.Option(help=f"of {', '.join(SUBJECTS)}")] = ",".join(SUBJECTS),
    seeds: Annotated[str, typer.Option(help="numbers, separated by commas")] = "1",
    budget_minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="CPU minutes of training for every model alike", show_default="each in full"),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads of every model")] = 1,
    device: Annotated[str, typer.Option(help="torch device that networks train on")] = "cpu",
    cities: Annotated[Path, typer.Option(help="folder with the imported cities")] = Path("cities"),
    work: Annotated[Path, typer.Option(help="folder of finished runs, one JSON each")] = Path("runs/bench"),
    out: Annotated[Path, typer.Option(help="folder of the records and the plots")] = Path("benchmarks"),
    name: Annotated[str, typer.Option(help="of the file of records, without .json")] = "accuracy",
    docs: Annotated[Path, typer.Option(help="page whose chapter of that name is written")] = Path("docs/benchmarks.md"),
    finished: Annotated[
        bool, typer.Option("--finished", help="write the table of what is finished and run nothing")
    ] = False,
    again: Annotated[str, typer.Option(help="subjects to run anew though finished, after their code changed")] = "",
    page: Annotated[
        bool, typer.Option("--page", help="write the whole page anew from all files of records and run nothing")
    ] = False,
) -> None:
    """Run our models and others on the same windows, and write the table of what came out.

    Stop it at any time with Ctrl-C: the same command goes on after the last finished run.
    """
    from citybrain_training.bench.page import write_comparison, write_page
    from citybrain_training.bench.plots import draw
    from citybrain_training.bench.results import flat_records, merge
    from citybrain_training.bench.runner import Plan, run_plan
    from citybrain_training.peers.peer import Budget

    if finished and again:
        raise ConfigError("--finished runs nothing; --again asks for runs")
    if page:
        write_page(out, docs)
        console.print(f"wrote {docs}")
        return
    plan = Plan(
        cases=chosen_cases(_names(cases)),
        subjects=chosen(_names(subjects)),
        seeds=_numbers(seeds),
        budget=Budget(budget_minutes, threads=threads, device=device),
        cities=cities,
        work=work,
        again=frozenset(chosen(_names(again))),
        finished=finished,
    )
    try:
        runs, failures = run_plan(plan, console.print)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        console.print("stopped; the same command goes on after the last finished run")
        raise typer.Exit(130) from None
    if runs:
        merge(out / f"{name}.json", flat_records(runs))
        draw(runs, out / "plots" / name)
        write_comparison(out, docs, name)
        console.print(f"wrote {out / f'{name}.json'} and {docs}")
    for failure in failures:
        console.print(f"failed: {failure.case}, {failure.subject}, seed {failure.seed}: {failure.reason}")
    if failures:
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(name) for name in _names(text)]
    except ValueError:
        raise ConfigError(f"--seeds: {text!r} is no list of whole numbers") from None
    if not numbers:
        raise ConfigError("--seeds: names no seed")
    return numbers
