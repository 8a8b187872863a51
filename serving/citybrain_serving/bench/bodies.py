"""Readings as a feed sends them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa

from citybrain_models.bundle import Bundle
from citybrain_serving.bench.cities import readings
from citybrain_serving.fleet import Channel


def arrow_body(bundle: Bundle, channels: Sequence[Channel], time: pd.Timestamp, random: np.random.Generator) -> bytes:
    """One tick of ``channels`` as an Arrow stream."""
    table = tick(bundle, channels, time, random)
    columns = {
        "id": pa.array(table["id"], pa.string()),
        "signal": pa.array(table["signal"], pa.string()),
        "time": pa.array(table["time"], pa.timestamp("s", "UTC")),
        "value": pa.array(table["value"], pa.float32()),
    }
    arrow = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_table(arrow)
    return bytes(sink.getvalue())


def json_body(bundle: Bundle, channels: Sequence[Channel], time: pd.Timestamp, random: np.random.Generator) -> bytes:
    """One tick of ``channels`` as JSON rows."""
    table = tick(bundle, channels, time, random)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    columns = (table["id"].tolist(), table["signal"].tolist(), table["value"].tolist())
    rows = [
        {"id": node, "signal": signal, "time": stamp, "value": round(value, 2)}
        for node, signal, value in zip(*columns, strict=True)
    ]
    return orjson.dumps({"observations": rows})


def tick(bundle: Bundle, channels: Sequence[Channel], time: pd.Timestamp, random: np.random.Generator) -> pd.DataFrame:
    """Columns id, signal, time and value of what the sensors tell at one tick."""
    parts = []
    for channel in channels:
        told = readings(bundle, channel, time, random)
        parts.append(
            pd.DataFrame({"id": channel.ids[told.nodes], "signal": channel.signal, "time": time, "value": told.values})
        )
    return pd.concat(parts, ignore_index=True)
