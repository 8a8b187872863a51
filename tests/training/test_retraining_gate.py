"""The gate on comparisons made by hand: only a challenger better beyond doubt, and worse at nothing, gets through."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_datasets.task import Task
from citybrain_training.node_groups import node_groups
from citybrain_training.retraining.comparison import Comparison
from citybrain_training.retraining.gate import GateRule, judge

TASK = Task(name="congestion", node="road", target="speed", step_minutes=15, history=4, horizon=4, seasonal_days=())
RULE = GateRule()


def compared(days: int = 14, better: float = 0.5, noise: float = 0.3, seed: int = 0, **changes: float) -> Comparison:
    """Errors around 5 km/h; ``changes`` worsen one measure of the challenger by a share."""
    random = np.random.default_rng(seed)
    comparison = Comparison(TASK, 4)
    for day in range(days):
        label = np.full(20, f"2024-03-{day + 1:02d}")
        theirs = 5 + random.normal(0, 1) + random.normal(0, noise, (20, 4))
        ours = theirs - better + random.normal(0, noise, (20, 4))
        comparison.add("error", label, ours, theirs)
        inside = random.random((2, 20, 400)) < np.array([0.9 - changes.get("coverage", 0), 0.9])[:, None, None]
        comparison.add("inside", label, inside[0].astype(float), inside[1].astype(float))
        comparison.add("group quarter=north-east", label, theirs * (1 + changes.get("group", -0.1)), theirs)
        comparison.add("event congestion sets in", label, 0.1 * theirs * (1 + changes.get("event", -0.1)), 0.1 * theirs)
    return comparison


def failed(comparison: Comparison) -> set[str]:
    return {check.name for check in judge(comparison, RULE).checks if not check.passed}


def test_a_better_challenger_passes_and_every_question_is_answered_in_words() -> None:
    verdict = judge(compared(), RULE)
    assert verdict.passed
    assert [check.name for check in verdict.checks] == [
        "windows",
        "mean absolute error",
        "coverage",
        "events (Brier)",
        "worst node group",
    ]
    card = verdict.markdown()
    assert card.startswith("## Gate: passed")
    assert "km/h" in card
    assert "north-east" in card


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"better": -0.5}, "mean absolute error"),
        ({"better": 0.0}, "mean absolute error"),
        ({"coverage": 0.1}, "coverage"),
        ({"event": 0.1}, "events (Brier)"),
        ({"group": 0.1}, "worst node group"),
    ],
)
def test_whatever_is_worse_is_named(changes: dict[str, float], name: str) -> None:
    assert failed(compared(**changes)) == {name}  # type: ignore[arg-type]  # all are numbers


def test_a_group_may_lose_a_little() -> None:
    assert judge(compared(group=0.01), RULE).passed


def test_days_on_which_hardly_anything_was_measured_are_no_days() -> None:
    """Eight days, of which an outage left three and slivers of two."""
    whole, comparison = compared(days=8, better=3), Comparison(TASK, 4)
    for number, day in enumerate(sorted(whole.sums["error"])):
        share = (1, 1, 1, 0.1, 0.1, 0, 0, 0)[number]
        for measure, sums in whole.sums.items():
            comparison.sums.setdefault(measure, {})[day] = share * sums[day]
    verdict = judge(comparison, RULE)
    assert not verdict.passed
    assert verdict.checks[0].reason.startswith("3 days, 3 blocks")


def test_what_is_known_of_one_day_alone_holds_nobody_back() -> None:
    comparison = compared()
    first = min(comparison.sums["error"])
    comparison.sums["event rare"] = {day: np.zeros(3) for day in comparison.sums["error"]}
    comparison.sums["event rare"][first] = np.array([3.0, 1.0, 20.0])
    assert judge(comparison, RULE).passed


def test_too_few_days_prove_nothing_however_large_the_gain() -> None:
    verdict = judge(compared(days=4, better=3), RULE)
    assert not verdict.passed
    assert "at least 5 blocks" in verdict.checks[0].reason
    assert len(verdict.checks) == 1


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)  # a shared machine may pause in any example
def test_a_twin_of_the_champion_never_passes(seed: int) -> None:
    assert "mean absolute error" in failed(compared(better=0, noise=0, seed=seed, group=0, event=0))


def test_what_either_does_not_know_is_compared_for_neither() -> None:
    comparison = Comparison(TASK, 2)
    comparison.add("error", np.array(["2024-03-01"]), np.array([[1.0, np.nan]]), np.array([[2.0, 9.0]]))
    assert comparison.means("error") == (1.0, 2.0, 1)


def test_groups_are_what_the_city_calls_them_and_the_quarters_of_the_map() -> None:
    table = pd.DataFrame(
        {
            "lat": [1.0, 1, 0, np.nan],
            "lon": [0.0, 1, 0.2, np.nan],
            "owner": ["a", "b", "a", ""],
            "road_class": ["x"] * 4,
        }
    )
    assert {name: rows.tolist() for name, rows in node_groups(table).items()} == {
        "owner=a": [0, 2],
        "owner=b": [1],
        "quarter=north-east": [1],
        "quarter=north-west": [0],
        "quarter=south-east": [2],
    }
