"""One reading walked through the whole house: city, features, network, bundle, forecast."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from mlflow import MlflowClient

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, ConfigError
from citybrain_datasets.main import main
from citybrain_datasets.signals import Signal
from citybrain_models.bundle import Bundle, BundleError
from citybrain_models.onnx_forecaster import OnnxForecaster, open_session
from citybrain_training.config import TrainConfig, read_config
from citybrain_training.export import ParityError, check_parity, example_inputs, export_onnx
from citybrain_training.fitting import NetworkForecaster, fit, load_weights
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.pipeline import Outcome, train
from citybrain_training.preparation import prepare
from citybrain_training.weights import WeightsError


@pytest.fixture(scope="module")
def tracked(small_city: City, quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    home = tmp_path_factory.mktemp("runs")
    config = quick.merged({"fit": {"epochs": 4}})
    return train(small_city, "congestion", config, home / "run", home=home, progress=False), home


@pytest.fixture(scope="module")
def joint(small_city: City, quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    config = quick.merged({"task": {"horizon": 12, "history": 12, "coarse": [0, 0]}})
    return train(small_city, "pm25", config, tmp_path_factory.mktemp("joint"), home=None, progress=False)


def test_training_beats_both_baselines_where_there_is_a_rhythm_to_learn(tracked: tuple[Outcome, Path]) -> None:
    tables = tracked[0].tables
    assert tables["citynet"]["mean"]["mae"] < tables["persistence"]["mean"]["mae"]


def test_a_bundle_read_back_forecasts_the_same(
    tracked: tuple[Outcome, Path], small_city: City, quick: TrainConfig
) -> None:
    outcome = tracked[0]
    source = prepare(small_city, "congestion", quick).source
    window = source.window(source.issues()[-3:])
    written, read = OnnxForecaster(outcome.bundle), OnnxForecaster(Bundle.read(outcome.folder))
    np.testing.assert_array_equal(written.forecast(window), read.forecast(window))
    assert read.bundle.digest == outcome.bundle.digest
    assert read.bundle.city.ids("road") == small_city.ids("road")
    assert read.bundle.fingerprint == outcome.bundle.fingerprint


def test_quantiles_rise_and_are_finite_whatever_is_missing(tracked: tuple[Outcome, Path], small_city: City) -> None:
    speed = small_city.signals["speed"]
    forecaster = OnnxForecaster(tracked[0].bundle)
    for share in (0.0, 0.5, 1.0):
        values = speed.values.copy()
        values[np.random.default_rng(1).random(values.shape) < share] = np.nan
        dark = small_city.replace(
            signals={**small_city.signals, "speed": type(speed)("speed", "road", speed.start, speed.step, values)}
        )
        source = prepare_source(forecaster, dark)
        forecast = forecaster.forecast(source.window(source.issues()[-5:]))
        assert np.isfinite(forecast).all()
        assert (np.diff(forecast, axis=-1) >= 0).all()


def prepare_source(forecaster: OnnxForecaster, city: City):  # type: ignore[no-untyped-def]  # a WindowSource
    from citybrain_datasets.windows import WindowSource

    return WindowSource.of_city(forecaster.features, city)


def test_traffic_reaches_pm25_through_the_edges(joint: Outcome, small_city: City) -> None:
    """With other speeds on the roads the PM2.5 forecast changes; the stations' own past is untouched."""
    forecaster = OnnxForecaster(joint.bundle)
    speed = small_city.signals["speed"]
    jammed = type(speed)("speed", "road", speed.start, speed.step, speed.values * 0.3)
    issues = prepare_source(forecaster, small_city).issues()[-5:]
    before = forecaster.forecast(prepare_source(forecaster, small_city).window(issues))
    city = small_city.replace(signals={**small_city.signals, "speed": jammed})
    after = forecaster.forecast(prepare_source(forecaster, city).window(issues))
    assert np.abs(after - before).max() > 1e-3


def test_the_exported_graph_is_dynamic_whole_and_free_of_scatter(joint: Outcome) -> None:
    model = onnx.load_model_from_string(joint.bundle.model)
    assert not any(len(tensor.external_data) for tensor in model.graph.initializer)
    assert not {"ScatterElements", "ScatterND"} & {node.op_type for node in model.graph.node}
    shapes = {i.name: i.shape for i in open_session(joint.bundle.model).get_inputs()}
    assert isinstance(shapes["x_air"][0], str)
    assert isinstance(shapes["x_air"][1], str)
    assert isinstance(shapes["x_road"][1], str)


