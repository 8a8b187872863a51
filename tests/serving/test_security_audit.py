"""The audit log: what goes in, and that nothing can be changed in it unnoticed."""

import gzip
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from datetime import date

import pandas as pd
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from citybrain_datasets.main import build_app
from citybrain_serving.app import create_app
from citybrain_serving.backup import backup
from citybrain_serving.database import VERSIONS, migrate, open_engine
from citybrain_serving.errors import FleetError, SafetyError, StoreUnavailable
from citybrain_serving.safety.audit import AuditLog, Broken, Head, read_secret
from citybrain_serving.safety.audit_archive import archive, archived
from citybrain_serving.safety.commands import audit as audit_command
from citybrain_serving.safety.commands import keys as keys_command
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.ledger import Ledger
from citybrain_serving.safety.roles import Role
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings


def opened(location: str) -> sa.Engine:
    engine = open_engine(location)
    migrate(engine)
    return engine


def engine_of(path) -> sa.Engine:
    return opened(str(path / "audit.sqlite"))


@pytest.fixture
def log(location) -> Iterator[AuditLog]:
    """Six entries, on SQLite and on PostgreSQL."""
    made = AuditLog(opened(location))
    made.append([{"n": n, "who": "王"} for n in range(3)])
    made.append([{"n": n} for n in range(3, 6)])
    yield made
    made.engine.dispose()


def tamper(log: AuditLog, *statements: str) -> None:
    """What somebody with the database in hand could do: the triggers go first."""
    with log.engine.begin() as connection:
        for verb in ("UPDATE", "DELETE"):
            on = " ON audit" if log.engine.dialect.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS audit_keeps_{verb}{on}")
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_an_untouched_log_verifies(log):
    head = log.verify()
    assert head == log.head()
    assert head.number == 6
    assert [told["n"] for _, told in log.read()] == list(range(6))
    assert log.verify(Head(6, head.seal)) == head


def test_the_empty_log_verifies(tmp_path):
    assert AuditLog(engine_of(tmp_path)).verify().number == 0


@pytest.mark.parametrize("verb", ["UPDATE audit SET entry = '{}'", "DELETE FROM audit"])
def test_the_database_itself_refuses_to_change_an_entry(log, verb):
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), log.engine.begin() as connection:
        connection.exec_driver_sql(verb)


SWAP = (
    "UPDATE audit SET number = 100 WHERE number = 2",
    "UPDATE audit SET number = 2 WHERE number = 4",
    "UPDATE audit SET number = 4 WHERE number = 100",
)


@pytest.mark.parametrize(
    ("statements", "at"),
    [
        (["UPDATE audit SET entry = replace(entry, '2', '9') WHERE number = 3"], 3),
        (["UPDATE audit SET seal = '" + "0" * 64 + "' WHERE number = 3"], 3),
        (["DELETE FROM audit WHERE number = 1"], 1),
        (["DELETE FROM audit WHERE number = 4"], 4),
        (["DELETE FROM audit WHERE number = 6"], 6),
        (["DELETE FROM audit"], 1),
        (["DELETE FROM audit_head"], 1),
        (["UPDATE audit_head SET number = 5"], 6),
        (["INSERT INTO audit SELECT 7, entry, seal FROM audit WHERE number = 6"], 7),
        (["DELETE FROM audit WHERE number = 4", "UPDATE audit SET number = number - 1 WHERE number > 4"], 4),
        (SWAP, 2),
    ],
)
def test_edits_deletions_insertions_and_moves_are_found(log, statements, at):
    tamper(log, *statements)
    found = log.verify()
    assert isinstance(found, Broken)
    assert found.number == at


@settings(max_examples=12, deadline=None)
@given(
    data=st.data(), entries=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9)), min_size=1, max_size=8)
)
def test_any_change_of_any_entry_is_found(tmp_path_factory, data, entries):
    log = AuditLog(engine_of(tmp_path_factory.mktemp("log")), b"s" * 32)
    log.append(entries)
    assert isinstance(log.verify(), Head)
    number = data.draw(st.integers(1, len(entries)))
    other = data.draw(
        st.dictionaries(st.text(max_size=5), st.text(max_size=9)).filter(lambda e: e != entries[number - 1])
    )
    tamper(log)
    with log.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE audit SET entry = :e WHERE number = :n"), {"e": json.dumps(other), "n": number}
        )
    assert log.verify() == Broken(number, log.verify().what)


