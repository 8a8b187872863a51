"""Tensors as the protocol carries them: JSON numbers, flat or nested, or raw bytes behind the JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from citybrain_serving.inference.errors import InferenceError

DATATYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatypes of the protocol, little endian on the wire. No network here reads ``BYTES`` or ``BF16``."""

MOST_DIMENSIONS = 8

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}

_ONNX = {
    "tensor(bool)": "BOOL",
    **{f"tensor({name}{bits})": f"{name.upper()}{bits}" for name in ("int", "uint") for bits in (8, 16, 32, 64)},
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}


def datatype_of(onnx_type: str) -> str:
    """The protocol's name of ONNX Runtime's ``tensor(float)``."""
    return _ONNX[onnx_type]


@dataclass(frozen=True)
class TensorSpec:
    """Name, datatype and shape of an input or output; −1 is a dimension that may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    def admit(self, tensor: np.ndarray) -> np.ndarray:
        """``tensor`` if it fits. Raises :class:`InferenceError` naming what does not."""
        expected = DATATYPES[self.datatype]
        if tensor.dtype != expected:
            raise InferenceError(f"input {self.name!r} has datatype {_name(tensor.dtype)}, must be {self.datatype}")
        fits = tensor.ndim == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, tensor.shape, strict=True)
        )
        if not fits:
            raise InferenceError(
                f"input {self.name!r} has shape {list(tensor.shape)}, must be {list(self.shape)} (-1 is any)"
            )
        return tensor


def from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> np.ndarray:
    """``data``, row-major, flat or nested like ``shape``, as an array. Raises :class:`InferenceError`."""
    dtype = _dtype(name, datatype)
    if not isinstance(data, list):
        raise InferenceError(f"input {name!r}: data must be a list of numbers")
    if _holds_text(data):
        raise InferenceError(f"input {name!r}: data does not hold {datatype} values, or is nested too deep")
    try:
        plain = np.asarray(data)
        kind = plain.dtype.kind
        if dtype.kind in "iu" and kind in "fO":  # integers on both sides of 2**63 do not meet as integers
            exact = np.asarray(data, dtype=object)
            if all(type(value) is int for value in exact.flat):
                plain, kind = exact, "i"
    except (ValueError, OverflowError):
        raise InferenceError(f"input {name!r}: data is nested unevenly or holds no number") from None
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if plain.size and kind not in allowed:
        raise InferenceError(f"input {name!r}: data does not hold {datatype} values")
    if plain.size != math.prod(shape) or (plain.ndim > 1 and plain.shape != shape):
        raise InferenceError(f"input {name!r}: data has shape {list(plain.shape)}, shape says {list(shape)}")
    if dtype.kind in "iu" and plain.size:
        limits = np.iinfo(dtype)
        if plain.min() < limits.min or plain.max() > limits.max:
            raise InferenceError(f"input {name!r}: data leaves the range of {datatype}")
    with np.errstate(over="ignore"):  # beyond the datatype's range is infinity, which the protocol lets be
        return np.ascontiguousarray(plain.astype(dtype).reshape(shape))


def from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> np.ndarray:
    """Raw little-endian, row-major bytes as a read-only array over them. Raises :class:`InferenceError`."""
    dtype = _dtype(name, datatype)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise InferenceError(
            f"input {name!r}: {len(data)} bytes of data, shape {list(shape)} of {datatype} takes {wanted}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def describe(name: str, tensor: np.ndarray) -> dict[str, Any]:
    """The entry of an output, without its data."""
    return {"name": name, "datatype": _name(tensor.dtype), "shape": list(tensor.shape)}


def to_bytes(tensor: np.ndarray) -> memoryview:
    """Little-endian, row-major; over the tensor itself where it is that already."""
    return np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def _holds_text(data: list[Any], depth: int = 1) -> bool:
    """Whether there is text in nested lists, or they go deeper than any tensor. NumPy would give every element the room
    of the longest text: of a body of 100 kB, gigabytes."""
    kinds = set(map(type, data))
    if str in kinds:
        return True
    if list not in kinds:
        return False
    return depth >= MOST_DIMENSIONS or any(_holds_text(part, depth + 1) for part in data if type(part) is list)


def _dtype(name: str, datatype: str) -> np.dtype:
    found = DATATYPES.get(datatype)
    if found is None:
        raise InferenceError(f"input {name!r}: datatype {datatype[:20]!r} is not among {', '.join(DATATYPES)}")
    return found


def _name(dtype: np.dtype) -> str:
    return _NAMES[dtype]
