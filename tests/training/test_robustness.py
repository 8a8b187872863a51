"""Broken feeds: each corruption does what its name says, outcomes stay, and the benchmark writes what it measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from citybrain_datasets.city import City
from citybrain_datasets.signals import Signal
from citybrain_models.baselines import Persistence
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.config import TrainConfig
from citybrain_training.pipeline import Outcome
from citybrain_training.preparation import Preparation, prepare
from citybrain_training.robustness.bench import measure_unseen
from citybrain_training.robustness.commands import bench_robustness
from citybrain_training.robustness.corruptions import BrokenSource, corridor, dead, late, share_of, stuck
from citybrain_training.robustness.spatial import inverse_distance, kriging, nearest_mean
from citybrain_training.robustness.table import markdown
from citybrain_training.robustness.unseen import silent, stretched, without


@pytest.fixture(scope="module")
def ready(small_city: City, quick: TrainConfig) -> Preparation:
    return prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 1, "windows_per_epoch": 64}}))


def test_dead_sensors_say_nothing_and_the_others_what_they_said(ready: Preparation) -> None:
    issues, hit = ready.split.test[:3], share_of(6, 0.5, seed=3)
    source = BrokenSource(ready.source, dead(ready.features, hit, "half dead"))
    whole, broken = ready.source.window(issues).values["speed"], source.window(issues).values["speed"]
    assert hit.sum() == 3
    assert np.isnan(broken[..., hit]).all()
    np.testing.assert_array_equal(broken[..., ~hit], whole[..., ~hit])
    np.testing.assert_array_equal(source.answer(issues), ready.source.answer(issues))


def test_a_stuck_sensor_repeats_itself_from_the_start_of_the_history(ready: Preparation) -> None:
    issues, hit = ready.split.test[:3], share_of(6, 0.2)
    history = ready.task.history
    whole = ready.source.window(issues).values["speed"][:, :history]
    broken = stuck(ready.features, hit, "stuck").change(ready.source.window(issues)).values["speed"][:, :history]
    np.testing.assert_array_equal(broken[..., hit], np.broadcast_to(whole[:, :1, hit], broken[..., hit].shape))
    np.testing.assert_array_equal(broken[..., ~hit], whole[..., ~hit])


def test_a_late_feed_lacks_its_newest_hour_and_nothing_else(ready: Preparation) -> None:
    window = ready.source.window(ready.split.test[:3])
    broken = late(ready.features, pd.Timedelta(hours=1), 6, "late").change(window)
    history = ready.task.history
    for name, values in broken.values.items():
        unseen = ready.features.offsets(name) > -4
        assert np.isnan(values[:, unseen]).all()
        np.testing.assert_array_equal(values[:, ~unseen], window.values[name][:, ~unseen])
    assert not np.isnan(broken.values["speed"][:, : history - 4]).all()


def test_a_corridor_hangs_together(small_city: City) -> None:
    hit = corridor(small_city, "road", share=0.5)
    assert hit is not None
    assert hit.sum() == 3
    places = np.flatnonzero(hit)
    ring = np.sort(places)  # the small city's roads are one ring
    gaps = np.diff(np.append(ring, ring[0] + 6))
    assert sorted(gaps)[-1] == 4
    assert corridor(small_city.replace(edges={}), "road") is None


def test_places_without_a_sensor_are_told_by_those_with_one_alone(ready: Preparation) -> None:
    places = np.array([False, False, True, False, True, False])
    still, city = Persistence(ready.features), ready.city
    window = ready.source.window(ready.split.test[:4])
    blind = replace(window, values={"speed": np.where(places, np.float32(np.nan), window.values["speed"])})
    measured = still.forecast(window)[:, ~places]
    found = {
        "nearest": nearest_mean(still, city, places),
        "inverse distance": inverse_distance(still, city, places),
        "kriging": kriging(still, city, places, ready.source, ready.split.train),
    }
    for name, told in found.items():
        assert told is not None, name
        np.testing.assert_allclose(told.weight.sum(axis=1), 1, rtol=1e-5, err_msg=name)
        said = told.forecast(window)
        np.testing.assert_array_equal(said[:, ~places], measured, err_msg=name)
        np.testing.assert_array_equal(told.forecast(blind)[:, places], said[:, places], err_msg=name)
    lost = ready.city.nodes["road"].assign(lat=np.nan)
    nowhere = city.replace(nodes={**city.nodes, "road": lost})
    assert inverse_distance(still, nowhere, places) is None
    assert nearest_mean(still, nowhere, places) is not None, "links tell who is near"
    assert nearest_mean(still, nowhere.replace(edges={}), places) is None


def test_kriging_gives_near_sensors_more_weight_than_far_ones(small_city: City, quick: TrainConfig) -> None:
    row = small_city.nodes["road"].assign(lat=31.0, lon=121 + 0.01 * np.arange(6))
    signal = small_city.signals["speed"]
    drift = np.cumsum(np.random.default_rng(0).normal(size=signal.shape), axis=1).astype(np.float32)
    signals = {**small_city.signals, "speed": Signal("speed", "road", signal.start, signal.step, 50 + 5 * drift)}
    ready = prepare(small_city.replace(nodes={**small_city.nodes, "road": row}, signals=signals), "congestion", quick)
    places = np.arange(6) == 2
    told = kriging(Persistence(ready.features), ready.city, places, ready.source, ready.split.train)
    assert told is not None
    assert set(np.flatnonzero(~places)[np.argsort(told.weight[0])[-2:]]) == {1, 3}


def test_a_bundle_stretched_over_its_own_city_is_itself(trained: Outcome, small_city: City, ready: Preparation) -> None:
    same = stretched(trained.bundle, ready.city)
    window = ready.source.window(ready.split.test[:4])
    expected = OnnxForecaster(trained.bundle).forecast(window)
    np.testing.assert_allclose(OnnxForecaster(same).forecast(window), expected, rtol=1e-4, atol=1e-3)


def test_sensors_never_seen_are_forecast_from_place_and_neighbours(ready: Preparation, tmp_path: Path) -> None:
    records = measure_unseen(ready, tmp_path, share=0.2, every=40)
    mae = {record["subject"]: record["value"] for record in records if record["metric"] == "mae"}
    names = {"citynet", "nearest sensors", "nearest sensors' weekly profile", "inverse distance", "kriging"}
    assert set(mae) == names
    assert all(np.isfinite(value) and value > 0 for value in mae.values())


def test_a_network_that_practised_more_is_held_beside_the_other(ready: Preparation, tmp_path: Path) -> None:
    records = measure_unseen(ready, tmp_path, share=0.2, every=40, practice=1.0)
    both = {"citynet", "citynet, 100 % of batches disturbed"}
    mae = {(r["part"], r["subject"]): r["value"] for r in records if r["metric"] == "mae"}
    assert {subject for part, subject in mae if part == "others"} == both
    assert len({mae["hit", subject] for subject in both}) == 2
    page = markdown([{**record, "note": "", "commit": "0"} for record in records])
    assert "| citynet, 100 % of batches disturbed against it |" in page
    assert "At the sensors that were trained on, against citynet: citynet, 100 % of batches disturbed " in page


def test_what_is_held_out_leaves_no_trace(small_city: City) -> None:
    hit = share_of(6, 0.2, seed=1)
    fewer = without(small_city, "road", hit)
    gone = set(np.array(small_city.ids("road"))[hit])
    assert gone.isdisjoint(fewer.ids("road"))
    for relation in ("road-road", "road-air"):
        assert gone.isdisjoint(fewer.edges[relation]["source"])
    assert fewer.signals["speed"].shape[1] == 5
    assert np.isnan(silent(small_city, "road", hit).signals["speed"].values[:, hit]).all()


def test_the_command_writes_records_once(trained: Outcome, saved_city: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench_robustness)
    out = tmp_path / "robustness.json"
    page = tmp_path / "benchmarks.md"
    arguments = [str(trained.folder), str(saved_city), "--draws", "0", "--every", "40"]
    arguments += ["--out", str(out), "--docs", str(page)]
    for _ in range(2):
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    records = json.loads(out.read_text())
    keys = [tuple(r[k] for k in ("case", "scenario", "subject", "part", "metric", "seed")) for r in records]
    assert len(set(keys)) == len(keys)
    assert {"whole", "30 % of sensors dead", "a corridor dark", "10 % of sensors stuck", "feed one hour late"} <= {
        record["scenario"] for record in records
    }
    assert {"value", "unit", "windows", "commit", "machine", "date", "command"} <= set(records[0])
    assert str(tmp_path) not in out.read_text()
    assert page.read_text().count("### smallville-congestion, km/h") == 1
    assert "| 30 % of sensors dead | others |" in page.read_text()
