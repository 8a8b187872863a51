"""``citybrain train``, ``evaluate`` and ``export``."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_datasets.outputs import writable_folder
from citybrain_datasets.signals import KINDS
from citybrain_datasets.task import Task
from citybrain_training.config import TrainConfig, read_config

if TYPE_CHECKING:  # torch takes seconds to import, which a help page should not
    import pandas as pd

    from citybrain_models.bundle import Bundle
    from citybrain_models.forecaster import Forecaster
    from citybrain_training.preparation import Preparation

PROTOCOLS = Path(__file__).parent / "protocols"

JUDGED = {
    "champion": "there was none before it, so no gate was asked",
    "challenger": "no gate has judged it; `citybrain retrain` trains one that is held against the champion",
}
"""What is told of a model that was registered, by the alias it got."""

console = Console(stderr=True)


class TaskName(StrEnum):
    congestion = "congestion"
    pm25 = "pm25"


CityArgument = Annotated[str, typer.Argument(metavar="CITY", help="folder of a saved city, or 'embedded'")]
TaskOption = Annotated[TaskName, typer.Option("--task", help="what to forecast")]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="YAML", help="a YAML file, or the name of a protocol that ships with us"),
]


def followed(console: Console) -> bool:
    """Whether a bar on ``console`` shows how far a training is. Where none can, as in a file, each epoch is a line."""
    log = logging.getLogger("citybrain_training.progress")  # by its name: the module itself imports torch
    if not console.is_terminal and not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
    return console.is_terminal


def train(
    city: CityArgument,
    task: TaskOption,
    config: ConfigOption = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run", show_default="runs/CITY-TASK")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="overrides the configuration's seed")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="overrides the configuration's epochs")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the run's last checkpoint")] = False,
    track: Annotated[bool, typer.Option(help="log to MLflow and register the model")] = True,
    home: Annotated[Path, typer.Option(help="folder of MLflow's database when MLFLOW_TRACKING_URI is not set")] = Path(
        "runs"
    ),
) -> None:
    """Train a forecast, compare it with the baselines on the test windows, and write its bundle."""
    from citybrain_training.pipeline import OURS
    from citybrain_training.pipeline import train as run

    settings = load_config(config)
    if seed is not None:
        settings = settings.merged({"seed": seed})
    if epochs is not None:
        settings = settings.merged({"fit": {"epochs": epochs}})
    loaded = City.load(city)
    folder = writable_folder(out or Path("runs") / f"{loaded.name}-{task.value}", "--out")
    if track:
        writable_folder(home, "--home")
    outcome = run(
        loaded, task.value, settings, folder, home=home if track else None, resume=resume, progress=followed(console)
    )
    print_scores(outcome.bundle.task, outcome.tables)
    fitted = outcome.fitted
    console.print(
        f"{OURS}: {fitted.parameters:,} parameters, {fitted.epochs} epochs, {fitted.cpu_seconds / 60:.1f} CPU minutes"
    )
    if outcome.registered:
        console.print("registered {} version {} as {}: {}".format(*outcome.registered, JUDGED[outcome.registered[2]]))
    typer.echo(outcome.folder)


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle")],
    city: CityArgument,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the scores as JSON")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="score the events instead: congestion's onset and end, PM2.5 grades")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="with --events: draw how reliable the probabilities are")] = None,
) -> None:
    """Score a bundle beside persistence and the weekly profile on a city's test windows."""
    from citybrain_models.onnx_forecaster import OnnxForecaster
    from citybrain_training.pipeline import OURS, beside_baselines, score

    if plot is not None and not events:
        raise ConfigError("--plot draws the reliability of events; it needs --events")
    read, preparation = tested(bundle, city, config)
    ours = OnnxForecaster(read, preparation.config.threads)
    if events:
        tell_events({OURS: ours} | beside_baselines(preparation), preparation, as_json, plot)
        return
    tables = score(preparation, {OURS: ours})
    if as_json:
        typer.echo(json.dumps(tables, indent=1))
    else:
        print_scores(read.task, tables)


def named(config: str | None) -> str:
    """How a command's record tells of its configuration: by name, and not where files lie on this machine."""
    return f" --config {Path(config).stem}" if config else ""


def tested(bundle: Path, city: str, config: str | None) -> tuple[Bundle, Preparation]:
    """A bundle and the city it is to be tested on, prepared for its task; told where it learnt from what it is tested
    on.

    Raises :class:`ConfigError` where it was trained for other nodes.
    """
    from citybrain_models.bundle import Bundle
    from citybrain_training.preparation import prepare

    read = Bundle.read(bundle)
    loaded = City.load(city)
    if loaded.ids(read.task.node) != read.city.ids(read.task.node):
        raise ConfigError(
            f"{bundle}: was trained for the {read.task.node} nodes of {read.city.name!r}, "
            f"which are not those of {loaded.name!r}"
        )
    settings = load_config(config).merged({"task": read.task.model_dump(exclude={"name", "node"})})
    preparation = prepare(loaded, read.task.name, settings)
    test = preparation.split.test
    console.print(
        f"{len(test)} test windows, issued {test[0]:%Y-%m-%d %H:%M} to {test[-1]:%Y-%m-%d %H:%M} UTC",
        soft_wrap=True,
        highlight=False,
    )
    if doubt := _known_before(read, test):
        console.print(f"[yellow]warning[/]  {bundle}: {doubt}", soft_wrap=True, highlight=False)
    return read, preparation


