"""A trained surrogate on a road network that it has not seen, fine-tuned with few runs there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from citybrain_datasets.scenarios.actions import STEP_MINUTES
from citybrain_models.nn.surrogate import SurrogateEnsemble
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import SurrogateError
from citybrain_training.surrogate import judging
from citybrain_training.surrogate.config import SurrogateConfig
from citybrain_training.surrogate.fitting import fit_surrogate
from citybrain_training.surrogate.module import SurrogateModule, build_network
from citybrain_training.surrogate.pipeline import bundle_at, exported, judged
from citybrain_training.surrogate.runs import Study
from citybrain_training.weights import WeightsError, read_weights

EPOCHS, SLOWER, MINUTES = 40, 5.0, 3.0
"""Of fine-tuning: rounds over the runs, by what the learning rate is divided, and the longest it may take."""
FOLDS = 4


def tuned(training: Path, seen: Study) -> SurrogateBundle:
    """The surrogate in the folder ``training`` (as ``train-surrogate`` leaves it) for the place of ``seen``, fine-tuned
    on its runs.

    Intervals are fitted on these runs too: the scenarios are told in four parts, each by a network that was tuned on
    the other three (cross-conformal prediction; Vovk 2015), because what a network was tuned on says little of how far
    it is off elsewhere. Where each scenario was simulated once they hold one morning's noise as well.
    Raises :class:`SurrogateError` where ``seen`` holds fewer scenarios than that or other hours than the surrogate
    tells, and where ``training`` is none.
    """
    if not (training / "fit" / "best.ckpt").is_file():
        raise SurrogateError(f"{training}: is no training; `citybrain train-surrogate` leaves one")
    if seen.scenario.max() + 1 < FOLDS:
        raise SurrogateError(f"{seen.site.city.name}: {FOLDS} scenarios are the fewest to fine-tune on")
    home = SurrogateBundle.read(training / "bundle")
    if seen.window.steps != home.window.steps:
        hours = home.window.steps * STEP_MINUTES / 60
        raise SurrogateError(f"{seen.site.city.name}: the runs are not of {hours:g} hours, as the surrogate's are")
    config, network = trained_network(training, seen)

    def on(some: Study) -> SurrogateBundle:
        model = exported(_adjusted(network, some, config), some)
        return bundle_at(seen, model, config, home.reach, home.fingerprint)

    told = [judged(on(rest), kept) for rest, kept in _folds(seen, config.seed)]
    margins = judging.margins(*(pd.concat(frames, ignore_index=True) for frames in zip(*told, strict=True)))
    about = {"trained_on": home.city.name, "surrogate": home.version, "tuned_on": len(seen.runs)}
    return replace(on(seen), margins=margins, metrics=about, card=_card(home, seen))


def trained_network(training: Path, place: Study) -> tuple[SurrogateConfig, SurrogateEnsemble]:
    """The configuration and the network of a finished training, to be run on ``place``. Raises :class:`SurrogateError`
    where the folder holds none, or weights of another form."""
    settings = training / "config.json"
    try:
        config = SurrogateConfig.model_validate_json(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SurrogateError(f"{settings}: is no configuration of a surrogate: {error}") from None
    module = SurrogateModule(build_network(config, place), config, [place])
    checkpoint = training / "fit" / "best.ckpt"
    try:
        module.load_state_dict(read_weights(checkpoint)["state_dict"])
    except (WeightsError, RuntimeError) as error:
        raise SurrogateError(f"{checkpoint}: is no training of this network: {error}") from None
    return config, module.network


def _adjusted(network: SurrogateEnsemble, seen: Study, config: SurrogateConfig) -> SurrogateEnsemble:
    changes = {"learning_rate": config.learning_rate / SLOWER, "epochs": EPOCHS, "minutes": MINUTES}
    with tempfile.TemporaryDirectory() as folder:
        slow = config.model_copy(update=changes)
        return fit_surrogate([seen], [seen], slow, Path(folder), start=deepcopy(network)).network


def _folds(study: Study, seed: int) -> Iterator[tuple[Study, Study]]:
    """Each part of the scenarios, and before it all the others."""
    part = np.random.default_rng(seed).permutation(study.scenario.max() + 1) % FOLDS
    for number in range(FOLDS):
        kept = part[study.scenario] == number
        yield study.part(np.flatnonzero(~kept)), study.part(np.flatnonzero(kept))


def _card(home: SurrogateBundle, seen: Study) -> str:
    return (
        f"# {seen.site.city.title or seen.site.city.name}: what measures would change\n\n"
        f"The surrogate {home.version}, trained on {home.city.name} and fine-tuned on {len(seen.runs)} simulated runs "
        "here. Its intervals are fitted on these runs, each told by a network tuned on others; its reach is that of "
        "its training. `citybrain score --verify` compares its best with the simulation.\n"
    )
