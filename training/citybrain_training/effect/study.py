"""A study: which measure, when and where, and what others have found; a YAML file, so that a city needs no code."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from citybrain_datasets.errors import CityError, ConfigError
from citybrain_datasets.signals import KINDS
from citybrain_datasets.store import schema_problems


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(Strict):
    """A signal, and the nodes at which the measure should have shown."""

    signal: str
    nodes: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _known(self) -> Target:
        if self.signal not in KINDS:
            raise ValueError(f"unknown signal {self.signal!r}; known are {', '.join(KINDS)}")
        return self


class Published(Strict):
    """What others found. ``comparable`` says in words how their estimate differs from ours."""

    who: str
    where: str
    found: str
    comparable: str
    source: str


class Study(Strict):
    """One measure. ``site`` is the node in its middle; nodes farther than ``reach_m`` from it are placebo places.

    ``placebo_dates`` are days before ``date`` on which nothing began; at the first node of each target the model
    is trained up to each and judged on the ``placebo_days`` after it.
    """

    name: str
    date: dt.date
    site: str
    reach_m: float = Field(3000, gt=0)
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    placebo_dates: tuple[dt.date, ...] = ()
    placebo_days: int = Field(28, ge=7)
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _before(self) -> Study:
        late = [d for d in self.placebo_dates if (self.date - d).days < self.placebo_days]
        if late:
            raise ValueError(f"the placebo date {late[0]} lies less than {self.placebo_days} days before the measure")
        return self


def read_study(path: Path) -> Study:
    """Reads a study; errors name file and key."""
    try:
        return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise CityError(schema_problems(path, error)) from error
