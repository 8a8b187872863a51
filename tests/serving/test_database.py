"""The schema: migrations make what the tables say, on every database, and newer ones are refused."""

from __future__ import annotations

import math
from datetime import date
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from citybrain_serving.database import MIGRATIONS, VERSIONS, migrate, open_engine, room, transaction
from citybrain_serving.errors import FleetError, StoreRefused, StoreUnavailable
from citybrain_serving.quality import SUMS
from citybrain_serving.tables import metadata, scores


@pytest.fixture
def engine(location: str):
    made = open_engine(location)
    yield made
    made.dispose()


def test_migrations_make_the_tables_as_they_are_described(engine):
    migrate(engine)
    with engine.connect() as connection:
        options = {"version_table": VERSIONS, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_text_is_text_in_a_database_made_without_an_encoding(unencoded):
    engine = open_engine(unencoded)
    migrate(engine)
    row = {"task": "pm25", "bundle": "西站", "source": "model", "day": date(2026, 3, 2), "part": "all"}
    sums = dict.fromkeys((*SUMS, "lead_minutes"), 1)
    with transaction(engine, write=True) as connection:
        connection.execute(scores.insert(), [{**row, **sums}])
        assert connection.scalars(sa.select(scores.c.bundle)).all() == ["西站"]
    engine.dispose()


def test_migrating_again_changes_nothing(engine):
    migrate(engine)
    migrate(engine)
    assert "frames" in sa.inspect(engine).get_table_names()


def test_scores_from_before_are_compared_where_persistence_always_had_a_value(engine):
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with transaction(engine, write=True) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
    key = {"task": "pm25", "bundle": "b", "source": "model", "day": date(2026, 3, 2), "part": "all"}
    sums = {name: 3 for name in SUMS if name != "paired"}
    with transaction(engine, write=True) as connection:
        rows = [{**key, **sums, "lead_minutes": 60 * n, "persistence_count": n} for n in (2, 3)]
        connection.execute(scores.insert(), rows)
    migrate(engine)
    with transaction(engine) as connection:
        assert connection.scalars(sa.select(scores.c.paired).order_by(scores.c.lead_minutes)).all() == [None, 3]


def test_the_room_on_the_disk_of_a_file_is_known(engine, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=7))
    assert room(engine) == 7 if engine.dialect.name == "sqlite" else math.isnan(room(engine))
    assert math.isnan(room(sa.create_engine("sqlite://")))

    def gone(_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("shutil.disk_usage", gone)
    assert math.isnan(room(engine))


def test_a_store_of_a_newer_version_is_refused(engine):
    migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSIONS} SET version_num = '9999'")
    with pytest.raises(FleetError, match="not one that this version knows"):
        migrate(engine)


def test_a_store_that_cannot_be_opened_is_named_with_the_reason(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("no database at all, but long enough to be looked at " * 40)
    with pytest.raises(StoreUnavailable, match=rf"store {other}: cannot be used: file is not a database"):
        migrate(open_engine(str(other)))
    with pytest.raises(StoreUnavailable, match=rf"store {tmp_path}: cannot be used: unable to open database file"):
        migrate(open_engine(str(tmp_path)))
    with pytest.raises(FleetError, match=rf"store {other}/x/o.sqlite: its folder cannot be made: Not a directory"):
        open_engine(str(other / "x" / "o.sqlite"))


def test_a_failed_transaction_writes_nothing(engine):
    migrate(engine)
    table = metadata.tables["layouts"]
    twice = [{"digest": "a", "ids": b"1"}, {"digest": "a", "ids": b"2"}]
    with pytest.raises(StoreRefused, match="does not take"), transaction(engine, write=True) as connection:
        connection.execute(table.insert(), twice)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_without_a_free_connection_the_store_is_unavailable(location):
    """And no fault: what waits for the store, such as a message of MQTT, is to be tried again."""
    url = open_engine(location).url
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0)
    with transaction(engine), pytest.raises(StoreUnavailable, match="cannot be used now"), transaction(engine):
        pass
    engine.dispose()


def test_who_hangs_in_the_middle_of_writing_keeps_nobody_waiting_for_ever(database, monkeypatch):
    monkeypatch.setattr("citybrain_serving.database.BUSY", "50ms")
    monkeypatch.setattr("citybrain_serving.database.HUNG", "200ms")
    hung, hasty = open_engine(database), open_engine(database)

    def hang() -> None:
        with transaction(hung, write=True) as connection:
            with pytest.raises(StoreUnavailable), transaction(hasty, write=True):
                pass
            monkeypatch.setattr("citybrain_serving.database.BUSY", "20s")
            patient = open_engine(database)
            with transaction(patient, write=True) as writing:  # the database has ended the session that hung
                assert writing.scalar(sa.text("SELECT 1")) == 1
            patient.dispose()
            connection.execute(sa.text("SELECT 1"))

    with pytest.raises(StoreUnavailable):
        hang()
    hung.dispose()
    hasty.dispose()


@pytest.mark.parametrize("statement", ["SELECT nothing FROM nowhere", "NO SQL"])
def test_a_statement_that_is_wrong_is_a_fault_and_no_outage(database, statement):
    engine = open_engine(database)
    with pytest.raises(StoreRefused), transaction(engine) as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize("location", ["nonsense://x", "oracle+nothing://x/y", "sqlite+missing:///x"])
def test_a_url_that_names_no_database_is_refused(location):
    with pytest.raises(FleetError, match="store"):
        open_engine(location)


def test_a_server_that_is_not_there_is_unavailable():
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed here")
    with pytest.raises(StoreUnavailable):
        migrate(open_engine("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"))