def test_a_network_that_computes_something_else_fails_the_export(small_city: City, quick: TrainConfig) -> None:
    preparation = prepare(small_city, "congestion", quick)
    module = ForecastModule(build_network(preparation), preparation)
    inputs = example_inputs(module, preparation)
    model = export_onnx(module.network, inputs)
    with torch.no_grad():
        module.network.head.bias += 0.5
    read = {i.name for i in open_session(model).get_inputs()}
    with pytest.raises(ParityError, match="differs from the trained one"):
        check_parity(module.network, model, {n: t for n, t in inputs.items() if n in read})


def test_a_network_without_messages_and_hubs_is_exported(small_city: City, quick: TrainConfig) -> None:
    alone = quick.merged({"network": {"graph": False, "hubs": 0, "members": 2}})
    preparation = prepare(small_city, "pm25", alone)
    module = ForecastModule(build_network(preparation), preparation)
    model = export_onnx(module.network, example_inputs(module, preparation))
    read = {i.name for i in open_session(model).get_inputs()}
    assert not {name for name in read if name.startswith(("seen_", "sensed_")) or name.endswith(("_index", "_edge"))}


def test_torch_and_the_bundle_agree_before_calibration(small_city: City, quick: TrainConfig, tmp_path: Path) -> None:
    from citybrain_training.export import make_bundle

    preparation = prepare(small_city, "congestion", quick)
    fitted = fit(preparation, tmp_path, progress=False)
    window = preparation.source.window(preparation.split.test[:4])
    torch_says = NetworkForecaster(fitted.module, preparation).forecast(window)
    onnx_says = OnnxForecaster(make_bundle(fitted.module, preparation)).raw(window)
    np.testing.assert_allclose(onnx_says, torch_says, rtol=1e-4, atol=1e-3)


def test_training_resumes_where_it_stopped(small_city: City, quick: TrainConfig, tmp_path: Path) -> None:
    preparation = prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 1}}))
    fit(preparation, tmp_path, progress=False)
    longer = prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 3}}))
    assert fit(longer, tmp_path, resume=True, progress=False).epochs == 3
    steps = torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"]
    assert steps == 3 * (256 // 32)


class Wrecked(Callback):
    """Takes away what was learnt, so that the next validation is a bad one."""

    def on_train_epoch_end(self, trainer: object, pl_module: ForecastModule) -> None:
        with torch.no_grad():
            for parameter in pl_module.network.parameters():
                parameter.mul_(5)


def test_a_run_that_was_moved_goes_on_with_its_best_weights(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    preparation = prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 2}}))
    before = fit(preparation, tmp_path / "old", progress=False)
    (tmp_path / "old").rename(tmp_path / "new")
    finished = fit(preparation, tmp_path / "new", resume=True, progress=False)
    assert finished.best_validation_mae == before.best_validation_mae
    worse = quick.merged({"fit": {"epochs": 3, "average": 0.0}})
    wrecked = prepare(small_city, "congestion", worse)
    kept = fit(wrecked, tmp_path / "new", resume=True, callbacks=[Wrecked()], progress=False)
    assert kept.best_validation_mae == before.best_validation_mae
    assert all(
        torch.equal(tensor, before.module.state_dict()[name]) for name, tensor in kept.module.state_dict().items()
    )


def test_an_export_on_other_windows_than_those_of_the_training_is_refused(
    small_city: City, saved_city: Path, quick: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = quick.merged({"fit": {"epochs": 1}, "split": {"train": 0.6, "validate": 0.2}})
    fit(prepare(City.load(saved_city), "congestion", config), tmp_path / "run", progress=False)
    usual, own = tmp_path / "usual.yaml", tmp_path / "own.yaml"
    usual.write_text(yaml.safe_dump(quick.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    own.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True, by_alias=True)), encoding="utf-8")
    arguments = ["export", str(tmp_path / "run" / "best.ckpt"), str(saved_city), "--task", "congestion"]
    for file, code in ((usual, 2), (own, 0)):
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--config", str(file), "--out", str(tmp_path / "bundle")])
        assert (left.value.code or 0) == code
    assert "split otherwise than here" in capsys.readouterr().err
    learnt = Bundle.read(tmp_path / "bundle").metrics["learnt_from"]
    assert learnt == prepare(City.load(saved_city), "congestion", config).spans


