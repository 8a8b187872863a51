"""The steps of a scenario that need no simulator: actions, trips, air and outcomes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sumolib", reason="reading the network needs the extra 'scenarios'")
pytest.importorskip("scipy", reason="the dispersion step needs the extra 'scenarios'")

from citybrain_datasets.errors import CityError
from citybrain_datasets.scenarios.actions import WARM_UP, Window, compile_actions
from citybrain_datasets.scenarios.air import AirAssumptions, AirStep, air_step, read_assumptions
from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.idle import Idle
from citybrain_datasets.scenarios.language import Scenario, Weather
from citybrain_datasets.scenarios.outcomes import Traffic, air_outcomes, traffic_outcomes
from citybrain_datasets.scenarios.results import summarise
from citybrain_datasets.scenarios.site import Site, open_site
from citybrain_datasets.scenarios.trips import apply_to_trips, electric_already
from citybrain_datasets.scenarios.truth import Truth
from citybrain_datasets.scenarios.weather import months_of, weather_hours

WINDOW = Window()
OLD_TOWN = {"district": "Old Town district · 老城区"}
unhurried = settings(deadline=None, max_examples=25)


@pytest.fixture(scope="module")
def site() -> Site:
    return open_site("embedded")


@pytest.fixture(scope="module")
def trips(site: Site) -> pd.DataFrame:
    return site.trips(0, WINDOW)


@pytest.fixture(scope="module")
def air(site: Site) -> AirStep:
    hour = Window(begin=7 * 60, end=8 * 60)
    return air_step(site, Weather(ensemble=2), hour)


def under(site: Site, trips: pd.DataFrame, *measures: dict[str, Any]) -> pd.DataFrame:
    actions = compile_actions(Scenario.model_validate({"id": "a", "measures": measures}), site.city, WINDOW)
    return apply_to_trips(trips, actions, site.segments)


def test_no_measure_leaves_every_trip_as_it_is(site: Site, trips: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(under(site, trips)[trips.columns.to_list()], trips)
    assert not under(site, trips)["permit"].any()
    neutral = [{"lever": "demand", "factor": 1}, {"lever": "odd_even", "compliance": 0},
               {"lever": "charge_zone", "reduction": 0, "where": OLD_TOWN}, {"lever": "electric_share", "share": 0},
               {"lever": "vehicles", "reduction": 0}, {"lever": "rerouting_advice", "share": 0}]  # fmt: skip
    pd.testing.assert_frame_equal(under(site, trips, *neutral)[trips.columns.to_list()], trips)
    unkept = [{"lever": lever, "compliance": 0} for lever in ("heavy_ban", "low_emission_zone")]
    assert not compile_actions(Scenario.model_validate({"id": "a", "measures": unkept}), site.city, WINDOW).barred


@pytest.mark.parametrize("factor", [0.0, 0.4, 0.9, 1.3, 2.5])
def test_demand_is_multiplied_where_and_for_whom_it_says(site: Site, trips: pd.DataFrame, factor: float) -> None:
    found = under(site, trips, {"lever": "demand", "factor": factor, "where": OLD_TOWN, "purposes": ["to_work"]})
    owner = site.city.nodes["road"]["owner"]

    def count(table: pd.DataFrame, hit: bool) -> int:
        mine = (owner.loc[table["origin"]].to_numpy() == OLD_TOWN["district"]) & (table["purpose"] == "to_work")
        return int((mine == hit).sum())

    expected = factor * count(trips, True)
    assert count(found, True) == pytest.approx(expected, abs=4 * np.sqrt(expected) + 1)
    assert count(found, False) == count(trips, False)
    assert found["depart"].is_monotonic_increasing


def test_a_stronger_measure_takes_away_the_same_trips_and_more(site: Site, trips: pd.DataFrame) -> None:
    mild, hard = (under(site, trips, {"lever": "demand", "factor": f}) for f in (0.8, 0.5))
    assert set(zip(hard["depart"], hard["origin"], strict=True)) <= set(
        zip(mild["depart"], mild["origin"], strict=True)
    )


def test_plates_keep_every_second_private_car_at_home(site: Site, trips: pd.DataFrame) -> None:
    found = under(site, trips, {"lever": "odd_even", "compliance": 1, "exempt_electric": True})
    left = found["type"].value_counts() / trips["type"].value_counts()
    assert left["car"] == pytest.approx(0.5, abs=0.02)
    assert left["electric_car"] == left["truck"] == left["van"] == 1


def test_plates_that_are_barred_twice_are_the_same_plates(site: Site, trips: pd.DataFrame) -> None:
    """A ban of every second plate in a district and one in the whole city leave half of the cars at home, not three
    quarters; where one is kept less, the other counts."""
    everywhere = {"lever": "odd_even", "compliance": 0.8}
    here = {"lever": "odd_even", "where": OLD_TOWN, "compliance": 0.6}
    once = under(site, trips, everywhere)
    pd.testing.assert_frame_equal(under(site, trips, everywhere, here), once)
    pd.testing.assert_frame_equal(under(site, trips, here, everywhere, everywhere), once)
    strict = under(site, trips, {**here, "compliance": 1}, everywhere)
    assert len(strict) < len(once)


def test_the_electric_share_is_reached_and_never_lowered(site: Site, trips: pd.DataFrame) -> None:
    def share(table: pd.DataFrame) -> float:
        private = table["type"].isin(["car", "diesel_car", "electric_car"])
        return float((table["type"][private] == "electric_car").mean())

    assert share(under(site, trips, {"lever": "electric_share", "share": 0.6})) == pytest.approx(0.6, abs=0.01)
    assert share(under(site, trips, {"lever": "electric_share", "share": 0.01})) == share(trips)


@pytest.mark.parametrize(
    "ban",
    [
        {"lever": "odd_even", "exempt_electric": True},
        {"lever": "charge_zone", "where": OLD_TOWN, "reduction": 0.5, "exempt_electric": True},
        {"lever": "low_emission_zone", "where": OLD_TOWN, "barred": ["diesel_car", "van", "truck"]},
    ],
)
def test_who_is_electric_by_one_measure_is_exempt_from_another(
    site: Site, trips: pd.DataFrame, ban: dict[str, Any]
) -> None:
    everybody = {"lever": "electric_share", "share": 1, "types": ["car", "diesel_car", "van", "truck"]}
    electric = under(site, trips, everybody)
    for both in ((everybody, ban), (ban, everybody)):
        pd.testing.assert_frame_equal(under(site, trips, *both), electric)
    half = under(site, trips, {**everybody, "share": 0.5}, ban)
    assert len(under(site, trips, ban)) < len(half) < len(trips)


@given(reduction=st.floats(0, 1), again=st.floats(0, 1))
@unhurried
def test_parts_of_a_town_add_up_and_what_is_reduced_twice_multiplies(reduction: float, again: float) -> None:
    city = open_site("embedded").city
    districts = sorted(set(city.nodes["road"]["owner"]))

    def left(*measures: dict[str, Any]) -> np.ndarray:
        scenario = Scenario.model_validate({"id": "a", "measures": measures})
        return compile_actions(scenario, city, WINDOW).sectors["coal"]

    everywhere = {"lever": "coal", "reduction": reduction}
    each = [{**everywhere, "where": {"district": name}} for name in districts]
    np.testing.assert_allclose(left(*each), 1 - reduction, atol=1e-12)
    twice = left(everywhere, {**everywhere, "reduction": again})
    np.testing.assert_allclose(twice, (1 - reduction) * (1 - again), atol=1e-12)
    one = left(each[0])
    np.testing.assert_allclose(1 - left(*each[:2]), (1 - one) + (1 - left(each[1])), atol=1e-12)


@pytest.mark.parametrize(
    ("measure", "field", "why"),
    [
        ({"lever": "closure", "when": {"begin": "17:00", "end": "19:00"}}, "when", "outside the hours judged"),
        ({"lever": "charge_zone", "reduction": 0.5}, "where", "every road, and nobody enters it"),
        ({"lever": "rerouting_advice", "share": 0.5}, "share", "a share of 0.7 knows the travel times without it"),
        ({"lever": "electric_share", "share": 0.1}, "share", "as many are electric without it"),
        ({"lever": "coal", "reduction": 1, "where": {"road_class": "motorway"}}, "where", "no town lies there"),
        ({"lever": "charge_zone", "reduction": 0.5, "where": OLD_TOWN}, "", ""),
        ({"lever": "rerouting_advice", "share": 0.8}, "", ""),
        ({"lever": "electric_share", "share": 0.1, "types": ["truck"]}, "", ""),
        ({"lever": "coal", "reduction": 1, "where": OLD_TOWN}, "", ""),
    ],
)
def test_what_changes_nothing_says_why(
    site: Site, trips: pd.DataFrame, measure: dict[str, Any], field: str, why: str
) -> None:
    have = electric_already(trips["type"].to_numpy(dtype=object))
    idle = Idle(site.city, WINDOW.timetable(), signalled=site.signalled, informed=0.7, electric=have)
    scenario = Scenario.model_validate({"id": "a", "measures": [measure]})
    (asked,) = scenario.measures
    found = idle(asked)
    assert (found is None) == (not why)
    if found is not None:
        assert found.field == field
        assert why in found.why
        actions, nothing = (compile_actions(s, site.city, WINDOW) for s in (scenario, Scenario(id="b")))
        pd.testing.assert_frame_equal(apply_to_trips(trips, actions, site.segments), under(site, trips))
        for name, left in actions.sectors.items():
            np.testing.assert_array_equal(left, nothing.sectors[name])


def test_winter_is_where_the_city_lies(site: Site) -> None:
    assert months_of("winter", site.city) == (12, 1, 2)
    south = {node: table.assign(lat=-table["lat"]) for node, table in site.city.nodes.items() if "lat" in table}
    assert months_of("winter", site.city.replace(nodes={**site.city.nodes, **south})) == (6, 7, 8)
    assert sorted(months_of("spring", site.city.replace(nodes={**site.city.nodes, **south}))) == [9, 10, 11]


def test_a_number_is_left_out_of_a_simulated_citys_streets_alone(site: Site) -> None:
    roads = site.city.nodes["road"]
    assert place_of(site.city).corridors == tuple(sorted({re.sub(r" \d+(?=,|$)", "", n) for n in roads["name"]}))
    names = np.where(np.arange(len(roads)) % 2, "Calle 13", "Calle 26")
    own = site.city.replace(nodes={**site.city.nodes, "road": roads.assign(name=names)}, synthetic=False)
    assert place_of(own).corridors == ("Calle 13", "Calle 26")


def test_a_zone_turns_some_trips_electric_and_gives_permits_to_the_rest(site: Site, trips: pd.DataFrame) -> None:
    zone = {"lever": "low_emission_zone", "where": OLD_TOWN, "barred": ["truck"], "replaced": 0.5, "compliance": 0.8}
    found = under(site, trips, zone)
    inside = site.city.nodes["road"]["owner"] == OLD_TOWN["district"]

    def ends(table: pd.DataFrame, kind: str) -> pd.Series:
        touches = inside.loc[table["origin"]].to_numpy() | inside.loc[table["destination"]].to_numpy()
        return touches & (table["type"] == kind)

    before = int(ends(trips, "truck").sum())
    assert int(ends(found, "electric_truck").sum()) == pytest.approx(0.4 * before, abs=4 * np.sqrt(before))
    assert int(ends(found, "truck").sum()) == pytest.approx(0.2 * before, abs=4 * np.sqrt(before))
    assert found["permit"].equals(ends(found, "truck"))


def test_nobody_starts_or_ends_on_a_closed_road(site: Site, trips: pd.DataFrame) -> None:
    found = under(site, trips, {"lever": "closure", "where": {"segments": ["R001", "R002"]}})
    assert not found["origin"].isin(["R001", "R002"]).any()
    assert not found["destination"].isin(["R001", "R002"]).any()
    assert len(trips) - len(found) < 0.001 * len(trips)


def test_a_measure_holds_in_its_time_alone(site: Site) -> None:
    when = {"begin": "07:30", "end": "08:00"}
    scenario = Scenario.model_validate({"id": "a", "measures": [{"lever": "closure", "when": when}]})
    closed = compile_actions(scenario, site.city, WINDOW).closed(site.segments["lanes"].to_numpy()).all(axis=1)
    assert closed.nonzero()[0].tolist() == [WARM_UP + 2, WARM_UP + 3]


def test_a_ceiling_never_raises_a_limit(site: Site) -> None:
    limit = compile_actions(
        Scenario.model_validate({"id": "a", "measures": [{"lever": "speed_limit", "kmh": 50}]}), site.city, WINDOW
    ).limit_kmh
    free = site.city.nodes["road"]["free_speed_kmh"].to_numpy()
    np.testing.assert_array_equal(limit[0], np.minimum(free, 50))


@unhurried
@given(seed=st.integers(0, 1000), factor=st.floats(0, 2))
def test_the_share_of_an_emission_is_proportional_to_it(air: AirStep, seed: int, factor: float) -> None:
    emission = np.random.default_rng(seed).uniform(0, 300, (4, air.matrix.shape[-1]))
    background = air.pm25(emission * 0)
    share = air.pm25(emission) - background
    np.testing.assert_allclose(air.pm25(emission * factor) - background, factor * share, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(air.pm25(emission / 2) - background, share / 2, rtol=1e-6, atol=1e-9)


@unhurried
@given(cut=st.floats(0, 1), sector=st.sampled_from(["coal", "industry", "dust", "regional"]))
def test_halving_a_sector_halves_its_share_of_the_background(air: AirStep, cut: float, sector: str) -> None:
    ones = np.ones(WARM_UP + 4)
    np.testing.assert_array_equal(air.background({sector: ones}), air.background())
    whole = air.regional if sector == "regional" else air.local * getattr(air.composition, sector)
    np.testing.assert_allclose(air.background() - air.background({sector: ones * (1 - cut)}), cut * whole, atol=1e-9)


def test_what_leaves_the_roads_passes_a_plane_downwind(site: Site) -> None:
    # u · ∫∫ C dy dz over a plane beyond the city is what all its roads emit: the mass is conserved.
    from citybrain_datasets.simulation.dispersion import source_receptor

    emission = np.random.default_rng(0).uniform(0, 100, len(site.ends))
    lid, wind = 500.0, 3.0
    # Far downwind the layer is mixed: one height stands for all.
    across = np.arange(-60_000, 60_000, 250.0)
    plane = np.c_[np.full_like(across, 25_000.0), across]
    passing = wind * lid * 250.0 * float((source_receptor(plane, site.ends, wind, 270.0, lid) @ emission).sum())
    assert passing == pytest.approx(emission.sum() * 1e6 / 3600, rel=0.01)


def test_all_people_live_somewhere(site: Site) -> None:
    place = place_of(site.city)
    assert place.population.sum() == pytest.approx(site.city.nodes["air"]["population"].sum())
    assert (place.population >= 0).all()
    assert len(place.cells) == len(place.population) == len(place.district)
    assert "Haiyan Road, eastbound" in place.corridors


def test_the_weather_is_that_of_the_day_the_season_or_some_days(site: Site) -> None:
    case = weather_hours(site.city, Weather.model_validate({"case": "2025-03-20"}), WINDOW)
    signal = site.city.signals["wind_speed"]
    row = signal.times.get_loc(pd.Timestamp("2025-03-20 08:00", tz="Asia/Shanghai").tz_convert("UTC"))
    np.testing.assert_allclose(case.wind_speed[0], signal.values[row : row + 2, 0])
    assert weather_hours(site.city, Weather(season="spring"), WINDOW).wind_speed.shape == (28, 2)
    assert weather_hours(site.city, Weather(ensemble=5), WINDOW).wind_speed.shape == (5, 2)
    with pytest.raises(CityError, match="winter is not on record; city embedded has weather from 2025-03-17"):
        weather_hours(site.city, Weather(season="winter"), WINDOW)


def test_assumptions_are_the_users_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "air.yaml"
    path.write_text("composition: {coal: 0.1, industry: 0.2, dust: 0.3, other: 0.3}\n", encoding="utf-8")
    with pytest.raises(CityError, match=r"air.yaml, composition: .*add up to 0.9, not to 1"):
        read_assumptions(path)
    path.write_text("regional_share: 0.5\n", encoding="utf-8")
    assert read_assumptions(path).regional_share == 0.5
    path.write_text("regional_ugm3: .inf\n", encoding="utf-8")
    with pytest.raises(CityError, match=r"regional_ugm3: .*finite"):
        read_assumptions(path)
    assert read_assumptions(None) == AirAssumptions()


def test_outcomes_by_hand(site: Site) -> None:
    place = place_of(site.city)
    shape = (2, 8, len(place.segments))
    free = place.free_speed_kmh
    flow = np.full(shape, 100.0)
    free_flow, _ = traffic_outcomes(Traffic(np.broadcast_to(free, shape), flow, flow * 0), place)
    assert free_flow["delay_veh_h"].tolist() == free_flow["tpi"].tolist() == [0, 0]
    half, _ = traffic_outcomes(Traffic(np.broadcast_to(free / 2, shape), flow, np.full(shape, 3.0)), place)
    # At half the free speed each kilometre costs 1/v more; d = 0.5 is index 4.
    lost = 2 * 100 * (place.length_m / 1000 / free).sum()
    np.testing.assert_allclose(half["delay_veh_h"], lost)
    np.testing.assert_allclose(half["tpi"], 4)
    np.testing.assert_allclose(half["emission_kg"], 3 * 2 * len(free) / 1000)
    np.testing.assert_allclose(half["travelled_veh_km"], 100 * 2 * place.length_m.sum() / 1000)


def test_the_worst_off_district_is_the_one_that_breathes_most(site: Site) -> None:
    place = place_of(site.city)
    pm25 = np.full((3, len(place.stations) + len(place.cells)), 40.0)
    pm25[:, len(place.stations) :][:, place.district == 2] = 90
    pm25[0, 0] = 61
    found, worst = air_outcomes(pm25, place)
    assert place.districts[int(worst)] == place.districts[2]
    assert found["worst_district_pm25"] == pytest.approx(90)
    assert 40 < found["pm25_people"] < 90
    assert found["exceedance_h"] == 1


def test_an_unknown_cost_is_a_missing_number(site: Site) -> None:
    place = place_of(site.city)
    traffic = Traffic(*np.ones((3, 1, 8, len(place.segments)), np.float32))
    pm25 = np.full((1, 2, len(place.stations) + len(place.cells)), 40.0)
    row = summarise(Truth(Scenario(id="a"), traffic, traffic, pm25, pm25), place)
    assert pd.DataFrame([row])["cost"].dtype == float
    assert np.isnan(row["cost"])
