"""The best of a ranking through the simulator, and from there to the report and to MLflow's reader."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("sumo", reason="simulating needs the extra 'scenarios'")

from citybrain_datasets.city import City
from citybrain_datasets.main import main
from citybrain_datasets.scenarios import truth
from citybrain_datasets.scenarios.outcomes import OUTCOMES, Traffic
from citybrain_datasets.scenarios.reading import read_scenarios
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_serving.scenarios.engine import LocalEngine, Work
from citybrain_serving.scenarios.parts import folder_of
from citybrain_serving.scenarios.report import write_report
from citybrain_serving.scenarios.run import SHIPPED, score_to
from citybrain_serving.scenarios.verify import verified_path, verify

pytestmark = pytest.mark.skipif(not (SHIPPED / "embedded").is_dir(), reason="no surrogate ships for the embedded city")
EVEN = {"delay_veh_h": 1.0, "pm25_people": 1.0}


@pytest.mark.timeout(280)
def test_the_simulator_is_asked_about_the_best(tmp_path: Path) -> None:
    file = tmp_path / "two.jsonl"
    lines = [{"id": "odd-even", "measures": [{"lever": "odd_even"}]}, {"id": "nothing"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    work = Work(read_scenarios(file), SHIPPED / "embedded", "embedded")
    done = score_to(work, tmp_path / "r.parquet", EVEN, LocalEngine(1))
    seen: list[tuple[int, int]] = []
    cache = tmp_path / "mornings"
    found = verify(work, done.table, 2, cache, replications=1, progress=lambda *n: seen.append(n))
    checked = found.to_pylist()
    assert seen == [(0, 2), (1, 2), (2, 2)]
    verify(work, done.table, 2, cache, replications=1, progress=lambda *n: seen.append(n))
    assert seen[3:] == [(2, 2)]  # nothing is simulated twice
    assert len(checked) == 2 * len(OUTCOMES)
    for row in checked:
        assert row["off_by"] == pytest.approx(row["surrogate"] - row["simulated"])
        if row["surrogate_low"] < row["surrogate_high"]:
            assert row["held"] == (row["surrogate_low"] <= row["simulated"] <= row["surrogate_high"])
        if row["id"] == "nothing":
            assert row["simulated"] == row["surrogate"] == 0
            assert row["held"]
    emitted = next(r for r in checked if r["id"] == "odd-even" and r["outcome"] == "emission_kg")
    assert emitted["simulated"] < 0
    page = tmp_path / "r.html"
    write_report(work, done.table, EVEN, page, found)
    assert "<h2>Simulated</h2>" in page.read_text(encoding="utf-8")
    about = json.loads(pq.read_schema(tmp_path / "r.parquet").metadata[b"citybrain"])
    assert (about["count"], about["weights"], about["city"]) == (2, EVEN, "embedded")


@pytest.mark.timeout(280)
def test_a_verification_that_is_interrupted_goes_on(tmp_path: Path, monkeypatch, capsys) -> None:
    file, out = tmp_path / "one.jsonl", tmp_path / "r.parquet"
    file.write_text('{"id": "odd-even", "measures": [{"lever": "odd_even"}]}\n', encoding="utf-8")
    command = ["score", str(file), "--out", str(out), "--verify", "1", "--workers", "1"]
    run: list[int] = []
    bundle = SurrogateBundle.read(SHIPPED / "embedded")
    usual, flow = bundle.usual, bundle.usual.flow
    speed = np.divide(flow, usual.vehicles, out=np.ones_like(flow), where=usual.vehicles > 0)
    speed *= bundle.network.length_m[:, None] / 1000

    def simulate(*_, **__) -> Traffic:
        if len(run) == 1:
            signal.raise_signal(signal.SIGTERM)
        run.append(0)
        return Traffic(speed.T, flow.T, usual.emission.T)

    monkeypatch.setattr(truth, "simulate", simulate)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert out.exists()
    assert not verified_path(out).exists()
    run.append(0)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    assert len(run) == 2 + 3  # two mornings, each with and without, of which one was kept
    assert pq.read_table(verified_path(out)).num_rows == len(OUTCOMES)
    assert out.with_suffix(".html").exists()
    assert not folder_of(out).exists()


def test_what_cannot_be_simulated_is_told_before_anything_is_scored(tmp_path: Path, capsys) -> None:
    file, out = tmp_path / "one.jsonl", tmp_path / "r.parquet"
    file.write_text('{"id": "nothing"}\n', encoding="utf-8")
    City.load("embedded").replace(signals={}).save(tmp_path / "measured")  # no network.net.xml.gz, no plan.yaml
    shipped = str(SHIPPED / "embedded")
    command = ["score", str(file), "--city", str(tmp_path / "measured"), "--surrogate", shipped, "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--verify", "1"])
    assert ended.value.code == 2
    assert "lacks network.net.xml.gz and plan.yaml" in capsys.readouterr().err
    assert not out.exists()
    assert not folder_of(out).exists()
