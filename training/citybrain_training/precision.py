"""A bundle in the precision that is asked for, where validation windows say that it is as good."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd

from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.batches import spread
from citybrain_training.evaluation import evaluate
from citybrain_training.preparation import Preparation
from citybrain_training.quantization import to_int8

log = logging.getLogger(__name__)

SCALED_BY = 128
"""Validation windows that the scales are fixed by."""

COMPARED = 500
"""Validation windows on which both precisions are held against each other."""

BATCH = 16

JUDGED = ("mae", "pinball")

Table = dict[str, float]

PRECISION = "precision"
"""Name of the entry among a bundle's metrics."""


def in_precision(bundle: Bundle, preparation: Preparation) -> Bundle:
    """``bundle`` in the precision that the configuration asks for, or as it is, with a warning, where that costs more
    than the configuration allows. What was found stands among its metrics."""
    asked = preparation.config.export
    if asked.precision == "float32":
        return bundle
    rounded = in_int8(bundle, preparation)
    if rounded.model == bundle.model:
        log.warning("no product of this network is large enough for %s to pay: kept as float32", asked.precision)
        return bundle
    issues = spread(preparation.split.validate, COMPARED)
    before, after = compare(bundle, rounded, preparation, issues)
    cost = rise(before, after)
    kept = cost > asked.most_cost
    if kept:
        log.warning(
            "%s costs %.2f %% of accuracy on validation windows, of which %.2f %% are allowed: kept as float32",
            asked.precision, 100 * cost, 100 * asked.most_cost,
        )  # fmt: skip
    told = {"served": "float32" if kept else asked.precision, "cost": cost, "float32": before, asked.precision: after}
    return dataclasses.replace(bundle if kept else rounded, metrics={**bundle.metrics, PRECISION: told})


def in_int8(bundle: Bundle, preparation: Preparation) -> Bundle:
    """``bundle``, exported as float32, with the products inside its network rounded; validation windows fix how."""
    return dataclasses.replace(bundle, model=to_int8(bundle.model, _examples(bundle, preparation)))


def compare(bundle: Bundle, rounded: Bundle, preparation: Preparation, issues: pd.DatetimeIndex) -> tuple[Table, Table]:
    """Both bundles' scores over all leads of the windows issued at ``issues``."""
    threads, source = preparation.config.threads, preparation.source
    before, after = (evaluate(OnnxForecaster(b, threads), source, issues)["mean"] for b in (bundle, rounded))
    return before, after


def rise(before: Table, after: Table) -> float:
    """How much more error or pinball loss there is after, the larger of both, as a share; below zero where rounding
    happens to help."""
    return max(after[name] / before[name] - 1 if before[name] else float(after[name] > 0) for name in JUDGED)


def _examples(bundle: Bundle, preparation: Preparation) -> Iterator[dict[str, np.ndarray]]:
    forecaster, source = OnnxForecaster(bundle), preparation.source
    issues = spread(preparation.split.validate, SCALED_BY)
    for first in range(0, len(issues), BATCH):
        arrays = {**forecaster.features(source.window(issues[first : first + BATCH])), **bundle.graph}
        yield {name: arrays[name] for name in forecaster.inputs}
