"""Inference requests and answers on the wire: JSON alone, or JSON followed by the bytes of its tensors."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from citybrain_serving.inference.errors import InferenceError, RequestTooLarge
from citybrain_serving.inference.tensors import MOST_DIMENSIONS, describe, from_bytes, from_json, to_bytes

HEADER = "Inference-Header-Content-Length"
"""Length of the JSON in front of raw tensors; named by the binary data extension."""

REMEMBERED = 4096
"""Bytes of JSON in front of raw tensors up to which it is remembered what they say: callers ask in the same words."""

REQUEST_KEYS = {"id", "parameters", "inputs", "outputs"}
INPUT_KEYS = {"name", "shape", "datatype", "parameters", "data"}
OUTPUT_KEYS = {"name", "parameters"}


@dataclass(frozen=True)
class Wanted:
    """An output asked for, and whether as raw bytes."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A decoded request. ``outputs`` None asks for every output, raw where ``binary`` says so."""

    inputs: dict[str, np.ndarray]
    id: str | None = None
    outputs: list[Wanted] | None = None
    binary: bool = False

    @property
    def all_raw(self) -> bool:
        """Whether the answer holds no tensor as JSON."""
        return self.binary if self.outputs is None else all(want.binary for want in self.outputs)


def decode(body: bytes, header_length: str | None) -> InferRequest:
    """Raises :class:`InferenceError` naming what is wrong and where."""
    size = json_length(header_length, len(body))
    raw, plain = memoryview(body)[size:], memoryview(body)[:size]
    asked, given = _remembered(bytes(plain)) if raw and size <= REMEMBERED else _read(plain)
    tail = _Tail(raw)
    inputs = {name: tail.take(name, one) if isinstance(one, _Raw) else one for name, one in given.items()}
    if tail.left:
        raise InferenceError(f"{tail.left} bytes follow the last tensor")
    return replace(asked, inputs=inputs)


