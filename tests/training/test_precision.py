"""Bundles in eight-bit integers: what is rounded, what is not, and what it may cost."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.bench.precision import bench_precision, measure_precision
from citybrain_training.config import TrainConfig
from citybrain_training.export import make_bundle
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.precision import PRECISION, in_int8, in_precision, rise
from citybrain_training.preparation import Preparation, prepare


@pytest.fixture(scope="module")
def preparation(small_city: City, quick: TrainConfig) -> Preparation:
    return prepare(small_city, "congestion", quick.merged({"network": {"width": 32}}))


@pytest.fixture(scope="module")
def bundle(preparation: Preparation) -> Bundle:
    """Of a network as it is before it learns, wide enough to be rounded."""
    torch.manual_seed(1)
    return make_bundle(ForecastModule(build_network(preparation), preparation), preparation)


@pytest.fixture(scope="module")
def rounded(bundle: Bundle, preparation: Preparation) -> Bundle:
    return in_int8(bundle, preparation)


def asking(preparation: Preparation, **export: object) -> Preparation:
    return dataclasses.replace(preparation, config=preparation.config.merged({"export": export}))


def test_a_rounded_network_is_smaller_and_says_nearly_the_same(
    bundle: Bundle, rounded: Bundle, preparation: Preparation
) -> None:
    assert len(rounded.model) < len(bundle.model)
    window = preparation.source.window(preparation.split.test[:8])
    said, plain = (OnnxForecaster(b).raw(window) for b in (rounded, bundle))
    assert not np.array_equal(said, plain)
    assert np.abs(said - plain).mean() < 0.01 * np.abs(plain).mean()
    assert (np.diff(said, axis=-1) >= 0).all()


def test_the_answer_for_a_window_does_not_hang_on_the_others_of_its_batch(
    rounded: Bundle, preparation: Preparation
) -> None:
    forecaster, issues = OnnxForecaster(rounded), preparation.split.test[:5]
    together = forecaster.raw(preparation.source.window(issues))
    alone = np.concatenate([forecaster.raw(preparation.source.window(issues[i : i + 1])) for i in range(5)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-4)


def test_values_never_seen_before_are_not_cut_off(bundle: Bundle, rounded: Bundle, preparation: Preparation) -> None:
    """A whole city ten times as high as any it was scaled by is told as high by both."""
    window = preparation.source.window(preparation.split.test[:2])
    said, plain = [], []
    for each, answers in ((rounded, said), (bundle, plain)):
        forecaster = OnnxForecaster(each)
        arrays = forecaster.features(window)
        arrays["anchor"] = arrays["anchor"] * 10
        answers.append(forecaster.run(arrays))
    np.testing.assert_allclose(said[0], plain[0], rtol=0.05, atol=0.05 * np.abs(plain[0]).max())


def test_operators_are_those_of_the_standard_and_what_is_measured_enters_in_floats(rounded: Bundle) -> None:
    model = onnx.load_from_string(rounded.model)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    onnx.checker.check_model(model)
    after = {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    assert after
    entering = [i.name for i in model.graph.input if i.name.startswith("x_")]
    found = set(entering)
    for node in model.graph.node:
        if node.op_type != "LayerNormalization" and found & set(node.input):
            assert node.op_type != "QuantizeLinear", f"{node.name} rounds what no layer normalisation bounds"
            found |= set(node.output) - weights


def test_what_was_asked_for_is_served_where_it_is_as_good(bundle: Bundle, preparation: Preparation) -> None:
    assert in_precision(bundle, preparation) is bundle
    served = in_precision(bundle, asking(preparation, precision="int8", most_cost=1.0))
    told = served.metrics[PRECISION]
    assert told["served"] == "int8"
    assert told["cost"] == rise(told["float32"], told["int8"])
    assert len(served.model) < len(bundle.model)
    assert served.calibration is bundle.calibration


def test_a_network_that_loses_too_much_is_kept_in_floats_and_says_so(
    bundle: Bundle, preparation: Preparation, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("citybrain_training.precision.rise", lambda before, after: 0.0061)
    served = in_precision(bundle, asking(preparation, precision="int8"))
    assert served.model == bundle.model
    assert served.metrics[PRECISION]["served"] == "float32"
    assert "int8 costs 0.61 % of accuracy on validation windows, of which 0.50 % are allowed" in caplog.text


def test_a_network_too_small_to_be_rounded_stays_as_it_is_and_says_so(
    small_city: City, quick: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    small = prepare(small_city, "congestion", quick.merged({"network": {"width": 8}}))
    torch.manual_seed(1)
    plain = make_bundle(ForecastModule(build_network(small), small), small)
    assert in_precision(plain, asking(small, precision="int8")) is plain
    assert "no product of this network is large enough for int8 to pay: kept as float32" in caplog.text


def test_a_precision_that_there_is_not_is_refused(preparation: Preparation) -> None:
    with pytest.raises(ConfigError, match=r"export.precision.*'float32' or 'int8'"):
        asking(preparation, precision="int4")


def test_the_cost_of_rounding_is_measured_and_told(
    bundle: Bundle, rounded: Bundle, preparation: Preparation, saved_city: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(bench_precision)
    out, page = tmp_path / "precision.json", tmp_path / "page.md"
    bundle.write(tmp_path / "bundle")
    arguments = [str(tmp_path / "bundle"), str(saved_city), "--out", str(out), "--docs", str(page)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    records = pd.DataFrame(json.loads(out.read_text()))
    values = records.pivot(index="subject", columns="metric", values="value")
    assert values.loc["int8", "mae"] == pytest.approx(values.loc["float32", "mae"], rel=0.02)
    assert values.loc["int8", "model_kib"] < values.loc["float32", "model_kib"]
    assert (values["network_ms"] > 0).all()
    assert f"| {bundle.city.name}-{bundle.task.name} |" in page.read_text()
    already = dataclasses.replace(rounded, metrics={PRECISION: {"served": "int8"}})
    with pytest.raises(ConfigError, match="rounded to int8 already"):
        measure_precision(preparation, already)
