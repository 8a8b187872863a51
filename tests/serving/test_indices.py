"""Indices against the printed tables of their standards, a second implementation, and their own laws."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from aqi_hub.aqi_cn.aqi import cal_iaqi_cn
from hypothesis import given
from hypothesis import strategies as st

from citybrain_datasets.task import Task
from citybrain_serving.indices import air, traffic
from citybrain_serving.indices.catalogue import INDICES, applied
from citybrain_serving.indices.current import BASES, current
from citybrain_serving.indices.standards import HJ_633_2012, HJ_633_2026
from citybrain_serving.inputs import InputHealth
from citybrain_serving.snapshot import Forecast


@pytest.mark.parametrize(
    ("standard", "pm25", "index"),
    [
        (HJ_633_2026, [0, 35, 60, 115, 150, 250, 350, 500, 900], [0, 50, 100, 150, 200, 300, 400, 500, 500]),
        (HJ_633_2012, [0, 35, 75, 115, 150, 250, 350, 500, 900], [0, 50, 100, 150, 200, 300, 400, 500, 500]),
        (HJ_633_2026, [36, 61, 116, 35.4, 35.5, 0.5, 1.5], [52, 101, 152, 50, 52, 0, 3]),
        (HJ_633_2012, [36, 76], [52, 102]),
    ],
)
def test_the_chinese_index_at_and_beside_its_breakpoints(standard, pm25, index):
    assert air.aqi_cn(np.array(pm25, float), standard).tolist() == index


def test_the_chinese_index_agrees_with_a_second_implementation():
    whole = np.arange(0, 501)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [cal_iaqi_cn("PM25_24H", int(value)) for value in whole]
    ours = air.aqi_cn(whole.astype(float))
    # That one interpolates in floats and rounds up: where a float error lifts a whole result, it is one too high.
    differ = np.flatnonzero(ours != np.array(theirs))
    assert all(theirs[i] == ours[i] + 1 for i in differ)
    assert len(differ) < 10


@pytest.mark.parametrize(
    ("pm25", "index"),
    [(0, 0), (9.0, 50), (9.09, 50), (9.1, 51), (35.4, 100), (35.5, 101), (55.4, 150), (55.5, 151), (125.4, 200),
     (125.5, 201), (225.4, 300), (225.5, 301), (325.4, 500), (900, 500), (12.0, 56), (41.0, 115)],
)  # fmt: skip
def test_the_american_index_at_and_beside_its_breakpoints(pm25, index):
    assert air.aqi_us(np.array([pm25, np.nan]))[0] == index
    assert air.aqi_us(np.array([np.float32(pm25)]))[0] == index


def test_levels_and_what_is_unknown():
    assert air.level(np.array([0, 50, 51, 300, 301, np.nan])).tolist() == [1, 1, 2, 5, 6, 0]
    assert np.isnan(air.aqi_cn(np.array([np.nan])))[0]
    assert np.isnan(air.aqi_us(np.array([np.nan])))[0]


def test_nowcast_worked_example():
    # Steady air keeps its mean; a jump counts the newest hours most, with w = 0.5.
    assert air.nowcast(np.full((12, 1), 20.0)) == pytest.approx([20])
    jump = np.r_[np.full(11, 10.0), 100.0][:, None]
    weights = 0.5 ** np.arange(12)
    assert air.nowcast(jump) == pytest.approx([(weights * np.r_[100.0, np.full(11, 10.0)]).sum() / weights.sum()])


def test_nowcast_needs_two_of_the_last_three_hours():
    hours = np.full((12, 3), 30.0)
    hours[-1, 0] = hours[-1, 1] = hours[-2, 1] = np.nan
    assert np.isnan(air.nowcast(hours)).tolist() == [False, True, False]
    assert air.nowcast(np.zeros((12, 1))) == pytest.approx([0])
    assert np.isnan(air.nowcast(np.full((12, 1), np.nan)))[0]


def test_traffic_performance_at_the_edges_of_its_bands():
    free = np.full(7, 60.0)
    speed = 60 * (1 - np.array([0, 0.3, 0.5, 0.6, 0.7, 1.0, 0.4]))
    index = traffic.performance(speed, free)
    assert index == pytest.approx([0, 2, 4, 6, 8, 10, 3])
    assert traffic.performance_level(np.array([0, 2, 4, 6, 8, 10, np.nan])).tolist() == [1, 2, 3, 4, 5, 5, 0]
    assert traffic.performance(np.array([90.0, np.nan]), np.array([60.0, 60.0])) == pytest.approx(
        [0, np.nan], nan_ok=True
    )
    assert traffic.performance(traffic.speed_at(6.0, free), free) == pytest.approx(np.full(7, 6.0))


def test_travel_time_and_level_of_service():
    free = np.full(4, 50.0)
    assert traffic.travel_time_index(np.array([50, 25, 80, 0]), free).tolist() == [1, 2, 1, 50]
    shares = np.array([0.81, 0.68, 0.51, 0.41, 0.31, 0.29])
    assert traffic.service_level(shares * 50, np.full(6, 50.0)).tolist() == [1, 2, 3, 4, 5, 6]
    assert traffic.service_level(np.array([np.nan]), np.array([50.0])).tolist() == [0]


def test_the_network_value_is_weighted():
    assert traffic.network_performance(np.array([2, 8, np.nan]), np.array([3, 1, 9])) == pytest.approx(3.5)
    assert np.isnan(traffic.network_performance(np.array([np.nan]), np.array([1.0])))


@given(st.lists(st.floats(0, 500), min_size=2, max_size=20))
def test_every_air_index_rises_with_the_concentration(values):
    ordered = np.sort(np.array(values))
    for index in (i for i in INDICES.values() if i.signal == "pm25"):
        assert (np.diff(index.compute(ordered, ordered)) >= 0).all()


@given(st.lists(st.floats(0, 120), min_size=2, max_size=20))
def test_every_traffic_index_falls_with_the_speed(values):
    ordered = np.sort(np.array(values))
    for index in (i for i in INDICES.values() if i.signal == "speed"):
        assert index.falls
        assert (np.diff(index.compute(ordered, np.full(len(ordered), 60.0))) <= 1e-9).all()


def test_the_planning_time_is_the_travel_time_that_95_of_100_do_not_exceed():
    index, levels = INDICES["pti"], (0.05, 0.5, 0.95)
    speed, free = np.array([[20.0, 40.0, 50.0], [30.0, 60.0, 70.0]]), np.array([60.0, np.nan])
    np.testing.assert_array_equal(index.at_level(speed, levels, free), [3.0, np.nan])
    wide = np.array([[10.0, 20.0, 40.0, 50.0]])
    between = index.at_level(wide, (0.025, 0.075, 0.5, 0.95), np.array([60.0]))
    assert between == pytest.approx([60 / 15])
    assert np.isnan(index.at_level(speed, (0.1, 0.5, 0.9), free)).all()


def test_a_forecast_of_the_planning_time_is_one_quantile_of_that_of_the_travel_time(forecast_of):
    task = Task(name="congestion", node="road", target="speed", step_minutes=5, history=6, horizon=2)
    values = np.tile(np.linspace(10, 70, 7, dtype=np.float32), (2, 2, 1))
    forecast = replace(forecast_of(observed=[30.0, np.nan], ahead=0.0), task=task, values=values)
    free, none = np.array([60.0, 60.0]), np.full(2, np.nan)
    planned, travelled = (applied(INDICES[name], forecast, free, none) for name in ("pti", "tti"))
    assert planned.task.quantiles == (0.95,)
    assert travelled.task.quantiles[-1] == 0.95
    np.testing.assert_array_equal(planned.values[..., 0], travelled.values[..., -1])
    now = current(INDICES["pti"], forecast, free, lambda: none, 3)
    assert now.value.tolist() == [6.0, 6.0]
    assert {BASES[b] for b in now.basis} == {"forecast"}


@pytest.mark.parametrize(
    ("index", "basis"), [("aqi", "hour"), ("aqi-2012", "hour"), ("aqi-2026", "hour"), ("aqi-us", "nowcast")]
)
def test_the_present_of_an_index_is_taken_as_its_standard_has_it(forecast_of, index, basis):
    hours = np.full((12, 2), 45.0)
    hours[-1, 0] = 30.0  # an hour of clean air moves the hourly index at once, the NowCast by its weight
    forecast = forecast_of(observed=[30.0, np.nan], ahead=45.0)
    found = current(INDICES[index], forecast, np.full(2, np.nan), lambda: hours, 3)
    assert BASES[found.basis[0]] == basis
    weights = (30 / 45) ** np.arange(12)
    mean = (weights * np.r_[30.0, np.full(11, 45.0)]).sum() / weights.sum()
    expected = {"aqi-us": air.aqi_us(np.array([mean]))[0]}.get(index, air.aqi_cn(np.array([30.0]))[0])
    assert found.value[0] == expected


def test_without_measurements_the_present_is_forecast_but_never_a_nowcast(forecast_of):
    hours = np.full((12, 2), np.nan)
    forecast = forecast_of(observed=[np.nan, 20.0], ahead=45.0)
    chinese = current(INDICES["aqi"], forecast, np.full(2, np.nan), lambda: hours, 3)
    assert [BASES[b] for b in chinese.basis] == ["forecast", "observed"]
    assert chinese.value.tolist() == air.aqi_cn(np.array([45.0, 20.0])).tolist()
    american = current(INDICES["aqi-us"], forecast, np.full(2, np.nan), lambda: hours, 3)
    assert np.isnan(american.value).all()


@pytest.fixture
def forecast_of():
    """A PM2.5 forecast at two stations, the same at every step and quantile."""

    def make(observed: list[float], ahead: float) -> Forecast:
        task = Task(name="pm25", node="air", target="pm25", step_minutes=60, history=6, horizon=2)
        time = pd.Timestamp("2026-03-17", tz="UTC")
        seen = np.array(observed, np.float32)
        return Forecast(
            task=task, issued=time, computed=time, values=np.full((2, 2, len(task.quantiles)), ahead, np.float32),
            observed=seen, observed_age=np.zeros(2, int), inputs=InputHealth(1, time, {}), bundle="b", source="model",
        )  # fmt: skip

    return make
