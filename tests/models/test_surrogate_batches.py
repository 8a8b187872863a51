"""Scoring by the batch says what one scenario after the other says, by the sums that the simulator is judged by."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_datasets.errors import CityError
from citybrain_datasets.scenarios.actions import WARM_UP, compile_actions
from citybrain_datasets.scenarios.air import AirStep, Composition
from citybrain_datasets.scenarios.breathing import Breathing
from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.language import Scenario, Weather
from citybrain_datasets.scenarios.mixed import random_scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES, air_outcomes, traffic_outcomes
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.levers import CHANNELS, summary
from citybrain_models.surrogate.network import EMISSION_RATE, Base
from citybrain_models.surrogate.scorer import BATCH, USUAL_WEATHER, Scorer
from citybrain_models.surrogate.spared import EXHAUST, Spared

SHIPPED = Path(__file__).parents[2] / "serving/citybrain_serving/scenarios/surrogates/embedded"
pytestmark = pytest.mark.skipif(not SHIPPED.is_dir(), reason="no surrogate ships for the embedded city")
few = settings(deadline=None, max_examples=5)
ENDS = ("_change", "_change_low", "_change_high")


@lru_cache
def scorer() -> Scorer:
    return Scorer(SurrogateBundle.read(SHIPPED))


def drawn(seed: int, count: int) -> list[Scenario]:
    bundle = scorer().bundle
    return [random_scenario(bundle.city, bundle.window, seed, i) for i in range(count)]


@few
@given(st.integers(0, 10_000))
def test_a_batch_says_what_the_plain_sums_say(seed: int) -> None:
    one, scenarios = scorer(), [*drawn(seed, 6), Scenario.model_validate(COAL)]
    found = one.score(scenarios)
    usual = {**one._base(USUAL_WEATHER)[0]}
    for row, scenario in enumerate(scenarios):
        said = one.levers([scenario], one.base.flow)
        traffic = one.traffic(one.changed(said), said.exhaust)
        sectors = compile_actions(scenario, one.bundle.city, one.bundle.window).sectors
        values, _ = traffic_outcomes(traffic, one.place)
        breathed, district = air_outcomes(one.air[USUAL_WEATHER].pm25(traffic.emission, sectors), one.place)
        for name, value in {**values, **breathed}.items():
            assert found.columns[name][row] == pytest.approx(float(value[0]), rel=1e-4), name
            change = found.columns[f"{name}_change"][row]
            assert change == pytest.approx(float(value[0] - usual[name][0]), abs=1e-4 * abs(float(value[0])) + 1e-9)
            assert found.columns[f"{name}_change_low"][row] <= change <= found.columns[f"{name}_change_high"][row]
        assert found.labels["worst_district"][row] == one.place.districts[int(district[0])]


COAL = {"id": "c", "measures": [{"lever": "coal", "reduction": 0.3, "when": {"begin": "07:00", "end": "07:30"}}]}


def test_many_batches_are_scored_as_each_alone() -> None:
    scenarios = drawn(3, 2 * BATCH + 5)
    together = scorer()(scenarios)
    parts = [scorer().score(scenarios[i : i + BATCH]) for i in range(0, len(scenarios), BATCH)]
    for name, column in together.columns.items():
        assert np.array_equal(column, np.concatenate([p.columns[name] for p in parts]))
    assert together.outside == [why for p in parts for why in p.outside]
    assert scorer()([]).grade == []


def test_of_many_weathers_a_batch_is_remembered_and_each_is_made_once() -> None:
    bundle, made = scorer().bundle, []

    def step(weather: Weather) -> AirStep:
        made.append(weather)
        return scorer().air[USUAL_WEATHER]

    several = Scorer(bundle, weather=step)
    days = [{**COAL, "weather": {"ensemble": 8, "seed": seed}} for seed in range(1, BATCH + 5)]
    found = several([Scenario.model_validate(day) for day in days])
    assert len(made) == len(set(made)) == len(days)
    assert len(several._breathing) == len(several._usual) == len(several._units) == BATCH
    assert len(set(found.columns["pm25_people_change"])) == 1


def test_an_error_in_a_later_batch_is_told() -> None:
    wrong = Scenario.model_validate({"id": "w", "measures": [{"lever": "closure", "where": {"segments": ["R999"]}}]})
    for _ in range(2):  # what failed is not remembered as found
        with pytest.raises(CityError, match=r"scenario w, measures.0.where.segments: 'R999'"):
            scorer()([*drawn(1, BATCH), wrong])


@few
@given(st.integers(0, 10_000))
def test_trips_not_made_are_those_of_every_class_by_itself(seed: int) -> None:
    """The levers of demand, once more as they are defined: class by class and rule by rule."""
    one, network = scorer(), scorer().network
    bans = [{"lever": "odd_even", "compliance": 0.8}, {"lever": "demand", "factor": 0.7, "purposes": ["to_work"]}]
    extra = Scenario.model_validate({"id": "x", "measures": [*bans, {"lever": "charge_zone", "where": OLD_TOWN}]})
    scenarios = [*drawn(seed, 5), extra]
    said = one.levers(scenarios, one.base.flow)
    assert np.allclose(summary(said.levers), said.summary, rtol=1e-3, atol=1e-5)
    dirt = np.array([EXHAUST.get(kind, 0.0) for _, kind in network.classes])
    usual = np.maximum(network.demand.sum(axis=0).T, 1e-6)
    burnt = np.maximum(np.einsum("c,cts->st", dirt, network.demand), 1e-9)
    for row, scenario in enumerate(scenarios):
        actions = compile_actions(scenario, one.bundle.city, one.bundle.window)
        if actions.electric or sum(rule.plates for rule in actions.trips) > 1:
            continue
        kept, clean = np.ones(network.trips.shape), np.ones(network.trips.shape)
        for rule in actions.trips:
            start, end = (network.starts @ rule.place)[:, None], (network.ends @ rule.place)[None, :]
            touched = {
                "origin": start + 0 * end,
                "destination": end + 0 * start,
                "either": 1 - (1 - start) * (1 - end),
                "entering": (1 - start) * end,
            }[rule.end]
            share = touched[..., None] * rule.steps[WARM_UP:]
            for number, (purpose, kind) in enumerate(network.classes):
                if (rule.types is None or kind in rule.types) and (rule.purposes is None or purpose in rule.purposes):
                    kept[number] *= 1 - share * (1 - rule.factor)
                    clean[number] *= 1 - share * rule.electric
        gone = np.einsum("cabt,abs->st", network.trips * (1 - kept), network.route) / usual
        cleaner = np.einsum("cabt,c,abs->st", network.trips * (1 - kept * clean), dirt, network.route) / burnt
        for name, expected in (("cancelled_share", gone), ("cleaner", cleaner)):
            assert np.allclose(said.levers[row, ..., CHANNELS.index(name)], expected, rtol=1e-3, atol=1e-4), name


OLD_TOWN = {"district": "Old Town district · 老城区"}


@few
@given(st.sampled_from(["heavy_ban", "low_emission_zone"]), st.sampled_from([("07:00", "08:00"), ("07:30", "09:00")]))
def test_who_is_barred_is_on_the_way_through_and_counted_once(lever: str, hours: tuple[str, str]) -> None:
    """The bans' levers, once more as they are defined: pair of zones by pair of zones."""
    one, network = scorer(), scorer().network
    when = {"begin": hours[0], "end": hours[1]}
    ban = Scenario.model_validate({"id": "b", "measures": [{"lever": lever, "where": OLD_TOWN, "when": when}]})
    actions = compile_actions(ban, one.bundle.city, one.bundle.window)
    kinds = [k for k, (_, kind) in enumerate(network.classes) if kind in actions.barred]
    where = next(iter(actions.barred.values()))[WARM_UP:]
    place = where.any(axis=0)
    exhaust = np.array([EXHAUST.get(kind, 0.0) for _, kind in network.classes])
    usual = np.maximum(network.demand.sum(axis=0), 1e-6)
    share = one.base.flow.T / usual * where
    here, burnt, leaving, leaving_burnt = np.zeros((4, *where.shape))
    for a, b in np.ndindex(network.route.shape[:2]):
        outside = (1 - network.starts[a] @ place) * (1 - network.ends[b] @ place)
        trips = network.trips[kinds, a, b] * outside
        used = network.route[a, b] * place
        meets = used.max() / max(used.sum(), 1e-9)
        here += np.outer(trips.sum(axis=0), used)
        burnt += np.outer(exhaust[kinds] @ trips, used)
        leaving += np.outer(trips.sum(axis=0), used * meets)
        leaving_burnt += np.outer(exhaust[kinds] @ trips, used * meets)
    capacity = network.capacity_veh_h
    elsewhere = np.where(here * share > 0, 0, 1)
    expected = {
        "barred": here * share / capacity,
        "barred_exhaust": burnt * share / capacity / EMISSION_RATE,
        "diverted": elsewhere * ((leaving * share) @ network.diversion) / capacity,
        "diverted_exhaust": elsewhere * ((leaving_burnt * share) @ network.diversion) / capacity / EMISSION_RATE,
    }
    said = one.levers([ban], one.base.flow)
    assert (expected["barred"] > 0).any()
    for name, values in expected.items():
        found = said.levers[0, ..., CHANNELS.index(name)].T
        assert np.allclose(found, values, rtol=1e-3, atol=1e-5), name


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_the_folded_air_breathes_the_same(seed: int, days: int, acting: bool) -> None:
    rng = np.random.default_rng(seed)
    place = place_of(scorer().bundle.city)
    receptors, segments = len(place.stations) + len(place.cells), len(place.segments)
    step = AirStep(
        rng.random((days, 2, receptors, segments)) / segments,
        rng.uniform(0, 60, (days, 2, receptors)),
        rng.uniform(0, 60, (days, 2, receptors)),
        Composition(),
    )
    emission = rng.uniform(0, 50, (3, 8, segments))
    sectors = {name: rng.random((3, 8)) if acting else np.ones((3, 8)) for name in ("coal", "dust", "regional")}
    found, district = Breathing(step, place)(emission, sectors)
    for row in range(3):
        warmed = {name: np.r_[[1.0] * WARM_UP, factors[row]] for name, factors in sectors.items()}
        expected, worst = air_outcomes(step.pm25(emission[row], warmed), place)
        assert {n: float(v[row]) for n, v in found.items()} == pytest.approx({n: float(v) for n, v in expected.items()})
        assert district[row] == worst


