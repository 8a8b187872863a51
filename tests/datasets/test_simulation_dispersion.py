"""The line-source model against what can be worked out on paper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="the dispersion step needs the extra 'scenarios'")

from citybrain_datasets.simulation import dispersion

UG_PER_S = 1e6 / 3600
"""One gram an hour in µg/s."""

# A shared machine may be slow; that is no failure.
unhurried = settings(deadline=None, max_examples=60)

weathers = {
    "wind_speed": st.floats(0, 15),
    "wind_direction": st.floats(0, 360),
    "mixing_height": st.floats(120, 2500),
}


@pytest.mark.parametrize("distance", [20.0, 100.0, 600.0])
@pytest.mark.parametrize("mixing_height", [200.0, 500.0, 1000.0, 2000.0])
def test_a_long_road_across_the_wind_is_the_infinite_line(distance: float, mixing_height: float) -> None:
    # C = q'/u · V(σz), the crosswind integral of the plume being one.
    length, wind = 20_000.0, 3.0
    road = np.array([[0.0, -length / 2, 0.0, length / 2]])
    found = dispersion.source_receptor(np.array([[distance, 0.0]]), road, wind, 270.0, mixing_height)
    _, sigma_z = dispersion.spread(np.array([distance]), mixing_height)
    expected = UG_PER_S / length / wind * dispersion.vertical(sigma_z, mixing_height)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_a_receptor_off_the_end_of_a_road_gets_the_finite_line() -> None:
    from scipy.stats import norm

    distance, mixing_height, wind = 150.0, 800.0, 2.0
    road = np.array([[0.0, 10.0, 0.0, 60.0]])
    found = dispersion.source_receptor(np.array([[distance, 0.0]]), road, wind, 270.0, mixing_height)
    sigma_y, sigma_z = dispersion.spread(np.array([distance]), mixing_height)
    share = norm.cdf(60 / sigma_y) - norm.cdf(10 / sigma_y)
    expected = UG_PER_S / 50 / wind * share * dispersion.vertical(sigma_z, mixing_height)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


@unhurried
@given(mixing_height=st.floats(120, 2500), sigma=st.floats(1.5, 20_000))
def test_nothing_is_lost_between_the_ground_and_the_lid(mixing_height: float, sigma: float) -> None:
    heights = np.linspace(0, mixing_height, 8001)
    profile = dispersion.vertical(np.full_like(heights, sigma), mixing_height, heights)
    assert np.trapezoid(profile, heights) == pytest.approx(1, rel=0.001)


@pytest.mark.parametrize("mixing_height", [200.0, 1000.0])
def test_what_leaves_the_road_passes_every_plane_downwind(mixing_height: float) -> None:
    # Flux through a vertical plane 1.5 km downwind of an oblique road: u · ∫∫ C dy dz = q.
    wind, road = 4.0, np.array([[-150.0, -200.0, 150.0, 200.0]])
    across = np.arange(-3000, 3000, 20.0)
    plane = np.c_[np.full_like(across, 1500.0), across]
    heights = np.linspace(0, mixing_height, 60)
    columns = [dispersion.source_receptor(plane, road, wind, 270.0, mixing_height, z).sum() * 20 for z in heights]
    assert wind * np.trapezoid(columns, heights) == pytest.approx(UG_PER_S, rel=0.01)


@unhurried
@given(**weathers, x=st.floats(-3000, 3000), y=st.floats(-3000, 3000))
def test_every_response_is_finite_and_never_negative(
    wind_speed: float, wind_direction: float, mixing_height: float, x: float, y: float
) -> None:
    roads = np.array([[0.0, 0.0, 900.0, 0.0], [0.0, 0.0, 0.0, 900.0]])
    found = dispersion.source_receptor(np.array([[x, y]]), roads, wind_speed, wind_direction, mixing_height)
    assert np.isfinite(found).all()
    assert (found >= 0).all()


@unhurried
@given(**weathers)
def test_the_wind_decides_which_side_breathes_it(
    wind_speed: float, wind_direction: float, mixing_height: float
) -> None:
    towards = np.deg2rad(wind_direction + 180)
    downwind = 400 * np.array([np.sin(towards), np.cos(towards)])
    road = np.array([[-20.0, -20.0, 20.0, 20.0]])
    lee, luv = dispersion.source_receptor(
        np.array([downwind, -downwind]), road, wind_speed, wind_direction, mixing_height
    )[:, 0]
    assert lee > 0
    assert luv == 0


def test_two_halves_of_a_road_are_the_road() -> None:
    whole = np.array([[0.0, 0.0, 800.0, 300.0]])
    halves = np.array([[0.0, 0.0, 400.0, 150.0], [400.0, 150.0, 800.0, 300.0]])
    receptors = np.array([[500.0, 60.0], [900.0, 900.0], [300.0, 400.0]])
    weather = (3.0, 200.0, 600.0)
    one = dispersion.source_receptor(receptors, whole, *weather)[:, 0]
    two = dispersion.source_receptor(receptors, halves, *weather).mean(axis=1)
    np.testing.assert_allclose(one, two, rtol=0.03)


def test_halving_the_emission_halves_its_share() -> None:
    rng = np.random.default_rng(0)
    ends, receptors = rng.uniform(-2000, 2000, (20, 4)), rng.uniform(-2000, 2000, (5, 2))
    emission = rng.uniform(0, 50, (6, 20))
    weather = rng.uniform(1, 5, 6), rng.uniform(0, 360, 6), rng.uniform(200, 1500, 6)
    full = dispersion.concentrations(emission, receptors, ends, *weather)
    np.testing.assert_allclose(dispersion.concentrations(emission / 2, receptors, ends, *weather), full / 2)
    assert not dispersion.concentrations(emission * 0, receptors, ends, *weather).any()


def test_weather_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="wind"):
        dispersion.source_receptor(np.zeros((1, 2)), np.ones((1, 4)), float("nan"), 0, 500)
