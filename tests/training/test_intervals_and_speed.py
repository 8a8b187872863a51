"""Benchmarks of intervals and of speed: what they measure, write and tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_models import onnx_forecaster
from citybrain_models.bundle import Bundle
from citybrain_models.calibration import PARTS, Calibration, parts_of_day
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.bench.intervals import LEARNING, bench_intervals
from citybrain_training.config import TrainConfig
from citybrain_training.online import Replay, learnt_in_order
from citybrain_training.pipeline import Outcome
from citybrain_training.preparation import Preparation, prepare
from citybrain_training.speed.cities import enlarged_features, enlarged_graph, enlarged_window, prepared
from citybrain_training.speed.commands import bench_speed
from citybrain_training.speed.table import exponent, markdown


def command(function: object) -> typer.Typer:
    app = typer.Typer()
    app.command()(function)  # type: ignore[arg-type]  # one of our commands
    return app


def test_a_bundle_is_exported_with_shifts_for_every_part_of_the_day(trained: Outcome) -> None:
    assert trained.bundle.calibration.by_part.shape[0] == PARTS
    assert trained.bundle.calibration.by_part.any(axis=(1, 2)).all()


def test_a_graph_too_large_for_constants_is_fed_and_answers_the_same(
    trained: Outcome, small_city: City, quick: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation = prepare(small_city, trained.bundle.task.name, quick)
    window = preparation.source.window(preparation.split.test[:3])
    held = OnnxForecaster(trained.bundle).raw(window)
    monkeypatch.setattr(onnx_forecaster, "MOST_CONSTANT", 0)
    np.testing.assert_allclose(OnnxForecaster(trained.bundle).raw(window), held, rtol=1e-4, atol=1e-4)


def test_intervals_are_measured_five_ways_and_told(trained: Outcome, saved_city: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "intervals.json", tmp_path / "page.md"
    arguments = [str(trained.folder), str(saved_city), "--out", str(out), "--docs", str(page)]
    for _ in range(2):  # the second time replaces the first
        told = CliRunner().invoke(command(bench_intervals), arguments, catch_exceptions=False)
        assert told.exit_code == 0
    records = pd.DataFrame(json.loads(out.read_text()))
    assert len(records) == 5 * 6
    values = records.pivot(index="subject", columns="metric", values="value")
    assert values.loc[LEARNING, "coverage_lowest_group"] <= values.loc[LEARNING, "coverage"]
    assert values.loc[LEARNING, "coverage"] <= values.loc[LEARNING, "coverage_highest_group"]
    assert values["pinball"].nunique() > 1
    assert f"| {LEARNING} |" in page.read_text()


def test_an_enlarged_city_is_the_grid_over_and_over() -> None:
    preparation = prepared(side=5)
    graph = enlarged_graph(preparation.graph, 60)
    np.testing.assert_array_equal(graph["downstream_index"][25:50], graph["downstream_index"][:25] + 25)
    for name, array in graph.items():
        assert len(array) == 60
        if name.endswith("_index"):
            assert array.max() < 60
    window, answer = enlarged_window(preparation, 60)
    large = enlarged_features(preparation, 60)(window)
    small = preparation.features(preparation.source.window(preparation.split.train[-1:]))
    np.testing.assert_allclose(large["x_road"][:, 25:50], small["x_road"], atol=1e-6)
    assert answer.shape == (1, preparation.task.horizon, 60)


def test_the_exponent_is_the_slope_on_logarithmic_paper() -> None:
    assert exponent({10: 3.0, 100: 30.0, 1_000: 300.0}) == pytest.approx(1)
    assert exponent({10: 5.0, 1_000: 50.0}) == pytest.approx(0.5)


def test_speed_is_measured_apart_and_told(tmp_path: Path) -> None:
    out, page = tmp_path / "speed.json", tmp_path / "page.md"
    arguments = ["--sizes", "600", "--beside", "30", "--seconds", "0.1", "--out", str(out), "--docs", str(page)]
    told = CliRunner().invoke(command(bench_speed), arguments, catch_exceptions=False)
    assert told.exit_code == 0
    records = {(r["case"], r["metric"]): r["value"] for r in json.loads(out.read_text())}
    assert records["exported graph", "scatter_operators"] == 0
    assert records["30 segments", "torch_over_runtime"] > 0
    assert records["600 segments, inference", "memory_mib"] > 10
    assert markdown(json.loads(out.read_text())) in page.read_text()
    with pytest.raises(ConfigError, match="--sizes: 'many'"):
        CliRunner().invoke(command(bench_speed), ["--sizes", "many"], catch_exceptions=False)


def raw_forecasts(city: City) -> tuple[Preparation, pd.DatetimeIndex, np.ndarray]:
    """More windows than a horizon has steps, each forecast too narrow."""
    preparation = prepare(city, "congestion", TrainConfig(threads=1))
    task = preparation.task
    issues = preparation.split.test[: task.horizon + 4]
    raw = np.full((len(issues), len(city.ids("road")), task.horizon, len(task.quantiles)), 50, np.float32)
    return preparation, issues, raw + np.linspace(-1, 1, len(task.quantiles), dtype=np.float32)


def test_a_lead_teaches_as_soon_as_it_has_ended(small_city: City) -> None:
    preparation, issues, raw = raw_forecasts(small_city)
    replay = Replay(Calibration.none(preparation.task, PARTS), preparation.source)
    replay.publish(issues[:4], raw[:4])
    assert np.flatnonzero(replay.online.learnt.shift.any(axis=1)).tolist() == [0, 1, 2]


def test_what_the_validation_windows_taught_is_exported_and_learning_goes_on_from_there(
    trained: Outcome, small_city: City
) -> None:
    preparation, issues, raw = raw_forecasts(small_city)
    learnt = trained.bundle.learnt
    assert learnt is not None
    assert learnt.shift.any()
    assert not learnt.shift[:, preparation.task.median].any()
    again = Bundle.read(trained.folder).learnt
    assert again is not None
    np.testing.assert_array_equal(again.shift, learnt.shift)
    np.testing.assert_array_equal(again.by_part, learnt.by_part)
    replay = Replay(trained.bundle.calibration, preparation.source, learnt)
    parts = parts_of_day(preparation.task, preparation.features.calendar, issues[:1])
    said = trained.bundle.calibration.plus(learnt).apply(raw[:1], parts)
    np.testing.assert_array_equal(replay.publish(issues[:1], raw[:1]), said)


def test_learning_in_one_go_and_window_by_window_is_the_same(small_city: City) -> None:
    preparation, issues, raw = raw_forecasts(small_city)
    fitted = Calibration.none(preparation.task, PARTS)
    replay = Replay(fitted, preparation.source)
    for window in range(len(issues)):
        replay.publish(issues[window : window + 1], raw[window : window + 1])
    learnt = learnt_in_order(fitted, preparation.source, issues, raw)
    np.testing.assert_array_equal(replay.online.learnt.by_part, learnt.by_part)
