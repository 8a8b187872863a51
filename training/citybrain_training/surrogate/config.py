"""What a person may set of a surrogate's training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SurrogateConfig(BaseModel):
    """Refuses unknown keys; the defaults are those of the surrogate that ships."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    quantiles: tuple[float, ...] = (0.05, 0.5, 0.95)
    members: int = Field(1, ge=1, le=8)
    """Networks that answer with their mean; scoring costs as many times as much."""
    width: int = Field(64, ge=8)
    blocks: int = Field(3, ge=1)
    hubs: int = Field(8, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    epochs: int = Field(120, ge=1)
    batch: int = Field(16, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    total_weight: float = Field(1.0, ge=0)
    """How much the error of sums (of delay, distance and emission by zone and over the city, of PM2.5 at stations and
    for people) counts beside that of segments."""
    average: float = Field(0.99, ge=0, lt=1)
    """Decay of the running mean of the weights, 0 for none."""
    minutes: float = Field(15.0, gt=0)
    """The longest a training may take."""
    threads: int = Field(1, ge=1)
