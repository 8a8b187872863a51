"""One retraining: from new data to a challenger, through the gate, into the registry."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import BaseModel, ConfigDict, Field

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_datasets.task import Task
from citybrain_models.bundle import LEARNT_FROM, Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.card import model_card
from citybrain_training.config import TrainConfig
from citybrain_training.export import make_bundle
from citybrain_training.fitting import Fitted, fit
from citybrain_training.pipeline import OURS, Outcome, log_outcome, score
from citybrain_training.precision import PRECISION
from citybrain_training.preparation import Preparation, prepare
from citybrain_training.retraining.comparison import block_days, compare, local_days, whole_days
from citybrain_training.retraining.gate import GateRule, Verdict, enough, judge
from citybrain_training.retraining.registry import (
    FAILED,
    GATE,
    GATE_CHAMPION,
    GATE_REASONS,
    PASSED,
    Move,
    artifacts,
    promote,
    registered_bundle,
    version_of,
)
from citybrain_training.tracking import CHAMPION, CONFIG, WEIGHTS, Tracking, connect


class RetrainPlan(BaseModel):
    """How a challenger is made from a champion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recent_days: int | None = Field(None, gt=0)
    """Days the gate looks at; as many before them are for early stopping and calibration. A week, or five horizons
    where that is more, when left out."""
    learning_rate_share: float = Field(0.3, gt=0)
    """Share of the champion's peak learning rate: a smaller step keeps what is known."""
    epochs: int | None = Field(None, gt=0)
    promote: bool = True
    """Whether a challenger that passes the gate takes the champion's place at once."""
    rule: GateRule = GateRule()


@dataclass(frozen=True)
class Retrained:
    """What came of it; ``move`` is None where the champion stays."""

    outcome: Outcome
    champion: str
    verdict: Verdict
    move: Move | None


def retrain(
    city: City,
    task: str,
    folder: Path,
    *,
    home: Path,
    config: TrainConfig | None = None,
    plan: RetrainPlan | None = None,
    by: str = "citybrain retrain",
    progress: bool = True,
) -> Retrained:
    """Trains a challenger into ``folder`` on everything but the recent windows, starting from the champion's weights.

    The champion's own configuration is used unless ``config`` is given; its task always is. Raises
    :class:`~citybrain_training.retraining.registry.RegistryError` where there is no champion, :class:`ConfigError`
    where it was trained on these very data, or where the recent windows are too few for the gate.
    """
    plan = plan or RetrainPlan()
    connect(home)
    name = f"{city.name}-{task}"
    found = version_of(f"models:/{name}@{CHAMPION}")
    champion = registered_bundle(found)
    config = config or champion_config(found)
    preparation = prepare(city, task, _config(config, champion.task, city, plan))
    if preparation.city.fingerprint() == champion.fingerprint:
        raise ConfigError(f"{city.name}: holds nothing that version {found.version} of {name} was not trained with")
    recent = _recent(preparation, champion)
    _check_recent(preparation, recent, plan.rule)
    tracking = Tracking(home, name)
    with tracking.run(folder.name) as logger:
        tracking.parameters(
            {
                "city": city.name,
                "data_fingerprint": preparation.city.fingerprint(),
                "champion": found.version,
                "plan": plan.model_dump(),
                "task": preparation.task.model_dump(),
                **preparation.config.model_dump(exclude={"task"}),
            }
        )
        with artifacts(found, WEIGHTS) as weights:
            fitted = fit(preparation, folder, warm_start=weights, logger=logger, progress=progress)
        outcome, verdict = _through_the_gate(preparation, fitted, champion, found, folder / "bundle", plan.rule, recent)
        mlflow.log_dict(verdict.plain(), "gate.json")
        registered = log_outcome(tracking, preparation, outcome, config)
    outcome = dataclasses.replace(outcome, registered=registered)
    version, client = registered[1], MlflowClient()
    reasons = "; ".join(f"{check.name}: {check.reason}" for check in verdict.checks if check.passed == verdict.passed)
    for key, value in (
        (GATE, PASSED if verdict.passed else FAILED),
        (GATE_REASONS, reasons),
        (GATE_CHAMPION, str(found.version)),
    ):
        client.set_model_version_tag(name, version, key, value[:5_000])
    move = promote(name, version, by=by, reason=reasons) if verdict.passed and plan.promote else None
    return Retrained(outcome, str(found.version), verdict, move)