def test_every_outcome_has_its_columns() -> None:
    found = scorer()([Scenario(id="nothing")])
    assert set(found.columns) == {
        f"{n}{end}" for n in OUTCOMES for end in ("", "_change", "_change_low", "_change_high")
    }
    assert (found.grade, found.outside) == (["surrogate"], [""])


@pytest.mark.parametrize(
    "measure",
    [
        {"lever": "heavy_ban", "compliance": 0, "where": {"road_class": "arterial"}},
        {"lever": "low_emission_zone", "compliance": 0, "where": {"segments": ["R010"]}},
        {"lever": "heavy_ban", "compliance": 0},
        {"lever": "charge_zone", "reduction": 0.5},  # nobody enters the whole city
    ],
)
def test_a_measure_that_touches_nobody_changes_nothing_exactly(measure: dict[str, object]) -> None:
    found = scorer().score([Scenario.model_validate({"id": "x", "measures": [measure]})])
    assert all((found.columns[n] == 0).all() for n in found.columns if "_change" in n)


def test_cleaner_engines_never_add_emission() -> None:
    one, roads = scorer(), scorer().bundle.city.nodes["road"]
    places = [{"owner": owner} for owner in sorted(set(roads["owner"]))] + [{"road_class": "local"}]
    scenarios = [
        Scenario.model_validate({"id": "x", "measures": [{"lever": "electric_share", "share": s, "where": place}]})
        for place in places
        for s in (0.3, 0.8)
    ]
    said = one.levers(scenarios, one.base.flow)
    assert (one.changed(said).emission <= one.after.unchanged.emission).all()
    assert (one(scenarios).columns["pm25_people_change"] <= 0).all()


