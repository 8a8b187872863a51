"""Several services on one database: one computes, all answer alike, another takes over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields

import httpx
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from citybrain_serving.bench.processes import Server, service
from citybrain_serving.database import transaction
from citybrain_serving.errors import Deposed, StoreUnavailable
from citybrain_serving.history import History
from citybrain_serving.replicas.leadership import APART_S, Elected
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.snapshot import Forecast
from citybrain_serving.store import Partial
from citybrain_serving.tables import forecasts, terms

END = pd.Timestamp("2026-03-17", tz="UTC")
FIVE = pd.Timedelta(minutes=5)
ROADS = "/v1/forecasts/congestion"


def eventually(holds: Callable[[], object], within: float = 60.0) -> None:
    """Asks again until something holds; what other processes do takes a moment."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)  # between two questions; nothing rests on how long


def observe(made: Service, city, hours: float) -> None:
    """The last hours of the city's own record, put into the store."""
    partials = []
    for name, signal in city.signals.items():
        cut = signal.between(END - pd.Timedelta(hours=hours), END)
        for at, values in zip(cut.times, cut.values, strict=True):
            partials.append(Partial(name, int(at.timestamp()), np.arange(len(values)), values))
    made.store.merge(partials)


@pytest.fixture
def pair(database, bundles) -> Iterator[tuple[Service, Service]]:
    """Two services on one database, their steps taken by the test; the first computes."""
    made = [Service(bundles.values(), Settings(store=database, clock="observations")) for _ in range(2)]
    for each in made:
        each.leadership.start()
    yield made[0], made[1]
    for each in made:
        each.close()


def test_a_forecast_goes_through_the_store_unchanged(location, bundles, city):
    made = Service(bundles.values(), Settings(store=location, clock="observations"))
    made.leadership.start()
    observe(made, city, 30)
    snapshot = made.step()
    found = made.relay.newest(None)
    assert list(found.forecasts) == list(snapshot.forecasts)
    for task, forecast in snapshot.forecasts.items():
        assert found.forecasts[task].digest == forecast.digest
        for field in fields(Forecast):
            if field.name == "computed":  # to the second
                continue
            before, after = getattr(forecast, field.name), getattr(found.forecasts[task], field.name)
            np.testing.assert_equal(after, before, err_msg=field.name)
    assert made.relay.newest(found) is found
    assert made.relay.newest(snapshot) is snapshot
    made.close()


def test_one_computes_and_the_other_answers_the_same(pair, city):
    one, other = pair
    assert (one.leadership.leads, other.leadership.leads) == (True, False)
    assert other.step() is None
    observe(one, city, 30)
    computed, shown = one.step(), other.step()
    assert {n: f.digest for n, f in shown.forecasts.items()} == {n: f.digest for n, f in computed.forecasts.items()}
    for name, forecast in computed.forecasts.items():
        np.testing.assert_array_equal(shown.forecasts[name].observed_times, forecast.observed_times)
    assert {n: [(p.node, p.causes) for p in found] for n, found in other.problems.items()} == {
        n: [(p.node, p.causes) for p in found] for n, found in one.problems.items()
    }
    assert other.step() is shown
    with transaction(one.store.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(forecasts)) == 2


def test_the_other_takes_over_when_the_first_lets_go(pair, city):
    one, other = pair
    observe(one, city, 30)
    before = one.step()
    other.step()
    one.leadership.stop()
    eventually(lambda: other.leadership.leads)
    assert other.leadership.term == 2
    after = other.step()
    assert {n: f.digest for n, f in after.forecasts.items()} == {n: f.digest for n, f in before.forecasts.items()}


def test_who_slept_through_its_end_publishes_nothing(pair, city):
    """As after a suspended machine: the lock is somebody else's, and the sleeper does not know it yet."""
    one, _ = pair
    observe(one, city, 30)
    held = one.step()
    with transaction(one.store.engine, write=True) as connection:
        connection.execute(terms.update().values(term=7))
    with pytest.raises(Deposed), transaction(one.store.engine, write=True) as connection:
        one.leadership.confirm(connection)
    with pytest.raises(Deposed):
        one.relay.publish(held.forecasts.values())
    eventually(lambda: one.leadership.term != 1)


def test_a_connection_that_is_lost_is_made_again(pair):
    one, other = pair
    with transaction(other.store.engine) as connection:
        ended = connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7236002")
        ).all()
    assert ended == [(True,)]
    eventually(lambda: {one.leadership.term, other.leadership.term} == {0, 2})
    eventually(lambda: one.leadership.connected and other.leadership.connected)


