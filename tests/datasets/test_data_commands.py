"""The command line: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from citybrain_datasets import __version__
from citybrain_datasets.city import City
from citybrain_datasets.configuration import packaged_names
from citybrain_datasets.main import main

YAML = """
name: toy
timezone: UTC
nodes: {road: {}}
edges: {road-road: {distances: {file: edges.csv, columns: {source: a, target: b, distance: m}}}}
tables:
- file: speed.csv
  layout: wide
  time: {column: t, step: 1h, marks: end, zone: UTC}
  signals: {speed: {node: road, unit: km/h}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toy.yaml").write_text(YAML)
    (tmp_path / "edges.csv").write_text("a,b,m\nx,y,10\n")
    (tmp_path / "speed.csv").write_text("t,x,y\n2020-01-01 00:00,50,60\n2020-01-01 00:00,51,60\n")
    monkeypatch.delenv("CITYBRAIN_DATA", raising=False)
    return tmp_path / "toy.yaml"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def test_import_then_show_then_check(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "saved"
    assert run("data", "import", config, "--out", out) == 0
    assert "2 road nodes" in capsys.readouterr().out
    assert City.load(out).ids("road") == ["x", "y"]

    assert run("data", "show", out) == 0
    assert "km/h" in capsys.readouterr().out

    assert run("data", "check", out, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert "speed" in report["signals"]
    # What the import saw is still known when the saved city is checked.
    assert report["findings"][0]["check"] == "duplicated"

    assert run("data", "check", out) == 0
    assert "2020-01-01T00:00" in capsys.readouterr().out  # whole, however narrow the window


def test_check_ends_with_one_where_there_are_errors(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "speed.csv").write_text("t,x,y\n2020-01-01 00:00,50,600\n")
    assert run("data", "check", config) == 1
    assert "outside" in capsys.readouterr().out


def test_bad_input_is_one_clean_message_and_changes_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "speed.csv").write_text("t,x,y\n2020-01-01 00:00,50,600\n")
    assert run("data", "import", config, "--out", tmp_path / "saved") == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: speed.csv, row 1")
    assert "Traceback" not in error
    assert not (tmp_path / "saved").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_unknown_key_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(YAML + "colour: blue\n")
    assert run("data", "import", config) == 2
    assert "toy.yaml, colour" in capsys.readouterr().err


def test_packaged_cities_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "list") == 0
    text = capsys.readouterr().out
    assert "source   https://datos.madrid.es (licence: reuse with attribution)" in text
    assert "files    madrid/observations.parquet, madrid/stations.csv\n" in text
    assert "hague/column_to_graph_id.csv, hague/denhaag_distances.csv" in text
    assert text.count("source   https://") == len(packaged_names())


def test_a_packaged_city_without_its_files_says_where_they_are_from_and_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "import", "sz-taxi", "--source-root", tmp_path) == 2
    error = capsys.readouterr().err
    assert f"Error: {tmp_path}/sz-taxi/speed.parquet: no such file; --source-root, else CITYBRAIN_DATA" in error
    assert "sz-taxi.yaml: its files are from https://github.com/lehaifeng/T-GCN" in error


def test_version_and_help_name_the_extras(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert __version__ in capsys.readouterr().out
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert "pip install '.[training]'" in " ".join(text.split())
    assert "Bring a city in" in text


WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = {"onnx", "torch", "lightning", "mlflow", "sumo", "sumolib", "scipy", "sklearn"}
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from citybrain_datasets.main import main
main(sys.argv[1:])
"""


def test_a_server_without_onnx_and_sumo_scores_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="scoring needs the extra 'serving'")
    scenarios = tmp_path / "limits.jsonl"
    scenarios.write_text('{"id": "slow", "measures": [{"lever": "speed_limit", "kmh": 30}]}\n', encoding="utf-8")

    def tell(*arguments: object) -> str:
        command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    listed = tell("--help")
    assert "bench-scoring" in listed
    assert "Simulate" not in listed
    assert "apply-surrogate" not in listed
    ranking = tmp_path / "ranking.parquet"
    assert str(ranking) in tell("score", scenarios, "--out", ranking, "--workers", 1, "--no-report")
    assert ranking.is_file()


def test_the_data_commands_import_no_network_library() -> None:
    program = (
        "import sys; from citybrain_datasets.main import build_app; build_app(['data']);"
        "print([m for m in ('torch', 'lightning', 'mlflow', 'onnxruntime', 'sumolib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_told_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Missing:
        name = "train"

        def load(self) -> object:
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("citybrain_datasets.main.entry_points", lambda group: [Missing()])
    assert run("train") == 2
    assert "`citybrain train` needs the package torch" in capsys.readouterr().err
