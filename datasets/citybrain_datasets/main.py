"""The command ``citybrain``: one subcommand a job, offered by the rooms that are installed.

Rooms register their subcommands in the entry-point group ``citybrain.commands``. Only the one that is called
is imported: torch and MLflow take seconds, and nobody should wait for them to read a help page.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from citybrain_datasets import __version__
from citybrain_datasets.errors import CityBrainError, installing

GROUP = "citybrain.commands"

# What the list of commands says about each without importing it, and the packages that it cannot run without.
SUMMARIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "data": ("Bring a city in, look at it, check it.", ()),
    "simulate": ("What if: measures through SUMO.", ("sumo", "sumolib", "scipy")),
    "score": ("What if: measures ranked by the hundred thousand.", ("onnxruntime",)),
    "apply-surrogate": ("Apply a surrogate to another city.", ("onnxruntime", "sumo", "scipy")),
    "train-surrogate": ("Train the surrogate of the traffic simulation.", ("torch", "lightning", "mlflow", "scipy")),
    "bench-scoring": ("Measure how fast scenarios are scored.", ("onnxruntime",)),
    "track-ranking": ("Keep a scoring run in MLflow.", ("mlflow", "lightning")),
    "tune-surrogate": ("Fine-tune a surrogate on another city.", ("torch", "lightning", "scipy")),
    "bench-scenarios": ("Measure the surrogate against the simulation.", ("torch", "lightning", "scipy")),
    "train": ("Train a network on a city.", ("torch", "lightning", "mlflow")),
    "evaluate": ("Measure a model against what happened.", ("torch", "lightning", "mlflow")),
    "export": ("Write a trained model as a bundle.", ("torch", "onnx")),
    "bench-serving": ("Measure the service under load.", ("fastapi", "uvicorn", "onnxruntime")),
    "bench-time": ("Time a command and record it.", ("torch", "lightning", "mlflow")),
    "effect": ("What a measure did: measured against business as usual.", ("sklearn",)),
    "bench": ("Compare our models with others'.", ("torch", "lightning", "mlflow")),
    "bench-robustness": ("Score a model when sensors fail.", ("torch", "lightning", "mlflow")),
    "bench-intervals": ("Measure how well intervals hold.", ("torch", "lightning", "mlflow")),
    "bench-precision": ("Measure what eight-bit integers cost and bring.", ("torch", "lightning", "onnx")),
    "bench-speed": ("Time the network against its size.", ("torch", "lightning", "onnx")),
    "tune": ("Search for a better configuration.", ("torch", "lightning", "mlflow", "optuna")),
    "retrain": ("Train a challenger on new data and hold it against the champion.", ("torch", "lightning", "mlflow")),
    "promote": ("Make a registered model the champion.", ("mlflow",)),
    "rollback": ("Give the champion's place back.", ("mlflow",)),
    "fetch": ("Bring a registered bundle to a server.", ("mlflow",)),
    "serve": ("Serve forecasts over HTTP.", ("fastapi", "uvicorn", "onnxruntime")),
    "store": ("Look after the store of observations.", ("sqlalchemy", "alembic", "pyarrow")),
    "keys": ("Make, list and revoke API keys.", ("fastapi", "argon2")),
    "audit": ("Read and verify the audit log.", ("fastapi", "argon2")),
    "demo": ("Everything once, on the embedded city.", ("torch", "lightning", "mlflow", "fastapi")),
}

EXTRAS = f"More commands come with the extras training, serving and scenarios: {installing('training')}."


def main(argv: Sequence[str] | None = None) -> None:
    """Console entry. What a person can mend is told in one message on stderr, with exit code 2: a
    :class:`CityBrainError`, and what the file system says of a path among the arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        build_app(arguments)(args=arguments, prog_name="citybrain")
    except CityBrainError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from error
    except OSError as error:
        if not _of_given_path(error, arguments):
            raise
        typer.echo(f"Error: {error.filename}: {error.strerror}", err=True)
        raise SystemExit(2) from error


def _of_given_path(error: OSError, arguments: Sequence[str]) -> bool:
    """Whether an error is about a path that was given, something in it, or a folder that it would lie in."""
    if not isinstance(error.filename, str):
        return False
    about = Path(error.filename).absolute()
    values = (a.partition("=")[2] if a.startswith("--") else a for a in arguments)
    given = [Path(value).absolute() for value in values if value]
    return any(about == path or path in about.parents or about in path.parents for path in given)


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The application with the called subcommand loaded and the others listed."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, epilog=EXTRAS.replace("[", r"\["))
    app.callback(help="Forecasts of road congestion and PM2.5 for a whole city.")(_root)
    called = next((a for a in arguments if not a.startswith("-")), None)
    for entry in sorted(entry_points(group=GROUP), key=_rank):
        summary, needs = SUMMARIES.get(entry.name, ("", ()))
        if entry.name == called:
            _register(app, entry.name, _load(entry))
        elif all(find_spec(package) is not None for package in needs):
            app.command(entry.name, help=summary)(_not_loaded)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"citybrain {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, help="Show the version.", is_eager=True)
    ] = False,
) -> None:
    """Holds the options of the command itself."""


def _rank(entry: EntryPoint) -> tuple[int, str]:
    order = list(SUMMARIES)
    return (order.index(entry.name) if entry.name in order else len(order), entry.name)


def _load(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing.startswith("citybrain_"):
            raise
        raise CityBrainError(f"`citybrain {entry.name}` needs the package {missing}. {EXTRAS}") from error


def _register(app: typer.Typer, name: str, command: object) -> None:
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    elif callable(command):
        app.command(name)(command)
    else:
        raise TypeError(f"entry point {name!r} of {GROUP} is neither a typer app nor a function")


def _not_loaded() -> None:
    """Stands in the list of commands for one that was not called."""


if __name__ == "__main__":
    main()