def test_readings_that_reach_the_other_are_computed_by_the_first(pair, city):
    one, other = pair
    observe(one, city, 30)
    heard: list[object] = []
    one.leadership.heard = heard.append
    other.leadership.tell_arrived(["speed", "pm25"])
    eventually(lambda: heard)
    assert sorted(heard[0]) == ["pm25", "speed"]


def test_without_the_database_nobody_leads_and_forecasts_are_called_stale(database, bundles, city, monkeypatch):
    made = Service(bundles.values(), Settings(store=database, clock="observations"))
    made.leadership.start()
    observe(made, city, 30)
    forecast = made.step().forecasts["congestion"]
    assert not made.stale(forecast)
    monkeypatch.setattr(Elected, "_join", _unreachable)
    with sa.create_engine(made.store.engine.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7236002")
        )
    eventually(lambda: not made.leadership.connected)
    assert made.stale(forecast)
    assert made.snapshot.forecasts["congestion"] is forecast
    monkeypatch.undo()
    eventually(lambda: made.leadership.leads)
    assert not made.stale(forecast)
    made.close()


def _unreachable(_self: Elected) -> None:
    raise Deposed("stands for a database that is gone")


def test_what_cannot_be_published_is_published_later(pair, city, monkeypatch):
    one, other = pair
    observe(one, city, 30)
    write = History.write

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(History, "write", away)
    assert one.step() is not None
    assert other.step() is None
    monkeypatch.setattr(History, "write", write)
    one.step(touched=())
    assert other.step().forecasts.keys() == {"congestion", "pm25"}


def test_a_clock_that_is_not_the_databases_is_told_and_costs_nobody_a_lease(pair, city, live):
    one, other = pair
    observe(one, city, 30)
    one.step()
    other.step()
    one.leadership.clock = lambda: time.time() - 400
    eventually(lambda: one.leadership.ahead < -399)
    assert (one.leadership.leads, other.leadership.leads) == (True, False)
    with live(one, lifespan="off") as wrong, live(other, lifespan="off") as right:
        told = httpx.get(f"{wrong}/readyz").json()
        assert told == {"status": "ready", "role": "computes", "clock": "400 s behind the database's"}
        assert httpx.get(f"{right}/readyz").json() == {"status": "ready", "role": "stands-by"}
        (line,) = (m for m in httpx.get(f"{wrong}/metrics").text.splitlines() if m.startswith("citybrain_clock_ahead"))
        assert float(line.split()[1]) == pytest.approx(-400, abs=1)
    one.leadership.stop()
    eventually(lambda: other.leadership.leads)
    assert np.isnan(one.leadership.ahead)
    assert abs(other.leadership.ahead) < APART_S


def computing(server: Server) -> bool:
    answer = httpx.get(f"{server.url}/readyz", timeout=10)
    return answer.status_code == 200 and answer.json()["role"] == "computes"


def test_two_processes_answer_alike_and_the_second_goes_on_when_the_first_is_killed(database, bundles, rows, tmp_path):
    folders = [tmp_path / name for name in bundles]
    for folder in folders:
        bundles[folder.name].write(folder)
    with service(folders, database) as first, service(folders, database) as second:
        readings = {"observations": rows(30)}
        assert httpx.post(f"{second.url}/v1/observations", json=readings, timeout=60).status_code == 200
        tags = {}

        def alike() -> bool:
            answers = [httpx.get(f"{s.url}{ROADS}", timeout=10) for s in (first, second)]
            tags.update(zip("ab", (a.headers.get("etag") for a in answers), strict=True))
            return all(a.status_code == 200 for a in answers) and answers[0].content == answers[1].content

        eventually(alike)
        assert tags["a"] == tags["b"] is not None
        assert [computing(first), computing(second)] == [True, False]
        first.kill()
        eventually(lambda: computing(second))
        assert httpx.get(f"{second.url}{ROADS}", headers={"If-None-Match": tags["b"]}).status_code == 304
        later = [{"id": "r1", "signal": "speed", "time": str(END + FIVE), "value": 31.0}]
        assert httpx.post(f"{second.url}/v1/observations", json={"observations": later}).json()["accepted"] == 1
        eventually(lambda: httpx.get(f"{second.url}{ROADS}").json()["issued"] == f"{END + FIVE:%Y-%m-%dT%H:%M:%SZ}")
