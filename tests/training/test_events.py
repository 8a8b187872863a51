"""Events as probabilities: what quantiles say about a limit, what came of it, and the command that tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from citybrain_datasets.city import City
from citybrain_datasets.features import Window
from citybrain_datasets.task import Task
from citybrain_models.baselines import Persistence
from citybrain_models.events import (
    ONSET,
    EventCounts,
    Events,
    alarmed,
    fit_dependence,
    probability_below,
    probability_of_any,
)
from citybrain_training.bench.table import markdown
from citybrain_training.commands import evaluate
from citybrain_training.config import TrainConfig
from citybrain_training.events import score_events
from citybrain_training.pipeline import Outcome
from citybrain_training.preparation import prepare

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


MEANS = [(name, 1.0) for name in ("mae", "rmse", "mape", "pinball", "coverage", "width")]
MEANS += [(name, 1.0) for name in ("training_seconds", "epochs", "parameters")]


def test_a_certain_and_right_forecast_detects_all_and_costs_nothing() -> None:
    outcome = np.array([True, False, True, False, False])
    counts = EventCounts()
    counts.add(outcome.astype(float), outcome, np.ones(5, bool))
    table = counts.table()
    assert (table["pod"], table["far"], table["csi"], table["brier"]) == (1, 0, 1, 0)
    assert table["brier_skill"] == 1
    assert table["base_rate"] == pytest.approx(0.4)


def test_a_model_that_never_alarms_has_no_perfect_ratio_of_false_alarms() -> None:
    outcome = np.array([True, False, False])
    silent, right = EventCounts(), EventCounts()
    silent.add(np.full(3, 0.3), outcome, np.ones(3, bool))
    right.add(outcome.astype(float), outcome, np.ones(3, bool))
    tables = silent.table(), right.table()
    assert [table["far"] for table in tables] == [0, 0]
    assert [alarmed(table["pod"], table["far"]) for table in tables] == [False, True]
    records = [
        {"case": "town", "subject": name, "seed": 1, "metric": metric, "value": value, "unit": "1", "horizon": "mean"}
        | {"note": "in full", "date": "2026-01-01", "commit": "0" * 12}
        for name, table in zip(("persistence", "citynet"), tables, strict=True)
        for metric, value in [(f"{key}: {ONSET}", share) for key, share in table.items()] + MEANS
    ]
    page = markdown("accuracy", records)
    assert f"| {ONSET} | persistence | 0.000 | no alarm | 0.000 |" in page
    assert f"| {ONSET} | CityNet | 1.000 | 0.000 | 1.000 |" in page


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


def test_of_an_hour_with_gaps_the_measured_part_counts() -> None:
    truth = np.array([[[50, np.nan, 20, 20, 20, 20], [50, np.nan, 50, 50, 50, 50]]])
    events = Events(SPEED, np.full(2, 60.0))
    events.add(_speed_window([50, 50]), _sure(np.nan_to_num(truth, nan=50)), truth)
    onset = events.counts["congestion sets in"]
    assert (onset.count, onset.hits, onset.false_alarms) == (2, 1, 0)


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.3])
def test_gaps_at_random_leave_calibrated_forecasts_calibrated(missing: float) -> None:
    """Leads congested together or not at all, one time in ten; were hours with gaps left out unless something happened
    in them, it would seem to happen the more often the more is missing."""
    random = np.random.default_rng(0)
    count = 20_000
    truth = np.where(random.random((1, count, 1)) < 0.1, 20.0, 50.0) + np.zeros((1, count, 6))
    truth[random.random(truth.shape) < missing] = np.nan
    levels = np.array(SPEED.quantiles)
    forecast = np.broadcast_to(np.where(levels < 0.1, 20.0, 50.0), (1, count, 6, len(levels)))
    events = Events(SPEED, np.full(count, 60.0))
    events.add(_speed_window([50.0] * count), forecast, truth)
    onset = events.counts["congestion sets in"]
    happened = onset.bins[:, 2].sum() / onset.bins[:, 0].sum()
    assert happened == pytest.approx(0.1, abs=0.01)


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
        "PM2.5 above 250": 0,
    }
    assert all(counts.count == 2 for counts in events.counts.values())


@given(rising, st.floats(-1e4, 1e4))
def test_nothing_is_called_impossible_but_what_is_far_away(quantiles: np.ndarray, limit: float) -> None:
    """The tails fall off with the density of the outermost segment, and meet the quantiles without a jump."""
    apart = quantiles + np.arange(7)
    chance = float(probability_below(apart, LEVELS, np.asarray(limit)))
    if limit < apart[0]:
        assert 0 <= chance <= LEVELS[0]
    if limit > apart[-1]:
        assert LEVELS[-1] <= chance <= 1
    for edge, level in ((apart[0], LEVELS[0]), (apart[-1], LEVELS[-1])):
        near = probability_below(np.broadcast_to(apart, (2, 7)), LEVELS, edge + np.array([-1e-9, 1e-9]))
        np.testing.assert_allclose(near, level, atol=1e-6)


def test_quantiles_that_coincide_make_a_step() -> None:
    assert probability_below(np.zeros(7), LEVELS, np.array(0.0)) == pytest.approx(0.95)
    assert probability_below(np.zeros(7), LEVELS, np.array(-1.0)) == pytest.approx(0)
    assert probability_below(np.zeros(7), LEVELS, np.array(1.0)) == pytest.approx(1)


chances = arrays(np.float64, (4, 6), elements=st.floats(0, 1))


@given(chances, st.floats(0, 1), st.floats(0, 1))
def test_any_of_several_is_at_least_the_likeliest_and_at_most_independent(
    chance: np.ndarray, one: float, other: float
) -> None:
    less, more = (probability_of_any(chance, theta) for theta in sorted((one, other)))
    assert (less >= chance.max(axis=1)).all()
    assert (more >= less - 1e-12).all()
    assert (more <= 1 - np.prod(1 - chance, axis=1) + 1e-9).all()


def test_the_dependence_of_leads_is_found_in_what_happened() -> None:
    random = np.random.default_rng(0)
    chance = np.repeat(random.uniform(0, 0.4, (20_000, 1)), 6, axis=1)
    together = random.random(20_000) < chance[:, 0]
    apart = (random.random((20_000, 6)) < chance).any(axis=1)
    assert fit_dependence(chance, together) == pytest.approx(0, abs=0.05)
    assert fit_dependence(chance, apart) == pytest.approx(1, abs=0.05)
    assert fit_dependence(np.zeros((0, 6)), np.zeros(0, bool)) == 0


def test_a_forecast_that_knows_the_rhythm_beats_the_base_rate(
    trained: Outcome, small_city: City, quick: TrainConfig
) -> None:
    """Both events happen in the small city every day; the trained network's probabilities are worth something."""
    from citybrain_models.onnx_forecaster import OnnxForecaster

    preparation = prepare(small_city, "congestion", quick)
    scores = score_events(OnnxForecaster(trained.bundle), preparation)
    still = score_events(Persistence(preparation.features), preparation)
    assert 0 <= scores.dependence <= 1
    assert scores.tables[ONSET]["brier_skill"] > 0.2
    assert scores.tables[ONSET]["brier"] < still.tables[ONSET]["brier"]
    assert sum(row[0] for row in scores.reliability[ONSET]) > 100


def test_the_command_tells_events_and_draws_them(trained: Outcome, saved_city: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(evaluate)
    picture = tmp_path / "plots" / "reliability.png"
    arguments = [str(trained.folder), str(saved_city), "--events", "--json", "--plot", str(picture)]
    told = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert told.exit_code == 0
    found = json.loads(told.stdout)
    assert set(found) == {"citynet", "persistence", "weekly profile"}
    assert 0 < found["citynet"]["tables"][ONSET]["base_rate"] < 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "flatter" not in told.stderr


def test_a_bundle_that_learnt_from_what_it_is_tested_on_is_told(
    trained: Outcome, saved_city: Path, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier.yaml"
    earlier.write_text("split: {train: 0.5, validate: 0.1}\nthreads: 1\n")
    app = typer.Typer()
    app.command()(evaluate)
    arguments = [str(trained.folder), str(saved_city), "--events", "--json", "--config", str(earlier)]
    told = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "learnt from windows until 2024-03-20" in " ".join(told.stderr.split())
    assert json.loads(told.stdout)
