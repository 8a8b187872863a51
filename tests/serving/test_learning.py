"""What outcomes taught the quantiles is kept by part of the day, and what an older release kept is understood."""

from __future__ import annotations

import numpy as np
import orjson
import pandas as pd
import pytest
import sqlalchemy as sa

from citybrain_models.calibration import PARTS
from citybrain_serving.database import transaction
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.store import Partial
from citybrain_serving.tables import calibrations

END = pd.Timestamp("2026-03-17", tz="UTC")


@pytest.fixture
def service(tmp_path, bundles):
    made = Service(
        bundles.values(),
        Settings(store=str(tmp_path / "store.sqlite"), clock="observations", patience_minutes=0, learning_rate=0.1),
    )
    yield made
    made.close()


def observe(service: Service, signal) -> None:
    """Tick by tick, with a step of the service after each."""
    for time, row in zip(signal.times, signal.values, strict=True):
        service.store.merge([Partial("speed", int(time.timestamp()), np.arange(len(row)), row)])
        service.step()


def test_outcomes_of_one_part_of_the_day_move_that_part_alone(service, city, bundles):
    first = END - pd.Timedelta(minutes=100)
    observe(service, city.signals["speed"].between(first, END - pd.Timedelta(minutes=5)))
    learnt = service.quality.learnt(bundles["congestion"]).by_part
    # 22:20 to 23:55 UTC; the city's clock says in which part of its day that is.
    hour = (END - pd.Timedelta(minutes=50)).tz_convert(city.timezone).hour
    touched = np.flatnonzero(learnt.any(axis=(1, 2)))
    assert len(learnt) == PARTS
    np.testing.assert_array_equal(touched, [hour * PARTS // 24])


def test_what_an_older_release_learnt_is_kept(service, bundles):
    bundle = bundles["congestion"]
    older = np.full(bundle.calibration.shift.shape, 0.25)
    row = {"task": "congestion", "bundle": bundle.version, "shift": orjson.dumps(older.tolist()).decode(), "updated": 0}
    with transaction(service.quality.engine, write=True) as connection:
        connection.execute(sa.insert(calibrations).values(**row))
    learnt = service.quality.learnt(bundle)
    np.testing.assert_allclose(learnt.shift, bundle.calibration.shift + 0.25)
    assert not learnt.by_part.any()
