"""A city whose profile is packed is forecast as before, to the last decimal that is published."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from citybrain_datasets import packed_profile
from citybrain_datasets.packed_profile import PackedProfile, packed
from citybrain_models import onnx_forecaster
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.encoding import DECIMALS
from citybrain_serving.inference.network import unmeasured
from citybrain_serving.readings import readings_from_json
from citybrain_serving.safety.bundles import read_bundle
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings


@pytest.mark.parametrize("hours", [30, 0.1])
def test_forecasts_change_by_less_than_is_published(tmp_path, bundles, rows, hours):
    """With a day of observations, and with so few that little but the profile speaks."""
    values = []
    for name, above in (("plain", 2**40), ("packed", 0)):
        held = [replace(b, statistics=packed(b.statistics, above)) for b in bundles.values()]
        service = Service(held, Settings(store=str(tmp_path / name), clock="observations"))
        service.take(readings_from_json(json.dumps({"observations": rows(hours)}).encode()))
        snapshot = service.step()
        assert snapshot is not None
        values.append([forecast.values for forecast in snapshot.forecasts.values()])
        assert np.isfinite(service.board.free_speeds).all()
        service.close()
    for plain, small in zip(*values, strict=True):
        np.testing.assert_allclose(small, plain, rtol=0, atol=0.5 * 10**-DECIMALS)


def test_a_large_profile_is_packed_as_it_is_read(tmp_path, bundles, monkeypatch):
    folder = tmp_path / "bundle"
    bundle = bundles["congestion"].write(folder)
    assert not isinstance(read_bundle(folder).statistics.profiles["speed"], PackedProfile)
    monkeypatch.setattr(packed_profile, "LARGE", 1)
    found = read_bundle(folder)
    assert isinstance(found.statistics.profiles["speed"], PackedProfile)
    assert found.digest == bundle.digest


def test_a_large_network_gives_its_memory_back_and_says_the_same(bundles, monkeypatch):
    plain = OnnxForecaster(bundles["congestion"])
    monkeypatch.setattr(onnx_forecaster, "LARGE", 1)
    large = OnnxForecaster(bundles["congestion"])
    window = unmeasured(plain.features, plain.bundle)
    for _ in range(2):
        np.testing.assert_array_equal(large.raw(window), plain.raw(window))
