"""``citybrain bench-robustness``."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from citybrain_datasets.records import Record
from citybrain_training.commands import CityArgument, ConfigOption, followed, named, tested
from citybrain_training.robustness.table import by_place

console = Console(stderr=True)


def bench_robustness(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle")],
    city: CityArgument,
    config: ConfigOption = None,
    draws: Annotated[
        int, typer.Option(min=0, help="trainings without a tenth of the sensors, another tenth each, to forecast those")
    ] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="of each draw's training, instead of the config's")] = None,
    practice: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="share of disturbed batches of a second training beside each draw's"),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="score one of every n test windows")] = 1,
    seed: Annotated[int, typer.Option(help="which sensors break; the draws are this one and those that follow")] = 0,
    out: Annotated[Path, typer.Option(help="file of records")] = Path("benchmarks/robustness.json"),
    docs: Annotated[Path, typer.Option(help="page whose robustness chapter is written")] = Path("docs/benchmarks.md"),
) -> None:
    """Score a bundle with sensors dead, stuck, late or never seen, beside persistence and what sensors nearby say."""
    from citybrain_datasets.records import circumstances, read_records, write_atomically, write_chapter
    from citybrain_training.robustness.bench import measure, measure_unseen
    from citybrain_training.robustness.table import markdown

    read, preparation = tested(bundle, city, config)
    if epochs is not None:
        preparation = replace(preparation, config=preparation.config.merged({"fit": {"epochs": epochs}}))
    records = measure(preparation, read, every=every, seed=seed)
    for draw in range(seed, seed + draws):
        with tempfile.TemporaryDirectory() as work:
            records += measure_unseen(
                preparation, Path(work), every=every, seed=draw, practice=practice, progress=followed(console)
            )
    name, settings = preparation.city.name, preparation.config
    told = named(config)
    told += f" --epochs {epochs}" if epochs else ""
    told += f" --practice {practice:g}" if practice is not None else ""
    command = f"citybrain bench-robustness BUNDLE {name}{told} --draws {draws} --every {every} --seed {seed}"
    note = f"bundle {read.version}, each draw trained for at most {settings.fit.epochs} epochs"
    about = {"note": note, "threads": settings.threads, "command": command, **circumstances()}
    fresh = [{**record, **about} for record in records]
    measured = {_measured(record) for record in fresh}
    kept = [record for record in read_records(out, ("case", "scenario", "seed")) if _measured(record) not in measured]
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, sort_keys=True) for record in [*kept, *fresh])
    write_atomically(out, f"[\n{lines}\n]\n")
    write_chapter(docs, "robustness", "citybrain bench-robustness", markdown([*kept, *fresh]))
    _tell(fresh)
    typer.echo(out)


def _measured(record: Record) -> tuple[str, str, int]:
    return record["case"], record["scenario"], record["seed"]


def _tell(records: list[Record]) -> None:
    """Mean errors by scenario and part, one column a model."""
    mae = [record for record in records if record["metric"] == "mae"]
    models = list(dict.fromkeys(record["subject"] for record in mae))
    table = Table(title=f"{records[0]['case']}: mean absolute error, {mae[0]['unit']}")
    for column in ("scenario", "at", *models):
        table.add_column(column, justify="left" if column in ("scenario", "at") else "right")
    for (scenario, part), row in by_place(mae).items():
        table.add_row(scenario, part, *(f"{row[m]:.3f}" if m in row else "" for m in models))
    console.print(table)
