"""What the benchmark measures: intervals of point forecasts, and differences with a bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from citybrain_datasets.statistics import Scaler
from citybrain_datasets.task import Task
from citybrain_training.peers.conformal import residual_spread, with_spread
from citybrain_training.significance import averaged, expanded, paired_difference

PM25 = Task(name="pm25", node="air", target="pm25", step_minutes=60, history=4, horizon=3, seasonal_days=())


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


def test_of_few_days_no_more_is_beyond_doubt_than_may_be() -> None:
    """A week in which two models do not differ: one in forty may be told better, not one in sixteen."""
    random, better = np.random.default_rng(1), 0
    for _ in range(1_000):
        gaps = 100 + random.normal(0, 1, 8)
        better += paired_difference(_days(list(gaps)), _days([100.0] * 8), draws=400).high < 0
    assert better < 50


def test_percentiles_are_the_plain_ones_where_blocks_are_many() -> None:
    tails = [expanded(blocks) for blocks in (2, 5, 20, 1_000_000)]
    assert tails == sorted(tails)
    assert tails[-1] == pytest.approx(0.025, rel=1e-4)


def test_models_scored_on_other_values_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not scored on the same"):
        paired_difference(_days([1, 2]), _days([1, 2, 3]))


def test_seeds_are_averaged_day_by_day() -> None:
    assert averaged([_days([1, 3]), _days([3, 5])]) == _days([2, 4])


def test_twice_the_mean_pinball_loss_is_a_fifth_below_the_crps_of_a_normal_distribution() -> None:
    """What the page of benchmarks says of it. At its own quantile q of level τ the pinball loss of a standard normal is
    its density there; its CRPS is 1/√π (Gneiting & Raftery 2007)."""
    at = ndtri(np.array(PM25.quantiles))
    density = np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi)
    assert 1 - 2 * density.mean() * np.sqrt(np.pi) == pytest.approx(0.2, abs=0.01)
