"""The city of a bundle as files: a table for each node type and relation, and a few facts for its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from citybrain_datasets.city import City
from citybrain_models.files import from_parquet

FACTS = ("name", "timezone", "title", "country", "synthetic", "attribution")


def facts_of(city: City) -> dict[str, Any]:
    """What is said of ``city`` beside its tables."""
    return {fact: getattr(city, fact) for fact in FACTS}


def tables_of(city: City) -> dict[str, bytes]:
    """``nodes.<type>.parquet`` and ``edges.<relation>.parquet``; its signals are left out."""
    kinds: dict[str, Mapping[Any, pd.DataFrame]] = {"nodes": city.nodes, "edges": city.edges}
    return {
        f"{kind}.{name}.parquet": table.to_parquet(compression="zstd")
        for kind, tables in kinds.items()
        for name, table in tables.items()
    }


def city_from(files: Mapping[str, bytes], facts: Mapping[str, Any]) -> City:
    """The city, without signals. Raises :class:`~citybrain_models.files.BundleError` for a table that cannot be read,
    ``KeyError`` for a fact that is missing."""
    tables: dict[str, dict[Any, pd.DataFrame]] = {"nodes": {}, "edges": {}}
    for file, data in files.items():
        if file.endswith(".parquet"):
            kind, name, _ = file.split(".")
            tables[kind][name] = from_parquet(data, file)
    return City(nodes=tables["nodes"], edges=tables["edges"], **{fact: facts[fact] for fact in FACTS})
