"""A study that stops and goes on, sees validation windows only, and leaves a configuration that can be trained."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import mlflow
import pytest
import typer
from typer.testing import CliRunner

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_datasets.windows import WindowSource
from citybrain_training.config import TrainConfig, read_config
from citybrain_training.fitting import DivergedError
from citybrain_training.preparation import prepare
from citybrain_training.tracking import connect
from citybrain_training.tuning.commands import tune
from citybrain_training.tuning.search import search

optuna = pytest.importorskip("optuna", reason="the extra tuning is not installed")


def test_a_search_goes_on_where_it_stopped_and_never_cuts_a_test_window(
    small_city: City, quick: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick.merged({"fit": {"epochs": 1, "windows_per_epoch": 64}})
    test = prepare(small_city, "congestion", config).split.test
    whole = WindowSource.window

    def watched(self: WindowSource, issue):  # type: ignore[no-untyped-def]  # as the method it stands for
        assert not issue.isin(test).any(), "a test window was cut"
        return whole(self, issue)

    monkeypatch.setattr(WindowSource, "window", watched)
    first = search(small_city, "congestion", config, trials=1, home=tmp_path)
    told: list[str] = []
    found = search(small_city, "congestion", config, trials=2, home=tmp_path, tell=told.append)
    assert (first.trials, found.trials) == (1, 2)
    assert len(told) == 1
    assert found.validation_mae <= first.validation_mae
    connect(tmp_path)
    runs = mlflow.search_runs(experiment_names=["smallville-congestion-tuning"])
    assert len(runs) == 2
    assert runs["metrics.best_val_mae"].min() == pytest.approx(found.validation_mae)
    study = optuna.load_study(study_name=found.study, storage=f"sqlite:///{tmp_path / 'tuning.db'}")
    tried = [trial.params for trial in study.trials]
    assert tried[0] != tried[1], "the second call tries something new"
    told_by_epoch = [list(trial.intermediate_values) for trial in study.trials]
    assert told_by_epoch == [[0], [0]], "a trial that falls behind is stopped by what it tells after every epoch"


def test_another_split_seed_horizon_or_city_is_another_search(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    config = quick.merged({"fit": {"epochs": 1, "windows_per_epoch": 32}})
    signal = small_city.signals["speed"]
    cut = small_city.between(signal.start + 8 * signal.step, None)
    others = [{"split": {"train": 0.5}}, {"seed": 5}, {"fit": {"epochs": 2}}, {"task": {"horizon": 2}}]
    searches = [(small_city, config), (cut, config), *((small_city, config.merged(other)) for other in others)]
    told: list[str] = []
    found = [search(city, "congestion", one, trials=1, home=tmp_path, tell=told.append) for city, one in searches]
    assert len(told) == len(searches), "each search runs its own trial"
    assert len({one.study for one in found}) == len(searches)


def test_a_trial_that_diverged_counts_and_the_search_goes_on(
    small_city: City, quick: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Mock(best_validation_mae=3.0)
    monkeypatch.setattr("citybrain_training.tuning.search.fit", Mock(side_effect=[DivergedError("no number"), done]))
    with pytest.raises(ConfigError, match="none of 1 trials"):
        search(small_city, "congestion", quick, trials=1, home=tmp_path)
    found = search(small_city, "congestion", quick, trials=2, home=tmp_path)
    assert (found.trials, found.validation_mae) == (2, 3.0)


def test_the_command_writes_a_configuration(saved_city: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(tune)
    (tmp_path / "quick.yaml").write_text("{fit: {epochs: 1, windows_per_epoch: 32, average: 0}, threads: 1}")
    arguments = [str(saved_city), "--task", "congestion", "--trials", "1", "--home", str(tmp_path)]
    told = CliRunner().invoke(app, [*arguments, "--config", str(tmp_path / "quick.yaml")], catch_exceptions=False)
    assert told.exit_code == 0
    tuned = read_config(tmp_path / "smallville-congestion-tuned.yaml")
    assert tuned.fit.epochs == 1
    assert tuned.network.width in (32, 48, 64, 96)
