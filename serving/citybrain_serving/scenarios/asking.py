"""The body of ``POST /v1/scenarios``, checked: every mistake with its place."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.sweeps import Sweep
from citybrain_datasets.scenarios.wording import mistakes
from citybrain_serving.errors import BadScenario
from citybrain_serving.routes.documentation import schema
from citybrain_serving.scenarios.ranking import DEFAULT_WEIGHTS, check_weights, weighable

MOST = 100_000
"""Scenarios in one request, sweeps counted out."""


_LANGUAGE: dict[str, Any] = {"items": {"anyOf": [schema(Scenario), schema(Sweep)]}}
_WEIGHABLE: dict[str, Any] = {"propertyNames": {"enum": weighable()}, "examples": [dict(DEFAULT_WEIGHTS)]}


class ScenariosBody(BaseModel):
    """``scenarios`` are scenarios and sweeps in the scenario language; ``base`` is what they are held against: the
    traffic forecast ``now``, or a ``usual`` working day; ``now`` by default, where there is a forecast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenarios: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=MOST,
        json_schema_extra=_LANGUAGE,
    )
    weights: dict[str, float] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS),
        description="what counts how much; at least one above 0",
        json_schema_extra=_WEIGHABLE,
    )
    base: Literal["now", "usual"] = "now"
    version: Literal[1] = Field(1, description="of the scenario language: a file of scenarios may be sent as it is")


def read_scenarios_of(body: ScenariosBody) -> list[Scenario]:
    """Every scenario of a request, sweeps expanded. Raises :class:`BadScenario` with all that is wrong."""
    found: list[Scenario] = []
    seen: dict[str, int] = {}
    errors: list[dict[str, str]] = []
    try:
        check_weights(body.weights)
    except CityBrainError as error:
        errors.append({"where": "weights", "what": str(error)})
    for number, document in enumerate(body.scenarios):
        sweep = bool({"grid", "sample"} & document.keys())
        try:
            if sweep:
                entry = Sweep.model_validate(document)
                if len(found) + len(entry) > MOST:
                    raise BadScenario(f"more than {MOST} scenarios; use `citybrain score`")
                made = list(entry)
            else:
                made = [Scenario.model_validate(document)]
        except ValidationError as error:
            kind = Sweep if sweep else Scenario
            errors += [
                {"where": ".".join(map(str, ("scenarios", number, *at))), "what": what}
                for at, what in mistakes(error, kind)
            ]
        except ValueError as error:
            errors.append({"where": f"scenarios.{number}", "what": str(error)})
        else:
            found += made
            twice = next((s.id for s in made if seen.setdefault(s.id, number) != number), None)
            if twice is not None:
                what = f"the id {twice!r} stands already in scenarios.{seen[twice]}"
                errors.append({"where": f"scenarios.{number}.id", "what": what})
    if errors:
        raise BadScenario("; ".join(f"{e['where']}: {e['what']}" for e in errors[:20]), {"errors": errors[:200]})
    return found
