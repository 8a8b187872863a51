"""DCRNN's ``adj_mx.pkl``, read without executing anything that is in it.

A pickle is a program. This reader knows lists, dicts, text, numbers and numpy arrays of numbers; each of the
few names such a file may call is replaced by a harmless stand-in of ours, and any other name is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from citybrain_datasets.errors import CityError, Problem


class _DType:
    """Stands in for ``numpy.dtype``: remembers its code and byte order."""

    def __init__(self, code: Any = "f4", *_: Any):
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        self.order: Literal["<", ">"] = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        self.order = ">" if order == ">" else "<"

    def real(self) -> np.dtype:
        found = np.dtype(self.code)
        if found.kind not in "fiub":
            raise pickle.UnpicklingError(f"arrays of {self.code!r} are not allowed")
        return found.newbyteorder(self.order)


class _Array:
    """Stands in for ``numpy.ndarray`` until its bytes are known."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        content = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(content, dtype.real())
        self.value = flat.reshape(tuple(map(int, shape)), order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return str(text).encode("latin-1")


class _Forbidden(Exception):
    """Raised by name lookup, so that the refusal names what was asked for."""


_KNOWN: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Forbidden(f"{module}.{name}")
        return _KNOWN[module, name]


def harmless_load(content: bytes, where: str) -> Any:
    """The data in a pickle of plain containers and numeric arrays. Anything else is refused, unexecuted."""
    try:
        return _plain(_Reader(io.BytesIO(content), encoding="latin1").load())
    except _Forbidden as error:
        raise CityError([Problem(where, f"refused: the pickle calls {error}, which no sensor graph needs")]) from None
    except Exception as error:  # a damaged pickle can raise anything, and all of it means the same
        raise CityError([Problem(where, f"cannot be read as a pickle: {error}")]) from error


def read_sensor_graph(path: Path) -> tuple[list[str], np.ndarray]:
    """Sensor ids in order, and the adjacency ``[from, to]``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CityError([Problem(str(path), f"cannot be read: {error}")]) from error
    found = harmless_load(content, str(path))
    if not (isinstance(found, (list, tuple)) and len(found) == 3 and isinstance(found[2], np.ndarray)):
        raise CityError([Problem(str(path), "is no sensor graph [ids, id to index, matrix]")])
    ids = [i.decode("utf-8") if isinstance(i, bytes) else str(i) for i in found[0]]
    if found[2].shape != (len(ids), len(ids)):
        raise CityError([Problem(str(path), f"has a matrix of {found[2].shape} for {len(ids)} ids")])
    return ids, found[2]


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
