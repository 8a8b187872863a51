"""``citybrain bench-scoring``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citybrain_datasets.chapter import SCORING
from citybrain_datasets.errors import ConfigError
from citybrain_serving.bench.records import Notebook
from citybrain_serving.bench.scenarios import Bench

PARTS = ("batches", "simulation", "run", "engines", "kills", "physics", "verified")


def bench_scoring(
    city: Annotated[str, typer.Option(help="'embedded', or the folder of a city")] = "embedded",
    surrogate: Annotated[Path | None, typer.Option(help="folder of a surrogate; the city's own by default")] = None,
    parts: Annotated[str, typer.Option(help=f"of {', '.join(PARTS)}")] = ",".join(PARTS),
    count: Annotated[int, typer.Option(min=1, help="scenarios of the whole run")] = 100_000,
    workers: Annotated[int, typer.Option(min=1, help="processes of the whole run")] = 2,
    sample: Annotated[int, typer.Option(min=1, help="scenarios where rates are compared")] = 2_000,
    times: Annotated[int, typer.Option(min=1, help="kills")] = 10,
    out: Annotated[Path, typer.Option(help="JSON file of the records")] = Path("benchmarks/scenarios-speed.json"),
    scenarios: Annotated[Path, typer.Option(help="file of the scenarios that are verified")] = Path(
        "docs/scenarios-example.yaml"
    ),
    docs: Annotated[Path, typer.Option(help="page whose chapter on scoring is written")] = Path("docs/benchmarks.md"),
) -> None:
    """Measure how fast scenarios are scored, and how well the best of them hold before SUMO."""
    chosen = parts.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        raise ConfigError(f"unknown part {unknown[0]!r}; known are {', '.join(PARTS)}")
    notebook = Notebook(out, f"citybrain bench-scoring --parts {parts} --count {count} --sample {sample}", typer.echo)
    bench = Bench(notebook, city, surrogate)
    measures = {
        "batches": lambda: bench.batches(sample),
        "simulation": lambda: bench.simulation(5),
        "run": lambda: bench.run(count, workers),
        "engines": lambda: bench.engines(sample),
        "kills": lambda: bench.kills(times, sample),
        "physics": bench.physics,
        "verified": lambda: bench.verified(scenarios),
    }
    for name in chosen:
        measures[name]()
        notebook.write()
    SCORING.write(out, docs)
    typer.echo(out)