def encode(
    model: str, version: str, request: InferRequest, outputs: dict[str, np.ndarray]
) -> tuple[bytes, dict[str, str]]:
    """The answer's body and headers. Raises :class:`InferenceError` for an output that the model lacks."""
    wanted = request.outputs or [Wanted(name, request.binary) for name in outputs]
    entries, raw = [], []
    for want in wanted:
        if want.name not in outputs:
            raise InferenceError(f"there is no output {want.name[:80]!r}; known are {', '.join(outputs)}")
        tensor = outputs[want.name]
        entry = describe(want.name, tensor)
        if want.binary:
            data = to_bytes(tensor)
            entry["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        else:
            entry["data"] = np.ascontiguousarray(tensor).reshape(-1)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    head = orjson.dumps({**document, "outputs": entries}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not raw:
        return head, {"Content-Type": "application/json"}
    return b"".join((head, *raw)), {"Content-Type": "application/octet-stream", HEADER: str(len(head))}


def inflate(body: bytes, coding: str, most: int) -> bytes:
    """The body behind a ``Content-Encoding``, at most ``most`` bytes. Raises :class:`InferenceError`."""
    windows = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
    if coding not in windows:
        raise InferenceError(f"Content-Encoding {coding[:20]!r} is none of identity, gzip, deflate")
    worker = zlib.decompressobj(windows[coding])
    try:
        plain = worker.decompress(body, most)
    except zlib.error:
        raise InferenceError(f"the body is no {coding}") from None
    if worker.unconsumed_tail:
        raise RequestTooLarge(f"the body is over {most} bytes when unpacked")
    if not worker.eof:
        raise InferenceError(f"the body ends in the middle of its {coding}")
    return plain


@dataclass(frozen=True)
class _Raw:
    """A tensor of ``size`` bytes, or of whatever was given for that, behind the JSON."""

    datatype: str
    shape: tuple[int, ...]
    size: Any


@dataclass
class _Tail:
    """The bytes behind the JSON, taken tensor by tensor."""

    data: memoryview
    at: int = field(default=0)

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, name: str, raw: _Raw) -> np.ndarray:
        if type(raw.size) is not int or not 0 <= raw.size <= self.left:
            raise InferenceError(
                f"input {name!r}: binary_data_size {raw.size!r}, {self.left} bytes are left in the body"
            )
        self.at += raw.size
        return from_bytes(name, raw.datatype, raw.shape, self.data[self.at - raw.size : self.at])


def _read(plain: bytes | memoryview) -> tuple[InferRequest, dict[str, np.ndarray | _Raw]]:
    """What the JSON of a request says, and its inputs."""
    try:
        document = orjson.loads(plain)
    except orjson.JSONDecodeError as error:
        raise InferenceError(f"the request is no JSON: {error}") from None
    _keys(document, REQUEST_KEYS, "the request")
    given = document.get("inputs")
    if not isinstance(given, list) or not given:
        raise InferenceError("inputs must be a list with at least one tensor")
    inputs: dict[str, np.ndarray | _Raw] = {}
    for entry in given:
        name, tensor = _input(entry)
        if name in inputs:
            raise InferenceError(f"input {name!r} is given twice")
        inputs[name] = tensor
    request_id = document.get("id")
    if request_id is not None and not (isinstance(request_id, str) and len(request_id) <= 256):
        raise InferenceError("id must be a string of at most 256 characters")
    binary = _flag(_parameters(document, "the request"), "binary_data_output", False)
    return InferRequest({}, request_id, _outputs(document.get("outputs"), binary), binary), inputs


_remembered = lru_cache(maxsize=64)(_read)


def _input(entry: Any) -> tuple[str, np.ndarray | _Raw]:
    _keys(entry, INPUT_KEYS, "an input")
    name, shape, datatype = entry.get("name"), entry.get("shape"), entry.get("datatype")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise InferenceError("an input needs name and datatype, both strings")
    name = name[:80]
    sizes = isinstance(shape, list) and len(shape) <= MOST_DIMENSIONS and all(type(n) is int and n >= 0 for n in shape)
    if not sizes:
        raise InferenceError(f"input {name!r}: shape must be a list of at most {MOST_DIMENSIONS} sizes")
    if math.prod(shape) >= 2**40:
        raise InferenceError(f"input {name!r}: shape {shape} is beyond anything that could be sent")
    parameters = _parameters(entry, f"input {name!r}")
    size = parameters.get("binary_data_size")
    if size is None:
        tensor = from_json(name, datatype, tuple(shape), entry.get("data"))
        tensor.flags.writeable = False  # as over raw bytes: the same one may be remembered and given again
        return name, tensor
    if "data" in entry:
        raise InferenceError(f"input {name!r} has both data and binary_data_size")
    return name, _Raw(datatype, tuple(shape), size)


def _outputs(given: Any, binary: bool) -> list[Wanted] | None:
    if given is None:
        return None
    if not isinstance(given, list):
        raise InferenceError("outputs must be a list")
    wanted = []
    for entry in given:
        _keys(entry, OUTPUT_KEYS, "an output")
        if not isinstance(entry.get("name"), str):
            raise InferenceError("an output needs a name")
        parameters = _parameters(entry, f"output {entry['name'][:80]!r}")
        wanted.append(Wanted(entry["name"], _flag(parameters, "binary_data", binary)))
    if len({want.name for want in wanted}) < len(wanted):
        raise InferenceError("an output is asked for twice")
    return wanted or None


def _parameters(owner: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = owner.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InferenceError(f"parameters of {where} must be an object")
    for unsupported in ("shared_memory_region", "classification", "sequence_id"):
        if parameters.get(unsupported):
            raise InferenceError(f"{where}: {unsupported} is not supported")
    return parameters


def _flag(parameters: dict[str, Any], name: str, otherwise: bool) -> bool:
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        raise InferenceError(f"{name} must be true or false")
    return value


def _keys(document: Any, known: set[str], where: str) -> None:
    if not isinstance(document, dict):
        raise InferenceError(f"{where} must be a JSON object")
    unknown = sorted(set(document) - known)
    if unknown:
        raise InferenceError(f"{where} has unknown members: {', '.join(name[:40] for name in unknown[:5])}")


def json_length(given: str | None, length: int) -> int:
    """Bytes of the JSON that a body of ``length`` bytes begins with, as its header tells. Raises
    :class:`InferenceError`."""
    if given is None:
        return length
    if not given.isascii() or not given.isdigit() or len(given) > 12 or not 0 < int(given) <= length:
        raise InferenceError(f"{HEADER} {given[:20]!r} does not fit a body of {length} bytes")
    return int(given)
