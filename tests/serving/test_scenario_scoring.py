"""Scoring: what measures change, and a ranking that nothing but the question decides."""

from __future__ import annotations

import html
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, ConfigError
from citybrain_datasets.main import main
from citybrain_datasets.scenarios.idle import NO_SIGNAL
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_datasets.scenarios.reading import Scenarios, read_scenarios
from citybrain_datasets.scenarios.telling import in_words, signed
from citybrain_datasets.store import save_city
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.levers import CHANNELS
from citybrain_models.surrogate.scorer import Scorer
from citybrain_serving.scenarios import commands
from citybrain_serving.scenarios.engine import LocalEngine, Work, scorer_of
from citybrain_serving.scenarios.parts import RunError
from citybrain_serving.scenarios.ranking import check_measured, check_weights, pareto, parse_weights, rank
from citybrain_serving.scenarios.report import write_report
from citybrain_serving.scenarios.rows import rows_of
from citybrain_serving.scenarios.run import check_city, check_target, score_to, surrogate_for

SWEEP = """
version: 1
scenarios:
  - {id: nothing}
  - id: sweep
    sample:
      count: 70
      seed: 3
      draw:
        factor: {uniform: [0.7, 1.1]}
        closed: {subset: [R001, R010, R050, R100], size: [1, 2]}
        cost: {integer: [1, 9]}
    measures:
      - {lever: demand, factor: $factor, cost: $cost}
      - {lever: closure, where: {segments: [$closed]}}
"""
EVEN = {"delay_veh_h": 1.0, "pm25_people": 1.0}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(SurrogateBundle.read(surrogate_for("embedded")))


