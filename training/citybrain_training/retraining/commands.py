"""``citybrain retrain``, ``promote``, ``rollback`` and ``fetch``."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from citybrain_datasets.city import City
from citybrain_datasets.outputs import writable_folder
from citybrain_training.commands import CityArgument, TaskOption, followed, load_config

console = Console(stderr=True)

Home = Annotated[Path, typer.Option(help="folder of MLflow's database when MLFLOW_TRACKING_URI is not set")]
Model = Annotated[str, typer.Argument(metavar="NAME", help="registered model: CITY-TASK")]
Reason = Annotated[str, typer.Option(help="kept in the registry's history")]


def retrain(
    city: CityArgument,
    task: TaskOption,
    config: Annotated[str | None, typer.Option(metavar="YAML", help="instead of the champion's own")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run", show_default="runs/CITY-TASK-TIME")] = None,
    recent_days: Annotated[
        int | None, typer.Option(min=1, help="days the gate looks at", show_default="7, or 5 horizons")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="instead of the configuration's")] = None,
    promote: Annotated[bool, typer.Option(help="promote a challenger that passes the gate")] = True,
    home: Home = Path("runs"),
) -> None:
    """Train a challenger on new data from the champion's weights; promote it only if it is better.

    Exit code 0 where it took the champion's place or may, 3 where the gate refused it.
    """
    from citybrain_training.retraining.job import RetrainPlan
    from citybrain_training.retraining.job import retrain as run

    loaded = City.load(city)
    folder = out or Path("runs") / f"{loaded.name}-{task.value}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    writable_folder(home, "--home")
    done = run(
        loaded,
        task.value,
        folder,
        home=home,
        config=None if config is None else load_config(config),
        plan=RetrainPlan(recent_days=recent_days, epochs=epochs, promote=promote),
        by=_who(),
        progress=followed(console),
    )
    console.print(done.verdict.markdown(), markup=False, soft_wrap=True)
    if done.move is not None:
        console.print(f"{done.move.name}: version {done.move.version} is champion instead of {done.move.previous}")
    elif not done.verdict.passed:
        console.print(f"version {done.champion} stays champion")
    typer.echo(done.outcome.folder)
    if not done.verdict.passed:
        raise typer.Exit(3)


def promote(
    name: Model,
    version: Annotated[
        str | None, typer.Option(help="number of a registered version", show_default="the challenger")
    ] = None,
    reason: Reason = "by hand",
    anyway: Annotated[bool, typer.Option("--anyway", help="though the champion's gate did not let it pass")] = False,
    home: Home = Path("runs"),
) -> None:
    """Make a registered version the champion.

    Where there is a champion, the gate must have let the version pass against it, as `citybrain retrain` has it judged.
    """
    from citybrain_training.retraining.registry import promote as run
    from citybrain_training.tracking import connect

    connect(writable_folder(home, "--home"))
    move = run(name, version, by=_who(), reason=reason, anyway=anyway)
    typer.echo(f"{name}: version {move.version} is champion instead of {move.previous or 'none'}")
    if move.previous is None:
        console.print("there was no champion to hold it against, so no gate was asked")
    if move.against is not None:
        console.print(f"it {move.against}", markup=False, soft_wrap=True)


def rollback(name: Model, reason: Reason = "by hand", home: Home = Path("runs")) -> None:
    """Give the champion's place back to the version before it."""
    from citybrain_training.retraining.registry import rollback as run
    from citybrain_training.tracking import connect

    connect(writable_folder(home, "--home"))
    move = run(name, by=_who(), reason=reason)
    typer.echo(f"{name}: version {move.version} is champion again instead of {move.previous}")


def fetch(
    uri: Annotated[str, typer.Argument(metavar="URI", help="models:/NAME@champion, or models:/NAME/VERSION")],
    out: Annotated[Path, typer.Option(help="folder of the bundle; a bundle that is there is replaced")],
    home: Home = Path("runs"),
) -> None:
    """Bring a registered bundle to where a server reads it, so that the server needs no MLflow."""
    from citybrain_training.retraining.registry import fetch as run
    from citybrain_training.tracking import connect

    writable_folder(out.parent, "--out")
    connect(writable_folder(home, "--home"))
    bundle = run(uri, out)
    console.print(f"bundle {bundle.version}, {bundle.city.name} {bundle.task.name}, of {bundle.created}")
    typer.echo(out)


def _who() -> str:
    """The user's name for the history; a container may have none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