def test_electric_cars_take_away_no_more_than_what_engines_emit() -> None:
    """At night, of which the network learnt nothing, it would tell of more."""
    usual = scorer().base
    few = Base(0.1 * usual.flow, 0.08 * usual.vehicles, 0.1 * usual.emission, usual.slot_seconds)
    electric, clean = ({"lever": "electric_share", "share": 1}, {"lever": "vehicles", "reduction": 1})
    found = Scorer(scorer().bundle, base=few)(
        [Scenario.model_validate({"id": "x", "measures": [m]}) for m in (electric, clean)]
    )
    most = found.columns["emission_kg_change"][1]
    assert most < 0
    assert found.columns["emission_kg_change"][0] >= most * (1 + 1e-5)
    assert found.columns["emission_kg"][0] > 0


def test_no_interval_leaves_what_is_possible() -> None:
    few_trips = [{"id": f"f{f}", "measures": [{"lever": "demand", "factor": f}]} for f in (0, 0.1, 0.3, 3)]
    found = scorer()([*map(Scenario.model_validate, few_trips), *drawn(5, 28)])
    for name, outcome in OUTCOMES.items():
        value, change, low, high = (found.columns[f"{name}{end}"] for end in ("", *ENDS))
        assert (value - change + low >= -1e-9 * np.abs(value)).all(), name
        assert (value - change + high <= outcome.highest + 1e-9).all(), name
        assert (low <= change).all()
        assert (change <= high).all()


