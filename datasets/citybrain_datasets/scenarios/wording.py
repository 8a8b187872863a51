"""What is wrong with a field of a scenario, as whoever wrote it reads it: what stands there, and what may."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from citybrain_datasets.errors import alike
from citybrain_datasets.scenarios.language import AIR_LEVERS, TRAFFIC_LEVERS, Measure, Weather
from citybrain_datasets.scenarios.places import When, Where
from citybrain_datasets.scenarios.sweeps import Sample

LEVERS = (*TRAFFIC_LEVERS, *AIR_LEVERS)
_MODELS: Mapping[str, type[BaseModel]] = {
    "where": Where, "when": When, "weather": Weather, "sample": Sample,
    **{get_args(model.model_fields["lever"].annotation)[0]: model for model in get_args(get_args(Measure)[0])},
}  # fmt: skip
_SHOWN = ("greater_than", "less_than", "int_", "float_", "finite_", "bool_", "string_", "literal_", "date_", "list_")
"""Kinds of mistakes, as pydantic names them, that are plainer beside what was written."""


_TAGS = {*LEVERS, "Uniform", "Integer", "Choice", "Subset"}
"""How pydantic names the member of a union that it tried."""


def mistakes(error: ValidationError, kind: type[BaseModel]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """All that is wrong with a document of ``kind``: the keys that lead there, as they stand in it, and what it is."""
    every = error.errors(include_url=False)
    for found in every:
        if not _consequential(found, every):
            # Neither a union's member nor a check of pydantic's is a key of the document.
            at = tuple(key for key in found["loc"] if key not in _TAGS and not str(key).startswith("function-"))
            yield at, _said(found, kind)


def _said(found: Mapping[str, Any], kind: type[BaseModel]) -> str:
    place, message, which = found["loc"], str(found["msg"]).removeprefix("Value error, "), str(found["type"])
    if which == "extra_forbidden":
        return f"unknown key{alike(str(place[-1]), _keys(place, kind))}"
    if which == "missing":
        return "is missing"
    if which in ("union_tag_invalid", "union_tag_not_found"):
        return _lever(found)
    if which == "tuple_type":
        return f"must be a list{_beside(found['input'])}"
    if which in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a mapping{_beside(found['input'])}"
    if which.startswith(_SHOWN):
        message += _beside(found["input"])
    if which.startswith("date_"):
        message += "; write YYYY-MM-DD"
    if "polygon" in place[-3:-2] and which.startswith(("less_than", "greater_than")):
        message += "; longitude stands before latitude"
    return message


def _consequential(found: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a list is only too short because of what is wrong in it, which is told by itself."""
    place = found["loc"]
    return found["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in every
    )


def _lever(found: Mapping[str, Any]) -> str:
    given = found["input"]
    if not isinstance(given, Mapping):
        return f"a measure is a mapping with a lever{_beside(given)}"
    named = given.get("lever")
    what = "names no lever" if named is None else f"{_shown(named)} is no lever"
    return what + (alike(str(named), LEVERS) or f"; known are {', '.join(LEVERS)}")


def _keys(place: Sequence[str | int], kind: type[BaseModel]) -> Collection[str]:
    """The keys that may stand where an unknown one was found."""
    within = kind if len(place) == 1 else _MODELS.get(str(place[-2]))
    return () if within is None else within.model_fields


def _beside(value: object) -> str:
    return f", not {_shown(value)}"


def _shown(value: object) -> str:
    """A value about as it was written."""
    if isinstance(value, str | bool | int | float | None):
        return reprlib.repr(value) if isinstance(value, str) else json.dumps(value)[:40]
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, Sequence) else "this"