def test_a_log_sealed_anew_is_found_by_the_secret_or_a_noted_head(tmp_path):
    secret = AuditLog(engine_of(tmp_path), b"a secret of at least 32 bytes ok.")
    noted = secret.append([{"n": 1}, {"n": 2}])
    tamper(secret, "DELETE FROM audit", "DELETE FROM audit_head")
    forged = AuditLog(secret.engine, b"")
    forged.append([{"n": 1}, {"n": 3}])
    assert isinstance(forged.verify(), Head)
    assert isinstance(secret.verify(), Broken)
    assert isinstance(forged.verify(noted), Broken)


def test_a_log_put_back_to_an_earlier_day_is_found_by_a_noted_head(log):
    before = log.head()
    noted = log.append([{"n": 6}])
    tamper(log, "DELETE FROM audit WHERE number = 7", f"UPDATE audit_head SET number = 6, seal = '{before.seal}'")
    assert isinstance(log.verify(), Head)
    assert log.verify(noted).what == "the log ends at entry 6; 7 was noted"


def test_writers_at_the_same_time_keep_one_chain(location):
    logs = [AuditLog(opened(location)) for _ in range(3)]

    def write(log: AuditLog) -> None:
        for n in range(5):
            log.append([{"n": n}, {"n": -n}])

    threads = [threading.Thread(target=write, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logs[0].verify() == logs[1].head()
    assert logs[2].head().number == 30
    for log in logs:
        log.engine.dispose()


def test_a_log_that_is_written_meanwhile_verifies(log, monkeypatch):
    rows, others = AuditLog._rows, AuditLog(log.engine)

    def later(self, connection):
        others.append([{"n": 6}])
        return rows(self, connection)

    monkeypatch.setattr(AuditLog, "_rows", later)
    assert log.verify().number == 6


FURTHER = """UPDATE audit SET entry = replace(entry, '"through":10', '"through":11')"""
DAYS = [date(2026, 1, day) for day in (2, 3, 4)]


@pytest.fixture
def dated(location) -> Iterator[AuditLog]:
    """Ten entries of each of three days."""
    made = AuditLog(opened(location), b"a secret of at least 32 bytes ok.")
    made.append(
        [{"at": f"2026-01-0{day}T{hour:02}:00:00.000+00:00", "n": hour} for day in (1, 2, 3) for hour in range(10)]
    )
    yield made
    made.engine.dispose()


def test_the_chain_holds_across_what_was_archived(dated, tmp_path):
    before = dated.verify()
    assert archive(dated, date(2026, 1, 1), tmp_path, "li") is None
    first = archive(dated, DAYS[0], tmp_path, "li")
    assert (first.first, first.last, first.path.name) == (1, 10, "audit-000000000001-000000000010.jsonl.gz")
    noted = dated.verify()
    assert noted.number == 31
    second = archive(dated, DAYS[1], tmp_path, "li")
    assert (second.first, second.last) == (11, 20)
    assert [n for n, _ in dated.read()] == list(range(21, 33))
    told = dated.read(31, 1)[0][1]
    assert (told["what"], told["who"], told["through"]) == ("log archived", "li", 10)
    assert told["sha256"] == hashlib.sha256(first.path.read_bytes()).hexdigest()
    # What was noted is still found, in the log or, of an entry that has left it, together with the files.
    assert dated.verify(before) == dated.verify(noted) == dated.verify(noted, archived(tmp_path)) == dated.head()
    inside = next(Head(e.number, e.seal) for e in archived(tmp_path) if e.number == 7)
    assert dated.verify(inside, archived(tmp_path)) == dated.head()
    assert dated.verify(Head(7, "0" * 64), archived(tmp_path)).number == 7
    assert dated.verify(Head(20, "0" * 64)).number == 20
    with pytest.raises(SafetyError, match="entry 7 was archived"):
        dated.verify(inside)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), dated.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit")
    dated.append([{"n": 33}])
    assert dated.verify().number == 33


@pytest.mark.parametrize(
    ("statements", "at"),
    [
        (["DELETE FROM audit WHERE number = 11"], 1),  # more is gone than any entry says
        (["DELETE FROM audit WHERE number < 31"], 1),
        ((FURTHER, "DELETE FROM audit WHERE number = 11"), 12),
        (["UPDATE audit SET entry = replace(entry, 'li', 'me') WHERE number = 31"], 31),
    ],
)  # fmt: skip
def test_what_was_not_archived_cannot_pass_for_it(dated, tmp_path, statements, at):
    archive(dated, DAYS[0], tmp_path, "li")
    tamper(dated, *statements)
    assert dated.verify().number == at


def test_an_archive_that_was_changed_is_found(dated, tmp_path):
    path = archive(dated, DAYS[1], tmp_path, "li").path
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    for changed, at in (
        (lines[:4] + lines[5:], 5),
        (lines[:-1], 20),
        ([lines[0].replace(b"00:00", b"01:00"), *lines[1:]], 1),
    ):
        path.write_bytes(gzip.compress(b"".join(changed)))
        assert dated.verify(None, archived(tmp_path)).number == at
    for spoilt in (b"no gzip", gzip.compress(b"".join(lines))[:-50], gzip.compress(b'{"number": 1}')):
        path.write_bytes(spoilt)
        with pytest.raises(SafetyError, match="is no archive"):
            dated.verify(None, archived(tmp_path))


def test_an_archive_that_was_cut_off_is_made_again(dated, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "drop", _failing)
        with pytest.raises(StoreUnavailable):
            archive(dated, DAYS[0], tmp_path, "li")
    assert dated.verify(None, archived(tmp_path)) == dated.verify() == dated.head()  # the file is ahead of the log
    assert archive(dated, DAYS[0], tmp_path, "li").last == 10
    (path,) = tmp_path.glob("*.gz")
    other = AuditLog(opened(str(tmp_path / "other.sqlite")))
    other.append([{"at": "2026-01-01", "n": n} for n in range(10)])
    kept = path.read_bytes()
    with pytest.raises(SafetyError, match="holds something else"):
        archive(other, DAYS[0], tmp_path, "li")
    assert path.read_bytes() == kept
    tamper(other, "UPDATE audit SET entry = '{}' WHERE number = 2")
    with pytest.raises(SafetyError, match="tampered"):
        archive(other, DAYS[0], tmp_path / "elsewhere", "li")


def test_a_secret_must_be_a_secret(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"x" * 40)
    os.chmod(path, 0o644)
    with pytest.raises(SafetyError, match="others can read"):
        read_secret(path)
    os.chmod(path, 0o600)
    assert len(read_secret(path)) == 40
    path.write_bytes(b"short")
    with pytest.raises(SafetyError, match="at least 32"):
        read_secret(path)
    with pytest.raises(SafetyError, match="cannot be read"):
        read_secret(tmp_path / "none")


@pytest.fixture
def told(bundles, tmp_path):
    """Everything in the audit log after some use of a service."""

    def use(work) -> list[dict]:
        store = str(tmp_path / "s.sqlite")
        ring = KeyRing(opened(store))
        _, key = ring.create("screen", Role.ADMIN)
        service = Service(bundles.values(), Settings(store=store, clock="observations"))
        with TestClient(create_app(service), headers={"Authorization": f"Bearer {key}"}) as client:
            work(client, service)
        log = AuditLog(opened(store))
        assert isinstance(log.verify(), Head)
        text = json.dumps(log.read())
        assert key not in text
        assert key.split("_", 2)[2] not in text
        return [entry for _, entry in log.read()]

    return use


def test_it_says_who_asked_what_and_which_model_and_inputs_answered(told, rows):
    digests = []

    def work(client, service):
        assert client.post("/v1/observations", json={"observations": rows(30)}).status_code == 200
        service.cycle.run()
        for _ in range(3):
            assert client.get("/v1/forecasts/congestion?ids=r1").status_code == 200
        digests.append(service.snapshot.forecasts["congestion"].digest)
        assert client.get("/v1/forecasts/congestion", headers={"Authorization": "Bearer no"}).status_code == 401

    entries = told(work)
    read = next(e for e in entries if e["what"] == "asked" and e["query"] == "ids=r1")
    assert read["who"].endswith(":screen")
    assert read["count"] == 3
    assert digests[0] in read["answered_from"]
    published = next(e for e in entries if e.get("digest") == digests[0])
    assert published["bundle"] == "c0c0c0c0c0c0"
    assert published["source"] == "model"
    assert published["inputs_newest"].startswith("2026-03-17")
    refused = next(e for e in entries if e.get("status") == 401)
    assert refused["who"] == "public@testclient"


def test_a_decision_is_on_disk_before_it_is_done(told, monkeypatch):
    def work(client, _service):
        client.post("/v1/cases/7/close")
        monkeypatch.setattr(Ledger, "record", _failing)
        assert client.post("/v1/cases/8/close").status_code == 503

    decisions = [e["path"] for e in told(work) if e["what"] == "decides"]
    assert decisions == ["/v1/cases/7/close"]


def test_it_says_what_was_decided_about_which_case(told, rows):
    def work(client, service):
        client.post("/v1/observations", json={"observations": rows(30)})
        service.cycle.run()
        assert client.post("/v1/cases", json={"task": "congestion", "id": "r3"}).status_code == 201
        for action in ("dispatch", "close"):
            assert client.post("/v1/cases/1/steps", json={"action": action}).status_code == 200

    entries = told(work)
    (opened,) = [e for e in entries if e["what"] == "opens case"]
    assert (opened["task"], opened["id"]) == ("congestion", "r3")
    assert opened["who"].endswith(":screen")
    steps = [(e["case"], e["id"], e["state"], e["action"]) for e in entries if e["what"] == "takes step"]
    assert steps == [(1, "r3", "discovered", "dispatch"), (1, "r3", "dispatched", "close")]


def test_a_step_that_cannot_be_recorded_is_not_taken(told, rows, monkeypatch):
    def work(client, service):
        client.post("/v1/observations", json={"observations": rows(30)})
        service.cycle.run()
        client.post("/v1/cases", json={"task": "congestion", "id": "r3"})
        record = Ledger.record

        def failing(self, who, what, **details):
            (_failing if what == "takes step" else record)(self, who, what, **details)

        monkeypatch.setattr(Ledger, "record", failing)
        assert client.post("/v1/cases/1/steps", json={"action": "close"}).status_code == 503
        assert client.get("/v1/cases/1").json()["state"] == "discovered"
        monkeypatch.undo()

    told(work)


def test_it_says_which_forecast_of_the_history_answered(told, rows):
    digests = {}

    def work(client, service):
        for until in ("2026-03-16T12:00:00Z", "2026-03-16T12:05:00Z"):
            client.post("/v1/observations", json={"observations": rows(30, pd.Timestamp(until))})
            service.step()
            digests[until] = service.snapshot.forecasts["congestion"].digest
        for index in ("", "&index=tpi"):
            asked = f"/v1/forecasts/congestion?issued=2026-03-16T12:00:00Z{index}"
            assert client.get(asked).status_code == 200

    entries = told(work)
    for query in ("issued=2026-03-16T12:00:00Z", "issued=2026-03-16T12:00:00Z&index=tpi"):
        asked = next(e for e in entries if e["what"] == "asked" and e["query"] == query)
        assert asked["answered_from"] == [digests["2026-03-16T12:00:00Z"]]
    described = {e["digest"] for e in entries if e["what"].startswith("forecast ")}
    assert set(digests.values()) <= described


def test_it_says_which_model_ran(told, bundles):
    def work(client, service):
        assert client.post("/v2/models/congestion/infer", json={"inputs": []}).status_code == 400
        assert client.post("/v2/models/noise/infer", json={"inputs": []}).status_code == 404

    entries = [e for e in told(work) if e["what"] == "asked"]
    ran = next(e for e in entries if e["path"] == "/v2/models/congestion/infer")
    bundle = bundles["congestion"]
    assert ran["model"] == {"task": "congestion", "version": bundle.version, "digest": bundle.digest}
    assert "model" not in next(e for e in entries if e["path"] == "/v2/models/noise/infer")


def test_a_query_that_is_cut_says_so(told):
    ids = ",".join(f"r{n}" for n in range(1_000))

    def work(client, _service):
        client.get(f"/v1/city?ids={ids}")
        client.get("/v1/city?ids=" + "r1," * 100)

    queries = {e["query"] for e in told(work) if e["what"] == "asked"}
    assert queries == {f"ids={ids}"[:2_000] + f"… ({len(ids) + 4} characters)", "ids=" + "r1," * 100}


def _failing(*_args, **_kwargs):
    raise StoreUnavailable("full")


def test_what_cannot_be_written_now_is_written_later(tmp_path, monkeypatch):
    log = AuditLog(engine_of(tmp_path))
    ledger = Ledger(log, lambda: None, 60)
    ledger.note("key:1", "GET", "/v1/city", "", 200)
    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "append", _failing)
        ledger.flush()
    assert log.head().number == 0
    ledger.note("key:1", "GET", "/v1/city", "", 200)
    ledger.flush()
    assert log.read()[0][1]["count"] == 2


