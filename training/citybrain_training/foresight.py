"""The weather ahead as training shows it: what was measured later, disturbed as forecasts err.

A network that was trained on perfect forecasts trusts the third day as the first, and is lost where nobody gives one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.features import Window
from citybrain_datasets.signals import KINDS
from citybrain_datasets.windows import WindowSource
from citybrain_training.preparation import Preparation

MEMORY = pd.Timedelta(hours=6)
"""Time after which a third of an error is left: a front that was expected too early is so for hours."""


def foretold(window: Window, preparation: Preparation, random: np.random.Generator, *, withheld: float) -> Window:
    """The window with a weather ahead that errs by ``weather_error`` and is not given to a share ``withheld`` of the
    windows.

    An error is common to all places, for a forecast errs for a city as a whole. Over the leads it is an AR(1) process
    whose standard deviation, in that of the signal as the network reads it, grows evenly from the first to the last;
    the wind errs in its eastward and its northward part. What was not measured stays unknown. Of a task that reads no
    weather ahead nothing is changed and nothing drawn.
    """
    weather = {name: told for name, told in window.future.items() if name in preparation.task.known_future}
    if not weather:
        return window
    future = _erring(Window(window.issue, window.values, weather), preparation, random)
    gone = kept_back(random, len(window.issue), preparation.task.horizon, withheld)[..., None]
    shown = {name: np.where(gone, np.float32(np.nan), told) for name, told in future.items()}
    return Window(window.issue, window.values, {**window.future, **shown})


class Foretold(WindowSource):
    """The windows of a preparation with a weather ahead that errs, the same whenever they are cut in the same order."""

    def __init__(self, preparation: Preparation):
        source = preparation.source
        super().__init__(source.features, source.signals, source.forecasts)
        self.preparation = preparation
        self.random = np.random.default_rng(preparation.config.seed)

    def window(self, issue: pd.DatetimeIndex) -> Window:
        return foretold(self.preparation.source.window(issue), self.preparation, self.random, withheld=0)


def errors(random: np.random.Generator, batch: int, size: np.ndarray, memory: float) -> np.ndarray:
    """Errors ``[batch, lead, 1]`` of the standard deviations ``size [lead]``; ``memory`` is the correlation of each
    with the one before."""
    drawn = random.standard_normal((batch, len(size)))
    for lead in range(1, len(size)):
        drawn[:, lead] = memory * drawn[:, lead - 1] + np.sqrt(1 - memory**2) * drawn[:, lead]
    return (drawn * size)[..., None].astype(np.float32)


def _erring(window: Window, preparation: Preparation, random: np.random.Generator) -> dict[str, np.ndarray]:
    task, future = preparation.task, dict(window.future)
    size = np.linspace(*preparation.config.fit.weather_error, task.horizon)
    if not size.any():
        return future
    memory = float(np.exp(-task.step / MEMORY))
    for name in [name for name in future if name != "wind_direction"]:
        scaler, kind = preparation.statistics.scalers[name], KINDS[name]
        scaled = scaler.scale(future[name]) + errors(random, len(window.issue), size, memory)
        future[name] = np.clip(scaler.unscale(scaled), kind.low, kind.high).astype(np.float32)
    direction, speed = window.future.get("wind_direction"), window.future.get("wind_speed")
    if direction is None:
        return future
    paired = speed is not None and speed.shape == direction.shape
    strength = speed if paired else np.ones_like(direction)
    # The parts of a wind of one strength from anywhere have a variance of a half each.
    std = preparation.statistics.scalers["wind_speed"].std if paired else np.sqrt(0.5)
    angle = np.deg2rad(direction)
    east, north = (
        strength * part(angle) + std * errors(random, len(window.issue), size, memory) for part in (np.sin, np.cos)
    )
    future["wind_direction"] = (np.rad2deg(np.arctan2(east, north)) % 360).astype(np.float32)
    if paired:
        blown = np.minimum(np.hypot(east, north), KINDS["wind_speed"].high)
        future["wind_speed"] = np.where(np.isfinite(direction), blown, future["wind_speed"]).astype(np.float32)
    return future


def kept_back(random: np.random.Generator, batch: int, horizon: int, share: float) -> np.ndarray:
    """Which leads are not given, bool ``[batch, lead]``: in half of the windows concerned all of them, in the others
    those from some lead on, as where the newest forecast does not reach as far."""
    since = np.where(random.random(batch) < 0.5, 0, random.integers(0, horizon, batch))
    return (random.random((batch, 1)) < share) & (np.arange(horizon) >= since[:, None])
