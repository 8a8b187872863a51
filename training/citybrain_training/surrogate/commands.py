"""``citybrain train-surrogate``, ``tune-surrogate`` and ``bench-scenarios``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from citybrain_datasets.errors import ConfigError
from citybrain_training.commands import followed
from citybrain_training.surrogate.config import SurrogateConfig

console = Console(stderr=True)

RunsArgument = Annotated[list[Path], typer.Argument(metavar="RUNS…", help="folders of simulated interventions")]
CityOption = Annotated[str, typer.Option(help="the city that was simulated: 'embedded', or its folder")]
TrainingOption = Annotated[Path, typer.Option(help="folder that train-surrogate left")]
OtherOption = Annotated[
    list[str] | None, typer.Option("--other", help="RUNS[,RUNS…]=CITY of another road network", metavar="RUNS=CITY")
]
CalibrateOption = Annotated[
    list[Path] | None, typer.Option(help="folder of more runs, on as many mornings as those tested on, for intervals")
]


def train_surrogate(
    runs: RunsArgument,
    city: CityOption = "embedded",
    calibrate: CalibrateOption = None,
    out: Annotated[Path | None, typer.Option(help="folder of the training", show_default="runs/surrogate-CITY")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of settings")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="overrides the configuration's")] = None,
    also: OtherOption = None,
    track: Annotated[bool, typer.Option(help="log to MLflow")] = True,
    home: Annotated[Path, typer.Option(help="folder of MLflow's database when MLFLOW_TRACKING_URI is not set")] = Path(
        "runs"
    ),
) -> None:
    """Train the surrogate on simulated interventions, and write the bundle that `citybrain score` reads."""
    from citybrain_training.surrogate.pipeline import train_surrogate as run
    from citybrain_training.surrogate.runs import read_study

    settings = read_settings(config, epochs)
    study = read_study(runs, city, calibrate or ())
    others = tuple(read_study(folders, place) for folders, place in _pairs(also))
    folder = out or Path("runs") / f"surrogate-{study.site.city.name}"
    trained = run(study, settings, folder, others=others, home=home if track else None, progress=followed(console))
    print_table(trained.table, f"{trained.parts.counts['test']} test scenarios")
    typer.echo(folder / "bundle")


def tune_surrogate(
    runs: RunsArgument,
    city: Annotated[Path, typer.Option(help="folder of the city that was simulated")],
    training: TrainingOption = Path("runs/surrogate-embedded"),
    out: Annotated[Path | None, typer.Option(help="where it is written", show_default="CITY/surrogate")] = None,
) -> None:
    """Fine-tune a trained surrogate on another city with few simulated interventions there; about twenty do."""
    from citybrain_training.surrogate.runs import read_study
    from citybrain_training.surrogate.tuning import tuned

    target = out or city / "surrogate"
    tuned(training, read_study(runs, city)).write(target)
    typer.echo(target)


def bench_scenarios(
    runs: RunsArgument,
    city: CityOption = "embedded",
    training: TrainingOption = Path("runs/surrogate-embedded"),
    calibrate: CalibrateOption = None,
    other: OtherOption = None,
    out: Annotated[Path, typer.Option(help="JSON file of the figures")] = Path("benchmarks/scenarios.json"),
    docs: Annotated[Path, typer.Option(help="page whose chapter on what-if is written")] = Path("docs/benchmarks.md"),
    peers: Annotated[bool, typer.Option(help="a linear model and a static assignment beside it")] = True,
) -> None:
    """Measure a surrogate against the simulation on its held-out runs, beside peers, and on other networks."""
    from citybrain_datasets.records import merge_records, write_chapter
    from citybrain_training.surrogate.bench import bench
    from citybrain_training.surrogate.chapter import markdown
    from citybrain_training.surrogate.runs import read_study

    others = [read_study(folders, place) for folders, place in _pairs(other)]
    options = ["--calibrate RUNS"] * len(calibrate or ()) + ["--other RUNS=CITY"] * len(others)
    command = " ".join(["citybrain bench-scenarios", *["RUNS"] * len(runs), *options])
    records = bench(read_study(runs, city, calibrate or ()), training, others, command=command, with_peers=peers)
    merge_records(out, records)
    chapter = markdown(json.loads(out.read_text(encoding="utf-8")))
    write_chapter(docs, "what-if", "citybrain bench-scenarios", chapter)
    typer.echo(chapter)


def read_settings(path: Path | None, epochs: int | None = None) -> SurrogateConfig:
    """Settings from a YAML file. Raises :class:`ConfigError` naming each unknown or wrong entry."""
    try:
        given = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        settings = SurrogateConfig.model_validate(given)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        lines = [f"{path}, {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    return settings if epochs is None else settings.model_copy(update={"epochs": epochs})


def print_table(table: dict[str, dict[str, float]], title: str) -> None:
    """Accuracy by outcome."""
    shown = Table(title=f"{title}: the change of each outcome")
    for column in ("outcome", "Spearman", "median error", "in spreads", "spread", "covered"):
        shown.add_column(column, justify="left" if column == "outcome" else "right", no_wrap=True)
    for name, row in table.items():
        covered = f"{row['coverage']:.1%}" if "coverage" in row else ""
        shown.add_row(
            name, f"{row['spearman']:.3f}", f"{row['median_absolute_error']:.3g}",
            f"{row['median_error_in_spreads']:.3f}", f"{row['spread']:.3g}", covered,
        )  # fmt: skip
    console.print(shown)


def _pairs(given: list[str] | None) -> list[tuple[list[Path], str]]:
    pairs = []
    for text in given or []:
        folder, equals, place = text.partition("=")
        if not (folder and equals and place):
            raise ConfigError(f"{text!r} is not RUNS[,RUNS…]=CITY")
        pairs.append(([Path(name) for name in folder.split(",")], place))
    return pairs
