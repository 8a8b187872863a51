"""The benchmark as a whole: it resumes, reports what failed, and writes records, table and plots."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_datasets.importing import import_city
from citybrain_datasets.records import read_records
from citybrain_training.bench import runner
from citybrain_training.bench.cases import CASES, MEASURED, Case, chosen_cases
from citybrain_training.bench.commands import bench
from citybrain_training.bench.plots import draw
from citybrain_training.bench.records import run_digest
from citybrain_training.bench.results import PER_RUN, flat_records, merge
from citybrain_training.bench.runner import Plan, run_plan
from citybrain_training.bench.table import markdown, write_table
from citybrain_training.config import TrainConfig
from citybrain_training.evaluation import evaluate
from citybrain_training.fitting import DivergedError
from citybrain_training.peers.peer import Budget
from citybrain_training.peers.registry import SUBJECTS
from citybrain_training.peers.simple import PersistencePeer
from citybrain_training.preparation import prepare

DATA = Path(os.environ.get("CITYBRAIN_DATA", Path(__file__).parents[3] / "shared" / "data"))

CASE = Case("smallville", "congestion", "smoke", (3, 6, 12), "mph", 1.609344)

MakePlan = Callable[..., Plan]


@pytest.fixture(scope="module")
def cities(small_city: City, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cities")
    small_city.save(folder / "smallville")
    return folder


@pytest.fixture
def plan(cities: Path, tmp_path: Path) -> MakePlan:
    def make(*subjects: str, seeds: tuple[int, ...] = (1,), again: frozenset[str] = frozenset()) -> Plan:
        names = subjects or ("persistence", "weekly-profile")
        chosen = {name: SUBJECTS[name] for name in names}
        budget = Budget(minutes=0.005)
        return Plan({"small": CASE}, chosen, seeds, budget, cities, tmp_path / "work", again)

    return make


def test_a_run_is_scored_like_any_evaluation_in_the_protocol_s_unit(plan: MakePlan, small_city: City) -> None:
    (record,), failures = run_plan(plan("persistence"))
    preparation = prepare(small_city, "congestion", CASE.config())
    peer = PersistencePeer()
    peer.fit(preparation, Budget())
    kilometres = evaluate(peer, preparation.source, preparation.split.test)["mean"]
    assert not failures
    assert record["scores"]["mean"]["mae"] == pytest.approx(kilometres["mae"] / 1.609344, rel=1e-5)
    assert record["scores"]["mean"]["coverage"] == pytest.approx(kilometres["coverage"])
    assert record["leads"] == ["45min", "90min", "3h"]
    total, count = np.sum(list(record["days"].values()), axis=0)
    assert total / count == pytest.approx(record["scores"]["mean"]["mae"], rel=1e-5)
    shares = [share for parts in record["coverage"].values() for share in parts.values()]
    assert min(shares) <= record["scores"]["mean"]["coverage"] <= max(shares)


def test_finished_runs_are_not_repeated_unless_asked_for(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run_plan(plan())
    second, _ = run_plan(plan())
    assert first == second
    done: list[str] = []

    def instead(case: str, _: Case, name: str, *rest: object) -> dict:
        done.append(name)
        return next(r for r in first if r["subject"] == name)

    monkeypatch.setattr(runner, "run_one", instead)
    run_plan(plan())
    assert done == []
    run_plan(plan(again=frozenset({"persistence"})))
    assert done == ["persistence"]


def test_another_budget_or_seed_is_another_run_but_not_for_what_knows_no_seed(plan: MakePlan, tmp_path: Path) -> None:
    run_plan(plan("persistence", seeds=(1, 2)))
    assert len(list((tmp_path / "work" / "small").iterdir())) == 1


def test_tuning_our_network_leaves_the_peers_runs_valid(small_city: City) -> None:
    plain, print_ = CASE.config(), small_city.fingerprint()
    tuned, moved = plain.merged({"network": {"width": 24}}), plain.merged({"split": {"train": 0.6}})

    def digest(name: str, config: TrainConfig, minutes: float = 1, seed: int = 1) -> str:
        return run_digest(name, SUBJECTS[name], Budget(minutes, seed), config, print_)

    assert digest("stid", plain) == digest("stid", tuned)
    changed = [("citynet", tuned), ("citynet", moved), ("stid", moved)]
    assert all(digest(name, plain) != digest(name, config) for name, config in changed)
    assert len({digest("stid", plain), digest("stid", plain, 2), digest("stid", plain, 1, 2)}) == 3


def test_what_is_finished_is_told_without_running_the_rest(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    (done,), _ = run_plan(plan("persistence"))
    monkeypatch.setattr(runner, "run_one", Mock(side_effect=AssertionError("nothing is run")))
    told: list[str] = []
    chosen = dataclasses.replace(plan("persistence", "weekly-profile", "dcrnn"), finished=True)
    assert run_plan(chosen, told.append) == ([done], [])
    assert sum("is not finished" in line for line in told) == 2


def test_stopping_loses_the_run_in_progress_alone(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = runner.run_one

    def stopped(case: str, config: Case, name: str, *rest) -> dict:  # type: ignore[no-untyped-def]  # passed on as it is
        if name == "weekly-profile":
            raise KeyboardInterrupt
        return original(case, config, name, *rest)

    monkeypatch.setattr(runner, "run_one", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan())
    assert [file.name.partition("-seed")[0] for file in (tmp_path / "work" / "small").iterdir()] == ["persistence"]
    monkeypatch.setattr(runner, "run_one", original)
    records, _ = run_plan(plan())
    assert [record["subject"] for record in records] == ["persistence", "weekly-profile"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a forecast is not finite"),
        DivergedError("the error is no number"),
        type("LibraryError", (Exception,), {})("it broke"),
    ],
)
def test_a_model_that_breaks_is_reported_and_the_others_go_on(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(PersistencePeer, "fit", Mock(side_effect=error))
    records, failures = run_plan(plan())
    assert [record["subject"] for record in records] == ["weekly-profile"]
    assert [(f.subject, f.reason) for f in failures] == [("persistence", f"{type(error).__name__}: {error}")]


@pytest.mark.parametrize("subject", ["citynet-observed-weather", "citynet-exchange"])
def test_a_change_that_means_nothing_for_a_case_or_is_there_already_is_left_out(plan: MakePlan, subject: str) -> None:
    assert run_plan(plan(subject)) == ([], [])


def test_a_protocol_without_a_longer_history_has_none_to_leave_out(plan: MakePlan) -> None:
    short = Case("smallville", "pm25", "kdd2018-beijing", (1, 8, 24), "µg/m³")
    assert run_plan(dataclasses.replace(plan("citynet-short-history"), cases={"small": short})) == ([], [])


@pytest.fixture(scope="module")
def finished(cities: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    names = ("citynet", "persistence", "weekly-profile")
    chosen = {name: SUBJECTS[name] for name in names}
    work = tmp_path_factory.mktemp("work")
    return run_plan(Plan({"small": CASE}, chosen, (1, 2), Budget(minutes=0.005), cities, work))[0]


@pytest.fixture
def runs(finished: list[dict]) -> list[dict]:
    """Records of two seeds, for each test its own to spoil."""
    return copy.deepcopy(finished)


def test_results_are_flat_records_with_their_circumstances(runs: list[dict], tmp_path: Path) -> None:
    records = flat_records(runs)
    for record in records:
        assert record.keys() == {*PER_RUN, "metric", "value", "unit", "horizon", "note"}
        assert isinstance(record["value"], float)
        assert str(tmp_path) not in json.dumps(record)
    maes = {r["horizon"]: r for r in records if r["subject"] == "citynet" and r["metric"] == "mae" and r["seed"] == 2}
    assert list(maes) == ["45min", "90min", "3h", "mean"]
    assert maes["mean"]["unit"] == "mph"
    assert "budget 0.005 CPU minutes" in maes["mean"]["note"]
    bounds = {r["metric"]: r["value"] for r in records if r["seed"] is None}
    assert bounds["mae_difference_low"] <= bounds["mae_difference"] <= bounds["mae_difference_high"]


def test_new_records_replace_old_ones_of_the_same_run_and_leave_the_rest(runs: list[dict], tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    merge(path, flat_records(runs))
    fewer = [run for run in runs if run["subject"] == "persistence"]
    fewer[0]["scores"]["mean"]["mae"] = 99.0
    merged = merge(path, flat_records(fewer))
    assert merged == read_records(path)
    means = {(r["subject"], r["seed"]): r["value"] for r in merged if (r["metric"], r["horizon"]) == ("mae", "mean")}
    assert means["persistence", 1] == 99
    assert len(means) == 4


def test_a_file_that_holds_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    for text in ("{", "[1]", '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"accuracy\.json"):
            merge(path, [])
        assert path.read_text() == text


def test_the_page_is_generated_between_its_marks_and_nowhere_else(runs: list[dict], tmp_path: Path) -> None:
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    begin, end = "<!-- accuracy: begin, generated by `citybrain bench --name accuracy` -->", "<!-- accuracy: end -->"
    page.write_text(f"# Benchmarks\n\nBefore.\n\n{begin}\nold\n{end}\n\nAfter.\n")
    plots = draw(runs, tmp_path / "benchmarks" / "plots")
    write_table(page, "accuracy", flat_records(runs), plots)
    text = page.read_text()
    assert text.startswith("# Benchmarks\n\nBefore.")
    assert text.rstrip().endswith("After.")
    assert "old" not in text
    assert "| **CityNet** |" in text
    assert "of the best peer's mean MAE" in text
    assert "Learning from outcomes as the service does: coverage" in text
    assert "(../benchmarks/plots/small-lead.png)" in text
    assert {plot.name for plot in plots} == {"small-lead.png", "small-cost.png", "small-reliability.png"}
    write_table(page, "accuracy", flat_records(runs), plots)
    assert page.read_text() == text


def test_what_was_measured_again_is_marked_and_so_is_uncommitted_code(runs: list[dict], tmp_path: Path) -> None:
    then = [{**run, "date": "2026-01-01T00:00:00+00:00", "commit": "0123456789ab+"} for run in runs]
    for name, these in (("first-run", then), ("accuracy", runs)):
        merge(tmp_path / f"{name}.json", flat_records(these))
    app = typer.Typer()
    app.command()(bench)
    arguments = ["--page", "--out", str(tmp_path), "--docs", str(tmp_path / "page.md")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    earlier, _, later = (tmp_path / "page.md").read_text().partition("<!-- first-run: end -->")
    for told in ("**Superseded**: measured again in the chapter of", "small on `0123456789ab` and changes"):
        assert told in earlier
        assert told not in later


def test_what_a_part_brings_is_told_in_percent_with_its_interval_and_left_empty_elsewhere(runs: list[dict]) -> None:
    ours = [run for run in runs if run["subject"] == "citynet"]
    worse = [copy.deepcopy(run) | {"subject": "citynet-no-graph"} for run in ours]
    for run in worse:
        run["days"] = {day: [1.1 * total, count] for day, (total, count) in run["days"].items()}
    weather = [copy.deepcopy(run) | {"subject": "citynet-observed-weather"} for run in ours[:1]]
    records = flat_records([*runs, *worse, *weather])
    found = {(r["subject"], r["metric"]): r for r in records if "brought" in r["metric"]}
    graph = [found["citynet-no-graph", f"mae_brought{bound}"]["value"] for bound in ("", "_low", "_high")]
    assert graph == pytest.approx([10, graph[1], graph[2]], rel=1e-4)
    assert 5 < graph[1] < 10 < graph[2] < 20
    assert found["citynet-observed-weather", "mae_brought"]["value"] == 0
    assert "1 seed;" in found["citynet-observed-weather", "mae_brought"]["note"]
    text = markdown("accuracy", flat_records([*runs, *worse]))
    row = text.partition("### What each part brings")[2].splitlines()[-1]
    assert row.startswith("| small | +10.00 (+")
    assert row.endswith(" |" + 6 * "  |")
    assert "What each part brings" not in markdown("accuracy", flat_records(runs))


def test_groups_of_hours_nodes_and_regimes_hold_every_outcome_and_are_told(runs: list[dict]) -> None:
    run = next(run for run in runs if run["subject"] == "citynet")
    mean = run["scores"]["mean"]
    for kind in ("part of the day", "hour", "nodes", "regime"):
        groups = {name: g for name, g in run["groups"][kind].items() if kind != "nodes" or name.startswith("quarter=")}
        count = [group["count"] for group in groups.values()]
        assert sum(count) == sum(count for _, count in run["days"].values())
        for metric in ("mae", "pinball", "coverage", "width"):
            pooled = np.average([group[metric] for group in groups.values()], weights=count)
            assert pooled == pytest.approx(mean[metric], rel=1e-4)
    assert {"congested", "slow", "free"} >= set(run["groups"]["regime"]) - {"not measured"}
    text = markdown("accuracy", flat_records(runs))
    assert "| regime | free |" in text
    assert "| hour | 07–08 |" in text
    assert text.count(" | as calibrated | ") == text.count(" | learning | ") == len(run["leads"])
    assert "Not kept by these runs" not in text
    assert "Our worst group of nodes: " in text
    for run in runs:  # as runs were that earlier releases finished
        run["groups"].pop("hour")
        (run["online"] or {}).pop("by_lead", None)
    text = markdown("accuracy", flat_records(runs))
    assert "coverage of a whole lead while learning; scores by hour of the day." in text
    for run in runs:
        del run["groups"]
    assert "| regime |" not in markdown("accuracy", flat_records(runs))


def test_published_figures_stand_apart_with_their_reservation(runs: list[dict]) -> None:
    for run in runs:
        run["case"], run["leads"] = "kdd2018-beijing", ["45min"]
    text = markdown("accuracy", flat_records(runs))
    assert "*AirPhyNet, as published (ICLR 2024)*" in text
    assert "gaps were filled otherwise" in text


def test_what_reads_the_weather_to_come_stands_in_a_table_of_its_own(runs: list[dict]) -> None:
    for run in runs:
        run["case"] = "madrid"
        run["subject"] = {"weekly-profile": "lightgbm-observed-weather"}.get(run["subject"], run["subject"])
        run["scores"]["mean"]["mae"] = {"lightgbm-observed-weather": 0.1}.get(run["subject"], 1.0)
    text = markdown("accuracy", flat_records(runs))
    before, _, after = text.partition("stand-in for a perfect weather forecast")
    assert "LightGBM with observed weather" not in before
    assert "| LightGBM with observed weather |" in after
    assert "the best peer's mean MAE (persistence)" in after


def test_a_fifth_of_the_budget_needs_a_budget(plan: MakePlan) -> None:
    whole = plan("citynet-fifth")
    assert run_plan(dataclasses.replace(whole, budget=Budget())) == ([], [])
    (record,), _ = run_plan(whole)
    assert record["budget_minutes"] == pytest.approx(0.001)


def test_every_case_has_a_protocol_and_unknown_ones_are_named() -> None:
    for case in CASES.values():
        case.config()
    assert len(MEASURED) == 7
    with pytest.raises(ConfigError, match="unknown case 'atlantis'"):
        chosen_cases(["atlantis"])
    with pytest.raises(ConfigError, match="citybrain data import"):
        CASES["hague"].load(Path("nowhere"))


def test_the_command_writes_records_page_and_plots(
    cities: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "small", CASE)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(bench)
    arguments = ["--cases", "small", "--subjects", "persistence,weekly-profile", "--cities", str(cities)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    records = read_records(Path("benchmarks/accuracy.json"))
    assert {record["command"] for record in records} == {
        "citybrain bench --cases small --subjects persistence,weekly-profile --seeds 1 --threads 1"
    }
    assert "### small, mph" in Path("docs/benchmarks.md").read_text()
    result = CliRunner().invoke(app, [*arguments, "--seeds", "one"])
    assert isinstance(result.exception, ConfigError)


def test_ctrl_c_is_answered_with_how_to_go_on(cities: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "small", CASE)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(bench)
    for interruption in (KeyboardInterrupt, SystemExit(1)):
        monkeypatch.setattr(PersistencePeer, "fit", Mock(side_effect=interruption))
        result = CliRunner().invoke(app, ["--cases", "small", "--subjects", "persistence", "--cities", str(cities)])
        assert result.exit_code == 130
        assert "goes on after the last finished run" in result.stderr
        assert not list(tmp_path.rglob("*"))


@pytest.mark.skipif(not DATA.is_dir(), reason="the published data are not here (CITYBRAIN_DATA)")
def test_persistence_on_pems_bay_reaches_the_figures_known_for_these_files(tmp_path: Path) -> None:
    name = "pems-bay-67"
    import_city(name, DATA)[0].save(tmp_path / name)
    plan = Plan({name: CASES[name]}, {"persistence": SUBJECTS["persistence"]}, (1,), Budget(), tmp_path, tmp_path / "w")
    (record,), _ = run_plan(plan)
    assert record["windows"] == {"train": 36465, "validate": 5209, "test": 10419}
    assert record["scores"]["30min"]["mae"] == pytest.approx(2.22, abs=0.01)
