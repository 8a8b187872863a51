"""The scenarios, scored: our forecast beside persistence and the nearest sensors' mean, whole and broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.records import Record
from citybrain_datasets.signals import KINDS
from citybrain_datasets.windows import WindowSource
from citybrain_models.baselines import Persistence, WeeklyProfile
from citybrain_models.bundle import Bundle
from citybrain_models.forecaster import Forecaster
from citybrain_models.metrics import Scores
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.export import make_bundle
from citybrain_training.fitting import fit
from citybrain_training.preparation import Preparation, prepare
from citybrain_training.robustness.corruptions import Broken, BrokenSource, corridor, dead, late, share_of, stuck
from citybrain_training.robustness.spatial import inverse_distance, kriging, nearest_mean
from citybrain_training.robustness.table import NEAREST, OURS, UNSEEN, practised
from citybrain_training.robustness.unseen import silent, stretched, without

MONTH = pd.Timedelta(days=30)
BATCH = 64


def scenarios(preparation: Preparation, seed: int = 0) -> Iterator[Broken]:
    """What is tried on a city; a corridor only where its nodes are connected."""
    features, node = preparation.features, preparation.task.node
    count = len(preparation.city.ids(node))
    for percent in (10, 30, 50):
        yield dead(features, share_of(count, percent / 100, seed), f"{percent} % of sensors dead")
    stretch = corridor(preparation.city, node)
    if stretch is not None:
        yield dead(features, stretch, "a corridor dark")
    yield stuck(features, share_of(count, 0.1, seed), "10 % of sensors stuck")
    yield late(features, pd.Timedelta(hours=1), count, "feed one hour late")


def measure(preparation: Preparation, bundle: Bundle, *, every: int = 1, seed: int = 0) -> list[Record]:
    """Records of every scenario on one of every ``every`` test windows, at the sensors that were hit and the others."""
    test = thinned(preparation.split.test, every)
    ours = OnnxForecaster(bundle, preparation.config.threads)
    still, usual = Persistence(preparation.features), WeeklyProfile(preparation.features)
    whole = np.ones(len(preparation.city.ids(preparation.task.node)), bool)
    models: dict[str, Forecaster] = {OURS: ours, still.name: still, usual.name: usual}
    found = _score("whole", models, preparation.source, test, {"all": whole})
    for broken in scenarios(preparation, seed):
        source = BrokenSource(preparation.source, broken)
        parts = {"hit": broken.hit} if broken.hit.all() else {"hit": broken.hit, "others": ~broken.hit}
        beside = dict(models)
        if not broken.hit.all() and (near := nearest_mean(still, preparation.city, broken.hit)) is not None:
            beside[NEAREST] = near
        found += _score(broken.name, beside, source, test, parts)
        if not broken.hit.all():  # the same sensors on the same windows, had nothing broken
            found += _score(f"{broken.name}: had nothing broken", models, preparation.source, test, parts)
    return [_record(preparation, row, seed) for row in found + _months(preparation, models, every)]


def measure_unseen(
    preparation: Preparation,
    folder: Path,
    *,
    share: float = 0.1,
    every: int = 1,
    seed: int = 0,
    practice: float | None = None,
    progress: bool = False,
) -> list[Record]:
    """Trains without a random ``share`` of the sensors and forecasts them from place and neighbours alone; the others
    too, to tell what they pay for it.

    The network of ``folder`` has never seen them, nor has their past any part in a window. ``practice`` trains a
    second one beside it, with that share of disturbed batches in place of the configuration's.
    """
    task, city, config = preparation.task, preparation.city, preparation.config
    hit = share_of(len(city.ids(task.node)), share, seed)
    unmeasured = silent(city, task.node, hit)
    configs = {OURS: config}
    if practice is not None:
        configs[practised(practice)] = config.merged({"fit": {"disturbed": practice}})
    networks = {}
    for name, each in configs.items():
        known = prepare(without(city, task.node, hit), task.name, each)
        fitted = fit(known, folder / name, progress=progress)
        networks[name] = OnnxForecaster(stretched(make_bundle(fitted.module, known), unmeasured), config.threads)
    ours = networks[OURS]
    source = WindowSource.of_city(ours.features, unmeasured)
    still, profile = Persistence(ours.features), WeeklyProfile(ours.features)
    models: dict[str, Forecaster] = {**networks, f"{NEAREST}' {profile.name}": profile}
    beside = {
        NEAREST: nearest_mean(still, city, hit),
        "inverse distance": inverse_distance(still, city, hit),
        "kriging": kriging(still, city, hit, source, known.split.train),
    }
    models |= {name: found for name, found in beside.items() if found is not None}
    test = thinned(preparation.split.test, every)
    scored = _score(UNSEEN, models, source, test, {"hit": hit}, preparation.source)
    scored += _score(UNSEEN, networks, source, test, {"others": ~hit}, preparation.source)
    return [_record(preparation, row, seed) for row in scored]


def thinned(issues: pd.DatetimeIndex, every: int) -> pd.DatetimeIndex:
    """One of every ``every`` issue times, drawn at random and in order: a regular stride would keep to a few hours
    of the day."""
    keep = np.random.default_rng(0).permutation(len(issues))[: max(1, len(issues) // every)]
    return issues[np.sort(keep)]


def _months(preparation: Preparation, models: Mapping[str, Forecaster], every: int) -> list[Record]:
    """The first week of the test, and what was issued a month and more after the last training window."""
    test, last = thinned(preparation.split.test, every), preparation.split.train[-1]
    parts = {
        "first week of the test": test[test < test[0] + pd.Timedelta(days=7)],
        "a month after training": test[test >= last + MONTH],
    }
    everywhere = {"all": np.ones(len(preparation.city.ids(preparation.task.node)), bool)}
    return [
        row
        for name, issues in parts.items()
        if len(issues)
        for row in _score(name, models, preparation.source, issues, everywhere)
    ]


def _score(
    scenario: str,
    models: Mapping[str, Forecaster],
    source: WindowSource | BrokenSource,
    issues: pd.DatetimeIndex,
    parts: Mapping[str, np.ndarray],
    truth: WindowSource | None = None,
) -> list[Record]:
    """Mean error and coverage of each model at the nodes of each part, pooled over all leads."""
    scores = {(model, part): Scores(source.task) for model in models for part in parts}
    for first in range(0, len(issues), BATCH):
        chosen = issues[first : first + BATCH]
        window, answer = source.window(chosen), (truth or source).answer(chosen).transpose(0, 2, 1)
        for model, forecaster in models.items():
            said = forecaster.forecast(window)
            for part, rows in parts.items():
                scores[model, part].add(said[:, rows], answer[:, rows])
    found = []
    for (model, part), collected in scores.items():
        mean = collected.table()["mean"]
        for metric in ("mae", "coverage") if model.startswith(OURS) else ("mae",):
            if metric in mean:
                row = {"scenario": scenario, "subject": model, "part": part, "metric": metric, "value": mean[metric]}
                found.append({**row, "windows": len(issues)})
    return found


def _record(preparation: Preparation, row: Record, seed: int) -> Record:
    unit = KINDS[preparation.task.target].unit if row["metric"] == "mae" else "1"
    value = round(float(row["value"]), 6)
    case = f"{preparation.city.name}-{preparation.task.name}"
    return {"case": case, "seed": seed, **row, "value": value, "unit": unit, "horizon": "mean"}
