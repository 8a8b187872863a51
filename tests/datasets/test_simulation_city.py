"""``citybrain data simulate`` from end to end, on a village: 52 segments, one day."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("sumo", reason="simulating needs the extra 'scenarios'")
pytest.importorskip("sumolib", reason="simulating needs the extra 'scenarios'")

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.main import main
from citybrain_datasets.simulation.network import SimulationError, build_network, read_segments
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.simulation.streets import lay_out
from citybrain_datasets.simulation.traffic import run_window

VILLAGE = ["data", "simulate", "--days", "1", "--segments", "40", "--stations", "3", "--name", "village"]


def simulate(*options: str) -> None:
    with pytest.raises(SystemExit) as left:
        main([*VILLAGE, *options])
    assert not left.value.code


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("village") / "city"
    simulate("--out", str(out))
    return out


def test_the_city_is_whole_and_named_synthetic(village: Path) -> None:
    city = City.load(village)
    assert city.synthetic
    assert "synthetic" in city.title
    assert "合成" in city.title
    assert len(city.ids("road")) >= 40
    assert len(city.ids("air")) == 3
    assert set(city.edges) == {"road-road", "air-air", "road-air"}
    assert set(city.edges["road-air"]["target"]) == set(city.ids("air"))
    assert city.nodes["road"][["name", "name_zh", "owner", "cell", "road_class"]].ne("").all(axis=None)
    for name in ("speed", "flow", "occupancy", "pm25", "wind_speed", "mixing_height"):
        values = city.signals[name].values
        assert np.nanmin(values) >= city.signals[name].kind.low
        assert np.nanmax(values) <= city.signals[name].kind.high
    assert city.signals["speed"].shape[0] == 288
    assert city.signals["speed"].times[0] == pd.Timestamp("2025-03-16 16:05", tz="UTC")
    assert city.signals["pm25"].times[0] == pd.Timestamp("2025-03-16 17:00", tz="UTC")


def test_the_instruments_see_the_truth_through_noise_and_gaps(village: Path) -> None:
    city, truth = City.load(village), City.load(village.with_name("city-truth"))
    seen, true = city.signals["speed"].values, truth.signals["speed"].values
    broken = pd.read_parquet(village / "faults.parquet")
    healthy = ~np.isin(city.ids("road"), broken["id"])
    both = np.isfinite(seen) & np.isfinite(true) & healthy
    assert np.isnan(seen).sum() > np.isnan(true).sum()
    assert 0 < np.abs(seen - true)[both].mean() < 3
    origin = pd.read_parquet(village / "origins.parquet")
    total = origin[["background", "urban", "traffic"]].sum(axis=1).to_numpy().reshape(24, 3)
    np.testing.assert_allclose(total, truth.signals["pm25"].values, atol=0.25)


def test_the_same_seed_is_the_same_city(village: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    simulate("--out", str(again), "--workers", "2")
    assert City.load(again).fingerprint() == City.load(village).fingerprint()


def test_a_finished_day_is_not_simulated_again(village: Path, tmp_path: Path) -> None:
    work = village.with_name(".city.work")
    (day,) = work.glob("*-day000.npz")
    before = day.stat().st_mtime_ns
    simulate("--out", str(tmp_path / "resumed"), "--work", str(work))
    assert day.stat().st_mtime_ns == before
    assert City.load(tmp_path / "resumed").fingerprint() == City.load(village).fingerprint()


def test_a_damaged_day_is_simulated_again(village: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (day,) = village.with_name(".city.work").glob("*-day000.npz")
    (work / day.name).write_bytes(day.read_bytes()[:1000])
    simulate("--out", str(tmp_path / "mended"), "--work", str(work))
    assert City.load(tmp_path / "mended").fingerprint() == City.load(village).fingerprint()


def test_an_unknown_parameter_is_named(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("incident_per_day: 3\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        main([*VILLAGE, "--out", str(tmp_path / "x"), "--plan", str(plan)])
    assert not (tmp_path / "x").exists()


def test_a_plan_is_gone_by_but_for_what_is_given_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Plan, str]] = []

    def instead(parameters: Plan, work: Path, *, name: str, **others: object) -> None:
        asked.append((parameters, name))
        raise CityError([Problem("asked", "is enough")])

    monkeypatch.setattr("citybrain_datasets.simulation.command.simulate_city", instead)
    saved = {"seed": 31, "segments": 400, "days": 3, "stations": 5, "trips_per_segment": 900}
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(saved), encoding="utf-8")
    for more in ([], ["--days", "2", "--name", "named"]):
        with pytest.raises(SystemExit):
            main(["data", "simulate", "--out", str(tmp_path / "mine"), "--plan", str(plan), *more])
    (whole, called), (fewer, named) = asked
    assert whole == Plan.model_validate(saved)
    assert fewer == Plan.model_validate({**saved, "days": 2})
    assert (called, named) == ("mine", "named")


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit) as left:
        main([*VILLAGE, *options])
    assert left.value.code == 2
    return capsys.readouterr().err


def test_what_may_not_be_written_is_refused_before_a_day_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work", encoding="utf-8")
    out = tmp_path / "out"
    (tmp_path / "out-truth").write_text("not a lie", encoding="utf-8")
    assert "name 'a b' must be letters" in refused(capsys, "--out", str(tmp_path / "city"), "--name", "a b")
    assert f"{mine}: exists and is no saved city" in refused(capsys, "--out", str(mine))
    assert f"{out}-truth: exists and is no saved city" in refused(capsys, "--out", str(out))
    monkeypatch.chdir(mine)
    assert f"{mine}: exists and is no saved city" in refused(capsys, "--out", ".")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out-truth"]


def test_a_closed_road_carries_nothing_and_its_neighbours_more(tmp_path: Path) -> None:
    from citybrain_datasets.simulation.demand import Day, draw_trips
    from citybrain_datasets.simulation.disruptions import Disruption

    plan = Plan(segments=40)
    network = tmp_path / "village.net.xml.gz"
    build_network(lay_out(plan), network)
    segments = read_segments(network)
    zones = pd.Series("all", index=segments.index)
    trips = draw_trips(plan, segments, zones, Day(0, False, np.zeros(24)))
    trips = trips[trips["depart"].between(7 * 3600, 9 * 3600)].assign(depart=lambda t: t["depart"] - 7 * 3600)
    base = run_window(network, segments, trips, seconds=3600)
    assert (base.exhaust > 0).any()
    ends = trips["origin"].value_counts().add(trips["destination"].value_counts(), fill_value=0)
    through = [i for i in segments.index if i not in ends.index]
    busiest = max(through, key=lambda i: base.flow[:, segments.index.get_loc(i)].sum())
    place = segments.index.get_loc(busiest)
    assert base.flow[:, place].sum() > 0
    closure = Disruption(busiest, 0, 3600 + 1800, 1.0, int(segments.at[busiest, "lanes"]), "closure")
    closed = run_window(network, segments, trips, seconds=3600, closures=[closure])
    assert closed.flow[:, place].sum() <= 0.05 * base.flow[:, place].sum()


def test_a_network_that_sumo_cannot_read_is_an_error(tmp_path: Path) -> None:
    network = tmp_path / "broken.net.xml.gz"
    network.write_bytes(b"no network")
    segments = pd.DataFrame({"lanes": [1]}, index=pd.Index(["a"], name="id"))
    trips = pd.DataFrame({"depart": [0.0], "origin": ["a"], "destination": ["a"], "type": ["car"]})
    with pytest.raises(SimulationError, match="sumo failed"):
        run_window(network, segments, trips, seconds=3600)
    assert os.listdir(tmp_path) == ["broken.net.xml.gz"]


def test_the_plan_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="lanes"):
        Plan.model_validate({"lanes": 3})
