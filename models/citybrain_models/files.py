"""A folder of files written whole or not at all, with a manifest of their digests, and read back verified."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from citybrain_datasets.errors import CityBrainError
from citybrain_models.onnx_tensors import OnnxFileError, refuse_external_tensors

MANIFEST = "manifest.json"
LARGEST_FILE = 4 * 1024**3
"""Bytes; a larger file is refused before it is read."""


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
            with open(work / name, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        work.chmod(0o755)
        if folder.exists():
            old = work.with_name(work.name + ".old")
            folder.rename(old)
            work.rename(folder)
            shutil.rmtree(old)
        else:
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return sha(manifest)


def read_folder(folder: Path, expected: Mapping[str, Any]) -> tuple[dict[str, bytes], str]:
    """Every file by name, verified, and the manifest's digest. Nothing is unpickled, no link is followed.

    ``expected`` is what the manifest must say of itself, its ``format`` for one. Raises :class:`BundleError`, naming
    the file, for anything missing, altered or foreign.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise BundleError(f"{folder}: is no bundle folder")
    raw = _read(folder / MANIFEST)
    try:
        manifest = json.loads(raw)
        entries: dict[str, dict[str, Any]] = manifest["files"]
        found = {key: manifest[key] for key in expected}
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST}: is no bundle manifest ({error})") from None
    for key, value in expected.items():
        if found[key] != value:
            raise BundleError(f"{folder / MANIFEST}: {key} {found[key]!r}; this version reads {key} {value}")
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if present != set(entries):
        odd = sorted(present ^ set(entries))
        raise BundleError(f"{folder}: files and manifest disagree about {', '.join(odd)}")
    files = {}
    for name, entry in entries.items():
        if Path(name).name != name or not isinstance(entry, dict):
            raise BundleError(f"{folder / MANIFEST}: {name!r} is no plain file name")
        data = _read(folder / name)
        if sha(data) != entry.get("sha256"):
            raise BundleError(f"{folder / name}: SHA-256 does not match the manifest; the file was damaged or changed")
        files[name] = data
    return files, sha(raw)


def refuse_external_data(model: bytes) -> None:
    """Raises :class:`BundleError` unless ``model`` is an ONNX graph whose every tensor lies in these bytes."""
    try:
        refuse_external_tensors(model)
    except OnnxFileError as error:
        raise BundleError(f"model.onnx: {error}") from None


def _read(path: Path) -> bytes:
    """Bytes of a plain file, opened without following links."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None
    with os.fdopen(handle, "rb") as source:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: is no plain file")
        if status.st_size > LARGEST_FILE:
            raise BundleError(f"{path}: {status.st_size} bytes; at most {LARGEST_FILE} are read")
        return source.read()


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


def from_npz(data: bytes) -> dict[str, np.ndarray]:
    """The inverse of :func:`to_npz`. Nothing is unpickled."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
