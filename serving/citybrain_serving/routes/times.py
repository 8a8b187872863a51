"""Spans of time in query parameters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import pandas as pd
from pydantic import BeforeValidator

from citybrain_serving.errors import BadSelection


def _written(text: object) -> object:
    if isinstance(text, str) and text.strip("+-. ").replace(".", "").isdigit():
        raise ValueError("must be a date and time, not a number")
    return text


Moment = Annotated[datetime, BeforeValidator(_written)]
"""A date and time in a query. Numbers, which could be seconds or milliseconds, are not guessed at."""


def instant(time: datetime, parameter: str) -> pd.Timestamp:
    """A parameter's time in UTC. Raises :class:`BadSelection` for one without a zone, or beyond any calendar here."""
    if time.tzinfo is None:
        raise BadSelection(f"{parameter} has no zone; end it with Z or an offset", {"parameter": parameter})
    try:
        return pd.Timestamp(time).tz_convert("UTC").as_unit("s")
    except (pd.errors.OutOfBoundsDatetime, OverflowError, ValueError):
        raise BadSelection(f"{parameter} is no time that forecasts are kept of", {"parameter": parameter}) from None