def test_the_same_seed_gives_the_same_weights(small_city: City, quick: TrainConfig, tmp_path: Path) -> None:
    preparation = prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 1}}))
    first, second = (fit(preparation, tmp_path / name, progress=False).module.state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_mlflow_holds_parameters_scores_figures_bundle_and_registry(tracked: tuple[Outcome, Path]) -> None:
    outcome, home = tracked
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    client = MlflowClient()
    assert outcome.registered is not None
    name, version, alias = outcome.registered
    assert (name, alias) == ("smallville-congestion", "champion")
    entry = client.get_model_version_by_alias(name, "champion")
    assert str(entry.version) == version
    assert entry.tags["bundle"] == outcome.bundle.digest
    run = client.get_run(entry.run_id)
    assert run.data.params["data_fingerprint"] == outcome.bundle.fingerprint
    assert run.data.metrics["test/citynet/mae/mean"] == pytest.approx(outcome.tables["citynet"]["mean"]["mae"])
    artifacts = {a.path for folder in ("figures", "bundle") for a in client.list_artifacts(entry.run_id, folder)}
    assert {
        "figures/error_by_lead.png",
        "figures/week.png",
        "figures/error_map.png",
        "figures/coverage_by_lead.png",
    } <= artifacts
    assert "bundle/model.onnx" in artifacts


def test_mlflow_can_answer_with_the_registered_model(
    tracked: tuple[Outcome, Path], small_city: City, quick: TrainConfig
) -> None:
    outcome, home = tracked
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    loaded = mlflow.pyfunc.load_model("models:/smallville-congestion@champion")
    forecaster = OnnxForecaster(outcome.bundle)
    source = prepare(small_city, "congestion", quick).source
    window = source.window(source.issues()[-2:])
    arrays = {**forecaster.features(window), **outcome.bundle.graph}
    answer = loaded.predict({name: arrays[name] for name in forecaster.inputs})
    np.testing.assert_allclose(answer["quantiles"], forecaster.raw(window), rtol=1e-5)


def test_a_second_training_becomes_the_challenger(
    small_city: City, quick: TrainConfig, tracked: tuple[Outcome, Path]
) -> None:
    home = tracked[1]
    again = train(small_city, "congestion", quick.merged({"seed": 2}), home / "again", home=home, progress=False)
    assert again.registered == ("smallville-congestion", "2", "challenger")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit: {epoch: 3}", "fit.epoch: Extra inputs are not permitted"),
        ("fit: {epochs: 0}", "fit.epochs: Input should be greater than 0"),
        ("split: {train: 0.9, validate: 0.2}", "split: Value error, the fractions"),
        ("split: {train: 0.9, validate: 2020-01-01}", "must both be"),
        ("[1, 2", "is no YAML"),
    ],
)
def test_a_wrong_configuration_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"train\.yaml") as raised:
        read_config(path)
    assert message in str(raised.value)


def test_a_configuration_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_bytes("# größer\nseed: 3".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"train\.yaml: is no UTF-8 .* position 4"):
        read_config(path)
    path.write_text("# größer\nseed: 3", encoding="utf-8")
    assert read_config(path).seed == 3


def test_a_wrong_change_of_a_configuration_names_its_key(quick: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"configuration: fit\.epochs: Input should be greater than 0"):
        quick.merged({"fit": {"epochs": 0}})


@pytest.mark.parametrize(("option", "value"), [("--epochs", "0"), ("--seed", "-1")])
def test_a_training_without_epochs_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "embedded", "--task", "congestion", option, value])
    assert left.value.code == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"no checkpoint", "holds no weights"), (b"", "holds no weights"), (None, "cannot be read")],
)
def test_an_export_of_what_is_no_checkpoint_is_told(
    saved_city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, told: str
) -> None:
    checkpoint = tmp_path / "best.ckpt"
    if content is not None:
        checkpoint.write_bytes(content)
    with pytest.raises(SystemExit) as left:
        main(["export", str(checkpoint), str(saved_city), "--task", "congestion", "--out", str(tmp_path / "bundle")])
    assert left.value.code == 2
    assert f"best.ckpt: {told}" in capsys.readouterr().err


