"""The tensors of an ONNX file, found without the onnx package: 55 MB that a server need not carry for one check.

Only the fields that can hold a tensor are described, with the numbers of onnx.proto; protobuf skips all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
}


class OnnxFileError(CityBrainError):
    """Bytes that are no ONNX model, or one with tensors elsewhere."""


def refuse_external_tensors(model: bytes) -> None:
    """Raises :class:`OnnxFileError` unless ``model`` is an ONNX graph whose every tensor lies in these bytes.

    A tensor that names a file would let a model read whatever the server can.
    """
    parsed = _MODEL()
    try:
        parsed.ParseFromString(model)
    except DecodeError as error:
        raise OnnxFileError(f"is no ONNX model: {error}") from None
    if not parsed.HasField("graph"):
        raise OnnxFileError("is no ONNX model: it has no graph")
    for tensor in _tensors(parsed):
        if tensor.data_location or tensor.external_data:
            raise OnnxFileError(f"tensor {tensor.name!r} refers to data outside the file")


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
        if name == "Tensor":
            message.field.add(name="name", number=8, label=SINGLE, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING)
            message.field.add(
                name="data_location", number=14, label=SINGLE, type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("citybrain.onnx.Model"))


_MODEL: Any = _model_class()
