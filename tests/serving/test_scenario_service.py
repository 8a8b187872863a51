"""``/v1/scenarios`` over a real socket: at once, as a job, and refused."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from citybrain_datasets.city import City
from citybrain_datasets.task import Task
from citybrain_serving.scenarios.run import SHIPPED
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

pytestmark = pytest.mark.skipif(not (SHIPPED / "embedded").is_dir(), reason="no surrogate ships for the embedded city")

TASK = Task(
    name="congestion", node="road", target="speed", inputs=("flow",), step_minutes=5, history=12, horizon=6,
    quantiles=(0.1, 0.5, 0.9), seasonal_days=(1,), coarse=(12, 2),
)  # fmt: skip
CLOSURE = {"id": "close", "measures": [{"lever": "closure", "where": {"segments": ["R010"]}}]}
NOTHING = {"id": "nothing"}
SWEEP = {
    "id": "many",
    "sample": {"count": 90, "draw": {"f": {"uniform": [0.8, 1.0]}}},
    "measures": [{"lever": "demand", "factor": "$f"}],
}


GRID = {
    "id": "x",
    "grid": {f"n{i}": list(range(9)) for i in range(22)},
    "measures": [{"lever": "demand", "factor": f"$n{i}"} for i in range(22)],
}
CIRCLE = {"id": "x", "grid": {"a": ["$b"], "b": ["$a"]}, "measures": ["$a"]}
FALLING = {**SWEEP, "sample": {"count": 9, "draw": {"f": {"uniform": [0.9, 0.1]}}}}
DEEP = {"id": "x", "grid": {f"n{i}": [[f"$n{i + 1}"]] for i in range(8)} | {"n8": [1]}, "measures": ["$n0"]}


@pytest.fixture(scope="module")
def lantan() -> City:
    return City.load("embedded")


@pytest.fixture
def asked(lantan, bundle_of, live, tmp_path) -> Iterator[tuple[Service, httpx.Client]]:
    """A service of the embedded city that has seen two hours of a morning, and a client of it."""
    bundle = bundle_of(lantan, TASK)
    service = Service([bundle], Settings(store=str(tmp_path / "store.sqlite"), clock="observations"))
    with live(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=60) as client:
        yield service, client
    service.close()


def feed(service: Service, client: httpx.Client, city: City, local: str = "2025-03-19 08:00") -> pd.Timestamp:
    end = pd.Timestamp(local, tz="Asia/Shanghai").tz_convert("UTC")
    for name in ("speed", "flow"):
        cut = city.signals[name].between(end - pd.Timedelta("2h"), end)
        for time, values in zip(cut.times, cut.values, strict=True):
            known = [(i, float(v)) for i, v in zip(city.ids("road"), values, strict=True) if v == v]
            body = {
                "signal": name,
                "time": time.isoformat(),
                "id": [i for i, _ in known],
                "value": [v for _, v in known],
            }
            client.post("/v1/observations", json=body).raise_for_status()
    service.cycle.run()
    return end


def test_a_few_are_answered_at_once_on_top_of_the_forecast(asked, lantan):
    service, client = asked
    issued = feed(service, client, lantan)
    answer = client.post("/v1/scenarios", json={"scenarios": [NOTHING, CLOSURE]})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["base"] == "now"
    assert body["air"] == {"base": "usual", "reason": "no forecast of PM2.5 has been published yet"}
    assert body["issued"] == issued.strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = {row["id"]: row for row in body["scenarios"]}
    assert rows["nothing"]["delay_veh_h_change"] == 0
    assert rows["close"]["delay_veh_h_change"] != 0
    assert rows["close"]["grade"] == "surrogate"
    assert rows["close"]["delay_veh_h_change_low"] <= rows["close"]["delay_veh_h_change"]
    usual = client.post("/v1/scenarios", json={"scenarios": [CLOSURE], "base": "usual"}).json()
    assert usual["scenarios"][0]["delay_veh_h"] != rows["close"]["delay_veh_h"]


def test_one_sensor_a_tick_ahead_does_not_hide_the_flow_of_the_others(asked, lantan):
    service, client = asked
    issued = feed(service, client, lantan)
    question = {"scenarios": [{"id": "nothing"}]}
    before = client.post("/v1/scenarios", json=question).json()["scenarios"][0]
    road = lantan.ids("road")[0]
    last = service.store.read("flow", issued, issued).values[-1, 0]
    ahead = {"id": road, "signal": "flow", "time": (issued + pd.Timedelta("5min")).isoformat(), "value": float(last)}
    client.post("/v1/observations", json={"observations": [ahead]}).raise_for_status()
    after = client.post("/v1/scenarios", json=question).json()["scenarios"][0]
    assert after["delay_veh_h"] == pytest.approx(before["delay_veh_h"], rel=1e-6)


def odd_even(name: str, **when: str) -> dict[str, object]:
    return {"id": name, "measures": [{"lever": "odd_even", "when": when}]}


def test_measures_hold_by_the_clock_of_the_forecast(asked, lantan):
    """On a Saturday at 08:00, what acts in the next two hours acts, and what acted before or on other days does not."""
    service, client = asked
    feed(service, client, lantan, "2025-03-22 08:00")
    measures = [
        odd_even("next", begin="09:00", end="10:00"), odd_even("past", begin="07:00", end="08:00"),
        odd_even("off", days="off"), odd_even("working", days="working"),
    ]  # fmt: skip
    body = client.post("/v1/scenarios", json={"scenarios": measures}).json()
    assert (body["hours"], body["weather"]) == ({"begin": "08:00", "end": "10:00", "days": "off"}, "usual")
    direct = {row["id"]: row["delay_veh_h_change"] for row in body["scenarios"]}
    assert direct["next"] < 0 == direct["past"]
    assert direct["off"] < 0 == direct["working"]
    outside = {row["id"]: row["outside"] for row in body["scenarios"]}
    told = "odd_even acts only outside the hours judged, 08:00–10:00 of a day off"
    beyond = "hours beyond those learnt, 07:00–09:00"
    assert outside == {"next": beyond, "past": told, "off": beyond, "working": told}
    chinese = client.post("/v1/scenarios", json={"scenarios": measures}, headers={"Accept-Language": "zh"}).json()
    assert all(row["outside"] and not row["outside"].isascii() for row in chinese["scenarios"])
    assert "超出所学时段 07:00–09:00" in {row["outside"] for row in chinese["scenarios"]}

    many = [*measures, *(odd_even(f"more{n}") for n in range(64))]
    answer = client.post("/v1/scenarios", json={"scenarios": many})
    assert answer.json()["hours"] == body["hours"]
    while (found := client.get(answer.json()["results"])).status_code == 202:
        pass
    job = {row["id"]: row["delay_veh_h_change"] for row in found.json()["scenarios"]}
    assert {name: job[name] for name in direct} == pytest.approx(direct)


def test_a_usual_day_is_judged_in_the_hours_of_the_surrogate(asked):
    _, client = asked
    body = client.post("/v1/scenarios", json={"scenarios": [NOTHING], "base": "usual"}).json()
    assert body["hours"] == {"begin": "07:00", "end": "09:00", "days": "working"}


def test_without_a_forecast_the_usual_day_answers_and_says_so(asked):
    _, client = asked
    body = client.post("/v1/scenarios", json={"scenarios": [CLOSURE]}).json()
    assert (body["base"], body["reason"]) == ("usual", "no forecast of speed has been published yet")


@pytest.mark.parametrize("media", ["application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"])
def test_the_ranking_leaves_as_a_table(asked, media):
    _, client = asked
    answer = client.post("/v1/scenarios", json={"scenarios": [NOTHING, CLOSURE]}, headers={"Accept": media})
    assert answer.headers["content-type"] == media
    source = io.BytesIO(answer.content)
    table = pq.read_table(source) if media.endswith("parquet") else pa.ipc.open_stream(source).read_all()
    assert table["rank"].to_pylist() == [1, 2]
    assert b"citybrain" in table.schema.metadata


def test_more_become_a_job_with_progress_and_results(asked):
    _, client = asked
    answer = client.post("/v1/scenarios", json={"scenarios": [SWEEP]})
    assert answer.status_code == 202
    where = answer.headers["location"]
    assert answer.json()["scenarios"] == 90
    while client.get(f"{where}/results").status_code == 202:
        assert client.get(where).json()["state"] in ("waiting", "running", "done")
    done = client.get(where).json()
    assert (done["state"], done["scored"]) == ("done", 90)
    rows = client.get(f"{where}/results").json()["scenarios"]
    assert [row["rank"] for row in rows] == list(range(1, 91))
    answer = client.post(f"{where}/cancel")
    assert answer.json()["state"] == "done"


def test_a_job_can_be_cancelled(asked):
    _, client = asked
    many = {**SWEEP, "sample": {**SWEEP["sample"], "count": 5_000}}
    where = client.post("/v1/scenarios", json={"scenarios": [many]}).headers["location"]
    assert client.post(f"{where}/cancel").status_code == 202
    while client.get(where).json()["state"] in ("waiting", "running"):
        pass
    assert client.get(where).json()["state"] == "cancelled"
    assert client.get(f"{where}/results").status_code == 202


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"scenarios": []}, "scenarios"),
        (
            {"scenarios": [{"id": "x", "measures": [{"lever": "flying"}]}]},
            "scenarios.0.measures.0: 'flying' is no lever",
        ),
        (
            {"scenarios": [{"id": "x", "measures": [{"lever": "closure", "wher": {}}]}]},
            "wher: unknown key; did you mean",
        ),
        ({"scenarios": [NOTHING], "weights": {"happiness": 1}}, "happiness"),
        ({"scenarios": [NOTHING], "mood": 1}, "mood"),
        ({"scenarios": [{"id": "x", "measures": [{"lever": "closure", "where": {"segments": ["R999"]}}]}]}, "R999"),
        ({"scenarios": [{"id": "x", "weather": {"case": "2025-03-18"}}]}, "weather"),
        ({"scenarios": [NOTHING, NOTHING]}, "scenarios.1.id: the id 'nothing' stands already in scenarios.0"),
        ({"scenarios": [SWEEP, {"id": "many/000089"}]}, "scenarios.1.id: the id 'many/000089' stands already"),
        ({"scenarios": [GRID]}, "scenarios.0: a sweep stands for at most 10000000 scenarios"),
        ({"scenarios": [NOTHING, CIRCLE]}, "scenarios.1: names refer to each other in a circle"),
        ({"scenarios": [FALLING]}, "scenarios.0.sample.draw.f"),
        ({"scenarios": [DEEP]}, "scenarios.0: names and lists stand too deep"),
    ],
)
def test_what_makes_no_sense_is_named(asked, body, named):
    _, client = asked
    answer = client.post("/v1/scenarios", json=body)
    assert answer.status_code == 422
    assert named in answer.text


@pytest.mark.parametrize(
    ("measure", "told"),
    [
        ({"lever": "flying"}, "scenarios.0.measures.0: 没有名为 'flying' 的措施；已知的有 closure, "),
        ({"lever": "closur"}, "scenarios.0.measures.0: 没有名为 'closur' 的措施；是否指 closure？"),
        ("closure", "scenarios.0.measures.0: 应为对象，而不是 'closure'"),
        ({"lever": "closure", "wher": {}}, "scenarios.0.measures.0.wher: 未知字段；是否指 where？"),
        ({"lever": "odd_even", "compliance": 1.5}, "measures.0.compliance: 应不大于 1，而不是 1.5"),
        ({"lever": "odd_even", "compliance": "all"}, "measures.0.compliance: 应为数字，而不是 'all'"),
        (
            {"lever": "coal", "reduction": 0.2, "when": {"days": "some"}},
            "应为 'all', 'working' 或 'off'，而不是 'some'",
        ),
        ({"lever": "closure", "where": {"polygon": [[31, 121]] * 3}}, "应不大于 90，而不是 121；经度在前，纬度在后"),
        ({"lever": "closure", "where": {"segments": ["R999"]}}, "'R999'"),
        ({"lever": "closure", "where": {"segments": []}}, "至少应有 1 项，现有 0 项"),
        ({"lever": "speed_limit", "kmh": 30, "factor": 1}, "kmh 与 factor 只能给出其一"),
    ],
)
def test_what_makes_no_sense_is_named_in_chinese_too(asked, measure, told):
    _, client = asked
    body = {"scenarios": [{"id": "x", "measures": [measure]}]}
    answer = client.post("/v1/scenarios", json=body, headers={"Accept-Language": "zh"})
    assert (answer.status_code, answer.headers["content-language"]) == (422, "zh")
    assert told in answer.json()["detail"]
    assert not {"should", "is", "not", "give"} & set(answer.json()["detail"].split())


def test_why_a_scenario_lies_outside_is_told_in_chinese_too(asked):
    _, client = asked
    body = {"scenarios": [{"id": "x", "measures": [{"lever": "demand", "factor": 3}]}], "base": "usual"}
    (english,) = client.post("/v1/scenarios", json=body).json()["scenarios"]
    (chinese,) = client.post("/v1/scenarios", json=body, headers={"Accept-Language": "zh"}).json()["scenarios"]
    assert english["outside"].isascii()
    assert english["outside"]
    assert not chinese["outside"].isascii()
    assert {**chinese, "outside": ""} == {**english, "outside": ""}


def test_a_job_of_nobody_is_unknown(asked):
    _, client = asked
    for address in ("/v1/scenarios/none", "/v1/scenarios/none/results"):
        assert client.get(address).status_code == 404
    assert client.post("/v1/scenarios/none/cancel").status_code == 404


def test_a_city_without_surrogate_says_so(warm):
    answer = warm.post("/v1/scenarios", json={"scenarios": [NOTHING]})
    assert answer.status_code == 404
    assert answer.json()["type"].endswith("no-surrogate")
