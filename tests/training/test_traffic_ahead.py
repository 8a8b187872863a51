"""Traffic ahead: a forecast that knows nothing of what came later, and in training one that is no better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from citybrain_datasets.city import City
from citybrain_datasets.features import Window
from citybrain_datasets.signals import Signal
from citybrain_training.batches import Collate
from citybrain_training.config import TrainConfig
from citybrain_training.fitting import NetworkForecaster
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.peers.inputs import InputMaker
from citybrain_training.peers.registry import SUBJECTS
from citybrain_training.preparation import Preparation, prepare
from citybrain_training.traffic_ahead import TrafficAhead

STEPS = 12


@pytest.fixture(scope="module")
def ready(small_city: City, quick: TrainConfig) -> Preparation:
    return prepare(jammed(small_city), "pm25", quick.merged({"task": {"context_ahead": ("speed", STEPS)}}))


def jammed(city: City) -> City:
    """The city with departures of the traffic that fade within hours, at every other road with the other sign."""
    speed, random = city.signals["speed"], np.random.default_rng(0)
    steps = random.normal(0, 2, len(speed.times))
    for row in range(1, len(steps)):
        steps[row] += 0.97 * steps[row - 1]
    sign = np.where(np.arange(speed.shape[1]) % 2, -1, 1)
    values = np.maximum(speed.values + steps[:, None] * sign, 0)
    return city.replace(signals={**city.signals, "speed": Signal("speed", "road", speed.start, speed.step, values)})


def source_of(ready: Preparation) -> TrafficAhead:
    assert isinstance(ready.source, TrafficAhead)
    return ready.source


def departures(ready: Preparation, window: Window) -> np.ndarray:
    history = ready.task.history
    return window.future["speed"] - ready.features.profile("speed", window.issue)[:, history : history + STEPS]


def errors(ready: Preparation, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared departure of what was measured from the forecast and from the profile, ``[step]``."""
    later = prepare(ready.city, "pm25", ready.config.merged({"task": {"context_ahead": None}})).source
    measured = np.stack([later.window(window.issue + k * ready.task.step).values["speed"][:, ready.task.history - 1]
                         for k in range(1, STEPS + 1)], axis=1)  # fmt: skip
    told = departures(ready, window)
    usual = window.future["speed"] - told
    known = np.isfinite(measured) & np.isfinite(told)
    return tuple(np.mean(np.square(measured - f), axis=(0, 2), where=known) for f in (window.future["speed"], usual))


def test_the_forecast_for_the_past_knows_nothing_of_what_came_later(ready: Preparation) -> None:
    source, issue = source_of(ready), ready.split.validate[:1]
    wild = {
        name: Signal(name, s.node, s.start, s.step, np.where((s.times > issue[0])[:, None], 99, s.values))
        for name, s in source.signals.items()
    }
    other = prepare(ready.city, "pm25", ready.config).source
    other.signals.update(wild)
    before, after = source.window(issue), other.window(issue)
    np.testing.assert_array_equal(after.future["speed"], before.future["speed"])
    assert np.isfinite(before.future["speed"]).mean() > 0.9


def test_it_is_better_than_the_profile_where_it_has_skill_and_less_so_with_the_lead(ready: Preparation) -> None:
    source = source_of(ready)
    assert source.skill[0] > source.skill[3] > source.skill[-1] >= 0
    assert source.skill[0] > 0.5
    told, usual = errors(ready, source.window(ready.split.train))
    assert told[0] < 0.6 * usual[0]
    assert (told < 1.05 * usual).all()


def test_training_shows_a_forecast_that_errs_as_much(ready: Preparation) -> None:
    source = source_of(ready)
    window = source.window(ready.split.train)
    random, none = np.random.default_rng(0), np.zeros((len(window.issue), STEPS), bool)
    shown = source.shown(window, random, none)
    theirs, usual = errors(ready, window)
    ours, _ = errors(ready, shown)
    np.testing.assert_allclose(ours, theirs, rtol=0.15)
    told = departures(ready, shown)
    spread = np.nanmean(np.square(told), axis=(0, 2)) / usual
    np.testing.assert_allclose(spread, source.skill, atol=0.1)  # toward the weekly profile as the skill fades
    assert shown.values is window.values


def test_training_alone_sees_what_came_later_and_at_times_nothing(ready: Preparation) -> None:
    plain = ready.features(ready.source.window(ready.split.train[:64]))
    asked = Collate(ready, ready.split.train, training=False)(range(64))[0]
    np.testing.assert_array_equal(asked["x_road"].numpy(), plain["x_road"])
    told = replace(ready, config=ready.config.merged({"fit": {"disturbed": 0, "traffic_withheld": 0.5}}))
    shown = Collate(told, ready.split.train, training=True, seed=0)(range(64))[0]["x_road"].numpy()
    np.testing.assert_array_equal(shown[..., : -2 * STEPS], plain["x_road"][..., : -2 * STEPS])
    assert (shown[..., -2 * STEPS : -STEPS] != plain["x_road"][..., -2 * STEPS : -STEPS]).any()
    given = shown[..., -STEPS:].max(axis=1)
    assert (np.diff(given, axis=1) <= 0).all()
    assert 0.3 < (given[:, -1] == 0).mean() < 0.7


def test_a_network_that_is_told_nothing_answers_as_where_there_is_nothing_to_tell(ready: Preparation) -> None:
    torch.manual_seed(0)
    module = ForecastModule(build_network(ready), ready)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    forecaster = NetworkForecaster(module, ready)
    window = ready.source.window(ready.split.validate[:4])
    silent = Window(window.issue, window.values)
    withheld = Window(window.issue, window.values, {"speed": np.full_like(window.future["speed"], np.nan)})
    np.testing.assert_array_equal(forecaster.forecast(withheld), forecaster.forecast(silent))
    moved = np.abs(forecaster.forecast(window) - forecaster.forecast(silent)).max(axis=(0, 2, 3))
    assert (moved > 0).all()  # every station has a road


def test_without_the_option_a_run_is_what_it_was(small_city: City, quick: TrainConfig, ready: Preparation) -> None:
    """Records of finished runs are found by what they were told; peers read no traffic ahead."""
    plain = prepare(small_city, "pm25", quick)
    assert not isinstance(plain.source, TrafficAhead)
    changes = SUBJECTS["citynet-no-traffic"].changes
    assert changes(plain.task, small_city) == {"task": {"context": ()}}
    without = prepare(small_city, "pm25", ready.config.merged(changes(ready.task, small_city) or {}))
    assert (without.task.context, without.task.context_ahead) == ((), None)
    assert InputMaker(ready).task.context_ahead is None
