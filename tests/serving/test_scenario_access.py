"""Who may ask for scenarios, whose the answers are, how many they may be, and that it is all on record: a real server
with real keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from citybrain_datasets.city import City
from citybrain_datasets.task import Task
from citybrain_serving.safety.audit import AuditLog, Head
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.roles import Role
from citybrain_serving.scenarios.ledger import EACH
from citybrain_serving.scenarios.run import SHIPPED
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

pytestmark = pytest.mark.skipif(not (SHIPPED / "embedded").is_dir(), reason="no surrogate ships for the embedded city")

ASK = "/v1/scenarios"
FEW = {"scenarios": [{"id": "close", "measures": [{"lever": "closure", "where": {"segments": ["R010"]}}]}]}
TASK = Task(
    name="congestion", node="road", target="speed", inputs=("flow",), step_minutes=5, history=12, horizon=6,
    quantiles=(0.1, 0.5, 0.9), seasonal_days=(1,), coarse=(12, 2),
)  # fmt: skip


def many(draw: object, count: int = 65) -> dict[str, object]:
    sweep = {"id": "many", "sample": {"count": count, "draw": {"f": draw}}}
    return {"scenarios": [{**sweep, "measures": [{"lever": "demand", "factor": "$f"}]}], "base": "usual"}


MANY = many({"uniform": [0.8, 1.0]})


@dataclass
class Doors:
    """A server, and a client of it for each role, a second viewer, and nobody."""

    service: Service
    clients: dict[str, httpx.Client]

    def __getitem__(self, who: str) -> httpx.Client:
        return self.clients[who]


@pytest.fixture
def doors(bundle_of, live, tmp_path) -> Iterator[Doors]:
    service = Service([bundle_of(City.load("embedded"), TASK)], Settings(store=str(tmp_path / "s.sqlite")))
    ring = KeyRing(service.store.engine)
    roles = {"ann": Role.VIEWER, "bob": Role.VIEWER, **{r.value: r for r in (Role.INGEST, Role.OPERATOR, Role.ADMIN)}}
    keys = {name: ring.create(name, role)[1] for name, role in roles.items()}
    with live(service, lifespan="off") as base:
        clients = {name: httpx.Client(base_url=base, headers={"Authorization": f"Bearer {k}"}, timeout=60)
                   for name, k in keys.items()}  # fmt: skip
        yield Doors(service, {**clients, "nobody": httpx.Client(base_url=base, timeout=60)})
        for client in clients.values():
            client.close()
    service.close()


def test_each_role_gets_what_the_table_says(doors):
    told = {who: doors[who].post(ASK, json=FEW).status_code for who in doors.clients}
    assert told == {"ann": 200, "bob": 200, "operator": 200, "admin": 200, "ingest": 403, "nobody": 401}


def test_a_job_is_its_owners_alone(doors):
    answer = doors["ann"].post(ASK, json=MANY)
    assert answer.status_code == 202, answer.text
    where = answer.headers["location"]
    for other in ("bob", "operator", "admin"):  # each may ask for scenarios, and may not see those of another
        assert doors[other].get(where).status_code == 404
        assert doors[other].get(f"{where}/results").status_code == 404
        assert doors[other].post(f"{where}/cancel").status_code == 404
    assert doors["nobody"].get(where).status_code == 401
    assert doors["ingest"].get(where).status_code == 403
    assert [job["id"] for job in doors["ann"].get(ASK).json()] == [answer.json()["id"]]
    assert doors["bob"].get(ASK).json() == []
    while (found := doors["ann"].get(f"{where}/results")).status_code == 202:
        pass
    assert found.status_code == 200
    assert len(found.json()["scenarios"]) == 65


def test_one_owner_leaves_room_for_others_and_each_is_told_in_its_language(doors):
    asked = many({"uniform": [0.8, 1.0]}, 20_000)
    jobs = [doors["ann"].post(ASK, json=asked) for _ in range(EACH)]
    assert [job.status_code for job in jobs] == [202] * EACH
    refused = doors["ann"].post(ASK, json=asked, headers={"Accept-Language": "zh"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.json()["detail"] == f"您已有 {EACH} 个任务在进行；请等待或取消其一"
    assert doors["bob"].post(ASK, json=MANY).status_code == 202
    for job in jobs:
        assert doors["ann"].post(f"{job.headers['location']}/cancel").json()["state"] in ("cancelled", "done")
    assert doors["ann"].post(ASK, json=asked).status_code == 202


def test_who_asked_what_of_which_surrogate_is_on_record(doors):
    doors["ann"].post(ASK, json=FEW)
    where = doors["bob"].post(ASK, json=MANY).headers["location"]
    doors["bob"].post(f"{where}/cancel")
    log = AuditLog(doors.service.store.engine)
    said = [e for _, e in log.read() if "scenario" in e["what"]]
    assert [(e["what"], e["who"].rpartition(":")[2]) for e in said] == [
        ("asks for scenarios", "ann"), ("asks for scenarios", "bob"), ("cancels a scenario job", "bob"),
    ]  # fmt: skip
    assert [e.get("scenarios") for e in said] == [1, 65, None]
    assert len(said[0]["surrogate"]) == 64
    assert said[1]["job"] == said[2]["job"] == where.rpartition("/")[2]
    assert isinstance(log.verify(), Head)


@pytest.mark.parametrize(
    "draw",
    ['{"integer": [0, 1000000000000000000000000000000]}', '{"uniform": [0, 1e400]}', '{"uniform": [-1e308, 1e308]}'],
)
def test_draws_that_overflow_are_refused_by_name(doors, draw):
    body = httpx.Request("POST", "http://x", json=many("HERE")).content.replace(b'"HERE"', draw.encode())
    answer = doors["ann"].post(ASK, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert "scenarios.0.sample.draw.f" in answer.text
