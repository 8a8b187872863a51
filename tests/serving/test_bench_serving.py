"""The benchmark of the service, with sizes at which it proves nothing but that it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from citybrain_datasets.errors import CityBrainError, ConfigError
from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.bench import bad_bodies, inference, ingesting, kills, large, overload, reads, swaps
from citybrain_serving.bench.cities import enlarged
from citybrain_serving.bench.client import Load, request
from citybrain_serving.bench.commands import TOPICS, bench_serving
from citybrain_serving.bench.records import Notebook
from citybrain_serving.inference.network import unmeasured
from citybrain_serving.inference.wire import decode

TINY: dict[str, Callable[[Notebook, Bundle, Path], None]] = {
    "reads": lambda *a: reads.measure(*a, segments=8, callers=2, seconds=0.5, repetitions=1, questions=3),
    "inference": lambda *a: inference.measure(*a, sizes=(8,), beside=8, seconds=1, repetitions=1, peers=()),
    "city": lambda *a: large.measure(*a, sizes=(6, 12), steps=1, threads=1),
    "ingest": lambda *a: ingesting.measure(*a, segments=8, bodies=2, repetitions=1),
    "swaps": lambda *a: swaps.measure(*a, swaps=3),
    "kills": lambda *a: kills.measure(*a, kills=1),
    "overload": lambda *a: overload.measure(*a, segments=12, seconds=1.0),
    "bodies": lambda *a: bad_bodies.measure(*a, bodies=20),
}
EXPECTED = {
    "reads": {"p99_ratio", "throughput_ratio"},
    "inference": {"single_stream_ratio", "single_stream_ratio_inside", "batching_ratio"},
    "city": {"cycle", "arrow_first", "resident", "resident_peak", "cycle_exponent"},
    "ingest": {"readings_per_second_arrow", "readings_per_second_json"},
    "swaps": {"swaps", "requests_failed", "memory_growth"},
    "kills": {"readings_acknowledged", "readings_lost", "audit_chains_broken"},
    "overload": {"capacity", "accepted", "accepted_to_capacity", "refused", "probes_failed"},
    "bodies": {"bodies", "internal_errors", "rows_stored"},
}
NOUGHT = {"requests_failed", "readings_lost", "audit_chains_broken", "failed_starts", "probes_failed", "other_answers",
          "internal_errors", "rows_stored"}  # fmt: skip
"""What must not happen, however small the run."""


@pytest.mark.parametrize("topic", TINY)
def test_each_topic_measures_real_servers(topic: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    book = Notebook(tmp_path / "serving.json", "test", tell=lambda _: None)
    TINY[topic](book, bundles["congestion"], tmp_path)
    book.write()
    records = json.loads((tmp_path / "serving.json").read_text())
    assert {r["metric"] for r in records} >= EXPECTED[topic]
    assert all(r["value"] == 0 for r in records if r["metric"] in NOUGHT)
    either = ("exponent", "growth", "refused")  # at these sizes of any sign, or nothing
    assert all(r["value"] > 0 for r in records if r["metric"] not in NOUGHT and not r["metric"].endswith(either))


def test_an_enlarged_city_is_forecast_copy_by_copy(bundles: dict[str, Bundle]) -> None:
    small = bundles["congestion"]
    town = enlarged(small, 15)
    assert len(town.city.ids("road")) == len(set(town.city.ids("road"))) == 15
    # Edges stay within their copy, and those whose ends were cut off are gone.
    edges = town.city.edges["road-road"]
    assert (edges["source"].str.split(".").str[1] == edges["target"].str.split(".").str[1]).all()
    forecaster = OnnxForecaster(town)
    values = forecaster.forecast(unmeasured(forecaster.features, town))
    np.testing.assert_array_equal(values[:, :6], values[:, 6:12])


def test_a_bundle_of_stations_is_not_enlarged(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(CityBrainError, match="not one of pm25"):
        enlarged(bundles["pm25"], 10)


def test_numbers_replace_earlier_ones_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    for value in (1.0, 2.0):
        book = Notebook(path, "test", tell=lambda _: None)
        book.add("case", "citybrain", "p50", value, "ms")
        book.add("case", f"other {value}", "p50", value, "ms")
        book.write()
    assert [(r["subject"], r["value"]) for r in json.loads(path.read_text())] == [
        ("citybrain", 2.0), ("other 1.0", 1.0), ("other 2.0", 2.0),
    ]  # fmt: skip


def test_a_binary_request_is_what_the_service_reads() -> None:
    feed = {"x": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "time": np.ones((1, 4), np.float32)}
    head, body = inference.binary_body(feed)
    read = decode(body, str(head)).inputs
    assert all((read[name] == array).all() for name, array in feed.items())
    assert b"Content-Length: 2\r\n\r\nab" in request("POST", "/x", {"A": "b"}, b"ab")


def test_refusals_are_no_capacity() -> None:
    done = Load(np.full(500, 0.01), {200: 100, 503: 400}, 4.0)
    assert (done.throughput, done.rate(200), done.rate(503), done.rate(429)) == (125.0, 25.0, 100.0, 0.0)


def test_an_unknown_topic_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nonsense given; known are reads"):
        bench_serving(tmp_path, topics="reads,nonsense")
    assert list(TOPICS)[:4] == ["reads", "inference", "city", "ingest"]
