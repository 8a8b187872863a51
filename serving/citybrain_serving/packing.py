"""Arrays of float32 as the store keeps them: shuffled byte by byte, so that they compress, and compressed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from citybrain_serving.errors import StoreUnavailable

_CODEC = pa.Codec("zstd", compression_level=1)


def pack(values: np.ndarray) -> bytes:
    """Float32 values as stored: their count of bytes, then the bytes shuffled (all first bytes, all
    second, …)."""
    plain = np.ascontiguousarray(values, dtype="<f4")
    shuffled = plain.view(np.uint8).reshape(-1, 4).T.tobytes()
    return len(shuffled).to_bytes(4, "little") + bytes(_CODEC.compress(shuffled, asbytes=True))


def unpack(data: bytes, width: int) -> np.ndarray:
    """The inverse of :func:`pack`. Raises :class:`StoreUnavailable` where the frame is damaged."""
    try:
        if _length(data) != 4 * width:
            raise ValueError(f"frame of {_length(data) // 4} values where {width} belong")
        plain = _CODEC.decompress(data[4:], 4 * width, asbytes=True)
        return np.frombuffer(plain, np.uint8).reshape(4, width).T.copy().view("<f4").ravel()
    except (ValueError, OSError) as error:
        raise StoreUnavailable("a stored frame of observations is damaged") from error


def packed_width(data: bytes) -> int:
    """How many values :func:`pack` packed."""
    return _length(data) // 4


def _length(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")
