"""Warnings become cases: opened once, followed to their end, told to others, acted on by those who may."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pandas as pd
import pytest
import sqlalchemy as sa

from citybrain_datasets.errors import ConfigError
from citybrain_serving.cases.casebook import Casebook, Wanted
from citybrain_serving.cases.outbox import Outbox
from citybrain_serving.cases.watch import Hysteresis, Watch
from citybrain_serving.cases.webhooks import checked_targets
from citybrain_serving.database import transaction
from citybrain_serving.errors import NotNow, StoreRefused, StoreUnavailable, UnknownCase
from citybrain_serving.schemas.decisions import CaseBody
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings, load_settings
from citybrain_serving.tables import deliveries

NOW = pd.Timestamp("2026-03-17T12:00:00Z")
PROBLEM = {"task": "congestion", "id": "r1", "owner": "east", "cell": "cell0", "probability": 0.9}


class Told(Outbox):
    """An outbox that also remembers the event and case of every message."""

    def __init__(self) -> None:
        super().__init__(["https://desk.example/hook"])
        self.told: list[tuple[str, int]] = []

    def put(self, connection, event, data) -> None:
        super().put(connection, event, data)
        self.told.append((event, data["number"]))


@pytest.fixture
def outbox() -> Told:
    return Told()


@pytest.fixture
def told(outbox) -> list[tuple[str, int]]:
    return outbox.told


@pytest.fixture
def book(engine, outbox) -> Casebook:
    return Casebook(engine, outbox)


def test_a_case_goes_its_way_and_every_step_is_noted(book):
    case = book.open(PROBLEM, NOW)
    assert (case.number, case.state, case.problem) == (1, "discovered", PROBLEM)
    book.act(1, "file", "ann", "looking into it", NOW)
    book.act(1, "dispatch", "ann", "crew 7", NOW)
    book.act(1, "note", "bob", "cones set up", NOW)
    closed = book.act(1, "close", "ann", "", NOW + pd.Timedelta(minutes=40))
    assert closed.state == "closed"
    assert closed.closed - closed.discovered == pd.Timedelta(minutes=40)
    assert [(n.who, n.action) for n in closed.notes] == [
        ("citybrain", "discover"), ("ann", "file"), ("ann", "dispatch"), ("bob", "note"), ("ann", "close"),
    ]  # fmt: skip
    assert book.act(1, "note", "bob", "afterthought", NOW).notes[-1].text == "afterthought"


@pytest.mark.parametrize(("before", "action"), [((), "nothing"), (("file",), "file"), (("close",), "dispatch")])
def test_a_step_that_the_state_does_not_allow_changes_nothing(book, before, action):
    book.open(PROBLEM, NOW)
    for step in before:
        book.act(1, step, "ann", "", NOW)
    held = book.get(1)
    if action != "nothing":
        with pytest.raises(NotNow, match="not possible"):
            book.act(1, action, "ann", "", NOW)
    with pytest.raises(NotNow, match="by now"):
        book.act(1, "note", "ann", "", NOW, expected="filed" if held.state != "filed" else "closed")
    assert book.get(1) == held


def test_one_open_case_for_a_place(book):
    assert book.open(PROBLEM, NOW) is not None
    assert book.open(PROBLEM, NOW) is None
    assert book.open({**PROBLEM, "id": "r2"}, NOW).number == 2
    book.act(1, "close", "ann", "", NOW)
    assert book.open(PROBLEM, NOW).number == 3
    assert [case.number for case in book.find(Wanted(states=("discovered",)), 10)] == [3, 2]
    assert [case.number for case in book.find(Wanted(owners=["nobody"]), 10)] == []
    assert [case.number for case in book.find(Wanted(owner="east"), 1, 1)] == [2]


def test_a_case_and_the_message_about_it_are_written_together_or_not_at_all(engine, book, outbox, monkeypatch):
    book.open(PROBLEM, NOW)
    with transaction(engine) as connection:
        assert len(connection.execute(sa.select(deliveries)).all()) == 1

    def full(*_: object) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(outbox, "put", full)
    with pytest.raises(StoreUnavailable):
        book.act(1, "file", "ann", "", NOW)
    with pytest.raises(StoreUnavailable):
        book.open({**PROBLEM, "id": "r2"}, NOW)
    assert [case.state for case in book.find(Wanted(), 10)] == ["discovered"]
    assert len(book.get(1).notes) == 1


def test_no_such_case(book):
    with pytest.raises(UnknownCase):
        book.get(7)


def watch(book: Casebook) -> Watch:
    return Watch(book, lambda problem: {**PROBLEM, "task": problem.task, "id": problem.node}, Hysteresis())


def seen(node: str, probability: float, now: bool = False) -> SimpleNamespace:
    return SimpleNamespace(task="congestion", node=node, now=now, probability=probability, severity=probability)


def test_what_flickers_about_the_limit_makes_one_case(book, told):
    follow = watch(book)
    for tick in range(40):
        probability = 0.7 if tick % 2 else 0.5
        follow.update({"congestion": [seen("r1", probability)]}, NOW)
    assert told == []  # never twice in a row above
    for probability in [0.7, 0.7, *[0.5, 0.7] * 10, *[0.1, 0.1, 0.4] * 10]:
        follow.update({"congestion": [seen("r1", probability)]}, NOW)
    assert told == [("case.discovered", 1)]
    for _ in range(3):
        follow.update({"congestion": []}, NOW)
    assert told == [("case.discovered", 1), ("case.closed", 1)]
    assert book.get(1).notes[-1].who == "citybrain"


def test_when_many_are_in_trouble_the_worst_open_cases_and_none_is_closed_for_its_rank(book, told, monkeypatch):
    monkeypatch.setattr("citybrain_serving.cases.watch.MOST", 3)
    follow = watch(book)
    for _ in range(2):
        follow.update({"congestion": [seen(f"r{n}", 0.9 - n / 100) for n in range(5)]}, NOW)
    assert {case.node for case in book.unfinished()} == {"r0", "r1", "r2"}
    for _ in range(5):
        follow.update({"congestion": [*(seen(f"s{n}", 0.95, now=True) for n in range(3)), seen("r0", 0.9)]}, NOW)
    still = {case.node: case.over for case in book.unfinished()}
    assert still == {"r0": None, "s0": None, "s1": None, "s2": None}


@pytest.mark.parametrize(("action", "state"), [("file", "filed"), ("dispatch", "dispatched"), ("close", "closed")])
def test_what_somebody_does_while_the_service_looks_is_not_undone(book, told, monkeypatch, action, state):
    follow, unfinished = watch(book), book.unfinished
    for _ in range(2):
        follow.update({"congestion": [seen("r1", 0.9)]}, NOW)
    for _ in range(2):
        follow.update({"congestion": []}, NOW)

    def meanwhile() -> list:
        found = unfinished()
        book.act(1, action, "li", "", NOW)
        return found

    monkeypatch.setattr(book, "unfinished", meanwhile)
    follow.update({"congestion": []}, NOW)
    monkeypatch.undo()
    assert (book.get(1).state, book.get(1).notes[-1].who) == (state, "li")
    follow.update({"congestion": []}, NOW)
    assert (book.get(1).over is None) == (state == "closed")
    assert book.mark(1, True, NOW).state == state
    assert told[-1][0] == ("case.closed" if state == "closed" else "case.over")


def test_a_case_that_somebody_deals_with_is_marked_and_not_closed(book, told):
    follow = watch(book)
    for _ in range(2):
        follow.update({"congestion": [seen("r1", 0.4, now=True)]}, NOW)
    book.act(1, "file", "ann", "", NOW)
    for _ in range(9):
        follow.update({"congestion": []}, NOW)
    assert book.get(1).state == "filed"
    assert book.get(1).over == NOW
    for _ in range(2):
        follow.update({"congestion": [seen("r1", 0.9)]}, NOW)
    assert book.get(1).over is None
    assert [event for event, _ in told] == ["case.discovered", "case.filed", "case.over", "case.back"]


def test_a_reading_that_the_forecast_does_not_believe_opens_no_case(book, told):
    follow = watch(book)
    for _ in range(5):
        follow.update({"congestion": [seen("r1", 0.02, now=True)]}, NOW)
    assert told == []


def test_a_task_that_was_not_forecast_again_is_left_alone(book):
    follow = watch(book)
    for _ in range(2):
        follow.update({"congestion": [seen("r1", 0.9)]}, NOW)
    for _ in range(5):
        follow.update({"pm25": []}, NOW)
    assert book.get(1).state == "discovered"


def test_after_a_restart_no_case_opens_twice(book, told):
    for _ in range(2):
        follow = watch(book)
        for _ in range(3):
            follow.update({"congestion": [seen("r1", 0.9)]}, NOW)
    assert told == [("case.discovered", 1)]


def test_a_case_that_a_person_closed_is_not_opened_again_until_its_trouble_was_over(book, told):
    follow = watch(book)
    for _ in range(2):
        follow.update({"congestion": [seen("r1", 0.9)]}, NOW)
    book.act(1, "close", "li", "known: road works until Friday", NOW)
    for probability in [0.9] * 5 + [0.1, 0.1] + [0.9] * 3:  # twice without trouble is not yet an end
        follow.update({"congestion": [seen("r1", probability)]}, NOW)
    assert told == [("case.discovered", 1), ("case.closed", 1)]
    for probability in [0.1] * 3 + [0.9]:
        follow.update({"congestion": [seen("r1", probability)]}, NOW)
    assert len(told) == 2
    follow.update({"congestion": [seen("r1", 0.9)]}, NOW)
    assert told[2:] == [("case.discovered", 2)]


def test_a_case_that_the_service_closed_opens_again_as_any_other(book, told):
    follow = watch(book)
    for probability in [0.9, 0.9, 0.1, 0.1, 0.1, 0.9, 0.9]:
        follow.update({"congestion": [seen("r1", probability)]}, NOW)
    assert told == [("case.discovered", 1), ("case.closed", 1), ("case.discovered", 2)]


def test_a_place_that_is_not_seen_neither_opens_nor_ends_a_case(book, told):
    follow = watch(book)
    follow.update({"congestion": [seen("r1", 0.9)]}, NOW, {"congestion": {"r1"}})
    for _ in range(5):
        follow.update({"congestion": [seen("r1", 0.9)]}, NOW, {"congestion": set()})
    assert told == []
    follow.update({"congestion": [seen("r1", 0.9)]}, NOW, {"congestion": {"r1"}})
    assert told == [("case.discovered", 1)]  # what was counted before the feed fell silent counts on
    for _ in range(5):
        follow.update({"congestion": []}, NOW, {"congestion": {"r2"}})
    assert book.get(1).state == "discovered"
    for _ in range(3):
        follow.update({"congestion": []}, NOW, {"congestion": {"r1"}})
    assert book.get(1).state == "closed"


def test_forecasts_of_one_task_between_those_of_another_are_no_interruption(book, told):
    follow = watch(book)
    foul = SimpleNamespace(task="pm25", node="a1", now=True, probability=0.9, severity=1.0)
    for _ in range(2):
        follow.update({"congestion": [], "pm25": [foul]}, NOW)
        for _ in range(11):
            follow.update({"congestion": []}, NOW)
    assert told == [("case.discovered", 1)]


@pytest.mark.parametrize("foreseen", [True, False])
def test_what_somebody_opened_the_service_does_not_close(book, told, foreseen):
    """It marks the end of what a forecast saw, too; of what none saw it knows nothing."""
    follow = watch(book)
    book.open({**PROBLEM, **({"issued": "2026-03-17T12:00:00Z"} if foreseen else {})}, NOW, "ann", "a burst pipe")
    for _ in range(9):
        follow.update({"congestion": []}, NOW)
    case = book.get(1)
    assert (case.state, case.opened_by) == ("discovered", "ann")
    assert case.over == (NOW if foreseen else None)


def test_settings_of_cases(tmp_path):
    assert checked_targets("https://a.example/x, http://127.0.0.1:9/") == ("https://a.example/x", "http://127.0.0.1:9/")
    with pytest.raises(ConfigError, match="case_close_at"):
        load_settings({"case_open_at": 0.3, "case_close_at": 0.3}, {})
    short = tmp_path / "secret"
    short.write_bytes(b"short")
    with pytest.raises(ConfigError, match="at least 24"):
        load_settings({"webhook_secret_file": short}, {}).webhook_secret()


def test_cases_over_http(warm, service):
    opened = warm.post("/v1/cases", json={"task": "congestion", "id": "r3", "note": "a lorry"})
    assert opened.status_code == 201
    case = CaseBody.model_validate_json(opened.content)
    assert (case.number, case.owner, case.notes[0].text) == (1, "east", "a lorry")
    assert (case.opened_by, case.seen) == ("local", True)
    assert warm.post("/v1/cases", json={"task": "congestion", "id": "r3"}).status_code == 409
    assert warm.post("/v1/cases", json={"task": "congestion", "id": "r99"}).status_code == 404
    assert warm.post("/v1/cases", json={"task": "noise", "id": "r3"}).status_code == 404
    unknown = warm.post("/v1/cases", json={"task": "congestion", "id": "r3", "more": 1})
    assert unknown.status_code == 422
    assert unknown.json()["detail"] == "body.more: there is no such member, only task, id, note"
    stepped = warm.post("/v1/cases/1/steps", json={"action": "file", "expected": "discovered", "note": "n"})
    assert stepped.json()["state"] == "filed"
    refused = warm.post("/v1/cases/1/steps", json={"action": "file"})
    assert refused.status_code == 409
    assert refused.json()["state"] == "filed"
    assert warm.post("/v1/cases/1/steps", json={"action": "burn"}).status_code == 422
    assert warm.get("/v1/cases/2").status_code == 404
    assert warm.get("/v1/cases/1").json()["notes"][1]["action"] == "file"
    assert [c["number"] for c in warm.get("/v1/cases?state=filed&owner=east").json()] == [1]
    assert warm.get("/v1/cases?state=lost").status_code == 422
    assert warm.get("/v1/cases?task=noise").status_code == 404


@pytest.fixture
def stored(location, bundles, live) -> Iterator[httpx.Client]:
    """A client of a service on each kind of database."""
    service = Service(bundles.values(), Settings(store=location, clock="observations"))
    with live(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=30) as connected:
        yield connected
    service.close()


def test_text_that_no_database_holds_is_refused_by_its_field(stored):
    opened = stored.post("/v1/cases", json={"task": "congestion", "id": "r3", "note": "a\0b"})
    assert (opened.status_code, opened.json()["errors"][0]["where"]) == (422, "body.note")
    assert stored.post("/v1/cases", json={"task": "congestion", "id": "r3", "note": "two\nlines"}).status_code == 201
    step = stored.post("/v1/cases/1/steps", json={"action": "note", "note": "\0"})
    assert (step.status_code, step.json()["errors"][0]["where"]) == (422, "body.note")
    for field in ("owner", "cell"):
        found = stored.get("/v1/cases", params={field: "\0"})
        assert (found.status_code, found.json()["errors"][0]["where"]) == (422, f"query.{field}")
    assert stored.get("/v1/quality", params={"task": "congestion", "group": "\0"}).status_code == 422
    assert stored.get("/v1/scenarios/%00").status_code == 422


def test_a_fault_of_the_store_is_not_told_as_an_outage(warm, service, monkeypatch):
    def refuse(*_: object) -> None:
        raise StoreRefused("the store does not take this (DataError); nothing was written")

    monkeypatch.setattr(service.casebook, "find", refuse)
    answer = warm.get("/v1/cases")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:citybrain:problem:store-refused")
    assert "retry-after" not in answer.headers


def test_open_cases_in_pages(warm):
    for place in ("r1", "r2", "r3"):
        assert warm.post("/v1/cases", json={"task": "congestion", "id": place}).status_code == 201
    warm.post("/v1/cases/2/steps", json={"action": "close"})
    first = warm.get("/v1/cases?state=open&limit=1")
    assert [c["number"] for c in first.json()] == [3]
    rest = warm.get(first.links["next"]["url"])
    assert [c["number"] for c in rest.json()] == [1]
    assert "link" not in rest.headers


def test_trouble_that_lasts_opens_a_case_by_itself(warm, service):
    for minute in range(5, 30, 5):
        time = f"2026-03-17T12:{minute:02}:00Z"
        slow = {"observations": [{"id": "r1", "signal": "speed", "time": time, "value": 3.0}]}
        warm.post("/v1/observations", json=slow)
        service.step()
    (case,) = warm.get("/v1/cases").json()
    assert (case["id"], case["state"], case["owner"]) == ("r1", "discovered", "east")
    assert (case["opened_by"], case["seen"]) == ("citybrain", True)
    assert case["problem"]["now"]


def test_while_nothing_is_measured_no_case_opens_or_ends(tmp_path, bundles, rows, live, clock):
    clock.time = pd.Timestamp("2026-03-16T12:00:05Z")
    made = Service(bundles.values(), Settings(store=str(tmp_path / "s.sqlite")), clock=clock)
    with live(made, lifespan="off") as base, httpx.Client(base_url=base) as client:

        def after_five_minutes(*speeds: tuple[str, float]) -> dict[str, dict]:
            clock.time += pd.Timedelta(minutes=5)
            time = clock.time.floor("5min").isoformat()
            readings = [{"id": i, "signal": "speed", "time": time, "value": value} for i, value in speeds]
            if readings:
                client.post("/v1/observations", json={"observations": readings})
            made.step()
            return {case["id"]: case for case in client.get("/v1/cases").json()}

        client.post("/v1/observations", json={"observations": rows(30, clock.time.floor("h"))})
        for _ in range(3):
            cases = after_five_minutes(("r1", 3.0), ("r2", 50.0))
        assert (cases["r1"]["state"], cases["r1"]["seen"], len(cases)) == ("discovered", True, 1)
        for _ in range(26):
            cases = after_five_minutes()
        assert made.stale(made.snapshot.forecasts["congestion"])
        assert (cases["r1"]["state"], cases["r1"]["seen"], len(cases)) == ("discovered", False, 1)
        for _ in range(6):  # of the others there is news, of this road there is none
            cases = after_five_minutes(("r2", 50.0))
        assert not made.stale(made.snapshot.forecasts["congestion"])
        assert (cases["r1"]["state"], cases["r1"]["seen"]) == ("discovered", False)
        for _ in range(6):
            cases = after_five_minutes(("r1", 50.0), ("r2", 50.0))
        assert (cases["r1"]["state"], cases["r1"]["seen"]) == ("closed", None)
    made.close()
