"""The standards that indices come from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from citybrain_serving.languages import Words


@dataclass(frozen=True, eq=False)
class Standard:
    """``effective`` is the day from which it holds, None where it was never set; ``until`` the last day."""

    id: str
    title: Words
    effective: date | None
    until: date | None = None


GBT_33171 = Standard(
    "GB/T 33171-2016",
    {"en": "Specification for urban traffic performance evaluation, Annex C", "zh": "城市交通运行状况评价规范，附录 C"},
    date(2017, 5, 1),
)
HCM6 = Standard(
    "HCM 6",
    {
        "en": "Highway Capacity Manual, 6th edition, urban street level of service",
        "zh": "道路通行能力手册（美国，第 6 版），城市道路服务水平",
    },
    date(2016, 10, 1),
)
FHWA_RELIABILITY = Standard(
    "FHWA-HOP-06-070",
    {
        "en": "Travel Time Reliability: travel-time and planning-time index",
        "zh": "行程时间可靠性（美国联邦公路局）：行程时间指数与计划时间指数",
    },
    None,
)
HJ_633_2012 = Standard(
    "HJ 633-2012",
    {
        "en": "Technical regulation on ambient air quality index (on trial)",
        "zh": "环境空气质量指数（AQI）技术规定（试行）",
    },
    date(2016, 1, 1),
    date(2026, 2, 28),
)
HJ_633_2026 = Standard(
    "HJ 633-2026",
    {"en": "Technical regulation on ambient air quality index", "zh": "环境空气质量指数（AQI）技术规定"},
    date(2026, 3, 1),
)
EPA_2024 = Standard(
    "US EPA 2024",
    {
        "en": "40 CFR Part 58, Appendix G, AQI for PM2.5; NowCast for the present",
        "zh": "美国联邦法规 40 CFR 第 58 部分附录 G：PM2.5 的 AQI，当前值采用 NowCast",
    },
    date(2024, 5, 6),
)


def hj_633(day: date) -> Standard:
    """The Chinese regulation that is in force on a day, by the calendar of the place; before both that of 2012."""
    return HJ_633_2012 if HJ_633_2012.until is not None and day <= HJ_633_2012.until else HJ_633_2026
