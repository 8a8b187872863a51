"""Calibration promises a coverage and holds it; scores pool over everything."""

from __future__ import annotations

import numpy as np
import pytest

from citybrain_datasets.task import Task
from citybrain_models.calibration import Calibration
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
        calibration = calibration.updated(published[0], truth[0])
    assert np.mean(inside[:100]) < 0.6
    assert np.mean(inside[-1_000:]) == pytest.approx(0.9, abs=0.02)


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
