"""Scenarios through SUMO, on a village of 52 segments and on a network that a user brings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sumo", reason="simulating needs the extra 'scenarios'")
pytest.importorskip("sumolib", reason="simulating needs the extra 'scenarios'")

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError
from citybrain_datasets.main import main
from citybrain_datasets.scenarios.actions import Window, compile_actions
from citybrain_datasets.scenarios.dataset import generate, read_runs
from citybrain_datasets.scenarios.demand_file import read_demand
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.mixed import random_scenario
from citybrain_datasets.scenarios.own_network import bring, open_network
from citybrain_datasets.scenarios.site import WARM_UP_S, Gravity, Site, open_site
from citybrain_datasets.scenarios.truth import Simulator, Truth, simulate
from citybrain_datasets.signals import Signal
from citybrain_datasets.simulation.air import place_stations
from citybrain_datasets.simulation.demand import write_trips
from citybrain_datasets.simulation.network import build_network, read_segments
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.simulation.streets import lay_out
from citybrain_datasets.simulation.tables import edge_tables, road_table, station_table

HOUR = Window.model_validate({"begin": "07:00", "end": "08:00"})
LANE = {"lever": "speed_limit", "kmh": 30}


@dataclass(frozen=True)
class Village:
    site: Site
    simulator: Simulator

    def truth(self, *measures: dict[str, object], id: str = "a") -> Truth:
        return self.simulator.truth(Scenario.model_validate({"id": id, "measures": measures}))


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Village:
    folder = tmp_path_factory.mktemp("village")
    plan = Plan(segments=40, stations=3, trips_per_segment=700)
    streets, network = lay_out(plan), folder / "village.net.xml.gz"
    build_network(streets, network)
    segments = read_segments(network)
    roads = road_table(plan, segments, streets)
    sites = station_table(plan, place_stations(plan, segments), segments)
    city = City("village", plan.timezone, {"road": roads, "air": sites}, edge_tables(network, segments, roads, sites))
    demand = Gravity(plan, segments, roads["owner"])
    site = Site(city, network, segments, demand, "village", latitude=plan.latitude, longitude=plan.longitude)
    return Village(site, Simulator(site, folder / "cache", HOUR, replications=1))


def test_no_measure_changes_nothing_exactly(village: Village) -> None:
    found = village.truth(id="another name")
    for name in ("speed", "flow", "emission"):
        np.testing.assert_array_equal(getattr(found.traffic, name), getattr(found.base, name))
    np.testing.assert_array_equal(found.pm25, found.base_pm25)
    assert found.base.flow.sum() > 0


def test_a_measure_of_no_strength_changes_nothing_exactly(village: Village) -> None:
    # Simulated anew, since the measures differ, and yet the same to the last bit: SUMO rolls no dice.
    found = village.truth({"lever": "demand", "factor": 1}, {"lever": "signal_retiming", "reduction": 0},
                          {"lever": "speed_limit", "factor": 1}, {"lever": "vehicles", "reduction": 0})  # fmt: skip
    for name in ("speed", "flow", "emission"):
        np.testing.assert_array_equal(getattr(found.traffic, name), getattr(found.base, name))


def test_retiming_changes_something_only_where_a_signal_stands(village: Village) -> None:
    import sumolib

    site = village.site
    lights = {e.getID() for e in sumolib.net.readNet(str(site.network)).getEdges() if e.getTLS() is not None}
    assert {i for i, has in zip(site.city.ids("road"), site.signalled, strict=True) if has} == lights
    without = [i for i in site.city.ids("road") if i not in lights]
    idle = village.truth({"lever": "signal_retiming", "reduction": 0.9, "where": {"segments": without}})
    busy = village.truth({"lever": "signal_retiming", "reduction": 0.9, "where": {"segments": sorted(lights)}})
    for name in ("speed", "flow", "emission"):
        np.testing.assert_array_equal(getattr(idle.traffic, name), getattr(idle.base, name))
    assert (busy.traffic.speed != busy.base.speed).any()


@pytest.mark.parametrize("rank", [0, 7, 20])
def test_closing_a_road_never_raises_its_own_flow(village: Village, rank: int) -> None:
    base = village.truth().base.flow[0]
    place = int(np.argsort(-base.sum(axis=0))[rank])
    closed = village.truth({"lever": "closure", "where": {"segments": village.site.city.ids("road")[place]}})
    assert (closed.traffic.flow[0][:, place] <= base[:, place]).all()
    assert closed.traffic.flow[0][1:, place].sum() <= 0.02 * base[:, place].sum()
    assert closed.traffic.flow[0].sum() > 0.5 * base.sum()


def test_a_ban_reaches_whom_it_bars_and_nobody_else(village: Village) -> None:
    place = {"road_class": "expressway"}
    trucks = village.truth({"lever": "heavy_ban", "where": place, "compliance": 0.01})
    ring = (village.site.city.nodes["road"]["road_class"] == "expressway").to_numpy()
    assert trucks.traffic.emission[0][:, ring].sum() < 0.95 * trucks.base.emission[0][:, ring].sum()
    assert trucks.traffic.flow[0][:, ring].sum() > 0.6 * trucks.base.flow[0][:, ring].sum()


def test_cleaner_vehicles_drive_the_same_and_emit_less(village: Village) -> None:
    found = village.truth({"lever": "vehicles", "reduction": 0.5})
    np.testing.assert_array_equal(found.traffic.flow, found.base.flow)
    driven = found.base.emission > 0
    # Exhaust is halved; what tyres and brakes wear off is not.
    assert (found.traffic.emission[driven] < found.base.emission[driven]).all()
    assert (found.traffic.emission[driven] >= 0.5 * found.base.emission[driven] * (1 - 1e-6)).all()
    assert (found.pm25 <= found.base_pm25).all()


def test_rain_of_the_case_slows_base_and_scenario_alike(village: Village, tmp_path: Path) -> None:
    start, hour = pd.Timestamp("2025-03-16 17:00", tz="UTC"), pd.Timedelta(hours=1)
    weather = {"wind_speed": 3.0, "wind_direction": 90.0, "mixing_height": 500.0, "precipitation": 6.0}
    signals = {n: Signal(n, "city", start, hour, np.full((24, 1), v)) for n, v in weather.items()}
    wet = Simulator(replace(village.site, city=village.site.city.replace(signals=signals)), tmp_path, HOUR, 1)
    found = wet.truth(Scenario.model_validate({"id": "a", "weather": {"case": "2025-03-17"}}))
    dry = village.truth().base
    np.testing.assert_array_equal(found.traffic.speed, found.base.speed)
    driven = (found.base.flow > 0) & (dry.flow > 0)
    assert found.base.speed[driven].mean() < 0.95 * dry.speed[driven].mean()
    with pytest.raises(CityError, match="2025-03-18 is not on record"):
        wet.truth(Scenario.model_validate({"id": "a", "weather": {"case": "2025-03-18"}}))


def test_signals_that_cost_less_save_time(village: Village) -> None:
    found = village.truth({"lever": "signal_retiming", "reduction": 0.5})
    time = [
        (t.flow * village.site.segments["length_m"].to_numpy() / t.speed).sum() for t in (found.traffic, found.base)
    ]
    assert time[0] < time[1]


@pytest.mark.parametrize("lever", ["heavy_ban", "low_emission_zone"])
def test_a_rule_that_nobody_keeps_is_the_base(village: Village, lever: str) -> None:
    village.truth()
    before = set(village.simulator.cache.iterdir())
    found = village.truth({"lever": lever, "compliance": 0})
    np.testing.assert_array_equal(found.traffic.flow, found.base.flow)
    assert set(village.simulator.cache.iterdir()) == before


def test_a_lever_on_the_air_alone_is_not_simulated(village: Village) -> None:
    village.truth()
    before = set(village.simulator.cache.iterdir())
    found = village.truth({"lever": "coal", "reduction": 0.5}, {"lever": "regional", "reduction": 0.3})
    assert set(village.simulator.cache.iterdir()) == before
    assert (found.pm25 < found.base_pm25).all()


def test_any_number_of_workers_gives_the_same_and_a_broken_file_is_made_again(village: Village, tmp_path: Path) -> None:
    scenario = Scenario.model_validate({"id": "a", "measures": [LANE]})
    one, two = (Simulator(village.site, tmp_path / n, HOUR, replications=2) for n in ("one", "two"))
    told: list[tuple[int, int]] = []
    one.run_all([scenario, scenario], workers=1, progress=lambda n, of: told.append((n, of)))
    two.run_all([scenario], workers=2)
    assert told == [(n, 4) for n in range(5)]
    broken = sorted(two.cache.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:500])
    kept = {p: p.stat().st_mtime_ns for p in two.cache.iterdir() if p != broken}
    np.testing.assert_array_equal(two.truth(scenario).traffic.speed, one.truth(scenario).traffic.speed)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert not list(two.cache.glob("*.part"))


def test_runs_to_learn_from_are_written_once_and_read_back(village: Village, tmp_path: Path) -> None:
    generate(village.site, tmp_path, 2, window=HOUR)
    made = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert set(made) == {"base-000.npz", "base-001.npz", "run-000000.npz", "run-000001.npz", "runs.json"}
    generate(village.site, tmp_path, 2, window=HOUR)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == made
    runs = list(read_runs(tmp_path))
    assert [r.scenario.id for r in runs] == ["mixed-000000", "mixed-000001"]
    assert runs[0].traffic.speed.shape == runs[0].base.speed.shape == (4, len(village.site.segments))
    with pytest.raises(CityError, match="another city, window or seed"):
        generate(village.site, tmp_path, 2, window=HOUR, seed=9)


def test_runs_to_learn_from_are_the_same_whoever_simulates_them(village: Village, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    one, two = tmp_path / "one", tmp_path / "two"
    generate(village.site, one, 2, window=HOUR)
    generate(village.site, two, 1, window=HOUR)
    first = (two / "run-000000.npz").stat().st_mtime_ns
    generate(village.site, two, 2, window=HOUR, workers=2, progress=lambda n, of: told.append((n, of)))
    assert (two / "run-000000.npz").stat().st_mtime_ns == first
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
    for alone, shared in zip(read_runs(one), read_runs(two), strict=True):
        assert alone.scenario == shared.scenario
        for name in ("speed", "flow", "emission"):
            np.testing.assert_array_equal(getattr(alone.traffic, name), getattr(shared.traffic, name))
            np.testing.assert_array_equal(getattr(alone.base, name), getattr(shared.base, name))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["s.yaml", "--mixed", "2"], "a file of scenarios is of no use with --mixed"),
        (["--mixed", "2", "--replications", "3"], "--replications is of no use with --mixed"),
        (["--mixed", "2", "--air", "air.yaml"], "--air is of no use with --mixed"),
        (["--mixed", "2", "--cache", "kept"], "--cache is of no use with --mixed"),
        (["s.yaml", "--mornings", "2"], "--mornings is of no use without --mixed"),
    ],
)
def test_what_would_not_be_looked_at_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["simulate", *options, "--out", str(tmp_path / "out")])
    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_on_the_same_mornings_differ_by_the_morning_alone(village: Village, tmp_path: Path) -> None:
    generate(village.site, tmp_path, 1, first=3, window=HOUR, mornings=(0, 2))
    assert {p.name for p in tmp_path.glob("run-*")} == {"run-000003-000.npz", "run-000003-002.npz"}
    one, two = read_runs(tmp_path)
    assert one.scenario == two.scenario
    assert one.scenario.id == "mixed-000003"
    assert (one.replication, two.replication) == (0, 2)
    assert not np.array_equal(one.base.flow, two.base.flow)


DEMAND = """\
<routes>
  <vType id="lorry" vClass="truck"/>
  <vType id="diesel" vClass="passenger" emissionClass="HBEFA3/PC_D_EU4"/>
  <route id="r" edges="{a} {b}"/>
  <flow id="f" begin="23400" end="28800" vehsPerHour="120" from="{a}" to="{b}"/>
  <flow id="g" begin="06:30:00" end="08:00:00" number="30" type="lorry" route="r"/>
  <vehicle id="v" depart="25500" type="diesel"><route edges="{a} {b}"/></vehicle>
  <trip id="t" depart="25200" from="{b}" to="{a}"/>
