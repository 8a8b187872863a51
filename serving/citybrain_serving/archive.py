"""Old observations moved out of the store into Parquet: a file for each signal and day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from citybrain_serving.database import transaction
from citybrain_serving.files import placed
from citybrain_serving.packing import unpack
from citybrain_serving.tables import frames, layouts

DAY = 86_400


@dataclass(frozen=True)
class Archived:
    """What one run did."""

    files: int
    frames: int


def archive(
    engine: sa.Engine,
    before: date,
    folder: Path,
    *,
    keep: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Archived:
    """Writes every frame of the days before ``before`` (UTC) to ``folder/<signal>/<day>.parquet`` and, unless
    ``keep``, then deletes it from the store.

    A file has the columns ``time`` (UTC, end of the interval) and ``values`` (fixed-size list of float32, NaN where
    nothing was measured) and the ids in its metadata under ``ids``. A day's file is on disk before its frames are
    deleted; one that is there already is never overwritten, what came late goes to ``<day>.2.parquet``.
    Raises :class:`~citybrain_serving.errors.StoreUnavailable` and ``OSError``.
    """
    limit = int(pd.Timestamp(before, tz="UTC").timestamp())
    files = moved = 0
    with transaction(engine) as connection:
        # A time ends its interval: midnight belongs to the day before.
        days = connection.execute(
            sa.select(frames.c.signal, ((frames.c.time - 1) // DAY).label("day"), frames.c.layout)
            .where(frames.c.time <= limit)
            .distinct()
        ).all()
    for signal, number, layout in sorted({(s, int(d), la) for s, d, la in days}):
        mine = (
            (frames.c.signal == signal)
            & (frames.c.layout == layout)
            & (frames.c.time > number * DAY)
            & (frames.c.time <= (number + 1) * DAY)
        )
        with transaction(engine, write=not keep) as connection:
            ids = (connection.scalar(sa.select(layouts.c.ids).where(layouts.c.digest == layout)) or b"").decode()
            rows = connection.execute(sa.select(frames.c.time, frames.c["values"]).where(mine).order_by("time")).all()
            if not rows:
                continue
            path = _free(folder / signal, date(1970, 1, 1) + timedelta(days=number))
            _write(path, [r[0] for r in rows], [r[1] for r in rows], ids.split("\n"))
            if not keep:
                connection.execute(frames.delete().where(mine))
        files, moved = files + 1, moved + len(rows)
        tell(str(path))
    return Archived(files, moved)


def _free(folder: Path, day: date) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / f"{day}.parquet", 2
    while path.exists():
        path, number = folder / f"{day}.{number}.parquet", number + 1
    return path


def _write(path: Path, times: list[int], packed: list[bytes], ids: list[str]) -> None:
    values = np.concatenate([unpack(data, len(ids)) for data in packed])
    schema = pa.schema(
        {"time": pa.timestamp("s", tz="UTC"), "values": pa.list_(pa.float32(), len(ids))},
        metadata={"ids": "\n".join(ids)},
    )
    columns = [
        pa.array(times, schema.field("time").type),
        pa.FixedSizeListArray.from_arrays(pa.array(values), len(ids)),
    ]
    with placed(path) as out:
        pq.write_table(pa.table(columns, schema=schema), out, compression="zstd")
