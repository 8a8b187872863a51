"""What a training may be told, as typed YAML that refuses unknown keys."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError, model_validator

from citybrain_datasets.errors import ConfigError


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkConfig(_Strict):
    """Size of :class:`citybrain_models.nn.citynet.CityNet`."""

    width: int = Field(64, gt=0)
    blocks: int = Field(2, gt=0)
    hubs: int = Field(8, ge=0)
    embedding: int = Field(16, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    members: int = Field(1, gt=0, le=16)
    """Networks that are trained side by side and answer with their mean; worth it where data are few."""
    profile_pull: float = Field(0.0, ge=0, le=1)
    """Share by which distant leads are drawn to the weekly profile, approached as 1 - exp(-lead / one day)."""
    neighbours: int = Field(16, gt=0)
    """Senders a node listens to along each kind of edge, the nearest first."""
    graph: bool = True
    """False leaves every message out: the ablation that shows what the graph brings."""
    exchange: bool = True
    """False leaves out what neighbours tell one another; a place that lacks measurements, or a sensor, still borrows
    from those near it, and hubs still tell all of all."""
    profile: bool = True
    """False tells of each place its mean alone, not its week: the ablation that shows what the profile brings."""


class FitConfig(_Strict):
    """Optimisation."""

    epochs: int = Field(30, gt=0)
    minutes: float | None = Field(None, gt=0)
    """Time after which training ends where its epochs have not by then: of the processor, or on the clock where an
    accelerator trains. The learning rate falls with whichever is farther, the time or the epochs."""
    batch: int = Field(64, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    patience: int = Field(8, gt=0)
    """Epochs without a better validation error after which training stops."""
    average: float = Field(0.995, ge=0, lt=1)
    """Decay of the moving average of the weights, which is what is kept; 0 keeps the last weights."""
    disturbed: float = Field(0.2, ge=0, le=1)
    """Share of the training batches that show a city in trouble, as the next three say; the others show it whole,
    which is what is forecast nearly always."""
    embedding_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of nodes whose learned embedding is withheld in a disturbed batch, so that a new sensor can do without."""
    sensor_dropout: float = Field(0.2, ge=0, lt=1)
    """Mean share of sensors that fail in a disturbed window, and share of such windows in which the whole feed is late,
    so that neither is anything new."""
    phantoms: float = Field(0.2, ge=0, le=0.5)
    """Mean share of sensors that a disturbed batch takes for places without one, so that virtual sensing is learnt."""
    weather_error: tuple[NonNegativeFloat, NonNegativeFloat] = (0.1, 0.5)
    """How far the weather ahead (``known_future``) errs in training at the first and the last lead: standard deviation
    as a share of the signal's. What training reads is what was measured later, and no forecast is as good. Over three
    days temperature errs by less than the default and wind by more; (0, 0) trains on a perfect forecast."""
    weather_withheld: float = Field(0.2, ge=0, le=1)
    """Share of the training windows without a weather forecast, or with one that does not reach the last lead."""
    traffic_withheld: float = Field(0.2, ge=0, le=1)
    """Share of the training windows without the congestion forecast that ``context_ahead`` reads, or with one that ends
    sooner."""
    quantile_weight: float = Field(1.0, ge=0)
    """Weight of the mean pinball loss of the outer quantiles beside the absolute error of the median."""
    lead_power: float | None = Field(None, ge=0)
    """How much more near leads count in the loss: the difficulty of a lead to minus this power; 0 counts all alike.
    Left out it is 3 at air stations, whose distant leads can hardly be known and are learnt by heart before near ones
    are learnt, 1 where these read the weather ahead, which makes them knowable, and 0 on roads."""
    linear_start: bool = True
    """Begin from the ridge regression of the target on the features; random weights for all of it when false."""
    windows_per_epoch: int | None = Field(None, gt=0)
    """Train on a random part of the windows each epoch; all of them when left out."""
    validation_windows: int = Field(1000, gt=0)
    """Windows that every epoch is validated on, spread evenly over the validation part. Neighbours share nearly all of
    their steps: thousands cost as much as training and tell no more."""


class SplitConfig(_Strict):
    """Chronological parts: by fraction of the windows, or by date.

    By date, a window belongs to a part when its issue time and its whole horizon lie in it; dates without a zone are
    UTC.
    """

    first: datetime | None = None
    last: datetime | None = None
    train: float | datetime = 0.7
    validate_: float | datetime = Field(0.1, alias="validate")
    every_tick: bool = False
    """Train also on windows issued between the task's steps, wherever something was measured."""

    @model_validator(mode="after")
    def _same_kind(self) -> Self:
        kinds = {isinstance(self.train, datetime), isinstance(self.validate_, datetime)}
        if len(kinds) > 1:
            raise ValueError("train and validate must both be fractions or both be dates")
        if isinstance(self.train, float) and isinstance(self.validate_, float):
            left = 1 - self.train - self.validate_
            if min(self.train, self.validate_, left) <= 0:
                raise ValueError("the fractions train and validate must be positive and leave something for the test")
        return self


class ExportConfig(_Strict):
    """What a trained network leaves as."""

    precision: Literal["float32", "int8"] = "float32"
    """``int8`` rounds the products inside the network to eight-bit integers, a third faster on processors with VNNI
    instructions; where that costs more than ``most_cost`` the network stays as it is, which is told."""
    most_cost: float = Field(0.005, ge=0)
    """Largest rise of the error, or of the pinball loss, on validation windows that rounding may cost, as a share."""


class TrainConfig(_Strict):
    """Everything a training depends on beside the city. ``task`` overrides fields of the default task."""

    task: dict[str, Any] = Field(default_factory=dict)
    network: NetworkConfig = NetworkConfig()
    fit: FitConfig = FitConfig()
    split: SplitConfig = SplitConfig()
    export: ExportConfig = ExportConfig()
    seed: int = Field(1, ge=0, lt=2**32)
    threads: int = Field(2, gt=0)
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Options of Lightning's Trainer (accelerator, devices, strategy, precision …), passed on as they are."""

    def merged(self, changes: dict[str, Any]) -> TrainConfig:
        """This configuration with some leaves changed, validated anew. Raises :class:`ConfigError` naming the leaf."""
        base = self.model_dump(by_alias=True, exclude_unset=True)
        for key, value in changes.items():
            base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
        return _validated(base, "configuration")


def read_config(path: Path | str | None) -> TrainConfig:
    """Reads YAML. Raises :class:`ConfigError` naming file, key and what is wrong with it."""
    if path is None:
        return TrainConfig()
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is no YAML: {error}") from None
    return _validated(content or {}, str(path))


def _validated(content: object, where: str) -> TrainConfig:
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        lines = [f"{where}: {'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None