</routes>
"""


def test_a_users_own_network_from_the_command_line(village: Village, tmp_path: Path) -> None:
    a, b = village.site.city.edges["road-road"].iloc[0][["source", "target"]]
    demand = tmp_path / "own.rou.xml"
    demand.write_text(DEMAND.format(a=a, b=b), encoding="utf-8")
    trips = read_demand(demand, set(village.site.city.ids("road")))
    assert trips["type"].value_counts().to_dict() == {"car": 181, "truck": 30, "diesel_car": 1}
    scenarios = tmp_path / "s.jsonl"
    scenarios.write_text(
        '{"id": "no lorries", "measures": [{"lever": "heavy_ban", "cost": 3}]}\n{"id": "nothing"}\n', encoding="utf-8"
    )
    out = tmp_path / "out"
    own = ["--network", str(village.site.network), "--demand", str(demand), "--replications", "2"]
    with pytest.raises(SystemExit) as left:
        main(["simulate", str(scenarios), *own, "--begin", "07:00", "--end", "08:00", "--out", str(out)])
    assert not left.value.code
    table = pd.read_parquet(out / "outcomes.parquet").set_index("scenario")
    assert table.loc["nothing", "emission_kg_change"] == table.loc["nothing", "emission_kg_noise"] == 0
    lorries = table.loc["no lorries"]
    assert lorries["emission_kg_change"] < 0
    assert lorries["emission_kg_change_low"] <= lorries["emission_kg_change"] <= lorries["emission_kg_change_high"]
    assert (lorries["evidence"], lorries["cost"]) == ("simulated", 3)
    assert len(pd.read_parquet(out / "segments.parquet")) == 2 * len(village.site.segments)
    assert (pd.read_parquet(out / "receptors.parquet")["kind"] == "cell").all()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('from="{b}"', 'from="nowhere"', "trip t: 'nowhere' is no road of the network"),
        ('vClass="truck"', 'vClass="bus"', "flow g, column type: cannot be of the type 'lorry': its vClass 'bus'"),
        ('number="30"', 'period="0"', "flow g, column period: '0' must be above 0"),
        ('number="30"', "", "flow g: needs number, vehsPerHour, period or probability"),
        ('depart="25200"', 'depart="soon"', "trip t, column depart: 'soon' is no time or number"),
        ('type="lorry"', 'type="tram"', "flow g: the type 'tram' is not defined above"),
        ("</routes>", "", "cannot be read"),
    ],
)
def test_a_demand_that_cannot_be_used_is_told(village: Village, tmp_path: Path, old: str, new: str, told: str) -> None:
    a, b = village.site.city.edges["road-road"].iloc[0][["source", "target"]]
    demand = tmp_path / "own.rou.xml"
    demand.write_text(DEMAND.replace(old, new).format(a=a, b=b), encoding="utf-8")
    with pytest.raises(CityError) as raised:
        open_network(village.site.network, demand)
    assert told in str(raised.value)


def test_a_city_that_is_brought_in_is_the_one_it_was_exported_from(village: Village, tmp_path: Path) -> None:
    trips = village.site.draw(0, HOUR)
    trips = trips.assign(depart=(trips["depart"] + HOUR.begin * 60 - WARM_UP_S).round(1))
    write_trips(trips, tmp_path / "own.rou.xml")
    bring(village.site.network, tmp_path / "own.rou.xml", tmp_path / "own", HOUR, name="own", timezone="Asia/Shanghai")
    there, site = village.site.city.nodes["road"], open_site(tmp_path / "own")
    roads = site.city.nodes["road"]
    np.testing.assert_array_equal(roads["capacity_veh_h"], there["capacity_veh_h"])
    assert (site.window, site.purposes) == (HOUR, False)
    nothing = Scenario(id="nothing")
    own, simulated = (simulate(s, nothing, 0, HOUR) for s in (site, village.site))
    np.testing.assert_array_equal(own.flow, simulated.flow)
    assert simulate(site, nothing, 1, HOUR).flow.sum() == pytest.approx(own.flow.sum(), rel=0.1)
    some = Scenario.model_validate({"id": "s", "measures": [{"lever": "demand", "factor": 1, "purposes": ["errand"]}]})
    with pytest.raises(CityError, match="scenario s: why people travel is not known in city own"):
        simulate(site, some, 0, HOUR)
    (tmp_path / "own" / "demand.parquet").write_bytes(b"no table")
    with pytest.raises(CityError, match=r"demand\.parquet: cannot be read"):
        open_site(tmp_path / "own")


def test_runs_ask_a_city_for_nothing_that_it_does_not_know() -> None:
    city = City.load("embedded")
    roads = city.nodes["road"].assign(owner="", name="", road_class="")
    plain = city.replace(nodes={**city.nodes, "road": roads})
    for number in range(60):
        scenario = random_scenario(plain, HOUR, 1, number, purposes=False)
        compile_actions(scenario, plain, HOUR)
        for measure in scenario.measures:
            assert measure.where.district is None
            assert measure.where.road_class is None
            assert getattr(measure, "purposes", None) is None


def test_what_a_flow_leaves_to_chance_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    demand = tmp_path / "own.rou.xml"
    flow = '<flow id="{}" begin="25200" end="32400" from="a" to="b" {}/>'
    flows = [flow.format("p", 'probability="0.25"'), flow.format("e", 'period="exp(0.25)"')]
    unused = "".join(f'<vType id="{kind}" vClass="{kind}"/>' for kind in ("bus", "coach", "motorcycle"))
    demand.write_text(f"<routes>{unused}{''.join(flows)}</routes>", encoding="utf-8")
    trips = read_demand(demand, {"a", "b"})
    pd.testing.assert_frame_equal(trips, read_demand(demand, {"a", "b"}))
    assert trips["depart"].between(25200, 32400).all()
    # Two flows of 1,800 expected vehicles each, one of them on whole seconds, three standard errors either way.
    whole = int((trips["depart"] % 1 == 0).sum())
    assert abs(whole - 1800) < 3 * 37
    assert abs(len(trips) - whole - 1800) < 3 * 43


@pytest.mark.parametrize(
    "mix",
    [
        '<vTypeDistribution id="m"><vType id="a" probability="3"/><vType id="b" vClass="truck"/></vTypeDistribution>',
        '<vType id="a"/><vType id="b" vClass="truck"/><vTypeDistribution id="m" vTypes="a b" probabilities="6 2"/>',
    ],
)
def test_types_of_a_distribution_are_drawn_by_their_shares(tmp_path: Path, mix: str) -> None:
    demand = tmp_path / "own.rou.xml"
    flow = '<flow id="f" type="m" begin="0" end="3600" number="1200" from="a" to="b"/>'
    demand.write_text(f"<routes>{mix}{flow}</routes>", encoding="utf-8")
    trips = read_demand(demand, {"a", "b"})
    pd.testing.assert_frame_equal(trips, read_demand(demand, {"a", "b"}))
    assert abs((trips["type"] == "truck").sum() - 300) < 3 * 15
    demand.write_text(f"<routes>{mix.replace('truck', 'bus')}{flow}</routes>", encoding="utf-8")
    with pytest.raises(CityError, match="flow f, column type: cannot be of the type 'b': its vClass 'bus'"):
        read_demand(demand, {"a", "b"})


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.net.xml", None, "absent.net.xml: cannot be read: No such file or directory"),
        ("own.net.xml", "<net", "own.net.xml: is no SUMO network (.net.xml)"),
        ("own.net.xml", "no XML", "own.net.xml: is no SUMO network (.net.xml)"),
        ("own.net.xml.gz", "<net/>", "own.net.xml.gz: is no SUMO network (.net.xml)"),
        ("trips.rou.xml", "<routes/>", "trips.rou.xml: has no road; is it a SUMO network (.net.xml)?"),
    ],
)
def test_a_network_that_cannot_be_used_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: str | None, told: str
) -> None:
    network = tmp_path / name
    if content is not None:
        network.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["simulate", "s.yaml", "--network", str(network), "--demand", str(tmp_path / "own.rou.xml")])
    assert left.value.code == 2
    assert capfd.readouterr().err.strip() == f"Error: {tmp_path}/{told}"


def test_a_place_the_city_does_not_have_is_told_before_anything_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scenarios = tmp_path / "s.yaml"
    measure = "{lever: closure, where: {segments: R999}}"
    scenarios.write_text(f"version: 1\nscenarios:\n  - id: a\n    measures: [{measure}]\n", encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["simulate", str(scenarios), "--out", str(tmp_path / "out")])
    assert left.value.code == 2
    assert f"{scenarios}, line 4, measures.0.where.segments: 'R999' is not in city embedded" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
