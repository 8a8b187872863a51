"""The whole path of a surrogate: runs, training, calibration, bundle, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch.loggers import Logger

from citybrain_datasets.scenarios.air import air_step
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_models.nn.surrogate import SurrogateEnsemble
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import RoadNetwork
from citybrain_models.surrogate.reach import Reach
from citybrain_models.surrogate.scorer import USUAL_WEATHER, air_arrays
from citybrain_training.surrogate import judging
from citybrain_training.surrogate.config import SurrogateConfig
from citybrain_training.surrogate.export import INPUTS, export_surrogate
from citybrain_training.surrogate.fitting import FittedSurrogate, fingerprint, fit_surrogate
from citybrain_training.surrogate.runs import ONCE, Parts, Study, parts, split


@dataclass(frozen=True)
class Trained:
    """A bundle on disk, what it scored on the test part, and the parts of the runs."""

    bundle: SurrogateBundle
    fitted: FittedSurrogate
    table: dict[str, dict[str, float]]
    parts: Parts


def train_surrogate(
    study: Study,
    config: SurrogateConfig,
    folder: Path,
    *,
    others: tuple[Study, ...] = (),
    home: Path | None = None,
    progress: bool = False,
) -> Trained:
    """Trains on ``study`` and the runs of ``others``, and writes the bundle for the place of ``study``.

    ``home`` is where MLflow keeps its database, if nothing else is set; None tracks nothing.
    """
    drawn = parts(study, config.seed)
    train, validate = [drawn.train], [drawn.validate]
    for other in others:
        first, second = split(other, ONCE, config.seed)
        train.append(first)
        validate.append(second)
    with _tracked(home, study, config) as logger:
        fitted = fit_surrogate(train, validate, config, folder / "fit", logger=logger, progress=progress)
        bundle = make_bundle(fitted.network, config, drawn.train, drawn.calibrate)
        table = judging.table(*judged(bundle, drawn.test))
        bundle = replace(bundle, metrics={"test": table, "scenarios": drawn.counts})
        (folder / "config.json").write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
        bundle = replace(bundle, card=card(bundle, fitted)).write(folder / "bundle")
        if logger is not None:
            _log(table, folder / "bundle")
    return Trained(bundle, fitted, table, drawn)


def make_bundle(
    network: SurrogateEnsemble, config: SurrogateConfig, train: Study, calibrate: Study, place: Study | None = None
) -> SurrogateBundle:
    """The bundle of a trained ``network`` for ``place`` (that of ``train`` by default).

    It is calibrated on the runs of ``calibrate``, where those were simulated.
    """
    about = exported(network, calibrate), config, Reach.of(train.arrays["levers"]), fingerprint(train)
    margins = judging.margins(*judged(bundle_at(calibrate, *about), calibrate))
    return replace(bundle_at(place or train, *about), margins=margins)


def exported(network: SurrogateEnsemble, study: Study) -> bytes:
    """ONNX of a network, with runs of ``study`` as the example."""
    rows = np.arange(4) % len(study.runs)  # of a single one the exporter would think that there never are more
    example = {n: study.arrays[n][rows] for n in ("levers", "closed")}
    example |= {n: study.arrays[n][:1] for n in ("context", "base", "unit")} | study.graph
    return export_surrogate(network, {name: example[name] for name in INPUTS})


def bundle_at(place: Study, model: bytes, config: SurrogateConfig, reach: Reach, trained_on: str) -> SurrogateBundle:
    """A bundle for one place, not calibrated yet: its bounds are the surrogate's own width away. ``trained_on`` is the
    fingerprint of the runs."""
    step = air_step(place.site, USUAL_WEATHER, place.window, base_emission=place.usual.emission.T)
    return SurrogateBundle(
        city=place.site.city.replace(signals={}),
        window=place.window,
        network=RoadNetwork.from_arrays(place.network.arrays()),  # as it will be read back
        usual=place.usual,
        model=model,
        quantiles=config.quantiles,
        reach=reach,
        margins=dict.fromkeys(OUTCOMES, 1.0),
        fingerprint=trained_on,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        air=air_arrays(step),
    )


def card(bundle: SurrogateBundle, fitted: FittedSurrogate) -> str:
    """Markdown: what the surrogate is, how well it does, and what it must not be used for."""
    number = bundle.metrics["scenarios"]
    parameters = sum(p.numel() for p in fitted.network.parameters())
    rows = []
    for name, row in bundle.metrics["test"].items():
        covered = f"{row['coverage']:.1%}" if "coverage" in row else ""
        rows.append(f"| {name} | {row['spearman']:.3f} | {row['median_error_in_spreads']:.3f} | {covered} |")
    return "\n".join(
        [
            f"# {bundle.city.title or bundle.city.name}: what measures would change",
            "",
            *(["**The city is synthetic. Its figures say nothing about a real one.**", ""] * bundle.city.synthetic),
            f"SurrogateEnsemble, {parameters:,} parameters, {fitted.epochs} epochs, "
            f"{fitted.cpu_seconds / 60:.1f} CPU minutes.",
            f"{number['train']} simulated scenarios to train on, {number['validate']} to choose the epoch by, "
            f"{number['calibrate']} to fit the intervals on, {number['test']} to test on.",
            "",
            "| outcome (its change) | Spearman | median error, in spreads | covered by the 90 % interval |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Limits",
            "- It repeats a simulator, not the world; what the simulator leaves out, it leaves out.",
            "- Scenarios flagged `outside` go beyond what it was trained on; simulate them (`citybrain simulate`).",
            "",
        ]
    )


def judged(bundle: SurrogateBundle, study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the surrogate says of each scenario of ``study``, and what the simulator found, as means over mornings."""
    step = judging.bundle_step(bundle)
    said, true = judging.judge(bundle)(study, step), judging.truth(study, step)
    return judging.expected(study, said), judging.expected(study, true)


@contextmanager
def _tracked(home: Path | None, study: Study, config: SurrogateConfig) -> Iterator[Logger | None]:
    if home is None:
        yield None
        return
    from citybrain_training.tracking import Tracking

    tracking = Tracking(home, f"{study.site.city.name}-surrogate")
    with tracking.run("surrogate") as logger:
        tracking.parameters({**config.model_dump(), "runs": len(study.runs), "runs_digest": fingerprint(study)})
        yield logger


def _log(table: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    import mlflow

    mlflow.log_metrics({f"test/{name}/{k}": v for name, row in table.items() for k, v in row.items()})
    mlflow.log_artifacts(str(folder), "bundle")