RANKED = ["rank", "score", "score_low", "score_high", "maybe_best", "pareto"]
UNSURE = """\
version: 1
scenarios:
  - {id: a, measures: [{lever: odd_even, compliance: 0.5}]}
  - {id: b, measures: [{lever: odd_even, compliance: 0.52}]}
  - {id: c, measures: [{lever: coal, reduction: 0.2}], weather: {case: 2025-03-20}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


@pytest.fixture
def work(file: Path) -> Work:
    return Work(read_scenarios(file), surrogate_for("embedded"), "embedded", chunk=8)


def scenario(*measures: dict, **more: object) -> Scenario:
    return Scenario.model_validate({"id": "s", "measures": measures, **more})


def test_a_city_of_the_same_name_and_ids_but_other_roads_is_refused(tmp_path: Path) -> None:
    city = City.load("embedded")
    roads = city.nodes["road"]
    other = city.replace(nodes={**city.nodes, "road": roads.assign(length_m=3 * roads["length_m"])})
    save_city(other, tmp_path / "embedded")
    asked = tmp_path / "s.yaml"
    asked.write_text(SWEEP, encoding="utf-8")
    bundle = surrogate_for("embedded")
    for folder, refused in ((tmp_path / "embedded", True), ("embedded", False)):
        work = Work(read_scenarios(asked), bundle, str(folder))
        with pytest.raises(RunError, match="whose roads are not those of") if refused else nullcontext():
            check_city(work)


def test_no_measure_changes_nothing_exactly(scorer):
    found = scorer(
        [scenario(), scenario({"lever": "demand", "factor": 0.8}), scenario({"lever": "demand", "factor": 1})]
    )
    for row in (0, 2):
        for name in OUTCOMES:
            assert [found.columns[f"{name}{end}"][row] for end in ("_change", "_change_low", "_change_high")] == [
                0,
                0,
                0,
            ]
    assert found.columns["delay_veh_h_change"][1] != 0


def test_closing_a_road_never_raises_its_own_flow(scorer):
    ids = scorer.network.ids
    closed = [scenario({"lever": "closure", "where": {"segments": [i]}}) for i in ids[::6]]
    for start in range(0, len(closed), 16):
        batch = closed[start : start + 16]
        after = scorer.changed(scorer.levers(batch, scorer.base.flow))
        for row, one in enumerate(batch):
            segment = ids.index(one.measures[0].where.segments[0])
            assert (after.flow[row, segment] <= scorer.base.flow[segment]).all()
        assert (after.flow >= 0).all()
        assert (after.vehicles >= 0).all()


@pytest.mark.parametrize("lever", ["coal", "industry", "dust", "regional"])
def test_halving_a_source_halves_its_share_of_the_air(scorer, lever):
    found = scorer([scenario({"lever": lever, "reduction": r}) for r in (0.5, 1.0)])
    half, whole = found.columns["pm25_people_change"]
    assert whole < 0
    assert half == pytest.approx(whole / 2, rel=1e-5)
    assert found.grade == ["literature"] * 2
    assert (found.columns["delay_veh_h_change"] == 0).all()


def test_cleaner_exhaust_leaves_traffic_as_it_is_and_acts_in_proportion(scorer):
    found = scorer([scenario({"lever": "vehicles", "reduction": r}) for r in (0.25, 0.5)])
    quarter, half = found.columns["emission_kg_change"]
    assert half < 0
    assert half == pytest.approx(2 * quarter, rel=1e-4)
    assert (found.columns["delay_veh_h_change"] == 0).all()


def test_what_was_never_learnt_is_marked(scorer):
    inside, outside = scorer.bundle.reach.outside(
        scorer.levers([scenario(), scenario({"lever": "demand", "factor": 3.0})], scorer.base.flow).levers
    )
    assert inside == ""
    assert "trips taken away or added" in outside


def test_a_measure_at_hours_that_are_not_judged_is_no_certain_zero(scorer):
    evening = {"lever": "odd_even", "when": {"begin": "17:00", "end": "19:00"}}
    weekend = {"lever": "odd_even", "when": {"days": "off"}}
    demand = {"lever": "demand", "factor": 0.9}
    found = scorer([scenario(), scenario(evening), scenario(weekend, weekend), scenario(demand, evening)])
    told = "odd_even acts only outside the hours judged, 07:00–09:00 of a working day"
    assert found.outside == ["", told, told, told]
    assert found.columns["delay_veh_h_change"][1] == 0 > found.columns["delay_veh_h_change"][3]


def test_retiming_where_no_signal_stands_changes_nothing_and_is_said(tmp_path, capsys):
    scorer = scorer_of(surrogate_for("embedded"), "embedded")
    ring, streets, all_roads = (
        scenario({"lever": "signal_retiming", "reduction": 0.5, "where": where})
        for where in ({"road_class": "expressway"}, {"road_class": "arterial"}, "city")
    )
    found = scorer([scenario(), ring, streets, all_roads])
    assert found.outside[1] == NO_SIGNAL
    assert not any(NO_SIGNAL in why for why in (found.outside[0], *found.outside[2:]))
    for name in OUTCOMES:
        assert found.columns[f"{name}_change_low"][1] == found.columns[f"{name}_change_high"][1] == 0
    assert (found.columns["delay_veh_h_change"][2:] != 0).all()
    said = scorer.levers([all_roads], scorer.base.flow).levers[0, ..., CHANNELS.index("retiming")]
    retimed = (said > 0).any(axis=1)
    assert 0 < retimed.sum() < len(retimed)

    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "version: 1\nscenarios:\n  - id: retimed\n    grid: {c: [motorway, local]}\n"
        "    measures: [{lever: signal_retiming, where: {road_class: $c}}]\n"
    )
    with pytest.raises(SystemExit):
        main(["score", str(sweep), "--out", str(tmp_path / "o.parquet"), "--workers", "1", "--no-report"])
    told = f"Note: {sweep}, line 5, measures.0.where: {NO_SIGNAL} (sweep retimed, where $c is 'motorway')"
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("Note")] == [told]


def test_a_ranking_tells_what_each_scenario_of_a_sweep_is(work, tmp_path):
    table = score_to(work, tmp_path / "r.parquet", EVEN, LocalEngine(1)).table
    write_report(work, table, EVEN, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    rows = table.select(["position", "id", "measures"]).to_pylist()
    for row in rows:
        again = Scenario.model_validate({"id": row["id"], "measures": json.loads(row["measures"])})
        assert again.measures == work.scenarios[row["position"]].measures
    best = work.scenarios[rows[0]["position"]]
    assert html.escape(in_words(best)) in page
    assert f"demand (factor {best.measures[0].factor}, cost {best.measures[0].cost:g})" in in_words(best)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ({"lever": "closure"}, "closure"),
        (
            {"lever": "heavy_ban", "vans": True, "when": {"begin": "22:00", "end": "06:00", "days": "working"}},
            "heavy_ban (vans true, 22:00–06:00 working days)",
        ),
        (
            {"lever": "closure", "where": {"segments": ["R1", "R2", "R3", "R4", "R5"]}, "when": {"days": "off"}},
            "closure (segments R1, R2, R3 and 2 more, off days)",
        ),
        (
            {"lever": "electric_share", "share": 0.5, "types": ["van", "truck"],
             "where": {"polygon": [[0, 0], [1, 0], [1, 1]], "district": "Old"}},
            "electric_share (share 0.5, types van and truck, polygon of 3 corners, district Old)",
        ),
    ],
)  # fmt: skip
def test_a_measure_is_told_with_all_that_was_given(measure, words):
    assert in_words(scenario(measure)) == words


def test_changes_are_written_without_powers_of_ten():
    assert [signed(v) for v in (-1214.4, 85696.8, 0.02536, -782.31, 999.6, 0.0)] == [
        "-1214", "+85697", "+0.0254", "-782", "+1000", "+0",
    ]  # fmt: skip


def test_a_road_the_city_does_not_have_is_named(scorer):
    with pytest.raises(CityError, match="R999"):
        scorer([scenario({"lever": "closure", "where": {"segments": ["R999"]}})])


def test_the_ranking_is_the_same_for_any_number_of_workers(work, tmp_path):
    one, two, ahead = (tmp_path / f"{name}.parquet" for name in ("one", "two", "ahead"))
    score_to(work, one, EVEN, LocalEngine(1))
    score_to(work, two, EVEN, LocalEngine(2))
    score_to(work, ahead, EVEN, LocalEngine(1, cores=2))
    assert one.read_bytes() == two.read_bytes() == ahead.read_bytes()
    table = pq.read_table(one)
    assert table.num_rows == 71
    assert table["rank"].to_pylist() == list(range(1, 72))
    assert not two.with_name("two.parquet.parts").exists()


def test_what_a_worker_finds_wrong_is_told_as_it_found_it(tmp_path):
    path = tmp_path / "wrong.jsonl"
    closure = '{{"id": "{0}", "measures": [{{"lever": "closure", "where": {{"segments": ["{0}"]}}}}]}}\n'
    path.write_text("".join(map(closure.format, ("R998", "R999"))), encoding="utf-8")
    wrong = Work(read_scenarios(path), surrogate_for("embedded"), "embedded", chunk=1)
    with pytest.raises(CityError) as raised:
        score_to(wrong, tmp_path / "o.parquet", EVEN, LocalEngine(2))
    (problem,) = raised.value.problems
    assert str(raised.value) == str(problem)
    assert problem.what in ("'R998' is not in city embedded", "'R999' is not in city embedded")


def test_a_worker_of_one_core_keeps_to_one_thread(work, monkeypatch):
    started: list[threading.Thread] = []
    begin, here = threading.Thread.start, threading.current_thread()

    def start(thread: threading.Thread) -> None:
        if threading.current_thread() is here:  # and not one that an earlier test left at work
            started.append(thread)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    work.score(0, cores=1)
    assert not started
    work.score(0, cores=2)
    assert len(started) == 1


class Failing(LocalEngine):
    """Breaks off after some pieces, as a person's Ctrl-C does."""

    def __init__(self, after: int):
        super().__init__(1)
        self.after = after

    def run(self, work: Work, numbers) -> Iterator[tuple[int, pa.Table]]:
        for count, found in enumerate(super().run(work, numbers)):
            if count == self.after:
                raise KeyboardInterrupt
            yield found