def _known_before(bundle: Bundle, test: pd.DatetimeIndex) -> str | None:
    """What is to be said of test windows that a bundle was trained, chosen or calibrated with; None where there are
    none, or where it is older than this is kept."""
    import pandas as pd

    from citybrain_models.bundle import LEARNT_FROM

    spans = bundle.metrics.get(LEARNT_FROM, {}).values()
    known = sum(((test >= pd.Timestamp(first)) & (test <= pd.Timestamp(last))).sum() for first, last in spans)
    if not known:
        return None
    last = max(pd.Timestamp(last) for _, last in spans)
    return (
        f"learnt from windows until {last:%Y-%m-%d %H:%M} UTC, {known} of these {len(test)} test windows among them: "
        "the scores flatter it; --config names the split that it was trained with"
    )


def export(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run")],
    city: CityArgument,
    task: TaskOption,
    out: Annotated[Path, typer.Option(help="folder of the bundle to write")],
    config: ConfigOption = None,
) -> None:
    """Turn a checkpoint into a bundle: ONNX, proven equal to torch, with all that serving needs."""
    from citybrain_models.bundle import LEARNT_FROM
    from citybrain_training.export import make_bundle
    from citybrain_training.fitting import load_weights
    from citybrain_training.module import ForecastModule, build_network
    from citybrain_training.preparation import prepare
    from citybrain_training.weights import check_ground

    preparation = prepare(City.load(city), task.value, load_config(config))
    module = ForecastModule(build_network(preparation), preparation)
    told = check_ground(checkpoint, preparation)
    load_weights(module, checkpoint)
    draft = make_bundle(module, preparation)
    if not told:  # of an earlier version: what it learnt from is not known
        draft = replace(draft, metrics={name: found for name, found in draft.metrics.items() if name != LEARNT_FROM})
        console.print(f"[yellow]warning[/]  {checkpoint}: does not say what it was trained on", soft_wrap=True)
    bundle = draft.write(out)
    console.print(f"bundle {bundle.version}, {len(bundle.model) / 1e6:.1f} MB of ONNX")
    typer.echo(out)


def tell_events(models: dict[str, Forecaster], preparation: Preparation, as_json: bool, plot: Path | None) -> None:
    """Scores of event forecasts, printed, and drawn to ``plot`` where given."""
    from citybrain_models.events import alarmed
    from citybrain_training.events import save_reliability, score_events

    found = {name: score_events(model, preparation) for name, model in models.items()}
    if plot is not None:
        save_reliability(found, plot)
    if as_json:
        typer.echo(json.dumps({name: vars(scores) for name, scores in found.items()}, indent=1))
        return
    happened = list(dict.fromkeys(event for scores in found.values() for event in scores.tables))
    if not happened:
        console.print("no event that we score happened in the test windows")
    for event in happened:
        rate = max(scores.tables[event]["base_rate"] for scores in found.values())
        table = Table(
            title=f"{event}: happened in {rate:.2%} of the cases",
            caption="POD: share of events foreseen; FAR: of alarms that were false; CSI: hits among hits, misses and "
            "false alarms; skill: against always telling how often it happens",
        )
        for column in ("model", "POD", "FAR", "CSI", "Brier", "Brier skill"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for name, scores in found.items():
            row = scores.tables[event]
            cells = {m: f"{row[m]:.3f}" for m in ("pod", "far", "csi", "brier", "brier_skill")}
            if not alarmed(row["pod"], row["far"]):
                cells["far"] = "no alarm"
            table.add_row(name, *cells.values())
        console.print(table)


def load_config(name: str | None) -> TrainConfig:
    """Reads a configuration by path, or by the name of a protocol that ships with the package."""
    if name is None:
        return read_config(None)
    shipped = PROTOCOLS / f"{name}.yaml"
    return read_config(shipped if shipped.exists() else name)


def print_scores(task: Task, tables: dict[str, dict[str, dict[str, float]]]) -> None:
    """A table of scores by model at a few leads and over all."""
    unit = KINDS[task.target].unit
    last = task.horizon - 1
    leads = [task.lead_label(i) for i in dict.fromkeys((last // 4, last // 2, last))]
    promised = task.quantiles[-1] - task.quantiles[0]
    table = Table(
        title=f"{task.name}, test windows: mean absolute error by lead, {unit}",
        caption=f"covered: outcomes between the outer quantiles, which promise {promised:.0%}; width: between these",
    )
    for column in ("model", *leads, "mean", "RMSE", "covered", "width"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for model, rows in tables.items():
        mean = rows["mean"]
        cells = [f"{rows[lead]['mae']:.3f}" for lead in leads]
        table.add_row(
            model,
            *cells,
            f"{mean['mae']:.3f}",
            f"{mean['rmse']:.3f}",
            f"{mean['coverage']:.1%}",
            f"{mean['width']:.2f}",
        )
    console.print(table)
