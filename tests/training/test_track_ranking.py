"""A ranking kept in MLflow with its report."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from citybrain_datasets.errors import ConfigError
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_training.surrogate.ranked import read_ranking, track_ranking

ABOUT = {"city": "smallville", "count": 1, "weights": {"delay_veh_h": 1.0}}


def ranking(path: Path) -> Path:
    columns = {f"{name}{end}": [2.0] for name in OUTCOMES for end in ("", "_change")}
    table = pa.table({"rank": [1], "id": ["best"], "outside": ["combination"], **columns})
    pq.write_table(table.replace_schema_metadata({"citybrain": json.dumps(ABOUT)}), path)
    return path


def test_a_ranking_is_kept_with_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file = ranking(tmp_path / "r.parquet")
    (tmp_path / "r.html").write_text("<p>report</p>", encoding="utf-8")
    track_ranking(file, None, tmp_path / "home")
    run = mlflow.get_run(capsys.readouterr().out.strip().splitlines()[-1])
    assert mlflow.get_experiment(run.info.experiment_id).name == "smallville-scenarios"
    assert run.data.params["weights.delay_veh_h"] == "1.0"
    assert run.data.metrics["best/delay_veh_h_change"] == 2
    assert run.data.metrics["outside"] == 1
    kept = mlflow.MlflowClient().list_artifacts(run.info.run_id)
    assert {item.path for item in kept} == {"r.parquet", "r.html"}


def test_a_table_that_is_no_ranking_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    for path in (tmp_path / "x.parquet", tmp_path / "none.parquet"):
        with pytest.raises(ConfigError, match="is no ranking"):
            read_ranking(path)
