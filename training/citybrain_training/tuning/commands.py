"""``citybrain tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from citybrain_datasets.city import City
from citybrain_training.commands import CityArgument, ConfigOption, TaskOption, load_config

console = Console(stderr=True)


def tune(
    city: CityArgument,
    task: TaskOption,
    trials: Annotated[int, typer.Option(min=1, help="trials in all, those of an earlier call included")],
    config: ConfigOption = None,
    out: Annotated[Path | None, typer.Option(help="YAML to write", show_default="runs/CITY-TASK-tuned.yaml")] = None,
    storage: Annotated[str | None, typer.Option(help="address of Optuna's database", show_default="SQLite")] = None,
    home: Annotated[Path, typer.Option(help="folder of the study and of MLflow's database")] = Path("runs"),
) -> None:
    """Search for a configuration with less error on the validation windows. Stop at any time; call again to go on.

    A call goes on with a search of the same city, task and configuration; any other begins one of its own.
    """
    from citybrain_datasets.outputs import writable_file, writable_folder
    from citybrain_datasets.records import write_atomically
    from citybrain_training.tuning.search import search

    loaded = City.load(city)
    start = load_config(config)
    path = out or home / f"{loaded.name}-{task.value}-tuned.yaml"
    writable_folder(home, "--home")
    writable_file(path, "--out")
    found = search(loaded, task.value, start, trials=trials, home=home, storage=storage, tell=console.print)
    head = f"# Best of {found.trials} trials of {found.study}: validation MAE {found.validation_mae:.4f}.\n"
    plain = found.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    write_atomically(path, head + yaml.safe_dump(plain, sort_keys=False))
    console.print(f"validation error {found.validation_mae:.4f} after {found.trials} trials")
    typer.echo(path)
