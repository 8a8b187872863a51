"""A calibration that learns from a city's own history, as the service's learns from what it measures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.windows import WindowSource
from citybrain_models.calibration import RATE, Calibration, parts_of_day
from citybrain_models.learning import OnlineCalibration


class Replay:
    """Publishes raw quantiles window by window; each is calibrated by the outcomes that were known when it was issued.

    ``learnt`` is where learning starts, the shifts as fitted where it is left out.
    """

    def __init__(
        self, fitted: Calibration, source: WindowSource, learnt: Calibration | None = None, *, rate: float = RATE
    ):
        task, calendar = source.task, source.features.calendar
        learnt = learnt or Calibration.none(task, len(fitted.by_part))
        self.source = source
        self.online = OnlineCalibration(task, calendar, fitted, learnt, rate=rate)
        self._known: pd.Timestamp | None = None
        """The last outcome that was learnt from."""

    def publish(self, issues: pd.DatetimeIndex, raw: np.ndarray) -> np.ndarray:
        """``raw [batch, node, horizon, quantile]`` of ``issues``, which must come in order of time, calibrated by what
        was known at each."""
        task = self.source.task
        parts = parts_of_day(task, self.source.features.calendar, issues)
        published = []
        for issue, quantiles, part in zip(issues, raw, parts, strict=True):
            self._learn(issue)
            published.append(self.online.calibration.apply(quantiles[None], part[None])[0])
            self.online.remember(issue, published[-1])
        return np.stack(published)

    def _learn(self, now: pd.Timestamp) -> None:
        """The outcomes since the window before, on the clock of the task's steps."""
        step = self.source.task.step
        end = now if self._known is None else self._known + step
        while end <= now and self.online.remembered:
            self.online.learn(end, self.source.answer(pd.DatetimeIndex([end - step]))[0, 0])
            end += step
        self._known = now


def learnt_in_order(
    fitted: Calibration, source: WindowSource, issues: pd.DatetimeIndex, raw: np.ndarray
) -> Calibration:
    """What the outcomes of windows taken in order of time move, as if they had been served with ``fitted``."""
    replay = Replay(fitted, source)
    replay.publish(issues, raw)
    return replay.online.learnt
