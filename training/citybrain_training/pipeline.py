"""The whole flow of one training: prepare, fit, export, evaluate what was exported, write, track, register."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from citybrain_datasets.city import City
from citybrain_models.baselines import Persistence, WeeklyProfile
from citybrain_models.bundle import Bundle
from citybrain_models.forecaster import Forecaster
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training import figures
from citybrain_training.card import model_card
from citybrain_training.config import TrainConfig
from citybrain_training.evaluation import evaluate
from citybrain_training.export import make_bundle
from citybrain_training.fitting import Fitted, fit
from citybrain_training.precision import PRECISION
from citybrain_training.preparation import Preparation, prepare
from citybrain_training.tracking import Tracking

OURS = "citynet"

Tables = dict[str, dict[str, dict[str, float]]]
"""Scores by model, lead and metric."""


@dataclass(frozen=True)
class Outcome:
    """What a training left behind."""

    bundle: Bundle
    folder: Path
    fitted: Fitted
    tables: Tables
    registered: tuple[str, str, str] | None
    """Registered name, version and alias; None where the run was not tracked."""


def train(
    city: City,
    task: str,
    config: TrainConfig,
    folder: Path,
    *,
    home: Path | None = Path("runs"),
    resume: bool = False,
    warm_start: Path | None = None,
    progress: bool = True,
) -> Outcome:
    """Trains ``task`` on ``city`` into ``folder``: checkpoints, and the finished bundle in ``folder/bundle``.

    Tracked and registered in MLflow under ``home``; not at all where ``home`` is None. The test windows are looked at
    once, by the exported network.
    """
    preparation = prepare(city, task, config)
    if home is None or getattr(rank_zero_only, "rank", None):  # of several processes the first keeps the books
        return _train(preparation, folder, None, resume=resume, warm_start=warm_start, progress=progress)
    tracking = Tracking(home, f"{city.name}-{task}")
    return _train(preparation, folder, tracking, resume=resume, warm_start=warm_start, progress=progress)


def _train(
    preparation: Preparation,
    folder: Path,
    tracking: Tracking | None,
    *,
    resume: bool,
    warm_start: Path | None,
    progress: bool,
) -> Outcome:
    options = {"resume": resume, "warm_start": warm_start, "progress": progress}
    if tracking is None:
        fitted = fit(preparation, folder, **options)  # type: ignore[arg-type]  # keywords of mixed types
        bundle, tables = finish(preparation, fitted, folder / "bundle")
        return Outcome(bundle, folder / "bundle", fitted, tables, None)
    with tracking.run(folder.name) as logger:
        tracking.parameters(
            {
                "city": preparation.city.name,
                "data_fingerprint": preparation.city.fingerprint(),
                "task": preparation.task.model_dump(),
                **preparation.config.model_dump(exclude={"task"}),
            }
        )
        fitted = fit(preparation, folder, logger=logger, **options)  # type: ignore[arg-type]  # as above
        bundle, tables = finish(preparation, fitted, folder / "bundle")
        outcome = Outcome(bundle, folder / "bundle", fitted, tables, None)
        registered = log_outcome(tracking, preparation, outcome, preparation.config)
    return dataclasses.replace(outcome, registered=registered)


def log_outcome(
    tracking: Tracking, preparation: Preparation, outcome: Outcome, config: TrainConfig
) -> tuple[str, str, str]:
    """Logs scores, figures, weights and bundle in the active run and registers the bundle: name, version, alias.

    ``config`` is what a later training goes by.
    """
    bundle, tables = outcome.bundle, outcome.tables
    tracking.scores(tables)
    forecaster = OnnxForecaster(bundle, preparation.config.threads)
    tracking.figures(draw(preparation, forecaster, tables))
    tracking.start_of_another(preparation, outcome.fitted.module, config)
    example = forecaster.features(preparation.source.window(preparation.split.test[:1]))
    inputs = {name: bundle.graph.get(name, example.get(name)) for name in forecaster.inputs}
    return tracking.register(bundle, outcome.folder, inputs)  # type: ignore[arg-type]  # one of both is there


def finish(preparation: Preparation, fitted: Fitted, folder: Path) -> tuple[Bundle, Tables]:
    """Exports, scores the export beside the baselines on the test windows, and writes the bundle."""
    draft = make_bundle(fitted.module, preparation)
    tables = score(preparation, {OURS: OnnxForecaster(draft, preparation.config.threads)})
    metrics = {**draft.metrics, "test": tables}
    bundle = dataclasses.replace(
        draft, metrics=metrics, card=model_card(preparation, fitted, tables, metrics.get(PRECISION))
    )
    return bundle.write(folder), tables


def score(preparation: Preparation, models: dict[str, Forecaster]) -> Tables:
    """Test scores of ``models`` and, beside them, of persistence and the weekly profile."""
    every = models | beside_baselines(preparation)
    return {name: evaluate(model, preparation.source, preparation.split.test) for name, model in every.items()}


def beside_baselines(preparation: Preparation) -> dict[str, Forecaster]:
    """Persistence and the weekly profile by name, their spread learnt from training windows."""
    train = preparation.split.train
    thinned = train[:: max(1, len(train) // 2_000)]
    baselines = [kind(preparation.features).fit(preparation.source, thinned) for kind in (Persistence, WeeklyProfile)]
    return {baseline.name: baseline for baseline in baselines}


def draw(preparation: Preparation, forecaster: Forecaster, tables: Tables) -> dict[str, figures.Figure | None]:
    """The figures of a run by name."""
    source, test, task = preparation.source, preparation.split.test, preparation.task
    return {
        "error_by_lead": figures.error_by_lead(tables, task),
        "coverage_by_lead": figures.coverage_by_lead(tables, task),
        "week": figures.week_against_truth(forecaster, source, test, preparation.city.ids(task.node)),
        "error_map": figures.error_map(forecaster, source, test, preparation.city),
    }
