"""Where signals stand, for surrogates that were written before they kept it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from citybrain_datasets.scenarios.site import NETWORK
from citybrain_datasets.simulation.network import read_signalled
from citybrain_datasets.store import city_folder
from citybrain_models.surrogate.bundle import SurrogateBundle


def with_signals(bundle: SurrogateBundle, city: Path | str) -> SurrogateBundle:
    """``bundle``, knowing where signals stand: by itself, or from the SUMO network in the folder of ``city``; as it is
    where neither says. Raises :class:`CityError` where that network cannot be read."""
    network = city_folder(city) / NETWORK
    if bundle.network.signalled is not None or not network.is_file():
        return bundle
    signalled = np.isin(bundle.network.ids, list(read_signalled(network)))
    return replace(bundle, network=replace(bundle.network, signalled=signalled))
