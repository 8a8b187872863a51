"""Answers packed for the way: which coding, the same content, tags that tell codings apart."""

from __future__ import annotations

import gzip

import httpx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_serving.compression import SMALLEST, coding_for, packed
from citybrain_serving.publication import Published

ROADS = "/v1/forecasts/congestion"


def raw(client: httpx.Client, address: str, coding: str | None, method: str = "GET", **headers: str) -> httpx.Response:
    """An answer as it came, not unpacked by the client."""
    sent = {"Accept-Encoding": coding} if coding is not None else {"Accept-Encoding": "identity"}
    with client.stream(method, address, headers={**sent, **headers}) as answer:
        answer.packed = b"".join(answer.iter_raw())
    return answer


def unpacked(body: bytes, coding: str | None) -> bytes:
    if coding == "zstd":
        return pa.input_stream(pa.py_buffer(body), compression="zstd").read()
    return gzip.decompress(body) if coding == "gzip" else body


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("br", "identity"),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("*", "zstd"),
        ("*;q=0.1, gzip", "gzip"),
        ("gzip;q=0", "identity"),
        ("zstd;q=0, *", "gzip"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity;q=0, *;q=0", "identity"),
        ("GZIP;Q=x", "identity"),
    ],
)
def test_the_coding_that_a_request_prefers(accept, coding):
    assert coding_for(accept) == coding


@given(st.binary(max_size=5_000), st.sampled_from(["gzip", "zstd", "identity"]))
def test_what_was_packed_comes_out_again(body, coding):
    assert unpacked(packed(body, coding), coding) == body
    assert packed(body, coding) == packed(body, coding)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("media", ["application/json", "application/geo+json", "application/vnd.apache.arrow.stream"])
def test_a_forecast_is_the_same_in_every_coding_and_each_has_its_tag(warm, coding, media):
    plain = raw(warm, ROADS, None, Accept=media)
    assert "content-encoding" not in plain.headers
    for _ in range(2):  # packed now, and given again
        answer = raw(warm, ROADS, coding, Accept=media)
        assert answer.headers["content-encoding"] == coding
        assert int(answer.headers["content-length"]) == len(answer.packed)
        assert unpacked(answer.packed, coding) == plain.packed
        assert answer.headers["etag"] == plain.headers["etag"][:-1] + f'-{coding}"'
        assert {"Accept", "Accept-Encoding"} <= set(answer.headers["vary"].split(", "))
    tag = answer.headers["etag"]
    assert raw(warm, ROADS, coding, Accept=media, **{"If-None-Match": tag}).status_code == 304
    assert raw(warm, ROADS, None, Accept=media, **{"If-None-Match": tag}).status_code == 200


def test_packing_is_paid_once_a_snapshot(warm, monkeypatch):
    times: list[str] = []
    monkeypatch.setattr(
        "citybrain_serving.publication.packed", lambda body, coding: times.append(coding) or packed(body, coding)
    )
    for address in (ROADS, ROADS + "?", ROADS + "?quantiles=0.5"):
        for _ in range(3):
            raw(warm, address, "gzip")
    assert len(times) == 2  # the second address asks for the same
    assert hasattr(Published, "get")


@pytest.mark.parametrize("address", ["/v1/roads", "/v1/city", "/openapi.json", "/metrics"])
def test_other_answers_are_packed_as_they_leave(warm, address):
    plain, answer = raw(warm, address, None), raw(warm, address, "gzip")
    assert len(plain.packed) >= SMALLEST
    assert answer.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in plain.headers["vary"]
    assert len(answer.packed) < len(plain.packed)
    if address != "/metrics":  # which counts that it was asked
        assert gzip.decompress(answer.packed) == plain.packed


def test_a_tag_of_what_is_packed_on_the_way_is_weak_and_still_matches(warm):
    address = "/v1/ngsi-ld/entities?type=TrafficFlowForecast"
    answer = raw(warm, address, "zstd")
    assert answer.headers["etag"].startswith('W/"')
    assert raw(warm, address, "zstd", **{"If-None-Match": answer.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize(
    "address",
    [ROADS, "/v1/roads", "/v1/city", "/v1/at?lat=31.21&lon=121.51",
     "/v1/ngsi-ld/entities?type=TrafficFlowForecast", "/v1/datex2/forecasts/pm25"],
)  # fmt: skip
def test_what_has_not_changed_tells_caches_what_the_answer_told(warm, address, coding):
    """RFC 9110, section 15.4.5; a cache that is told another tag makes nothing fresh again (RFC 9111, section 4.3.4)"""
    whole = raw(warm, address, coding)
    for tag in (whole.headers["etag"], "*"):
        again = raw(warm, address, coding, **{"If-None-Match": tag})
        assert again.status_code == 304
        for name in ("etag", "cache-control"):
            assert again.headers[name] == whole.headers[name]
        assert set(again.headers["vary"].split(", ")) == set(whole.headers["vary"].split(", "))


def test_small_answers_go_as_they_are(warm):
    assert "content-encoding" not in raw(warm, "/livez", "gzip").headers


@pytest.mark.parametrize("address", [ROADS, "/v1/city", "/v1/at?lat=31.21&lon=121.51", "/v1/nowhere", "/readyz"])
@pytest.mark.parametrize("coding", [None, "gzip"])
def test_the_head_of_an_answer_is_that_of_the_answer(warm, address, coding):
    whole, head = raw(warm, address, coding), raw(warm, address, coding, "HEAD")
    assert head.packed == b""
    assert head.status_code == whole.status_code
    same = {"content-type", "etag", "vary", "content-encoding"}
    assert {k: v for k, v in head.headers.items() if k in same} == {k: v for k, v in whole.headers.items() if k in same}


def test_a_stream_has_no_head(warm):
    assert raw(warm, "/v1/stream", None, "HEAD").status_code == 405
