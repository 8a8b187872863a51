"""``citybrain bench-speed``."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from citybrain_datasets.errors import ConfigError
from citybrain_datasets.records import Record, circumstances, publish_records

console = Console(stderr=True)

LARGEST_STEP = 30_000
"""Segments up to which a training step is timed: what a step keeps for its way back grows faster than patience."""


def bench_speed(
    sizes: Annotated[str, typer.Option(help="numbers of segments")] = "1000,3000,10000,30000,100000",
    beside: Annotated[str, typer.Option(help="numbers of segments at which torch runs beside")] = "207,10000",
    seconds: Annotated[float, typer.Option(min=0.1, help="about how long to repeat each measurement")] = 8,
    out: Annotated[Path, typer.Option(help="file of records")] = Path("benchmarks/speed.json"),
    docs: Annotated[Path, typer.Option(help="page whose chapter on speed is written")] = Path("docs/benchmarks.md"),
) -> None:
    """Time the network of the default configuration on one thread: against its size, and beside torch."""
    from citybrain_training.speed.measure import beside_torch, infer, train_step
    from citybrain_training.speed.network import exported
    from citybrain_training.speed.table import exponent, markdown

    grown, compared = _numbers("--sizes", sizes), _numbers("--beside", beside)
    model, rounded, weights, operators = exported()
    rows: list[tuple[str, str, float, str]] = [("exported graph", "operators", float(sum(operators.values())), "1")]
    rows.append(
        ("exported graph", "scatter_operators", float(sum(n for o, n in operators.items() if "Scatter" in o)), "1")
    )
    for nodes in compared:
        found = _apart(beside_torch, nodes, _repeats(nodes, seconds), model, rounded, weights)
        rows += [
            (f"{nodes} segments", name, value, "ms" if name.endswith("_ms") else "1") for name, value in found.items()
        ]
        console.print(f"{nodes} segments: {found}")
    cost: dict[str, dict[int, float]] = {"inference": {}, "training step": {}}
    for nodes in grown:
        found = _apart(infer, nodes, _repeats(nodes, seconds), model, weights["embedding"])
        rows += _named(nodes, "inference", found)
        cost["inference"][nodes] = found["features_ms"] + found["network_ms"]
        if nodes <= LARGEST_STEP:
            step = _apart(train_step, nodes, _repeats(nodes, seconds / 4))
            rows += _named(nodes, "training step", step)
            cost["training step"][nodes] = step["step_ms"]
        console.print(f"{nodes} segments: {found}")
    rows += [(name, "exponent", exponent(times), "1") for name, times in cost.items() if len(times) > 1]
    command = f"citybrain bench-speed --sizes {sizes} --beside {beside} --seconds {seconds:g}"
    about = {"note": "synthetic grid, one window, 12 → 12 steps", "threads": 1, "command": command, **circumstances()}
    records: list[Record] = [
        {"case": case, "subject": "citynet", "metric": metric, "value": round(value, 4), "unit": unit, **about}
        for case, metric, value, unit in rows
    ]
    publish_records(records, out, docs, ("speed", "citybrain bench-speed"), markdown)
    typer.echo(out)


def _named(nodes: int, what: str, found: Mapping[str, float]) -> list[tuple[str, str, float, str]]:
    unit = {"memory_mib": "MiB"}
    return [(f"{nodes} segments, {what}", name, value, unit.get(name, "ms")) for name, value in found.items()]


def _apart(measure: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """The measurement in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def _repeats(nodes: int, seconds: float) -> int:
    """Repetitions that take about ``seconds`` at ten microseconds a segment and run."""
    return int(np.clip(seconds / (1e-5 * nodes + 1e-3), 3, 500))


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is no list of whole numbers") from None
    if any(number < 2 for number in numbers):
        raise ConfigError(f"{option}: a city has at least two segments")
    return numbers