def test_the_ledger_does_not_grow_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("citybrain_serving.safety.ledger.MOST_KINDS", 5)
    log = AuditLog(engine_of(tmp_path))
    ledger = Ledger(log, lambda: None, 60)
    for n in range(50):
        ledger.note("key:1", "GET", f"/{n}", "", 404)
    ledger.flush()
    entries = [entry for _, entry in log.read()]
    assert len(entries) <= 6
    assert sum(entry["count"] for entry in entries) == 50


def test_callers_without_a_key_cannot_fill_the_log(bundles, tmp_path):
    """Each refusal of a stranger is counted, none with its words; and strangers have a rate."""
    store = str(tmp_path / "s.sqlite")
    KeyRing(opened(store)).create("root", Role.ADMIN)
    service = Service(bundles.values(), Settings(store=store, rate_per_second=0.001, rate_burst=30))
    app = create_app(service)
    with TestClient(app) as client:
        headers = [{}, {"Authorization": "Basic bm8="}]
        answers = [client.get(f"/v1/forecasts/{n}?{n}", headers=headers[n % 2]).status_code for n in range(50)]
        assert answers == [401] * 30 + [429] * 20
    noted = [entry for _, entry in app.state.ledger.audit.read() if entry["what"] == "asked"]
    assert {(e["who"], e["path"], e["query"], e["status"]): e["count"] for e in noted} == {
        ("public@testclient", "…", "", 401): 30,
        ("public@testclient", "…", "", 429): 20,
    }


