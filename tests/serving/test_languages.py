"""Whatever the service says, it says in English and in Chinese."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import citybrain_datasets
import citybrain_serving
from citybrain_datasets.signals import KINDS
from citybrain_models.surrogate import reach
from citybrain_serving import errors
from citybrain_serving.chinese import SIGNALS, TITLES, UNITS, skeletons, translated
from citybrain_serving.problem_details import TITLES as STATUS_TITLES

CHINESE = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}

SCENARIOS = ("language", "places", "sweeps", "actions", "resolve")
"""Modules of the scenario language whose messages callers read."""

OFFLINE = {"backup.py", "bench"}
"""What is said on a command line."""


def said() -> Iterator[tuple[str, str]]:
    """File and skeleton of every message of an error, a refusal or a doubt that a caller may read."""
    kinds = {n for n, kind in vars(errors).items() if isinstance(kind, type)} - {"FleetError", "SafetyError"}
    calls = kinds | {"instead", "_refuse", "problem", "require_owner"}
    folder = Path(citybrain_serving.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        if OFFLINE & set(path.relative_to(folder).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) in calls:
                for argument in node.args:
                    yield from ((path.name, text) for text in _skeletons(argument) if " " in text)
            if isinstance(node, ast.FunctionDef) and node.name in ("_detail", "_repeats"):
                for part in ast.walk(node):
                    if isinstance(part, ast.Dict | ast.Return):
                        values = part.values if isinstance(part, ast.Dict) else [part.value]
                        yield from ((path.name, t) for v in values for t in _skeletons(v) if " " in t)


def said_of_scenarios() -> Iterator[tuple[str, str]]:
    """The same of what is wrong with a scenario, in its language and where scenarios are weighed and worked on."""
    folder = Path(citybrain_datasets.__file__).parent / "scenarios"
    own = Path(citybrain_serving.__file__).parent / "scenarios"
    for path in (*(folder / f"{name}.py" for name in SCENARIOS), own / "ranking.py", own / "jobs.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) in ("ValueError", "ConfigError", "Problem", "end"):
                problems = [keyword.value for keyword in node.keywords if keyword.arg == "problem"]
                for argument in (*node.args, *problems):
                    yield from ((path.name, text) for text in _skeletons(argument) if " " in text)
            if isinstance(node, ast.Assign) and _name(node.targets[0]) == "what":
                yield from ((path.name, text) for text in _skeletons(node.value))


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _skeletons(node: ast.AST | None) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)]
    if isinstance(node, ast.IfExp):
        return [*_skeletons(node.body), *_skeletons(node.orelse)]
    return []


def test_every_message_is_known_in_chinese():
    told = [*said(), *said_of_scenarios()]
    worded = [(file, text) for file, text in told if any(map(str.isalpha, text.replace("{}", "")))]
    # NAME=NUMBER is how weights are written on a command line.
    missing = [(file, text) for file, text in worded if text not in skeletons() and "NAME=NUMBER" not in text]
    assert not missing
    assert {"combination", *reach._NAMES} <= skeletons()


def test_titles_signals_and_units_are_known_in_chinese():
    assert set(STATUS_TITLES.values()) <= set(TITLES)
    assert {kind.title for kind in KINDS.values()} <= set(SIGNALS)
    assert {kind.unit for kind in KINDS.values()} <= set(UNITS)


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("no road node has the id 'x'", "没有 id 为 'x' 的道路节点"),
        ("no road node has the id 'x', 'y' and 3 more", "没有 id 为 'x', 'y'，另有 3 个 的道路节点"),
        ("horizon '7' must be among 5, 10 (minutes ahead)", "horizon '7' 必须取自 5, 10（提前分钟数）"),
        ("case 3 is closed; file is not possible", "案件 3 处于 已结案 状态，不能立案"),
        ("speed 251 km/h lies outside 0–250", "speed 251 km/h 超出 0–250"),
        ("Value error, Field required", "缺少该字段"),
        ("Input should be 'all', 'working' or 'off'", "应为 'all', 'working' 或 'off'"),
        ("Value error, $g stands for nothing; known are f", "$g 没有定义；已定义的有 f"),
        ("'R999' is not in city embedded", "城市 embedded 中没有 'R999'"),
        (
            "odd_even acts only outside the hours judged, 08:00–10:00 of a day off",
            "odd_even 只在评估时段（休息日 08:00–10:00）之外起作用",
        ),
        ("odd_even acts only outside the hours judged, 23:00–01:00", "odd_even 只在评估时段（23:00–01:00）之外起作用"),
        ("nobody knows this one", "nobody knows this one"),
        ("it has {braces}", "it has {braces}"),
    ],
)
def test_a_message_keeps_its_values(english, chinese):
    assert translated(english, "zh") == chinese
    assert translated(english, "en") == english


@pytest.mark.parametrize(
    ("address", "title", "detail"),
    [
        ("/v1/forecasts/congestion?ids=zz", "未找到", "没有 id 为 'zz' 的道路节点"),
        ("/v1/forecasts/noise", "未找到", "'noise' 此处不预测"),
        ("/v1/forecasts/congestion?horizon=7", "无法处理", "必须取自"),
        ("/v1/at?lat=91&lon=0", "无法处理", "query.lat: 应不大于 90"),
        ("/v1/at?lon=x", "无法处理", "query.lat: 缺少该字段; query.lon: 应为数字"),
        ("/nowhere", "未找到", "/nowhere 不存在"),
    ],
)
def test_problems_are_told_in_the_language_asked_for(warm, address, title, detail):
    answer = warm.get(address, headers=CHINESE)
    body = answer.json()
    assert (answer.headers["content-language"], body["title"]) == ("zh", title)
    assert "Accept-Language" in answer.headers["vary"]
    assert detail.split(" 此处")[-1] in body["detail"]
    english = warm.get(address)
    assert english.headers["content-language"] == "en"
    assert english.json()["type"] == body["type"]
    assert english.json()["detail"].isascii()


def test_rows_of_a_body_are_told_too(client):
    good = {"id": "r0", "signal": "speed", "time": "2026-03-17T00:05:00Z", "value": 42.5}
    bad = {**good, "id": "r1", "value": 251}
    answer = client.post("/v1/observations", json={"observations": [good, bad]}, headers=CHINESE)
    assert answer.headers["content-language"] == "zh"
    assert answer.json()["refusals"][0]["detail"] == "speed 251 km/h 超出 0–250"
    nothing = client.post("/v1/observations", json={"observations": [bad]}, headers=CHINESE).json()
    assert nothing["detail"] == "1 条读数均不能接收"
    assert nothing["refusals"][0]["detail"] == "speed 251 km/h 超出 0–250"


def test_the_reason_of_a_forecast_is_told_too(client, service):
    row = {"id": "a0", "signal": "pm25", "time": "2026-03-17T00:00:00Z", "value": 30}
    client.post("/v1/observations", json={"observations": [row]})
    service.cycle.run()
    told = {}
    for _ in range(2):  # made, and given again
        for language in ("zh", "en"):
            answer = client.get("/v1/forecasts/congestion", headers={"Accept-Language": language})
            told[language] = (answer.json()["reason"], answer.headers["content-language"], answer.headers["etag"])
    assert told["zh"][:2] == ("没有 speed 的观测", "zh")
    assert told["en"][:2] == ("no speed was observed", "en")
    assert told["zh"][2] != told["en"][2]


def test_titles_units_and_causes_of_answers(warm):
    city = warm.get("/v1/city", headers=CHINESE).json()
    assert city["signals"]["speed"]["title"] == "车辆平均速度"
    assert city["signals"]["speed"]["unit"] == "km/h"
    assert city["signals"]["speed"]["unit_name"] == "公里/小时"
