"""Limits and hardening: rate, load, time, size, headers, hosts, bundles (OWASP API4, API6, API7, API8, API10)."""

import asyncio
import json
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from citybrain_models.bundle import Bundle, BundleError
from citybrain_serving.app import create_app
from citybrain_serving.commands import serve
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.errors import SafetyError, StoreUnavailable
from citybrain_serving.readings import readings_from_json
from citybrain_serving.safety import limits
from citybrain_serving.safety.bundles import read_allow_list, read_bundle
from citybrain_serving.safety.hosts import known_hosts
from citybrain_serving.safety.install import check_binding
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.limits import Buckets, Slots
from citybrain_serving.safety.roles import Role
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

FORECAST = "/v1/forecasts/congestion"


def opened(location: str) -> sa.Engine:
    engine = open_engine(location)
    migrate(engine)
    return engine


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(store=str(tmp_path / "s.sqlite"), clock="observations")


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_a_bucket_never_lets_through_more_than_agreed(rate, burst, gaps):
    now = 0.0
    buckets = Buckets(rate, burst, lambda: now)
    passed = 0
    for gap in gaps:
        now += gap
        passed += buckets.take("one") == 0
    assert passed <= burst + rate * sum(gaps) + 1e-6
    wait = buckets.take("one")
    now += wait + 1e-9
    assert buckets.take("one") == 0 or wait == 0
    assert buckets.take("two") == 0


def test_a_caller_over_its_rate_is_told_when_to_come_back(bundles, settings):
    _, text = KeyRing(opened(settings.store)).create("screen", Role.VIEWER)
    limited = settings.model_copy(update={"rate_per_second": 0.001, "rate_burst": 3})
    with TestClient(create_app(Service(bundles.values(), limited))) as client:
        headers = {"Authorization": f"Bearer {text}"}
        answers = [client.get("/v1/city", headers=headers) for _ in range(5)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].headers["content-type"] == "application/problem+json"
        assert client.get("/livez").status_code == 200


def test_under_load_refusals_are_quick_and_probes_answer(live, bundles, settings, monkeypatch):
    inside, go = threading.Semaphore(0), threading.Event()

    def slow(self, readings):
        inside.release()
        assert go.wait(20)
        raise StoreUnavailable("the answer does not matter")

    monkeypatch.setattr(Service, "take", slow)
    service = Service(bundles.values(), settings.model_copy(update={"in_flight": 2}))
    with live(service) as base:
        send = partial(httpx.post, f"{base}/v1/observations", json={"observations": []}, timeout=30)
        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert inside.acquire(timeout=20)
        refused = httpx.get(f"{base}/v1/city")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert httpx.get(f"{base}/livez").status_code == 200
        assert httpx.get(f"{base}/v2/health/live").status_code == 200
        go.set()
        for thread in threads:
            thread.join(20)
        assert httpx.get(f"{base}/v1/city").status_code == 200


def test_slots_are_given_in_turn_and_none_is_lost():
    async def crowd() -> tuple[int, list[int]]:
        slots, busy, most, done = Slots(2), 0, 0, []

        async def work(number: int) -> None:
            nonlocal busy, most
            assert await slots.enter()
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0)  # lets the others try
            busy -= 1
            done.append(number)
            slots.leave()

        gone = [asyncio.create_task(work(number)) for number in range(20)]
        await asyncio.sleep(0)
        gone[5].cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        assert slots.free == 2
        return most, done

    most, done = asyncio.run(crowd())
    assert most == 2
    assert done == [number for number in range(20) if number != 5]


def test_a_slot_that_came_as_its_caller_went_is_given_on():
    async def race() -> int:
        slots = Slots(1)
        await slots.enter()
        waiting = asyncio.create_task(slots.enter())
        await asyncio.sleep(0)
        slots.leave()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return slots.free

    assert asyncio.run(race()) == 1


def test_a_slot_that_came_as_the_time_was_up_is_used(monkeypatch):
    async def race() -> int:
        slots = Slots(1)
        await slots.enter()
        monkeypatch.setattr(limits, "BURST_S", 0.0)
        monkeypatch.setattr(limits, "OVERLOAD_S", 0.0)
        waiting = asyncio.create_task(slots.enter())
        while not slots._waiting:
            await asyncio.sleep(0)
        slots.leave()  # in the same round in which the timer of the waiting one runs out
        if await waiting:
            slots.leave()
        return slots.free

    assert asyncio.run(race()) == 1


def test_a_burst_waits_and_an_overload_does_not(monkeypatch):
    time = 0.0
    waits: list[float] = []
    timeout = asyncio.timeout
    monkeypatch.setattr(limits.asyncio, "timeout", lambda seconds: waits.append(seconds) or timeout(0))

    async def ask() -> bool:
        nonlocal time
        slots = Slots(1, lambda: time)
        assert await slots.enter()
        refused = not await slots.enter()
        time += 2 * limits.BURST_S
        return refused and not await slots.enter()

    assert asyncio.run(ask())
    assert waits == [limits.BURST_S, limits.OVERLOAD_S]


