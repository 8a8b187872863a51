"""Near leads count more where a configuration says so, and all alike where it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_datasets.city import City
from citybrain_training.config import TrainConfig
from citybrain_training.lead_weights import lead_weights
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.preparation import Preparation, prepare


@pytest.fixture(scope="module")
def prepared(small_city: City, quick: TrainConfig) -> Preparation:
    return prepare(small_city, "pm25", quick)


def weighed(prepared: Preparation, power: float) -> Preparation:
    return replace(prepared, config=prepared.config.merged({"fit": {"lead_power": power}}))


def pinball(module: ForecastModule, off_by: np.ndarray) -> float:
    """The loss of a forecast that is ``off_by``, lead by lead, at every quantile."""
    answer = torch.full((2, 3, len(off_by)), 30.0)
    forecast = answer + torch.from_numpy(off_by.astype(np.float32))
    return float(module.loss(forecast.unsqueeze(-1).expand(-1, -1, -1, len(module.task.quantiles)), answer))


def test_without_a_power_all_leads_count_alike(prepared: Preparation) -> None:
    np.testing.assert_array_equal(lead_weights(weighed(prepared, 0)), np.ones(prepared.task.horizon, np.float32))


def test_left_out_near_leads_count_more_at_stations_and_not_on_roads(
    prepared: Preparation, small_city: City, quick: TrainConfig
) -> None:
    np.testing.assert_array_equal(lead_weights(prepared), lead_weights(weighed(prepared, 3)))
    assert (lead_weights(prepare(small_city, "congestion", quick)) == 1).all()


def test_left_out_distant_leads_that_the_weather_ahead_tells_of_count_more(
    prepared: Preparation, small_city: City, quick: TrainConfig
) -> None:
    foretold = prepare(small_city, "pm25", quick.merged({"task": {"known_future": ("wind_speed",)}}))
    np.testing.assert_array_equal(lead_weights(foretold), lead_weights(weighed(prepared, 1)))
    assert lead_weights(foretold)[-1] > lead_weights(prepared)[-1]


@settings(max_examples=10, deadline=None)
@given(st.floats(0.5, 4))
def test_leads_count_by_how_hard_they_are_to_minus_the_power(prepared: Preparation, power: float) -> None:
    weights, doubled = lead_weights(weighed(prepared, power)), lead_weights(weighed(prepared, 2 * power))
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    assert weights[0] == weights.max() > weights.min() > 0
    np.testing.assert_allclose(doubled / doubled[0], (weights / weights[0]) ** 2, rtol=1e-3)


def test_an_error_at_a_lead_costs_its_share_of_the_loss(prepared: Preparation) -> None:
    preparation = weighed(prepared, 3)
    module = ForecastModule(build_network(preparation), preparation)
    leads = np.eye(module.task.horizon)
    everywhere = pinball(module, np.ones(len(leads)))
    shares = [pinball(module, leads[lead]) / everywhere for lead in (0, len(leads) // 2, -1)]
    np.testing.assert_allclose(shares, lead_weights(preparation)[[0, len(leads) // 2, -1]] / len(leads), rtol=1e-3)
