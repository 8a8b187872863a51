"""What the benchmark measures: events as probabilities, intervals of point forecasts, differences with a bound."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from citybrain_datasets.features import Window
from citybrain_datasets.statistics import Scaler
from citybrain_datasets.task import Task
from citybrain_training.bench.events import EventCounts, Events, probability_below
from citybrain_training.bench.significance import averaged, paired_difference
from citybrain_training.peers.conformal import residual_spread, with_spread

LEVELS = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
SPEED = Task(name="congestion", node="road", target="speed", step_minutes=15, history=4, horizon=6, seasonal_days=())
PM25 = Task(name="pm25", node="air", target="pm25", step_minutes=60, history=4, horizon=3, seasonal_days=())

rising = arrays(np.float64, 7, elements=st.floats(0, 100, width=32), unique=True).map(np.sort)


@given(rising)
def test_the_chance_of_less_than_a_quantile_is_its_level(quantiles: np.ndarray) -> None:
    apart = quantiles + np.arange(7)
    found = [probability_below(apart, LEVELS, np.asarray(q)) for q in apart]
    np.testing.assert_allclose(found, LEVELS, atol=1e-9)


@given(rising, st.lists(st.floats(-50, 200), min_size=2, max_size=8))
def test_the_chance_of_less_never_falls_as_the_limit_rises(quantiles: np.ndarray, limits: list[float]) -> None:
    ordered = np.sort(limits)
    chance = probability_below(np.broadcast_to(quantiles, (len(ordered), 7)), LEVELS, ordered)
    assert ((chance >= 0) & (chance <= 1)).all()
    assert (np.diff(chance) >= -1e-9).all()


def test_a_certain_and_right_forecast_detects_all_and_costs_nothing() -> None:
    outcome = np.array([True, False, True, False, False])
    counts = EventCounts()
    counts.add(outcome.astype(float), outcome, np.ones(5, bool))
    table = counts.table()
    assert (table["pod"], table["far"], table["csi"], table["brier"]) == (1, 0, 1, 0)
    assert table["brier_skill"] == 1
    assert table["base_rate"] == pytest.approx(0.4)


def test_what_was_not_measured_is_no_event_and_what_never_happened_has_no_table() -> None:
    counts = EventCounts()
    counts.add(np.array([0.9, 0.1]), np.array([True, False]), np.array([False, True]))
    assert counts.count == 1
    assert counts.table() == {}


def _speed_window(now: list[float]) -> Window:
    values = np.tile(np.array(now, np.float32)[None, None], (1, SPEED.history, 1))
    return Window(pd.DatetimeIndex(["2024-03-04T08:00Z"]), {"speed": values})


def _sure(values: np.ndarray) -> np.ndarray:
    return values[..., None] + 0.01 * np.linspace(-1, 1, 7)


def test_congestion_sets_in_where_free_roads_slow_within_the_hour_and_clears_at_its_end() -> None:
    # Free speed 60: under 30 is congested. The second road slows after 75 minutes, which is too late to count.
    truth = np.array([[[50, 40, 20, 20, 20, 20], [50, 50, 50, 50, 20, 20], [20, 20, 40, 40, 40, 40]]], float)
    events = Events(SPEED, np.full(3, 60.0))
    events.add(_speed_window([50, 50, 20]), _sure(truth), truth)
    onset, clearing = events.counts["congestion sets in"], events.counts["congestion clears"]
    assert (onset.count, onset.hits, onset.misses, onset.false_alarms) == (2, 1, 0, 0)
    assert (clearing.count, clearing.hits) == (1, 1)


def test_a_gap_in_the_hour_counts_only_where_the_road_was_seen_to_slow() -> None:
    truth = np.array([[[50, np.nan, 20, 20, 20, 20], [50, np.nan, 50, 50, 50, 50]]])
    events = Events(SPEED, np.full(2, 60.0))
    events.add(_speed_window([50, 50]), _sure(np.nan_to_num(truth, nan=50)), truth)
    assert events.counts["congestion sets in"].count == 1


def test_roads_without_a_free_speed_have_no_congestion_events() -> None:
    truth = np.full((1, 1, 6), 20.0)
    events = Events(SPEED, np.array([np.nan]))
    events.add(_speed_window([50]), _sure(truth), truth)
    assert events.counts["congestion sets in"].count == 0


def test_pm25_is_held_against_each_limit_of_the_standard() -> None:
    truth = np.array([[[30.0, 70.0, np.nan]]])
    events = Events(PM25)
    events.add(Window(pd.DatetimeIndex(["2024-03-04T08:00Z"]), {}), _sure(np.nan_to_num(truth)), truth)
    assert {name: counts.hits for name, counts in events.counts.items()} == {
        "PM2.5 above 35": 1,
        "PM2.5 above 60": 1,
        "PM2.5 above 115": 0,
        "PM2.5 above 150": 0,
    }
    assert all(counts.count == 2 for counts in events.counts.values())


@given(st.integers(0, 10_000))
def test_conformal_intervals_hold_on_new_errors_of_the_same_kind(seed: int) -> None:
    random = np.random.default_rng(seed)
    spread = residual_spread(PM25, random.standard_t(4, (400, 3, 5)))
    fresh = random.standard_t(4, (400, 3, 5))
    inside = (spread[:, :1] <= fresh.transpose(1, 0, 2).reshape(3, -1)) & (
        fresh.transpose(1, 0, 2).reshape(3, -1) <= spread[:, -1:]
    )
    assert (np.abs(inside.mean(axis=1) - 0.9) < 0.05).all()
    assert (np.diff(spread, axis=1) >= 0).all()
    assert (spread[:, PM25.median] == 0).all()


def test_intervals_of_a_log_scaled_forecast_widen_with_its_level() -> None:
    scaler = Scaler("log1p", 3.0, 1.0)
    spread = residual_spread(PM25, np.random.default_rng(0).normal(size=(200, 3, 2)))
    quantiles = with_spread(np.array([[[0.0, 2.0]] * 3]), spread, scaler)
    assert quantiles.shape == (1, 2, 3, 7)
    width = quantiles[..., -1] - quantiles[..., 0]
    assert (width[0, 1] > 2 * width[0, 0]).all()
    np.testing.assert_allclose(quantiles[..., PM25.median][0, :, 0], scaler.unscale(np.array([0.0, 2.0])), rtol=1e-5)


def _days(errors: list[float]) -> dict[str, tuple[float, float]]:
    return {f"2024-03-{i + 1:02d}": (10 * error, 10.0) for i, error in enumerate(errors)}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=28), st.integers(1, 5))
def test_a_model_does_not_differ_from_itself(errors: list[float], block: int) -> None:
    difference = paired_difference(_days(errors), _days(errors), block=block, draws=50)
    assert (difference.mean, difference.low, difference.high) == (0, 0, 0)


@given(st.lists(st.floats(1, 100), min_size=2, max_size=28), st.floats(0.1, 1))
def test_the_same_gap_every_day_is_certain_however_much_days_differ(errors: list[float], gap: float) -> None:
    difference = paired_difference(_days([e - gap for e in errors]), _days(errors), draws=50)
    assert difference.mean == pytest.approx(-gap)
    assert difference.low == pytest.approx(-gap)
    assert difference.high == pytest.approx(-gap)


def test_a_gap_that_comes_and_goes_is_not_told_from_none() -> None:
    random = np.random.default_rng(3)
    base, noise = random.uniform(10, 20, 28), random.normal(0, 3, 28)
    difference = paired_difference(_days(list(base + noise - noise.mean())), _days(list(base)), block=3)
    assert difference.low < 0 < difference.high


def test_models_scored_on_other_values_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not scored on the same"):
        paired_difference(_days([1, 2]), _days([1, 2, 3]))


def test_seeds_are_averaged_day_by_day() -> None:
    assert averaged([_days([1, 3]), _days([3, 5])]) == _days([2, 4])
