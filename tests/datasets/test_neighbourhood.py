"""Who is near whom, and what a place without a sensor borrows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_datasets.city import City
from citybrain_datasets.graph import NEARBY_CHANNELS, graph_arrays
from citybrain_datasets.neighbourhood import LENDERS, Neighbourhood
from citybrain_datasets.statistics import Statistics
from citybrain_datasets.task import default_task

FAR = 4


@pytest.fixture(scope="module")
def row() -> Neighbourhood:
    """Five places in a row 100 m apart, and a sixth that is near nobody."""
    away = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) * 100.0
    index = np.full((6, FAR), -1)
    metres = np.full((6, FAR), np.nan)
    index[:5] = np.argsort(away, axis=1, kind="stable")[:, 1:]
    metres[:5] = np.take_along_axis(away, index[:5], axis=1)
    return Neighbourhood(index, metres)


def test_a_place_borrows_from_the_nearest_that_count(row: Neighbourhood) -> None:
    among = np.array([True, False, False, True, True, True])
    to = np.array([False, True, False, False, False, False])
    values = np.array([[10.0, 0, 0, 40, 50, 60]])
    lent = row.lent(values, to, among)
    weight = 1 / (np.array([100.0, 200, 300]) + 1)
    assert lent[0, 1] == pytest.approx(np.array([10, 40, 50]) @ weight / weight.sum())
    np.testing.assert_array_equal(np.delete(lent, 1, axis=1), np.delete(values, 1, axis=1))


def test_where_nobody_is_near_the_mean_of_all_stands_in(row: Neighbourhood) -> None:
    lonely = np.arange(6) == 5
    values = np.array([1.0, 2, 3, 4, 5, 99])
    assert row.lent(values, lonely, ~lonely)[5] == pytest.approx(3)


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6),
    among=st.lists(st.booleans(), min_size=6, max_size=6).filter(any),
    to=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_what_is_lent_lies_between_what_the_lenders_have(
    row: Neighbourhood, values: list[float], among: list[bool], to: list[bool]
) -> None:
    given_values, lenders = np.array(values), np.array(among)
    lent = row.lent(given_values, np.array(to), lenders)
    slack = 1e-9 * max(1.0, float(np.abs(given_values).max()))
    assert (lent[to] >= given_values[lenders].min() - slack).all()
    assert (lent[to] <= given_values[lenders].max() + slack).all()


def test_the_near_are_never_the_place_itself_and_links_tell_them_where_places_are_not_known() -> None:
    city = City.load("embedded")
    near = Neighbourhood.of(city, "road", 8)
    assert (near.index != np.arange(len(near.index))[:, None]).all()
    assert (np.diff(np.nan_to_num(near.metres, nan=np.inf), axis=1) >= 0).all()
    lost = city.replace(nodes={**city.nodes, "road": city.nodes["road"].assign(lat=np.nan, lon=np.nan)})
    linked = Neighbourhood.of(lost, "road", 8)
    ids = city.ids("road")
    table = city.edges["road-road"]
    ends = table.loc[(table["source"] == ids[0]) | (table["target"] == ids[0]), ["source", "target"]].to_numpy()
    around = {str(name) for name in ends.ravel()} - {ids[0]}
    assert {ids[i] for i in linked.index[0] if i >= 0} <= around
    assert linked.index[0, 0] >= 0
    alone = Neighbourhood.of(lost.replace(edges={}), "road", 8)
    assert (alone.index < 0).all()


def test_what_lies_between_near_places_says_links_and_given_speeds_alone() -> None:
    city = City.load("embedded")
    task = default_task(city, "congestion")
    start = city.signals["speed"].start
    statistics = Statistics.fit(city, task, start + pd.Timedelta(days=3))
    roads = city.nodes["road"].assign(free_speed_kmh=50.0, free_speed_measured=False)
    roads.iloc[0, roads.columns.get_loc("free_speed_measured")] = True
    arrays = graph_arrays(city.replace(nodes={**city.nodes, "road": roads}), task, statistics, 6)
    channel = dict(zip(NEARBY_CHANNELS, np.moveaxis(arrays["nearby_edge"], -1, 0), strict=True))
    assert not channel["speeds_known"][0].any(), "its own speed was measured by its sensor"
    assert channel["speeds_known"][1:].any()
    links = set(zip(city.edges["road-road"]["source"], city.edges["road-road"]["target"], strict=True))
    ids = city.ids("road")
    for place, neighbours in enumerate(arrays["nearby_index"]):
        for column, other in enumerate(neighbours):
            assert channel["ahead"][place, column] == ((ids[other], ids[place]) in links)
            assert channel["behind"][place, column] == ((ids[place], ids[other]) in links)
    assert LENDERS <= 6
