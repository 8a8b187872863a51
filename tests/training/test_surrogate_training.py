"""From simulated interventions to a bundle, on a small town whose simulator is a formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_datasets.scenarios.actions import WARM_UP, Window, compile_actions
from citybrain_datasets.scenarios.dataset import Run
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.mixed import random_scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES, Traffic
from citybrain_datasets.scenarios.site import Site
from citybrain_models.files import BundleError
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import SurrogateError
from citybrain_models.surrogate.scorer import Scorer
from citybrain_training.surrogate import judging, peers
from citybrain_training.surrogate.bench import bench
from citybrain_training.surrogate.chapter import markdown
from citybrain_training.surrogate.commands import read_settings
from citybrain_training.surrogate.config import SurrogateConfig
from citybrain_training.surrogate.fitting import fit_surrogate, predict
from citybrain_training.surrogate.module import SurrogateModule
from citybrain_training.surrogate.pipeline import Trained, train_surrogate
from citybrain_training.surrogate.runs import Study, parts, study_of

SIDE = 3
WINDOW = Window(begin=7 * 60, end=8 * 60)
SMALL = SurrogateConfig(width=16, blocks=1, hubs=2, epochs=8, batch=8, average=0.0)


@pytest.fixture(scope="module")
def study() -> Study:
    return study_of(town(), runs(town(), 40))


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory) -> Trained:
    return train_surrogate(study, SMALL, tmp_path_factory.mktemp("surrogate"))


class Unsignalled(Site):
    """A site without a network file: nobody simulates it."""

    @property
    def signalled(self) -> np.ndarray:
        return np.zeros(len(self.city.ids("road")), bool)


def town() -> Site:
    """A ring road of nine segments and nine streets that cut through it."""
    count = 2 * SIDE * SIDE
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    ids = [f"s{i:02d}" for i in range(count)]
    segments = pd.DataFrame(
        {
            "x0": 900 * np.cos(angle), "y0": 900 * np.sin(angle), "x1": 900 * np.cos(angle + 0.3),
            "y1": 900 * np.sin(angle + 0.3), "length_m": 400.0, "lanes": 2, "free_speed_kmh": 50.0,
            "road_class": "arterial", "name": [f"Ring {i}" for i in range(count)],
        },
        index=pd.Index(ids, name="id"),
    )  # fmt: skip
    roads = segments[["length_m", "lanes", "free_speed_kmh", "road_class", "name"]].assign(
        lat=31 + segments["y0"] / 111_000, lon=121 + segments["x0"] / 95_000, name_zh="",
        owner=["north" if y > 0 else "south" for y in segments["y0"]], cell="8830b1aa1dfffff", capacity_veh_h=1700.0,
    )  # fmt: skip
    ring = [(i, (i + 1) % count) for i in range(count)]
    across = [(i, (i + SIDE * SIDE) % count) for i in range(0, count, 2)]
    pairs = np.array(ring + across)
    edges = pd.DataFrame(
        {"source": np.array(ids)[pairs[:, 0]], "target": np.array(ids)[pairs[:, 1]], "distance_m": 400.0,
         "bearing_deg": np.nan}
    )  # fmt: skip
    city = City(name="ring", timezone="Asia/Shanghai", nodes={"road": roads}, edges={"road-road": edges})

    def draw(replication: int, window: Window) -> pd.DataFrame:
        rng = np.random.default_rng(replication)
        trips = 500
        return pd.DataFrame(
            {
                "depart": np.sort(rng.uniform(0, 5400, trips)), "origin": rng.choice(ids, trips),
                "destination": rng.choice(ids, trips), "type": rng.choice(["car", "truck"], trips, p=[0.9, 0.1]),
                "purpose": "to_work",
            }
        )  # fmt: skip

    return Unsignalled(city=city, network=Path("none.net.xml"), segments=segments, draw=draw, key="ring")


def runs(site: Site, count: int, first: int = 0, mornings: tuple[int, ...] = ()) -> list[Run]:
    return [
        Run(scenario, morning, WINDOW, drive(site, scenario, morning), drive(site, Scenario(id="base"), morning))
        for i in range(first, first + count)
        for scenario in [random_scenario(site.city, WINDOW, 1, i)]
        for morning in mornings or (i % 4,)
    ]


def drive(site: Site, scenario: Scenario, replication: int) -> Traffic:
    """A stand-in for a simulator: closed roads are empty, limits slow, fewer lanes slow more."""
    actions = compile_actions(scenario, site.city, WINDOW)
    lanes = site.segments["lanes"].to_numpy()
    load = 1 + 0.1 * np.sin(np.arange(len(lanes)) + replication)
    left = 1 - np.minimum(actions.lanes_closed[WARM_UP:] / lanes, 1)
    factor = np.prod([rule.factor for rule in actions.trips]) if actions.trips else 1.0
    flow = 600 * load * left * factor
    speed = np.minimum(50, actions.limit_kmh[WARM_UP:]) / (1 + (flow / 1700) ** 2) * (0.5 + 0.5 * left)
    return Traffic(*(np.float32(a) for a in (speed, flow, flow * 0.4 * 0.02)))


def test_it_learns_what_measures_do(study, trained):
    delay = trained.table["delay_veh_h"]
    assert delay["spearman"] > 0.5
    assert trained.fitted.epochs == SMALL.epochs
    assert set(trained.table) >= set(OUTCOMES) - {"pm25_stations", "exceedance_h"}


def test_a_training_broken_off_goes_on_and_a_finished_one_is_not_repeated(study, tmp_path, monkeypatch):
    drawn, settings = parts(study), SMALL.model_copy(update={"epochs": 4})
    broken = SurrogateModule.on_train_epoch_start

    def interrupt(self: SurrogateModule) -> None:
        if self.current_epoch == 2:
            raise OSError("the power is gone")

    monkeypatch.setattr(SurrogateModule, "on_train_epoch_start", interrupt)
    with pytest.raises(OSError, match="power"):
        fit_surrogate([drawn.train], [drawn.validate], settings, tmp_path)
    monkeypatch.setattr(SurrogateModule, "on_train_epoch_start", broken)
    first = torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"]
    whole = fit_surrogate([drawn.train], [drawn.validate], settings, tmp_path)
    again = fit_surrogate([drawn.train], [drawn.validate], settings, tmp_path)
    assert (first, whole.epochs, again.epochs) == (1, 4, 4)
    assert again.validation_loss == whole.validation_loss
    other = fit_surrogate([drawn.train], [drawn.test], settings.model_copy(update={"epochs": 1}), tmp_path)
    assert other.epochs == 1


def test_the_bundle_read_back_says_the_same(trained, tmp_path):
    again = SurrogateBundle.read(trained.bundle.write(tmp_path / "again") and tmp_path / "again")
    scenarios = [run.scenario for run in trained.parts.test.runs]
    first, second = (Scorer(b)(scenarios) for b in (trained.bundle, again))
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, second.columns[name])
    assert again.metrics["scenarios"] == {"train": 24, "validate": 4, "calibrate": 4, "test": 8}
    assert "Limits" in again.card


def test_onnx_and_torch_say_the_same(study, trained):
    part = trained.parts.test
    run = part.runs[0]
    scorer = Scorer(trained.bundle, base=base_of(part, run))
    changed = scorer.changed(scorer.levers([run.scenario], scorer.base.flow))
    expected = predict(trained.fitted.network, part.part(np.array([0])))[0, ..., 1]
    np.testing.assert_allclose(changed.flow[0] - scorer.base.flow, expected[..., 0], rtol=1e-3, atol=1e-2)


def base_of(part: Study, run: Run):
    from citybrain_models.surrogate.network import Base

    return Base.of(run.base, part.network.length_m, part.usual.slot_seconds)


@pytest.mark.parametrize("name", ["network.npz", "model.onnx", "surrogate.json"])
def test_an_altered_bundle_is_refused(trained, tmp_path, name):
    trained.bundle.write(tmp_path / "b")
    path = tmp_path / "b" / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=name):
        SurrogateBundle.read(tmp_path / "b")


def test_intervals_hold_most_of_what_they_were_fitted_on(trained):
    part = trained.parts.calibrate
    step = judging.bundle_step(trained.bundle)
    table = judging.table(judging.judge(trained.bundle)(part, step), judging.truth(part, step))
    assert table["delay_veh_h"]["coverage"] >= 0.8


def test_margins_hold_their_share_of_fresh_errors_and_leave_out_what_is_known():
    """Split conformal over many draws: nine in ten new errors lie inside, at every number of scenarios."""
    random = np.random.default_rng(0)
    held = []
    for count in (19, 40, 100):
        for _ in range(300):
            width, error = random.uniform(0.5, 2, count + 50), random.standard_t(4, count + 50)
            width[:5], error[:5] = 0, 0
            said = frame(np.zeros(count + 50), width)
            true = frame(width * error, width)
            margin = judging.margins(said[: count + 5], true[: count + 5])["tpi"]
            held.append(np.abs(error[count + 5 :]) <= margin)
    assert np.mean(np.concatenate(held)) == pytest.approx(0.9, abs=0.01)
    known = frame(np.zeros(4), np.zeros(4))
    assert judging.margins(known, known)["tpi"] == 0


def test_the_last_digits_of_a_sum_are_no_miss():
    """A measure on exhaust alone is known exactly; its simulation is summed in another order."""
    true = np.linspace(-3, 0, 20)
    said = frame(true, np.zeros(20))
    table = judging.table(said, frame(true * (1 + 1e-5), np.zeros(20)))
    assert table["tpi"]["coverage"] == 1
    assert judging.table(said, frame(true * 1.1, np.zeros(20)))["tpi"]["coverage"] < 0.2


def frame(change: np.ndarray, width: np.ndarray) -> pd.DataFrame:
    """The same change and bounds for every outcome."""
    return pd.DataFrame(
        {f"{n}{end}": change + side * width for n in OUTCOMES for end, side in (("", 0), ("_low", -1), ("_high", 1))}
    )


def test_a_tuned_surrogate_is_calibrated_on_runs_it_was_not_tuned_on(study, trained, tmp_path, monkeypatch):
    from citybrain_training.surrogate import tuning

    monkeypatch.setattr(tuning, "EPOCHS", 2)
    monkeypatch.setattr(tuning, "FOLDS", 2)
    train_surrogate(study, SMALL.model_copy(update={"members": 2, "epochs": 1}), tmp_path)
    site = town()
    seen = study_of(replace(site, city=site.city.replace(name="other")), runs(site, 8, first=300))
    tuned_on: list[set[str]] = []
    fit = tuning.fit_surrogate
    monkeypatch.setattr(
        tuning, "fit_surrogate", lambda t, *rest, **kw: tuned_on.append(ids(t[0])) or fit(t, *rest, **kw)
    )
    judged_on: list[set[str]] = []
    told = tuning.judged
    monkeypatch.setattr(tuning, "judged", lambda b, kept: judged_on.append(ids(kept)) or told(b, kept))
    bundle = tuning.tuned(tmp_path, seen)
    assert all(not one & other for one, other in zip(tuned_on, judged_on, strict=False))
    assert set().union(*judged_on) == tuned_on[-1] == ids(seen)
    assert bundle.margins["delay_veh_h"] > 0
    assert bundle.metrics["tuned_on"] == 8
    weights = torch.load(tmp_path / "fit" / "best.ckpt", weights_only=True)
    torch.save({"state_dict": {"network.other": torch.zeros(1)}}, tmp_path / "fit" / "best.ckpt")
    with pytest.raises(SurrogateError, match="no training of this network"):
        tuning.tuned(tmp_path, seen)
    torch.save(weights, tmp_path / "fit" / "best.ckpt")
    with pytest.raises(SurrogateError, match="fewest"):
        tuning.tuned(tmp_path, seen.part(np.arange(1)))
    with pytest.raises(SurrogateError, match="other: the runs are not of 1 hours"):
        tuning.tuned(tmp_path, replace(seen, window=Window(begin=7 * 60, end=9 * 60)))
    with pytest.raises(SurrogateError, match="nowhere: is no training"):
        tuning.tuned(tmp_path / "nowhere", seen)


def ids(study: Study) -> set[str]:
    return {run.scenario.id for run in study.runs}


def test_it_may_be_applied_elsewhere(study, trained):
    """The same network on a town with other roads: a closed road there loses its flow, others do not vanish."""
    site = town()
    other = replace(site, city=site.city.replace(name="other"))
    elsewhere = study_of(other, runs(other, 4))
    bundle = replace(trained.bundle, city=other.city, network=elsewhere.network, usual=elsewhere.usual)
    closed = Scenario.model_validate({"id": "c", "measures": [{"lever": "closure", "where": {"segments": ["s03"]}}]})
    scorer = Scorer(bundle)
    after = scorer.changed(scorer.levers([closed], scorer.base.flow))
    assert (after.flow[0, 3] <= scorer.base.flow[3]).all()
    assert np.isfinite(after.flow).all()


def test_the_peers_answer_for_every_run(study, trained):
    train, test = trained.parts.train, trained.parts.test
    step = judging.bundle_step(trained.bundle)
    straight = peers.linear(train, step)(test, step)
    assert len(straight) == len(test.runs)
    assert straight["delay_veh_h"].notna().all()


def test_what_it_is_measured_by_is_the_mean_over_mornings(study, trained, tmp_path):
    """Scenarios simulated often calibrate and test, the others train; the benchmark tells them apart again."""
    often = [run for i in range(100, 120) for run in runs(town(), 1, first=i, mornings=(0, 1))]
    both = study_of(town(), [*study.runs, *often])
    drawn = parts(both)
    assert drawn.counts == {"train": 36, "validate": 4, "calibrate": 7, "test": 13}
    assert len(drawn.test.runs) == 26
    step = judging.bundle_step(trained.bundle)
    each = judging.truth(drawn.test, step)
    halves = judging.halves(drawn.test, each)
    assert halves is not None
    pd.testing.assert_frame_equal((halves[0] + halves[1]) / 2, judging.expected(drawn.test, each))
    folder = tmp_path / "training"
    train_surrogate(both, SMALL.model_copy(update={"epochs": 1}), folder)
    records = bench(both, folder, command="bench", with_peers=False)
    assert {r["subject"] for r in records} == {"surrogate", "surrogate, one morning", "SUMO, other mornings"}
    assert {r["metric"].partition(", ")[2] for r in records if r["subject"] == "surrogate, one morning"} == {"coverage"}
    assert "| surrogate |" in markdown(records)
    with pytest.raises(SurrogateError, match="other runs"):
        bench(study, folder, command="bench")


def test_more_runs_for_the_intervals_leave_the_other_parts_as_they_are(study, tmp_path):
    """What was tested on stays so, whatever is simulated later; and it has to be like what is tested on."""
    often = [run for i in range(100, 120) for run in runs(town(), 1, first=i, mornings=(0, 1))]
    more = [run for i in range(200, 210) for run in runs(town(), 1, first=i, mornings=(0, 1))]
    before = parts(study_of(town(), [*study.runs, *often]))
    both = study_of(town(), [*study.runs, *often, *more], len(more))
    after = parts(both)
    assert all(ids(getattr(after, name)) == ids(getattr(before, name)) for name in ("train", "validate", "test"))
    assert ids(after.calibrate) == ids(before.calibrate) | {run.scenario.id for run in more}
    assert len(after.calibrate.runs) == len(after.calibrate.arrays["levers"]) == 14 + 20
    folder = tmp_path / "training"
    trained = train_surrogate(both, SMALL.model_copy(update={"epochs": 1}), folder)
    assert trained.bundle.metrics["scenarios"]["calibrate"] == 17
    assert "90 ± 10.8%" in bench(both, folder, command="bench", with_peers=False)[0]["note"]
    with pytest.raises(SurrogateError, match="--calibrate names them"):
        bench(both.part(np.flatnonzero(~both.apart)), folder, command="bench")
    with pytest.raises(SurrogateError, match="of 1 mornings a scenario, those tested on of 2"):
        parts(study_of(town(), [*study.runs, *often, *more[::2]], 10))
    with pytest.raises(SurrogateError, match="among the others"):
        parts(study_of(town(), [*study.runs, *often, *often[:2]], 2))


def test_coverage_spreads_by_chance_as_calibrating_and_testing_on_draws_does():
    random = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        margin = np.quantile(random.random(100), 0.9, method="weibull")
        covered.append((random.random(200) <= margin).mean())
    assert judging.coverage_spread(100, 200) == pytest.approx(np.std(covered), rel=0.05)


def test_settings_that_mean_nothing_are_named(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("width: 2\nwidht: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"(?s)width.*widht"):
        read_settings(path)
    assert read_settings(None, epochs=3).epochs == 3
