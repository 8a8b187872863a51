"""``citybrain bench-robustness``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_training.commands import CityArgument, ConfigOption, load_config

console = Console(stderr=True)


def bench_robustness(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle")],
    city: CityArgument,
    config: ConfigOption = None,
    unseen: Annotated[bool, typer.Option(help="also train without a tenth of the sensors and forecast those")] = True,
    every: Annotated[int, typer.Option(min=1, help="score one of every n test windows")] = 1,
    seed: Annotated[int, typer.Option(help="which sensors break")] = 0,
    out: Annotated[Path, typer.Option(help="file of records")] = Path("benchmarks/robustness.json"),
) -> None:
    """Score a bundle with sensors dead, stuck, late or never seen, beside persistence and the nearest sensors' mean."""
    from citybrain_datasets.records import circumstances, write_atomically
    from citybrain_models.bundle import Bundle
    from citybrain_training.preparation import prepare
    from citybrain_training.robustness.bench import measure, measure_unseen

    read = Bundle.read(bundle)
    loaded = City.load(city)
    if loaded.ids(read.task.node) != read.city.ids(read.task.node):
        raise ConfigError(f"{bundle}: was trained for other {read.task.node} nodes than those of {loaded.name!r}")
    settings = load_config(config).merged({"task": read.task.model_dump(exclude={"name", "node"})})
    preparation = prepare(loaded, read.task.name, settings)
    records = measure(preparation, read, every=every, seed=seed)
    if unseen:
        with tempfile.TemporaryDirectory() as work:
            records += measure_unseen(preparation, Path(work), every=every, seed=seed, progress=console.is_terminal)
    told = f" --config {Path(config).stem}" if config else ""  # not where files lie on this machine
    command = f"citybrain bench-robustness BUNDLE {loaded.name}{told} --every {every} --seed {seed}"
    about = {"bundle": read.version, "seed": seed, "command": command, **circumstances()}
    fresh = [{**record, **about} for record in records]
    kept = [r for r in _records(out) if (r["case"], r["seed"]) != (fresh[0]["case"], seed)]
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, sort_keys=True) for record in [*kept, *fresh])
    write_atomically(out, f"[\n{lines}\n]\n")
    _tell(fresh)
    typer.echo(out)


def _records(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error})") from None
    if not isinstance(found, list) or not all(isinstance(r, dict) and {"case", "seed"} <= r.keys() for r in found):
        raise ConfigError(f"{path}: does not hold benchmark records")
    return found


def _tell(records: list[dict[str, object]]) -> None:
    """Mean errors by scenario and part, one column a model."""
    mae = [record for record in records if record["metric"] == "mae"]
    models = list(dict.fromkeys(str(record["subject"]) for record in mae))
    table = Table(title=f"{records[0]['case']}: mean absolute error, {mae[0]['unit']}")
    for column in ("scenario", "at", *models):
        table.add_column(column, justify="left" if column in ("scenario", "at") else "right")
    for scenario, part in dict.fromkeys((str(r["scenario"]), str(r["part"])) for r in mae):
        row = {r["subject"]: r["value"] for r in mae if (r["scenario"], r["part"]) == (scenario, part)}
        table.add_row(scenario, part, *(f"{row[m]:.3f}" if m in row else "" for m in models))
    console.print(table)
