"""What was asked of one forecast for the whole city is at hand when the next one is out."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from citybrain_serving.encoding import ARROW, Answers
from citybrain_serving.publication import ForecastQuery
from citybrain_serving.readings import readings_from_json
from citybrain_serving.selection import Filter
from citybrain_serving.service import Service

END = pd.Timestamp("2026-03-17", tz="UTC")


def test_the_next_forecast_is_encoded_before_it_is_asked_for(
    service: Service, rows: Callable[..., list[dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def observe(hours: float, until: pd.Timestamp) -> None:
        service.take(readings_from_json(json.dumps({"observations": rows(hours, until)}).encode()))

    observe(30, END - pd.Timedelta(minutes=5))
    first = service.cycle.run()
    assert first is not None
    whole, part = ForecastQuery(ARROW), ForecastQuery(ARROW, Filter(ids="r1"))
    for query in (whole, part):
        service.board.task(first, "congestion").get(query)

    observe(0.1, END)
    second = service.cycle.run()
    assert second is not None
    assert second is not first
    service.board.prepare(second)
    made = []
    encode = Answers.encode
    monkeypatch.setattr(Answers, "encode", lambda self, *a: made.append(a) or encode(self, *a))
    body = service.board.task(second, "congestion").get(whole)
    assert not made
    service.board.task(second, "congestion").get(part)
    assert len(made) == 1
    table = pa.ipc.open_stream(BytesIO(body)).read_all()
    values = np.stack(table["q0.5"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(values, second.forecasts["congestion"].values[:, :, 1], atol=0.006)
