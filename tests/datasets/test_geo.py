"""Distances, bearings and neighbours on the globe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_datasets.geo import EARTH_RADIUS_M, bearing_deg, cell, great_circle_m, nearest

LAT = st.floats(-89, 89)
LON = st.floats(-180, 180)


@given(LAT, LON, LAT, LON)
def test_distance_is_symmetric_and_bounded(a: float, b: float, c: float, d: float) -> None:
    there, back = great_circle_m(a, b, c, d), great_circle_m(c, d, a, b)
    assert there == pytest.approx(float(back), abs=1e-6)
    assert 0 <= there <= np.pi * EARTH_RADIUS_M + 1e-6


@given(LAT, LON, LAT, LON)
def test_bearing_is_a_direction(a: float, b: float, c: float, d: float) -> None:
    assert 0 <= bearing_deg(a, b, c, d) < 360


def test_known_distance_and_bearings() -> None:
    # Beijing to Shanghai by Vincenty on WGS 84 is 1,067 km; a sphere is within 0.5 %.
    assert great_circle_m(39.9042, 116.4074, 31.2304, 121.4737) == pytest.approx(1_067_000, rel=5e-3)
    assert bearing_deg(0, 0, [1, 0, -1, 0], [0, 1, 0, -1]).tolist() == [0, 90, 180, 270]


@given(st.lists(st.tuples(LAT, LON), min_size=1, max_size=25, unique=True), st.integers(1, 30), st.booleans())
@settings(deadline=None)
def test_nearest_is_what_sorting_all_distances_gives(
    places: list[tuple[float, float]], k: int, skip_self: bool
) -> None:
    lat, lon = np.array(places).T
    index, metres = nearest(lat, lon, lat, lon, k, skip_self=skip_self)
    every = great_circle_m(lat[:, None], lon[:, None], lat[None], lon[None])
    if skip_self:
        np.fill_diagonal(every, np.nan)
    expected = np.sort(every, axis=1)[:, :k]
    np.testing.assert_allclose(metres, expected, rtol=1e-9, atol=0.5)
    np.testing.assert_array_equal(index < 0, np.isnan(expected))


def test_unknown_places_have_no_neighbours_and_are_nobodys() -> None:
    lat = np.array([0.0, 1.0, np.nan])
    index, metres = nearest(lat, lat, lat, lat, 2, skip_self=True)
    assert index.tolist() == [[1, -1], [0, -1], [-1, -1]]
    assert np.isnan(metres[2]).all()


def test_cell_of_a_place() -> None:
    assert cell(40.4168, -3.7038) == "88390cb1b1fffff"
    assert cell(np.nan, 0) == ""
