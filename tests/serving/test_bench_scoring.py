"""The benchmark of scoring measures what it says, on few scenarios."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citybrain_datasets.errors import ConfigError
from citybrain_serving.bench.scoring import bench_scoring
from citybrain_serving.scenarios.run import SHIPPED

pytestmark = pytest.mark.skipif(not (SHIPPED / "embedded").is_dir(), reason="no surrogate ships for the embedded city")


@pytest.mark.timeout(240)
def test_rates_and_a_whole_run_become_records(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    page = tmp_path / "page.md"
    bench_scoring("embedded", None, "batches,run", count=40, workers=1, sample=33, times=1, out=out, docs=page)
    records = {(r["subject"], r["metric"]): r for r in json.loads(out.read_text(encoding="utf-8"))}
    assert all(r["case"] == "what-if/embedded" and "surrogate" in r["note"] for r in records.values())
    assert records["scoring", "scenarios per second"]["value"] > 0
    assert 0 < records["scoring", "CPU time of ONNX Runtime as a part of all"]["value"] < 1.5
    assert records["citybrain score, 1 worker", "seconds for 40"]["unit"] == "s"
    assert records["citybrain score, 1 worker", "peak memory"]["value"] > 50
    told = page.read_text(encoding="utf-8")
    assert "### what-if/embedded" in told
    assert "| scoring | throughput as a part of ONNX Runtime's |" in told


@pytest.mark.timeout(240)
def test_what_physics_demands_holds_of_the_surrogate_that_ships(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    bench_scoring("embedded", None, "physics", out=out, docs=tmp_path / "page.md")
    records = {r["metric"]: r["value"] for r in json.loads(out.read_text(encoding="utf-8"))}
    assert len(records) == 3
    assert records["physics: closed segments whose own flow rises"] == 0
    assert records["physics: largest change of any outcome without measures"] == 0
    assert max(records.values()) < 1e-9


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown part 'luck'"):
        bench_scoring("embedded", None, "luck", 1, 1, 1, 1, tmp_path / "x.json")
