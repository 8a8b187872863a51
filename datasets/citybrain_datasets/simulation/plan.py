"""What the synthetic city is made of: every number a person may want to change, in one typed place."""

from __future__ import annotations

import hashlib
import json
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field


class Plan(BaseModel):
    """Parameters of one synthetic city. The same plan and the same SUMO version give the same city."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(7, ge=0)
    first_day: date = date(2025, 3, 17)
    """A Monday, in local time; the four weeks from here hold Tomb-Sweeping Day, 4 April."""
    days: int = Field(28, ge=1, le=366)
    segments: int = Field(180, ge=30, le=1200)
    """At least so many directed road segments; the plan grows block by block until they are reached."""
    stations: int = Field(10, ge=2, le=60)
    timezone: str = "Asia/Shanghai"
    country: str = "CN"
    latitude: float = 31.0
    longitude: float = 123.2
    """The centre lies in the open East China Sea, so that nobody takes this city for a real one."""

    trips_per_segment: float = Field(1100.0, gt=0)
    """Vehicle trips on a plain working day, for each directed segment of the plan."""
    informed_share: float = Field(0.7, ge=0, le=1)
    """Share of drivers who choose their way by current travel times; the others know only the empty city."""
    incidents_per_day: float = Field(6.0, ge=0)
    roadworks_per_week: float = Field(2.0, ge=0)
    """Both are means for a city of 200 segments and grow with it."""

    traffic_scale: float = Field(120.0, gt=0)
    """Factor on the traffic's primary PM2.5 before dispersion. A simulated street stands for the side streets
    around it, and dust whirled up from the road and secondary particles are in no exhaust model; the factor
    makes traffic a visible part of the air. It is a choice, not a measurement."""

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def midnight(self, day: int) -> pd.Timestamp:
        """UTC instant at which local day ``day`` (0 is the first) begins."""
        moment = datetime.combine(self.first_day + timedelta(days=day), datetime.min.time(), self.zone)
        return pd.Timestamp(moment).tz_convert("UTC")

    def digest(self) -> str:
        """Short SHA-256 of what a simulated day depends on; the number of days is not part of it."""
        content = json.dumps(
            self.model_dump(mode="json", exclude={"days", "stations", "traffic_scale"}), sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()[:16]
