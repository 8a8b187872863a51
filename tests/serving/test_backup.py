"""Copies of a store: consistent, checked, and never half-written."""

from __future__ import annotations

import threading

import pandas as pd
import pytest
import sqlalchemy as sa

from citybrain_serving.backup import backup
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.errors import FleetError, StoreUnavailable
from citybrain_serving.readings import readings_from_json
from citybrain_serving.safety.audit import AuditLog, Head
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

LAST = pd.Timestamp("2026-03-16T00:00:00Z")


def body(value: float, time: pd.Timestamp) -> bytes:
    return b'{"id": ["r1"], "signal": "speed", "time": "%s", "value": [%f]}' % (time.isoformat().encode(), value)


def test_a_copy_made_under_ingest_restores_to_what_was_acknowledged(service, bundles, tmp_path):
    service.take(readings_from_json(body(40, LAST)))
    AuditLog(service.store.engine).append([{"n": 1}])
    stop, going = threading.Event(), threading.Event()

    def write() -> None:
        time = LAST
        while not stop.is_set():
            time += pd.Timedelta(minutes=5)
            service.take(readings_from_json(body(50, time)))
            going.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert going.wait(20)
    size = backup(service.store.engine, tmp_path / "copies" / "copy.sqlite")
    stop.set()
    writer.join()
    copy = tmp_path / "copies" / "copy.sqlite"
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert copy.stat().st_size == size
    restored = Service(bundles.values(), Settings(store=str(copy), clock="observations"))
    assert restored.store.read("speed", LAST, LAST).values[0, 1] == 40
    assert AuditLog(restored.store.engine).verify() == AuditLog(service.store.engine).verify()
    assert isinstance(AuditLog(restored.store.engine).verify(), Head)
    restored.close()


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path):
    engine = open_engine(str(tmp_path / "s.sqlite"))
    migrate(engine)
    out = tmp_path / "copies" / "copy.sqlite"
    backup(engine, out)
    with pytest.raises(FleetError, match="there already"):
        backup(engine, out)
    out.unlink()
    damaged = open_engine(str(tmp_path / "damaged.sqlite"))
    migrate(damaged)
    damaged.dispose()
    with open(tmp_path / "damaged.sqlite", "rb+") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    with pytest.raises(StoreUnavailable, match=r"cannot be made|not sound|cannot be used"):
        backup(damaged, out)
    assert not list(out.parent.iterdir())


def test_another_database_is_left_to_its_own_tools():
    class Postgres:
        dialect = sa.dialects.postgresql.dialect()

    with pytest.raises(FleetError, match="pg_dump"):
        backup(Postgres(), None)  # type: ignore[arg-type]  # only its dialect is looked at