def test_what_the_public_asks_is_told_apart_up_to_a_bound(bundles, tmp_path, monkeypatch):
    monkeypatch.setattr("citybrain_serving.safety.ledger.MOST_STRANGERS", 5)
    store = str(tmp_path / "s.sqlite")
    KeyRing(opened(store)).create("root", Role.ADMIN)
    app = create_app(Service(bundles.values(), Settings(store=store, open_to_public=True)))
    with TestClient(app) as client:
        for n in range(50):
            assert client.get(f"/v1/roads/{n}").status_code == 404
    noted = [entry for _, entry in app.state.ledger.audit.read() if entry["what"] == "asked"]
    assert [e["path"] for e in noted] == [*(f"/v1/roads/{n}" for n in range(5)), "…"]
    assert (noted[-1]["who"], noted[-1]["count"]) == ("public", 45)


@pytest.mark.parametrize(
    "asked",
    [
        ["audit", "verify"],
        ["audit", "show"],
        ["keys", "list"],
        ["keys", "revoke", "0" * 12],
        ["store", "backup", "{}/copy.sqlite"],
        ["store", "archive", "--before", "2026-01-01", "--out", "{}/archive"],
        ["store", "upgrade"],
    ],
)
def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path, asked):
    for store in (tmp_path / "var" / "typo.sqlite", f"sqlite:///{tmp_path}/typo.sqlite"):
        words = [*(word.format(tmp_path) for word in asked), "--store", str(store)]
        done = CliRunner().invoke(build_app(words), words)
        assert isinstance(done.exception, FleetError), done.output
        assert "typo.sqlite: there is none" in str(done.exception)
        assert not list(tmp_path.iterdir())