def test_a_run_broken_off_goes_on_and_ends_in_the_same_bytes(work, tmp_path):
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    score_to(work, whole, EVEN, LocalEngine(1))
    for after in (3, 2):
        with pytest.raises(KeyboardInterrupt):
            score_to(work, broken, EVEN, Failing(after))
    assert not broken.exists()
    assert score_to(work, broken, EVEN, LocalEngine(1)).found == 5
    assert broken.read_bytes() == whole.read_bytes()


def test_a_killed_run_loses_no_scored_row(work, file, tmp_path):
    whole, out = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    score_to(work, whole, EVEN, LocalEngine(1))
    code = (
        "import sys; from pathlib import Path\n"
        "from citybrain_datasets.scenarios.reading import read_scenarios\n"
        "from citybrain_serving.scenarios.engine import LocalEngine, Work\n"
        "from citybrain_serving.scenarios.run import score_to, surrogate_for\n"
        "work = Work(read_scenarios(sys.argv[1]), surrogate_for('embedded'), 'embedded', chunk=8)\n"
        "score_to(work, Path(sys.argv[2]), {'delay_veh_h': 1.0, 'pm25_people': 1.0}, LocalEngine(1))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(file), str(out)])
    parts = out.with_name("killed.parquet.parts")
    while process.poll() is None and len(list(parts.glob("part-*.parquet"))) < 2:
        time.sleep(0.01)  # waits for a file of another process; there is nothing to be told by
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {p.name: p.read_bytes() for p in parts.glob("part-*.parquet")}
    assert out.exists() or kept
    done = score_to(work, out, EVEN, LocalEngine(1))
    assert done.found == len(kept)
    assert out.read_bytes() == whole.read_bytes()


CODE = (
    "import sys; from pathlib import Path\n"
    "from citybrain_datasets.scenarios.reading import read_scenarios\n"
    "from citybrain_serving.scenarios.engine import LocalEngine, Work\n"
    "from citybrain_serving.scenarios.run import score_to, surrogate_for\n"
    "work = Work(read_scenarios(sys.argv[1]), surrogate_for('embedded'), 'embedded', chunk=8)\n"
    "told = lambda scored: print(scored, flush=True)\n"
    "score_to(work, Path(sys.argv[2]), {'delay_veh_h': 1.0}, LocalEngine(2), progress=told)\n"
)


def test_workers_end_with_the_process_they_work_for(file, tmp_path):
    file.write_text(SWEEP.replace("count: 70", "count: 100000"), encoding="utf-8")
    command = [sys.executable, "-c", CODE, str(file), str(tmp_path / "killed.parquet")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line):
            break
    process.kill()
    process.communicate()  # the workers hold the pipe open as long as they live
    assert process.returncode == -signal.SIGKILL


def test_a_run_that_is_terminated_says_that_it_goes_on(file, tmp_path, monkeypatch, capsys):
    class Terminated(LocalEngine):
        def run(self, work, numbers):
            for found in super().run(work, numbers):
                yield found
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(commands, "LocalEngine", Terminated)
    out, before = tmp_path / "r.parquet", signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["score", str(file), "--out", str(out), "--no-report"])
    assert ended.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert list(out.with_name("r.parquet.parts").glob("part-*.parquet"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_that_dies_is_replaced(work, tmp_path):
    class Murdering(LocalEngine):
        killed = 0

        def _pool(self, work, numbers):
            for number, table in super()._pool(work, numbers):
                yield number, table
                if not self.killed:
                    self.killed = _kill_a_child()

    whole, out = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    score_to(work, whole, EVEN, LocalEngine(1))
    engine = Murdering(2)
    score_to(work, out, EVEN, engine)
    assert engine.killed
    assert out.read_bytes() == whole.read_bytes()


def _kill_a_child() -> int:
    import multiprocessing

    child = multiprocessing.active_children()[0]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    return child.pid


def test_another_run_in_the_way_is_refused_and_may_be_thrown_away(work, file, tmp_path):
    out = tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        score_to(work, out, EVEN, Failing(1))
    file.write_text(SWEEP.replace("seed: 3", "seed: 4"), encoding="utf-8")
    other = Work(read_scenarios(file), work.surrogate, "embedded", chunk=8)
    with pytest.raises(RunError, match="another run"):
        score_to(other, out, EVEN, LocalEngine(1))
    assert score_to(other, out, EVEN, LocalEngine(1), restart=True).found == 0


def test_a_run_that_scored_nothing_stands_in_nobodys_way(work, file, tmp_path):
    out = tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        score_to(work, out, EVEN, Failing(0))
    file.write_text(SWEEP.replace("seed: 3", "seed: 4"), encoding="utf-8")
    other = Work(read_scenarios(file), work.surrogate, "embedded", chunk=8)
    assert score_to(other, out, EVEN, LocalEngine(1)).found == 0


def test_no_scenario_is_an_error(work, tmp_path):
    with pytest.raises(RunError, match="no scenario"):
        score_to(Work(Scenarios([]), work.surrogate, "embedded"), tmp_path / "o.parquet", EVEN, LocalEngine(1))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("r.html", "must end in .parquet"),
        ("ranking", "must end in .parquet"),
        ("folder.parquet", "is a folder"),
        ("sweep.yaml/r.parquet", "cannot be written: "),
    ],
)
def test_where_no_ranking_can_be_written_is_told_before_any_is_made(file, name, told, capsys):
    (file.parent / "folder.parquet").mkdir()
    kept = sorted(file.parent.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(["score", str(file), "--out", str(file.parent / name)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"Error: {file.parent / name}: ")
    assert sorted(file.parent.iterdir()) == kept
    with pytest.raises(RunError, match=told):
        check_target(file.parent / name)


@pytest.mark.parametrize("city", ["/no/such/city", "village"])
def test_a_surrogate_and_a_city_that_do_not_belong_together_are_refused(file, tmp_path, monkeypatch, capsys, city):
    embedded = City.load("embedded")
    few = {"road": embedded.nodes["road"].iloc[:9]}
    embedded.replace(nodes=few, edges={}, signals={}).save(tmp_path / "village")
    monkeypatch.chdir(tmp_path)
    shipped = str(surrogate_for("embedded"))
    with pytest.raises(SystemExit) as ended:
        main(["score", str(file), "--city", city, "--surrogate", shipped, "--out", "r.parquet"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: ")
    assert city in told
    assert not Path("r.parquet").exists()


def test_a_city_without_surrogate_says_so():
    with pytest.raises(RunError, match="train-surrogate"):
        surrogate_for("atlantis")


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(float, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.integers(0, 5).map(float)))
def test_the_pareto_front_is_what_nothing_dominates(goals):
    front = pareto(goals)
    for row, goal in enumerate(goals):
        dominated = ((goals <= goal).all(axis=1) & (goals < goal).any(axis=1)).any()
        assert front[row] == (not dominated)
    assert front.any()


def test_the_pareto_front_of_many_is_found_block_by_block():
    goals = np.random.default_rng(5).normal(size=(3_000, 2)).round(2)
    expected = [not ((goals <= g).all(axis=1) & (goals < g).any(axis=1)).any() for g in goals]
    assert np.array_equal(pareto(goals), expected)


def test_a_long_file_is_read_at_any_place(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text("".join(f'{{"id": "s{i}"}}\n' for i in range(5_000)), encoding="utf-8")
    found = read_scenarios(path)
    assert [s.id for s in found[4_998:5_000]] == ["s4998", "s4999"]
    assert found[-1].id == "s4999"
    with pytest.raises(IndexError):
        found[5_000]


def test_weights_decide_the_order(work, tmp_path):
    score_to(work, tmp_path / "r.parquet", EVEN, LocalEngine(1))
    table = pq.read_table(tmp_path / "r.parquet").drop(RANKED)
    for name in ("delay_veh_h", "cost"):
        ranked = rank(table, {name: 1.0})
        column = np.nan_to_num(ranked[name if name == "cost" else f"{name}_change"].to_numpy(zero_copy_only=False))
        assert (np.diff(column) >= 0).all()


def test_an_unknown_cost_is_not_taken_for_none(tmp_path):
    path, out = tmp_path / "s.jsonl", tmp_path / "r.parquet"
    demand = '{{"id": "{0}", "measures": [{{"lever": "demand", "factor": {1}, "cost": {2}}}]}}\n'
    lines = [demand.format(*line) for line in (("dear", 0.9, 9), ("unknown", 0.8, "null"), ("cheap", 0.9, 1))]
    path.write_text("".join([*lines, '{"id": "nothing"}\n']), encoding="utf-8")
    weights = {"delay_veh_h": 1.0, "cost": 1.0}
    work = Work(read_scenarios(path), surrogate_for("embedded"), "embedded")
    table = score_to(work, out, weights, LocalEngine(1)).table
    assert table["id"].to_pylist() == ["cheap", "nothing", "dear", "unknown"]
    assert table["pareto"].to_pylist() == [True, True, False, False]
    assert np.isnan(table["score"][3].as_py())
    write_report(work, table, weights, tmp_path / "r.html")
    assert "1 scenarios have no cost" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert rank(table.drop(RANKED), {"delay_veh_h": 1.0})["id"][0].as_py() == "unknown"


def told_of(table: pa.Table, name: str, change: list[float], half: float = 0.0, base: float = 0.0) -> pa.Table:
    """``table`` with the changes of an outcome, give or take ``half``."""
    found = np.array(change)
    for end, values in (
        ("", base + found),
        ("_change", found),
        ("_change_low", found - half),
        ("_change_high", found + half),
    ):
        table = table.set_column(table.schema.get_field_index(f"{name}{end}"), f"{name}{end}", pa.array(values))
    return table


@pytest.fixture
def three(scorer) -> pa.Table:
    scenarios = [Scenario(id=name) for name in "abc"]
    return rows_of(scenarios, scorer(scenarios))


def test_what_the_base_has_none_of_counts_all_the_same(three):
    """Hours above a limit that nobody exceeds today: the scenario that brings them is no equal of the others."""
    ranked = rank(told_of(three, "exceedance_h", [5, 0, 2]), {"exceedance_h": 1.0})
    assert ranked["id"].to_pylist() == ["b", "c", "a"]
    assert ranked["score"].to_pylist() == pytest.approx([0, 0.4, 1])
    assert ranked["pareto"].to_pylist() == [True, False, False]


def test_scenarios_whose_bounds_meet_are_not_told_apart(three):
    ranked = rank(told_of(three, "delay_veh_h", [-10, -6, -1], 3, base=100), {"delay_veh_h": 1.0})
    assert ranked["score_low"].to_pylist() == pytest.approx([-0.13, -0.09, -0.04])
    assert ranked["score_high"].to_pylist() == pytest.approx([-0.07, -0.03, 0.02])
    assert ranked["maybe_best"].to_pylist() == [True, True, False]


def test_a_weight_on_stations_is_refused_where_there_are_none():
    with pytest.raises(ConfigError, match="pm25_stations, exceedance_h cannot be told"):
        check_measured({"pm25_stations": 1.0, "exceedance_h": 1.0}, 0)
    check_measured({"pm25_stations": 0.0, "delay_veh_h": 1.0}, 0)
    check_measured({"pm25_stations": 1.0}, 3)


def test_the_report_says_what_is_unsure(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(UNSURE, encoding="utf-8")
    work = Work(read_scenarios(path), surrogate_for("embedded"), "embedded")
    table = score_to(work, tmp_path / "r.parquet", {"delay_veh_h": 1.0}, LocalEngine(1)).table
    write_report(work, table, {"delay_veh_h": 1.0}, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "1 scenarios cannot be told from the best" in page
    assert "coal (reduction 0.2); literature; weather of 2025-03-20" in page
    assert "Not all are judged in the same weather" in page
    assert "have no interval" in page
    assert dict(zip(table["id"].to_pylist(), table["weather"].to_pylist(), strict=True))["c"] == "2025-03-20"


@pytest.mark.parametrize("text", ["speed=1", "delay_veh_h", "delay_veh_h=x", "delay_veh_h=-1", "delay_veh_h=0"])
def test_weights_that_mean_nothing_are_named(text):
    with pytest.raises(ConfigError, match="weights"):
        parse_weights(text)
    check_weights(parse_weights("delay_veh_h=2, cost=1"))


def test_the_report_stands_alone(work, tmp_path):
    done = score_to(work, tmp_path / "r.parquet", EVEN, LocalEngine(1))
    write_report(work, done.table, EVEN, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<svg") == page.count('role="img" aria-label="') == 6
    assert page.count("<th") == page.count('<th scope="col">')
    assert "PM2.5 that people breathe" in page
    assert "synthetic" in page
    assert "Judged are 07:00–09:00 of a working day" in page
    assert all("http" not in part or "w3.org/2000/svg" in part for part in page.split('"'))
    assert "<script" not in page
