"""The weather ahead errs in training as forecasts do, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from citybrain_datasets.city import City
from citybrain_datasets.features import Window
from citybrain_datasets.signals import KINDS
from citybrain_training.batches import Collate
from citybrain_training.card import _foresight
from citybrain_training.config import TrainConfig
from citybrain_training.export import make_bundle
from citybrain_training.foresight import Foretold, errors, foretold
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.preparation import Preparation, prepare

KNOWN = ("wind_speed", "wind_direction")


@pytest.fixture(scope="module")
def ready(small_city: City, quick: TrainConfig) -> Preparation:
    return prepare(small_city, "pm25", quick.merged({"task": {"known_future": KNOWN}}))


def told(ready: Preparation, **fit: object) -> Preparation:
    return replace(ready, config=ready.config.merged({"fit": fit}))


def windows(ready: Preparation, count: int = 64) -> Window:
    return ready.source.window(ready.split.train[:count])


def disturbed(ready: Preparation, window: Window, seed: int = 0, withheld: float = 0) -> Window:
    return foretold(window, ready, np.random.default_rng(seed), withheld=withheld)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.99))
def test_errors_have_the_size_that_is_asked_for_at_every_lead(first: float, last: float, memory: float) -> None:
    size = np.linspace(first, last, 24)
    drawn = errors(np.random.default_rng(0), 4_000, size, memory)
    assert drawn.shape == (4_000, 24, 1)
    np.testing.assert_allclose(drawn[..., 0].std(axis=0), size, rtol=0.08, atol=1e-6)
    if min(first, last) > 0.1:
        following = np.corrcoef(drawn[:, 10, 0], drawn[:, 11, 0])[0, 1]
        assert abs(following - memory) < 0.06


def test_the_wind_errs_in_its_parts_and_more_with_the_lead(ready: Preparation) -> None:
    window = windows(ready, 200)
    after = disturbed(told(ready, weather_error=(0.1, 1.0)), window)

    def parts(seen: Window) -> np.ndarray:
        speed, angle = (seen.future[name][..., 0] for name in KNOWN)
        return np.stack([speed * np.sin(np.deg2rad(angle)), speed * np.cos(np.deg2rad(angle))])

    off = (parts(after) - parts(window)).std(axis=1) / ready.statistics.scalers["wind_speed"].std
    np.testing.assert_allclose(off, np.broadcast_to(np.linspace(0.1, 1.0, ready.task.horizon), off.shape), rtol=0.25)
    for name in KNOWN:
        assert after.future[name].dtype == np.float32
        assert (after.future[name] >= KINDS[name].low).all()
        assert (after.future[name] <= KINDS[name].high).all()
    assert after.values is window.values


def test_without_error_nothing_changes(ready: Preparation) -> None:
    window = windows(ready)
    after = disturbed(told(ready, weather_error=(0, 0)), window)
    for name in KNOWN:
        np.testing.assert_array_equal(after.future[name], window.future[name])


def test_the_same_seed_errs_the_same(ready: Preparation) -> None:
    window = windows(ready)
    once, again, other = (disturbed(ready, window, seed, withheld=0.5) for seed in (0, 0, 1))
    for name in KNOWN:
        np.testing.assert_array_equal(once.future[name], again.future[name])
        assert (once.future[name] != other.future[name]).any()


def test_what_is_withheld_is_withheld_to_the_end_and_of_every_signal(ready: Preparation) -> None:
    after = disturbed(ready, windows(ready, 400), withheld=0.4)
    gone = np.isnan(after.future["wind_speed"][..., 0])
    np.testing.assert_array_equal(gone, np.isnan(after.future["wind_direction"][..., 0]))
    assert (np.diff(gone.astype(int), axis=1) >= 0).all()
    assert 0.3 < gone[:, -1].mean() < 0.5
    assert 0.1 < gone.all(axis=1).mean() < 0.3
    assert not np.isnan(disturbed(ready, windows(ready)).future["wind_speed"]).any()


def test_what_was_not_measured_stays_unknown(ready: Preparation) -> None:
    window = windows(ready)
    holes = {name: values.copy() for name, values in window.future.items()}
    holes["wind_direction"][:, 3] = np.nan
    holes["wind_speed"][:, 5] = np.nan
    after = disturbed(ready, Window(window.issue, window.values, holes))
    assert np.isnan(after.future["wind_direction"][:, 3]).all()
    assert np.isnan(after.future["wind_speed"][:, 5]).all()
    assert np.isfinite(after.future["wind_speed"][:, 3]).all()


def test_training_alone_sees_a_weather_that_errs(ready: Preparation) -> None:
    plain = ready.features(windows(ready, 16))
    shown = Collate(ready, ready.split.train, training=True, seed=0)(range(16))[0]
    asked = Collate(ready, ready.split.train, training=False, seed=0)(range(16))[0]
    np.testing.assert_array_equal(asked["time"].numpy(), plain["time"])
    ahead = 5 * ready.task.horizon  # speed and its mask, two parts of the wind and their mask
    assert (shown["time"].numpy()[:, -ahead:] != plain["time"][:, -ahead:]).any()
    np.testing.assert_array_equal(shown["time"].numpy()[:, :-ahead], plain["time"][:, :-ahead])


def test_a_task_that_reads_no_weather_ahead_is_trained_as_before(small_city: City, quick: TrainConfig) -> None:
    plain = prepare(small_city, "pm25", quick)
    random = np.random.default_rng(0)
    state = random.bit_generator.state
    window = windows(plain)
    assert foretold(window, plain, random, withheld=1) is window
    assert random.bit_generator.state == state


def test_a_bundle_is_calibrated_on_a_weather_that_errs(ready: Preparation) -> None:
    torch.manual_seed(0)
    module = ForecastModule(build_network(ready), ready)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    made, perfect = (make_bundle(module, p) for p in (ready, told(ready, weather_error=(0, 0))))
    assert set(KNOWN) <= set(made.clocks)
    assert (made.calibration.shift != perfect.calibration.shift).any()
    issues = ready.split.validate[:8]
    once, again = (Foretold(ready).window(issues).future["wind_speed"] for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert "0.1 (first lead) to 0.5 (last)" in _foresight(ready)
