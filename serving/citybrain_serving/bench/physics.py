"""What must hold of every answer, whatever was learnt, counted and measured on the surrogate that is served."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_models.surrogate.scorer import BATCH, USUAL_WEATHER, Scorer


def checks(scorer: Scorer) -> Iterator[tuple[str, float, str]]:
    """Name, value and unit of each: all of them are 0 where physics holds.

    Mass is conserved by the line-source matrix itself, which a test holds against the flux through a plane downwind.
    """
    yield "closed segments whose own flow rises", float(_rising(scorer)), f"of {len(scorer.network.ids)}"
    nothing = scorer([Scenario(id="nothing")])
    changes = [abs(float(nothing.columns[f"{name}_change"][0])) for name in OUTCOMES]
    yield "largest change of any outcome without measures", float(np.nanmax(changes)), "outcome's own"
    step, emission = scorer.air[USUAL_WEATHER], scorer.base.emission.T.astype(float)
    none, half, whole = (step.pm25(emission * part) for part in (0.0, 0.5, 1.0))
    share = whole - none
    off = np.abs((half - none) - share / 2).max() / share.max()
    yield "traffic's share of PM2.5 beside half of it at half its emission, largest relative error", float(off), "1"


def _rising(scorer: Scorer) -> int:
    """Segments that have more flow in some slot when they alone are closed."""
    ids, rising = scorer.network.ids, 0
    for first in range(0, len(ids), BATCH):
        some = ids[first : first + BATCH]
        closed = [
            Scenario.model_validate({"id": i, "measures": [{"lever": "closure", "where": {"segments": [i]}}]})
            for i in some
        ]
        after = scorer.changed(scorer.levers(closed, scorer.base.flow))
        for row in range(len(some)):
            rising += bool((after.flow[row, first + row] > scorer.base.flow[first + row]).any())
    return rising
