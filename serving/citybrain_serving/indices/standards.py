"""The standards that indices come from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Standard:
    """``effective`` is the day from which it holds, None where it was never set; ``until`` the last day."""

    id: str
    title: str
    effective: date | None
    until: date | None = None


GBT_33171 = Standard("GB/T 33171-2016", "城市交通运行状况评价规范, Annex C", date(2017, 5, 1))
HCM6 = Standard("HCM 6", "Highway Capacity Manual, 6th edition, urban street level of service", date(2016, 10, 1))
FHWA_RELIABILITY = Standard("FHWA-HOP-06-070", "Travel Time Reliability: travel-time and planning-time index", None)
HJ_633_2012 = Standard("HJ 633-2012", "环境空气质量指数（AQI）技术规定（试行）", date(2016, 1, 1), date(2026, 2, 28))
HJ_633_2026 = Standard("HJ 633-2026", "环境空气质量指数（AQI）技术规定", date(2026, 3, 1))
EPA_2024 = Standard("US EPA 2024", "40 CFR Part 58, Appendix G, AQI for PM2.5", date(2024, 5, 6))
