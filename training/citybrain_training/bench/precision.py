"""What rounding a bundle's network to eight-bit integers costs in accuracy and brings in time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from citybrain_datasets.errors import ConfigError
from citybrain_datasets.records import Record, circumstances, publish_records, uncommitted
from citybrain_datasets.signals import KINDS
from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.commands import CityArgument, ConfigOption, named, tested
from citybrain_training.precision import PRECISION, compare, in_int8
from citybrain_training.preparation import Preparation
from citybrain_training.speed.measure import interleaved

FLOAT, INTEGER = "float32", "int8"
REPEATS = 200


def measure_precision(preparation: Preparation, bundle: Bundle, repeats: int = REPEATS) -> list[Record]:
    """Scores of the test windows, the time of one window on one thread and the size of the file, in both precisions.

    Raises :class:`ConfigError` for a bundle that is rounded already.
    """
    if bundle.metrics.get(PRECISION, {}).get("served") == INTEGER:
        raise ConfigError(f"bundle {bundle.version} is rounded to {INTEGER} already; give one of {FLOAT}")
    rounded = in_int8(bundle, preparation)
    tables = compare(bundle, rounded, preparation, preparation.split.test)
    networks = [OnnxForecaster(each, threads=1) for each in (bundle, rounded)]
    arrays = networks[0].features(preparation.source.window(preparation.split.test[:1]))
    times = interleaved([partial(network.run, arrays) for network in networks], repeats)
    unit = KINDS[preparation.task.target].unit
    units = {"mae": unit, "pinball": unit, "width": unit, "coverage": "1", "network_ms": "ms", "model_kib": "KiB"}
    return [
        {
            "case": f"{preparation.city.name}-{preparation.task.name}",
            "subject": subject,
            "metric": metric,
            "value": round(value, 6),
            "unit": units[metric],
            "threads": 1,
            "note": f"bundle {bundle.version}, {len(preparation.split.test)} windows",
        }
        for subject, network, table, spent in zip((FLOAT, INTEGER), networks, tables, times, strict=True)
        for metric, value in {**table, "network_ms": spent, "model_kib": len(network.bundle.model) / 1024}.items()
        if metric in units
    ]


def bench_precision(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle in float32")],
    city: CityArgument,
    config: ConfigOption = None,
    out: Annotated[Path, typer.Option(help="file of records")] = Path("benchmarks/precision.json"),
    docs: Annotated[Path, typer.Option(help="page whose chapter on precision is written")] = Path("docs/benchmarks.md"),
) -> None:
    """Measure what eight-bit integers cost a bundle on the test windows, and what they bring in time."""
    read, preparation = tested(bundle, city, config)
    about = {"command": f"citybrain bench-precision BUNDLE {preparation.city.name}{named(config)}", **circumstances()}
    records = [{**record, **about} for record in measure_precision(preparation, read)]
    publish_records(records, out, docs, ("precision", "citybrain bench-precision"), markdown)
    typer.echo(out)


def markdown(records: Sequence[Record]) -> str:
    """The chapter of ``docs/benchmarks.md``: a row for each case."""
    lines = [
        "## Precision",
        "",
        "The same network in floats and with its inner products in eight-bit integers (`export: {precision: int8}`): "
        "error and pinball loss over all leads of the test windows, coverage of the interval from the 5 % to the 95 % "
        "quantile, and CPU time of one window on one thread, both in turns.",
        "",
        "| case | MAE float32 | int8 | cost | pinball float32 | int8 | cost | covered float32 | int8 | ms float32 "
        "| int8 | times faster | KiB float32 | int8 |",
        "| --- |" + " ---: |" * 13,
    ]
    found = {(r["case"], r["subject"], r["metric"]): r["value"] for r in records}
    for case in dict.fromkeys(r["case"] for r in records):
        pairs = {
            metric: (found[case, FLOAT, metric], found[case, INTEGER, metric])
            for metric in ("mae", "pinball", "coverage", "network_ms", "model_kib")
        }
        cells = []
        for metric in ("mae", "pinball"):
            before, after = pairs[metric]
            cells += [f"{before:.4g}", f"{after:.4g}", f"{100 * (after / before - 1):+.2f} %"]
        cells += [f"{100 * value:.1f} %" for value in pairs["coverage"]]
        before, after = pairs["network_ms"]
        cells += [f"{before:.2f}", f"{after:.2f}", f"{before / after:.2f}"]
        cells += [f"{value:.0f}" for value in pairs["model_kib"]]
        lines.append("| " + " | ".join([case, *cells]) + " |")
    return "\n".join([*lines, *uncommitted(records)])