def champion_config(found: ModelVersion) -> TrainConfig:
    """The configuration a registered version was trained with."""
    with artifacts(found, CONFIG) as path:
        return TrainConfig.model_validate(yaml.safe_load(path.read_text()))


def _config(config: TrainConfig, task: Task, city: City, plan: RetrainPlan) -> TrainConfig:
    """The configuration with the split of :func:`recent_split` and a gentler optimisation."""
    fit_changes: dict[str, object] = {"learning_rate": config.fit.learning_rate * plan.learning_rate_share}
    if plan.epochs is not None:
        fit_changes["epochs"] = plan.epochs
    return config.merged(
        {
            "task": task.model_dump(exclude={"name", "node"}),
            "fit": fit_changes,
            "split": recent_split(city, task, plan.recent_days),
        }
    )


def recent_split(city: City, task: Task, days: int | None = None) -> dict[str, object]:
    """The last ``days`` of issue times for the gate, as many before them to validate on, the rest to train on."""
    signal = city.signals.get(task.target)
    if signal is None:
        raise ConfigError(f"{city.name}: has no signal {task.target!r}, which {task.name} forecasts")
    reach = task.horizon * task.step
    span = pd.Timedelta(days=days or 7)
    if days is None:
        span = max(span, 5 * reach.ceil("D"))
    test = signal.end - reach - span
    return {"last": None, "validate": test.to_pydatetime(), "train": (test - span).to_pydatetime()}


def _recent(preparation: Preparation, champion: Bundle) -> pd.DatetimeIndex:
    """The recent windows that the champion has not learnt from either: those whose outcomes come after all that it was
    trained, chosen and calibrated with. All of them for a bundle that is older than this is kept."""
    task, test = preparation.task, preparation.split.test
    spans = champion.metrics.get(LEARNT_FROM, {}).values()
    if not spans:
        return test
    return test[test > max(pd.Timestamp(last) for _, last in spans) + task.horizon * task.step]


def _check_recent(preparation: Preparation, recent: pd.DatetimeIndex, rule: GateRule) -> None:
    """Raises :class:`ConfigError`, before anything is trained, where the gate could not judge by the ``recent``
    windows."""
    task, city = preparation.task, preparation.city
    signal, measured = city.signals[task.target], pd.Series(dtype=int)
    if len(recent):
        outcomes = signal.between(recent[0] + task.step, recent[-1] + task.step)
        known = np.isfinite(outcomes.values).sum(axis=1)
        measured = pd.Series(known).groupby(local_days(outcomes.times, city.timezone)).sum()
    windows = enough(whole_days(measured.to_numpy()), block_days(task), rule)
    if not windows.passed:
        learnt = len(preparation.split.test) - len(recent)
        known_already = f", for the champion learnt from {learnt} of the recent windows" if learnt else ""
        raise ConfigError(
            f"{city.name}: the gate would look at {windows.reason}{known_already}; it needs more recent measurements"
        )


def _through_the_gate(
    preparation: Preparation, fitted: Fitted, champion: Bundle, found: ModelVersion, folder: Path, rule: GateRule,
    recent: pd.DatetimeIndex,
) -> tuple[Outcome, Verdict]:  # fmt: skip
    """Exports the challenger, compares both on the ``recent`` windows, and writes it with the reasons in its card."""
    draft = make_bundle(fitted.module, preparation)
    threads = preparation.config.threads
    challenger, old = OnnxForecaster(draft, threads), OnnxForecaster(champion, threads)
    tables = score(preparation, {OURS: challenger})
    verdict = judge(compare(challenger, old, preparation.city, recent), rule)
    card = model_card(preparation, fitted, tables, draft.metrics.get(PRECISION))
    card += f"\nRetrained from version {found.version}, bundle {champion.version}, and held against it.\n\n"
    bundle = dataclasses.replace(
        draft,
        metrics={**draft.metrics, "test": tables, "gate": verdict.plain()},
        card=card + verdict.markdown(),
    )
    return Outcome(bundle.write(folder), folder, fitted, tables, None), verdict