def test_another_database_is_no_store(tmp_path):
    (tmp_path / "empty.sqlite").touch()
    for asked in (["audit", "verify"], ["keys", "revoke", "0" * 12]):
        words = [*asked, "--store", str(tmp_path / "empty.sqlite")]
        done = CliRunner().invoke(build_app(words), words)
        assert isinstance(done.exception, FleetError)
        assert "holds nothing of this service" in str(done.exception)
    assert (tmp_path / "empty.sqlite").stat().st_size == 0


def test_the_log_is_verified_without_a_change_to_the_store(tmp_path):
    """That of an older schema too, and of a copy, which is one file."""
    engine = engine_of(tmp_path)
    AuditLog(engine).append([{"n": 1}])
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE held_models")
        connection.exec_driver_sql(f"UPDATE {VERSIONS} SET version_num = '0006'")
    backup(engine, tmp_path / "copy.sqlite")
    before = (tmp_path / "copy.sqlite").read_bytes()
    verified = CliRunner().invoke(audit_command, ["verify", "--store", str(tmp_path / "copy.sqlite")])
    assert "1 entries, unbroken" in verified.output
    assert (tmp_path / "copy.sqlite").read_bytes() == before
    assert not list(tmp_path.glob("copy.sqlite-*"))


def test_what_is_opened_to_read_cannot_be_changed(location):
    opened(location).dispose()
    reading = open_engine(location, new=False, reading=True)
    with pytest.raises(StoreUnavailable):
        AuditLog(reading).append([{"n": 1}])
    assert AuditLog(reading).verify().number == 0
    reading.dispose()


