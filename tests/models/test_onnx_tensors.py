"""Tensors that lie elsewhere are found wherever they hide; what is no ONNX is said to be none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from citybrain_models.onnx_forecaster import open_session
from citybrain_models.onnx_tensors import OnnxFileError, refuse_external_tensors, with_constants


def model(constant: TensorProto, *, nested: bool = False) -> ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=constant)
    if nested:
        branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])])
        node = helper.make_node("If", ["which"], ["c"], then_branch=branch, else_branch=branch)
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])
    return helper.make_model(helper.make_graph([node], "graph", [], [output]))


def tensor(external: bool) -> TensorProto:
    made = numpy_helper.from_array(np.ones(3, np.float32), "weights")
    if external:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="../../etc/passwd")
    return made


@pytest.mark.parametrize("nested", [False, True])
def test_external_tensors_are_refused_however_deep(nested: bool) -> None:
    refuse_external_tensors(model(tensor(external=False), nested=nested).SerializeToString())
    with pytest.raises(OnnxFileError, match="'weights' refers to data outside"):
        refuse_external_tensors(model(tensor(external=True), nested=nested).SerializeToString())


def test_external_initializers_are_refused() -> None:
    hostile = model(tensor(external=False))
    hostile.graph.initializer.append(tensor(external=True))
    with pytest.raises(OnnxFileError, match="outside"):
        refuse_external_tensors(hostile.SerializeToString())


@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04", b"\x80\x04\x95", bytes(100)])
def test_what_is_no_model_is_said_to_be_none(junk: bytes) -> None:
    with pytest.raises(OnnxFileError, match="is no ONNX model"):
        refuse_external_tensors(junk)


def test_an_input_becomes_a_constant_that_the_engine_computes_with() -> None:
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["row", 2]) for name in ("x", "fixed", "out")]
    pair = helper.make_graph([helper.make_node("Add", ["x", "fixed"], ["out"])], "pair", sides[:2], sides[2:])
    model = helper.make_model(pair, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    fixed = np.arange(6, dtype=np.float32).reshape(2, 3).T  # not contiguous
    session = open_session(with_constants(model, {"fixed": fixed}))
    assert [node.name for node in session.get_inputs()] == ["x"]
    np.testing.assert_array_equal(session.run(None, {"x": np.ones((3, 2), np.float32)})[0], fixed + 1)
    onnx.checker.check_model(onnx.load_from_string(with_constants(model, {"fixed": fixed})))


def test_a_constant_that_no_input_asks_for_or_of_a_foreign_type_is_refused() -> None:
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    made = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", sides[:1], sides[1:])
    model = helper.make_model(made).SerializeToString()
    with pytest.raises(OnnxFileError, match="does not read z"):
        with_constants(model, {"z": np.zeros(1, np.float32)})
    with pytest.raises(OnnxFileError, match="reads x as float64"):
        with_constants(model, {"x": np.zeros(1)})
