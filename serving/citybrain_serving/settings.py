"""What a person may set, from the environment (``CITYBRAIN_SERVE_…``) and the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from citybrain_datasets.errors import ConfigError, nearest
from citybrain_models.calibration import RATE
from citybrain_serving.cases.watch import Hysteresis
from citybrain_serving.safety.settings import SafetySettings

PREFIX = "CITYBRAIN_SERVE_"
SHORTEST_SECRET = 24


class Settings(SafetySettings, BaseSettings):
    """Every field may be set as ``CITYBRAIN_SERVE_<FIELD>``; what the command line says wins."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    store: str = "var/observations.sqlite"
    """A path, kept as SQLite, or an SQLAlchemy URL."""
    clock: Literal["system", "observations"] = "system"
    """``observations`` takes the newest observation for the present, to replay the past."""
    threads: int = Field(1, ge=1, le=64)
    """Threads of each inference session."""

    max_body_bytes: int = Field(16 * 2**20, ge=1024)
    max_readings: int = Field(1_000_000, ge=1)
    """In one body."""
    future_seconds: float = Field(120, ge=0)
    """How far ahead of the clock an observation may lie: clocks in the field run a little fast."""
    oldest_days: float = Field(35, gt=0)
    """Older observations are refused: no forecast reads them."""
    lane_minutes: float = Field(60, ge=0)
    """How long after the end of its interval a reading of a lane waits for the other lanes of its road."""
    weather_hours: float = Field(24, gt=0)
    """How long after its issue a weather forecast is taken and read: an older one errs more than a model has learnt."""

    grace_seconds: float = Field(60, ge=0)
    """How long after a tick the cycle waits for its observations before it goes on without them."""
    debounce_seconds: float = Field(0.25, ge=0)
    """Observations that arrive within this time of each other are computed together."""
    stale_steps: int = Field(3, ge=1)
    """A forecast whose newest observation is older than this many steps is called stale; a node's own that is older is
    not taken for the present there."""
    leave_seconds: float = Field(3, ge=0, le=60)
    """How long a service that is asked to stop goes on answering while ``/readyz`` says 503: longer than a load
    balancer takes to notice. Its supervisor must wait for these, for ten to finish and for the audit log."""
    stream_seconds: float = Field(3600, gt=0)
    """How long a stream lasts. Its listener then connects anew, as browsers do by themselves, and shows its key again:
    one that was revoked does not listen on for ever."""
    streams_each: int = Field(100, ge=1)
    """Streams that one caller may have open: one key, or one address without a key."""
    history_days: float = Field(30, gt=0)
    """How long forecasts are kept; their scores stay."""
    patience_minutes: float = Field(60, ge=0)
    """How long a forecast's last step waits for late observations before it is scored, and each step before the
    quantiles learn from it."""
    learning_rate: float = Field(RATE, ge=0, le=1)
    """How fast outcomes move the quantiles of a model; 0 leaves them as trained."""
    case_open_at: float = Field(0.6, gt=0, le=1)
    case_close_at: float = Field(0.3, ge=0, le=1)
    """Probabilities of trouble from which a case opens and below which it ends."""
    case_rise: int = Field(2, ge=1)
    case_fall: int = Field(3, ge=1)
    """Forecasts in a row that it takes for either, so that cases do not flap."""
    webhook_targets: str = ""
    """https addresses that are told of cases, separated by commas."""
    webhook_secret_file: Path | None = None
    """A file with the secret that messages to them are signed with."""
    infer_rows: int = Field(32, ge=1)
    """Windows in one inference request, and in a batch of several."""
    infer_delay_ms: float = Field(2, ge=0, le=1_000)
    """How long a request waits for others to share its batch, while there are others."""
    infer_queue_rows: int = Field(512, ge=1)
    """Windows that may wait, at least ``infer_rows``; beyond them the answer is 503."""
    mqtt_url: str = ""
    """A broker to take observations from, ``mqtt[s]://[user@]host[:port]``; empty takes none."""
    mqtt_topic: str = Field("citybrain", pattern=r"^[^#+]+$")
    """Topics are ``<mqtt_topic>/observations`` (JSON), ``/arrow``, ``/ngsi-ld`` and ``/datex2``."""
    mqtt_password_file: Path | None = None
    otlp_endpoint: str = ""
    """Where traces go, OTLP over HTTP (``http://collector:4318/v1/traces``); empty traces nothing."""
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.case_close_at >= self.case_open_at:
            raise ValueError("case_close_at must be below case_open_at, or cases flap")
        if self.infer_rows > self.infer_queue_rows:
            raise ValueError(
                f"infer_queue_rows {self.infer_queue_rows} must be at least infer_rows {self.infer_rows}, or requests"
                " that are taken find no room in the queue"
            )
        return self

    def hysteresis(self) -> Hysteresis:
        return Hysteresis(self.case_open_at, self.case_close_at, self.case_rise, self.case_fall)

    def webhook_secret(self) -> bytes:
        """Raises :class:`ConfigError` where the file cannot be read or holds too little."""
        if self.webhook_secret_file is None:
            return b""
        try:
            secret = self.webhook_secret_file.read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"setting webhook_secret_file: cannot be read ({error.strerror})") from None
        if len(secret) < SHORTEST_SECRET:
            raise ConfigError(f"setting webhook_secret_file: needs at least {SHORTEST_SECRET} bytes")
        return secret


def load_settings(given: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from ``environment`` (that of the process by default) with ``given`` on top.

    Raises :class:`ConfigError` naming every unknown or wrong entry.
    """
    names = os.environ if environment is None else environment
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    unknown = sorted(n for n in names if n.upper().startswith(PREFIX) and n.upper() not in known)
    if unknown:
        raise ConfigError("\n".join(f"environment: unknown setting {name}{_meant(name)}" for name in unknown))
    values = {n.upper().removeprefix(PREFIX).lower(): v for n, v in names.items() if n.upper() in known}
    try:
        return Settings(**{**values, **{k: v for k, v in (given or {}).items() if v is not None}})
    except ValidationError as error:
        raise ConfigError("\n".join(_said(*e["loc"], message=e["msg"]) for e in error.errors())) from None


def _meant(name: str) -> str:
    """The prefix left aside, which all have in common and by which all would be alike."""
    meant = nearest(name[len(PREFIX) :], Settings.model_fields)
    return "" if meant is None else f"; did you mean {PREFIX}{meant.upper()}?"


def _said(*place: object, message: str) -> str:
    """What is wrong with a setting, or with several that do not go together."""
    named = f"setting {'.'.join(map(str, place))}" if place else "settings"
    return f"{named}: {message.removeprefix('Value error, ')}"
