"""Groups of nodes that are scored apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

GROUPED = ("road_class", "owner")
MOST_GROUPS = 12
"""Values of a column beyond which its groups are too small to be compared."""


def node_groups(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Rows of each group of nodes: by road class and owner where the city says so, and by quarter of the map."""
    groups: dict[str, np.ndarray] = {}
    for column in GROUPED:
        texts = table[column].fillna("").astype(str).to_numpy() if column in table else np.array([])
        names = sorted(set(texts) - {""})
        if 2 <= len(names) <= MOST_GROUPS:
            groups |= {f"{column}={name}": np.flatnonzero(texts == name) for name in names}
    north, east = (table[axis].to_numpy(float) >= table[axis].median() for axis in ("lat", "lon"))
    placed = table[["lat", "lon"]].notna().all(axis=1).to_numpy()
    quarters = {"north-east": north & east, "north-west": north & ~east, "south-east": ~north & east}
    quarters["south-west"] = ~north & ~east
    found = {name: np.flatnonzero(mask & placed) for name, mask in quarters.items()}
    return groups | {f"quarter={name}": rows for name, rows in found.items() if len(rows)}