def test_weights_of_another_network_are_refused(small_city: City, quick: TrainConfig, tmp_path: Path) -> None:
    preparation = prepare(small_city, "congestion", quick)
    module = ForecastModule(build_network(preparation), preparation)
    state = module.state_dict()
    torch.save({"state_dict": {"elsewhere": torch.zeros(1)}}, tmp_path / "other.ckpt")
    wide = {name: torch.cat([tensor, tensor]) if tensor.ndim else tensor for name, tensor in state.items()}
    torch.save({"state_dict": wide}, tmp_path / "wide.ckpt")
    for file in ("other.ckpt", "wide.ckpt"):
        with pytest.raises(WeightsError, match="belongs to another network"):
            load_weights(module, tmp_path / file)


@pytest.mark.parametrize(("part", "first", "last"), [("train", 0, 0.75), ("validate", 0.69, 0.83), ("test", 0.78, 1)])
def test_a_part_in_which_nothing_was_measured_is_named(
    small_city: City, quick: TrainConfig, part: str, first: float, last: float
) -> None:
    speed = small_city.signals["speed"]
    values = speed.values.copy()
    values[int(first * len(values)) : int(last * len(values))] = np.nan
    broken = small_city.replace(signals={"speed": Signal("speed", "road", speed.start, speed.step, values)})
    with pytest.raises(CityError, match=f"signal speed: has no value in the {part} windows, 2024-03"):
        prepare(broken, "congestion", quick)


def test_what_never_changes_has_a_loss(small_city: City, quick: TrainConfig) -> None:
    speed = small_city.signals["speed"]
    still = Signal("speed", "road", speed.start, speed.step, np.full(speed.shape, 50))
    preparation = prepare(small_city.replace(signals={"speed": still}), "congestion", quick)
    assert ForecastModule(build_network(preparation), preparation).unit > 0


def test_a_task_the_city_cannot_serve_is_refused(small_city: City, quick: TrainConfig) -> None:
    with pytest.raises(CityError, match="no signal 'no2'"):
        prepare(small_city, "pm25", quick.merged({"task": {"inputs": ["no2"]}}))
    with pytest.raises(ConfigError, match=r"task\.horizon"):
        prepare(small_city, "pm25", quick.merged({"task": {"horizon": 0}}))
    short = small_city.between(None, small_city.signals["speed"].start + pd.Timedelta(hours=6, minutes=15))
    with pytest.raises(CityError, match="each needs at least one"):
        prepare(short, "congestion", quick)


def _flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def _swap_for_a_link(folder: Path) -> None:
    (folder / "card.md").rename(folder.parent / "elsewhere.md")
    (folder / "card.md").symlink_to(folder.parent / "elsewhere.md")


def _add_a_file(folder: Path) -> None:
    (folder / "extra.pkl").write_bytes(b"\x80\x04.")


def _change_the_format(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_a_byte, "model.onnx: SHA-256 does not match"),
        (lambda f: (f / "graph.npz").write_bytes(b""), "graph.npz: SHA-256 does not match"),
        (lambda f: (f / "scalers.json").unlink(), "disagree about 'scalers.json'"),
        (_swap_for_a_link, "card.md: cannot be read"),
        (_add_a_file, "disagree about 'extra.pkl'"),
        (_change_the_format, "format 99"),
        (lambda f: (f / "manifest.json").write_text("no"), "is no bundle manifest"),
        (lambda f: shutil.rmtree(f), "is no bundle folder"),
    ],
)
def test_a_damaged_bundle_is_refused_by_name(
    tracked: tuple[Outcome, Path], tmp_path: Path, damage, message: str
) -> None:  # type: ignore[no-untyped-def]  # a function that damages a folder
    folder = tmp_path / "bundle"
    shutil.copytree(tracked[0].folder, folder)
    damage(folder)
    with pytest.raises(BundleError, match=message):
        Bundle.read(folder)


def test_weights_outside_the_file_are_refused(tracked: tuple[Outcome, Path], tmp_path: Path) -> None:
    import dataclasses

    model = onnx.load_model_from_string(tracked[0].bundle.model)
    tensor = next(t for t in model.graph.initializer if t.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    hostile = dataclasses.replace(tracked[0].bundle, model=model.SerializeToString())
    hostile.write(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        Bundle.read(tmp_path / "bundle")


def test_writing_over_something_that_is_no_bundle_is_refused(tracked: tuple[Outcome, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="left as it is"):
        tracked[0].bundle.write(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