def test_in_an_overload_no_more_wait_than_can_be_worked_on():
    time = 0.0

    async def crowd() -> tuple[list[bool], int]:
        nonlocal time
        slots = Slots(2, lambda: time)
        assert [await slots.enter() for _ in range(2)] == [True, True]
        time += 2 * limits.BURST_S  # the slots have been taken for longer than a burst lasts
        waiting = [asyncio.create_task(slots.enter()) for _ in range(2)]
        await asyncio.sleep(0)
        turned_away = [slots.overrun(), await slots.enter(), *(await asyncio.gather(*waiting))]
        assert (slots.waiting, slots.overrun()) == (0, False)
        waiting = [asyncio.create_task(slots.enter()) for _ in range(2)]
        await asyncio.sleep(0)
        for _ in range(4):
            slots.leave()
        assert await asyncio.gather(*waiting) == [True, True]
        return turned_away, slots.free

    assert asyncio.run(crowd()) == ([True, False, False, False], 2)


def test_who_finds_no_slot_is_refused_and_a_slow_body_takes_none(live, bundles, settings, monkeypatch):
    inside, go = threading.Semaphore(0), threading.Event()

    def slow(self, readings):
        inside.release()
        assert go.wait(20)
        raise StoreUnavailable("the answer does not matter")

    monkeypatch.setattr(Service, "take", slow)
    monkeypatch.setattr(limits, "BURST_S", 0.05)
    service = Service(bundles.values(), settings.model_copy(update={"at_once": 1}))
    with live(service) as base:
        host, port = base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            wire.sendall(b"POST /v1/cases HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            assert httpx.get(f"{base}/v1/city").status_code == 200
            send = partial(httpx.post, f"{base}/v1/observations", json={"observations": []}, timeout=30)
            thread = threading.Thread(target=send)
            thread.start()
            assert inside.acquire(timeout=20)
            for method, address, body in (
                ("GET", "/v1/city", None),
                ("GET", "/v1/city", b"a body with a read is no way round"),
                ("POST", "/v1/cases", b"{}"),
            ):
                refused = httpx.request(method, f"{base}{address}", content=body)
                assert refused.status_code == 503
                assert refused.json()["type"] == "urn:citybrain:problem:overloaded"
                assert refused.headers["retry-after"] == "1"
            assert httpx.get(f"{base}/livez").status_code == 200
            go.set()
            thread.join(20)
        assert httpx.get(f"{base}/v1/city").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(live, bundles, settings):
    service = Service(bundles.values(), settings.model_copy(update={"answer_seconds": 0.2}))
    with live(service) as base:
        host, port = base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            wire.sendall(
                b"POST /v1/observations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            assert wire.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_browsers_are_told_to_be_careful(bundles, settings):
    with TestClient(create_app(Service(bundles.values(), settings))) as client:
        for path in ("/v1/city", "/nowhere", "/livez", "/v2", "/docs"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers
            assert "strict-transport-security" not in headers
        safe = client.get("https://testserver/v1/city").headers
        assert "max-age" in safe["strict-transport-security"]


def test_no_shared_cache_keeps_what_a_key_was_needed_for(bundles, settings, rows):
    _, text = KeyRing(opened(settings.store)).create("root", Role.ADMIN)
    service = Service(bundles.values(), settings)
    with TestClient(create_app(service), headers={"Authorization": f"Bearer {text}"}) as client:
        client.post("/v1/observations", json={"observations": rows(30)})
        service.cycle.run()
        headers = client.get("/v1/forecasts/congestion").headers
    assert "private" in headers["cache-control"]
    assert "public" not in headers["cache-control"]
    assert "Authorization" in headers["vary"]


def test_another_name_for_this_machine_is_refused(bundles, settings):
    app = create_app(Service(bundles.values(), settings), known_hosts(settings))
    with TestClient(app) as client:
        for name in ("evil.example", "evil.example:8000", "localhost.evil.example", ""):
            refused = client.get("/v1/city", headers={"Host": name})
            assert refused.status_code == 400
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["type"] == "urn:citybrain:problem:unknown-host"
            assert refused.json()["request_id"] == refused.headers["x-request-id"]
            assert refused.headers["x-content-type-options"] == "nosniff"
        for name in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
            assert client.get("/v1/city", headers={"Host": name}).status_code == 200


def test_a_proxy_may_pass_on_the_names_that_are_set(bundles, settings):
    named = settings.model_copy(update={"allowed_hosts": "Forecasts.example.org, city.example.org"})
    with TestClient(create_app(Service(bundles.values(), named), known_hosts(named))) as client:
        for name, status in (("forecasts.example.org", 200), ("city.example.org:443", 200), ("example.org", 400)):
            assert client.get("/v1/city", headers={"Host": name}).status_code == status


def test_names_are_free_where_a_key_is_needed_unless_some_are_set(settings):
    anywhere = settings.model_copy(update={"host": "0.0.0.0"})
    assert known_hosts(anywhere) is None
    assert known_hosts(anywhere.model_copy(update={"allowed_hosts": "a.example"})) >= {"a.example", "127.0.0.1"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "example.org"])
def test_without_keys_it_binds_to_this_machine_only(bundles, settings, tmp_path, host):
    with pytest.raises(SafetyError, match="binds to this machine only"):
        serve([tmp_path / "bundle"], host=host, port=0, store=settings.store)
    engine = opened(settings.store)
    key, _ = KeyRing(engine).create("root", Role.ADMIN)
    check_binding(settings.model_copy(update={"host": host}))
    KeyRing(engine).revoke(key.id)
    with pytest.raises(SafetyError, match="binds to this machine only"):
        check_binding(settings.model_copy(update={"host": host}))
    check_binding(settings)
    with pytest.raises(SafetyError, match="binds to this machine only"):  # a proxy brings callers from elsewhere
        check_binding(settings.model_copy(update={"allowed_hosts": host}))


@pytest.fixture
def written(bundles, tmp_path) -> Bundle:
    return bundles["congestion"].write(tmp_path / "bundle")


def test_only_bundles_on_the_list_are_served(written, tmp_path):
    listed = tmp_path / "allowed"
    listed.write_text(f"# ours\n{written.digest}  # congestion, March\n\n")
    assert read_bundle(tmp_path / "bundle", read_allow_list(listed)).digest == written.digest
    assert read_bundle(tmp_path / "bundle").digest == written.digest
    with pytest.raises(BundleError, match="not on the list"):
        read_bundle(tmp_path / "bundle", frozenset({"0" * 64}))
    listed.write_text("abc\n")
    with pytest.raises(SafetyError, match="line 1"):
        read_allow_list(listed)
    with pytest.raises(SafetyError, match="cannot be read"):
        read_allow_list(tmp_path / "none")


def test_a_bundle_off_the_list_is_not_even_parsed(written, tmp_path, monkeypatch):
    monkeypatch.setattr(Bundle, "read", lambda _folder: pytest.fail("it was read"))
    with pytest.raises(BundleError, match="not on the list"):
        read_bundle(tmp_path / "bundle", frozenset())
    shutil.rmtree(tmp_path / "bundle")
    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(tmp_path / "bundle", frozenset())


def test_every_test_that_the_security_walk_names_exists():
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`(test_\w+)`", (root / "docs" / "security.md").read_text(encoding="utf-8")))
    written = {
        name
        for path in (root / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert len(named) > 20
    assert named <= written


@pytest.fixture
def forecasting(bundles, settings, rows) -> Iterator[Callable[..., Service]]:
    """A service with other settings that has published a forecast; its cycle does not run by itself."""
    made = []

    def start(**changes: object) -> Service:
        made.append(Service(bundles.values(), settings.model_copy(update=changes)))
        made[0].take(readings_from_json(json.dumps({"observations": rows(30)}).encode()))
        made[0].step()
        return made[0]

    yield start
    for service in made:
        service.close()


def test_an_answer_at_hand_is_given_to_those_alone_who_may_ask(forecasting, settings):
    viewer = KeyRing(opened(settings.store)).create("screen", Role.VIEWER)[1]
    app = create_app(forecasting(rate_per_second=0.001, rate_burst=3))
    client, key = TestClient(app), {"Authorization": f"Bearer {viewer}"}
    first = client.get(FORECAST, headers=key)
    again = {**key, "If-None-Match": first.headers["etag"]}
    assert (first.status_code, client.get(FORECAST, headers=again).status_code) == (200, 304)
    for other in ("", "Bearer cb_nobody_knows"):
        refused = client.get(FORECAST, headers={**again, "Authorization": other})
        assert (refused.status_code, refused.headers.get("etag")) == (401, None)
    assert client.get(FORECAST, headers=key).headers["cache-control"].startswith("private")
    assert client.get(FORECAST, headers=again).status_code == 429
    app.state.ledger.flush()
    noted = [entry["status"] for _, entry in app.state.ledger.audit.read() if entry["what"] == "asked"]
    assert {200, 304, 401, 429} == set(noted)


def test_an_answer_at_hand_needs_no_slot(forecasting, monkeypatch):
    client = TestClient(create_app(forecasting()))
    first = client.get(FORECAST)

    async def none_is_free(_: Slots) -> bool:
        return False

    monkeypatch.setattr(Slots, "enter", none_is_free)
    assert client.get(FORECAST).content == first.content
    assert client.get(FORECAST, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    head = client.head(FORECAST)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == first.headers["content-length"]
    assert client.get(FORECAST, params={"ids": "r0"}).status_code == 503
