"""A user's SUMO network and demand, all the way to a ranking by the surrogate that ships."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("sumo", reason="simulating needs the extra 'scenarios'")

from citybrain_datasets.main import main
from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.dataset import read_runs
from citybrain_datasets.scenarios.site import WARM_UP_S, Gravity, open_site
from citybrain_datasets.simulation.demand import write_trips
from citybrain_datasets.simulation.network import build_network, read_segments
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.simulation.streets import lay_out
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_serving.scenarios.run import SHIPPED

pytestmark = pytest.mark.skipif(not (SHIPPED / "embedded").is_dir(), reason="no surrogate ships for the embedded city")
EVENING = Window.model_validate({"begin": "16:00", "end": "18:00"})
SCENARIOS = """\
version: 1
scenarios:
  - id: nothing
  - id: fewer
    measures: [{lever: demand, factor: 0.7}]
"""


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that name a network of some thirty segments and an evening's trips on it."""
    folder = tmp_path_factory.mktemp("own")
    network, demand = folder / "mine.net.xml.gz", folder / "mine.rou.xml"
    plan = Plan(segments=30, trips_per_segment=400)
    build_network(lay_out(plan), network)
    segments = read_segments(network)
    trips = Gravity(plan, segments, pd.Series("", segments.index))(0, EVENING)
    write_trips(trips.assign(depart=trips["depart"] + EVENING.begin * 60 - WARM_UP_S), demand)
    return ["--network", network, "--demand", demand]


@pytest.mark.timeout(280)
def test_it_is_simulated_ranked_and_learnt_from(
    given: list[object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    city, runs, ranking = tmp_path / "mine", tmp_path / "runs", tmp_path / "ranking.parquet"
    assert run("data", "own-network", *given, "--out", city, "--begin", "16:00", "--end", "18:00") == 0
    assert "not known: why anybody travels, districts" in capfd.readouterr().out

    assert run("simulate", "--mixed", "1", "--city", city, "--out", runs) == 0
    (simulated,) = read_runs(runs)
    assert simulated.window == EVENING

    assert run("apply-surrogate", city, "--days", "1") == 0
    bundle = SurrogateBundle.read(city / "surrogate")
    assert (bundle.city.name, bundle.window) == ("mine", EVENING)
    assert "trained on 07:00–09:00 and tells 16:00–18:00 here" in bundle.card

    scenarios = tmp_path / "s.yaml"
    scenarios.write_text(SCENARIOS, encoding="utf-8")
    score = ("score", scenarios, "--city", city, "--out", ranking, "--workers", "1")
    assert run(*score, "--verify", "1") == 0
    table = pd.read_parquet(ranking).set_index("id")
    assert list(table.index) == ["fewer", "nothing"]
    assert table.loc["nothing", "delay_veh_h_change"] == table.loc["nothing", "pm25_people_change"] == 0
    assert table.loc["fewer", "emission_kg_change"] < 0
    checked = pd.read_parquet(tmp_path / "ranking.verified.parquet").set_index("outcome")
    assert checked.loc["emission_kg", "simulated"] < 0
    assert "pm25_stations" not in checked.index  # there are no stations
    assert "the whole city" in ranking.with_suffix(".html").read_text(encoding="utf-8")

    scenarios.write_text(SCENARIOS.replace("factor: 0.7", "factor: 0.7, purposes: [to_work]"), encoding="utf-8")
    for command in (score, ("simulate", scenarios, "--city", city, "--out", tmp_path / "simulated")):
        assert run(*command) == 2
        told = "s.yaml, line 5, measures.0.purposes: why people travel is not known in city mine (scenario fewer)"
        assert told in capfd.readouterr().err


def test_hours_that_the_surrogate_does_not_tell_are_refused(
    given: list[object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "own-network", *given, "--out", tmp_path / "night", "--begin", "02:00", "--end", "04:00") == 2
    assert "no vehicle departs from 02:00 to 04:00" in capfd.readouterr().err
    assert not (tmp_path / "night").exists()
    assert run("data", "own-network", *given, "--out", tmp_path / "hour", "--begin", "16:00", "--end", "17:00") == 0
    assert run("apply-surrogate", tmp_path / "hour") == 2
    assert "mine: 16:00–17:00 are not 2 hours" in capfd.readouterr().err


def test_what_is_assumed_of_the_air_goes_with_the_city(given: list[object], tmp_path: Path) -> None:
    air = tmp_path / "air.yaml"
    air.write_text("wind_speed: 5\n", encoding="utf-8")
    hours = ("--begin", "16:00", "--end", "18:00")
    assert run("data", "own-network", *given, "--out", tmp_path / "mine", *hours, "--air", air) == 0
    kept = open_site(tmp_path / "mine").assumptions
    assert kept is not None
    assert kept.read_text(encoding="utf-8") == "wind_speed: 5\n"
    air.write_text("wind: 5\n", encoding="utf-8")
    assert run("data", "own-network", *given, "--out", tmp_path / "mine", *hours, "--air", air) == 2
