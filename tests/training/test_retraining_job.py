"""A champion, new data, a challenger: the whole job, and the registry it writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import typer
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from typer.testing import CliRunner

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_models.bundle import Bundle, BundleError
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.alignment import aligned
from citybrain_training.config import TrainConfig
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.pipeline import Outcome, train
from citybrain_training.preparation import prepare
from citybrain_training.retraining import commands
from citybrain_training.retraining.comparison import compare
from citybrain_training.retraining.job import Retrained, RetrainPlan, retrain
from citybrain_training.retraining.registry import RegistryError, fetch, history, promote, rollback, version_of
from citybrain_training.tracking import connect
from citybrain_training.weights import WeightsError, read_weights, save_weights, start_from

NAME = "smallville-congestion"


@pytest.fixture(scope="module")
def story(
    small_city: City, quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Outcome, Retrained, Path]:
    """A champion of two weeks that learnt little, and its retraining a week later."""
    home = tmp_path_factory.mktemp("registry")
    start = small_city.signals["speed"].start
    earlier = small_city.between(None, start + (small_city.signals["speed"].end - start) * 2 / 3)
    config = quick.merged({"fit": {"epochs": 1, "windows_per_epoch": 64}})
    champion = train(earlier, "congestion", config, home / "first", home=home, progress=False)
    plan = RetrainPlan(recent_days=5, learning_rate_share=1, epochs=4)
    better = quick.merged({"fit": {"windows_per_epoch": 512}})
    done = retrain(small_city, "congestion", home / "second", home=home, config=better, plan=plan, progress=False)
    return champion, done, home


def test_a_better_challenger_takes_the_place_and_says_why(story: tuple[Outcome, Retrained, Path]) -> None:
    champion, done, _ = story
    assert done.verdict.passed, done.verdict.markdown()
    assert done.move is not None
    assert (done.move.version, done.move.previous) == ("2", "1")
    assert "## Gate: passed" in done.outcome.bundle.card
    assert f"Retrained from version 1, bundle {champion.bundle.version}" in done.outcome.bundle.card
    assert done.outcome.bundle.metrics["gate"]["passed"] is True


def test_mlflow_keeps_the_verdict_and_the_way_back(story: tuple[Outcome, Retrained, Path]) -> None:
    _, _, home = story
    connect(home)
    found = version_of(f"models:/{NAME}/2")
    assert found.tags["gate"] == "passed"
    assert "mean absolute error" in found.tags["gate_reasons"]
    assert found.tags["gate_champion"] == "1"
    assert found.tags["promoted_from"] == "1"
    assert "promote: 1 → 2" in history(NAME)[0]
    assert mlflow.artifacts.load_dict(f"runs:/{found.run_id}/gate.json")["passed"] is True


def test_the_same_data_again_are_refused(
    story: tuple[Outcome, Retrained, Path], small_city: City, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="holds nothing that version 2"):
        retrain(small_city, "congestion", tmp_path, home=story[2], plan=RetrainPlan(recent_days=5), progress=False)


def test_too_few_recent_days_are_refused_before_anything_is_trained(
    story: tuple[Outcome, Retrained, Path], small_city: City, tmp_path: Path
) -> None:
    signal = small_city.signals["speed"]
    other = small_city.between(signal.start + 4 * signal.step, None)
    with pytest.raises(ConfigError, match=r"\d days?, \d blocks? of 1 d; at least 5 blocks are needed"):
        retrain(other, "congestion", tmp_path / "run", home=story[2], plan=RetrainPlan(recent_days=1), progress=False)
    assert not (tmp_path / "run").exists()


def test_windows_that_the_champion_learnt_from_are_no_test_of_it(
    story: tuple[Outcome, Retrained, Path], small_city: City, tmp_path: Path
) -> None:
    """Of nine recent days it was trained and chosen on the first four: only the five after them may judge."""
    learnt = story[1].outcome.bundle.metrics["learnt_from"]["validate"][1]
    signal = small_city.signals["speed"]
    other = small_city.between(signal.start + 4 * signal.step, signal.end - pd.Timedelta(days=1))
    with pytest.raises(ConfigError, match=r"4 days, .* for the champion learnt from \d+ of the recent windows"):
        retrain(other, "congestion", tmp_path / "run", home=story[2], plan=RetrainPlan(recent_days=8), progress=False)
    assert pd.Timestamp(learnt) < signal.end - pd.Timedelta(days=5)


def test_a_registry_that_cannot_be_asked_is_not_one_without_a_champion(
    story: tuple[Outcome, Retrained, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered("away", story[2], ["", "failed 1"])

    def away(*_: object) -> None:
        raise MlflowException("the database is locked", TEMPORARILY_UNAVAILABLE)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "get_model_version_by_alias", away)
        for ask in (
            lambda: promote("away", "2", by="ana", reason="a try"),
            lambda: rollback("away", by="ana", reason="a try"),
            lambda: version_of("models:/away@champion"),
        ):
            with pytest.raises(RegistryError, match=r"cannot be asked: .*the database is locked"):
                ask()
    assert champion_of("away") == "1"


def test_a_city_without_a_champion_is_told_so(small_city: City, tmp_path: Path, story: object) -> None:
    with pytest.raises(RegistryError, match="no such model"):
        retrain(small_city, "pm25", tmp_path / "run", home=story[2], progress=False)  # type: ignore[index]  # the fixture's tuple


def test_a_bundle_is_fetched_verified_and_replaces_only_bundles(
    story: tuple[Outcome, Retrained, Path], tmp_path: Path
) -> None:
    champion, done, home = story
    connect(home)
    out = tmp_path / "served" / "bundle"
    assert fetch(f"models:/{NAME}/1", out).digest == champion.bundle.digest
    assert fetch(f"models:/{NAME}@champion", out).digest == done.outcome.bundle.digest
    assert Bundle.read(out).digest == done.outcome.bundle.digest
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(BundleError, match="left as it is"):
        fetch(f"models:/{NAME}@champion", tmp_path / "mine")
    for wrong in ("models:/nobody@champion", "models:/nobody/1", "smallville"):
        with pytest.raises(RegistryError):
            fetch(wrong, out)


def test_a_bundle_that_was_changed_in_the_store_is_not_brought(
    story: tuple[Outcome, Retrained, Path], tmp_path: Path
) -> None:
    _, _, home = story
    connect(home)
    client = MlflowClient()
    client.set_model_version_tag(NAME, "1", "bundle", "0" * 64)
    try:
        with pytest.raises(BundleError, match="not the one that was registered"):
            fetch(f"models:/{NAME}/1", tmp_path / "bundle")
        assert list(tmp_path.iterdir()) == []
    finally:
        client.set_model_version_tag(NAME, "1", "bundle", story[0].bundle.digest)


def registered(name: str, home: Path, gates: list[str]) -> None:
    """Versions 1 … n of a model with nothing inside; the first is champion, the last challenger. A gate is its
    answer and the version held against: ``passed 1``."""
    connect(home)
    client = MlflowClient()
    client.create_registered_model(name)
    for gate in gates:
        version = client.create_model_version(name, source=home.as_uri()).version
        for key, value in zip(("gate", "gate_champion"), gate.split(), strict=False):
            client.set_model_version_tag(name, str(version), key, value)
    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "challenger", str(len(gates)))


def champion_of(name: str) -> str:
    return str(version_of(f"models:/{name}@champion").version)


def test_promotions_are_walked_back_one_by_one(story: tuple[Outcome, Retrained, Path]) -> None:
    registered("walk", story[2], ["", "passed 1", "passed 2"])
    promote("walk", "2", by="ana", reason="a try")
    promote("walk", by="ana", reason="better")
    with pytest.raises(RegistryError, match="no challenger"):
        promote("walk", by="ana", reason="again")
    assert rollback("walk", by="bo", reason="complaints").version == "2"
    assert rollback("walk", by="bo", reason="still").version == "1"
    assert champion_of("walk") == "1"
    with pytest.raises(RegistryError, match="no way back"):
        rollback("walk", by="bo", reason="once more")
    told = history("walk")
    assert [line.split(", by ")[0].partition(" ")[2] for line in told] == [
        "promote: 1 → 2",
        "promote: 2 → 3",
        "rollback: 3 → 2",
        "rollback: 2 → 1",
    ]
    assert told[2].endswith("by bo: complaints")


def test_what_the_gate_refused_is_promoted_only_on_purpose(story: tuple[Outcome, Retrained, Path]) -> None:
    registered("refused", story[2], ["", "failed 1"])
    with pytest.raises(RegistryError, match="did not pass the gate"):
        promote("refused", by="ana", reason="hurry")
    assert champion_of("refused") == "1"
    assert promote("refused", by="ana", reason="I looked at it", anyway=True).version == "2"
    for version in ("2", "9"):
        with pytest.raises(RegistryError):
            promote("refused", version, by="ana", reason="again")


@pytest.mark.parametrize(
    ("gate", "objection"),
    [("", "was never held against the champion, version 1"), ("passed 7", "passed the gate against version 7")],
)
def test_what_this_champions_gate_never_judged_is_promoted_only_on_purpose_and_that_is_kept(
    story: tuple[Outcome, Retrained, Path], gate: str, objection: str
) -> None:
    name = f"unjudged{gate.replace(' ', '-')}"
    registered(name, story[2], ["", gate])
    with pytest.raises(RegistryError, match=f"{objection}.*--anyway"):
        promote(name, by="ana", reason="hurry")
    assert champion_of(name) == "1"
    assert promote(name, by="ana", reason="I looked at it", anyway=True).against is not None
    found = version_of(f"models:/{name}@champion")
    assert champion_of(name) == "2"
    assert objection in found.tags["promoted_anyway"]
    assert objection in found.description
    assert objection in history(name)[0]


def test_a_first_champion_needs_no_gate_and_is_told_so(story: tuple[Outcome, Retrained, Path]) -> None:
    registered("first", story[2], ["", ""])
    MlflowClient().delete_registered_model_alias("first", "champion")
    app = typer.Typer()
    app.command()(commands.promote)
    told = CliRunner().invoke(app, ["first", "--home", str(story[2])])
    assert told.exit_code == 0
    assert "version 2 is champion instead of none" in told.output
    assert "no gate was asked" in told.output
    assert "promoted_anyway" not in version_of("models:/first@champion").tags


def test_the_commands_promote_roll_back_and_fetch(story: tuple[Outcome, Retrained, Path], tmp_path: Path) -> None:
    registered("typed", story[2], ["", "passed 1"])
    app = typer.Typer()
    for command in (commands.promote, commands.rollback, commands.fetch):
        app.command()(command)
    home = ["--home", str(story[2])]
    run = CliRunner().invoke
    assert "version 2 is champion instead of 1" in run(app, ["promote", "typed", *home]).stdout
    assert "version 1 is champion again instead of 2" in run(app, ["rollback", "typed", *home]).stdout
    out = tmp_path / "bundle"
    assert run(app, ["fetch", f"models:/{NAME}/1", "--out", str(out), *home]).exit_code == 0
    assert Bundle.read(out).digest == story[0].bundle.digest


def grown(city: City) -> City:
    """The small city without its second road, and with the others in another order."""
    ids = city.ids("road")
    kept = [ids[i] for i in (4, 0, 2, 3, 5)]
    like = city.replace(
        nodes={**city.nodes, "road": city.nodes["road"].loc[kept]},
        edges={k: t for k, t in city.edges.items() if "road" not in k},
        signals={},
    )
    return aligned(city, like)


def test_bundles_of_different_sensors_are_compared_where_they_meet(
    trained: Outcome, small_city: City, quick: TrainConfig
) -> None:
    """The same network against itself on the city as it was and after a sensor left: the others answer alike."""
    challenger = OnnxForecaster(trained.bundle)
    issues = prepare(small_city, "congestion", quick).split.test[:200:5]
    comparison = compare(challenger, challenger, grown(small_city), issues)
    ours, theirs, count = comparison.means("error")
    assert ours == theirs
    assert count > 0
    assert comparison.nodes == 6
    whole = compare(challenger, challenger, small_city, issues).means("error")[2]
    assert count == pytest.approx(whole * 5 / 6, rel=0.05)


def test_weights_follow_their_nodes_and_new_nodes_start_without(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    fewer = prepare(grown(small_city), "congestion", quick.merged({"network": {"graph": False}}))
    every = prepare(small_city, "congestion", quick.merged({"network": {"graph": False}}))
    before = ForecastModule(build_network(fewer), fewer)
    save_weights(before, fewer, tmp_path / "weights.pt")
    after = ForecastModule(build_network(every), every)
    assert start_from(after, every, tmp_path / "weights.pt") == 1
    place = {name: i for i, name in enumerate(fewer.city.ids("road"))}
    for row, name in enumerate(every.city.ids("road")):
        expected = before.embeddings["road"][place[name]] if name in place else torch.zeros(4)
        assert torch.equal(after.embeddings["road"][row], expected)
    assert torch.equal(after.network.head.weight, before.network.head.weight)


def test_weights_that_do_not_fit_or_are_none_are_refused_by_name(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    narrow = prepare(small_city, "congestion", quick)
    save_weights(ForecastModule(build_network(narrow), narrow), narrow, tmp_path / "weights.pt")
    wide = prepare(small_city, "congestion", quick.merged({"network": {"width": 24}}))
    with pytest.raises(WeightsError, match=r"has shape .* this network needs"):
        start_from(ForecastModule(build_network(wide), wide), wide, tmp_path / "weights.pt")
    (tmp_path / "none.pt").write_bytes(b"\x80\x02.")
    for path, message in ((tmp_path / "none.pt", "holds no weights"), (tmp_path / "gone.pt", "cannot be read")):
        with pytest.raises(WeightsError, match=message):
            read_weights(path)


def test_weights_with_code_inside_are_refused_unread(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return shutil.rmtree, (str(tmp_path / "precious"),)

    (tmp_path / "precious").mkdir()
    torch.save({"state_dict": {"w": Hostile()}}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="holds no weights"):
        read_weights(tmp_path / "weights.pt")
    assert (tmp_path / "precious").exists()


def test_aligned_signals_keep_their_nodes(small_city: City) -> None:
    back = aligned(grown(small_city), small_city)
    speed = small_city.signals["speed"].values
    np.testing.assert_array_equal(back.signals["speed"].values[:, [0, 2, 3, 4, 5]], speed[:, [0, 2, 3, 4, 5]])
    assert np.isnan(back.signals["speed"].values[:, 1]).all()
