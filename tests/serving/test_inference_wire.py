"""Tensors and requests of the inference protocol, decoded and encoded."""

import gzip
import tracemalloc

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from citybrain_serving.inference import wire
from citybrain_serving.inference.errors import InferenceError, RequestTooLarge
from citybrain_serving.inference.tensors import DATATYPES

JSON_DATATYPES = sorted(DATATYPES)


def entry(**changes) -> dict:
    return {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, 3, 4], **changes}


def decoded(*inputs: dict, **more) -> wire.InferRequest:
    return wire.decode(orjson.dumps({"inputs": list(inputs), **more}), None)


@given(
    st.sampled_from(JSON_DATATYPES).flatmap(
        lambda name: st.tuples(
            st.just(name),
            hnp.arrays(
                DATATYPES[name],
                hnp.array_shapes(max_dims=3, max_side=4),
                elements={"allow_nan": False, "allow_infinity": False} if name.startswith("FP") else None,
            ),
        )
    ),
    st.booleans(),
)
def test_every_tensor_survives_the_way_there_and_back(case, binary):
    name, tensor = case
    request = wire.InferRequest({}, "7", None, binary)
    body, headers = wire.encode("m", "1", request, {"x": tensor})
    size = int(headers.get(wire.HEADER, len(body)))
    answer = orjson.loads(body[:size])
    assert answer["id"] == "7"
    assert answer["model_name"] == "m"
    output = answer["outputs"][0]
    again = orjson.dumps({"inputs": [output]})
    back = wire.decode(again + body[size:], str(len(again))).inputs["x"]
    assert back.dtype == DATATYPES[name] == tensor.dtype
    np.testing.assert_array_equal(back, tensor)


def test_flat_and_nested_data_are_the_same():
    flat = decoded(entry()).inputs["x"]
    nested = decoded(entry(data=[[1, 2.5], [3, 4]])).inputs["x"]
    np.testing.assert_array_equal(flat, nested)
    assert flat.dtype == np.float32
    assert flat.shape == (2, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": [1, 2, 3]}, "shape says"),
        ({"data": [[1, 2, 3, 4]]}, "shape says"),
        ({"data": [[1, 2], [3]]}, "unevenly"),
        ({"data": ["1", "2", "3", "4"]}, "does not hold FP32"),
        ({"data": [1, 2, 3, None]}, "does not hold FP32"),
        ({"data": "1234"}, "list of numbers"),
        ({"data": None}, "list of numbers"),
        ({"datatype": "INT8", "data": [1, 2, 3, 200]}, "range of INT8"),
        ({"datatype": "UINT8", "data": [1, 2, 3, -1]}, "range of UINT8"),
        ({"datatype": "INT64", "data": [1, 2, 3, 4.5]}, "does not hold INT64"),
        ({"datatype": "INT64", "data": [1, 2, 3, 2**64 - 1]}, "range of INT64"),
        ({"datatype": "BOOL", "data": [1, 0, 1, 0]}, "does not hold BOOL"),
        ({"datatype": "BYTES"}, "not among"),
        ({"shape": [-2, -2]}, "sizes"),
        ({"shape": [2.0, 2]}, "sizes"),
        ({"shape": [1] * 9}, "at most 8"),
        ({"shape": [2**31, 2**31]}, "beyond anything"),
        ({"datatype": "INT64", "data": [1, 2, 3, [4]]}, "unevenly"),
        ({"datatype": "INT64", "data": [1, 2, 3, {}]}, "does not hold"),
        ({"shape": "22"}, "sizes"),
        ({"name": 3}, "needs name"),
        ({"extra": 1}, "unknown members: extra"),
        ({"parameters": {"shared_memory_region": "r"}}, "not supported"),
        ({"parameters": [1]}, "must be an object"),
        ({"parameters": {"binary_data_size": 4}}, "both data and"),
    ],
)
def test_what_is_wrong_with_an_input_is_named(changes, said):
    with pytest.raises(InferenceError, match=said):
        decoded(entry(**changes))


@pytest.mark.parametrize("data", [["x" * 50_000, *[1.5] * 50_000], [["x" * 50_000], *[[1.5]] * 50_000]])
def test_a_long_text_among_numbers_takes_no_room_for_each_of_them(data):
    tracemalloc.start()
    try:
        with pytest.raises(InferenceError, match="does not hold FP32"):
            decoded(entry(shape=[50_001], data=data))
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20  # NumPy would ask for ten gigabytes
    finally:
        tracemalloc.stop()


