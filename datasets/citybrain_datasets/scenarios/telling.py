"""A scenario and its outcomes in a line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from citybrain_datasets.scenarios.language import Measure, Scenario

_MOST_NAMES = 3


def in_words(scenario: Scenario) -> str:
    """Its measures with all that was given of them; of a scenario of a sweep the values it got."""
    return "; ".join(map(_measure, scenario.measures)) or "no measure"


def signed(value: float) -> str:
    """A change: three digits, and whole numbers beyond them."""
    return f"{value:+.3g}" if abs(value) < 999.5 else f"{value:+.0f}"


def _measure(measure: Measure) -> str:
    given: dict[str, Any] = measure.model_dump(mode="json", exclude_defaults=True)
    lever, where, when, cost = (given.pop(name, {}) for name in ("lever", "where", "when", "cost"))
    told = [f"{name} {_value(value)}" for name, value in given.items()]
    told += [_place(name, value) for name, value in where.items()]
    if when:
        told.append(_time(when))
    if measure.cost is not None:
        told.append(f"cost {cost:g}")
    return f"{lever} ({', '.join(told)})" if told else str(lever)


def _value(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def _place(name: str, value: list[Any]) -> str:
    if name == "polygon":
        return f"polygon of {len(value)} corners"
    more = f" and {len(value) - _MOST_NAMES} more" if len(value) > _MOST_NAMES else ""
    return f"{name} {', '.join(map(str, value[:_MOST_NAMES]))}{more}"


def _time(when: Mapping[str, str]) -> str:
    hours = f"{when.get('begin', '00:00')}–{when.get('end', '24:00')}"
    days = f"{when['days']} days" if "days" in when else ""
    return " ".join(filter(None, (hours if {"begin", "end"} & when.keys() else "", days)))
