"""What is forecast, how often, how far and from what."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.signals import KINDS, NodeType, Signal

WEATHER = (
    "temperature",
    "dew_point",
    "pressure",
    "humidity",
    "wind_speed",
    "wind_direction",
    "precipitation",
    "mixing_height",
)
GASES = ("pm10", "no2", "o3", "so2", "co")
TRAFFIC = ("speed", "flow", "occupancy")


class Task(BaseModel):
    """One forecast: ``history`` steps in, ``horizon`` steps out, on a clock of ``step_minutes``.

    ``inputs`` are signals known up to the issue time, at the target's nodes or for the whole city; ``context``
    are signals of the other node type, which reach the target through the edges between them; ``known_future``
    are weather signals whose forecast over the horizon is an input, at the target's nodes or for the whole city;
    ``context_ahead`` is a signal of the context whose forecast is an input as well, and for how many steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["congestion", "pm25"]
    node: Literal["road", "air"]
    target: str
    step_minutes: int = Field(gt=0, le=1440)
    history: int = Field(gt=0, le=336)
    horizon: int = Field(gt=0, le=336)
    sampling: Literal["mean", "last"] = "mean"
    quantiles: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    inputs: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    known_future: tuple[str, ...] = ()
    context_ahead: tuple[str, int] | None = Field(None, exclude_if=lambda ahead: ahead is None)
    """(traffic signal of the context, steps): as far ahead as the congestion forecast that is served reaches. Unset, it
    is written nowhere: bundles and records are what they were before there was one."""
    seasonal_days: tuple[int, ...] = (1, 7)
    """Days back from each lead at which the target's value is an input as well."""
    coarse: tuple[int, int] = (0, 0)
    """(steps a block, blocks): block means of the target over a longer history; (0, 0) for none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in (self.target, *self.inputs, *self.context, *self.known_future):
            if name not in KINDS:
                raise ValueError(f"unknown signal {name!r}; known are {', '.join(KINDS)}")
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError("quantiles must rise strictly and contain 0.5")
        if not all(0 < q < 1 for q in self.quantiles):
            raise ValueError("quantiles must lie between 0 and 1")
        if self.median in (0, len(self.quantiles) - 1):
            raise ValueError("quantiles must hold some below 0.5 and some above, or there is no interval")
        if self.target in self.inputs:
            raise ValueError(f"the target {self.target!r} is an input already")
        if strange := [name for name in self.known_future if name not in WEATHER]:
            raise ValueError(f"known_future is the weather's, one of {', '.join(WEATHER)}, not {', '.join(strange)}")
        if len(set(self.known_future)) < len(self.known_future):
            raise ValueError("known_future names a signal twice")
        if self.context_ahead is not None:
            signal, steps = self.context_ahead
            if signal not in TRAFFIC or signal not in self.context:
                raise ValueError(f"context_ahead is traffic that the context holds as well, not {signal!r}")
            if not 0 < steps <= self.horizon:
                raise ValueError(f"context_ahead is {steps} steps, must be 1 to the horizon's {self.horizon}")
        if self.day_steps * self.step_minutes != 1440:
            raise ValueError(f"a day is no whole number of {self.step_minutes} min steps")
        if any(day * self.day_steps < self.horizon for day in self.seasonal_days):
            raise ValueError("a seasonal lag shorter than the horizon would look into the future")
        if min(self.coarse) < 0 or (self.coarse[0] == 0) != (self.coarse[1] == 0):
            raise ValueError("coarse must be steps a block and blocks, both positive, or (0, 0)")
        return self

    @cached_property
    def step(self) -> pd.Timedelta:
        return pd.Timedelta(minutes=self.step_minutes)

    @property
    def day_steps(self) -> int:
        return 1440 // self.step_minutes

    @property
    def median(self) -> int:
        """Index of the 0.5 quantile."""
        return self.quantiles.index(0.5)

    @property
    def context_node(self) -> NodeType | None:
        """The node type of ``context``, or None where there is no context."""
        if not self.context:
            return None
        return "air" if self.node == "road" else "road"

    @property
    def lookback(self) -> int:
        """Steps before the issue time that any feature reads."""
        seasonal = max((day * self.day_steps for day in self.seasonal_days), default=0)
        return max(self.history, self.coarse[0] * self.coarse[1], seasonal)

    def lead_label(self, index: int) -> str:
        """``15min``, ``24h``: the lead of horizon step ``index`` (0 is the first)."""
        minutes = (index + 1) * self.step_minutes
        return f"{minutes // 60}h" if minutes >= 120 and minutes % 60 == 0 else f"{minutes}min"

    def check(self, city: City) -> None:
        """Raises :class:`CityError` where the city lacks what the task needs."""
        problems = []
        if not city.ids(self.node):
            problems.append(Problem(f"city {city.name}", f"has no {self.node} nodes for the task {self.name}"))
        allowed: dict[str, tuple[NodeType | None, ...]] = {self.target: (self.node,)}
        allowed |= {name: (self.node, "city") for name in self.inputs}
        allowed |= {name: (self.context_node,) for name in self.context}
        allowed |= {name: (self.node, "city") for name in self.known_future}
        for name, nodes in allowed.items():
            signal = city.signals.get(name)
            if signal is None:
                problems.append(Problem(f"city {city.name}", f"has no signal {name!r}, which {self.name} needs"))
            elif signal.node not in nodes:
                problems.append(
                    Problem(
                        f"signal {name}", f"is measured at {signal.node} nodes, expected {' or '.join(map(str, nodes))}"
                    )
                )
            elif self.step % signal.step != pd.Timedelta(0) and (
                self.sampling == "last" or signal.step % self.step != pd.Timedelta(0)
            ):
                what = f"of step {signal.step} cannot be put on the task's clock of {self.step}"
                problems.append(Problem(f"signal {name}", what))
        if problems:
            raise CityError(problems)


def default_task(city: City, name: str, *, context: bool = True) -> Task:
    """The task that suits what a city measures.

    Congestion forecasts speed where it is measured and flow elsewhere, 12 → 12 on the measured clock, or on the
    shortest of whole minutes that it fits. PM2.5 is
    forecast hourly, 48 → 72, from what the stations measure, weather up to the issue time and, with ``context``,
    traffic.
    """
    if name == "congestion":
        target = next((s for s in ("speed", "flow", "occupancy") if _measured(city, s, "road")), None)
        if target is None:
            raise CityError([Problem(f"city {city.name}", "measures no speed, flow or occupancy on its roads")])
        step = _whole_minutes(city.signals[target])
        inputs = [s for s in TRAFFIC if s != target and _measured(city, s, "road")]
        inputs += [s for s in ("precipitation",) if _measured(city, s, "city")]
        block = max(1, 60 // step)
        return Task(
            name="congestion", node="road", target=target, step_minutes=step, history=12, horizon=12,
            inputs=tuple(inputs), coarse=(block, 24 * 60 // (block * step)),
            # Of a clock so coarse that a day ago would lie in the horizon, only the week before is read, or nothing.
            seasonal_days=tuple(day for day in (1, 7) if day * 24 * 60 >= 12 * step),
        )  # fmt: skip
    if name == "pm25":
        if not _measured(city, "pm25", "air"):
            raise CityError([Problem(f"city {city.name}", "measures no PM2.5 at air stations")])
        inputs = [s for s in GASES if _measured(city, s, "air")]
        inputs += [s for s in WEATHER if _measured(city, s, "air") or _measured(city, s, "city")]
        traffic = [s for s in TRAFFIC if _measured(city, s, "road")] if context and "road-air" in city.edges else []
        return Task(
            name="pm25", node="air", target="pm25", step_minutes=60, history=48, horizon=72,
            inputs=tuple(inputs), context=tuple(traffic), seasonal_days=(7,), coarse=(24, 7),
        )  # fmt: skip
    raise CityError([Problem("task", f"unknown name {name!r}; known are congestion, pm25")])


def _whole_minutes(signal: Signal) -> int:
    """The shortest clock, in minutes that divide a day, on which a signal can be put."""
    minutes = (m for m in range(1, 1441) if 1440 % m == 0 and pd.Timedelta(minutes=m) % signal.step == pd.Timedelta(0))
    found = next(minutes, None)
    if found is None:
        what = f"is measured every {signal.step}, of which no whole number of minutes that divides a day is a multiple"
        raise CityError([Problem(f"signal {signal.name}", what)])
    return found


def _measured(city: City, name: str, node: NodeType) -> bool:
    return name in city.signals and city.signals[name].node == node
