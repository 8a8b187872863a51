"""Where a command was told to write: what cannot be is known before the work, not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from citybrain_datasets.errors import ConfigError


def writable_folder(path: Path, option: str) -> Path:
    """``path``, made where it is missing. Raises :class:`ConfigError` with its ``option`` where nothing can be written
    into it."""
    _try(path, path, option)
    return path


def writable_file(path: Path, option: str) -> Path:
    """``path``, its folder made where it is missing. Raises :class:`ConfigError` where no file can be written there."""
    _try(path.parent, path, option)
    if path.is_dir():
        raise ConfigError(f"{option} {path}: is a folder, where a file is to be written")
    return path


def _try(folder: Path, path: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise ConfigError(f"{option} {path}: cannot be written to ({folder} is a file)") from None
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written to ({error.strerror})") from None
