"""The congestion forecast that a model of the air reads ahead, for windows of the past, of which none was kept."""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.features import Window
from citybrain_datasets.signals import KINDS
from citybrain_datasets.windows import WindowSource

RECENT = 3
"""Steps among which the plainest forecaster looks for the newest departure from the weekly profile, to carry it on."""

FITTED_ON, AT_ONCE = 1_000, 64
"""Most windows, evenly spread, that its skill is learnt from, and how many of them are held in memory."""

DAY = pd.Timedelta(days=1)


class TrafficAhead(WindowSource):
    """Windows with the traffic near the stations as the plainest forecaster would have told it when they were issued:
    the weekly profile, and of the newest departure from it the share that regression finds left at each lead. Nothing
    later is read.

    Training shows what was measured later (:meth:`shown`), made as uncertain as that forecaster is. Its skill, the
    share of the variance of departures that it explains, is learnt from the training windows and falls with the lead.
    Of a departure ``d`` a forecast of that skill says ``skill · d`` and an error of the variance
    ``skill · (1 - skill) · var(d)``: then what it says is what is to be expected, and without skill it is the profile.
    """

    def __init__(self, source: WindowSource, train: pd.DatetimeIndex):
        super().__init__(source.features, source.signals, source.forecasts)
        assert source.task.context_ahead is not None
        self.name, self.steps = source.task.context_ahead
        self.train = train
        self.kept, self.skill = self._fitted()

    def window(self, issue: pd.DatetimeIndex) -> Window:
        window = super().window(issue)
        usual, recent = self._recent(window)
        return self._told(window, usual + self.kept[:, None] * recent)

    def shown(self, window: Window, random: np.random.Generator, gone: np.ndarray) -> Window:
        """The window with the forecast as training shows it; that of the steps ``gone``, bool ``[batch, step]``, is
        withheld.

        The error is the departure of another day of the training part at the same hours, with either sign: as large,
        and as alike from step to step and from road to road, as departures are.
        """
        issue = window.issue
        other = self.train[random.integers(len(self.train), size=len(issue))]
        error = self._departure(other - (other - issue) % DAY) * random.choice([-1, 1], (len(issue), 1, 1))
        skill = self.skill[:, None]
        told = self._usual(issue) + skill * self._departure(issue) + np.sqrt(skill * (1 - skill)) * error
        return self._told(window, np.where(gone[..., None], np.nan, told))

    def _told(self, window: Window, told: np.ndarray) -> Window:
        kind = KINDS[self.name]
        clipped = np.clip(told, kind.low, kind.high).astype(np.float32)
        return Window(window.issue, window.values, {**window.future, self.name: clipped})

    def _usual(self, issue: pd.DatetimeIndex) -> np.ndarray:
        """The weekly profile ahead, ``[batch, step, node]``."""
        return self.features.profile(self.name, issue)[:, self.task.history :][:, : self.steps]

    def _departure(self, issue: pd.DatetimeIndex) -> np.ndarray:
        """How far what was measured later departs from it, NaN where nothing was."""
        return self._take(self.signals[self.name], issue, self._leads[: self.steps]) - self._usual(issue)

    def _recent(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """The weekly profile ahead, and the newest departure from it ``[batch, 1, node]``, NaN where none was measured
        lately."""
        history = self.task.history
        usual = self.features.profile(self.name, window.issue)
        departure = window.values[self.name] - usual[:, :history]
        recent = departure[:, -1:]
        for step in range(2, min(RECENT, history) + 1):
            recent = np.where(np.isfinite(recent), recent, departure[:, -step, None])
        return usual[:, history : history + self.steps], recent

    def _fitted(self) -> tuple[np.ndarray, np.ndarray]:
        """The share of a recent departure that is left at each step, and the skill of saying so, float ``[step]``."""
        product, before, after = np.zeros((3, self.steps))
        rows = np.linspace(0, len(self.train) - 1, min(FITTED_ON, len(self.train))).round().astype(int)
        for part in np.array_split(rows, -(-len(rows) // AT_ONCE)):
            issue = self.train[part]
            ahead, (_, recent) = self._departure(issue), self._recent(super().window(issue))
            recent, ahead = recent + 0 * ahead, ahead + 0 * recent  # where both are known
            product += np.nansum(recent * ahead, axis=(0, 2))
            before += np.nansum(recent**2, axis=(0, 2))
            after += np.nansum(ahead**2, axis=(0, 2))
        kept = product.clip(0) / np.where(before > 0, before, 1)
        return kept, kept * product / np.where(after > 0, after, 1)
