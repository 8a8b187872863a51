"""Evaluate: any forecaster on the windows of a preparation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from citybrain_datasets.windows import WindowSource
from citybrain_models.forecaster import Forecaster
from citybrain_models.metrics import Scores


def forecasts(
    forecaster: Forecaster, source: WindowSource, issues: pd.DatetimeIndex, batch: int = 128
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """``(forecast [batch, node, horizon, quantile], truth [batch, node, horizon])`` over ``issues``, batch by batch."""
    for first in range(0, len(issues), batch):
        chosen = issues[first : first + batch]
        yield forecaster.forecast(source.window(chosen)), source.answer(chosen).transpose(0, 2, 1)


def evaluate(forecaster: Forecaster, source: WindowSource, issues: pd.DatetimeIndex) -> dict[str, dict[str, float]]:
    """The table of :class:`~citybrain_models.metrics.Scores` over ``issues``."""
    scores = Scores(source.task)
    for forecast, truth in forecasts(forecaster, source, issues):
        scores.add(forecast, truth)
    return scores.table()
