"""Routes, reach and bundle of the surrogate. No torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="the extra `scenarios` is not installed here")

from citybrain_models.surrogate.levers import CHANNELS
from citybrain_models.surrogate.reach import Reach
from citybrain_models.surrogate.routes import Streets, grow, load, relations

# A ladder: two parallel ways from 0 to 5, the lower one faster.
#   0 → 1 → 2 → 5   and   0 → 3 → 4 → 5
LADDER = Streets(np.array([[0, 1], [1, 2], [2, 5], [0, 3], [3, 4], [4, 5]]), np.array([10.0, 10, 10, 30, 30, 10]))


def test_trips_take_the_shortest_way_and_are_counted_on_all_of_it():
    trips = np.zeros((6, 6, 1))
    trips[0, 5] = 8
    flow = load(grow(LADDER, np.arange(6)), trips).sum(axis=(0, 2))
    assert flow.tolist() == [8, 8, 8, 0, 0, 8]


def test_a_closed_street_is_driven_around():
    trips = np.zeros((6, 6, 1))
    trips[0, 5] = 8
    flow = load(grow(LADDER, np.arange(6), closed=1), trips).sum(axis=(0, 2))
    assert flow.tolist() == [8, 0, 0, 8, 8, 8]


def test_relations_say_who_shares_and_who_takes_over():
    trips = np.zeros((6, 6))
    trips[0, 5] = 8
    trips[1, 2] = 2
    sharing, diversion, turning = relations(LADDER, trips, draws=1)
    assert sharing[1, 2] == pytest.approx(1.0)
    assert sharing[1, 0] == pytest.approx(0.8)
    assert diversion[1, 3] == pytest.approx(0.8)
    assert diversion[1, 2] == pytest.approx(-0.8)
    assert diversion[1, 1] == 0
    assert turning[0, 1] == pytest.approx(1.0)
    assert not sharing[3].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_traffic_is_conserved_at_every_street(seed):
    draw = np.random.default_rng(seed)
    count = 12
    pairs = np.array([[i, (i + 1) % count] for i in range(count)] + draw.integers(0, count, (20, 2)).tolist())
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    streets = Streets(pairs, draw.uniform(5, 60, count))
    trips = draw.uniform(0, 3, (count, count, 2))
    flow = load(grow(streets, np.arange(count)), trips)
    # Everybody who is to arrive arrives, and everybody drives the first street.
    for origin in range(count):
        np.testing.assert_allclose(flow[origin, origin], trips[origin].sum(axis=0))
    assert (flow >= trips - 1e-9).all()


def test_reach_knows_what_is_stronger_and_what_is_far():
    draw = np.random.default_rng(0)
    learnt = np.zeros((60, 5, 4, len(CHANNELS)), np.float32)
    learnt[:, 0, :, 2] = draw.uniform(-1, 0, (60, 1))
    reach = Reach.of(learnt)
    mild, strong = learnt[:1].copy(), learnt[:1].copy()
    strong[:, 0, :, 2] = -3
    assert reach.outside(mild) == [""]
    assert reach.outside(strong) == ["speed limits"]
    again = Reach.from_arrays(reach.arrays())
    assert again.outside(strong) == reach.outside(strong)
    assert replace(reach, gap=0.0).outside(mild) == [""]
