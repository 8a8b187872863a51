"""A folder of files written whole or not at all, with a manifest of their digests, and read back verified."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.folders import standing, swap_in
from citybrain_models.onnx_tensors import OnnxFileError, refuse_external_tensors

MANIFEST = "manifest.json"
LARGEST_FOLDER = 4 * 1024**3
"""Bytes of all files together; more is refused before it is read."""

LARGEST_MANIFEST = 2**20
CHANGED = "the file was damaged or changed"
MOST_UNPACKED = 2 * 1024**3
"""Bytes that the arrays of one file may take once they are unpacked."""

MOST_CELLS = 200_000_000
"""Rows times columns of a table: run-length encoding packs billions of equal rows into a few bytes."""


class BundleError(CityBrainError):
    """A bundle is damaged, incomplete, of another format or not what it claims."""


def write_folder(folder: Path, files: Mapping[str, bytes], about: Mapping[str, Any]) -> str:
    """Writes ``files`` and their manifest, with ``about`` in it, whole or not at all; returns the manifest's digest.

    Raises :class:`BundleError` where ``folder`` exists and is no bundle: nothing else is ever replaced.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder}: exists and is no bundle; it is left as it is")
    folder.parent.mkdir(parents=True, exist_ok=True)
    entries = {name: {"sha256": sha(data), "bytes": len(data)} for name, data in sorted(files.items())}
    manifest = to_json({**about, "files": entries})
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, data in {**files, MANIFEST: manifest}.items():
            (work / name).write_bytes(data)
        work.chmod(0o755)
        swap_in(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return sha(manifest)


def read_folder(folder: Path, expected: Mapping[str, Any]) -> tuple[dict[str, bytes], str]:
    """Every file by name, verified, and the manifest's digest. Nothing is unpickled, no link is followed.

    ``expected`` is what the manifest must say of itself, its ``format`` for one. Raises :class:`BundleError`, naming
    the file, for anything missing, altered or foreign.
    """
    folder = standing(folder)
    if not folder.is_dir() or folder.is_symlink():
        raise BundleError(f"{folder}: is no bundle folder")
    raw = read_plain(folder / MANIFEST, LARGEST_MANIFEST)
    try:
        manifest = json.loads(raw)
        sizes = {name: int(entry["bytes"]) for name, entry in manifest["files"].items()}
        digests = {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
        found = {key: manifest[key] for key in expected}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST}: is no bundle manifest ({error})") from None
    for key, value in expected.items():
        if found[key] != value:
            raise BundleError(f"{folder / MANIFEST}: {key} {found[key]!r}; this version reads {key} {value}")
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if present != set(sizes):
        odd = sorted(present ^ set(sizes))[:5]
        raise BundleError(f"{folder}: files and manifest disagree about {', '.join(map(ascii, odd))}")
    if not all(size >= 0 for size in sizes.values()) or sum(sizes.values()) > LARGEST_FOLDER:
        raise BundleError(f"{folder / MANIFEST}: its files are over {LARGEST_FOLDER} bytes together")
    files = {}
    for name, size in sizes.items():
        if Path(name).name != name:
            raise BundleError(f"{folder / MANIFEST}: {name!r} is no plain file name")
        data = read_plain(folder / name, size, f"the manifest says {size}; {CHANGED}")
        if sha(data) != digests[name]:
            raise BundleError(f"{folder / name}: SHA-256 does not match the manifest; {CHANGED}")
        files[name] = data
    return files, sha(raw)


def refuse_external_data(model: bytes) -> None:
    """Raises :class:`BundleError` unless ``model`` is an ONNX graph whose every tensor lies in these bytes."""
    try:
        refuse_external_tensors(model)
    except OnnxFileError as error:
        raise BundleError(f"model.onnx: {error}") from None


def read_plain(path: Path, most: int, larger: str = "") -> bytes:
    """At most ``most`` bytes of a plain file that has no other name, opened without following links; ``larger`` is
    what a larger one is told.

    A second name (a hard link) would let whoever writes bundles hand over a file that they cannot read themselves.
    Raises :class:`BundleError`.
    """
    try:  # opening a pipe without O_NONBLOCK would wait for its writer
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise BundleError(f"{path}: is no plain file")
    with os.fdopen(handle, "rb") as source:
        if status.st_nlink > 1:
            raise BundleError(f"{path}: has {status.st_nlink} names (hard links); copy the bundle")
        if status.st_size > most:
            raise BundleError(f"{path}: {status.st_size} bytes; {larger or f'at most {most} are read'}")
        return source.read(most)


def sha(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def to_json(value: Any) -> bytes:
    """The same bytes for the same value."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name, as an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes the keyword allow_pickle for an array name
    return buffer.getvalue()


def from_npz(data: bytes, file: str = "arrays") -> dict[str, np.ndarray]:
    """The inverse of :func:`to_npz`. Nothing is unpickled, and nothing is unpacked beyond :data:`MOST_UNPACKED`.

    Raises :class:`BundleError` for bytes that are no such file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > MOST_UNPACKED:
                raise BundleError(f"{file}: {unpacked} bytes when unpacked; at most {MOST_UNPACKED} are read")
            return {member.filename.removesuffix(".npy"): _array(archive, member, file) for member in members}
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001  # zipfile, zlib and numpy share no class for what is wrong with bytes
        raise BundleError(f"{file}: is no file of arrays: {error!r}") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: str) -> np.ndarray:
    """One array, once its header declares no more than is there: memory is taken for what a header says."""
    with archive.open(member) as source:
        version = np.lib.format.read_magic(source)
        shape, _, kind = _HEADERS[version](source)
        if kind.hasobject:
            raise BundleError(f"{file}: array {member.filename!r} holds pickled objects")
        if math.prod(shape) * kind.itemsize > member.file_size:
            raise BundleError(f"{file}: array {member.filename!r} declares {shape} and brings {member.file_size} bytes")
    with archive.open(member) as source:
        found: np.ndarray = np.lib.format.read_array(source, allow_pickle=False)
        return found


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def from_parquet(data: bytes, file: str = "table") -> pd.DataFrame:
    """A table, of at most :data:`MOST_CELLS`. Raises :class:`BundleError`."""
    try:
        about = pq.read_metadata(io.BytesIO(data))
        cells = about.num_rows * max(1, about.num_columns)
        if cells > MOST_CELLS:
            raise BundleError(f"{file}: {cells} cells; at most {MOST_CELLS} are read")
        return pd.read_parquet(io.BytesIO(data))
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001  # pyarrow and pandas share no class for what is wrong with bytes
        raise BundleError(f"{file}: is no Parquet table: {error!r}") from None
