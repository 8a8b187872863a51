"""The air of usual weather, stood on what is forecast for the stations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_datasets.city import City
from citybrain_datasets.scenarios.air import AirStep, Composition
from citybrain_datasets.scenarios.geography import receptors
from citybrain_datasets.scenarios.standing import standing_on

CITY = City.load("embedded")
POINTS = receptors(CITY)
HOURS, STATIONS, RECEPTORS, ROADS = 2, POINTS.stations, len(POINTS.ids), len(CITY.ids("road"))


def usual(days: int = 3, seed: int = 0) -> AirStep:
    rng = np.random.default_rng(seed)
    fields = rng.uniform(1, 20, (2, days, HOURS, RECEPTORS))
    return AirStep(rng.uniform(0, 0.02, (days, HOURS, RECEPTORS, ROADS)), *fields, Composition())


def traffic(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 5, (4 * HOURS, ROADS))


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 300), st.floats(0, 1), st.integers(0, 5))
def test_the_base_breathes_at_the_stations_what_is_forecast(level: float, spread: float, seed: int) -> None:
    pm25 = level * (1 + spread * np.random.default_rng(seed).uniform(-1, 1, (HOURS, STATIONS)))
    step = standing_on(usual(), CITY, pm25, traffic())
    found = step.pm25(traffic())
    assert found[:, :STATIONS] == pytest.approx(pm25, rel=1e-9, abs=1e-9)
    assert (found >= 0).all()
    # Halving what traffic emits halves its part, wherever one breathes.
    none, half = (step.pm25(part * traffic()) for part in (0.0, 0.5))
    assert half - none == pytest.approx((found - none) / 2)


def test_the_background_keeps_its_proportion_and_the_traffic_its_usual_part() -> None:
    before, emission = usual(), traffic()
    step = standing_on(before, CITY, np.full((HOURS, STATIONS), 900.0), emission)
    assert step.matrix[0] == pytest.approx(before.matrix.mean(axis=0))
    regional, local = before.regional.mean(axis=0), before.local.mean(axis=0)
    assert step.regional[0] / (step.regional + step.local)[0] == pytest.approx(regional / (regional + local))


def test_traffic_is_never_more_than_all_there_is() -> None:
    emission = traffic()
    step = standing_on(usual(), CITY, np.full((HOURS, STATIONS), 0.5), emission)
    assert step.background(None) == pytest.approx(0, abs=1e-9)
    assert step.pm25(emission)[:, :STATIONS] == pytest.approx(0.5)


def test_a_station_without_a_forecast_breathes_what_the_others_do() -> None:
    pm25 = np.array([[10.0, 30.0] + [np.nan] * (STATIONS - 2)] * HOURS)
    found = standing_on(usual(), CITY, pm25, np.zeros_like(traffic())).pm25(np.zeros_like(traffic()))
    assert found[:, 2:STATIONS] == pytest.approx(20)
    with pytest.raises(ValueError, match="every hour"):
        standing_on(usual(), CITY, np.full((HOURS, STATIONS), np.nan), traffic())
