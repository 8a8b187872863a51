"""One city seen through the nodes of another: for a bundle that was trained when the city had other sensors."""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.signals import Signal
from citybrain_datasets.windows import WindowSource
from citybrain_models.bundle import Bundle


def source_for(bundle: Bundle, city: City) -> WindowSource:
    """Windows of ``city`` as ``bundle`` reads them: its statistics, its node order.

    Raises :class:`~citybrain_datasets.errors.CityError` where the city no longer measures what the bundle needs.
    """
    seen = aligned(city, bundle.city)
    bundle.task.check(seen)
    return WindowSource.of_city(bundle.features(), seen)


def aligned(city: City, like: City) -> City:
    """The signals of ``city`` on the nodes and edges of ``like``, in its order; NaN where ``city`` lost a node."""
    signals = {}
    for name, signal in city.signals.items():
        if signal.node == "city":
            signals[name] = signal
        elif signal.node in like.nodes:
            rows = pd.Index(city.ids(signal.node)).get_indexer(pd.Index(like.ids(signal.node)))
            values = np.where(rows >= 0, signal.values[:, rows], np.float32(np.nan))
            signals[name] = Signal(name, signal.node, signal.start, signal.step, values)
    return like.replace(signals=signals)
