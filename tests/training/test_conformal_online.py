"""Quantiles kept true by outcomes: whatever drifts, the share of outcomes below a quantile goes to its level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.task import Task
from citybrain_models.calibration import PARTS, Calibration
from citybrain_models.learning import OnlineCalibration

TASK = Task(name="congestion", node="road", target="speed", step_minutes=15, history=4, horizon=2, seasonal_days=())
LEVELS = np.asarray(TASK.quantiles)
OUTER = [i for i in range(len(LEVELS)) if i != TASK.median]
RATE = 0.05
RAW = np.broadcast_to(50 + 10 * np.linspace(-0.5, 0.5, len(LEVELS)), (20, 2, len(LEVELS))).astype(np.float32)
"""Twenty nodes whose forecast never changes, 10 km/h wide."""


def step(calibration: Calibration, truth: np.ndarray) -> tuple[Calibration, np.ndarray]:
    """The next calibration, and the share of outcomes that were below each published quantile."""
    published = RAW + calibration.shift * 10
    share = (truth[..., None] < published).mean(axis=(0, 1))
    return calibration.updated(published, truth, RATE), share


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 20)), min_size=4, max_size=12), st.integers(0, 1_000))
@settings(max_examples=20, deadline=None)  # a shared machine may pause in any example
def test_the_long_run_share_goes_to_the_level_whatever_drifts(phases: list[tuple[float, float]], seed: int) -> None:
    """Each phase has its own bias and spread. Outcomes stay within 50 km/h of the forecast, five widths: a shift
    beyond that is pushed back, so that the mean share cannot be off by more than its range over rate × steps."""
    random = np.random.default_rng(seed)
    calibration, shares = Calibration.none(TASK), []
    for bias, spread in phases:
        for _ in range(100):
            truth = 50 + np.clip(random.normal(bias, spread, RAW.shape[:2]), -50, 50)
            calibration, share = step(calibration, truth)
            shares.append(share)
    farthest = 5 + 0.5 + RATE
    assert (np.abs(calibration.shift) <= farthest).all()
    off = np.abs(np.mean(shares, axis=0) - LEVELS)[OUTER]
    assert (off <= farthest / (RATE * len(shares)) + 1e-4).all()


def test_coverage_comes_back_after_the_spread_doubles() -> None:
    random = np.random.default_rng(1)
    calibration, inside = Calibration.none(TASK), []
    for time in range(900):
        spread = 3 if time < 300 else 6
        calibration, share = step(calibration, random.normal(50, spread, RAW.shape[:2]))
        inside.append(share[-1] - share[0])
    assert np.mean(inside[100:300]) == pytest.approx(0.9, abs=0.02)
    assert np.mean(inside[300:310]) < 0.8
    assert np.mean(inside[600:]) == pytest.approx(0.9, abs=0.02)


def test_each_part_of_the_day_finds_its_own_coverage_where_one_shift_for_all_cannot() -> None:
    random = np.random.default_rng(2)
    alike, apart = Calibration.none(TASK), Calibration.none(TASK, PARTS)
    inside: dict[str, list[list[float]]] = {"alike": [[], []], "apart": [[], []]}
    for time in range(1_600):
        part = np.array([time, time + 1]) % PARTS
        truth = random.normal(50, np.where(part < PARTS // 2, 2, 8), RAW.shape[:2])
        for name, calibration in (("alike", alike), ("apart", apart)):
            published = calibration.apply(RAW[None], part[None])[0]
            share = ((published[..., 0] <= truth) & (truth <= published[..., -1])).mean(axis=0)
            for lead in (0, 1):
                inside[name][int(part[lead] < PARTS // 2)].append(float(share[lead]))
            learnt = calibration.updated(published, truth, 0.2, part)
            alike, apart = (learnt, apart) if name == "alike" else (alike, learnt)
    restless, calm = (np.mean(shares[800:]) for shares in inside["alike"])
    assert restless < 0.85
    assert calm > 0.95
    for shares in inside["apart"]:
        assert np.mean(shares[800:]) == pytest.approx(0.9, abs=0.02)


def test_streets_empty_at_night_do_not_lower_their_quantile_for_ever() -> None:
    """Half of the outcomes are zero, and no quantile is published below that."""
    random = np.random.default_rng(3)
    raw, calibration = RAW - 49.5, Calibration.none(TASK)
    inside: list[float] = []
    for _ in range(600):
        truth = np.maximum(random.normal(0, 4, RAW.shape[:2]), 0)
        published = calibration.apply(raw[None])[0]
        inside.append(float(((published[..., 0] <= truth) & (truth <= published[..., -1])).mean()))
        calibration = calibration.updated(published, truth, RATE)
    assert np.abs(calibration.shift).max() < 2
    assert np.mean(inside[200:]) == pytest.approx(0.9, abs=0.03)


def test_chance_shakes_every_quantile_alike() -> None:
    """Of one outcome, so that each share is 0 or 1 and its spread √(τ (1 − τ))."""
    one = RAW[:1]
    moves = [Calibration.none(TASK).updated(one, np.full((1, 2), truth), RATE).shift[0] for truth in (0, 100)]
    below, above = np.asarray(moves)[:, OUTER]
    levels = LEVELS[OUTER]
    spread = np.sqrt(levels * below**2 + (1 - levels) * above**2)
    np.testing.assert_allclose(spread, spread[0], rtol=1e-5)


def test_a_forecast_is_learnt_from_when_its_steps_end_in_order_of_time_and_then_forgotten() -> None:
    nothing = Calibration.none(TASK, PARTS)
    online = OnlineCalibration(TASK, Calendar("UTC"), nothing, nothing, rate=RATE)
    issue = pd.Timestamp("2026-03-17T07:40Z")
    online.remember(issue, RAW)
    assert not online.learn(issue, np.full(20, 50.0))
    assert not online.learn(issue + TASK.step / 2, np.full(20, 50.0))
    assert online.learn(issue + TASK.step, np.full(20, 100.0))
    assert online.learnt.shift[0].any()
    assert not online.learnt.shift[1].any()
    assert np.flatnonzero(online.learnt.by_part.any(axis=(1, 2))).tolist() == [7 * PARTS // 24]
    assert online.remembered == {issue}
    assert online.learn(issue + 2 * TASK.step, np.full(20, 0.0))
    assert online.learnt.by_part[8 * PARTS // 24, 1].any()
    assert not online.remembered


@given(st.integers(0, 1_000))
def test_what_was_not_measured_moves_nothing_and_the_median_stays(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.normal(50, 5, RAW.shape[:2])
    truth[:, 1] = np.nan
    moved = Calibration.none(TASK).updated(RAW, truth, RATE).shift
    assert (moved[1] == 0).all()
    assert (moved[:, TASK.median] == 0).all()
    assert (np.abs(moved) <= RATE).all()
