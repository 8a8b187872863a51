"""The surrogate's benchmark: accuracy against the simulation beside peers, other networks, speed and resuming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from citybrain_datasets.records import Record, circumstances
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import SurrogateError
from citybrain_training.surrogate import judging, peers
from citybrain_training.surrogate.config import SurrogateConfig
from citybrain_training.surrogate.fitting import fingerprint
from citybrain_training.surrogate.pipeline import judged, make_bundle
from citybrain_training.surrogate.runs import Parts, Study, mornings, parts
from citybrain_training.surrogate.tuning import trained_network, tuned

FINE_TUNING = 20
"""Runs of another network that a fine-tuned surrogate has seen."""


UNITS = {**{o.name: o.unit for o in OUTCOMES.values()}, "stations": "µg/m³"}
RATIOS = {"spearman": "1", "median_error_in_spreads": "spreads", "coverage": "1"}
"""Metrics without the unit of their outcome."""


def bench(
    study: Study, training: Path, others: Sequence[Study] = (), *, command: str, with_peers: bool = True
) -> list[Record]:
    """Records of the surrogate in the folder ``training`` (as ``train-surrogate`` leaves it) on the scenarios that it
    has not seen, beside peers, and on the networks of ``others``, which it has not seen either.

    Raises :class:`SurrogateError` where ``study`` holds other runs than those that it was trained and calibrated on.
    """
    bundle = SurrogateBundle.read(training / "bundle")
    config = SurrogateConfig.model_validate_json((training / "config.json").read_text(encoding="utf-8"))
    drawn = parts(study, config.seed)
    if fingerprint(drawn.train) != bundle.fingerprint:
        raise SurrogateError(f"{training}: the surrogate was trained on other runs than these")
    if bundle.metrics["scenarios"] != (counts := drawn.counts):
        raise SurrogateError(f"{training}: its intervals were fitted on other runs than these; --calibrate names them")
    test, step = drawn.test, judging.bundle_step(bundle)
    each = judging.truth(test, step)
    true = judging.expected(test, each)
    said = judging.judge(bundle)(test, step)
    alone = judging.table(said, each)
    tables = {
        "surrogate": judging.table(judging.expected(test, said), true),
        "surrogate, one morning": {n: {"coverage": row["coverage"]} for n, row in alone.items() if "coverage" in row},
    }
    if with_peers:
        for name, judge in (
            ("linear model", peers.linear(drawn.train, step)),
            ("static assignment (BPR)", peers.assignment),
        ):
            tables[name] = judging.table(judging.expected(test, judge(test, step)), true)
    if (sides := judging.halves(test, each)) is not None:
        tables["SUMO, other mornings"] = judging.table(*sides)
    chance = judging.coverage_spread(counts["calibrate"], counts["test"])
    note = (
        f"surrogate {bundle.version}; scenarios: {counts}; {_mornings(test)}; "
        f"on so few, intervals that hold 90 % are measured to cover 90 ± {chance:.1%}"
    )
    records = _records(f"what-if/{study.site.city.name}", tables, note)
    for other in others:
        records += _elsewhere(other, training, drawn)
    about = {"command": command, **circumstances()}
    return [{**record, **about} for record in records]


def _mornings(study: Study) -> str:
    number = mornings(study)
    return "truth is one simulated morning" if number == "1" else f"truth is the mean of {number} simulated mornings"


def _records(case: str, tables: Mapping[str, Mapping[str, Mapping[str, float]]], note: str) -> list[Record]:
    return [
        {"case": case, "subject": subject, "metric": f"{outcome} change, {metric.replace('_', ' ')}", "value": value,
         "unit": RATIOS.get(metric, UNITS[outcome]), "note": note}
        for subject, table in tables.items() for outcome, row in table.items() for metric, value in row.items()
    ]  # fmt: skip


def _elsewhere(other: Study, training: Path, drawn: Parts) -> list[Record]:
    """The surrogate on a road network it was not trained on: as it is, and after 20 runs there."""
    often = np.bincount(other.scenario)[other.scenario] > 1
    config, network = trained_network(training, drawn.train)
    order = np.random.default_rng(config.seed).permutation(np.flatnonzero(~often))
    seen = other.part(np.sort(order[:FINE_TUNING]))
    rest = other.part(np.flatnonzero(often) if often.any() else np.sort(order[FINE_TUNING:]))
    if not len(rest.runs):
        raise SurrogateError(f"{other.site.city.name}: no run left to judge by beside the {FINE_TUNING} to learn from")
    bundles = {
        "surrogate, network unseen": make_bundle(network, config, drawn.train, drawn.calibrate, place=other),
        f"surrogate, {FINE_TUNING} runs of the network seen": tuned(training, seen),
    }
    tables = {subject: judging.table(*judged(bundle, rest)) for subject, bundle in bundles.items()}
    step = judging.bundle_step(bundles["surrogate, network unseen"])
    if (sides := judging.halves(rest, judging.truth(rest, step))) is not None:
        tables["SUMO, other mornings"] = judging.table(*sides)
    return _records(
        f"what-if/{other.site.city.name}", tables, f"{len(set(rest.scenario))} scenarios; {_mornings(rest)}"
    )
