"""The :class:`~citybrain_datasets.scenarios.outcomes.Place` of a city: corridors, districts, people."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

_SERIAL = re.compile(r"^(?P<street>.*?)\s+\d+(?P<rest>,.*)?$")


def corridors(roads: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
    """The corridor of each road, int ``[segment]``, and the corridors' names.

    A corridor is a street in one direction: the name without the serial number of the segment. Roads without a name
    are one corridor per owner and class.
    """
    kind = roads.get("road_class", pd.Series("", index=roads.index)).astype(str)
    label = []
    for name, owner, road_class in zip(roads["name"].astype(str), roads["owner"].astype(str), kind, strict=True):
        found = _SERIAL.match(name)
        street = f"{found['street']}{found['rest'] or ''}" if found else name
        label.append(street or f"{owner} {road_class}".strip() or "unnamed")
    names, member = np.unique(np.array(label, dtype=object).astype(str), return_inverse=True)
    return member, tuple(map(str, names))
