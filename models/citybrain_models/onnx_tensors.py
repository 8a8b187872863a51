"""The tensors of an ONNX file, found and added without the onnx package: 55 MB that a server need not carry for that.

Only the fields that can hold a tensor, and those of the tensors added, are described, with the numbers of onnx.proto;
protobuf carries all others along unread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from citybrain_datasets.errors import CityBrainError

REPEATED, SINGLE = (
    descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
    descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
)

_HOLDERS: dict[str, tuple[tuple[str, int, int, str], ...]] = {
    "Model": (
        ("graph", 7, SINGLE, "Graph"),
        ("training", 20, REPEATED, "Training"),
        ("functions", 25, REPEATED, "Function"),
    ),
    "Training": (("initialization", 1, SINGLE, "Graph"), ("algorithm", 2, SINGLE, "Graph")),
    "Function": (("node", 7, REPEATED, "Node"),),
    "Graph": (
        ("node", 1, REPEATED, "Node"),
        ("initializer", 5, REPEATED, "Tensor"),
        ("sparse_initializer", 15, REPEATED, "Sparse"),
        ("input", 11, REPEATED, "Value"),
    ),
    "Node": (("attribute", 5, REPEATED, "Attribute"),),
    "Attribute": (
        ("t", 5, SINGLE, "Tensor"),
        ("g", 6, SINGLE, "Graph"),
        ("tensors", 10, REPEATED, "Tensor"),
        ("graphs", 11, REPEATED, "Graph"),
        ("sparse_tensor", 22, SINGLE, "Sparse"),
        ("sparse_tensors", 23, REPEATED, "Sparse"),
    ),
    "Sparse": (("values", 1, SINGLE, "Tensor"), ("indices", 2, SINGLE, "Tensor")),
    "Tensor": (("external_data", 13, REPEATED, "Entry"),),
    "Entry": (),
    "Value": (),
}

_FIELD = descriptor_pb2.FieldDescriptorProto
_PLAIN: dict[str, tuple[tuple[str, int, Any, Any], ...]] = {  # name, number, label, type
    "Tensor": (
        ("dims", 1, REPEATED, _FIELD.TYPE_INT64),
        ("data_type", 2, SINGLE, _FIELD.TYPE_INT32),
        ("name", 8, SINGLE, _FIELD.TYPE_STRING),
        ("raw_data", 9, SINGLE, _FIELD.TYPE_BYTES),
        ("data_location", 14, SINGLE, _FIELD.TYPE_INT32),
    ),
    "Value": (("name", 1, SINGLE, _FIELD.TYPE_STRING),),
}

_DATA_TYPES = {"float32": 1, "int64": 7}
"""Numbers of TensorProto.DataType for the arrays that a network is given."""


class OnnxFileError(CityBrainError):
    """Bytes that are no ONNX model, or one with tensors elsewhere."""


def refuse_external_tensors(model: bytes) -> None:
    """Raises :class:`OnnxFileError` unless ``model`` is an ONNX graph whose every tensor lies in these bytes.

    A tensor that names a file would let a model read whatever the server can.
    """
    parsed = _parsed(model)
    if not parsed.HasField("graph"):
        raise OnnxFileError("is no ONNX model: it has no graph")
    for tensor in _tensors(parsed):
        if tensor.data_location or tensor.external_data:
            raise OnnxFileError(f"tensor {tensor.name!r} refers to data outside the file")


def with_constants(model: bytes, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The model with inputs turned into constants, so that an inference engine computes what hangs on them alone once,
    when it opens the model, and not for every window.

    Raises :class:`OnnxFileError` for arrays that the model has no input for, or of a type that no network here reads.
    """
    parsed = _parsed(model)
    kept = [value for value in parsed.graph.input if value.name not in arrays]
    unknown = set(arrays) - {value.name for value in parsed.graph.input}
    if unknown:
        raise OnnxFileError(f"does not read {', '.join(sorted(unknown))}")
    odd = [name for name, array in arrays.items() if array.dtype.name not in _DATA_TYPES]
    if odd:
        raise OnnxFileError(f"reads {odd[0]} as {arrays[odd[0]].dtype}")
    for name, array in arrays.items():
        parsed.graph.initializer.add(
            name=name, dims=array.shape, data_type=_DATA_TYPES[array.dtype.name], raw_data=array.tobytes()
        )
    del parsed.graph.input[:]
    parsed.graph.input.extend(kept)
    return bytes(parsed.SerializeToString())


def _parsed(model: bytes) -> Any:
    parsed = _MODEL()
    try:
        parsed.ParseFromString(model)
    except DecodeError as error:
        raise OnnxFileError(f"is no ONNX model: {error}") from None
    return parsed


def _tensors(message: Message) -> Iterator[Any]:
    """Every tensor below a message, however deep its graphs are nested."""
    if message.DESCRIPTOR.name == "Tensor":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                yield from _tensors(child)


def _model_class() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="citybrain/onnx_tensors.proto", package="citybrain.onnx")
    for name, fields in _HOLDERS.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            kind_name = f".citybrain.onnx.{kind}"
            message.field.add(
                name=field, number=number, label=label, type_name=kind_name,
                type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
            )  # fmt: skip
        for plain, number, label, type_ in _PLAIN.get(name, ()):
            message.field.add(name=plain, number=number, label=label, type=type_)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("citybrain.onnx.Model"))


_MODEL: Any = _model_class()
