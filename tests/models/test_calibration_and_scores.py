"""Calibration promises a coverage and holds it; scores pool over everything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.task import Task
from citybrain_models.calibration import PARTS, Calibration, parts_of_day
from citybrain_models.metrics import Scores

TASK = Task(
    name="congestion", node="road", target="speed", step_minutes=15, history=4, horizon=3,
    quantiles=(0.05, 0.5, 0.95), seasonal_days=(), coarse=(0, 0),
)  # fmt: skip


def too_narrow(random: np.random.Generator, windows: int) -> tuple[np.ndarray, np.ndarray]:
    centre = 50 + 10 * random.random((windows, 4, 3))
    forecast = np.stack([centre - 1, centre, centre + 1], axis=-1)
    return forecast, centre + 3 * random.normal(size=centre.shape)


def test_calibrated_intervals_cover_what_they_promise() -> None:
    random = np.random.default_rng(0)
    calibration = Calibration.fit(TASK, *too_narrow(random, 2_000))
    forecast, truth = too_narrow(random, 2_000)
    scores = Scores(TASK)
    scores.add(calibration.apply(forecast), truth)
    assert scores.table()["mean"]["coverage"] == pytest.approx(0.9, abs=0.01)


def test_calibration_leaves_the_median_and_the_order() -> None:
    random = np.random.default_rng(1)
    forecast, truth = too_narrow(random, 500)
    calibrated = Calibration.fit(TASK, forecast, truth).apply(forecast)
    np.testing.assert_allclose(calibrated[..., 1], forecast[..., 1], rtol=1e-6)
    assert (np.diff(calibrated, axis=-1) >= 0).all()


def test_online_updates_find_the_coverage_again_after_a_drift() -> None:
    random = np.random.default_rng(2)
    calibration, inside = Calibration.none(TASK), []
    for _ in range(3_000):
        forecast, truth = too_narrow(random, 1)
        published = calibration.apply(forecast)
        low, _, high = np.moveaxis(published, -1, 0)
        inside.append(((truth >= low) & (truth <= high)).mean())
        calibration = calibration.updated(published[0], truth[0], 0.02)
    assert np.mean(inside[:100]) < 0.6
    assert np.mean(inside[-1_000:]) == pytest.approx(0.9, abs=0.02)


def restless(random: np.random.Generator, windows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows whose outcomes spread twice as far in every second part of the day, and those parts."""
    forecast, truth = too_narrow(random, windows)
    part = random.integers(0, PARTS, (windows, 3))
    centre = forecast[..., 1]
    return forecast, centre + (truth - centre) * (1 + part % 2)[:, None], part


def test_every_part_of_the_day_is_covered_as_promised() -> None:
    random = np.random.default_rng(3)
    calibration = Calibration.fit(TASK, *restless(random, 8_000))
    forecast, truth, part = restless(random, 8_000)
    low, _, high = np.moveaxis(calibration.apply(forecast, part), -1, 0)
    inside = (low <= truth) & (truth <= high)
    for place in range(PARTS):
        share = inside.transpose(0, 2, 1)[part == place].mean()
        assert share == pytest.approx(0.9, abs=0.02)


def test_few_windows_of_a_part_lean_on_the_whole() -> None:
    random = np.random.default_rng(4)
    forecast, truth = too_narrow(random, 400)
    part = np.zeros((400, 3), int)
    part[0] = 1
    truth[0] += 50
    calibration = Calibration.fit(TASK, forecast, truth, part)
    own = (truth[0] - forecast[0, ..., 2]) / 2  # the forecasts are two wide
    assert (np.abs(calibration.by_part[1, :, 2]) < np.abs(own).max() / 50).all()
    assert (calibration.by_part[2:] == 0).all()


