"""How well intervals hold, lead by lead and quarter of the day by quarter: as fitted, and learning from outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from citybrain_datasets.records import Record, circumstances, publish_records, uncommitted
from citybrain_datasets.signals import KINDS
from citybrain_models.bundle import Bundle
from citybrain_models.calibration import PARTS, Calibration, parts_of_day
from citybrain_models.metrics import Scores
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.bench.groups import PARTS_OF_DAY
from citybrain_training.bench.scoring import add_groups, quarters
from citybrain_training.commands import CityArgument, ConfigOption, named, tested
from citybrain_training.online import Replay
from citybrain_training.preparation import Preparation

FITTED, LEARNING = "as fitted", "learning from outcomes"
ALIKE = ", all hours alike"
AFRESH = ", without the validation windows"
SERVED = LEARNING
"""What the service does."""

PROMISED_GROUP = (0.86, 0.94)
"""Where the coverage of a 90 % interval must lie in every group of lead and quarter of the day."""

BATCH = 64

Publish = Callable[[pd.DatetimeIndex, np.ndarray], np.ndarray]
"""Issue times and raw quantiles ``[batch, node, horizon, quantile]`` to calibrated ones."""


def measure_intervals(preparation: Preparation, bundle: Bundle) -> list[Record]:
    """Coverage, width and pinball loss of the test windows, taken in order of time; the network runs once for all.

    Each lead is learnt from when it has ended, as in the service, on top of what the validation windows taught.
    """
    source, task, test = preparation.source, preparation.task, preparation.split.test
    model = OnnxForecaster(bundle, preparation.config.threads)
    ways = dict(_ways(model, preparation))
    scores = {name: Scores(task) for name in ways}
    groups = {name: np.zeros((2, task.horizon, len(PARTS_OF_DAY))) for name in ways}
    for first in range(0, len(test), BATCH):
        issues = test[first : first + BATCH]
        raw, truth = model.raw(source.window(issues)), source.answer(issues).transpose(0, 2, 1)
        quarter = quarters(source, issues, preparation.city.timezone)
        for name, publish in ways.items():
            said = publish(issues, raw)
            scores[name].add(said, truth)
            inside, count = groups[name]
            add_groups(inside, count, said, truth, quarter)
    rows = [row for name in ways for row in _rows(name, scores[name], groups[name])]
    unit = KINDS[task.target].unit
    return [
        {
            "case": f"{preparation.city.name}-{task.name}",
            "subject": subject,
            "metric": metric,
            "value": round(value, 6),
            "unit": unit if metric in ("width", "pinball") else "1",
            "windows": len(test),
        }
        for subject, metric, value in rows
    ]


def _ways(model: OnnxForecaster, preparation: Preparation) -> Iterator[tuple[str, Publish]]:
    task, source, calendar = preparation.task, preparation.source, preparation.features.calendar
    fitted = model.calibration.plus(Calibration.none(task, PARTS))  # an older bundle's has no parts of the day
    alike = Calibration(fitted.quantiles, fitted.shift)

    def as_fitted(calibration: Calibration) -> Publish:
        return lambda issues, raw: calibration.apply(raw, parts_of_day(task, calendar, issues))

    for name, calibration in ((ALIKE, alike), ("", fitted)):
        yield FITTED + name, as_fitted(calibration)
    yield LEARNING + ALIKE, Replay(alike, source).publish
    yield LEARNING + AFRESH, Replay(fitted, source).publish
    if model.bundle.learnt is not None:
        yield LEARNING, Replay(fitted, source, model.bundle.learnt).publish


def _rows(name: str, scores: Scores, groups: np.ndarray) -> Iterator[tuple[str, str, float]]:
    inside, count = groups
    share = inside[count > 0] / count[count > 0]
    low, high = PROMISED_GROUP
    mean = scores.table()["mean"]
    for metric in ("coverage", "width", "pinball"):
        yield name, metric, mean[metric]
    yield name, "coverage_lowest_group", float(share.min())
    yield name, "coverage_highest_group", float(share.max())
    yield name, "groups_as_promised", float(((share >= low) & (share <= high)).mean())


def bench_intervals(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle")],
    city: CityArgument,
    config: ConfigOption = None,
    out: Annotated[Path, typer.Option(help="file of records")] = Path("benchmarks/intervals.json"),
    docs: Annotated[Path, typer.Option(help="page whose chapter on intervals is written")] = Path("docs/benchmarks.md"),
) -> None:
    """Measure how well a bundle's intervals hold on the test windows, as fitted and learning from outcomes."""
    read, preparation = tested(bundle, city, config)
    about = {
        "note": f"bundle {read.version}",
        "threads": preparation.config.threads,
        "command": f"citybrain bench-intervals BUNDLE {preparation.city.name}{named(config)}",
        **circumstances(),
    }
    records = [{**record, **about} for record in measure_intervals(preparation, read)]
    publish_records(records, out, docs, ("intervals", "citybrain bench-intervals"), markdown)
    typer.echo(out)


def markdown(records: Sequence[Record]) -> str:
    """The chapter of ``docs/benchmarks.md``: a row for each case and way."""
    lines = [
        "## Intervals",
        "",
        "Coverage of the interval from the 5 % to the 95 % quantile on the test windows, which promises 90 %: over "
        "all, and in groups of lead and quarter of the local day. Learning, each lead of a forecast counts when it has "
        f"ended. The service answers as in the rows “{SERVED}”: it begins with what the validation windows, taken in "
        "order of time, taught.",
        "",
        "| case | intervals | coverage | groups between | groups in 86–94 % | width | pinball |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    found = {(r["case"], r["subject"], r["metric"]): r for r in records}
    for case, way in dict.fromkeys((r["case"], r["subject"]) for r in records):
        value = {metric: record["value"] for (c, w, metric), record in found.items() if (c, w) == (case, way)}
        names = ("coverage", "coverage_lowest_group", "coverage_highest_group")
        shares = [f"{100 * value[name]:.1f} %" for name in names]
        unit = found[case, way, "width"]["unit"]
        cells = [shares[0], f"{shares[1]} and {shares[2]}", f"{100 * value['groups_as_promised']:.0f} %"]
        cells += [f"{value['width']:.3g} {unit}", f"{value['pinball']:.4g}"]
        lines.append("| " + " | ".join([case, way, *cells]) + " |")
    return "\n".join([*lines, *uncommitted(records)])