EVERYBODY = {"lever": "electric_share", "share": 1, "types": ["car", "diesel_car", "van", "truck"]}


@pytest.mark.parametrize(
    "ban",
    [
        {"lever": "odd_even", "exempt_electric": True},
        {"lever": "charge_zone", "where": OLD_TOWN, "reduction": 0.5, "exempt_electric": True},
        {"lever": "low_emission_zone", "where": OLD_TOWN, "barred": ["diesel_car", "van", "truck"]},
    ],
)
def test_who_is_electric_by_one_measure_is_exempt_from_another(ban: dict[str, object]) -> None:
    """All of them: nobody is left to be barred. Half of them: half of what the ban takes."""
    asked = [[EVERYBODY], [EVERYBODY, ban], [{**EVERYBODY, "share": 0.5}], [{**EVERYBODY, "share": 0.5}, ban], [ban]]
    one = scorer()
    scenarios = [Scenario.model_validate({"id": f"s{n}", "measures": measures}) for n, measures in enumerate(asked)]
    found = one.score(scenarios).columns["travelled_veh_km_change"]
    assert found[1] == found[0]
    said = one.levers(scenarios, one.base.flow).levers
    np.testing.assert_allclose(said[1], said[0], atol=1e-6)
    assert found[4] < found[3] < found[2]


def test_electric_vehicles_count_class_by_class() -> None:
    """What two rules leave of trips that go electric in part, beside the sum over those that do and those that do
    not."""
    half = {"lever": "electric_share", "share": 0.5, "types": ["diesel_car"]}
    rules = [{"lever": "odd_even", "compliance": 0.8, "exempt_electric": True}, {"lever": "demand", "factor": 0.7}]
    one, network = scorer(), scorer().network
    scenario = Scenario.model_validate({"id": "x", "measures": [half, *rules]})
    actions = compile_actions(scenario, one.bundle.city, one.bundle.window)
    gone = {channel: values[0] for channel, _, values in Spared(network).on_roads([actions])}["cancelled_share"]
    made = {kind: 0.6 * 0.7 for kind in ("car", "diesel_car")}
    private = [kind for _, kind in network.classes if kind in ("car", "diesel_car", "electric_car")]
    assert private
    trips = {
        kind: sum(network.trips[i].sum() for i, (_, k) in enumerate(network.classes) if k == kind) for kind in private
    }
    already = trips["electric_car"] / sum(trips.values())
    electric = max(0.5 - already, 0) / (1 - already)
    kept = [
        electric * 0.7 + (1 - electric) * made[kind] if kind == "diesel_car" else made.get(kind, 0.7)
        for _, kind in network.classes
    ]
    expected = 1 - np.einsum("c,cts->ts", kept, network.demand) / np.maximum(network.demand.sum(axis=0), 1e-6)
    np.testing.assert_allclose(gone, expected, atol=1e-5)


def test_plates_barred_twice_are_the_same_plates() -> None:
    """Of overlapping bans the strictest counts, place by place and slot by slot; what they exempt is told apart."""
    city = {"lever": "odd_even", "compliance": 0.8}
    here = {"lever": "odd_even", "where": OLD_TOWN, "compliance": 0.6}
    strict, spared = {**here, "compliance": 1}, {**city, "exempt_electric": False}
    early, late = ({**city, "when": {"begin": b, "end": e}} for b, e in (("07:00", "08:00"), ("08:00", "09:00")))
    alone = {"lever": "electric_share", "share": 0}  # keeps a scenario off the short cut for single rules
    asked = [
        [city],
        [city, here],
        [here, city, city],
        [early, late],
        [city, strict],
        [strict],
        [city, spared],
        [spared],
    ]
    one = scorer()
    scenarios = [
        Scenario.model_validate({"id": f"s{n}", "measures": [*measures, alone]}) for n, measures in enumerate(asked)
    ]
    said = one.levers(scenarios, one.base.flow).levers
    same, again, thrice, apart, stricter, inside, wider, widest = said
    for other in (again, thrice, apart):
        np.testing.assert_allclose(other, same, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wider, widest, rtol=1e-5, atol=1e-6)
    assert (stricter >= np.maximum(same, inside) - 1e-5).all()
    assert (stricter <= same + inside + 1e-5).all()
    assert np.abs(stricter - same).max() > 0.01
