"""How soon ours reaches Graph WaveNet's error, from the curves that runs keep."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from citybrain_datasets.city import City
from citybrain_training.bench.cases import Case
from citybrain_training.bench.learning import race, races
from citybrain_training.bench.results import flat_records
from citybrain_training.bench.runner import Plan, run_plan
from citybrain_training.bench.table import markdown
from citybrain_training.peers.peer import Budget
from citybrain_training.peers.registry import SUBJECTS

CASE = Case("smallville", "congestion", "smoke", (3, 6, 12))


def test_the_first_epoch_that_is_no_worse_counts() -> None:
    theirs = [(10, 3.0), (20, 2.0), (30, 2.5)]
    found = race([(1, 4.0), (2, 2.0), (3, 1.0)], theirs)
    assert (found.other, found.yardstick) == (2, 20)
    assert race([(1, 4.0)], theirs).other is None


@pytest.fixture(scope="module")
def runs(small_city: City, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("learning")
    small_city.save(folder / "smallville")
    chosen = {name: SUBJECTS[name] for name in ("citynet", "citynet-fifth", "weekly-profile")}
    return run_plan(Plan({"small": CASE}, chosen, (1,), Budget(0.05), folder, folder / "work"))[0]


def as_yardstick(run: dict, curve: list[list[float]]) -> dict:
    return {**run, "subject": "graph-wavenet", "title": "Graph WaveNet", "cost": {**run["cost"], "curve": curve}}


def test_our_runs_keep_what_they_spent_and_reached(runs: list[dict]) -> None:
    curve = runs[0]["cost"]["curve"]
    seconds, errors = zip(*curve, strict=True)
    assert list(seconds) == sorted(seconds)
    assert seconds[-1] < runs[0]["cost"]["seconds"]
    assert min(errors) == pytest.approx(runs[0]["cost"]["details"]["validation_mae"], rel=1e-4)
    assert runs[2]["cost"]["curve"] == []


def test_it_is_recorded_and_told_and_old_runs_without_a_curve_are_left_out(runs: list[dict]) -> None:
    reached, never = [[1_000.0, math.inf]], [[1_000.0, 0.0]]
    records = flat_records([*runs, as_yardstick(runs[0], reached)])
    shares = [r for r in records if r["metric"] == "seconds_over_graph-wavenet"]
    assert [r["subject"] for r in shares] == ["citynet", "citynet-fifth"]
    assert all(0 < r["value"] < 1 for r in shares)
    assert "came to its least validation error after which ours had as little: CityNet" in markdown("accuracy", records)
    text = markdown("accuracy", flat_records([*runs, as_yardstick(runs[0], never)]))
    assert "CityNet never" in text
    old = {**runs[0], "cost": {k: v for k, v in runs[0]["cost"].items() if k != "curve"}}
    assert not list(races([old, as_yardstick(runs[0], reached)]))


def test_a_run_of_a_published_network_keeps_its_curve_too(small_city: City, tmp_path: Path) -> None:
    pytest.importorskip("tsl", reason="torch-spatiotemporal is not installed")
    small_city.save(tmp_path / "smallville")
    chosen = {"graph-wavenet": SUBJECTS["graph-wavenet"]}
    (run,), _ = run_plan(Plan({"small": CASE}, chosen, (1,), Budget(0.02), tmp_path, tmp_path / "work"))
    assert len(run["cost"]["curve"]) >= 1
