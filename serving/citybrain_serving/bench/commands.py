"""``citybrain bench-serving``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from citybrain_datasets.chapter import SERVING
from citybrain_datasets.errors import ConfigError
from citybrain_models.bundle import Bundle
from citybrain_serving.bench.records import Notebook

TOPICS = {
    "reads": "citybrain_serving.bench.reads",
    "inference": "citybrain_serving.bench.inference",
    "city": "citybrain_serving.bench.large",
    "ingest": "citybrain_serving.bench.ingesting",
    "swaps": "citybrain_serving.bench.swaps",
    "kills": "citybrain_serving.bench.kills",
    "outage": "citybrain_serving.bench.outage",
    "overload": "citybrain_serving.bench.overload",
    "bodies": "citybrain_serving.bench.bad_bodies",
    "contract": "citybrain_serving.bench.contract",
}
"""Modules by topic; each has ``measure(book, bundle, folder)``."""


def bench_serving(
    bundle: Annotated[Path, typer.Argument(help="a forecast of congestion from roads, as `citybrain demo` leaves one")],
    topics: Annotated[str, typer.Option(help=f"of {', '.join(TOPICS)}")] = ",".join(TOPICS),
    out: Annotated[Path, typer.Option(help="file of records")] = Path("benchmarks/serving.json"),
    docs: Annotated[Path, typer.Option(help="page whose chapter on the service is written")] = Path(
        "docs/benchmarks.md"
    ),
    work: Annotated[Path | None, typer.Option(help="folder for stores and logs, a temporary one by default")] = None,
) -> None:
    """Measure the service with real servers and a load generator, each in a process of its own.

    Nothing else should run on the machine meanwhile. What is measured replaces earlier records of the same case.
    """
    names = [name.strip() for name in topics.split(",") if name.strip()]
    unknown = [name for name in names if name not in TOPICS]
    if unknown or not names:
        raise ConfigError(f"--topics: {', '.join(unknown) or 'none'} given; known are {', '.join(TOPICS)}")
    read = Bundle.read(bundle)
    with tempfile.TemporaryDirectory(prefix="bench", dir=work) as folder:
        for name in names:
            measure: Callable[[Notebook, Bundle, Path], None] = import_module(TOPICS[name]).measure
            book = Notebook(out, f"citybrain bench-serving BUNDLE --topics {name}", typer.echo)
            measure(book, read, Path(folder))
            book.write()
    SERVING.write(out, docs)
    typer.echo(out)
