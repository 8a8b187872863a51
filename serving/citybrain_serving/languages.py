"""English and Chinese: which one a request wants, and the words of answers in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Literal

from citybrain_serving.negotiation import weighed

Language = Literal["en", "zh"]

Words = Mapping[Language, str]

TRAFFIC_LEVELS: tuple[Words, ...] = (
    {"en": "unknown", "zh": "未知"},
    {"en": "free-flowing", "zh": "畅通"},
    {"en": "mostly free", "zh": "基本畅通"},
    {"en": "lightly congested", "zh": "轻度拥堵"},
    {"en": "moderately congested", "zh": "中度拥堵"},
    {"en": "severely congested", "zh": "严重拥堵"},
)
"""Names of the levels of GB/T 33171-2016, 0 for unknown."""

AIR_LEVELS: tuple[Words, ...] = (
    {"en": "unknown", "zh": "未知"},
    {"en": "excellent", "zh": "优"},
    {"en": "good", "zh": "良"},
    {"en": "lightly polluted", "zh": "轻度污染"},
    {"en": "moderately polluted", "zh": "中度污染"},
    {"en": "heavily polluted", "zh": "重度污染"},
    {"en": "severely polluted", "zh": "严重污染"},
)
"""Names of the levels of HJ 633."""

AMERICAN_LEVELS: tuple[Words, ...] = (
    {"en": "unknown", "zh": "未知"},
    {"en": "good", "zh": "良好"},
    {"en": "moderate", "zh": "中等"},
    {"en": "unhealthy for sensitive groups", "zh": "对敏感人群不健康"},
    {"en": "unhealthy", "zh": "不健康"},
    {"en": "very unhealthy", "zh": "非常不健康"},
    {"en": "hazardous", "zh": "危险"},
)
"""Names of the categories of the US rule."""

_GRADES: tuple[Words, ...] = tuple({"en": grade, "zh": f"{grade} 级"} for grade in "ABCDEF")
SERVICE_LEVELS: tuple[Words, ...] = ({"en": "unknown", "zh": "未知"}, *_GRADES)
"""Grades of the Highway Capacity Manual."""

INDEX_TITLES: Mapping[str, Words] = {
    "tpi": {"en": "traffic performance index, 0–10", "zh": "交通运行指数（TPI），0–10"},
    "tti": {"en": "travel-time index, T/T₀", "zh": "行程时间指数（TTI），T/T₀"},
    "pti": {"en": "planning-time index, T₉₅/T₀", "zh": "计划时间指数（PTI），T₉₅/T₀"},
    "los": {"en": "level of service, 1 = A … 6 = F", "zh": "服务水平，1 = A 级 … 6 = F 级"},
    "aqi": {"en": "air quality index of PM2.5", "zh": "PM2.5 空气质量分指数（IAQI）"},
}

BASES: Mapping[str, Words] = {
    "newest": {"en": "the newest reading", "zh": "最新观测值"},
    "hour": {"en": "the mean of the last hour", "zh": "最近 1 小时平均值"},
    "ahead": {"en": "the forecast of the next step", "zh": "下一时段的预测"},
    "nowcast": {"en": "the last 12 hours weighted (NowCast)", "zh": "最近 12 小时加权值（NowCast）"},
}
"""What the present value of an index is made from."""

AIR_ADVICE: tuple[Words, ...] = (
    {"en": "", "zh": ""},
    {"en": "Everyone can be active outdoors.", "zh": "各类人群可正常活动。"},
    {
        "en": "The few who are unusually sensitive should be outdoors less.",
        "zh": "极少数异常敏感人群应减少户外活动。",
    },
    {
        "en": "Children, the elderly and people with heart or lung disease should avoid long exertion outdoors.",
        "zh": "儿童、老年人及心脏病、呼吸系统疾病患者应减少长时间、高强度的户外锻炼。",
    },
    {
        "en": "Children, the elderly and patients should not exert themselves outdoors; others should do so less.",
        "zh": "儿童、老年人及心肺疾病患者应避免长时间、高强度的户外锻炼，一般人群适量减少户外运动。",
    },
    {
        "en": "Children, the elderly and patients should stay indoors; others should be outdoors less.",
        "zh": "儿童、老年人和心肺疾病患者应停留在室内，停止户外运动，一般人群减少户外运动。",
    },
    {
        "en": "Children, the elderly and patients should stay indoors; others should avoid being outdoors.",
        "zh": "儿童、老年人和病人应当留在室内，避免体力消耗，一般人群应避免户外活动。",
    },
)
"""What HJ 633 advises at each level."""

MESSAGES: Mapping[str, Words] = {
    "congestion_ahead": {
        "en": "Congestion is likely here at {time} local time ({probability:.0%}).",
        "zh": "当地时间 {time} 此处可能拥堵（概率 {probability:.0%}）。",
    },
    "pollution_ahead": {
        "en": "The air is likely to be polluted at {time} local time ({probability:.0%}).",
        "zh": "当地时间 {time} 空气可能达到污染水平（概率 {probability:.0%}）。",
    },
    "stale": {
        "en": "Observations are late; this rests on older ones.",
        "zh": "观测数据滞后，以下结果基于较早的观测。",
    },
    "fallback": {
        "en": "The forecast is the usual course of the week, not the model's.",
        "zh": "当前结果为历史同期规律，并非模型预测。",
    },
    "doubted": {
        "en": "Forecasts of the last hours have often not come true; take this one with care.",
        "zh": "近几小时的预测与实际偏差较大，以下结果请谨慎使用。",
    },
    "leave_later": {
        "en": "Expect about {factor:.1f} times the usual travel time on this road; go later or another way.",
        "zh": "该路段行程时间约为畅通时的 {factor:.1f} 倍，建议错峰或绕行。",
    },
}


CAUSES: Mapping[str, Words] = {
    "spillback": {"en": "the queue ahead reaches back", "zh": "前方排队回溢"},
    "upstream": {"en": "congestion arrives from upstream", "zh": "上游拥堵传播"},
    "usual": {"en": "usual at this hour", "zh": "此时段常态"},
    "unusual_drop": {"en": "unusually slow, perhaps an incident", "zh": "速度异常下降，疑似事件"},
    "rain": {"en": "rain", "zh": "降雨"},
    "stagnation": {"en": "little wind or a shallow mixed layer", "zh": "静稳天气，扩散条件差"},
    "transport": {"en": "carried here by the wind", "zh": "上风向输送"},
    "traffic_nearby": {"en": "congested roads nearby", "zh": "周边道路拥堵排放"},
}
"""Probable causes of a problem."""

PROBLEMS: Mapping[tuple[str, bool], Words] = {
    ("road", True): {"en": "{name} is congested", "zh": "{name} 拥堵"},
    ("road", False): {
        "en": "{name} will probably be congested at {time} local time ({probability:.0%})",
        "zh": "{name} 预计当地时间 {time} 拥堵（概率 {probability:.0%}）",
    },
    ("air", True): {"en": "The air at {name} is polluted", "zh": "{name} 空气污染"},
    ("air", False): {
        "en": "The air at {name} will probably be polluted at {time} local time ({probability:.0%})",
        "zh": "{name} 预计当地时间 {time} 空气污染（概率 {probability:.0%}）",
    },
}
"""A problem in a sentence, by node type and whether it is there already."""


@lru_cache(maxsize=256)
def preferred_language(accept: str | None) -> Language:
    """``zh`` where ``Accept-Language`` ranks Chinese before English, else ``en``. ``*`` ranks what is not named."""
    best: dict[str, float] = {}
    for tag, quality in weighed(accept or ""):
        name = tag.partition("-")[0]
        best[name] = max(best.get(name, 0.0), quality)
    others = best.get("*", 0.0)
    return "zh" if best.get("zh", others) > best.get("en", others) else "en"


_ASKED: ContextVar[str | None] = ContextVar("accept_language", default=None)


def listen(accept: str | None) -> None:
    """Remembers the ``Accept-Language`` of the request that is being answered, for what is said far from it."""
    _ASKED.set(accept)


def asked_language() -> Language:
    """The language of the request that is being answered; English outside of one."""
    return preferred_language(_ASKED.get())


def spoken(language: Language) -> dict[str, str]:
    """Headers of an answer that is made in the language asked for."""
    return {"Content-Language": language, "Vary": "Accept-Language"}


def say(key: str, language: Language, **values: object) -> str:
    return MESSAGES[key][language].format(**values)


def summary(node: str, now: bool, causes: Iterable[str], language: Language, **values: object) -> str:
    """A problem and its causes in one sentence."""
    said = PROBLEMS[node, now][language].format(**values)
    why = ("; " if language == "en" else "、").join(CAUSES[cause][language] for cause in causes)
    if language == "zh":
        return f"{said}：{why}。" if why else f"{said}。"
    return f"{said}: {why}." if why else f"{said}."
