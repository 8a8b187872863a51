"""The steps of the simulation that need no simulator: plan, demand, weather, mishaps, wear, instruments."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_datasets.city import City
from citybrain_datasets.simulation import disruptions, emissions, projection, sensors
from citybrain_datasets.simulation.demand import PURPOSES, Day, draw_trips, is_day_off
from citybrain_datasets.simulation.disruptions import Disruption, speed_steps
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.simulation.streets import lay_out
from citybrain_datasets.simulation.weather import simulate_weather
from citybrain_datasets.store import CITIES, EMBEDDED

PLAN = Plan(segments=40, days=3)


@pytest.fixture(scope="module")
def segments() -> pd.DataFrame:
    rows = [
        (s.id, s.source.x, s.source.y, s.target.x, s.target.y, s.length, 2, 60.0, s.road_class) for s in lay_out(PLAN)
    ]
    columns = ["id", "x0", "y0", "x1", "y1", "length_m", "lanes", "free_speed_kmh", "road_class"]
    return pd.DataFrame(rows, columns=columns).set_index("id")


@settings(deadline=None, max_examples=10)
@given(wanted=st.integers(30, 1200), seed=st.integers(0, 50))
def test_a_plan_of_any_size_hangs_together(wanted: int, seed: int) -> None:
    streets = lay_out(Plan(segments=wanted, seed=seed))
    assert len(streets) >= wanted
    assert (
        len({s.id for s in streets})
        == len({s.name for s in streets})
        == len({s.name_zh for s in streets})
        == len(streets)
    )
    assert min(s.length for s in streets) > 200
    neighbours: dict[str, set[str]] = {}
    for s in streets:
        neighbours.setdefault(s.source.id, set()).add(s.target.id)
    reached, frontier = set(), {streets[0].source.id}
    while frontier:
        reached |= frontier
        frontier = set().union(*(neighbours[j] for j in frontier)) - reached
    assert reached == set(neighbours)


def draw(segments: pd.DataFrame, day: Day) -> pd.DataFrame:
    zones = pd.Series(np.where(segments["x0"] > 0, "east", "west"), index=segments.index)
    return draw_trips(PLAN, segments, zones, day)


def test_a_working_day_has_its_two_peaks_and_a_day_off_has_not(segments: pd.DataFrame) -> None:
    hours = [
        np.histogram(draw(segments, Day(0, off, np.zeros(24)))["depart"] / 3600 - 0.5, range(25))[0]
        for off in (False, True)
    ]
    work, off = hours
    assert work[8] > 1.5 * work[11]
    assert work[17] > 1.5 * work[14]
    assert off[8] < 0.6 * work[8]
    assert off.sum() < work.sum()


def test_a_factor_acts_on_its_zone_and_purpose_alone(segments: pd.DataFrame) -> None:
    base = draw(segments, Day(0, False, np.zeros(24)))
    more = draw(segments, Day(0, False, np.zeros(24), (("east", "to_work", 2.0),)))
    east = set(segments.index[segments["x0"] > 0])

    def count(trips: pd.DataFrame, purpose: str, inside: bool) -> int:
        return int(((trips["purpose"] == purpose) & (trips["origin"].isin(east) == inside)).sum())

    assert count(more, "to_work", True) == pytest.approx(2 * count(base, "to_work", True), rel=0.1)
    assert count(more, "to_work", False) == pytest.approx(count(base, "to_work", False), rel=0.1)
    assert set(base["purpose"]) == {p.name for p in PURPOSES}


def test_the_holiday_of_the_four_weeks_is_known() -> None:
    plan = Plan()
    assert [d for d in range(28) if is_day_off(plan, d) and d % 7 < 5] == [18]


def test_a_longer_run_begins_with_the_weather_of_a_shorter() -> None:
    short, long = simulate_weather(Plan(days=2)), simulate_weather(Plan(days=28))
    pd.testing.assert_frame_equal(short, long.iloc[:48], check_freq=False)
    assert 0 < (long["precipitation"] > 0).mean() < 0.25
    assert long["wind_direction"].between(0, 360).all()
    assert long["humidity"].between(0, 100).all()


def test_causes_that_meet_multiply(segments: pd.DataFrame) -> None:
    first = segments.index[0]
    mishaps = [Disruption(first, 600, 3000, 0.5, 0, "incident"), Disruption(first, 1200, 1800, 0.5, 1, "roadworks")]
    steps = speed_steps(segments, mishaps, np.zeros(2), 0, 7200)
    assert steps == {first: [(0, 60), (600, 30), (1200, 15), (1800, 30), (3000, 60)]}
    wet = speed_steps(segments, [], np.array([0.0, 5.0]), 0, 7200)
    assert set(wet) == set(segments.index)
    assert wet[first] == [(0, 60), (3600, round(60 * disruptions.rain_factor(np.array(5.0)).item(), 3))]


def test_no_rain_and_no_mishap_change_nothing(segments: pd.DataFrame) -> None:
    assert speed_steps(segments, [], np.zeros(24), 0, 86400) == {}


@given(speed=st.floats(0, 130), travelled=st.floats(0, 1e5))
def test_wear_grows_with_distance_and_falls_with_speed(speed: float, travelled: float) -> None:
    one, two = (
        emissions.wear(np.array([speed]), np.array([travelled])),
        emissions.wear(np.array([speed]), np.array([2 * travelled])),
    )
    assert two == pytest.approx(2 * one)
    assert emissions.wear(np.array([speed + 10]), np.array([travelled])) <= one * 1.03


@given(x=st.floats(-20_000, 20_000), y=st.floats(-20_000, 20_000))
def test_the_projection_turns_back(x: float, y: float) -> None:
    lat, lon = projection.to_degrees(np.array(x), np.array(y), 31, 123.2)
    back = projection.to_metres(lat, lon, 31, 123.2)
    np.testing.assert_allclose(back, (x, y), atol=1e-4)


def test_instruments_are_noisy_faulty_and_the_same_for_a_seed() -> None:
    rng = np.random.default_rng(0)
    truth = {
        "speed": rng.uniform(20, 60, (864, 30)),
        "flow": rng.integers(0, 100, (864, 30)) * 12.0,
        "occupancy": rng.uniform(0, 0.3, (864, 30)),
    }
    read, faults = sensors.observe_roads(truth, 3)
    again, _ = sensors.observe_roads(truth, 3)
    for name in truth:
        np.testing.assert_array_equal(read[name], again[name])
    dead, stuck, biased = faults["column"]
    assert np.isnan(read["speed"][288:, dead]).all()
    assert np.nanstd(read["flow"][864 // 5 : 864 // 5 + 120, stuck]) == 0
    assert np.nanmean(read["speed"][:, biased] / truth["speed"][:, biased]) == pytest.approx(0.8, abs=0.02)
    healthy = np.setdiff1d(np.arange(30), faults["column"])
    assert 0 < np.isnan(read["speed"][:, healthy]).mean() < 0.1


def test_the_city_that_ships_is_large_enough_small_enough_and_made_by_this_plan() -> None:
    folder = CITIES / EMBEDDED
    city = City.load(EMBEDDED)
    assert city.synthetic
    assert len(city.ids("road")) >= 150
    assert len(city.ids("air")) >= 8
    assert city.signals["speed"].shape[0] == 28 * 288
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 5_000_000
    assert Plan.model_validate(yaml.safe_load((folder / "plan.yaml").read_text(encoding="utf-8"))) == Plan()
    ratio = city.signals["speed"].values / city.nodes["road"]["free_speed_kmh"].to_numpy()
    assert 0.01 < np.nanmean(ratio < 0.5) < 0.2
    origins = pd.read_parquet(folder / "origins.parquet")[["background", "urban", "traffic"]].mean()
    assert 0.1 < origins["traffic"] / origins.sum() < 0.4
