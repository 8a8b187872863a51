"""What is published: immutable forecasts of every task, swapped in as one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from citybrain_datasets.signals import KINDS, SignalKind
from citybrain_datasets.task import Task
from citybrain_serving.inputs import InputHealth

Source = Literal["model", "fallback", "shadow"]
"""``shadow``: of a challenger, kept to be scored and never answered."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """One task's forecast, as issued.

    ``values`` float32 ``[node, horizon, quantile]`` in the target's unit; ``observed`` float32 ``[node]`` is the newest
    measured target within the history, NaN for none, ``observed_age`` float32 ``[node]`` its age in steps at the issue
    time, NaN where that is unknown, as of forecasts kept before ages were. ``doubts`` counts, by reason, nodes whose
    own forecast was doubted and which the weekly profile answers; ``doubted`` says that the forecast as a whole is the
    model's and yet not to be relied on. ``reason`` says why it is not the model's, or why it is doubted.
    """

    task: Task
    issued: pd.Timestamp
    computed: pd.Timestamp
    values: np.ndarray
    observed: np.ndarray
    observed_age: np.ndarray
    inputs: InputHealth
    bundle: str
    source: Source
    reason: str = ""
    doubts: Mapping[str, int] = field(default_factory=dict)
    doubted: bool = False
    latest: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Newest value of every signal that the forecast was made from, float32 ``[node]``; what is said of causes is
    said from these. Empty for a forecast of the history."""
    latest_age: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Their ages in steps at the issue time, float32 ``[node]``, NaN where unknown."""

    def __post_init__(self) -> None:
        arrays = (self.values, self.observed, self.observed_age, *self.latest.values(), *self.latest_age.values())
        for array in arrays:
            array.setflags(write=False)

    @property
    def replaced(self) -> int:
        """Nodes that the weekly profile answers in the place of the model."""
        return sum(self.doubts.values())

    @property
    def kind(self) -> SignalKind:
        return KINDS[self.task.target]

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """UTC ends of the intervals forecast."""
        return pd.date_range(self.issued + self.task.step, periods=self.task.horizon, freq=self.task.step)

    @cached_property
    def digest(self) -> str:
        """Names the content: equal wherever the same forecast was computed."""
        digest = hashlib.blake2b(
            f"{self.issued}|{self.bundle}|{self.source}|{self.reason}|{sorted(self.doubts.items())}|{self.inputs}".encode(),
            digest_size=12,
        )
        if self.inputs.traffic is not None:
            digest.update(f"|{self.inputs.traffic}".encode())
        digest.update(np.ascontiguousarray(self.values).data)
        digest.update(np.ascontiguousarray(self.observed).data)
        if np.isfinite(self.observed_age).any():  # a forecast kept before ages were keeps its name
            digest.update(np.ascontiguousarray(self.observed_age, np.float32).data)
        return digest.hexdigest()

    def observed_at(self, row: int) -> pd.Timestamp | None:
        """When ``observed`` was measured at a node, None for none or where that is unknown."""
        if not (np.isfinite(self.observed[row]) and np.isfinite(self.observed_age[row])):
            return None
        return self.issued - int(self.observed_age[row]) * self.task.step

    def fresh(self, steps: int) -> np.ndarray:
        """Nodes, bool ``[node]``, whose ``observed`` is at most ``steps`` steps old at the issue time and so tells of
        the present."""
        return np.isfinite(self.observed) & (self.observed_age <= steps)

    def sees(self, now: pd.Timestamp, steps: int) -> np.ndarray:
        """Nodes, bool ``[node]``, of which it tells from what was measured there lately: none where it is stale or the
        weekly profile's."""
        return self.fresh(steps) & (self.source == "model" and not self.stale(now, steps))

    @cached_property
    def observed_times(self) -> np.ndarray:
        """When ``observed`` was measured, datetime64[s] ``[node]`` in UTC, NaT for none or where that is unknown."""
        known = np.isfinite(self.observed) & np.isfinite(self.observed_age)
        steps = np.where(known, self.observed_age, 0).astype(np.int64)
        seconds = int(self.issued.timestamp()) - steps * 60 * self.task.step_minutes
        return np.where(known, seconds.astype("datetime64[s]"), np.datetime64("NaT"))

    def stale(self, now: pd.Timestamp, steps: int) -> bool:
        """Whether the newest observation behind it, or the forecast itself, is older than ``steps`` steps."""
        return now.timestamp() > self.good_until(steps)

    def good_until(self, steps: int) -> float:
        """Seconds since 1970 UTC after which it is stale; 0 where nothing was observed."""
        newest = self.inputs.newest
        return 0.0 if newest is None else (min(newest, self.issued) + steps * self.task.step).timestamp()


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The forecasts of one moment, by task."""

    forecasts: Mapping[str, Forecast]
    computed: pd.Timestamp