def test_the_commands_make_keys_and_verify_the_log(tmp_path):
    run = CliRunner()
    store = ["--store", str(tmp_path / "s.sqlite")]
    made = run.invoke(keys_command, ["create", "--role", "operator", "--name", "desk", "--owner", "west", *store])
    assert made.exit_code == 0, made.output
    text = made.stdout.splitlines()[0]
    ring = KeyRing(opened(store[1]))
    assert ring.verify(text).owners == ("west",)
    listed = run.invoke(keys_command, ["list", *store])
    assert "desk" in listed.output
    assert text not in listed.output
    assert run.invoke(keys_command, ["revoke", ring.list()[0].id, *store]).exit_code == 0
    assert ring.verify(text) is None
    verified = run.invoke(audit_command, ["verify", *store])
    assert "2 entries, unbroken" in verified.output
    head = verified.output.split()[-1]
    assert run.invoke(audit_command, ["verify", "--head", head, *store]).exit_code == 0
    shown = [json.loads(line) for line in run.invoke(audit_command, ["show", *store]).output.splitlines()]
    assert [entry["what"] for entry in shown] == ["key created", "key revoked"]
    for choice, number in ((["--most", "1"], 2), (["--most", "1", "--first", "1"], 1)):
        (line,) = run.invoke(audit_command, ["show", *choice, *store]).output.splitlines()
        assert json.loads(line)["number"] == number  # the newest, unless asked otherwise
    tamper(AuditLog(opened(store[1])), "DELETE FROM audit WHERE number = 1")
    assert isinstance(run.invoke(audit_command, ["verify", *store]).exception, SafetyError)


def test_entries_are_archived_by_command_and_verified_with_and_without(tmp_path):
    run, store = CliRunner(), ["--store", str(tmp_path / "s.sqlite")]
    for name in ("one", "two"):
        assert run.invoke(keys_command, ["create", "--role", "viewer", "--name", name, *store]).exit_code == 0
    out = ["--out", str(tmp_path / "old")]
    assert "nothing that old" in run.invoke(audit_command, ["archive", "--before", "2000-01-01", *out, *store]).output
    assert "entries 1 to 2." in run.invoke(audit_command, ["archive", "--before", "2999-01-01", *out, *store]).output
    assert "entries 3 to 3, unbroken" in run.invoke(audit_command, ["verify", *store]).output
    whole = run.invoke(audit_command, ["verify", "--archives", str(tmp_path / "old"), *store])
    assert "3 entries, unbroken" in whole.output
    (path,) = (tmp_path / "old").iterdir()
    path.unlink()
    assert isinstance(
        run.invoke(audit_command, ["verify", "--archives", str(path.parent), *store]).exception, SafetyError
    )
