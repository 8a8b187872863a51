"""The best of a ranking through the simulator, and from there to the report and to MLflow's reader."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("sumo", reason="simulating needs the extra 'scenarios'")

from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_datasets.scenarios.reading import read_scenarios
from citybrain_serving.scenarios.engine import LocalEngine, Work
from citybrain_serving.scenarios.report import write_report
from citybrain_serving.scenarios.run import SHIPPED, score_to
from citybrain_serving.scenarios.verify import verify

pytestmark = pytest.mark.skipif(not (SHIPPED / "embedded").is_dir(), reason="no surrogate ships for the embedded city")
EVEN = {"delay_veh_h": 1.0, "pm25_people": 1.0}


@pytest.mark.timeout(280)
def test_the_simulator_is_asked_about_the_best(tmp_path: Path) -> None:
    file = tmp_path / "two.jsonl"
    lines = [{"id": "odd-even", "measures": [{"lever": "odd_even"}]}, {"id": "nothing"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    work = Work(read_scenarios(file), SHIPPED / "embedded", "embedded")
    done = score_to(work, tmp_path / "r.parquet", EVEN, LocalEngine(1))
    seen: list[int] = []
    found = verify(work, done.table, 2, replications=1, progress=seen.append)
    checked = found.to_pylist()
    assert seen == [1, 2]
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
