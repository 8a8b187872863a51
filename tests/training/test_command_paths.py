"""Paths that cannot be written, and databases that are none: one message and exit code 2, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from citybrain_datasets.city import City
from citybrain_datasets.main import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one message with which a command ends."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("Error: ")
    assert "Traceback" not in told
    return told


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


@pytest.mark.parametrize("option", ["--out", "--home"])
@pytest.mark.parametrize("below", ["", "deeper/still"])
@pytest.mark.parametrize(
    "command",
    [
        ("train", "CITY", "--task", "congestion"),
        ("tune", "CITY", "--task", "congestion", "--trials", "1"),
        ("fetch", "models:/smallville-congestion@champion", "--out", "bundle"),
    ],
)
def test_where_nothing_can_be_written_is_named_before_the_work(
    saved_city: Path,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    below: str,
    option: str,
) -> None:
    monkeypatch.setattr("citybrain_training.fitting.fit", lambda *_, **__: pytest.fail("trained all the same"))
    arguments = [str(saved_city) if word == "CITY" else word for word in command]
    told = refused(capsys, *arguments, option, file / below / "x")
    assert f"{option} {file / below}" in told
    assert "cannot be written to" in told


def test_a_folder_in_the_place_of_the_tuned_file_is_named(
    saved_city: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, "tune", saved_city, "--task", "congestion", "--trials", "1", "--out", file.parent)
    assert "is a folder" in told


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////dev/null/study.db", "nosuch://host/name"])
def test_a_storage_that_is_none_is_told(
    saved_city: Path, file: Path, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    pytest.importorskip("optuna", reason="the extra tuning is not installed")
    told = refused(capsys, "tune", saved_city, "--task", "congestion", "--trials", "1", "--storage", storage)
    assert "--storage: is no database that can be opened" in told


def test_what_the_file_system_says_of_a_given_path_is_one_message_and_of_any_other_a_traceback(
    saved_city: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: str) -> City:
        raise FileNotFoundError(2, "No such file or directory", where)

    monkeypatch.setattr(City, "load", fails)
    where = str(saved_city / "nodes.parquet")
    assert f"{where}: No such file" in refused(capsys, "train", saved_city, "--task", "congestion")
    where = "/elsewhere/ours.json"
    with pytest.raises(FileNotFoundError):
        main(["train", str(saved_city), "--task", "congestion"])
