"""Scored scenarios as a table: one row each, in the order they were given."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pydantic import TypeAdapter

from citybrain_datasets.scenarios.language import Measure, Scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_models.surrogate.scorer import USUAL_WEATHER, Scores

USUAL = "usual"
"""The weather of scenarios that name none."""
BOUNDS = ("", "_change", "_change_low", "_change_high")

SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("levers", pa.string(), nullable=False),
        pa.field("measures", pa.string(), nullable=False),
        pa.field("weather", pa.string(), nullable=False),
        pa.field("cost", pa.float64()),
        *(pa.field(f"{o.name}{b}", pa.float64(), metadata={"unit": o.unit}) for o in OUTCOMES.values() for b in BOUNDS),
        pa.field("worst_corridor", pa.string(), nullable=False),
        pa.field("worst_district", pa.string(), nullable=False),
        pa.field("grade", pa.string(), nullable=False),
        pa.field("outside", pa.string(), nullable=False),
    ]
)
"""``levers`` are joined by a plus sign. ``measures`` are in the scenario language, as JSON, of a sweep's scenario with
the values it got: they can be scored or simulated again as they are. ``weather`` is that in which a scenario and its
base are judged. ``grade`` is where the change comes from; ``outside`` why a scenario goes beyond what the surrogate has
learnt or the hours that it judges, or which of its measures changes nothing; empty where neither is so."""

_MEASURES = TypeAdapter(tuple[Measure, ...])


def rows_of(scenarios: Sequence[Scenario], scores: Scores, first: int = 0) -> pa.Table:
    """The table of a batch whose first scenario has the position ``first``."""
    columns: dict[str, object] = {
        "position": range(first, first + len(scenarios)),
        "id": [s.id for s in scenarios],
        "title": [s.title for s in scenarios],
        "levers": ["+".join(s.levers) for s in scenarios],
        "measures": [_MEASURES.dump_json(s.measures, exclude_defaults=True).decode() for s in scenarios],
        "weather": [USUAL if s.weather == USUAL_WEATHER else str(s.weather) for s in scenarios],
        "cost": [s.cost for s in scenarios],
        **{name: scores.columns[name] for name in scores.columns},
        **scores.labels,
        "grade": scores.grade,
        "outside": scores.outside,
    }
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)