def test_data_nested_deeper_than_any_tensor_is_refused():
    data = 1.0
    for _ in range(200):
        data = [data]
    with pytest.raises(InferenceError, match="nested too deep"):
        decoded(entry(shape=[1], data=data))


@pytest.mark.parametrize(
    ("body", "header", "said"),
    [
        (b"", None, "no JSON"),
        (b"[]", None, "JSON object"),
        (b"{}", None, "at least one"),
        (b'{"inputs": []}', None, "at least one"),
        (b'{"inputs": [3]}', None, "JSON object"),
        (b'{"inputs": [], "more": 1}', None, "unknown members"),
        (b"{}", "3", "does not fit"),
        (b"{}", "-1", "does not fit"),
        (b"{}", "0", "does not fit"),
        (b"{}", "two", "does not fit"),
        (b"{}", "9" * 5_000, "does not fit"),
        (b"[" * 100_000, None, "no JSON"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(body, header, said):
    with pytest.raises(InferenceError, match=said):
        wire.decode(body, header)


def test_inputs_and_outputs_come_once():
    with pytest.raises(InferenceError, match="given twice"):
        decoded(entry(), entry())
    with pytest.raises(InferenceError, match="asked for twice"):
        decoded(entry(), outputs=[{"name": "q"}, {"name": "q"}])


def raw(shape: list[int], size: object, data: bytes) -> tuple[bytes, str]:
    tensor = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}}
    head = orjson.dumps({"inputs": [tensor]})
    return head + data, str(len(head))


@pytest.mark.parametrize(
    ("shape", "size", "data", "said"),
    [
        ([2], 8, b"1234", "left in the body"),
        ([2], -8, b"12345678", "left in the body"),
        ([2], 2.0, b"12345678", "left in the body"),
        ([3], 8, b"12345678", "takes 12"),
        ([1], 4, b"12345678", "follow the last tensor"),
    ],
)
def test_raw_tensors_must_fit_their_bytes(shape, size, data, said):
    with pytest.raises(InferenceError, match=said):
        wire.decode(*raw(shape, size, data))


def test_what_is_asked_in_the_same_words_is_read_from_its_own_bytes():
    """Beside a tensor in the JSON itself, which nobody may write to."""
    entries = [entry(name="told", shape=[1], data=[3]), entry(parameters={"binary_data_size": 16})]
    del entries[1]["data"]
    head = orjson.dumps({"inputs": entries, "id": "7"})
    for value in (1.0, 2.0):
        asked = wire.decode(head + np.full(4, value, "<f4").tobytes(), str(len(head)))
        assert asked.id == "7"
        np.testing.assert_array_equal(asked.inputs["x"], np.full((2, 2), value))
        np.testing.assert_array_equal(asked.inputs["told"], [3])
        assert not any(tensor.flags.writeable for tensor in asked.inputs.values())
    with pytest.raises(InferenceError, match="8 bytes are left"):
        wire.decode(head + bytes(8), str(len(head)))


@pytest.mark.parametrize(
    ("more", "all_raw"),
    [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "a", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}]}, False),
        ({"parameters": {"binary_data_output": True}, "outputs": [{"name": "a"}]}, True),
    ],
)
def test_a_request_says_whether_its_answer_holds_tensors_as_json(more, all_raw):
    assert decoded(entry(), **more).all_raw is all_raw


def test_an_output_that_is_not_finite_is_null_in_json():
    body, _ = wire.encode("m", "1", wire.InferRequest({}), {"q": np.array([np.nan, np.inf, 1], np.float32)})
    assert orjson.loads(body)["outputs"][0]["data"] == [None, None, 1.0]


def test_packed_bodies_are_unpacked_up_to_a_bound():
    packed = gzip.compress(bytes(10_000_000))
    assert len(wire.inflate(gzip.compress(b"abc"), "gzip", 100)) == 3
    with pytest.raises(RequestTooLarge):
        wire.inflate(packed, "gzip", 1_000_000)
    with pytest.raises(InferenceError, match="is no deflate"):
        wire.inflate(packed, "deflate", 100)
    with pytest.raises(InferenceError, match="middle"):
        wire.inflate(packed[: len(packed) // 2], "gzip", 20_000_000)
    with pytest.raises(InferenceError, match="none of"):
        wire.inflate(b"", "br", 100)
