"""What is told of cases: signed, retried, given up in the end; no target holds up another, nor the end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import orjson
import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from citybrain_serving.cases.outbox import Outbox
from citybrain_serving.cases.webhooks import WAITS_S, Webhooks, checked_targets
from citybrain_serving.database import migrate, open_engine, transaction
from citybrain_serving.errors import FleetError
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.tables import deliveries

RUNBOOK = Path(__file__).parents[2] / "docs" / "operations.md"
SECRET = b"a secret of at least twenty-four bytes"


class Target:
    """The other system: answers as told, and remembers what it got."""

    def __init__(self, *answers: int):
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self.answers.pop(0) if self.answers else 200
        if status == 0:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, headers={"location": "https://elsewhere.example/"})


def webhooks(engine, target: Target, clock: list[float]) -> Webhooks:
    transport = httpx.MockTransport(target)
    return Webhooks(engine, Outbox(["https://desk.example/hook"], lambda _: clock[0]), SECRET, transport=transport)


def send(hooks: Webhooks, event: str, data: dict) -> None:
    with transaction(hooks.engine, write=True) as connection:
        hooks.outbox.put(connection, event, data)


def test_a_message_is_signed_by_the_standard(engine):
    target, clock = Target(), [1_773_748_800.0]
    hooks = webhooks(engine, target, clock)
    send(hooks, "case.filed", {"number": 1})
    assert hooks.deliver() == 1
    assert hooks.deliver() == 0
    (request,) = target.requests
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.content
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert orjson.loads(request.content) == {"type": "case.filed", "data": {"number": 1}}
    hooks.stop()


def test_who_verifies_as_the_runbook_says_believes_ours_alone(engine):
    (code,) = re.findall(r"^```python\n(.*?)^```$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    told = {"base64": base64, "hashlib": hashlib, "hmac": hmac, "time": time, "Mapping": Mapping}
    exec(code, told)
    target, clock = Target(), [time.time()]
    hooks = webhooks(engine, target, clock)
    send(hooks, "case.filed", {"number": 1})
    hooks.deliver()
    (request,) = target.requests
    assert told["genuine"](SECRET, request.headers, request.content)
    assert not told["genuine"](SECRET, request.headers, request.content + b" ")
    assert not told["genuine"](SECRET, {**request.headers, "webhook-timestamp": "1773748800"}, request.content)
    hooks.stop()


def test_a_message_of_a_replica_whose_clock_is_ahead_goes_out_at_once_and_bears_the_right_time(database, monkeypatch):
    engine = open_engine(database)
    migrate(engine)
    target = Target()
    hooks = Webhooks(engine, Outbox(["https://desk.example/hook"]), SECRET, transport=httpx.MockTransport(target))
    right = time.time()
    monkeypatch.setattr("time.time", lambda: right + 86_400)
    send(hooks, "case.filed", {"number": 1})
    monkeypatch.undo()
    assert hooks.deliver() == 1
    monkeypatch.setattr("time.time", lambda: right - 86_400)
    send(hooks, "case.filed", {"number": 2})
    assert hooks.deliver() == 1
    for request in target.requests:
        assert int(request.headers["webhook-timestamp"]) == pytest.approx(right, abs=60)
    hooks.stop()
    engine.dispose()


def test_a_message_is_retried_until_it_arrives_and_keeps_its_id(engine):
    target, clock = Target(500, 0, 302), [0.0]
    hooks = webhooks(engine, target, clock)
    send(hooks, "case.filed", {})
    for wait in WAITS_S[:3]:
        assert hooks.deliver() == 0
        assert hooks.deliver() == 0  # not before its time
        clock[0] += wait
    assert hooks.deliver() == 1
    assert len(target.requests) == 4
    assert len({request.headers["webhook-id"] for request in target.requests}) == 1
    assert {str(request.url) for request in target.requests} == {"https://desk.example/hook"}
    hooks.stop()


def test_a_message_is_given_up_in_the_end(engine):
    target, clock = Target(*[500] * 50), [0.0]
    hooks = webhooks(engine, target, clock)
    send(hooks, "case.filed", {})
    for _ in range(30):
        hooks.deliver()
        clock[0] += WAITS_S[-1]
    assert len(target.requests) == len(WAITS_S) + 1
    hooks.stop()


def test_a_target_that_is_no_longer_allowed_gets_nothing(engine):
    target, clock = Target(), [0.0]
    hooks = webhooks(engine, target, clock)
    send(hooks, "case.filed", {})
    hooks.outbox.targets = ["https://other.example/"]
    assert hooks.deliver() == 0
    assert target.requests == []
    hooks.stop()


@pytest.mark.parametrize(
    "text",
    [
        "http://desk.example/", "ftp://x", "https://me:pw@desk.example/", "desk", "https://desk.example:443x/hook",
        "https://a..b/x", "https:///x", "https://desk.example:99999/", "https://de sk.example/",
        "https://x/" + "a" * 500,
    ],
)  # fmt: skip
def test_targets_that_are_refused(text):
    with pytest.raises(FleetError, match="webhook target"):
        checked_targets(f"https://good.example/, {text}")


TWO = ["https://dead.example/hook", "https://desk.example/hook"]


def test_a_target_that_fails_is_tried_once_a_round_and_what_fails_is_counted(engine):
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if request.url.host == "dead.example":
            raise httpx.InvalidURL("of no use")  # no HTTPError
        return httpx.Response(200)

    clock, registry = [0.0], CollectorRegistry()
    outbox = Outbox(TWO, lambda _: clock[0])
    hooks = Webhooks(engine, outbox, SECRET, transport=httpx.MockTransport(answer), registry=registry)
    for number in range(3):
        send(hooks, "case.filed", {"number": number})
    assert hooks.deliver() == 3
    assert asked == ["dead.example", *["desk.example"] * 3]
    assert registry.get_sample_value("citybrain_webhook_waiting", {"target": "dead.example"}) == 3
    assert registry.get_sample_value("citybrain_webhook_waiting", {"target": "desk.example"}) == 0
    for _ in range(60):
        clock[0] += WAITS_S[-1]
        hooks.deliver()
    counted = {
        outcome: registry.get_sample_value(
            "citybrain_webhook_attempts_total", {"target": "dead.example", "outcome": outcome}
        )
        for outcome in ("arrived", "failed", "given_up")
    }
    assert counted == {"arrived": 0, "failed": 3 * len(WAITS_S), "given_up": 3}
    hooks.stop()


def test_a_target_that_hangs_holds_up_neither_the_others_nor_the_end(engine, monkeypatch):
    monkeypatch.setattr("citybrain_serving.cases.webhooks.LINGER_S", 0.0)
    hangs, arrived, released, asked = threading.Event(), threading.Event(), threading.Event(), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if request.url.host == "desk.example":
            arrived.set()
            return httpx.Response(200)
        hangs.set()
        released.wait(60)
        return httpx.Response(500)

    hooks = Webhooks(engine, Outbox(TWO), SECRET, transport=httpx.MockTransport(answer))
    for number in range(3):
        send(hooks, "case.filed", {"number": number})
    hooks.start()
    assert hangs.wait(60)
    assert arrived.wait(60)
    hooks.stop()  # returns while the request hangs
    released.set()
    for thread in hooks._threads:
        thread.join(60)
    assert asked.count("dead.example") == 1  # what else was due to it stays for the next start
    with transaction(engine) as connection:
        left = connection.scalars(sa.select(deliveries.c.attempts).where(deliveries.c.target == TWO[0])).all()
    assert left == [0, 0, 0]


def test_whoever_ends_lets_another_compute_before_it_waits_for_a_webhook(tmp_path, bundles, monkeypatch):
    made = Service(bundles.values(), Settings(store=str(tmp_path / "s.sqlite"), clock="observations"))
    ended: list[str] = []
    monkeypatch.setattr(made.leadership, "stop", lambda: ended.append("leadership"), raising=False)
    monkeypatch.setattr(made.webhooks, "stop", lambda: ended.append("webhooks"))
    made.close()
    assert ended == ["leadership", "webhooks"]
