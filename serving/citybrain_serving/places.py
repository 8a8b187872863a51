"""The nodes of a city as answers need them: positions by id, boxes, and pre-encoded columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa

from citybrain_datasets.city import NODE_COLUMNS, City
from citybrain_datasets.geo import nearest
from citybrain_datasets.signals import NodeType
from citybrain_serving.errors import UnknownPlace

TOLD = 10
"""Unknown ids named in an error."""


@dataclass(frozen=True)
class Places:
    """Nodes of one type in node order; positions are rows of that order."""

    node: NodeType
    table: pd.DataFrame

    @staticmethod
    def of(city: City, node: NodeType) -> Places:
        """The nodes of ``city``, or an empty table where it has none of this type."""
        empty = pd.DataFrame(columns=list(NODE_COLUMNS), index=pd.Index([], name="id"))
        return Places(node, city.nodes.get(node, empty))

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def ids(self) -> list[str]:
        return [str(i) for i in self.table.index]

    @cached_property
    def position(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def rows(self, ids: list[str]) -> list[int]:
        """Positions in the order asked for. Raises :class:`UnknownPlace` naming the ids that do not exist."""
        try:
            return [self.position[name] for name in ids]
        except KeyError:
            unknown = [name for name in dict.fromkeys(ids) if name not in self.position]
            told = ", ".join(repr(name[:80]) for name in unknown[:TOLD])
            more = f" and {len(unknown) - TOLD} more" if len(unknown) > TOLD else ""
            raise UnknownPlace(f"no {self.node} node has the id {told}{more}", {"ids": unknown[:TOLD]}) from None

    def inside(self, west: float, south: float, east: float, north: float) -> np.ndarray:
        """Positions inside a box of WGS 84 degrees; a box whose west is greater than its east crosses
        180°."""
        lat, lon = self.coordinates
        across = (lon >= west) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
        return np.flatnonzero(across & (lat >= south) & (lat <= north))

    @cached_property
    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude, NaN where a place is not published."""
        return self.table["lat"].to_numpy(float), self.table["lon"].to_numpy(float)

    def text(self, column: str) -> np.ndarray:
        """A column of the node table as strings, object ``[node]``; empty where nothing is said. Not to be written to:
        it is made once."""
        made = self._texts.get(column)
        if made is None:
            made = self._texts[column] = self.table[column].fillna("").astype(str).to_numpy(dtype=object)
        return made

    def with_commas(self, column: str) -> frozenset[str]:
        """Texts of a column, or of ``id``, that hold a comma; made once."""
        made = self._with_commas.get(column)
        if made is None:
            texts = self.ids if column == "id" else self.text(column)
            made = self._with_commas[column] = frozenset(text for text in texts if "," in text)
        return made

    @cached_property
    def _with_commas(self) -> dict[str, frozenset[str]]:
        return {}

    @cached_property
    def _texts(self) -> dict[str, np.ndarray]:
        return {}

    def nearest(self, lat: float, lon: float) -> tuple[int, float] | None:
        """Position and distance in metres of the node closest to a place; None where no node has a place."""
        index, metres = nearest(np.array([lat]), np.array([lon]), *self.coordinates, k=1)
        if not len(self) or index[0, 0] < 0:
            return None
        return int(index[0, 0]), float(metres[0, 0])

    @cached_property
    def arrow_ids(self) -> pa.Array:
        return pa.array(self.ids, pa.string())

    @cached_property
    def encoded_ids(self) -> list[bytes]:
        return [orjson.dumps(name) for name in self.ids]

    @cached_property
    def feature_heads(self) -> list[bytes]:
        """For each node the start of a GeoJSON feature, up to inside its properties, to which a member is
        added."""
        lat, lon = self.coordinates
        heads = []
        for row, name in enumerate(self.ids):
            known = np.isfinite(lat[row]) and np.isfinite(lon[row])
            point = {"type": "Point", "coordinates": [float(lon[row]), float(lat[row])]} if known else None
            feature = {"type": "Feature", "id": name, "geometry": point, "properties": {"id": name}}
            for column in ("name", "name_zh", "owner", "cell"):
                text = self.table[column].iat[row]
                if isinstance(text, str) and text:
                    feature["properties"][column] = text  # type: ignore[index]  # a dict, built a line above
            heads.append(orjson.dumps(feature)[:-2])
        return heads
