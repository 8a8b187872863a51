"""Peers: what they may read, how a budget binds them, and that each library's model runs behind the seam."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor, nn

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_datasets.features import Window
from citybrain_datasets.signals import Signal
from citybrain_models.calibration import Calibration
from citybrain_training.config import TrainConfig
from citybrain_training.peers.inputs import KERNEL_THRESHOLD, InputMaker, adjacency
from citybrain_training.peers.network import NetworkPeer, Recipe
from citybrain_training.peers.online import OnlineForecaster
from citybrain_training.peers.peer import Budget, Peer
from citybrain_training.peers.registry import SUBJECTS, Subject, chosen
from citybrain_training.preparation import Preparation, prepare

TINY = Budget(minutes=0.005, seed=1, threads=1)


@pytest.fixture(scope="module")
def traffic(small_city: City, quick: TrainConfig) -> Preparation:
    """Roads of which the last was never measured."""
    speed = small_city.signals["speed"]
    values = speed.values.copy()
    values[:, -1] = np.nan
    silent = Signal("speed", "road", speed.start, speed.step, values)
    city = small_city.replace(signals={**small_city.signals, "speed": silent})
    return prepare(city, "congestion", quick)


@pytest.fixture(scope="module")
def air(small_city: City, quick: TrainConfig) -> Preparation:
    config = quick.merged({"task": {"history": 12, "horizon": 6, "coarse": [0, 0], "seasonal_days": []}})
    return prepare(small_city, "pm25", config)


class Lags(NetworkPeer):
    """One linear map of the window: the least network that can learn."""

    recipe = Recipe(learning_rate=0.02, epochs=4)

    def build(self, inputs: InputMaker, edges: Tensor, weight: Tensor) -> nn.Module:
        return nn.Linear(inputs.task.history, inputs.task.horizon)

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        return self.network(batch["value"].transpose(1, 2)).transpose(1, 2)


def _check(peer: Peer, preparation: Preparation) -> np.ndarray:
    """The forecast of a few test windows, which must be whole, finite, not negative and rising."""
    window = preparation.source.window(preparation.split.test[:3])
    forecast = peer.forecast(window)
    task = preparation.task
    nodes = len(preparation.city.ids(task.node))
    assert forecast.shape == (3, nodes, task.horizon, len(task.quantiles))
    assert forecast.dtype == np.float32
    assert np.isfinite(forecast).all()
    assert (forecast >= 0).all()
    assert (np.diff(forecast, axis=-1) >= -1e-4).all()
    return forecast


def test_inputs_hold_only_nodes_that_were_measured_and_zero_where_nothing_was(traffic: Preparation) -> None:
    maker = InputMaker(traffic)
    assert maker.nodes.tolist() == [0, 1, 2, 3, 4]
    issues = traffic.split.train[:4]
    inputs = maker.batch(issues)
    measured = traffic.source.window(issues).values["speed"][:, : traffic.task.history, :5]
    np.testing.assert_array_equal(inputs.mask, np.isfinite(measured))
    np.testing.assert_array_equal(inputs.value[inputs.mask == 0], 0)
    scaler = traffic.statistics.scalers["speed"]
    np.testing.assert_allclose(inputs.value[inputs.mask == 1], scaler.scale(measured)[np.isfinite(measured)], rtol=1e-5)


def test_training_and_forecasting_read_the_same_inputs(traffic: Preparation) -> None:
    maker, issues = InputMaker(traffic), traffic.split.test[:3]
    cut, given = maker.batch(issues), maker(traffic.source.window(issues))
    for name, array in vars(cut).items():
        np.testing.assert_array_equal(array, getattr(given, name), err_msg=name)


def test_the_clock_is_local(traffic: Preparation) -> None:
    issues = traffic.split.train[:2]
    slot = InputMaker(traffic).batch(issues).slot
    local = issues.tz_convert("Asia/Shanghai")
    np.testing.assert_array_equal(slot[:, 0], (local.hour * 60 + local.minute) // traffic.task.step_minutes)
    np.testing.assert_array_equal(slot[:, 1], local.day_of_week)


def test_city_wide_inputs_reach_every_node_and_wind_is_a_vector(air: Preparation) -> None:
    maker = InputMaker(air)
    other = maker.batch(air.split.train[:2]).other
    assert other.shape == (2, 12, 3, maker.channels)
    assert maker.channels == len(air.task.inputs) + 1
    np.testing.assert_array_equal(other[:, :, 0], other[:, :, 2])
    wind = air.task.inputs.index("wind_direction")
    np.testing.assert_allclose((other[..., wind : wind + 2] ** 2).sum(axis=-1), 1, rtol=1e-5)


def test_links_of_the_road_weigh_one_and_lonely_nodes_loop(traffic: Preparation) -> None:
    edges, weight = adjacency(traffic, np.array([0, 1, 3]))
    assert edges.T.tolist() == [[0, 1], [2, 2]]
    assert weight.tolist() == [1, 1]


def test_a_table_of_distances_is_weighted_by_dcrnn_s_kernel(traffic: Preparation) -> None:
    ids = [f"r{i}" for i in range(6)]
    pairs = [(a, b) for a in ids for b in ids if a != b]
    table = pd.DataFrame(pairs, columns=["source", "target"]).assign(distance_m=np.arange(30) * 100.0, bearing_deg=0.0)
    city = traffic.city.replace(edges={**traffic.city.edges, "road-road": table})
    edges, weight = adjacency(dataclasses.replace(traffic, city=city), np.arange(5))
    distance = table["distance_m"].to_numpy()
    kernel = np.exp(-((distance / distance.std()) ** 2))
    inside = (kernel >= KERNEL_THRESHOLD) & table[["source", "target"]].ne("r5").all(axis=1).to_numpy()
    loops = edges[0] == edges[1]
    np.testing.assert_allclose(weight[~loops], kernel[inside], rtol=1e-6)
    assert set(edges.ravel()) == set(range(5))
    assert set(edges[0, loops]).isdisjoint(edges[:, ~loops].ravel())


def test_a_network_learns_within_its_budget_and_repeats_itself(traffic: Preparation) -> None:
    untrained, trained, again = Lags(), Lags(), Lags()
    untrained.fit(traffic, Budget(minutes=1e-9, seed=3))
    cost = trained.fit(traffic, Budget(seed=3))
    again.fit(traffic, Budget(seed=3))
    truth = traffic.source.answer(traffic.split.test[:3]).transpose(0, 2, 1)
    error = [np.nanmean(np.abs(_check(p, traffic)[..., traffic.task.median] - truth)) for p in (untrained, trained)]
    assert error[1] < error[0] / 2
    np.testing.assert_array_equal(_check(trained, traffic), _check(again, traffic))
    assert cost.parameters == (traffic.task.history + 1) * traffic.task.horizon
    assert 0 < cost.epochs <= Lags.recipe.epochs


def test_the_budget_decides_how_many_steps_are_taken(traffic: Preparation, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clocked(Lags):
        """Every pass through the network takes one second of a clock of its own."""

        recipe = Recipe(epochs=10_000, patience=10_000)
        seconds = steps = 0

        def run(self, batch: dict[str, Tensor]) -> Tensor:
            self.seconds += 1
            self.steps += self.network.training
            return super().run(batch)

    for minutes in (1, 10):
        peer = Clocked()
        monkeypatch.setattr("citybrain_training.peers.network.time.process_time", lambda peer=peer: peer.seconds)
        cost = peer.fit(traffic, Budget(minutes, seed=1))
        assert 0.6 * 60 * minutes < cost.seconds < 1.3 * 60 * minutes
        assert peer.steps > cost.seconds / 3


def test_nodes_never_measured_get_the_weekly_profile(traffic: Preparation) -> None:
    peer = Lags()
    peer.fit(traffic, TINY)
    window = traffic.source.window(traffic.split.test[:3])
    usual = traffic.features.profile("speed", window.issue)[:, traffic.task.history :, -1]
    np.testing.assert_allclose(_check(peer, traffic)[:, -1, :, traffic.task.median], usual, rtol=1e-3)


@pytest.mark.parametrize("name", ["citynet", "citynet-no-graph", "citynet-no-profile", "persistence", "weekly-profile"])
def test_our_own_subjects_fit_a_budget(name: str, small_city: City, quick: TrainConfig) -> None:
    changes = SUBJECTS[name].changes(prepare(small_city, "congestion", quick).task, small_city)
    assert changes is not None
    preparation = prepare(small_city, "congestion", quick.merged(changes))
    peer = SUBJECTS[name].make()
    cost = peer.fit(preparation, TINY)
    assert math.isfinite(cost.seconds)
    assert (cost.parameters > 0) == name.startswith("citynet")
    _check(peer, preparation)


class Stubborn:
    """Stands in for an exported network: always says 10, with an interval far too narrow."""

    def __init__(self, preparation: Preparation):
        self.task = preparation.task
        self.calibration = Calibration.none(self.task)
        self.bundle = SimpleNamespace(learnt=None)
        self.nodes = len(preparation.city.ids(self.task.node))

    def raw(self, window: Window) -> np.ndarray:
        quantiles = 10 + np.linspace(-0.5, 0.5, len(self.task.quantiles), dtype=np.float32)
        return np.broadcast_to(quantiles, (len(window.issue), self.nodes, self.task.horizon, len(quantiles)))


def test_intervals_learn_only_from_outcomes_that_have_arrived(traffic: Preparation) -> None:
    model: Any = Stubborn(traffic)
    online = OnlineForecaster(model, traffic.source)
    reach = traffic.task.horizon
    forecast = online.forecast(traffic.source.window(traffic.split.test[: reach + 40]))
    width = forecast[:, 0, :, -1] - forecast[:, 0, :, 0]
    for lead in (1, reach):  # steps until its first outcome is there
        np.testing.assert_array_equal(width[:lead, lead - 1], width[0, lead - 1])
        assert (width[lead:, lead - 1] > width[0, lead - 1]).all()
    np.testing.assert_array_equal(forecast[..., traffic.task.median], 10)
    later = OnlineForecaster(model, traffic.source)
    parts = [later.forecast(traffic.source.window(traffic.split.test[i : i + 13])) for i in range(0, reach + 40, 13)]
    np.testing.assert_array_equal(np.concatenate(parts), forecast)


@pytest.mark.parametrize("name", [name for name, subject in SUBJECTS.items() if subject.library])
def test_each_library_s_model_forecasts_roads_and_stations(name: str, traffic: Preparation, air: Preparation) -> None:
    subject = SUBJECTS[name]
    try:
        subject.make()
    except ConfigError as error:
        pytest.skip(str(error))
    for preparation in (traffic, air):
        peer = subject.make()
        cost = peer.fit(preparation, TINY)
        assert cost.parameters > 0
        _check(peer, preparation)


def test_a_missing_library_and_an_unknown_subject_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no_such_subject.*known are citynet"):
        chosen(["no_such_subject"])
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        Subject("nobody", "no_such_module:Nobody").make()
