"""A model swapped on one replica is swapped on all of them, and stays so when they start again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from citybrain_models.bundle import Bundle
from citybrain_serving.bench.processes import Server, service
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.replicas.appointments import GONE_S, Appointments
from citybrain_serving.safety.audit import AuditLog, Head
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.roles import Role
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

MODELS, SWAP = "/v1/models", "/v1/models/pm25/swap"


@pytest.fixture
def copies(tmp_path: Path, bundles) -> dict[str, Bundle]:
    """The same network three times, under digests of their own, in folders of their names."""
    made = {name: replace(bundles["pm25"], card=f"copy {name}", digest="") for name in "abc"}
    return {name: bundle.write(tmp_path / "models" / name) for name, bundle in made.items()}


@pytest.fixture
def start(tmp_path: Path, copies) -> Iterator[Callable[..., Service]]:
    """Starts a service on a store as ``citybrain serve models/NAME`` does; its steps are the test's."""
    made: list[Service] = []

    def started(store: str, name: str = "a", **changed: object) -> Service:
        root = tmp_path / "models"
        settings = Settings(**{"store": store, "clock": "observations", "bundle_root": root} | changed)
        one = Service([Bundle.read(root / name)], settings, homes={"pm25": root / name})
        one.appointments.replica = f"replica {len(made)}"
        one.leadership.start()
        made.append(one)
        return one

    yield started
    for each in made:
        each.close()


def swap(on: Service, copies: dict[str, Bundle], name: str) -> None:
    on.roster.swap(copies[name], lambda new, old: on.following.want(new, "ann", name))


def held(service: Service) -> str:
    return service.fleet.bundles["pm25"].digest


def test_the_others_follow_a_swap_and_its_rollback_at_their_next_step(database, start, copies):
    one, other = start(database), start(database)
    swap(other, copies, "b")
    one.step()
    assert held(one) == held(other) == copies["b"].digest
    other.step()
    told = {h.replica: (h.digest, h.problem) for h in other.appointments.replicas()["pm25"]}
    assert told == dict.fromkeys(("replica 0", "replica 1"), (copies["b"].digest, ""))
    warm = one.roster._before["pm25"].forecaster
    other.roster.rollback("pm25", lambda new, old: other.following.want(new, "ann"))
    one.step()
    assert held(one) == held(other) == copies["a"].digest
    assert one.cycle.forecasters["pm25"] is warm  # kept, not loaded again
    one.step()
    assert held(one) == copies["a"].digest


def test_a_swap_outlives_its_process_and_a_start_with_another_bundle_outlives_the_swap(location, start, copies):
    one = start(location)
    swap(one, copies, "b")
    swap(one, copies, "c")
    same, upgraded, changed = (start(location, name) for name in "acb")
    for each in (same, upgraded, changed):
        each.appointments.clock = lambda _: time.time() + 10
        each.following._since += 10  # started a while after the swap
        each.step()
    assert held(same) == held(upgraded) == copies["c"].digest
    assert held(changed) == copies["b"].digest
    assert changed.following.problems == {"pm25": "was started with another bundle after the swap"}
    same.roster.rollback("pm25", lambda new, old: same.following.want(new, "ann"))
    for each in (one, upgraded, changed):
        each.step()
    assert held(one) == held(upgraded) == held(changed) == copies["a"].digest


def test_who_cannot_follow_says_why_and_answers_on(database, start, copies, tmp_path):
    one, other = start(database), start(database, bundle_root=tmp_path / "elsewhere")
    swap(one, copies, "b")
    other.step()
    assert held(other) == copies["a"].digest
    (told,) = [h for h in one.appointments.replicas()["pm25"] if h.replica == "replica 1"]
    assert told.digest == copies["a"].digest
    assert "b: is no bundle folder" in told.problem
    metrics = other.telemetry.render(None, None, lambda _: False).decode()
    assert 'citybrain_model_follows{task="pm25"} 0.0' in metrics


def test_a_bundle_that_was_replaced_on_disk_is_not_taken_for_the_one_wanted(database, start, copies, tmp_path):
    one, other = start(database), start(database)
    swap(one, copies, "b")
    replace(copies["c"], digest="").write(tmp_path / "models" / "b")
    other.step()
    assert held(other) == copies["a"].digest
    assert "is another one by now" in other.following.problems["pm25"]


def test_a_replica_that_has_gone_silent_is_told_of_no_longer(location):
    engine = open_engine(location)
    migrate(engine)
    now = 1_000_000.0
    one, other = (Appointments(engine, name, lambda _: now) for name in ("one", "other"))
    one.report({"pm25": "d" * 64}, {})
    now += GONE_S + 1
    other.report({"pm25": "e" * 64}, {"pm25": "too large"})
    assert [(h.replica, h.problem) for h in one.replicas()["pm25"]] == [("other", "too large")]
    engine.dispose()


def test_replicas_whose_clocks_are_an_hour_apart_know_of_each_other(database, start, copies, monkeypatch):
    """What one writes down for the others to judge goes by the database's clock."""
    one, other = start(database), start(database)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    one.step()
    changed = start(database, "c")
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    other.step()
    for each in (one, other):
        assert {h.replica for h in each.appointments.replicas()["pm25"]} == {"replica 0", "replica 1"}
    swap(other, copies, "b")  # by a clock two hours before that by which the third was started, and yet after it
    changed.step()
    assert (held(changed), changed.following.problems) == (copies["b"].digest, {})


def eventually(holds: Callable[[], object], within: float = 60.0) -> None:
    """Asks again until something holds; what other processes do takes a moment."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)  # between two questions; nothing rests on how long


def test_two_servers_swap_together_and_the_audit_log_says_who_did(database, copies, tmp_path):
    engine = open_engine(database)
    migrate(engine)
    _, key = KeyRing(engine).create("ann", Role.ADMIN)
    client = httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60)
    folder, settings = [tmp_path / "models" / "a"], {"bundle_root": tmp_path / "models"}

    def answers_from(server: Server, name: str) -> bool:
        (about,) = client.get(f"{server.url}{MODELS}").raise_for_status().json()
        digests = {about["bundle"]["digest"], *(replica["digest"] for replica in about["replicas"])}
        return len(about["replicas"]) == 2 and digests == {copies[name].digest}

    with service(folder, database, settings=settings) as first, service(folder, database, settings=settings) as second:
        assert client.post(f"{second.url}{SWAP}", json={"bundle": "b"}).status_code == 200
        eventually(lambda: answers_from(first, "b") and answers_from(second, "b"))
        assert client.post(f"{first.url}/v1/models/pm25/rollback").status_code == 200
        eventually(lambda: answers_from(first, "a") and answers_from(second, "a"))
    log = AuditLog(engine)
    said = [(e["what"], e["who"].partition(":")[0]) for _, e in log.read() if "replaces" in e]
    assert said == [("swaps bundle", "key"), ("follows", "replica"), ("rolls back", "key"), ("follows", "replica")]
    assert isinstance(log.verify(), Head)
    engine.dispose()