def test_hours_alike_are_the_calibration_without_parts() -> None:
    random = np.random.default_rng(5)
    forecast, truth = too_narrow(random, 300)
    part = random.integers(0, PARTS, (300, 3))
    plain = Calibration.fit(TASK, forecast, truth)
    np.testing.assert_array_equal(plain.apply(forecast, part), plain.apply(forecast))
    np.testing.assert_array_equal(Calibration.fit(TASK, forecast, truth, part).shift, plain.shift)
    learnt = plain.updated(plain.apply(forecast)[0], truth[0], part=part[0])
    np.testing.assert_array_equal(learnt.shift, plain.updated(plain.apply(forecast)[0], truth[0]).shift)


@given(st.integers(0, 10_000), st.floats(0.1, 5))
def test_whatever_is_learnt_quantiles_rise_and_the_median_stays(seed: int, size: float) -> None:
    random = np.random.default_rng(seed)
    levels = TASK.model_copy(update={"quantiles": (0.05, 0.25, 0.5, 0.75, 0.95)})
    learnt = Calibration.none(levels, PARTS)
    learnt.shift[:, [0, 1, 3, 4]] = random.normal(0, size, (3, 4))
    learnt.by_part[..., [0, 1, 3, 4]] = random.normal(0, size, (PARTS, 3, 4))
    forecast = np.sort(random.gamma(2, 10, (4, 6, 3, 5)), axis=-1).astype(np.float32)
    published = learnt.apply(forecast, random.integers(0, PARTS, (4, 3)))
    assert (np.diff(published, axis=-1) >= 0).all()
    assert (published >= 0).all()
    np.testing.assert_array_equal(published[..., 2], forecast[..., 2])


def test_what_was_learnt_adds_to_what_was_fitted() -> None:
    random = np.random.default_rng(6)
    forecast, truth, part = restless(random, 500)
    fitted = Calibration.fit(TASK, forecast, truth, part)
    learnt = Calibration.none(TASK, PARTS).updated(fitted.apply(forecast, part)[0], truth[0], 0.1, part[0])
    both = fitted.plus(learnt)
    np.testing.assert_allclose(both.shift, fitted.shift + learnt.shift)
    np.testing.assert_allclose(both.by_part, fitted.by_part + learnt.by_part)
    plain = Calibration.fit(TASK, forecast, truth)
    np.testing.assert_array_equal(plain.plus(learnt).by_part, learnt.by_part)
    np.testing.assert_array_equal(plain.plus(plain).apply(forecast, part), plain.plus(plain).apply(forecast))


def test_parts_follow_the_local_clock_through_daylight_saving() -> None:
    issue = pd.DatetimeIndex(["2026-03-28T22:45Z", "2026-03-29T21:45Z"])  # 23:45 in Madrid on both days
    part = parts_of_day(TASK, Calendar("Europe/Madrid"), issue)
    np.testing.assert_array_equal(part, np.zeros((2, 3)))
    np.testing.assert_array_equal(parts_of_day(TASK, Calendar("UTC"), issue[:1]), [[PARTS - 1] * 3][:1])


def test_scores_pool_and_skip_the_unknown() -> None:
    truth = np.array([[[10.0, 20.0, np.nan]], [[0.5, np.nan, np.nan]]])
    forecast = np.repeat(np.array([[[12.0, 20.0, 7.0]], [[1.5, 3.0, 9.0]]])[..., None], 3, axis=-1)
    scores = Scores(TASK)
    scores.add(forecast[:1], truth[:1])
    scores.add(forecast[1:], truth[1:])
    table = scores.table()
    assert table["15min"]["mae"] == pytest.approx(1.5)
    assert table["mean"]["mae"] == pytest.approx(1.0)
    assert table["mean"]["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert table["15min"]["mape"] == pytest.approx(20.0)  # 0.5 is too small to divide by
    assert table["45min"] == {}


def test_a_model_may_not_choose_what_it_is_scored_on() -> None:
    forecast = np.full((1, 1, 3, 3), np.nan)
    with pytest.raises(ValueError, match="not finite"):
        Scores(TASK).add(forecast, np.ones((1, 1, 3)))
