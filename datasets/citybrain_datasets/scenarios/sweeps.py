"""Sweeps: one description that stands for many scenarios, expanded one at a time and in a fixed order.

A sweep's measures may hold ``$name`` where a value stands. ``grid`` runs through every combination of the values
given, the last name fastest; ``sample`` draws ``count`` times. Scenario ``i`` of a sweep depends on the sweep and on
``i`` alone, so that any one of them can be made without the others.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, model_validator

from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.places import Count, Number, Strict

Name = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")]
Bound = Annotated[Number, Field(ge=-1e12, le=1e12)]
Whole = Annotated[Count, Field(ge=-(2**53), le=2**53)]
# Far beyond any measure, and what can be drawn from without overflow.
MOST = 10_000_000
"""Scenarios that one sweep may stand for."""


class Uniform(Strict):
    """A number between the two, rounded to ``digits``."""

    uniform: tuple[Bound, Bound]
    digits: Annotated[Count, Field(ge=0, le=9)] = 3

    def draw(self, rng: np.random.Generator) -> float:
        return round(float(rng.uniform(*self.uniform)), self.digits)

    def extremes(self) -> list[Any]:
        return [round(end, self.digits) for end in self.uniform]

    @model_validator(mode="after")
    def _rising(self) -> Uniform:
        if self.uniform[1] < self.uniform[0]:
            raise ValueError("the second number is below the first")
        return self


class Integer(Strict):
    """A whole number from the first to the second, both included."""

    integer: tuple[Whole, Whole]

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.integer[0], self.integer[1] + 1))

    def extremes(self) -> list[Any]:
        return list(self.integer)

    @model_validator(mode="after")
    def _rising(self) -> Integer:
        if self.integer[1] < self.integer[0]:
            raise ValueError("the second number is below the first")
        return self


class Choice(Strict):
    """One of the values."""

    choice: Annotated[tuple[Any, ...], Field(min_length=1)]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.choice[int(rng.integers(len(self.choice)))]

    def extremes(self) -> list[Any]:
        return list(self.choice)


class Subset(Strict):
    """Some of the values, from ``size[0]`` to ``size[1]`` of them, in their order; they stand in a list one by one."""

    subset: Annotated[tuple[Any, ...], Field(min_length=1)]
    size: tuple[Annotated[Count, Field(ge=0)], Count] = (1, 1)

    @model_validator(mode="after")
    def _possible(self) -> Subset:
        if not self.size[0] <= self.size[1] <= len(self.subset):
            raise ValueError(f"size must rise and be at most {len(self.subset)}")
        return self

    def draw(self, rng: np.random.Generator) -> list[Any]:
        size = int(rng.integers(self.size[0], self.size[1] + 1))
        return [self.subset[i] for i in sorted(rng.choice(len(self.subset), size, replace=False))]

    def extremes(self) -> list[Any]:
        """Each value once, among as few others as are drawn with it."""
        size = min(max(self.size[0], 1), self.size[1])
        first = range(len(self.subset))
        drawn = [sorted([i, *(j for j in first[:size] if j != i)][:size]) for i in first]
        return [[self.subset[i] for i in chosen] for chosen in drawn]


class Sample(Strict):
    """``count`` independent draws of every name."""

    count: Annotated[Count, Field(ge=1, le=MOST)]
    seed: Annotated[Count, Field(ge=0)] = 0
    draw: dict[Name, Uniform | Integer | Choice | Subset]


class Sweep(Strict):
    """Many scenarios with the ids ``ID/000000``, ``ID/000001`` and so on."""

    version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[^\s$/][^\n$/]*$", max_length=180)]
    title: str = ""
    grid: dict[Name, Annotated[tuple[Any, ...], Field(min_length=1)]] | None = None
    sample: Sample | None = None
    measures: Annotated[tuple[Any, ...], Field(min_length=1)]
    weather: Any = None

    @model_validator(mode="after")
    def _sound(self) -> Sweep:
        if (self.grid is None) == (self.sample is None):
            raise ValueError("give grid or sample, and not both")
        meant = {name: set(_names(values)) for name, values in (self.grid or {}).items()}
        if self.sample is not None:
            meant = {name: set(_names(draw.model_dump())) for name, draw in self.sample.draw.items()}
        names, used = set(meant), set(_names((self.measures, self.weather))).union(*meant.values())
        if unknown := sorted(used - names):
            raise ValueError(f"${unknown[0]} stands for nothing; known are {', '.join(sorted(names)) or 'none'}")
        if unused := sorted(names - used):
            raise ValueError(f"{unused[0]} is given values, but ${unused[0]} stands nowhere")
        try:
            TopologicalSorter(meant).prepare()
        except CycleError:
            raise ValueError("names refer to each other in a circle") from None
        if self._count > MOST:
            raise ValueError(f"a sweep stands for at most {MOST} scenarios")
        return self

    @property
    def _count(self) -> int:
        if self.sample is not None:
            return self.sample.count
        return math.prod(len(values) for values in (self.grid or {}).values())

    def __len__(self) -> int:
        return self._count

    def names(self, scenario: str) -> bool:
        """Whether one of its scenarios has this id."""
        sweep, _, number = scenario.rpartition("/")
        return (
            sweep == self.id
            and number.isascii()
            and number.isdigit()
            and len(number) <= len(str(MOST))
            and int(number) < len(self)
            and f"{int(number):06d}" == number
        )

    def document(self, index: int) -> dict[str, Any]:
        """Scenario ``index`` as a person would have written it."""
        if not 0 <= index < len(self):
            raise IndexError(f"sweep {self.id} has {len(self)} scenarios")
        return self._document(index, self._values(index))

    def _document(self, index: int, values: Mapping[str, Any]) -> dict[str, Any]:
        document = {
            "id": f"{self.id}/{index:06d}",
            "title": self.title,
            "measures": _filled(list(self.measures), values, 0),
        }
        return document if self.weather is None else document | {"weather": _filled(self.weather, values, 0)}

    def scenario(self, index: int) -> Scenario:
        """Scenario ``index``; pydantic's ``ValidationError`` where the values do not make one."""
        return _SCENARIO.validate_python(self.document(index))

    def variants(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Scenarios as :meth:`document` gives them that between them hold every value a name may take, numbers by their
        extremes, wherever it stands: one name varied at a time, the sum of the values and not their product. Each with
        what is particular to it, empty for the first."""
        values = {name: list(each) for name, each in (self.grid or {}).items()}
        if self.sample is not None:
            values = {name: draw.extremes() for name, draw in self.sample.draw.items()}
        first = {name: each[0] for name, each in values.items()}
        yield "", self._document(0, first)
        for name, each in values.items():
            around = list(self._around(name, values))
            for value in each:
                for others in around:
                    yield f"${name} is {reprlib.repr(value)}", self._document(0, {**first, **others, name: value})

    def _around(self, name: str, values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
        """What other names must be so that ``name`` stands in a scenario, for each value it may stand in."""
        if name in _names((self.measures, self.weather)):
            yield {}
        for holder, each in values.items():
            for value in each:
                if name in _names(value):
                    yield from ({**others, holder: value} for others in islice(self._around(holder, values), 1))

    def __iter__(self) -> Iterator[Scenario]:  # type: ignore[override]  # a sweep is its scenarios, not its fields
        return (self.scenario(i) for i in range(len(self)))

    def _values(self, index: int) -> dict[str, Any]:
        if self.sample is not None:
            rng = np.random.default_rng([self.sample.seed, index])
            return {name: draw.draw(rng) for name, draw in sorted(self.sample.draw.items())}
        values = {}
        for name, choices in reversed((self.grid or {}).items()):
            index, position = divmod(index, len(choices))
            values[name] = choices[position]
        return values


_SCENARIO = TypeAdapter(Scenario)
_DEEPEST = 8


def _filled(value: Any, values: Mapping[str, Any], depth: int) -> Any:
    """``value`` with every ``$name`` replaced; what replaces it may hold names of its own."""
    if depth > _DEEPEST * 4:
        raise ValueError("names and lists stand too deep within each other")
    if isinstance(value, str) and value.startswith("$"):
        return _filled(values[value[1:]], values, depth + 4)
    if isinstance(value, Mapping):
        return {k: _filled(v, values, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        result: list[Any] = []
        for item in value:
            filled = _filled(item, values, depth + 1)
            spliced = isinstance(item, str) and item.startswith("$") and isinstance(filled, list)
            result.extend(filled if spliced else [filled])
        return result
    return value


def _names(value: Any) -> Iterator[str]:
    """Every ``$name`` in ``value``."""
    if isinstance(value, str) and value.startswith("$"):
        yield value[1:]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)
