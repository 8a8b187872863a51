"""Forecasts as bytes: JSON, GeoJSON and Arrow. What many requests share is encoded once a snapshot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
from cachetools import LRUCache

from citybrain_datasets.city import City
from citybrain_serving.chinese import translated
from citybrain_serving.indices.catalogue import Index
from citybrain_serving.inputs import TrafficHealth, WeatherHealth
from citybrain_serving.languages import Language
from citybrain_serving.places import Places
from citybrain_serving.selection import Cut
from citybrain_serving.snapshot import Forecast

JSON = "application/json"
GEOJSON = "application/geo+json"
ARROW = "application/vnd.apache.arrow.stream"

VIEW_NODES = 1_000_000
"""Nodes whose encoded cuts are kept, over all cuts of a forecast."""

DECIMALS = 2
"""Of values in answers: no quantity here is measured finer. Occupancy, a share, is given with two more."""


class Answers:
    """One forecast, encoded on demand. Safe to use from several threads: at worst two encode the same
    thing."""

    def __init__(self, city: City, places: Places, forecast: Forecast, index: Index | None = None):
        self.city = city
        self.index = index
        self.places = places
        self.forecast = forecast
        self._views: LRUCache[Cut, _View] = LRUCache(max(2, min(16, VIEW_NODES // max(1, len(places)))))
        self._lock = threading.Lock()

    def encode(self, media: str, rows: np.ndarray | None, cut: Cut, stale: bool, language: Language = "en") -> bytes:
        """``rows`` are positions of nodes, None for all; ``stale`` is told in the answer, in a ``language``."""
        head = self.head(cut, stale, language)
        if media == ARROW:
            return self._arrow(rows, cut, head)
        write: dict[str, Callable[[np.ndarray, _View, dict[str, Any]], bytes]] = {
            JSON: self._json,
            GEOJSON: self._geojson,
        }
        chosen = np.arange(len(self.places)) if rows is None else rows
        return write[media](chosen, self._view(cut), head)

    def head(self, cut: Cut, stale: bool, language: Language = "en") -> dict[str, Any]:
        """What a forecast says about itself, before its values."""
        forecast, task = self.forecast, self.forecast.task
        inputs = forecast.inputs
        return {
            "city": self.city.name,
            "synthetic": self.city.synthetic,
            "task": task.name,
            "signal": task.target,
            "unit": forecast.kind.unit if self.index is None else "1",
            "index": None if self.index is None else standard_of(self.index),
            "issued": utc(forecast.issued),
            "step_minutes": task.step_minutes,
            "source": forecast.source,
            "reason": translated(forecast.reason, language),
            "doubted": forecast.doubted,
            "stale": stale,
            "bundle": forecast.bundle,
            "inputs": {
                "seen": round(inputs.seen, 4),
                "newest": None if inputs.newest is None else utc(inputs.newest),
                "replaced": forecast.replaced,
                "doubts": dict(forecast.doubts),
                "signals": {name: round(share, 4) for name, share in inputs.signals.items()},
                "weather": inputs.weather and _weather(inputs.weather, forecast),
                **({} if inputs.traffic is None else {"traffic": _traffic(inputs.traffic)}),
            },
            "times": [utc(forecast.times[lead]) for lead in cut.leads],
            "quantiles": [task.quantiles[index] for index in cut.quantiles],
        }

    def _json(self, rows: np.ndarray, view: _View, head: dict[str, Any]) -> bytes:
        ids = self.places.encoded_ids
        chosen = rows.tolist()
        return b"".join(
            (
                orjson.dumps(head)[:-1],
                b',"ids":[',
                b",".join([ids[row] for row in chosen]),
                b'],"observed":',
                orjson.dumps(self._observed[rows], option=orjson.OPT_SERIALIZE_NUMPY),
                b',"observed_at":[',
                b",".join(self._observed_at[rows].tolist()),
                b'],"values":[',
                b",".join(view.fragments(chosen)),
                b"]}",
            )
        )

    def _geojson(self, rows: np.ndarray, view: _View, head: dict[str, Any]) -> bytes:
        heads, chosen = self.places.feature_heads, rows.tolist()
        observed, at = self._observed, self._observed_at
        features = [
            b'%b,"observed":%b,"observed_at":%b,"values":%b}}'
            % (heads[row], orjson.dumps(_number(observed[row])), at[row], fragment)
            for row, fragment in zip(chosen, view.fragments(chosen), strict=True)
        ]
        opening = orjson.dumps({"type": "FeatureCollection", "numberReturned": len(features), **head})
        return b"".join((opening[:-1], b',"features":[', b",".join(features), b"]}"))

    def _arrow(self, rows: np.ndarray | None, cut: Cut, head: dict[str, Any]) -> bytes:
        """Column by column from the forecast itself: of a whole city, every copy more takes a tenth of the time."""
        values, signal = self.forecast.values, self.forecast.kind.name
        ids, observed, at = self.places.arrow_ids, self._observed, self.forecast.observed_times
        if rows is not None:
            values, ids, observed, at = values[rows], ids.take(pa.array(rows)), observed[rows], at[rows]
        columns = {"id": ids, "observed": pa.array(observed), "observed_at": pa.array(at, pa.timestamp("s", "UTC"))}
        for place, level in zip(cut.quantiles, head["quantiles"], strict=True):
            flat = pa.array(_rounded(values[:, list(cut.leads), place], signal).reshape(-1))
            columns[f"q{level:g}"] = pa.FixedSizeListArray.from_arrays(flat, len(cut.leads))
        table = pa.table(columns).replace_schema_metadata({"citybrain": orjson.dumps(head)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    @cached_property
    def _observed(self) -> np.ndarray:
        return _rounded(self.forecast.observed, self.forecast.kind.name)

    @cached_property
    def _observed_at(self) -> np.ndarray:
        """JSON of each time, bytes ``[node]``; there are far fewer times than nodes."""
        times, which = np.unique(self.forecast.observed_times, return_inverse=True)
        words = [b"null" if np.isnat(time) else b'"%sZ"' % str(time).encode() for time in times]
        return np.array(words, object)[which]

    def _view(self, cut: Cut) -> _View:
        with self._lock:
            view = self._views.get(cut)
            if view is None:
                picked = self.forecast.values[:, cut.leads][:, :, cut.quantiles]
                view = self._views[cut] = _View(_rounded(picked, self.forecast.kind.name))
            return view


@dataclass
class _View:
    """Values ``[node, lead, quantile]`` of one cut and the JSON of each node, made when it is first asked
    for."""

    values: np.ndarray
    _made: list[bytes | None] = field(init=False)

    def __post_init__(self) -> None:
        self._made = [None] * len(self.values)

    def fragments(self, rows: list[int]) -> list[bytes]:
        made, out = self._made, []
        for row in rows:
            fragment = made[row]
            if fragment is None:
                fragment = made[row] = orjson.dumps(self.values[row], option=orjson.OPT_SERIALIZE_NUMPY)
            out.append(fragment)
        return out


def standard_of(index: Index) -> dict[str, Any]:
    """How an answer names the standard of an index that it shows."""
    effective = index.standard.effective
    return {
        "id": index.id,
        "standard": index.standard.id,
        "effective": None if effective is None else effective.isoformat(),
    }


def local_day(time: pd.Timestamp, city: City) -> date:
    """The day of a moment by the calendar of a city."""
    return time.tz_convert(city.timezone).date()


def utc(time: Any) -> str:
    """ISO 8601 with Z, to the second."""
    return str(time.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _weather(weather: WeatherHealth, forecast: Forecast) -> dict[str, Any]:
    """Which weather forecasts a forecast rests on, and how old the newest was."""
    issued = weather.issued
    return {
        "issued": [utc(time) for time in issued],
        "age_minutes": int((forecast.issued - issued[0]).total_seconds()) // 60 if issued else None,
        "signals": {name: round(share, 4) for name, share in weather.signals.items()},
    }


def _traffic(traffic: TrafficHealth) -> dict[str, Any]:
    """Which congestion forecast a forecast rests on."""
    return {
        "signal": traffic.signal,
        "issued": None if traffic.issued is None else utc(traffic.issued),
        "bundle": traffic.bundle,
        "share": round(traffic.share, 4),
    }


def _rounded(values: np.ndarray, signal: str) -> np.ndarray:
    return np.ascontiguousarray(np.round(values, DECIMALS + 2 * (signal == "occupancy")), dtype=np.float32)


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(str(value))
